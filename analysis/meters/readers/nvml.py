"""Reading of the agent's nvml.csv: GPU energy counters and power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wattbench.analysis.meters.counters import unwrap
from wattbench.analysis.meters.curves import POWER_AVERAGE_S, Curve, integrate_power, stale
from wattbench.analysis.meters.energibridge import FloatArray
from wattbench.analysis.meters.reading import Edge, Reading, read_table, with_edges
from wattbench.analysis.meters.registry import Device, Edges, EdgesOfReport, Meter, meter
from wattbench.analysis.model.records import EdgeReadings

#: NVML's take their time: 4 ms for the energy counter of an H100 (driver 580).
NVML_READ_S = 0.02
#: NVML refreshes its energy counter and its power every 20 to 100 ms; on an H100 every 100.
NVML_UPDATE_S = 0.1
#: Columns that summarise a window in :attr:`analysis.records.Record.series`.
_NVML_GAUGES = ("power_mw", "util_pct", "temperature_c", "sm_clock_mhz", "throttle", "foreign")


FILE = "nvml.csv"

#: Key of the GPUs' counters in the marks of the window's edges.
MARK = "nvml_mj"

#: NVML's reasons for slower clocks that mean throttling, by bit of the mask (NVML API reference,
#: nvmlClocksEventReasons).
THROTTLED = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


#: The reason that the power limit holds clocks down: no fault, but the limit decides the joules.
POWER_CAP = 0x04


@meter
class Nvml(Meter):
    """NVIDIA's GPUs through NVML, read by the agent; it reads the trial's GPUs alone."""

    kind = "nvml"
    files = (FILE,)
    rank = 10
    only_given = True

    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """The rows, and the counters at the window's edges."""
        if not edges.left(FILE, MARK, raw):
            return None
        return nvml_reading(raw.get(FILE, b""), edges.marks)

    def devices(
        self, edges: EdgesOfReport, series: Mapping[str, Mapping[str, float]]
    ) -> tuple[Device, ...]:
        """Throttling, other processes and driver of each GPU."""
        slowed = [column for column in series if column.endswith("_throttle")]
        if not edges and not slowed:
            return ()  # of an import: asked of each of many thousand trials
        at = {edge: _gpus(edges.get(edge, EdgeReadings())) for edge in ("before", "after")}
        masks: dict[str, list[int]] = {}
        for gpus in at.values():
            for name, gpu in gpus.items():
                if gpu.get("throttle") is not None:
                    masks.setdefault(name, []).append(_whole(gpu["throttle"]))
        for column in slowed:
            name, summary = column.removesuffix("_throttle"), series[column]
            masks.setdefault(name, []).append(int(summary.get("any", summary["max"])))
        return tuple(
            Device(
                name=name,
                identity=str(at["before"].get(name, {}).get("uuid") or ""),
                slowed_by=_reasons(masks[name]) if name in masks else None,
                power_capped=any(mask & POWER_CAP for mask in masks.get(name, ())),
                other_processes=_whole(at["before"].get(name, {}).get("processes")),
                foreign_inside=int(series.get(f"{name}_foreign", {}).get("max", 0)),
                foreign_after=_whole(at["after"].get(name, {}).get("processes")),
                driver=str(at["before"].get(name, {}).get("driver") or ""),
            )
            for name in sorted({*at["before"], *at["after"], *masks})
        )


def _gpus(edge: EdgeReadings) -> dict[str, dict[str, object]]:
    """A report's GPUs at one edge, by domain."""
    gpus = edge.get("nvml") or []
    return {f"gpu{gpu.get('index', place)}": gpu for place, gpu in enumerate(gpus)}


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _reasons(masks: Sequence[int]) -> tuple[str, ...]:
    return tuple(text for bit, text in THROTTLED.items() if any(mask & bit for mask in masks))


def fresh_rows(time_s: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A GPU's counter where it moved, each at the middle of when it may have been brought up to date.

    That was after the reading before, and at most :data:`NVML_UPDATE_S` ago.
    """
    moved = np.append(True, np.diff(values) != 0.0)[: values.size]
    age = np.minimum(np.diff(time_s, prepend=-np.inf), NVML_UPDATE_S)
    return (time_s - age / 2.0)[moved], values[moved]


def nvml_reading(data: bytes, edges: Sequence[Edge] = ()) -> Reading:
    """GPUs through NVML: the energy counter where it exists, else power integrated.

    Where both exist, the integrated power is a curve of meter ``nvml-power``, for comparison.
    """
    frame, notes = read_table(data, FILE)
    time_s = frame["unix_s"].to_numpy(dtype=float)
    columns = {c: frame[c].to_numpy(dtype=float) for c in frame.columns[2:]}
    indices = {c.partition("_")[0].removeprefix("gpu") for c in columns if c.startswith("gpu")}
    indices |= {i for e in edges for i in e.values(MARK)}
    found: list[Curve] = []
    for index in sorted(indices, key=lambda i: (len(i), i)):
        gpu = f"gpu{index}"
        counter = columns.get(f"{gpu}_energy_mj", np.full(time_s.size, np.nan))
        marks = [(e.unix_s, e.values(MARK).get(index)) for e in edges]
        time, values = fresh_rows(*with_edges(time_s, counter, marks, NVML_READ_S))
        if time.size >= 2:
            # Counts from the driver's start, 64 bits: a fall is never a wrap.
            whole = unwrap(values / 1e3, span_j=2.0**64 / 1e3, time_s=time)
            own_notes = tuple(replace(n, column=f"{gpu}_energy_mj", line=None) for n in whole.notes)
            found.append(
                Curve(
                    gpu, "nvml", time, whole.values_j, (f"{gpu}_energy_mj",),
                    sample_s=NVML_UPDATE_S, quantum_j=1e-3, notes=own_notes,
                )
            )  # fmt: skip
        power = _power(gpu, time_s, columns, "nvml-power" if time.size >= 2 else "nvml")
        if power is not None:
            found.append(power)
    notes += [note for curve in found for note in curve.notes]
    series = {c: v for c, v in columns.items() if c.partition("_")[2] in _NVML_GAUGES}
    return Reading("nvml", tuple(found), time_s, series, tuple(notes))


def _power(
    gpu: str, time_s: FloatArray, columns: Mapping[str, FloatArray], meter: str
) -> Curve | None:
    """A GPU's power integrated: of the moment where the driver reports it, else its mean over a second."""
    for name, averaged_s in (("power_instant_mw", 0.0), ("power_mw", POWER_AVERAGE_S)):
        column = f"{gpu}_{name}"
        power = columns.get(column, np.full(time_s.size, np.nan)) / 1e3
        kept = np.isfinite(power)
        if kept.sum() < 2:
            continue
        usage = columns.get(f"{gpu}_util_pct")
        energy, doubt = integrate_power(time_s[kept], power[kept])
        repeats = stale(power[kept], time_s[kept], None if usage is None else usage[kept])
        return Curve(
            gpu, meter, time_s[kept], energy, (column,), sample_s=NVML_UPDATE_S, quantum_j=0.0,
            power_w=power[kept], doubt_j=doubt, averaged_s=averaged_s,
            notes=tuple(replace(n, column=column, line=None) for n in repeats),
        )  # fmt: skip
    return None
