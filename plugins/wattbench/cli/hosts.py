"""``wattbench host add | check | release | remove``: worker hosts."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model.errors import UserError
from wattbench.cli.options import client_of, file, login
from wattbench.cli.output import columns, say
from wattbench.errors import ConfigError
from wattbench.worker.agent import limits
from wattbench.worker.agent_bundle import meter_kinds

if TYPE_CHECKING:
    from wattbench.cli.airflow_api import Client, Connection
    from wattbench.cli.enrol import Address, Health, HostKey
    from wattbench.config.hosts import HostConfig, HostsConfig
    from wattbench.worker.target import HostTarget

_CONNECT_S = 15.0
#: Causes of a host that could not be examined: it is not added.
_NO_WAY_IN = ("auth", "host-key", "unreachable", "timeout", "lost")


def add_parsers(commands: Any) -> None:
    """Add the command with its four subcommands."""
    airflow, key = login(), argparse.ArgumentParser(add_help=False)
    key.add_argument("--key", type=file, metavar="FILE", help="private key to log in with")
    hosts = commands.add_parser(
        "host", help="add, check, free, remove worker hosts"
    ).add_subparsers(metavar="COMMAND", required=True)
    command = hosts.add_parser(
        "add", parents=[key, airflow], help="add a host, pin its key, list what it lacks",
        description="Connects, shows the host's key for comparison, pins it, writes hosts.yaml, makes "
        "the Airflow connection (or prints it), and prints the commands that the host still needs. "
        "Installs nothing; overwrites nothing.",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME", help="small letters, digits and '-'")
    command.add_argument("--ssh", required=True, metavar="USER@ADDR[:PORT]")
    command.add_argument("--yes", action="store_true", help="trust the key that is shown")
    command.add_argument("--fingerprint", metavar="SHA256:…", help="trust this key and no other")
    command.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="UUID",
        help="a GPU for trials; repeat for several",
    )
    command.add_argument(
        "--meter",
        default="energibridge",
        metavar="KIND",
        help="energibridge, or another that `wattbench explain hosts.NAME.meter.kind` lists",
    )
    command.add_argument("--meter-command", metavar="PATH", help="the meter's program there")
    command.add_argument("--spool", metavar="PATH", help=f"raw logs there ({limits.DEFAULT_SPOOL})")
    command.add_argument("--python", metavar="PATH", help="Python 3.9 or newer there (python3)")
    command.set_defaults(do=_add)
    command = hosts.add_parser(
        "check", parents=[key, airflow], help="which hosts are fit; what to do for the others",
        description="A table of problems: hard ones keep a host out of runs, soft ones stand beside its "
        "numbers. A host that a run holds is not examined. Exit code 0 fine, 1 soft, 2 hard.",
    )  # fmt: skip
    command.add_argument("names", nargs="*", metavar="NAME", help="all of hosts.yaml if none")
    command.set_defaults(do=_check)
    command = hosts.add_parser(
        "release", parents=[key, airflow], help="release a host that a run still holds",
        description="Release a host's lease, whichever run holds it. Raw logs stay there until they are "
        "collected. Exit code 0 free, 1 free but raw logs still lie there.",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--force", action="store_true", help="end an attempt that is being measured"
    )
    command.set_defaults(do=_release)
    command = hosts.add_parser(
        "remove", parents=[airflow], help="remove a host, its pinned key and its connection",
        description="Remove a host from hosts.yaml, its pinned key and its Airflow connection; runs that "
        "were measured on it stay. Refuses while a run has the host, or an experiment names it. Exit "
        "code 1: removed, but its connection stays.",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME")
    command.add_argument("--yes", action="store_true", help="without a question")
    command.add_argument(
        "--force", action="store_true", help="also while a run has it or an experiment names it"
    )
    command.set_defaults(do=_remove, key=None)


def _add(options: argparse.Namespace) -> int:
    from wattbench.cli import enrol
    from wattbench.config.hosts import HostConfig
    from wattbench.config.loader import config_dir

    folder, name = config_dir(), options.name
    address = enrol.Address.parse(options.ssh)
    enrol.refuse_known_name(folder, name)
    entry = _entry(options)
    config = HostConfig.model_validate(entry)
    conn_id, client = config.ssh_conn_id, client_of(options, needed=False)
    key = enrol.offered_key(address)
    pins = folder / enrol.KNOWN_HOSTS
    enrol.refuse_changed_key(address, key, [pins, Path("~/.ssh/known_hosts").expanduser()])
    if client is not None:
        _refuse_other_connection(client, conn_id, address, key)
    _confirm(name, address, key, options)
    target = _target(name, address, key, config, options.key)
    health = enrol.examine(target, config)
    if any(problem.code in _NO_WAY_IN for problem in health.problems):
        raise UserError(f"{health.problems[0].message}; {health.problems[0].action}")
    enrol.pin(address, key, pins)
    path = enrol.add_entry(folder, name, entry)
    say(f"{path}: {name} is added; its key is pinned in {pins}")
    _connect(client, conn_id, enrol.connection(address, key, options.key))
    say()
    say(_table([health]))
    if commands := enrol.preparation(health, address.user, config):
        say(f"\nAs root on {address.hostname} (nothing was installed or changed there):\n")
        say("\n".join(f"  {command}" for command in commands))
        say(f"\nthen: wattbench host check {name}")
    return enrol.worst_of([health])


def _entry(options: argparse.Namespace) -> dict[str, Any]:
    from pydantic import ValidationError

    from wattbench.config.hosts import HostConfig
    from wattbench.local.connections import connection_id

    entry: dict[str, Any] = {"ssh_conn_id": connection_id(options.name), "gpus": options.gpu}
    meter: dict[str, Any] = {"kind": options.meter}
    kind = meter_kinds().get(options.meter)
    if kind and kind.wraps and (command := options.meter_command or kind.default_command):
        meter["command"] = command
    entry["meter"] = meter
    for key in ("spool", "python"):
        if (value := getattr(options, key)) is not None:
            entry[key] = value
    try:
        HostConfig.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "meter"
        raise ConfigError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
    return entry


def _target(
    name: str,
    address: Address,
    key: object,
    config: HostConfig,
    key_file: Path | None,
) -> HostTarget:
    from wattbench.worker.target import HostTarget

    return HostTarget(
        name=name, hostname=address.hostname, port=address.port, username=address.user,
        private_key=None if key_file is None else _text_of(key_file),
        host_key=None if key is None else str(key), spool=config.spool, python=config.python,
        connect_timeout_s=_CONNECT_S,
    )  # fmt: skip


def _text_of(key_file: Path) -> str:
    try:
        return key_file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--key {key_file}: can't be read as a private key ({error})") from None


def _confirm(name: str, address: Address, key: HostKey, options: argparse.Namespace) -> None:
    """Let a person compare the key's fingerprint.

    Raises:
        UserError: it is not the one, or there is no terminal to confirm it on.
    """
    say(f"{name} ({address.hostname}:{address.port}) shows this key:\n")
    say(f"  {key.kind} {key.fingerprint}\n")
    if options.fingerprint is not None:
        if options.fingerprint != key.fingerprint:
            raise UserError(
                f"{name}: its fingerprint is {key.fingerprint}, not {options.fingerprint} as given; "
                "nothing was written: find out which machine answers there"
            )
        return
    if options.yes:
        return
    file = f"/etc/ssh/ssh_host_{key.kind.split('-')[1]}_key.pub"
    say(f"Compare it on the host's own console: ssh-keygen -lf {file}")
    if not sys.stdin.isatty():
        raise UserError(
            f"{name}: there is no terminal to confirm the key on; compare it, then give "
            f"--fingerprint {key.fingerprint}"
        )
    if input("Is this the host's key? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError(f"{name}: key not confirmed; nothing was written")


def _refuse_other_connection(client: Client, conn_id: str, address: Address, key: HostKey) -> None:
    """A connection of that id must be this very host's, by the same key."""
    found = client.connection(conn_id)
    if found is None:
        return
    if (found.host, found.port) != (address.hostname, address.port):
        raise UserError(
            f"Airflow's connection {conn_id!r} belongs to {found.host}:{found.port}; it stays as it is: "
            "choose another name"
        )
    pinned = str(found.extra.get("host_key") or "")
    if pinned and pinned.split()[:2] != [key.kind, key.blob]:
        raise UserError(
            f"{address.hostname}: its host key changed: Airflow's connection {conn_id!r} has another, it "
            f"shows {key.fingerprint}; the connection may be intercepted; if the host was set up anew, put "
            "the new key into the connection"
        )


def _connect(client: Client | None, conn_id: str, connection: Connection) -> None:
    """Create the Airflow connection where we are logged in, else say how."""
    import json

    if client is not None:
        if client.connection(conn_id) is None:
            client.add_connection(conn_id, connection)
            say(f"Airflow: connection {conn_id} made")
        else:
            say(f"Airflow: connection {conn_id} exists already and is not changed")
    else:
        document = shlex.quote(json.dumps(connection.document()))
        say("\nNot logged in to Airflow; where its command line is:\n")
        say(f"  airflow connections add {conn_id} --conn-json {document}")
    if "key_file" not in connection.extra:
        say(
            "The connection names no private key: Airflow's tasks use their own user's keys; "
            "name one with --key, or put private_key into the connection's extra."
        )


def _check(options: argparse.Namespace) -> int:
    from wattbench.cli import enrol
    from wattbench.config.loader import config_dir, load_hosts
    from wattbench.steps import check_host

    hosts = load_hosts(config_dir())
    names = options.names or list(hosts.hosts)
    _refuse_unknown(names, hosts)
    client = client_of(options, needed=False)
    if options.key is not None:
        _text_of(options.key)
    targets = [_target_or_health(name, hosts, client, options.key) for name in names]

    def look(target: HostTarget | Health) -> Health:
        if isinstance(target, enrol.Health):
            return target
        return enrol.examine(target, hosts.hosts[target.name])

    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(look, targets))
    found = _with_standing(found, hosts)
    say(_table(found))
    for text, hosts_of in check_host.unknown_on([(h.name, h.facts) for h in found]).items():
        where = "all hosts" if len(hosts_of) == len(found) > 1 else ", ".join(hosts_of)
        say(f"\nunknown on {where}: {text}")
    return enrol.worst_of(found)


def _refuse_unknown(names: Sequence[str], hosts: HostsConfig) -> None:
    for name in names:
        if name not in hosts.hosts:
            raise ConfigError(
                f"hosts.yaml has no host {name!r} ({', '.join(hosts.hosts)}); add it: wattbench host add"
            )


def _target_or_health(
    name: str, hosts: HostsConfig, client: Client | None, key: Path | None
) -> HostTarget | Health:
    """The way to a host, or its health where there is none: the other hosts are looked at all the same."""
    from wattbench.cli import enrol

    try:
        return _known_target(name, hosts, client, key)
    except UserError as error:
        return enrol.unreachable(name, error)


def _release(options: argparse.Namespace) -> int:
    """Free a host by hand; 0 if nothing is left to do, 1 if raw logs still lie there."""
    from wattbench.airflow.connections import open_store
    from wattbench.cli import host_release
    from wattbench.config.loader import config_dir, load_hosts

    hosts = load_hosts(config_dir())
    _refuse_unknown([options.name], hosts)
    target = _known_target(options.name, hosts, client_of(options, needed=False), options.key)
    found = host_release.release(target, force=options.force)
    for attempt in found.ended:
        say(f"{options.name}: {attempt} was being measured: ended")
    say(
        f"{options.name}: released, {found.owner} had it"
        if found.owner
        else f"{options.name}: is free"
    )
    try:
        host_release.expire_claims(open_store(hosts), options.name)
    except UserError as error:
        say(
            f"runs that wait for it may go on waiting until its claim expires: {error}",
            to_stderr=True,
        )
    if found.left:
        say(
            f"{len(found.left)} attempts still lie there, {found.left[0]} for one; Airflow's "
            "wattbench-housekeeping collects them once their run is over"
        )
    return 1 if found.left else 0


def _remove(options: argparse.Namespace) -> int:
    """Undo `host add`; 1 if the connection could not be removed."""
    from wattbench.cli import enrol, host_remove
    from wattbench.config.loader import config_dir, load_hosts

    folder, name = config_dir(), options.name
    hosts = load_hosts(folder)
    _refuse_unknown([name], hosts)
    reasons = host_remove.reasons_against(name, folder, hosts)
    if reasons and not options.force:
        raise UserError(
            f"{name} stays: {'; '.join(reasons)}; give --force to remove it all the same"
        )
    client = client_of(options, needed=False)
    addresses = {other: _address_of(other, hosts, client) for other in hosts.hosts}
    for reason in reasons:
        say(f"{name}: {reason}", to_stderr=True)
    _confirm_removal(name, options)
    path = enrol.remove_entry(folder, name)
    say(f"{path}: {name} is removed; what was measured on it stays")
    say(host_remove.forget_key(name, addresses, folder / enrol.KNOWN_HOSTS))
    conn_id = hosts.hosts[name].ssh_conn_id
    users = [n for n, host in hosts.hosts.items() if host.ssh_conn_id == conn_id and n != name]
    if users:
        say(f"Airflow: connection {conn_id} stays, {', '.join(users)} has it too")
        return 0
    return host_remove.forget_connection(client, conn_id)


def _address_of(name: str, hosts: HostsConfig, client: Client | None) -> Address | None:
    """Where a host is; None: no connection that can be read here says so."""
    from wattbench.cli.enrol import Address

    try:
        target = _known_target(name, hosts, client, None)
    except UserError:
        return None
    return Address(target.username, target.hostname, target.port)


def _confirm_removal(name: str, options: argparse.Namespace) -> None:
    """Ask before anything is removed.

    Raises:
        UserError: not confirmed.
    """
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{name} stays: there is no terminal to confirm it on; give --yes")
    if input(f"Remove {name}? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError(f"{name} stays: not confirmed")


def _with_standing(found: Sequence[Health], hosts: HostsConfig) -> list[Health]:
    """Quarantine beside what was found, where the store can be reached from here."""
    from wattbench.airflow.connections import open_store
    from wattbench.cli import enrol
    from wattbench.history import quarantine as health

    try:
        store = open_store(hosts)
        standings = [health.standing_of(store, h.name, hosts.hosts[h.name]) for h in found]
    except UserError as error:
        say(f"whether a host is in quarantine is not shown: {error}", to_stderr=True)
        return list(found)
    return [
        enrol.with_problem(h, health.problem(standing)) if standing.quarantined else h
        for h, standing in zip(found, standings, strict=True)
    ]


def _known_target(
    name: str, hosts: HostsConfig, client: Client | None, key: Path | None
) -> HostTarget:
    """The way to a host: by Airflow's connection, from this machine or else from the REST API."""
    from wattbench.airflow.connections import host_target
    from wattbench.cli.enrol import Address

    try:
        found = host_target(name, hosts)
        overrides: dict[str, Any] = {"connect_timeout_s": _CONNECT_S}
        if key is not None:
            overrides |= {"key_filename": None, "private_key": _text_of(key)}
        return replace(found, **overrides)
    except ConfigError as error:
        conn_id = hosts.hosts[name].ssh_conn_id
        shown = None if client is None else client.connection(conn_id)
        if shown is None or not shown.host:
            raise ConfigError(
                f"{str(error).partition(';')[0]} on this machine, nor over the REST API; call this where "
                "Airflow runs, or log in (WATTBENCH_AIRFLOW_URL …)"
            ) from None
    address = Address(shown.login or "root", shown.host, shown.port)
    return _target(name, address, shown.extra.get("host_key"), hosts.hosts[name], key)


def _table(found: Sequence[Health]) -> str:
    """One line per problem: host, state, what it is, the next action."""
    rows = [("HOST", "STATE", "PROBLEM", "NEXT ACTION")]
    for health in found:
        if not health.problems:
            rows.append((health.name, "fine", "–", "–"))
        for number, problem in enumerate(health.problems):
            rows.append(
                (
                    health.name if number == 0 else "",
                    "busy" if health.state == "busy" else problem.severity,
                    problem.message,
                    problem.action or "–",
                )
            )
    return columns(rows)
