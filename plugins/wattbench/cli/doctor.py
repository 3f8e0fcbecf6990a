"""``wattbench doctor``: health of the controller: Airflow, store, versions, configuration, clocks, disk."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wattbench.analysis.model.errors import UserError, missing_package, refused_by_system
from wattbench.cli.options import airflow_url, client_of, local_controller, login
from wattbench.cli.output import columns, say

if TYPE_CHECKING:
    import requests

    from wattbench.cli.airflow_api import Client
    from wattbench.local.controller import Controller
    from wattbench.storage.object_store import StoreTarget

State = Literal["fine", "soft", "hard"]
_TIMEOUT_S = 10
#: The header Date counts whole seconds: less than this cannot be distinguished from none, s.
_CLOCK_S = 2.0
#: S3 refuses requests that are further off, s.
_S3_CLOCK_S = 900.0
#: Parts of Airflow as its health document calls them; no run gets on without all of them.
_PARTS = {
    "metadatabase": "database",
    "scheduler": "scheduler",
    "dag_processor": "dag-processor",
    "triggerer": "triggerer",
}


@dataclass(frozen=True)
class Row:
    """One check: what was found, and the next action."""

    check: str
    state: State
    found: str
    action: str = ""

    @classmethod
    def of(cls, check: str, error: UserError | str, state: State = "hard") -> Row:
        """A check that ended in an error, whose message has the action after the semicolon."""
        found, _, action = str(error).partition("; ")
        return cls(check, state, found, action)


@dataclass(frozen=True)
class Site:
    """The controller that is looked at.

    Attributes:
        options: how to log in to its Airflow.
        controller: the embedded one of this machine; None: Airflow has an address of its own.
        url: Airflow's address; empty: none is known, or its api-server does not run.
        folder: the folder with hosts.yaml and experiments.
    """

    options: argparse.Namespace
    controller: Controller | None
    url: str
    folder: Path

    @cached_property
    def client(self) -> Client:
        """Airflow's REST API.

        Raises:
            UserError: Airflow is not known or not running, or a login is missing.
        """
        from wattbench.cli.measure import connect

        if not self.url:
            raise UserError("not asked, since Airflow is not known or not running; see above")
        made: Client = (
            client_of(self.options, waits_s=())
            if self.controller is None
            else connect(self.controller)
        )
        return made


def add_parsers(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "doctor", parents=[login()], help="is the controller well? what to do if not",
        description="Checks Airflow, the store, versions, the configuration, clocks, disk and what "
        "`wattbench measure` needs, each by itself. The hosts: wattbench host check. Exit code 0 fine, "
        "1 soft, 2 hard.",
    )  # fmt: skip
    command.set_defaults(do=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    site = _site(options)
    checks: tuple[tuple[str, State, Callable[[Site], Iterator[Row]]], ...] = (
        ("Airflow", "hard", _airflow),
        ("login", "hard", _login),
        ("versions", "soft", _versions),
        ("configuration", "hard", _configuration),
        ("store", "hard", _store),
        ("disk", "hard", _disk),
        ("packages", "soft", _packages),
        ("Docker", "soft", _docker),
        ("sshd", "soft", _sshd),
    )
    rows = [row for name, worst, look in checks for row in _rows(name, worst, partial(look, site))]
    table = [("CHECK", "STATE", "FOUND", "NEXT ACTION")]
    table += [(row.check, row.state, row.found, row.action or "–") for row in rows]
    say(columns(table))
    return max({"fine": 0, "soft": 1, "hard": 2}[row.state] for row in rows)


def _rows(name: str, worst: State, look: Callable[[], Iterable[Row]]) -> list[Row]:
    """What a check found; one that fails is a row, and never the end of the table."""
    found: list[Row] = []
    try:
        found.extend(look())
    except Exception as error:  # noqa: BLE001 - the other checks are shown all the same
        found.append(_failed(name, worst, error))
    return found


def _failed(name: str, worst: State, error: Exception) -> Row:
    if isinstance(error, UserError):
        return Row.of(name, error, worst)
    if isinstance(error, ModuleNotFoundError):
        with contextlib.suppress(ModuleNotFoundError):  # one of ours
            return Row.of(name, missing_package(error), worst)
    if isinstance(error, OSError):
        with contextlib.suppress(OSError):  # of a kind that has an action
            return Row.of(name, refused_by_system(error), worst)
    text = " ".join(str(error).split())[:200]
    return Row(name, worst, f"can't be checked: {type(error).__name__}: {text}")


def _site(options: argparse.Namespace) -> Site:
    from wattbench.config.loader import config_dir

    controller = local_controller(options)
    if controller is None:
        return Site(options, None, airflow_url(options), config_dir())
    url = "" if "api-server" in controller.down() else controller.airflow.url
    return Site(options, controller, url, controller.config)


# ── Airflow ─────────────────────────────────────────────────────────────────────────────────────


def _airflow(site: Site) -> Iterator[Row]:
    """Whether it answers, its parts are alive, and its clock is ours; needs no login."""
    if site.controller is not None and (down := site.controller.down()):
        yield Row("Airflow", "hard", f"not running here: {', '.join(down)}", "wattbench up")
    if not site.url:
        if site.controller is None:
            client_of(site.options)  # says what is missing
        return
    health, answered = _get(f"{site.url}/api/v2/monitor/health")
    if "scheduler" not in health:
        raise UserError(
            f"{site.url} gives no health at /api/v2/monitor/health: is it Airflow 3? correct the address"
        )
    yield Row("Airflow", "fine", f"answers at {site.url}")
    for key, name in _PARTS.items():
        yield _part(name, health.get(key) or {}, key)
    yield answered.row("Airflow's clock", "soft")


def _part(name: str, found: dict[str, Any], key: str) -> Row:
    if found.get("status") == "healthy":
        return Row(name, "fine", "healthy")
    if key == "metadatabase":
        return Row(name, "hard", "Airflow can't reach its database", "see the api-server's log")
    beat = found.get(f"latest_{key}_heartbeat")
    return Row(
        name,
        "hard",
        f"no heartbeat since {beat}" if beat else "has never run",
        f"start it (airflow {name}), or see its log",
    )


def _login(site: Site) -> Iterator[Row]:
    """Whether we are let in, and whether Airflow can import its DAG files."""
    client = site.client
    known = client.experiments()
    yield Row("login", "fine", f"{client.login.user or 'by token'}, sees {len(known)} experiments")
    errors = client.import_errors()
    for file, why in errors.items():
        yield Row(
            "DAG files",
            "hard",
            f"{file}: {why}",
            "correct it; Airflow's UI has the whole traceback",
        )
    if not errors:
        yield Row("DAG files", "fine", "all imported")


def _versions(site: Site) -> Iterator[Row]:
    """Whether the code here is the one that serves the controller's pages."""
    import json

    from wattbench.run import versions

    here = {"code": versions.code(), **versions.installed("wattbench")}
    if not site.url:
        yield Row("versions", "soft", f"{_spoken(here)} here; the controller was not asked")
        return
    airflow = f"Airflow {_get(f'{site.url}/api/v2/version')[0].get('version', '?')}"
    try:
        there = json.loads(site.client.fetch("/wattbench/version"))
        same = bool(there["code"] == here["code"])
    except (UserError, ValueError, KeyError, TypeError):
        yield Row(
            "versions", "soft", f"{_spoken(here)} here; which is on the controller is not known; {airflow}",
            "there: the same wattbench, with plugins/wattbench_plugin.py in Airflow's plugins folder",
        )  # fmt: skip
        return
    if same:
        yield Row("versions", "fine", f"{_spoken(here)} here and on the controller; {airflow}")
    else:
        yield Row(
            "versions", "soft", f"{_spoken(here)} here, {_spoken(there)} on the controller; {airflow}",
            "install the same wattbench in both places",
        )  # fmt: skip


def _spoken(found: Mapping[str, str]) -> str:
    return f"wattbench {found.get('wattbench', 'of a checkout')} (code {found['code']})"


@dataclass(frozen=True)
class _Answered:
    """When a server answered, by its clock and by ours.

    Attributes:
        url: which.
        date: its header Date; empty: it sends none.
        between_unix_s: our clock before and after.
    """

    url: str
    date: str
    between_unix_s: tuple[float, float]

    def row(self, check: str, worst: State, worst_beyond_s: float = _CLOCK_S) -> Row:
        """The difference of the clocks; the least that explains the answer."""
        try:
            there = parsedate_to_datetime(self.date).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return Row(check, "soft", f"{self.url} sends no date", "compare the clocks by hand")
        began, ended = self.between_unix_s
        off = there - ended if there > ended else min(there + 1 - began, 0.0)
        if abs(off) <= _CLOCK_S:
            return Row(check, "fine", f"within {_CLOCK_S:.0f} s of ours")
        return Row(
            check,
            worst if abs(off) > worst_beyond_s else "soft",
            f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} ours "
            f"(ours is {datetime.fromtimestamp(ended, UTC):%Y-%m-%d %H:%M:%S} UTC)",
            "synchronize both: timedatectl set-ntp true",
        )


def _get(url: str) -> tuple[dict[str, Any], _Answered]:
    """A JSON document without a login, and when it came.

    Raises:
        UserError: no answer, or something else.
    """
    response, answered = _ask("GET", url)
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UserError(
            f"{url}: {response.status_code}, no JSON; is it Airflow 3? correct the address"
        )
    return document, answered


def _ask(verb: str, url: str, *, by_proxy: bool = False) -> tuple[requests.Response, _Answered]:
    import requests

    session = requests.Session()
    session.trust_env = by_proxy  # as the clients of either do
    began = time.time()
    try:
        response = session.request(verb, url, timeout=_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise UserError(
            f"{url} does not answer: {type(error).__name__}; check the address and that it runs"
        ) from None
    return response, _Answered(url, response.headers.get("Date", ""), (began, time.time()))


# ── configuration and store ─────────────────────────────────────────────────────────────────────


def _configuration(site: Site) -> Iterator[Row]:
    """hosts.yaml and each experiment; these are read without the hosts where hosts.yaml is refused."""
    from wattbench.config.loader import (
        experiment_paths,
        load_experiment,
        load_hosts,
        read_experiment,
    )
    from wattbench.errors import ConfigError

    hosts = None
    try:
        hosts = load_hosts(site.folder)
        found = f"{len(hosts.hosts)} hosts: {', '.join(hosts.hosts)}"
        yield Row("hosts.yaml", "fine", found)
    except ConfigError as error:
        yield Row.of("hosts.yaml", error)
    paths, good = experiment_paths(site.folder), 0
    for path in paths:
        try:
            _ = read_experiment(path) if hosts is None else load_experiment(path, hosts)
            good += 1
        except ConfigError as error:
            yield Row.of(path.name, error)
    if paths:
        state: State = "fine" if good == len(paths) else "hard"
        yield Row("experiments", state, f"{good} of {len(paths)} can be read")
    else:
        text = f"none in {site.folder / 'experiments'}"
        yield Row("experiments", "fine", text, "wattbench new NAME")


def _store(site: Site) -> Iterator[Row]:
    """Whether objects can be written, read back and removed; the store's clock."""
    from wattbench.storage.object_store import Store

    target = _store_target(site)
    if isinstance(target, Row):
        yield target
        return
    yield from _rows("store's clock", "hard", partial(_store_clock, target))
    Store(target, waits_s=()).check()
    yield Row("store", "fine", f"{target.place}: an object was written, read and removed")


def _store_target(site: Site) -> StoreTarget | Row:
    from wattbench.airflow.connections import store_target
    from wattbench.config.loader import load_hosts
    from wattbench.errors import ConfigError

    if site.controller is not None:
        return site.controller.store.target()
    hosts = load_hosts(site.folder)
    try:
        return store_target(hosts)
    except ConfigError as error:
        if not site.url:
            raise
        return Row(
            "store", "soft",
            f"bucket {hosts.store.bucket!r} was not asked: {str(error).partition('; ')[0]} on this machine",
            "call this where Airflow runs: it shows secrets to its own tasks only",
        )  # fmt: skip


def _store_clock(target: StoreTarget) -> Iterator[Row]:
    url = target.endpoint_url or "https://s3.amazonaws.com"
    _, answered = _ask("HEAD", url, by_proxy=True)
    yield answered.row("store's clock", "hard", _S3_CLOCK_S)


# ── this machine ────────────────────────────────────────────────────────────────────────────────


def _disk(_: Site) -> Iterator[Row]:
    """Room for the embedded controller's state folder, with its spool, or where it would be."""
    import shutil

    from wattbench.local.controller import MIN_FREE_BYTES, default_path

    folder = default_path()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free for {folder}"
    if free < MIN_FREE_BYTES:
        action = f"free space, {MIN_FREE_BYTES / 1e9:.1f} GB are needed; or set XDG_STATE_HOME"
        yield Row("disk", "hard", found, action)
    else:
        yield Row("disk", "fine", found)


def _packages(_: Site) -> Iterator[Row]:
    from wattbench.local.controller import require_extra

    require_extra()
    yield Row("packages", "fine", "those of wattbench[airflow] are installed")


def _docker(_: Site) -> Iterator[Row]:
    from wattbench.local import docker_engine

    with contextlib.closing(docker_engine.require(_TIMEOUT_S)) as client:
        version = client.version()["Version"]
    yield Row("Docker", "fine", f"{version}, for wattbench measure")


def _sshd(_: Site) -> Iterator[Row]:
    from wattbench.local import packages

    program = packages.find("sshd")
    if program is None:
        raise UserError("no sshd, for wattbench measure; sudo apt-get install openssh-server")
    yield Row("sshd", "fine", f"{program}, for wattbench measure")
