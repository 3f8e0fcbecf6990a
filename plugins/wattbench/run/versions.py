"""Versions of installed packages, as recorded with runs and compared between machines."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed(*packages: str) -> dict[str, str]:
    """The version of each package that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
