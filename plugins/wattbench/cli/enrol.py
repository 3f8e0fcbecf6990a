"""A worker host's way into the configuration: pin its key, look at it, name it in hosts.yaml.

Nothing is installed on a host but the agent in its spool, and nothing that is there is overwritten.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import yaml

from wattbench.analysis.model.facts_document import FactsDocument, ProbeFacts, ProblemDocument
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.cli.airflow_api import Connection
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import load_hosts
from wattbench.config.types import NAME_PATTERN
from wattbench.errors import ConfigError, HostError, UserError
from wattbench.local import connections
from wattbench.remote_meters import reader_of
from wattbench.remote_meters.protocol import RemoteSettings
from wattbench.steps import check_host
from wattbench.worker.agent.preparation import script
from wattbench.worker.agent_bundle import meter_kinds
from wattbench.worker.ssh import Host
from wattbench.worker.target import HostTarget, fingerprint

State = Literal["fine", "soft", "hard", "busy"]
#: The keys that wattbench has seen and a person has confirmed, in OpenSSH's format.
KNOWN_HOSTS = "known_hosts"
_STORE = {"conn_id": connections.STORE, "bucket": "wattbench", "prefix": ""}


@dataclass(frozen=True)
class Address:
    """Where a host's sshd is and whom to log in as."""

    user: str
    hostname: str
    port: int = 22

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `user@addr[:port]`; an IPv6 address with a port stands in brackets.

        Raises:
            ConfigError: it is something else.
        """
        found = re.fullmatch(
            r"(?P<user>[A-Za-z0-9._-]+)@(?:\[(?P<six>[0-9A-Fa-f:]+)\]|(?P<name>[A-Za-z0-9._-]+))"
            r"(?::(?P<port>\d{1,5}))?",
            text,
        )
        port = int(found["port"] or 22) if found else 0
        if found is None or not 0 < port < 65536:
            raise ConfigError(f"--ssh {text!r}: write user@address or user@address:port")
        return cls(found["user"], found["six"] or found["name"], port)

    @property
    def known_as(self) -> str:
        """As OpenSSH's known_hosts calls it."""
        return self.hostname if self.port == 22 else f"[{self.hostname}]:{self.port}"


@dataclass(frozen=True)
class Problem:
    """What speaks against measuring on a host, and the next action."""

    code: str
    severity: str
    message: str
    action: str


@dataclass(frozen=True)
class Health:
    """How a host was found.

    Attributes:
        name: its name in hosts.yaml.
        state: worst of its problems; `busy`: a run has it, it was left alone.
        problems: hard ones first.
        facts: what the agent reports; empty if it could not be asked.
    """

    name: str
    state: State
    problems: tuple[Problem, ...] = ()
    facts: FactsDocument = field(default_factory=FactsDocument, repr=False)


# ── the host's key ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class HostKey:
    """A public host key: `kind` and its blob in base64, as known_hosts has them."""

    kind: str
    blob: str

    def __str__(self) -> str:
        return f"{self.kind} {self.blob}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` shows it."""
        import base64

        return fingerprint(base64.b64decode(self.blob))


def offered_key(address: Address, timeout_s: float = 15) -> HostKey:
    """The key that the host shows now; without a login.

    Raises:
        HostError: nothing answers there, or it is not an sshd.
    """
    import paramiko

    place = f"{address.hostname}:{address.port}"
    try:
        with socket.create_connection((address.hostname, address.port), timeout=timeout_s) as sock:
            transport = paramiko.Transport(sock)
            try:
                transport.start_client(timeout=timeout_s)
                key = transport.get_remote_server_key()
            finally:
                transport.close()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise HostError(
            f"{place}: no sshd answers ({error or type(error).__name__}); check address and port, "
            "and that the host is up",
            code="unreachable",
        ) from None
    return HostKey(key.get_name(), key.get_base64())


def refuse_changed_key(address: Address, key: HostKey, files: Iterable[Path]) -> None:
    """Hold a shown key against those that are known for the address.

    Raises:
        HostError: a file has another key of the same kind.
    """
    import paramiko

    for file in files:
        if not file.is_file():
            continue
        known = paramiko.HostKeys()
        with contextlib.suppress(paramiko.SSHException):  # a line of a kind that paramiko lacks
            known.load(str(file))
        entries = known.lookup(address.known_as)
        before = entries.get(key.kind) if entries else None
        if before is not None and before.get_base64() != key.blob:
            raise HostError(
                f"{address.hostname}: its host key changed: {file} has "
                f"{fingerprint(before.asbytes())}, it shows {key.fingerprint}; the connection may be "
                "between; if the host was set up anew, remove its line there: ssh-keygen -f "
                f"{shlex.quote(str(file))} -R {shlex.quote(address.known_as)}",
                code="host-key",
            )


def pin(address: Address, key: HostKey, file: Path) -> None:
    """Remember a confirmed key; a line that is there stays as it is."""
    line = f"{address.known_as} {key}"
    present = file.read_text(encoding="utf-8") if file.exists() else ""
    if line not in present.splitlines():
        gap = "" if not present or present.endswith("\n") else "\n"
        write_atomically(file, f"{present}{gap}{line}\n")


def unpin(address: Address, file: Path) -> bool:
    """Forget the keys of an address; the other lines stay. False: it had none."""
    if not file.exists():
        return False
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.split(maxsplit=1)[:1] != [address.known_as]]
    if kept == lines:
        return False
    write_atomically(file, "".join(kept))
    return True


# ── hosts.yaml ──────────────────────────────────────────────────────────────────────────────────


def refuse_known_name(folder: Path, name: str) -> None:
    """A name is given once.

    Raises:
        ConfigError: it is not a valid name, hosts.yaml has it already, or can't be read.
    """
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > 40:
        raise ConfigError(f"{name!r}: a host's name has small letters, digits and '-', 40 at most")
    path = folder / "hosts.yaml"
    if path.exists() and name in load_hosts(folder).hosts:
        raise ConfigError(
            f"{path}: {name!r} is there already and stays as it is; choose another name, "
            "or remove its entry first"
        )


def add_entry(folder: Path, name: str, entry: Mapping[str, object]) -> Path:
    """Write a host into hosts.yaml, which keeps its other lines and comments; made if missing.

    Raises:
        ConfigError: the name is there, or the file's form allows no addition.
    """
    refuse_known_name(folder, name)
    path = folder / "hosts.yaml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(
            path,
            yaml.safe_dump({"store": _STORE, "hosts": {name: dict(entry)}}, sort_keys=False),
        )
        return path
    before = path.read_text(encoding="utf-8")
    after = _with_entry(before, name, entry)
    if not _reads_as(after, load_hosts(folder).hosts | {name: HostConfig.model_validate(entry)}):
        raise ConfigError(
            f"{path}: its form allows no addition by a program; add by hand: "
            f"{name}: {_one_line(entry)}"
        )
    write_atomically(path, after)
    return path


def remove_entry(folder: Path, name: str) -> Path:
    """Take a host out of hosts.yaml, which keeps its other lines and the comments around the entry.

    Raises:
        ConfigError: it is not there or the only one, or the file's form allows no removal.
    """
    path, hosts = folder / "hosts.yaml", load_hosts(folder).hosts
    if name not in hosts:
        raise ConfigError(f"{path} has no host {name!r} ({', '.join(hosts)})")
    if len(hosts) == 1:
        raise ConfigError(
            f"{path}: {name!r} is its only host, and it needs one; add another first, or remove the file"
        )
    after = _without_entry(path.read_text(encoding="utf-8"), name)
    if not _reads_as(after, {other: hosts[other] for other in hosts if other != name}):
        raise ConfigError(
            f"{path}: its form allows no removal by a program; remove the entry {name!r} by hand"
        )
    write_atomically(path, after)
    return path


def _reads_as(text: str, hosts: Mapping[str, HostConfig]) -> bool:
    """Whether such a hosts.yaml is accepted and has exactly these hosts."""
    with tempfile.TemporaryDirectory() as trial:
        (Path(trial) / "hosts.yaml").write_text(text, encoding="utf-8")
        try:
            return load_hosts(Path(trial)).hosts == hosts
        except ConfigError:
            return False


def _with_entry(text: str, name: str, entry: Mapping[str, object]) -> str:
    """The text with one more host at the end of its block of hosts."""
    hosts = _hosts_node(text)
    indent = " " * hosts.value[0][0].start_mark.column
    lines = text.splitlines(keepends=True)
    end = _last_line(lines, hosts)
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    return "".join([*lines[:end], f"{indent}{name}: {_one_line(entry)}\n", *lines[end:]])


def _without_entry(text: str, name: str) -> str:
    """The text without the lines of a host's entry in a block of hosts."""
    hosts, lines = _hosts_node(text), text.splitlines(keepends=True)
    names = [key.value for key, _ in hosts.value]
    starts = [key.start_mark.line for key, _ in hosts.value]
    ends = [*(_without_comments(lines, start) for start in starts[1:]), _last_line(lines, hosts)]
    place = names.index(name)
    return "".join(lines[: starts[place]] + lines[ends[place] :])


def _hosts_node(text: str) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # load_hosts has read it
    found: yaml.MappingNode = next(v for k, v in root.value if k.value == "hosts")
    return found


def _last_line(lines: Sequence[str], hosts: yaml.MappingNode) -> int:
    """The number of lines up to the last one of a block of hosts."""
    return _without_comments(lines, hosts.end_mark.line + (hosts.end_mark.column > 0))


def _without_comments(lines: Sequence[str], end: int) -> int:
    """The end of an entry without the comments and blank lines behind it: they belong to what follows."""
    while lines[end - 1].strip() == "" or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return end


def _one_line(entry: Mapping[str, object]) -> str:
    text = yaml.safe_dump(dict(entry), default_flow_style=True, sort_keys=False, width=10_000)
    return text.strip()


# ── the Airflow connection ──────────────────────────────────────────────────────────────────────


def connection(address: Address, key: HostKey, key_file: Path | None) -> Connection:
    """An Airflow connection of type SSH that holds the host's key."""
    extra: dict[str, object] = {"host_key": str(key), "no_host_key_check": False}
    if key_file is not None:
        extra["key_file"] = str(key_file)
    return Connection(address.hostname, address.user, address.port, extra)


# ── its health ──────────────────────────────────────────────────────────────────────────────────


def examine(target: HostTarget, config: HostConfig) -> Health:
    """Look at a host; one that a run has leased is left alone.

    Returns:
        Its health; that it can't be reached or asked is a hard problem.
    """
    try:
        with Host(target) as host:
            host.ship()
            lease = host.call("lease", {"action": "show"})
            if lease.get("held"):
                text = f"run {lease.get('owner')} has it; nothing of ours disturbs a measurement"
                return Health(
                    target.name, "busy", (Problem("leased", "info", text, "ask again later"),)
                )
            facts, _, problems = check_host.examine(host, config, config.gpus)
            problems += check_host.unread(
                [reader_of(one) for one in config.remote_meters if one.conn_id is None]
            )
            facts["probes"] = [*facts.get("probes", ()), *map(_needs_login, config.remote_meters)]
    except HostError as error:
        return unreachable(target.name, error, error.code)
    found = [_problem(p) for p in problems]
    found.sort(key=lambda problem: problem.severity != "hard")
    worst: State = "fine"
    if found:
        worst = "hard" if found[0].severity == "hard" else "soft"
    return Health(target.name, worst, tuple(found), facts)


def _needs_login(meter: RemoteSettings) -> ProbeFacts:
    """What is not known here of a meter on the network: its login is in Airflow."""
    if meter.conn_id is None:
        return {"code": "meter-failed", "severity": "fine", "message": ""}
    text = (
        f"meter {meter.name}: the task check of a run reads it, with the login of {meter.conn_id}"
    )
    return {"code": "meter-failed", "severity": "unknown", "message": text}


def unreachable(name: str, error: UserError, code: str = "connection") -> Health:
    """The health of a host that could not be looked at."""
    what, _, action = str(error).partition("; ")
    return Health(name, "hard", (Problem(code, "hard", what, action),))


def _problem(found: ProblemDocument) -> Problem:
    return Problem(found["code"], found["severity"], found["message"], found.get("action") or "")


def with_problem(health: Health, problem: ProblemDocument) -> Health:
    """A host's health and one soft problem more."""
    more = _problem(problem)
    state: State = "soft" if health.state == "fine" else health.state
    return replace(health, state=state, problems=(*health.problems, more))


def preparation(health: Health, user: str, config: HostConfig) -> list[str]:
    """The commands, for root on the host, that make it fit; only what it lacks.

    Where the host could not be asked, everything that a new host needs.
    """
    facts, codes = health.facts, {problem.code for problem in health.problems}
    steps: list[str] = []
    if not facts or "docker-unreachable" in codes:
        steps.append("docker")
    if not facts:
        steps.append("spool")
    if not facts or "meter-failed" in codes:
        for meter in config.all_meters:
            if meter.kind in meter_kinds():
                steps += meter_kinds()[meter.kind].preparation()
    if config.gpus or facts.get("gpu"):
        steps.append("nvidia")
    governor = facts.get("cpu", {}).get("governor")
    if not facts or (governor is not None and governor != "performance"):
        steps.append("governor")
    own = config.agent_meter
    program = ((own and own.argv) or [""])[0]
    return script(dict.fromkeys(steps), user=user, spool=config.spool, program=program)


def worst_of(healths: Sequence[Health]) -> int:
    """The exit code: 0 all fine (or busy), 1 soft problems, 2 hard ones."""
    return max(({"fine": 0, "busy": 0, "soft": 1, "hard": 2}[h.state] for h in healths), default=0)
