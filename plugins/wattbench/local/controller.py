"""Embedded controller: Airflow, object store and sshd below the calling user's state folder, without root."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.config.hosts import HostConfig, HostsConfig
from wattbench.config.loader import load_experiment, load_hosts
from wattbench.errors import ConfigError
from wattbench.local import airflow_services, connections, credentials, object_store, this_machine
from wattbench.local import registry_server as registries
from wattbench.local.airflow_services import Airflow, Layout
from wattbench.local.object_store import ObjectStore
from wattbench.local.processes import Service, service, services
from wattbench.local.sshd import ADDRESS, PrivateSshd
from wattbench.local.state_folder import StateFolder
from wattbench.local.this_machine import ThisMachine
from wattbench.run.versions import installed
from wattbench.worker.target import HostTarget

Say = Callable[[str], None]

#: Form of the state folder; another one is refused.
LAYOUT = 1
#: For Airflow's database, logs, raw logs of a run and its report, bytes.
MIN_FREE_BYTES = 2 << 30
#: What host, spool and Airflow's settings can name.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]+")
_VERSIONS = "versions.json"
#: Stopped in this order: what needs others goes first.
_ORDER = (*airflow_services.PROCESSES, "registry", object_store.NAME)
_DAGS = '''\
"""Each measurement of `wattbench measure` as one of Airflow's dags."""

from wattbench.airflow.dag import experiment_dags
from wattbench.config.loader import config_dir

globals().update(experiment_dags(config_dir()))
'''
_PLUGIN = '''\
"""What Airflow's plugin scan imports: wattbench's pages in Airflow's UI."""

from wattbench.web.plugin import WattbenchPlugin

__all__ = ["WattbenchPlugin"]
'''


def default_path() -> Path:
    """The state folder of the calling user: XDG_STATE_HOME/wattbench."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "wattbench"


@dataclass(frozen=True)
class Controller:
    """The embedded controller of a state folder.

    Attributes:
        state: the folder.
    """

    state: StateFolder

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        return object_store.describe(self.state, credentials.ensure(self.state))

    @cached_property
    def sshd(self) -> PrivateSshd:
        """The way into this machine."""
        return PrivateSshd(self.state)

    @cached_property
    def airflow(self) -> Airflow:
        """Airflow and its settings."""
        layout = Layout(
            home=self.state.path / "airflow",
            dags=self.state.folder("dags"),
            plugins=self.state.folder("plugins"),
            config=self.config,
            environment={
                **airflow_services.CALM,
                # New experiments touch the DAG file, which has it parsed at once.
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            },
        )
        return airflow_services.describe(self.state, credentials.ensure(self.state), layout)

    @cached_property
    def registry(self) -> str:
        """Address of the registry for images that are in no other."""
        running = service(self.state, "registry").pid() is not None
        port = self.state.port("registry") if running else self.state.free_port("registry")
        return f"{ADDRESS}:{port}"

    @property
    def config(self) -> Path:
        """The folder with hosts.yaml and experiments."""
        return self.state.path / "config"

    @property
    def is_up(self) -> bool:
        """Whether all of Airflow, store and sshd run."""
        return not self.down()

    @property
    def exists(self) -> bool:
        """Whether it has been brought up before."""
        return (self.state.path / _VERSIONS).is_file()

    def down(self) -> list[str]:
        """The processes of Airflow, store and sshd that do not run."""
        names = (*airflow_services.PROCESSES, object_store.NAME, "sshd")
        return [name for name in names if service(self.state, name).pid() is None]

    def services(self) -> list[Service]:
        """Its processes that have been started."""
        return services(self.state)

    # ── up ──────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, say: Say) -> None:
        """Looks at the state folder, and starts the sshd, by which the machine is looked at.

        Raises:
            UserError: something is missing, no room, or the folder is another version's.
        """
        self._accept(say)
        self.sshd.ensure()

    def look(self, device: str, gpu: str | None) -> ThisMachine:
        """This machine as a host; its sshd is up.

        Raises:
            HostError: its agent can't be asked.
            UserError: no such GPU.
        """
        return this_machine.look(self.target, device, gpu, str(self.state.path / "run"))

    def up(self, say: Say) -> None:
        """Brings up what does not run; hosts.yaml must be there.

        Raises:
            UserError: something can't be had; one line that says what and what to do.
        """
        with ThreadPoolExecutor() as pool:
            store = pool.submit(object_store.ensure, self.state, self.store)
            if service(self.state, "api-server").pid() is None:
                say(f"starting Airflow at {self.airflow.url}; the first time takes a minute")
            airflow_services.ensure(self.state, self.airflow, credentials.ensure(self.state))
            store.result()
        airflow_services.wait_until_ready(self.state, self.airflow, within_s=240)

    def ensure_registry(self, say: Say) -> str:
        """Brings up the registry.

        Returns:
            Its address.

        Raises:
            UserError: its program is missing, or does not answer.
        """
        registries.ensure(self.state, "registry", self.registry, say)
        return self.registry

    @property
    def target(self) -> HostTarget:
        """The way to this machine."""
        return HostTarget(
            name="this-machine", hostname=ADDRESS, port=self.sshd.port, username=self.sshd.user,
            private_key=self.sshd.client_key.private, host_key=self.sshd.host_key.public,
            spool=str(self.state.folder("spool")), python=this_machine.python(),
        )  # fmt: skip

    def hosts(self) -> HostsConfig:
        """The hosts that it has.

        Raises:
            ConfigError: it has never been brought up.
        """
        return load_hosts(self.config)

    def add_experiment(self, name: str, text: str, files: Sequence[Path] = ()) -> Path:
        """Writes an experiment, and has Airflow read it now.

        Args:
            name: its name.
            text: its YAML.
            files: that it ships, copied to the folder NAME beside it.

        Returns:
            Its file.

        Raises:
            ConfigError: it is refused; nothing of it is left.
        """
        path = self.config / "experiments" / f"{name}.yaml"
        folder = path.with_suffix("")
        for file in files:
            write_atomically(folder / file.name, file.read_bytes())
        write_atomically(path, text)
        try:
            load_experiment(path, self.hosts())
        except ConfigError:
            path.unlink()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.parse_again()
        return path

    def parse_again(self) -> None:
        """Has Airflow parse all experiments now."""
        (self.state.path / "dags" / "wattbench_dags.py").touch()

    def write_hosts(self, hosts: Mapping[str, HostConfig]) -> None:
        """Writes hosts.yaml, the connections, and the files by which Airflow finds both."""
        self.state.folder("config", "experiments")
        document = {
            "store": {"conn_id": connections.STORE, "bucket": object_store.BUCKET, "prefix": ""},
            "hosts": {
                name: config.model_dump(mode="json", exclude_defaults=True)
                for name, config in hosts.items()
            },
        }
        text = "# Written by wattbench measure: this machine as a host.\n"
        write_atomically(
            self.config / "hosts.yaml", text + yaml.safe_dump(document, sort_keys=False)
        )
        ssh = connections.ssh(
            ADDRESS, self.sshd.user, self.sshd.client_key, self.sshd.host_key, self.sshd.port
        )
        found = {config.ssh_conn_id: ssh for config in hosts.values()}
        connections.write(self.state, found | {connections.STORE: self.store.connection()})
        _write_changed(self.state.folder("dags") / "wattbench_dags.py", _DAGS)
        _write_changed(self.state.folder("plugins") / "wattbench_plugin.py", _PLUGIN)

    def _accept(self, say: Say) -> None:
        """Refuse a folder that can't be used; services of another version are stopped."""
        path = self.state.path
        if not _PLAIN_PATH.fullmatch(str(path)):
            raise UserError(
                f"{path}: the state folder may have letters, digits and ._-/ only; "
                "set XDG_STATE_HOME to another"
            )
        now = {"layout": LAYOUT, **_versions()}
        try:
            known = json.loads((path / _VERSIONS).read_text())
        except FileNotFoundError:
            known = None
        except (OSError, ValueError):
            known = {}
        if known is not None and known.get("layout") != LAYOUT:
            raise UserError(
                f"{path} was made by another version of wattbench; remove it with that version "
                "(wattbench down --remove), or set XDG_STATE_HOME to another folder"
            )
        if known is None and path.is_dir() and {p.name for p in path.iterdir()} - {"lock"}:
            raise UserError(
                f"{path} holds something that wattbench did not make; move it away, or set "
                "XDG_STATE_HOME to another folder"
            )
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.state.require_room(
            MIN_FREE_BYTES, ", or set XDG_STATE_HOME to a folder on another disk"
        )
        if known not in (None, now):
            say("another version of wattbench or Airflow: its services start anew")
            self.stop(say)
        write_atomically(path / _VERSIONS, json.dumps(now, indent=2) + "\n")

    # ── down ────────────────────────────────────────────────────────────────────────────────────

    def stop(self, say: Say) -> None:
        """Stops all services; nothing is lost."""
        rank = {name: place for place, name in enumerate(_ORDER)}
        for process in sorted(self.services(), key=lambda p: rank.get(p.name, len(rank))):
            if process.stop():
                say(f"stopped {process.name}")


def require_extra() -> None:
    """Refuse an installation without the controller's packages.

    Raises:
        ModuleNotFoundError: one is missing; `missing_package` names the extra.
        UserError: the object store's program is missing.
    """
    for package in ("airflow", "boto3", "docker", "paramiko"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    if not object_store.program().is_file():
        raise UserError("rclone is not installed; pip install 'wattbench[airflow]'")


def _versions() -> dict[str, str]:
    known = installed("wattbench", "apache-airflow")
    return {"python": sys.executable, "wattbench": "unknown", "apache-airflow": "unknown"} | known


def _write_changed(path: Path, text: str) -> None:
    """Leave a file that is as it should be alone: a new time of change has it parsed again."""
    if not path.is_file() or path.read_text() != text:
        write_atomically(path, text)
