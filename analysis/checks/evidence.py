"""What checks read of one record, and the evidence that leads to its files."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Literal

from wattbench.analysis.model.devices import is_gpu
from wattbench.analysis.model.findings import Evidence
from wattbench.analysis.model.records import EdgeReadings, Note, Record

#: Gauges of a GPU: its utilisation and its power.
GPU_USAGE = r"gpu\d*_(?:usage|util_pct)"
GPU_POWER = r"gpu\d*_power.*"


def place(record: Record, **more: Any) -> Evidence:
    """Evidence that leads to the trial's raw file, or to a line of its log.

    Of an imported file as a whole the line is 1, its header.
    """
    log, row = record.log, record.row
    if log.get("file") and ("line" in more or not row.raw):
        return {"file": log["file"], "line": log.get("line")} | more
    if row.planned_position is None and row.raw:
        return row.raw_place() | more
    return ({"file": row.raw} if row.raw else {}) | more


def place_of_note(note: Note) -> Evidence:
    """Line and column of a note, as far as they are known."""
    return {k: v for k, v in (("line", note.line), ("column", note.column)) if v is not None}


def log_line(record: Record) -> Evidence:
    """The line of the text log where the trial is reported."""
    return {"line": record.log["line"]} if record.log.get("file") else {}


@functools.lru_cache(maxsize=4096)
def matching(pattern: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that match as a whole, in any case."""
    return tuple(n for n in names if re.fullmatch(pattern, n, re.IGNORECASE))


def series(record: Record, pattern: str) -> list[Mapping[str, float]]:
    """Summaries of the gauges whose name matches."""
    return [record.series[name] for name in matching(pattern, tuple(record.series))]


def gpu_powers(record: Record) -> list[dict[str, float]]:
    """Summaries of the GPUs' power, W."""
    found = []
    for name in matching(GPU_POWER, tuple(record.series)):
        of_one_w = 1000 if name.endswith("_mw") else 1
        values = record.series[name]
        found.append({key: values[key] / of_one_w for key in ("mean", "min", "max")})
    return found


def device_of(record: Record) -> str | None:
    """The device that the workload reports, lower case without index."""
    device = record.work.device_actual or record.log.get("device") or record.row.device
    return str(device).lower().split(":")[0] if device else None


def wants_gpu(record: Record) -> bool | None:
    """Whether the trial should use a GPU; None: the record does not show what was wanted."""
    wanted = record.expected.get("device")
    return None if wanted is None else is_gpu(str(wanted))


def increase(record: Record, group: Literal["throttle", "swap"], key: str) -> float | None:
    """After minus before of a counter of the window's edges."""
    before, after = (
        (record.edges.get(edge, EdgeReadings()).get(group) or {}).get(key)
        for edge in ("before", "after")
    )
    return None if before is None or after is None else float(after) - float(before)
