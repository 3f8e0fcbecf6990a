"""Image registry on this machine: Debian's docker-registry over a folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import requests
import yaml

from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local import packages
from wattbench.local.processes import service
from wattbench.local.state_folder import StateFolder


def ensure(
    state: StateFolder,
    name: str,
    address: str,
    say: Callable[[str], None],
    *,
    read_only: bool = False,
) -> None:
    """Starts a registry where it is not running, and waits until it answers.

    Args:
        state: whose registry; all registries of a state folder have the same images.
        name: of the service.
        address: `HOST:PORT` to listen on.
        say: receives a line before the program is fetched.
        read_only: refuse pushes.

    Raises:
        UserError: the program is missing, or does not answer in time.
    """
    binary = packages.unpacked(state, "docker-registry", "docker-registry", say)
    process = service(state, name)
    text = _config(str(state.folder("registry")), address, read_only)
    config = state.folder("etc") / f"{name}.yml"
    write_atomically(config, text)
    process.ensure([binary, "serve", str(config)], env={}, also=text)
    process.wait_until(partial(_answers, address), within_s=20)


def _config(storage: str, address: str, read_only: bool) -> str:
    return yaml.safe_dump(
        {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": storage},
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": read_only}},
            },
            "http": {"addr": address},
        }
    )


def _answers(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/v2/", timeout=2).ok
    except requests.RequestException:
        return False
