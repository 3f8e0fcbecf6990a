"""Airflow on this machine: four processes over SQLite, each kept at work by a watchdog; LocalExecutor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests

from wattbench.airflow.watchdog import PARTS
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local.credentials import Credentials
from wattbench.local.processes import service
from wattbench.local.state_folder import StateFolder
from wattbench.run import versions

#: Started in this order: what parses DAG files has the longest way to go.
PROCESSES = ("dag-processor", "scheduler", "api-server", "triggerer")

#: Short tasks, many of them: Airflow's defaults cost 6 to 10 s a trial, these 3 to 4.
PROMPT = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}
#: Where the controller shares the measured machine: fewer wake-ups in a window, some seconds more per trial.
CALM = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
}


@dataclass(frozen=True)
class Layout:
    """Where Airflow's files are, and what its processes have beside the common settings.

    Attributes:
        home: AIRFLOW_HOME, with the database.
        dags: folder of DAG files.
        plugins: folder of plugins.
        config: the folder with hosts.yaml and experiments.
        environment: further variables, which win over the common ones.
    """

    home: Path
    dags: Path
    plugins: Path
    config: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Airflow:
    """An Airflow and how to get in.

    Attributes:
        url: its address for people and for the REST API.
        user: who may trigger runs.
        password: with which password.
        settings: the environment of its processes.
    """

    url: str
    user: str
    password: str = field(repr=False)
    settings: Mapping[str, str] = field(repr=False)

    @property
    def home(self) -> Path:
        """AIRFLOW_HOME."""
        return Path(self.settings["AIRFLOW_HOME"])


def describe(state: StateFolder, credentials: Credentials, layout: Layout) -> Airflow:
    """Where Airflow is and how it is set up; starts nothing.

    Args:
        state: whose Airflow.
        credentials: its passwords and keys.
        layout: where its files are.
    """
    ports = {
        role: state.port(f"airflow-{role}")
        if service(state, owner).pid()
        else state.free_port(f"airflow-{role}")
        for role, owner in (("api", "api-server"), ("logs", "scheduler"), ("triggers", "triggerer"))
    }
    url = f"http://127.0.0.1:{ports['api']}"
    return Airflow(
        url,
        credentials.airflow_user,
        credentials.airflow_password,
        _settings(state, credentials, layout, url, ports) | dict(layout.environment),
    )


def ensure(state: StateFolder, airflow: Airflow, credentials: Credentials) -> None:
    """Prepares the database and starts what is not running; does not wait, see `wait_until_ready`.

    Raises:
        UserError: the database can't be made or migrated.
    """
    airflow.home.mkdir(parents=True, exist_ok=True)
    command = str(Path(sys.executable).with_name("airflow"))
    environment = state.path / "airflow.env"
    write_atomically(
        environment,
        f"# For Airflow's command line: set -a; . {environment}; set +a; {command} …\n"
        + "".join(f"{key}={shlex.quote(value)}\n" for key, value in airflow.settings.items()),
        mode=0o600,
    )
    write_atomically(
        state.path / "airflow_passwords.json",
        json.dumps({credentials.airflow_user: credentials.airflow_password}),
        mode=0o600,
    )
    processes = {name: service(state, name) for name in PROCESSES}
    if not any(process.pid() for process in processes.values()):
        _migrate(state, command, airflow)
    for name, process in processes.items():
        argv = [sys.executable, "-m", "wattbench.watchdog", name]
        holds_our_code = name in ("scheduler", "api-server", "triggerer")
        process.ensure(argv, env=airflow.settings, also=versions.code() if holds_our_code else "")


def wait_until_ready(state: StateFolder, airflow: Airflow, within_s: float = 120) -> None:
    """Waits until the API answers and all parts have reported to be healthy.

    Raises:
        UserError: not in time; names the part, with the last words of its own log.
    """
    deadline = time.monotonic() + within_s
    while (ill := _first_unhealthy(airflow)) is not None:
        process = service(state, ill)
        if process.pid() is None:
            raise UserError(f"{ill}: ended: {process.last_words()}")
        if time.monotonic() > deadline:
            raise UserError(f"{ill}: not healthy within {within_s:.0f} s: {process.last_words()}")
        time.sleep(0.2)


def _first_unhealthy(airflow: Airflow) -> str | None:
    """The process to blame, as its service is called; None if all parts are healthy."""
    try:
        health = requests.get(f"{airflow.url}/api/v2/monitor/health", timeout=5).json()
    except (requests.RequestException, ValueError):
        return "api-server"
    if health.get("metadatabase", {}).get("status") != "healthy":
        return "api-server"  # its log says what the database said
    states = {name: health.get(part, {}).get("status") for name, part in PARTS.items()}
    return next((name for name, state in states.items() if state != "healthy"), None)


def _migrate(state: StateFolder, command: str, airflow: Airflow) -> None:
    home = airflow.home
    complete = home / "migrated"
    if not complete.exists():  # SQLite can't roll back a first migration that was interrupted
        (home / "airflow.db").unlink(missing_ok=True)
    result = subprocess.run(
        [command, "db", "migrate"],
        env={**os.environ, **airflow.settings},
        capture_output=True,
        text=True,
    )
    log = state.folder("log") / "airflow-migrate.log"
    log.write_text(result.stdout + result.stderr)
    if result.returncode:
        raise UserError(f"airflow db migrate: exit code {result.returncode}; see {log}")
    complete.touch()


def _settings(
    state: StateFolder,
    credentials: Credentials,
    layout: Layout,
    url: str,
    ports: Mapping[str, int],
) -> dict[str, str]:
    options: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": layout.dags,
            "plugins_folder": layout.plugins,
            "load_examples": False,
            "executor": "LocalExecutor",
            "parallelism": 12,
            "fernet_key": credentials.fernet_key,
            "execution_api_server_url": f"{url}/execution/",
            "simple_auth_manager_users": f"{credentials.airflow_user}:admin",
            "simple_auth_manager_passwords_file": state.path / "airflow_passwords.json",
        },
        "api": {
            "host": "127.0.0.1",
            "port": ports["api"],
            "base_url": url,
            "workers": 1,
            "secret_key": credentials.api_secret,
        },
        "api_auth": {"jwt_secret": credentials.jwt_secret},
        "database": {"sql_alchemy_conn": f"sqlite:///{layout.home / 'airflow.db'}"},
        "scheduler": {
            "task_instance_heartbeat_timeout": 60,
            "orphaned_tasks_check_interval": 30,
        },
        "dag_processor": {"min_file_process_interval": 30, "parsing_processes": 1},
        "logging": {
            "worker_log_server_port": ports["logs"],
            "trigger_log_server_port": ports["triggers"],
            "colored_console_log": False,
        },
        "secrets": {
            "backend": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
            "backend_kwargs": json.dumps(
                {"connections_file_path": str(state.path / "connections.json")}
            ),
        },
        "usage_data_collection": {"enabled": False},
    }
    return {
        "AIRFLOW_HOME": str(layout.home),
        "WATTBENCH_CONFIG": str(layout.config),
        **{
            f"AIRFLOW__{section.upper()}__{key.upper()}": str(value)
            for section, pairs in options.items()
            for key, value in pairs.items()
        },
    }
