"""Kinds of workloads: what every image of an experiment computes, and how its work is recognised.

The registry is the one list: config choices, plans, probes and documentation are derived from it. A kind
of another distribution is an entry point of the group ``wattbench.workloads`` that names an object with
the protocol :class:`~wattbench.workloads.protocol.Workload`; one that can't be used is a warning.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from wattbench.workloads.builtin import Builtin
from wattbench.workloads.command import CommandWorkload
from wattbench.workloads.protocol import Workload
from wattbench.workloads.serve import ServeWorkload
from wattbench.workloads.settings import Settings

log = logging.getLogger(__name__)

GROUP = "wattbench.workloads"
_OWN: tuple[Workload, ...] = (Builtin(), CommandWorkload(), ServeWorkload())


@functools.cache
def kinds() -> Mapping[str, Workload]:
    """Every kind by its name, ours first."""
    found = {workload.kind: workload for workload in _OWN}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP)):
        try:
            workload = entry.load()
            why = _misfit(workload, found)
        except Exception as error:  # noqa: BLE001 - another distribution's code must not break a command of ours
            why = f"{type(error).__name__}: {error}"
        if why is None:
            found[workload.kind] = workload
        else:
            log.warning("workload kind %s = %s is left out: %s", entry.name, entry.value, why)
    return found


def _misfit(workload: Any, known: Mapping[str, Workload]) -> str | None:
    """Why an object can't be a kind of workload."""
    wanted = [name for name in vars(Workload) if not name.startswith("_")] + ["kind", "Settings"]
    if missing := [name for name in wanted if not hasattr(workload, name)]:
        return f"it has no {', '.join(missing)}"
    if not (isinstance(workload.Settings, type) and issubclass(workload.Settings, Settings)):
        return "its Settings is not a subclass of wattbench.workloads.settings.Settings"
    if workload.kind in known:
        return f"kind {workload.kind!r} is known already"
    return None


def workload_of(settings: Settings) -> Workload:
    """The kind that settings belong to."""
    return kinds()[settings.kind]


def kind_of(value: object) -> str:
    """The kind of an experiment's ``workload``: the one it names, else the one that has most of its keys."""
    if isinstance(value, Settings):
        return value.kind
    keys = value if isinstance(value, Mapping) else {}
    if named := keys.get("kind"):
        return str(named)
    return max(kinds(), key=lambda k: len(keys.keys() & kinds()[k].Settings.model_fields))


def _branch_of(value: object) -> str | None:
    """The name of the model that a ``workload`` is; None: its kind is unknown."""
    workload = kinds().get(kind_of(value))
    return None if workload is None else workload.Settings.__name__


def any_settings() -> Any:
    """The type of ``workload`` in an experiment: the settings of any kind."""
    union: Any = None
    for workload in kinds().values():
        settings: Any = workload.Settings
        tagged = Annotated[settings, Tag(settings.__name__)]
        union = tagged if union is None else union | tagged
    return Annotated[
        union,
        Discriminator(
            _branch_of,
            custom_error_type="workload_kind",
            custom_error_message=f"kind is not one of {', '.join(kinds())}",
        ),
    ]
