"""One :class:`Reading` a meter: EnergiBridge's log, ``powercap.csv`` and ``nvml.csv`` of the agent.

All meters share this shape: curves of domains, series of gauges, notes. An absent domain is absent,
never 0. The agent's files start with ``unix_s,mono_s``; curves run on the wall clock, as the log does.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import energibridge
from analysis.energibridge import FloatArray, usual_interval
from analysis.energy import POWER_AVERAGE_S, Curve, add, curves, integrate_power, stale, unwrap
from analysis.records import Note, Sampling

#: The counter's names in powercap → our domains. Zones of one name (sockets) are added.
_ZONES = {"dram": "dram", "core": "pp0", "uncore": "pp1", "psys": "psys"}
#: Readings are taken just after their stamps.
READ_S = 0.001
#: NVML's take their time: 4 ms for the energy counter of an H100 (driver 580).
NVML_READ_S = 0.02
#: NVML refreshes its energy counter and its power every 20 to 100 ms; on an H100 every 100.
NVML_UPDATE_S = 0.1
#: Columns that summarise a window in :attr:`analysis.records.Record.series`.
_NVML_GAUGES = ("power_mw", "util_pct", "temperature_c", "sm_clock_mhz", "throttle")


@dataclass(frozen=True)
class Reading:
    """What one meter read in one attempt.

    Attributes:
        meter: ``energibridge``, ``modelled``, ``powercap``, ``nvml``.
        curves: energy of each domain; at most one a domain and method.
        time_s: of the rows, wall clock, s.
        series: gauges by column, shape (rows,) each.
        notes: what was met.
    """

    meter: str
    curves: tuple[Curve, ...] = ()
    time_s: FloatArray = field(default_factory=lambda: np.empty(0))
    series: Mapping[str, FloatArray] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    def curve(self, domain: str) -> Curve | None:
        """A domain's curve, None where the meter did not read it."""
        return next((c for c in self.curves if c.domain == domain and c.time_s.size >= 2), None)

    def sampling(self, start_s: float, end_s: float) -> Sampling:
        """How densely a window was sampled."""
        inside = self.time_s[(self.time_s >= start_s) & (self.time_s <= end_s)]
        steps = np.diff(np.concatenate([[start_s], inside, [end_s]]))
        return Sampling(
            interval_s=usual_interval(self.time_s),
            rows=int(self.time_s.size),
            in_window=int(inside.size),
            largest_gap_s=float(steps.max()) if inside.size else None,
        )

    def summaries(self, start_s: float, end_s: float) -> dict[str, dict[str, float]]:
        """Mean, min, max, first and last of each gauge that has numbers in a window.

        Of reasons to throttle, a bit mask, also ``any``: all that were given.
        """
        inside = (self.time_s >= start_s) & (self.time_s <= end_s)
        found = {}
        for name, values in self.series.items():
            numbers = values[inside]
            numbers = numbers[np.isfinite(numbers)]
            if numbers.size:
                found[name] = {
                    "mean": float(numbers.mean()),
                    "min": float(numbers.min()),
                    "max": float(numbers.max()),
                    "first": float(numbers[0]),
                    "last": float(numbers[-1]),
                }
                if name.endswith("_throttle"):
                    found[name]["any"] = float(np.bitwise_or.reduce(numbers.astype(np.int64)))
        return found


@dataclass(frozen=True)
class Edge:
    """Counters at one edge of the window, read by the wrapper inside the meter.

    Attributes:
        unix_s: the edge.
        powercap_uj: counter by zone, µJ.
        nvml_mj: counter by GPU index, mJ.
    """

    unix_s: float
    powercap_uj: Mapping[str, float]
    nvml_mj: Mapping[str, float]

    @classmethod
    def of(cls, mark: Mapping[str, Any] | None) -> Edge | None:
        """From ``command.json``'s ``started`` or ``ended``; None where there is none."""
        unix_s = (mark or {}).get("unix_s")
        if not isinstance(unix_s, (int, float)):
            return None
        return cls(
            float(unix_s), _numbers((mark or {}).get("powercap_uj")), _numbers((mark or {}).get("nvml_mj"))
        )  # fmt: skip


def _numbers(found: Any) -> dict[str, float]:
    if not isinstance(found, Mapping):
        return {}
    return {
        str(key): float(value)
        for key, value in found.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def energibridge_reading(data: bytes, meter: str = "energibridge") -> Reading:
    """The main meter's log: ``meter`` is ``energibridge`` or ``modelled``.

    Raises:
        InputError: the log is too large.
    """
    samples = energibridge.read(data)
    found = curves(samples, meter=meter)
    series = {
        column.name: column.values  # noqa: PD011 - not pandas
        for column in samples.columns.values()
        if column.kind is not energibridge.Kind.CUMULATIVE
    }
    notes = (*samples.notes, *(note for curve in found for note in curve.notes))
    return Reading(meter, found, samples.time_s, series, notes)


def _table(data: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
    """An agent's CSV; cells that are no numbers are NaN, rows without a stamp are left out."""
    if not data.strip():
        return pd.DataFrame({"unix_s": []}, dtype=float), [Note("empty", f"{name}: no header")]
    text = data.decode("ascii", "replace").replace("\x00", "")
    header = text.partition("\n")[0].strip().split(",")
    if header[:2] != ["unix_s", "mono_s"] or len(set(header)) != len(header):
        note = Note("bad-header", f"{name}: does not start with unix_s,mono_s", 1)
        return pd.DataFrame({"unix_s": []}, dtype=float), [note]
    notes: list[Note] = []
    lines: list[str] = []
    body = text.splitlines()[1:]
    for number, line in enumerate(body, start=2):
        cut = number == len(body) + 1 and not text.endswith("\n")
        if line.count(",") == len(header) - 1 and not cut:
            lines.append(line)
        else:
            kind = "partial-row" if cut else "bad-row"
            notes.append(Note(kind, f"{name}: not {len(header)} whole cells; left out", number))
    frame = pd.read_csv(
        io.StringIO("\n".join(lines)), header=None, names=header, dtype=str, quoting=3
    ).apply(pd.to_numeric, errors="coerce")
    frame = frame.astype(float)
    frame = frame[np.isfinite(frame["unix_s"])]
    backwards = frame["unix_s"].diff() < 0
    if backwards.any():
        notes.append(Note("clock-step", f"{name}: the wall clock went back", fatal=True))
        frame = frame[frame["unix_s"] >= frame["unix_s"].cummax()]
    return frame.drop_duplicates("unix_s", keep="last"), notes


def _with_edges(
    time_s: FloatArray,
    values: FloatArray,
    edges: Sequence[tuple[float, float | None]],
    read_s: float = READ_S,
) -> tuple[FloatArray, FloatArray]:
    """A counter's rows and its readings at the window's edges, in order of time.

    Args:
        read_s: rows so near to an edge may have been read in another order than they are stamped.
    """
    known = [(t, v) for t, v in edges if v is not None]
    kept = np.isfinite(values)
    for moment, _ in known:
        kept &= np.abs(time_s - moment) > read_s
    time = np.concatenate([time_s[kept], [t for t, _ in known]])
    value = np.concatenate([values[kept], [v for _, v in known]])
    order = np.argsort(time, kind="stable")
    return time[order], value[order]


def _fresh(time_s: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A GPU's counter where it moved, each at the middle of when it may have been brought up to date.

    That was after the reading before, and at most :data:`NVML_UPDATE_S` ago.
    """
    moved = np.append(True, np.diff(values) != 0.0)[: values.size]
    age = np.minimum(np.diff(time_s, prepend=-np.inf), NVML_UPDATE_S)
    return (time_s - age / 2.0)[moved], values[moved]


def powercap_reading(data: bytes, zones: Mapping[str, Any], edges: Sequence[Edge] = ()) -> Reading:
    """RAPL through the kernel: all sockets, every wrap corrected by the zone's own range.

    Args:
        data: ``powercap.csv``; may be empty, edge readings alone make curves too.
        zones: ``{zone: {"name", "max_energy_range_uj", …}}`` of the report's edges.
        edges: counters at the window's edges, on the same clock.
    """
    frame, notes = _table(data, "powercap.csv")
    names = [c for c in frame.columns if c not in ("unix_s", "mono_s")]
    names += sorted({z for e in edges for z in e.powercap_uj} - set(names))
    time_s = frame["unix_s"].to_numpy(dtype=float)
    by_domain: dict[str, list[Curve]] = {}
    for zone in names:
        facts = zones.get(zone) or {}
        domain = _domain_of_zone(zone, str(facts.get("name") or ""))
        values = (
            frame[zone].to_numpy(dtype=float) if zone in frame else np.full(time_s.size, np.nan)
        )
        marks = [(e.unix_s, e.powercap_uj.get(zone)) for e in edges]
        time, counter = _with_edges(time_s, values, marks)
        if domain is None or time.size < 2:
            notes.append(Note("missing-column", f"zone {zone} was not read twice", column=zone))
            continue
        span = facts.get("max_energy_range_uj")
        whole = unwrap(counter / 1e6, span_j=span / 1e6 if span else None, time_s=time)
        found = tuple(replace(n, column=zone, line=None) for n in whole.notes)
        by_domain.setdefault(domain, []).append(
            Curve(
                domain, "powercap", time, whole.values_j, (zone,), whole.wraps,
                sample_s=READ_S, quantum_j=2.0**-14, notes=found,
            )
        )  # fmt: skip
    curves_found = [_sum_sockets(domain, found, notes) for domain, found in by_domain.items()]
    notes += [note for curve in curves_found for note in curve.notes]
    return Reading("powercap", tuple(curves_found), time_s, {}, tuple(notes))


def _sum_sockets(domain: str, found: list[Curve], notes: list[Note]) -> Curve:
    """One curve a domain: zones of several sockets, at the rows of the one that has the fewest."""
    fewest = min(found, key=lambda c: c.time_s.size).time_s
    common = [np.isin(c.time_s, fewest) for c in found]
    if any(mask.sum() != fewest.size for mask in common):
        notes.append(Note("bad-row", f"{domain}: the sockets' rows differ", fatal=True))
        return found[0]
    aligned = [
        replace(c, time_s=c.time_s[mask], energy_j=c.energy_j[mask])
        for c, mask in zip(found, common, strict=True)
    ]
    summed = add("powercap", domain, aligned)
    assert summed is not None  # there is at least one
    return summed


def _domain_of_zone(zone: str, name: str) -> str | None:
    """``package-1`` → package; None for a zone that says nothing."""
    if name.startswith("package") or (not name and zone.count(":") == 1):
        return "package"
    return _ZONES.get(name)


def nvml_reading(data: bytes, edges: Sequence[Edge] = ()) -> Reading:
    """GPUs through NVML: the energy counter where it exists, else power integrated.

    Where both exist, the integrated power is a curve of meter ``nvml-power``, for comparison.
    """
    frame, notes = _table(data, "nvml.csv")
    time_s = frame["unix_s"].to_numpy(dtype=float)
    columns = {c: frame[c].to_numpy(dtype=float) for c in frame.columns[2:]}
    indices = {c.partition("_")[0].removeprefix("gpu") for c in columns if c.startswith("gpu")}
    indices |= {i for e in edges for i in e.nvml_mj}
    found: list[Curve] = []
    for index in sorted(indices, key=lambda i: (len(i), i)):
        gpu = f"gpu{index}"
        counter = columns.get(f"{gpu}_energy_mj", np.full(time_s.size, np.nan))
        marks = [(e.unix_s, e.nvml_mj.get(index)) for e in edges]
        time, values = _fresh(*_with_edges(time_s, counter, marks, NVML_READ_S))
        if time.size >= 2:
            # Counts from the driver's start, 64 bits: a fall is never a wrap.
            whole = unwrap(values / 1e3, span_j=2.0**64 / 1e3, time_s=time)
            told = tuple(replace(n, column=f"{gpu}_energy_mj", line=None) for n in whole.notes)
            found.append(
                Curve(
                    gpu, "nvml", time, whole.values_j, (f"{gpu}_energy_mj",),
                    sample_s=NVML_UPDATE_S, quantum_j=1e-3, notes=told,
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
    """A GPU's power integrated: of the moment where the driver tells it, else its mean of a second."""
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
