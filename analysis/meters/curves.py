"""Energy curves: cumulative joules over time, from counters and from power."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattbench.analysis.meters.counters import (
    COUNTER_BITS,
    IMPLAUSIBLE_W,
    UNIT_EXPONENTS,
    infer_unit,
    unwrap,
)
from wattbench.analysis.meters.energibridge import (
    GAP_FACTOR,
    Column,
    FloatArray,
    IntArray,
    Kind,
    Samples,
    usual_interval,
)
from wattbench.analysis.model.records import Note

#: How long after ``Time`` a row's sample may be taken where the log does not say, s (MSR reads: 1
#: to 5 ms).
SAMPLE_S = 0.005
#: NVML's power is the mean of the last second on Ampere (but GA100) and newer; which GPU it was, a
#: log does not say (NVML API reference, nvmlDeviceGetPowerUsage).
POWER_AVERAGE_S = 1.0
#: Under this utilisation and more, %, power that a sensor repeats in this many rows and seconds stands
#: still, unless its readings are multiples of so many W.
WORKING_PCT, FROZEN_ROWS, FROZEN_S, COARSE_W = 20.0, 10, 4.0, 0.5
#: RAPL updates its counters about every millisecond.
UPDATE_S = 0.001
#: Power of a phase at its edge is the mean of so many nearest whole intervals, its spread of so
#: many.
NEAREST, SPREAD = 3, 8


@dataclass(frozen=True)
class Curve:
    """Energy since the first row as a function of time: one domain by one meter.

    Attributes:
        domain: ``package``, ``dram``, ``pp0``, ``gpu0``, ….
        meter: ``energibridge``, ``powercap``, ``nvml``, ….
        time_s: strictly increasing, s, shape (rows,).
        energy_j: never falling, J, shape (rows,).
        sources: columns, zones or devices that were read.
        wraps: counter wraps corrected.
        sample_s: a row's sample is taken within so many seconds after its time.
        quantum_j: the counter's resolution, J.
        power_w: (power columns) the samples that were integrated, W, shape (rows,).
        doubt_j: (power columns) standard deviation of each interval's energy, J, shape (rows − 1,).
        averaged_s: (power columns) a sample may be the mean of so many seconds before it.
        offset_w: (power columns) what all samples may be off alike, W.
        shift_s: what all times may be off alike, s: clocks of two machines, a meter's lag.
        notes: what was met; ``line`` is the log's.
    """

    domain: str
    meter: str
    time_s: FloatArray
    energy_j: FloatArray
    sources: tuple[str, ...] = ()
    wraps: int = 0
    sample_s: float = SAMPLE_S
    quantum_j: float = 2.0**-14
    power_w: FloatArray | None = None
    doubt_j: FloatArray | None = None
    averaged_s: float = 0.0
    offset_w: float = 0.0
    shift_s: float = 0.0
    notes: tuple[Note, ...] = ()

    @property
    def total_j(self) -> float:
        """First row to last, J."""
        return float(self.energy_j[-1] - self.energy_j[0])


def integrate_power(time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Energy since the first row by trapezoids, J, and each interval's standard deviation, J.

    Between two samples the power may have stepped at any moment: the deviation of an interval is
    that of a step at a uniformly random time, |ΔP|·Δt/√12. Two samples of a swinging load may be
    equal by chance, so ΔP is at least what the intervals around it show (:func:`_swing_near`), and
    across a gap of several usual intervals at least the whole range of power seen.
    """
    seconds = np.diff(time_s)
    energy = np.concatenate([[0.0], np.cumsum(seconds * (power_w[1:] + power_w[:-1]) / 2.0)])
    steps = np.abs(np.diff(power_w))
    swing = np.maximum(steps, _swing_near(steps))
    interval = usual_interval(time_s)
    if interval is not None and power_w.size:
        swing = np.where(seconds > GAP_FACTOR * interval, np.maximum(swing, np.ptp(power_w)), swing)
    return energy, swing * seconds / math.sqrt(12.0)


def _swing_near(steps_w: FloatArray) -> FloatArray:
    """Root mean square of the ``SPREAD`` steps around each, widened for few as Student's t is."""
    count = steps_w.size
    squares = np.concatenate([[0.0], np.cumsum(steps_w**2)])
    first = np.clip(np.arange(count) - SPREAD // 2, 0, max(0, count - SPREAD))
    end = np.minimum(first + SPREAD, count)
    near: FloatArray = np.sqrt((squares[end] - squares[first]) / (end - first))
    return near * (1.0 + 2.0 / (end - first))


def curves(
    samples: Samples,
    *,
    meter: str = "energibridge",
) -> tuple[Curve, ...]:
    """The curves of an EnergiBridge log's energy and power columns; absent domains are absent.

    Args:
        samples: rows; fewer than two distinct times give no curve.
        meter: name of the meter in the curves.
    """
    if samples.rows < 2:
        return ()
    found = []
    for column in samples.energy_columns:
        kept = _rows_of(samples, column)
        if kept.size < 2:
            note = Note("missing-column", "fewer than two numbers", column=column.name, fatal=True)
            empty = np.empty(0)
            found.append(Curve(column.domain or "", meter, empty, empty, notes=(note,)))
        elif column.kind is Kind.CUMULATIVE:
            found.append(_counter_curve(samples, column, kept, meter))
        else:
            found.append(_power_curve(samples, column, kept, meter))
    return tuple(found)


def _rows_of(samples: Samples, column: Column) -> IntArray:
    """Indices of the rows that a curve is made of: numbers, strictly increasing in time.

    Row 2 follows row 1 at once, and row 1's sample is taken before its ``Time``, all others' after
    it: of rows that close, the later is kept.
    """
    rows: IntArray = np.isfinite(column.values).nonzero()[0]
    if rows.size < 2:
        return rows
    time_s = samples.time_s[rows]
    latest = np.maximum.accumulate(time_s)
    rows = rows[time_s >= latest]
    time_s = samples.time_s[rows]
    close = 0.05 * (samples.interval_s or 0.0)
    last_of_time = np.append(np.diff(time_s) > 0.0, True)
    if rows.size > 2 and time_s[1] - time_s[0] <= close:
        last_of_time[0] = False
    kept: IntArray = rows[last_of_time]
    return kept


def _sample_s(samples: Samples) -> float:
    """How long a sample takes, s: the last row's Delta says it, unless the log was cut short."""
    if samples.delta_s is not None and samples.rows:
        last = float(samples.delta_s[-1])
        if 0.0 < last <= min(0.1, 0.5 * (samples.interval_s or 0.0)):
            return max(last, SAMPLE_S)
    return SAMPLE_S


def _counter_curve(
    samples: Samples,
    column: Column,
    rows: IntArray,
    meter: str,
) -> Curve:
    time_s, values = samples.time_s[rows], column.values[rows]
    whole = unwrap(values, time_s=time_s)
    notes = [
        replace(n, column=column.name, line=None if n.line is None else
        int(samples.lines[rows[n.line]]))
        for n in whole.notes
    ]  # fmt: skip
    seconds, steps = np.diff(time_s), np.diff(whole.values_j)
    for index in (steps > IMPLAUSIBLE_W * seconds).nonzero()[0]:
        text = f"{steps[index]:.1f} J in {seconds[index]:.3f} s: not possible"
        line = int(samples.lines[rows[index + 1]])
        notes.append(Note("jump", text, line, column.name, fatal=True))
    # A gap long enough for a whole turn of the counter hides it.
    longest = int(np.argmax(seconds))
    turn_j = float(np.max(steps / seconds)) * float(seconds[longest])
    span = whole.span_j
    if span is None and turn_j > 2.0**15:
        unit = infer_unit(values)
        span = (unit or 2.0 ** -UNIT_EXPONENTS[-1]) * 2.0**COUNTER_BITS
    if span is not None and turn_j > span:
        text = (
            f"{seconds[longest]:.0f} s between rows: the counter of {span:.0f} J may have wrapped"
        )
        line = int(samples.lines[rows[longest + 1]])
        notes.append(Note("gap", text, line, column.name, fatal=True))
    half = _sample_s(samples) / 2.0
    return Curve(
        domain=column.domain or "",
        meter=meter,
        # Samples are taken within `sample_s` after `Time`: their middle is the best guess.
        time_s=time_s + half,
        energy_j=whole.values_j,
        sources=(column.name,),
        wraps=whole.wraps,
        sample_s=2.0 * half,
        notes=tuple(notes),
    )


def _power_curve(samples: Samples, column: Column, rows: IntArray, meter: str) -> Curve:
    time_s, power = samples.time_s[rows], column.values[rows]
    energy, doubt = integrate_power(time_s, power)
    usage = [c.values[rows] for c in samples.find("usage", column.domain)]
    notes = stale(power, time_s, usage[0] if usage else None)
    return Curve(
        domain=column.domain or "",
        meter=meter,
        time_s=time_s,
        energy_j=energy,
        sources=(column.name,),
        sample_s=_sample_s(samples),
        quantum_j=0.0,
        power_w=power,
        doubt_j=doubt,
        averaged_s=POWER_AVERAGE_S if (column.domain or "").startswith("gpu") else 0.0,
        notes=tuple(
            replace(n, column=column.name, line=int(samples.lines[rows[n.line or 0]]))
            for n in notes
        ),
    )


def stale(power_w: FloatArray, time_s: FloatArray, usage_pct: FloatArray | None) -> list[Note]:
    """Runs of one repeated power value over which the load changed: a failing power read.

    GPUs refresh their power at their own pace and idle at a constant one, so equal values alone are
    normal: a run counts from five rows and a second on, if utilisation moved by 30 points within it.
    A GPU at work does not draw the same to the mW for long either: where a sensor resolves that, a
    longer run under steady utilisation counts too, and where it may not, the note is not fatal.
    ``line`` of a note is the index of the run's first row.
    """
    if usage_pct is None or power_w.size < 5:
        return []
    edges = np.concatenate([[0], (np.diff(power_w) != 0.0).nonzero()[0] + 1, [power_w.size]])
    fine = bool(np.any(np.rint(power_w * 1e3) % (1e3 * COARSE_W)))
    notes = []
    for first, end in itertools.pairwise(edges):
        seconds = time_s[end - 1] - time_s[first]
        if end - first < 5 or seconds < 1.0:
            continue
        # The first row of a run may be the last that was read well: a sensor lags its load.
        low, high = np.nanmin(usage_pct[first + 1 : end]), np.nanmax(usage_pct[first + 1 : end])
        moved = bool(high - low >= 30.0)
        if moved or (low >= WORKING_PCT and end - first >= FROZEN_ROWS and seconds >= FROZEN_S):
            text = (
                f"{power_w[first]:.1f} W in {end - first} rows while utilisation "
                f"{'went' if moved else 'stayed'} between {low:.0f} and {high:.0f} %"
            )
            notes.append(Note("stale", text, int(first), fatal=bool(moved or fine)))
    return notes


def add(meter: str, domain: str, found: Sequence[Curve]) -> Curve | None:
    """The sum of curves that share their rows (sockets of one host); None: nothing to add.

    Raises:
        ValueError: the curves do not share their rows.
    """
    if not found:
        return None
    first = found[0]
    if any(not np.array_equal(c.time_s, first.time_s) for c in found):
        raise ValueError("only curves of the same rows can be added")
    return replace(
        first,
        domain=domain,
        meter=meter,
        energy_j=np.sum([c.energy_j for c in found], axis=0),
        sources=tuple(s for c in found for s in c.sources),
        wraps=sum(c.wraps for c in found),
        quantum_j=sum(c.quantum_j for c in found),
        notes=tuple(n for c in found for n in c.notes),
    )
