"""This machine's Docker: containers of a spool, and the base image that tests start them from."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def base_image() -> str:
    """An image with a shell and Python: the base that the demo's images are made from."""
    if shutil.which("docker") is None or not docker("version", "--format", "{{.Server.Version}}"):
        pytest.skip("no Docker daemon here")
    for line in docker("images", "--no-trunc", "--format", "{{.Repository}} {{.ID}}").splitlines():
        name, identity = line.split()
        if name.startswith("wattbench-") and name.endswith("/base"):
            return identity
    pytest.skip("no base image here: run make demo first")


def containers(spool: Path) -> str:
    return docker("ps", "-aq", "--filter", f"label=wattbench.spool={spool}")


def networks(spool: Path) -> str:
    return docker("network", "ls", "-q", "--filter", f"label=wattbench.spool={spool}")


def until_running(spool: Path) -> str:
    deadline = time.monotonic() + 30
    label = f"label=wattbench.spool={spool}"
    while not (name := docker("ps", "--filter", label, "--format", "{{.Names}}")):
        assert time.monotonic() < deadline, "the container did not start"
        time.sleep(0.05)
    return name
