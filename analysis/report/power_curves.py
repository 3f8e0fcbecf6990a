"""Power over time of one trial, from its raw samples in the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from wattbench.analysis.meters import registry
from wattbench.analysis.meters.curves import Curve
from wattbench.analysis.model.records import Phase, Record
from wattbench.analysis.storage.source import Source, SourceError

FloatArray = npt.NDArray[np.float64]

#: Points that are drawn; more can't be seen.
_POINTS = 240


@dataclass(frozen=True)
class PowerCurve:
    """One trial.

    Attributes:
        time_s: left edges of the steps, s since the window's start, shape (points,).
        power_w: mean power of each step over ``scope``, W, shape (points,).
        phases: of the window.
        duration_s: of the window.
        energy_j: of the window.
        scope: domains summed.
        longest_s: the longest window drawn beside this one.
    """

    time_s: FloatArray
    power_w: FloatArray
    phases: tuple[Phase, ...]
    duration_s: float
    energy_j: float
    scope: str
    longest_s: float


def typical(records: Iterable[Record], host: str) -> dict[str, Record]:
    """Of each image the valid workload trial on a host whose energy is nearest the image's median."""
    mine = [
        r
        for r in records
        if r.row.host == host and r.row.kind == "workload" and r.row.status == "valid"
    ]
    found = {}
    for image in dict.fromkeys(r.row.image for r in mine):
        joules = {id(r): float(r.row.energy_j or 0) for r in mine if r.row.image == image}
        middle = float(np.median(list(joules.values())))
        found[image] = min(
            (r for r in mine if r.row.image == image),
            key=lambda r: (abs(joules[id(r)] - middle), r.row.planned_position or 0),
        )
    return found


def read(
    source: Source, records: Iterable[Record]
) -> tuple[dict[str, PowerCurve], tuple[str, ...]]:
    """Power curves by image, and why some are missing."""
    curves, why = {}, []
    for record in records:
        try:
            curve = _read(source, record)
        except SourceError as error:
            why.append(f"{record.row.image}: {error}")
            continue
        if curve is None:
            why.append(f"{record.row.image}: its raw samples give no power over time")
        else:
            curves[record.row.image] = curve
    longest = max((c.duration_s for c in curves.values()), default=0.0)
    return {i: replace(c, longest_s=longest) for i, c in curves.items()}, tuple(why)


def _read(source: Source, record: Record) -> PowerCurve | None:
    row, start = record.row, record.timing.get("started_unix_s")
    counted = {(d.meter, d.name) for d in record.domains if d.counted}
    if not row.raw or start is None or not counted or not row.duration_s:
        return None
    folder = row.raw.rpartition("/")[0].partition(f"runs/{row.run_id}/")[2] or "."
    there = {e.key.rpartition("/")[2] for e in source.list(folder + "/")}
    files = {
        name: source.open(f"{folder}/{name}.gz").read()
        for name in registry.raw_files()
        if f"{name}.gz" in there
    }
    before, after = (record.edges.get(edge) or {} for edge in ("before", "after"))
    configured = str(record.expected.get("meter") or "energibridge")
    beside = {str(m["kind"]) for m in record.expected.get("meters") or ()}
    readings, _ = registry.read_all(files, registry.Edges((), before, after), configured, beside)
    curves = [
        c
        for r in readings.values()
        for c in r.curves
        if (c.meter, c.domain) in counted and c.time_s.size > 1
    ]
    if not curves:
        return None
    return _sum(curves, record, float(start))


def _sum(curves: list[Curve], record: Record, start: float) -> PowerCurve:
    duration = float(record.row.duration_s or 0)
    times = np.unique(np.concatenate([c.time_s for c in curves])) - start
    inside = (times >= 0) & (times <= duration)
    edges = np.unique(np.concatenate([[0.0], times[inside], [duration]]))
    if edges.size > _POINTS:
        edges = np.linspace(0.0, duration, _POINTS + 1)
    energy = sum(np.interp(edges + start, c.time_s, c.energy_j) for c in curves)
    power = np.diff(energy) / np.diff(edges)
    return PowerCurve(
        time_s=edges,
        power_w=np.append(power, power[-1:]),
        phases=record.phases,
        duration_s=duration,
        energy_j=float(record.row.energy_j or 0),
        scope=str(record.row.energy_scope),
        longest_s=duration,
    )


def rest_course(records: Iterable[Record], host: str) -> pd.DataFrame:
    """How a host rested before each window: position, block, rest_s, before_c, after_c, late."""
    rows = []
    for record in records:
        if record.row.host != host or record.row.position is None:
            continue
        edges = [(record.edges.get(e) or {}).get("temperature_c") for e in ("before", "after")]
        rows.append(
            (record.row.position, record.row.block, record.row.rest_s, *edges, record.row.late)
        )
    columns = ["position", "block", "rest_s", "before_c", "after_c", "late"]
    frame = pd.DataFrame(rows, columns=columns)
    floats = ["rest_s", "before_c", "after_c"]
    return frame.astype(
        {"position": "Int64", "block": "Int64", "late": "boolean"}
        | dict.fromkeys(floats, "float64")
    )
