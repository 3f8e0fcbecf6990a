"""Additions from other distributions, by Python entry points.

An entry point that can't be loaded is one warning that names it; everything else goes on.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points

log = logging.getLogger("wattbench.extensions")


def load(group: str) -> Iterator[tuple[str, object]]:
    """The name and the object of each entry point of a group that can be loaded, by name."""
    for point in sorted(_points(group, tuple(sys.path)), key=lambda p: (p.name, p.value)):
        try:
            yield point.name, point.load()
        except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises
            log.warning(
                "%s %r of %s is left out: %s: %s; correct or uninstall it",
                group, point.name, _distribution(point), type(error).__name__, error,
            )  # fmt: skip


@cache
def import_modules(package: str, group: str) -> None:
    """Import every module of a package, then those of a group of entry points: each registers itself."""
    for module in sorted(
        m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)
    ):
        importlib.import_module(f"{package}.{module}")
    for _ in load(group):
        pass


@cache
def _points(group: str, path: tuple[str, ...]) -> EntryPoints:  # noqa: ARG001 - other paths, other points
    """The entry points of a group; asked once, since that reads a file of each distribution."""
    return entry_points(group=group)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
