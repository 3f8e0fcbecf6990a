"""Teardown of the test bed: only what carries this checkout's label or stands in its pid files."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import docker
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container

from demo import docker_engine
from demo.checkout import Checkout
from wattbench.local.airflow_services import PROCESSES
from wattbench.local.docker_engine import connect
from wattbench.local.processes import service, services

#: What needs others goes first; the daemon, if it is ours, last of all.
_ORDER = (*PROCESSES, "store", "registry", "registry-push")


def stop(checkout: Checkout, say: Callable[[str], None]) -> None:
    """Stops services and hosts; everything is kept, `up` continues with it."""
    names = [process.name for process in services(checkout)]
    rank = {name: place for place, name in enumerate(_ORDER)}
    for name in sorted(names, key=lambda name: rank.get(name, len(rank))):
        if name != "dockerd" and service(checkout, name).stop():
            say(f"stopped {name}")
    client = connect()
    for container in _containers(client, checkout):
        container.stop(timeout=15)
        say(f"stopped container {container.name}")


def remove(checkout: Checkout, say: Callable[[str], None]) -> None:
    """Removes all of the test bed; keeps Debian's packages and other people's things."""
    stop(checkout, say)
    client = connect()
    if client is not None:
        _remove_from_docker(client, checkout, say)
    daemon = docker_engine.daemon(checkout)
    if daemon.pid() is not None:
        others = client.containers.list() if client is not None else []
        if others:
            say(
                f"dockerd keeps running: {', '.join(str(c.name) for c in others[:3])} is not ours; "
                f"stop it with: kill {daemon.pid()}"
            )
        elif daemon.stop(grace_s=60):
            say("stopped dockerd, which this checkout had started")
    if checkout.var.exists():
        shutil.rmtree(checkout.var)
        say("removed var/")
    say("kept: .venv and Debian's packages (docker.io, mmdebstrap, … where they were installed)")


def _containers(client: docker.DockerClient | None, checkout: Checkout) -> list[Container]:
    if client is None:
        return []
    found = client.containers.list(all=True, filters={"label": checkout.label})
    return [container for container in found if container.status != "exited"]


def _remove_from_docker(
    client: docker.DockerClient, checkout: Checkout, say: Callable[[str], None]
) -> None:
    ours: dict[str, str | list[str] | bool] = {"label": checkout.label}
    counts = {"containers": 0, "networks": 0, "volumes": 0, "images": 0}
    for container in client.containers.list(all=True, filters=ours):
        container.remove(force=True, v=True)
        counts["containers"] += 1
    for network in client.networks.list(filters=ours):
        network.remove()
        counts["networks"] += 1
    for volume in client.volumes.list(filters=ours):
        volume.remove(force=True)
        counts["volumes"] += 1
    # Children before parents: an image that others are built on can't go first.
    images = client.images.list(all=True, filters=ours)
    while images:
        left = [image for image in images if not _remove_image(client, str(image.id))]
        counts["images"] += len(images) - len(left)
        if len(left) == len(images):
            say(f"{len(left)} images are used by others and stay")
            break
        images = left
    say("removed " + ", ".join(f"{number} {what}" for what, number in counts.items()))


def _remove_image(client: docker.DockerClient, image_id: str) -> bool:
    try:
        client.images.remove(image_id, force=True)
    except ImageNotFound:
        return True  # went with its child
    except APIError:
        return False
    return True
