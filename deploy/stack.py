"""The deployment's containers: Compose v2 where it is installed, else docker-compose."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

from deploy import environment
from wattbench.analysis.model.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
COMPOSE_FILE = ROOT / "docker-compose.airflow.yml"
_READY_S = 300


@dataclass(frozen=True)
class Stack:
    """One deployment.

    Attributes:
        env_file: its addresses and secrets.
        overrides: further compose files, merged over the first.
    """

    env_file: Path
    overrides: tuple[Path, ...] = ()

    @cached_property
    def variables(self) -> dict[str, str]:
        """What the env file says."""
        return environment.read(self.env_file)

    def check_secrets(self) -> None:
        """Refuses an env file that lacks something.

        Raises:
            UserError: names what is missing.
        """
        environment.check(self.env_file, self.variables, COMPOSE_FILE)

    def check_port(self) -> None:
        """Refuse a port that another process listens on.

        Raises:
            UserError: names the port and the address.
        """
        address, port = self.variables["WATTBENCH_ADDRESS"], self.variables["WATTBENCH_PORT"]
        if not self.running("api-server") and _is_taken(address, port):
            raise UserError(
                f"deploy: port {port} of {address} is occupied; stop what listens there, or change "
                f"WATTBENCH_PORT and WATTBENCH_URL in {self.env_file}"
            )

    def up(self) -> None:
        """Builds our image, starts everything, and waits until Airflow calls all parts healthy.

        Raises:
            UserError: something does not come up; the message has its last words.
        """
        self.check_secrets()
        self.check_port()
        self.compose("build")
        try:
            self.compose("up", "--detach")
        except UserError as error:
            raise UserError(self._last_words("init") or str(error)) from None
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Waits until Airflow's API answers and calls all parts healthy, and each of the workers is.

        Raises:
            UserError: not in time; names the parts.
        """
        url = f"http://{self.variables['WATTBENCH_ADDRESS']}:{self.variables['WATTBENCH_PORT']}"
        deadline = time.monotonic() + _READY_S
        while ill := _unhealthy(url) or self._unhealthy_workers():
            if time.monotonic() > deadline:
                raise UserError(
                    f"deploy: {', '.join(ill)} not healthy within {_READY_S} s; see the logs: "
                    f"{' '.join(_compose())} logs"
                )
            time.sleep(1)

    def running(self, service: str) -> bool:
        """Whether a service has a running container."""
        container = self.container(service)
        return container is not None and bool(_inspect(container)["Running"])

    def container(self, service: str) -> str | None:
        """The id of a service's container, running or not."""
        found = self.output("ps", "--all", "--quiet", service).split()
        return found[0] if found else None

    def compose(
        self, *arguments: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> None:
        """Runs one command of Compose.

        Raises:
            UserError: it failed; Compose itself has said why.
        """
        argv = [*self._command, *arguments]
        if subprocess.run(argv, stdin=stdin, stdout=stdout, cwd=ROOT).returncode:
            command = " ".join((*_compose(), *arguments))
            raise UserError(f"deploy: failed: {command[:100]}; its own message stands above")

    def output(self, *arguments: str) -> str:
        """What a command of Compose prints; empty where it fails."""
        result = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, cwd=ROOT
        )
        return result.stdout.strip() if result.returncode == 0 else ""

    @cached_property
    def _command(self) -> list[str]:
        files = [word for file in (COMPOSE_FILE, *self.overrides) for word in ("--file", str(file))]
        return [*_compose(), "--env-file", str(self.env_file.resolve()), *files]

    def _unhealthy_workers(self) -> list[str]:
        """Celery's workers, of which Airflow's API says nothing, that don't answer yet."""
        if "celery" not in self.variables.get("COMPOSE_PROFILES", ""):
            return []
        workers = self.output("ps", "--quiet", "worker").split()
        states = [_inspect(worker).get("Health", {}).get("Status") for worker in workers]
        return ["worker"] if any(state != "healthy" for state in states) else []

    def _last_words(self, service: str) -> str:
        container = self.container(service)
        if container is None or not _inspect(container)["ExitCode"]:
            return ""
        result = subprocess.run(
            ["docker", "logs", "--tail", "1", container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return f"deploy: {service}: {result.stdout.strip()}"


def _compose() -> list[str]:
    plugin = ["docker", "compose"]
    if subprocess.run([*plugin, "version"], capture_output=True).returncode == 0:
        return plugin
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise UserError(
        "deploy: neither docker compose nor docker-compose is installed; install Docker's compose "
        "plugin, or: apt-get install docker-compose"
    )


def _inspect(container: str) -> dict[str, Any]:
    text = subprocess.check_output(
        ["docker", "inspect", "--format", "{{json .State}}", container], text=True
    )
    return dict(json.loads(text))


def _is_taken(address: str, port: str) -> bool:
    try:
        with socket.create_server((address, int(port)), reuse_port=False):
            return False
    except ValueError:
        raise UserError(f"deploy: WATTBENCH_PORT={port} is not a port number") from None
    except OSError:
        return True


def _unhealthy(url: str) -> list[str]:
    try:
        with urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310 (http, ours)
            health = json.load(answer)
    except (OSError, ValueError):
        return ["api-server"]
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    return [part for part in parts if health.get(part, {}).get("status") != "healthy"]


def show(text: str) -> None:
    """Says something between Compose's own output."""
    print(f"deploy: {text}", file=sys.stderr, flush=True)
