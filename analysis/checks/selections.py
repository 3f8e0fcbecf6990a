"""Choices and groups of a campaign's records that its checks share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from wattbench.analysis.model.records import Record

_Key = TypeVar("_Key", bound=Hashable)


def treatment(record: Record) -> str:
    """Image, kind where it is not a workload, and whether an idle trial held the model loaded."""
    row = record.row
    loaded = ", loaded" if row.idle_state == "loaded" else ""
    return row.image if row.kind == "workload" else f"{row.image} ({row.kind}{loaded})"


def usable(record: Record) -> bool:
    """Whether a trial has numbers: its own, or those of a published table alone."""
    return record.row.status in ("valid", "invalid") or bool(record.log.get("derived"))


def in_time(records: Iterable[Record]) -> list[Record]:
    """The trials whose start is known, in order of their start."""
    timed = [r for r in records if r.row.started_at]
    return sorted(timed, key=lambda r: (r.row.started_at or "", r.row.position or 0))


def measured(records: Iterable[Record], *kinds: str) -> list[Record]:
    """The usable trials of these kinds that have joules."""
    return [r for r in records if r.row.kind in kinds and r.row.energy_j is not None and usable(r)]


def grouped(records: Iterable[Record], key: Callable[[Record], _Key]) -> dict[_Key, list[Record]]:
    """Records by a key, in order of first appearance."""
    groups: dict[_Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def host_of(record: Record) -> str:
    """The host of a record."""
    return record.row.host
