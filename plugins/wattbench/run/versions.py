"""Versions of installed packages, as recorded with runs and compared between machines."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import wattbench


def installed(*packages: str) -> dict[str, str]:
    """The version of each package that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def code() -> str:
    """Twelve hex digits of a hash of our modules: the same from a wheel, a checkout and an image."""
    package = Path(wattbench.__file__).parent
    modules = []
    for folder, folders, files in os.walk(package, followlinks=True):  # a checkout has links
        if Path(folder) == package:
            folders[:] = [name for name in folders if name != "images"]  # data
        modules += [Path(folder, name) for name in files if name.endswith(".py")]
    digest = hashlib.sha256()
    for file in sorted(modules):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
