"""Base images that all images of the demo are built on.

Where a registry answers these are the public `debian:bookworm-slim` and `python:3.11-slim`; where
none does, a minimal Debian made here from Debian's own packages stands for both.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from demo.checkout import Checkout
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import written_beside
from wattbench.local import packages

_REGISTRY = "https://registry-1.docker.io/v2/"
_PUBLIC = ("debian:bookworm-slim", "python:3.11-slim")
_RECIPE = [
    "mmdebstrap",
    "--variant=minbase",
    "--include=python3-minimal,libpython3-stdlib,ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--aptopt=Acquire::Languages none",
    "bookworm",
]
_VERSION = hashlib.sha256("\0".join(_RECIPE).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Bases:
    """References of the base images.

    Attributes:
        debian: for what comes from the distribution's packages.
        python: for what comes from wheels; has a `python3` of version 3.11.
    """

    debian: str
    python: str


def ensure(client: docker.DockerClient, checkout: Checkout, say: Callable[[str], None]) -> Bases:
    """The bases, pulled or made; what is there already is used again."""
    local = f"{checkout.prefix}/base:{_VERSION}"
    if _has(client, local):
        return Bases(local, local)
    if all(_has(client, ref) for ref in _PUBLIC) or _pull(client, say):
        return Bases(*_PUBLIC)
    _make(client, checkout, local, say)
    return Bases(local, local)


def _has(client: docker.DockerClient, ref: str) -> bool:
    try:
        client.images.get(ref)
    except ImageNotFound:
        return False
    return True


def _pull(client: docker.DockerClient, say: Callable[[str], None]) -> bool:
    try:
        requests.get(_REGISTRY, timeout=5)  # 401 is an answer too
        for ref in _PUBLIC:
            say(f"pulling {ref}")
            repository, _, tag = ref.partition(":")
            client.images.pull(repository, tag=tag)
    except (requests.RequestException, DockerException) as error:
        say(f"no public registry ({type(error).__name__}): making a Debian base here instead")
        return False
    return True


def _make(
    client: docker.DockerClient, checkout: Checkout, ref: str, say: Callable[[str], None]
) -> None:
    packages.require({"mmdebstrap": "mmdebstrap"}, say)
    archive = checkout.folder("base") / "base.tar"
    if not archive.exists():
        say("making a minimal Debian with mmdebstrap")
        mode = "--mode=root" if os.geteuid() == 0 else "--mode=unshare"
        with written_beside(archive) as staging:
            result = subprocess.run(
                [_RECIPE[0], mode, *_RECIPE[1:], str(staging)], capture_output=True, text=True
            )
            if result.returncode:
                errors = [line for line in result.stderr.splitlines() if line.startswith("E: ")]
                raise UserError(f"mmdebstrap: {errors[-1][3:] if errors else result.stderr[-200:]}")
    repository, _, tag = ref.partition(":")
    client.api.import_image_from_file(
        str(archive), repository=repository, tag=tag, changes=[f"LABEL {checkout.label}"]
    )
    archive.unlink()  # Docker has it now
