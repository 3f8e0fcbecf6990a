"""Additions from other distributions, by Python entry points.

An entry point that can't be loaded is one warning that names it; everything else goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

log = logging.getLogger("wattbench.extensions")


def load(group: str) -> Iterator[tuple[str, object]]:
    """The name and the object of each entry point of a group that can be loaded, by name."""
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, p.value)):
        try:
            yield point.name, point.load()
        except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises
            log.warning(
                "%s %r of %s is left out: %s: %s; correct or uninstall it",
                group, point.name, _distribution(point), type(error).__name__, error,
            )  # fmt: skip


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
