"""`wattbench`: hosts, runs, reports and analyses from a terminal.

The analysis commands need only what every installation has. Of the others, all but `host` and `plan` speak
to Airflow's REST API alone, so they work from any machine that can reach Airflow. Each command imports what
it needs when it runs.
"""

from __future__ import annotations

import argparse
import getpass
import importlib
import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.analysis.commands import COMMANDS
from wattbench.analysis.model.errors import UserError, missing_package
from wattbench.cli import experiments, follow, measure
from wattbench.cli.output import columns, say
from wattbench.errors import ConfigError
from wattbench.worker.agent import limits
from wattbench.worker.agent_bundle import meter_kinds

if TYPE_CHECKING:
    from wattbench.cli.airflow_api import Client
    from wattbench.cli.enrol import Address, Health, HostKey
    from wattbench.config.experiment import Protocol
    from wattbench.config.hosts import HostConfig, HostsConfig
    from wattbench.dag_runs import Run, Task
    from wattbench.worker.target import HostTarget

_CONNECT_S = 15.0
#: Causes of a host that nobody could look at: it is not added.
_NO_WAY_IN = ("auth", "host-key", "unreachable", "timeout", "lost")

_ABOUT = """\
Which Docker image runs this ML workload on the least energy, and how sure are we?

  on this machine       wattbench measure IMAGE IMAGE -- COMMAND

  first a host          wattbench host add gpu-a --ssh bench@gpu-a.example
  is it fit?            wattbench host check
  what would be run     wattbench plan nightly
  run it, and wait      wattbench run nightly --wait
  how far is it?        wattbench status
  why did it fail?      wattbench logs nightly
  the answer            wattbench report nightly --out out

without an Airflow
  report of a run       wattbench report s3://wattbench/runs/RUN_ID --out out
  runs side by side     wattbench compare RUN RUN --out out
  somebody's campaign   wattbench audit CAMPAIGN --out out
  an image's contents   wattbench image REF
  trials needed         wattbench power --effect 1

A RUN is a run id (nightly-20260102T010000Z-1a2b3c) or an experiment: then its newest run.
"""
_RUN_REPORT = """\
Where SOURCE is a run id or an experiment in Airflow, its report is downloaded, each file held against its
SHA-256, into a new folder DIR. Where an address of Airflow is given, a name without "/" is such a run."""
_LOGIN = """\
Airflow is found and entered by WATTBENCH_AIRFLOW_URL, WATTBENCH_AIRFLOW_USER and WATTBENCH_AIRFLOW_PASSWORD
(or WATTBENCH_AIRFLOW_TOKEN); a password that is not given is asked for. hosts.yaml and experiments/ lie in
the folder that WATTBENCH_CONFIG names, else in config/ (of the checkout, or here).

exit codes: 0 done; 1 done, and something is wrong (a failed run, a host with soft problems);
            2 could not be done, or a host that is not fit: one line on stderr says why and what to do
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0, 1 or 2, see the help.
    """
    words, command = _split(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words, argparse.Namespace(command=command))
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its troubles come as our errors
    try:
        return int(options.do(options))
    except UserError as error:
        sys.stderr.write(f"wattbench: {error}\n")
        return 2
    except ModuleNotFoundError as error:
        sys.stderr.write(f"wattbench: {missing_package(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("wattbench: stopped; what runs in Airflow runs on\n")
        return 2
    except BrokenPipeError:  # `wattbench logs … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the command line, and the command that `measure` has after `--`."""
    words = list(argv)
    if words[:1] != ["measure"] or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


# ── hosts ───────────────────────────────────────────────────────────────────────────────────────


def _host_add(options: argparse.Namespace) -> int:
    from wattbench.cli import enrol
    from wattbench.config.hosts import HostConfig
    from wattbench.config.loader import config_dir

    folder, name = config_dir(), options.name
    address = enrol.Address.parse(options.ssh)
    enrol.refuse_known_name(folder, name)
    entry = _entry(options)
    config = HostConfig.model_validate(entry)
    conn_id, client = config.ssh_conn_id, _client(options, needed=False)
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
    say(f"{path}: {name} is in; its key is pinned in {pins}")
    _connect(client, conn_id, enrol.connection(address, key, options.key))
    say()
    say(_table([health]))
    if commands := enrol.preparation(health, address.user, config):
        say(f"\nAs root on {address.hostname} (nothing was installed, nothing changed there):\n")
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
    key: HostKey | str | None,
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
        UserError: it is not the one, or nobody is there to say so.
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
            f"{name}: nobody is here to confirm the key; compare it, then give "
            f"--fingerprint {key.fingerprint}"
        )
    if input("Is this the host's key? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError(f"{name}: key not confirmed; nothing was written")


def _refuse_other_connection(client: Client, conn_id: str, address: Address, key: HostKey) -> None:
    """A connection of that id must be this very host's, by the same key."""
    import json

    found = client.connection(conn_id)
    if found is None:
        return
    there = (found.get("host"), found.get("port") or 22)
    if there != (address.hostname, address.port):
        raise UserError(
            f"Airflow's connection {conn_id!r} belongs to {there[0]}:{there[1]}; it stays as it is: "
            "choose another name"
        )
    try:
        pinned = json.loads(found.get("extra") or "{}").get("host_key")
    except ValueError:
        pinned = None
    if pinned and pinned.split()[:2] != [key.kind, key.blob]:
        raise UserError(
            f"{address.hostname}: its host key changed: Airflow's connection {conn_id!r} has another, it "
            f"shows {key.fingerprint}; somebody may be in between; if the host was set up anew, put "
            "the new key into the connection"
        )


def _connect(client: Client | None, conn_id: str, connection: Mapping[str, Any]) -> None:
    """Create the Airflow connection where we are logged in, else say how."""
    import json

    extra = dict(connection["extra"])
    if client is not None:
        if client.connection(conn_id) is None:
            client.add_connection(
                {"connection_id": conn_id, **connection, "extra": json.dumps(extra)}
            )
            say(f"Airflow: connection {conn_id} made")
        else:
            say(f"Airflow: connection {conn_id} is there already and stays as it is")
    else:
        document = shlex.quote(json.dumps({**connection, "extra": extra}))
        say("\nNot logged in to Airflow; where its command line is:\n")
        say(f"  airflow connections add {conn_id} --conn-json {document}")
    if "key_file" not in extra:
        say(
            "The connection names no private key: Airflow's tasks use their own user's keys; "
            "name one with --key, or put private_key into the connection's extra."
        )


def _host_check(options: argparse.Namespace) -> int:
    from wattbench.cli import enrol
    from wattbench.config.loader import config_dir, load_hosts
    from wattbench.steps import check_host

    hosts = load_hosts(config_dir())
    names = options.names or list(hosts.hosts)
    for name in names:
        if name not in hosts.hosts:
            raise ConfigError(
                f"hosts.yaml has no host {name!r} ({', '.join(hosts.hosts)}); add it: wattbench host add"
            )
    client = _client(options, needed=False)
    targets = [_known_target(name, hosts, client, options.key) for name in names]
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(enrol.examine, targets, [hosts.hosts[name] for name in names]))
    found = _with_standing(found, hosts)
    say(_table(found))
    for text, hosts_of in check_host.unknown_on([(h.name, h.facts) for h in found]).items():
        where = "all hosts" if len(hosts_of) == len(found) > 1 else ", ".join(hosts_of)
        say(f"\nnot known of {where}: {text}")
    return enrol.worst_of(found)


def _host_release(options: argparse.Namespace) -> int:
    """Free a host by hand; 0 if nothing is left to do, 1 if raw logs still lie there."""
    from wattbench.airflow.connections import open_store
    from wattbench.cli import host_release
    from wattbench.config.loader import config_dir, load_hosts

    hosts = load_hosts(config_dir())
    if options.name not in hosts.hosts:
        raise ConfigError(f"hosts.yaml has no host {options.name!r} ({', '.join(hosts.hosts)})")
    target = _known_target(options.name, hosts, _client(options, needed=False), options.key)
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
    """The way to a host: by Airflow's connection, as this machine or else the REST API tells it."""
    import json

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
        if shown is None or not shown.get("host"):
            raise ConfigError(
                f"{str(error).partition(';')[0]} on this machine, nor over the REST API; call this where "
                "Airflow runs, or log in (WATTBENCH_AIRFLOW_URL …)"
            ) from None
    address = Address(shown.get("login") or "root", shown["host"], shown.get("port") or 22)
    pinned = json.loads(shown.get("extra") or "{}").get("host_key")
    return _target(name, address, pinned, hosts.hosts[name], key)


def _table(found: Sequence[Health]) -> str:
    """One line a problem: host, state, what it is, the next action."""
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


# ── runs ────────────────────────────────────────────────────────────────────────────────────────


def _run(options: argparse.Namespace) -> int:
    client = _client(options)
    dag = client.dag(options.experiment)
    if dag is None:
        known = ", ".join(client.experiments()) or "none"
        raise UserError(
            f"Airflow at {client.login.url} has no experiment {options.experiment!r} (there: {known}); "
            "its file belongs in experiments/"
        )
    if dag["is_paused"] and dag.get("timetable_summary") and not options.unpause:
        raise UserError(
            f"{options.experiment} is paused, and has a schedule ({dag['timetable_summary']}) that would "
            "start again too; give --unpause if that is meant"
        )
    conf = {k: getattr(options, k) for k in ("hosts", "images", "blocks", "seed", "finish_by")}
    run = client.trigger(
        options.experiment,
        {k: v for k, v in conf.items() if v is not None},
        release=bool(dag["is_paused"]),
    )
    say(run.run_id)
    say(f"{client.login.url}/dags/{run.dag_id}/runs/{run.id}", to_stderr=True)
    return follow.follow(client, run) if options.wait else 0


def _status(options: argparse.Namespace) -> int:
    from wattbench.progress import spoken

    client = _client(options)
    if options.run is None:
        return _newest(client, options.limit)
    run = client.find(options.run)
    tasks = client.tasks(run)
    say(f"{run.run_id}: {run.state}")
    rows = [("HOST", "TRIALS", "LEFT", "NOW")]
    for line in follow.progress(client, run, tasks):
        trials = f"{line.done} of {line.total}" if line.total else "–"
        left = "–" if line.left_s is None else f"about {spoken(line.left_s)}"
        detail = line.detail.partition(", about")[0]
        rows.append((line.host, trials, left, line.stage + (f" · {detail}" if detail else "")))
    say(columns(rows))
    return follow.outcome(client, run, tasks) if run.over else 0


def _newest(client: Client, limit: int) -> int:
    """One line a run, the newest first."""
    ours = client.experiments()
    runs = sorted(
        (run for dag_id in ours for run in client.runs(dag_id, limit)),
        key=lambda run: run.run_after,
        reverse=True,
    )[:limit]
    if not runs:
        known = ", ".join(ours) or "none: its file belongs in experiments/"
        say(f"no runs yet; experiments: {known}")
        return 0
    rows = [("RUN", "STATE", "TRIALS")]
    for run in runs:
        trials = "–"
        if not run.over:
            at = follow.progress(client, run, client.tasks(run))
            trials = ", ".join(f"{p.host} {p.done}/{p.total}" for p in at if p.total) or "–"
        rows.append((run.run_id, run.state, trials))
    say(columns(rows))
    return 0


def _logs(options: argparse.Namespace) -> int:
    from wattbench.cli.airflow_api import reasons

    client = _client(options)
    run = client.find(options.run)
    tasks = client.tasks(run)
    if options.task is None:
        failed = list(reasons(client, run, tasks, limit=50))
        say(f"{run.run_id}: {run.state}, {len(failed)} tasks failed")
        for line in failed:
            say(f"  {line}")
        return 1 if failed else 0
    for line in client.log(run, _task_named(options.task, run, tasks)):
        stamp = str(line.get("timestamp") or "")[:19].replace("T", " ")
        level = str(line.get("level") or "")
        say(f"{stamp:<19} {level:<8} {line['event']}".rstrip())
        for detail in line.get("error_detail") or ():
            say(f"{'':<19} {detail.get('exc_type', '')}: {detail.get('exc_value', '')}")
    return 0


def _task_named(name: str, run: Run, tasks: Sequence[Task]) -> Task:
    """A task by its name, its name's end, or its label.

    Raises:
        UserError: none or several are meant.
    """
    exact = [task for task in tasks if name in (task.name, task.task_id)]
    near = [
        task for task in tasks
        if task.name.endswith(f".{name}") or task.task_id.endswith(f".{name}")
        or (task.label and task.label.endswith(name))
    ]  # fmt: skip
    found = exact or near
    if len(found) == 1:
        return found[0]
    shown = ", ".join(task.name for task in (found or tasks)[:12])
    what = f"{len(found)} tasks are called {name!r}" if found else f"no task {name!r}"
    raise UserError(f"{run.run_id}: {what}; name one of: {shown}{' …' if len(tasks) > 12 else ''}")


def _report(options: argparse.Namespace) -> int:
    """Make a report from a place, or fetch the one that a run in Airflow has."""
    from wattbench.analysis.commands import report

    if _is_place(options):
        return report.run(options)
    if options.out is None and options.format == "html":
        raise UserError("--out DIR is missing; name a new folder")
    from wattbench.cli.report_download import fetch_report
    from wattbench.run.run_id import parse_run_id

    client = _client(options)
    run_id = options.source
    if parse_run_id(run_id) is None:
        run_id = client.find(run_id).run_id
    if options.format == "html":
        page = fetch_report(client, run_id, options.out)
        text = page.with_name("report.txt")
        if text.is_file():  # reports of earlier versions have none
            say(text.read_text(encoding="utf-8"))
        say(str(page))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        page = fetch_report(client, run_id, options.out or Path(folder, "report"))
        say(page.with_name("report.md").read_text(encoding="utf-8").rstrip("\n"))
    return 0


def _is_place(options: argparse.Namespace) -> bool:
    """Whether SOURCE is a folder or s3:// place, not the name of a run in Airflow.

    A bare name may be both: where an Airflow is named it is a run, and ./NAME the folder.
    """
    source: str = options.source
    if source.startswith("s3://") or not re.fullmatch(r"[\w-]+", source):
        return True
    return not _airflow_url(options) and Path(source).is_dir()


# ── plans ───────────────────────────────────────────────────────────────────────────────────────


def _plan(options: argparse.Namespace) -> int:
    from wattbench.config.loader import config_dir, load_experiment, load_hosts
    from wattbench.config.trigger import Selection, select
    from wattbench.history.durations import least_pace
    from wattbench.progress import spoken
    from wattbench.run.plan import make_plan, seed_of
    from wattbench.run.run_id import make_run_id

    folder = config_dir()
    given = Path(options.experiment)
    path = given if given.suffix else folder / "experiments" / f"{options.experiment}.yaml"
    if not path.is_file():
        there = ", ".join(p.stem for p in sorted((folder / "experiments").glob("*.yaml")))
        raise ConfigError(f"{path}: no such experiment; there are: {there or 'none'}")
    selection = Selection(
        hosts=options.hosts, images=options.images, blocks=options.blocks, seed=options.seed
    )
    experiment, _, _ = select(load_experiment(path, load_hosts(folder)), selection)
    example = make_run_id(path.stem, path.stem, "example", datetime(2026, 1, 1, tzinfo=UTC))
    seed = seed_of(experiment.seed, example)
    drawn = "" if experiment.seed is not None else " (an example: each run draws its own)"
    protocol = experiment.protocol
    say(f"{path.stem}: {len(experiment.images)} images, {_blocks(protocol)}, seed {seed}{drawn}")
    for host in experiment.hosts:
        trials = make_plan(list(experiment.images), protocol, host, seed)
        least = least_pace(protocol).all_s(trials)
        say(f"\n{host}: {len(trials)} trials, at least {spoken(least)} of rest and idling")
        for block in sorted({trial.block for trial in trials}):
            labels = "  ".join(trial.label for trial in trials if trial.block == block)
            say(f"  block {block:>2}  {labels}")
    return 0


def _blocks(protocol: Protocol) -> str:
    blocks = protocol.blocks
    if isinstance(blocks, int):
        return f"{blocks} blocks"
    return f"{blocks.min} to {blocks.max} blocks (until ± {blocks.precision_pct:g} %)"


# ── underneath ──────────────────────────────────────────────────────────────────────────────────


def _client(options: argparse.Namespace, *, needed: bool = True) -> Any:
    """Airflow's REST API as the user; None where it is not needed and no address is given.

    Raises:
        UserError: an address or a login is missing.
    """
    from wattbench.cli.airflow_api import Client, Login

    url = _airflow_url(options)
    if not url:
        if not needed:
            return None
        if (found := measure.local_client()) is not None:
            return found
        raise UserError(
            "where is Airflow? give --url http://HOST:8080, or set WATTBENCH_AIRFLOW_URL (or start one "
            "on this machine: wattbench up)"
        )
    if not re.match(r"https?://[^/]", url):
        raise UserError(f"--url {url!r}: an address begins with http:// or https://")
    token = os.environ.get("WATTBENCH_AIRFLOW_TOKEN") or None
    user = options.user or os.environ.get("WATTBENCH_AIRFLOW_USER") or ""
    password = os.environ.get("WATTBENCH_AIRFLOW_PASSWORD")
    if token is None and not user:
        raise UserError("as whom? give --user NAME, or set WATTBENCH_AIRFLOW_USER")
    if token is None and password is None:
        if not sys.stdin.isatty():
            raise UserError(f"no password for {user!r}: set WATTBENCH_AIRFLOW_PASSWORD")
        password = getpass.getpass(f"Airflow password of {user}: ")
    return Client(Login(url, user, password or "", token), waits_s=(1.0, 2.0, 4.0))


def _airflow_url(options: argparse.Namespace) -> str:
    return (options.url or os.environ.get("WATTBENCH_AIRFLOW_URL") or "").rstrip("/")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _natural(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "wattbench", description=_ABOUT, epilog=_LOGIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    airflow = argparse.ArgumentParser(add_help=False)
    _login_options(airflow)
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--hosts", type=_names, metavar="A,B", help="only these hosts")
    chosen.add_argument(
        "--images", type=_names, metavar="A,B", help="only these images; the reference must stay"
    )
    chosen.add_argument("--blocks", type=_natural, metavar="N", help="so many blocks")
    chosen.add_argument("--seed", help="draws the order of trials")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    host = commands.add_parser("host", help="add a worker host, check hosts")
    _host_parsers(host.add_subparsers(metavar="COMMAND", required=True), airflow)

    command = commands.add_parser(
        "plan", parents=[chosen], help="print the order of trials; needs no Airflow",
        description="The order of all trials on every host, exactly as a run with this seed has it.",
    )  # fmt: skip
    command.add_argument("experiment", help="its name, or a file")
    command.set_defaults(do=_plan)

    experiments.add_parsers(commands)
    measure.add_parsers(commands)
    command = commands.add_parser(
        "run", parents=[chosen, airflow], help="start an experiment; prints the run's id",
        description="Start a run as the trigger form would. Prints the run's id on stdout.",
    )  # fmt: skip
    command.add_argument("experiment")
    command.add_argument(
        "--finish-by", metavar="HH:MM", help="leave out blocks that do not fit before; or: never"
    )
    command.add_argument("--wait", action="store_true", help="follow it; exit code 1 if it fails")
    command.add_argument(
        "--unpause", action="store_true", help="release a paused experiment's schedule too"
    )
    command.set_defaults(do=_run)

    command = commands.add_parser(
        "status", parents=[airflow], help="the newest runs, or how far one is",
        description="Without RUN the newest runs; with RUN each host: trial k of n, time left.",
    )  # fmt: skip
    command.add_argument("run", nargs="?", metavar="RUN")
    command.add_argument("--limit", type=_natural, default=10, help="so many runs (10)")
    command.set_defaults(do=_status)

    command = commands.add_parser(
        "logs", parents=[airflow], help="why a run failed, or one task's log",
        description="Without TASK one line a failed task; with TASK its log.",
        epilog="TASK: gpu-a.check, check (if there is one host), 'gpu-a.trial.measure[3]'",
    )  # fmt: skip
    command.add_argument("run", metavar="RUN")
    command.add_argument("task", nargs="?", metavar="TASK")
    command.set_defaults(do=_logs)

    for name in COMMANDS:
        module = importlib.import_module(f"wattbench.analysis.commands.{name}")
        module.add_parser(commands)
        commands.choices[name].set_defaults(do=module.run)
    _extend_report(commands.choices["report"])
    return parser


def _login_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Airflow")
    group.add_argument("--url", help="its address (WATTBENCH_AIRFLOW_URL)")
    group.add_argument("--user", help="who you are (WATTBENCH_AIRFLOW_USER)")


def _extend_report(parser: argparse.ArgumentParser) -> None:
    """Let `report` take runs in Airflow too."""
    parser.description = f"{parser.description} {_RUN_REPORT}"
    parser.set_defaults(do=_report)
    _login_options(parser)


def _host_parsers(hosts: Any, airflow: argparse.ArgumentParser) -> None:
    command = hosts.add_parser(
        "add", parents=[airflow], help="name a host, pin its key, tell what it lacks",
        description="Connects, shows the host's key for comparison, pins it, writes hosts.yaml, makes "
        "the Airflow connection (or prints it), and prints the commands that the host still needs. "
        "Installs nothing; overwrites nothing.",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME", help="small letters, digits and '-'")
    command.add_argument("--ssh", required=True, metavar="USER@ADDR[:PORT]")
    command.add_argument("--key", type=_file, metavar="FILE", help="private key to log in with")
    command.add_argument("--yes", action="store_true", help="trust the key that is shown")
    command.add_argument("--fingerprint", metavar="SHA256:…", help="trust this key and no other")
    command.add_argument(
        "--gpu", action="append", default=[], metavar="UUID", help="give it to trials; repeat"
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
    command.set_defaults(do=_host_add)
    command = hosts.add_parser(
        "check", parents=[airflow], help="which hosts are fit; what to do for the others",
        description="A table of problems: hard ones keep a host out of runs, soft ones stand beside its "
        "numbers. A host that a run has is left alone. Exit code 0 fine, 1 soft, 2 hard.",
    )  # fmt: skip
    command.add_argument("names", nargs="*", metavar="NAME", help="all of hosts.yaml if none")
    command.add_argument("--key", type=_file, metavar="FILE", help="private key to log in with")
    command.set_defaults(do=_host_check)
    command = hosts.add_parser(
        "release", parents=[airflow], help="take a host from a run that will not give it back",
        description="Release a host's lease, whoever holds it. Raw logs stay there until they are "
        "collected. Exit code 0 free, 1 free but raw logs still lie there.",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--force", action="store_true", help="end an attempt that is being measured"
    )
    command.add_argument("--key", type=_file, metavar="FILE", help="private key to log in with")
    command.set_defaults(do=_host_release)


def _file(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return path
