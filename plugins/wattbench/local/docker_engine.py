"""Docker daemon of this machine: a client of the one that answers, or the reason why none does."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from wattbench.analysis.model.errors import UserError

if TYPE_CHECKING:
    import docker

SOCKET = Path("/var/run/docker.sock")
#: A push or a build may be silent for long, s.
_TIMEOUT_S = 600


def connect(timeout_s: int = _TIMEOUT_S) -> docker.DockerClient | None:
    """A client of the daemon that answers now, or None.

    Raises:
        UserError: it is too old.
    """
    import docker
    import requests
    from docker.constants import MINIMUM_DOCKER_API_VERSION
    from docker.errors import DockerException, InvalidVersion

    if not os.environ.get("DOCKER_HOST") and not _listens(SOCKET):
        return None  # the docker package would leave the socket of a refused connection open
    try:
        client = docker.from_env(timeout=timeout_s)
        client.ping()
    except InvalidVersion:
        raise UserError(
            f"the Docker daemon at {os.environ.get('DOCKER_HOST') or SOCKET} is too old: its API is older "
            f"than {MINIMUM_DOCKER_API_VERSION}; update Docker"
        ) from None
    except (DockerException, requests.RequestException):
        return None
    return client


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def refuse_unusable() -> None:
    """Refuse a daemon that no installation would repair.

    Raises:
        UserError: this user may not use it, or DOCKER_HOST names one that does not answer.
    """
    if SOCKET.exists() and not os.access(SOCKET, os.R_OK | os.W_OK):
        raise UserError(
            f"no permission on {SOCKET}; add yourself to its group: "
            "sudo usermod -aG docker $USER, then log in again"
        )
    if os.environ.get("DOCKER_HOST"):
        raise UserError(
            f"no Docker daemon answers at DOCKER_HOST={os.environ['DOCKER_HOST']}; "
            "start it or unset DOCKER_HOST"
        )


def require(timeout_s: int = _TIMEOUT_S) -> docker.DockerClient:
    """A client of the daemon at its usual socket, which trials use.

    Raises:
        UserError: none answers there, or this user may not use it.
    """
    named = os.environ.get("DOCKER_HOST")
    if named not in (None, "", f"unix://{SOCKET}", "unix:///run/docker.sock"):
        raise UserError(
            f"DOCKER_HOST={named}: trials use the Docker daemon at {SOCKET}; unset DOCKER_HOST, or add "
            "that machine as a host: wattbench host add"
        )
    client = connect(timeout_s)
    if client is None:
        refuse_unusable()
        raise UserError(
            f"no Docker daemon answers at {SOCKET}; install and start it: "
            "sudo apt-get install docker.io"
        )
    return client
