"""Docker daemon: the running one, or one installed from Debian and started here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import docker

from demo.checkout import Checkout
from wattbench.analysis.model.errors import UserError
from wattbench.local import packages
from wattbench.local.docker_engine import connect, refuse_unusable
from wattbench.local.processes import Service, service


def ensure(checkout: Checkout, say: Callable[[str], None]) -> docker.DockerClient:
    """A client of a daemon that answers.

    Raises:
        UserError: no daemon, and we may not install one: one line that says what to do.
    """
    client = connect()
    if client is not None:
        return client
    refuse_unusable()
    if os.geteuid() != 0:
        raise UserError(
            "no Docker daemon answers; install and start it: sudo apt-get install docker.io "
            "(or run make demo as root, which does it)"
        )
    packages.require({"dockerd": "docker.io", "iptables": "iptables", "runc": "runc"}, say)
    client = connect()  # where systemd runs, installing starts it
    if client is not None:
        return client
    return _start(checkout, say)


def daemon(checkout: Checkout) -> Service:
    """The daemon of this machine, if this checkout started it."""
    return service(checkout, "dockerd")


def _start(checkout: Checkout, say: Callable[[str], None]) -> docker.DockerClient:
    engine = daemon(checkout)
    say(f"starting dockerd (log: {engine.log.relative_to(checkout.root)})")
    dockerd = packages.find("dockerd")
    if dockerd is None:
        raise UserError("docker.io is installed but has no dockerd; reinstall docker.io")
    # A dockerd that was killed leaves pid files and refuses to start on one that is in use again.
    if engine.pid() is None:
        for stale in ("/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"):
            _remove_stale(Path(stale))
        engine.ensure([dockerd], env={"PATH": packages.PATH})
    engine.wait_until(lambda: connect() is not None, within_s=60)
    client = connect()
    if client is None:
        raise UserError(f"dockerd: stopped answering; see {engine.log}")
    return client


def _remove_stale(pid_file: Path) -> None:
    try:
        name = Path("/proc", pid_file.read_text().strip(), "comm").read_text().strip()
    except OSError:
        name = ""
    if name not in {"dockerd", "containerd"}:
        pid_file.unlink(missing_ok=True)
