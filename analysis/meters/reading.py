"""One reading per meter: curves per domain, gauges and notes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from wattbench.analysis.meters.curves import Curve
from wattbench.analysis.meters.energibridge import FloatArray, usual_interval
from wattbench.analysis.model.records import Note, Sampling

#: Readings are taken just after their stamps.
READ_S = 0.001


@dataclass(frozen=True)
class Reading:
    """What one meter read in one attempt.

    Attributes:
        meter: ``energibridge``, ``modelled``, ``powercap``, ``nvml``.
        curves: energy of each domain; at most one a domain and method.
        time_s: of the rows, wall clock, s.
        series: gauges by column, shape (rows,) each.
        notes: what was met.
        own_clock: rows are stamped by a program of its own and only while it runs, not by the agent.
    """

    meter: str
    curves: tuple[Curve, ...] = ()
    time_s: FloatArray = field(default_factory=lambda: np.empty(0))
    series: Mapping[str, FloatArray] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    own_clock: bool = False

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
        counters: values by name (a zone, a GPU's index) under each meter's own key.
    """

    unix_s: float
    counters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, mark: Mapping[str, object] | None) -> Edge | None:
        """From ``command.json``'s ``started`` or ``ended``; None where there is none."""
        unix_s = (mark or {}).get("unix_s")
        if not isinstance(unix_s, (int, float)):
            return None
        groups = {key: numbers_of(value) for key, value in (mark or {}).items()}
        return cls(float(unix_s), {key: values for key, values in groups.items() if values})

    def values(self, key: str) -> Mapping[str, float]:
        """The counters of a meter."""
        return self.counters.get(key, {})


def numbers_of(found: Any) -> dict[str, float]:
    """The entries of a mapping that are numbers; empty for anything else."""
    if not isinstance(found, Mapping):
        return {}
    return {
        str(key): float(value)
        for key, value in found.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def read_table(data: bytes, name: str) -> tuple[pd.DataFrame, list[Note]]:
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


def with_edges(
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
