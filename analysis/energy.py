"""Counters and power samples → joules of a window and its phases, with an uncertainty.

Everything here is pure. Each meter's columns become a :class:`Curve`, energy since its first row as
a function of time; :func:`split` cuts a curve at the window's and the phases' edges.

At rows, energy is known but for the counter's quantum and the moment of the sample. An edge between
two rows is placed with what is known on each side: the power of the whole intervals inside the
phase that ends there and of those inside the phase that begins there, reconciled with the energy of
the interval itself. How far a phase's power wanders between rows is taken for a random walk of
energy around the phase's mean power, so that the deviation inside an interval cut into ``a`` and
``b`` seconds is that of a Brownian bridge, ``σ² · a · b / (a + b)``. Where a side has no whole
interval of its own, the energy at the edge is bounded by the lowest and the highest power seen.
Half-widths are meant to cover the truth in at least 95 % of windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.energibridge import (
    GAP_FACTOR,
    Column,
    FloatArray,
    IntArray,
    Kind,
    Samples,
    usual_interval,
)
from analysis.records import Domain, Note

#: RAPL counters have 32 bits.
COUNTER_BITS = 32
#: Units that RAPL hardware uses: 2^-10 … 2^-16 J, coarsest first.
UNIT_EXPONENTS = tuple(range(10, 17))
#: No single counter's domain draws more, W: what lies above is a fault of the data.
IMPLAUSIBLE_W = 5000.0
#: How long after ``Time`` a row's sample may be taken where the log does not tell, s (MSR reads: 1
#: to 5 ms).
SAMPLE_S = 0.005
#: NVML's power is the mean of the last second on Ampere (but GA100) and newer; which GPU it was, a
#: log does not tell (NVML API reference, nvmlDeviceGetPowerUsage).
POWER_AVERAGE_S = 1.0
#: RAPL updates its counters about every millisecond.
UPDATE_S = 0.001
#: Half-widths are this many standard deviations: 2 would do for a known σ, σ is estimated from few
#: intervals.
WIDTH = 2.5
#: Power of a phase at its edge is the mean of so many nearest whole intervals, its spread of so
#: many.
NEAREST, SPREAD = 3, 8


@dataclass(frozen=True)
class Unwrapped:
    """A counter made monotone.

    Attributes:
        values_j: energy since the first value, J, shape (rows,).
        wraps: falls that were corrected.
        resets: falls that are no wrap; the energy across them is not known.
        span_j: the counter's range, J; None if nothing fell and none was given.
        notes: one a fall, ``line`` holding the index of the value after it.
    """

    values_j: FloatArray
    wraps: int
    resets: int
    span_j: float | None
    notes: tuple[Note, ...] = ()


def infer_unit(values_j: FloatArray) -> float | None:
    """The counter's unit, J, from the values' quantisation.

    Values are multiples of the unit; the coarsest of the hardware's units that divides all of them
    is taken. None where none does (values rounded in the log) or where a handful of values can't tell.
    """
    largest = values_j.max()
    if max(largest, -values_j.min()) > 2.0**COUNTER_BITS:  # no counter holds so many joules
        return None
    finest = values_j * 2.0 ** UNIT_EXPONENTS[-1]
    counts = finest.astype(np.int64)
    if (counts != finest).any():
        return None
    # The lowest bit set in any count is the largest power of two that divides all of them.
    bits = int(np.bitwise_or.reduce(counts))
    exponent = UNIT_EXPONENTS[-1] - ((bits & -bits).bit_length() - 1)
    if not bits or exponent <= 8:  # no hardware counts that coarsely: the log was rounded
        return None
    exponent = max(exponent, UNIT_EXPONENTS[0])
    # By chance all counts of a twice finer unit are even with probability 2^-n.
    enough = len(set(counts.tolist())) >= 10
    return 2.0**-exponent if enough and largest * 2.0**exponent < 2.0**COUNTER_BITS else None


def unwrap(
    values_j: FloatArray,
    *,
    unit_j: float | None = None,
    span_j: float | None = None,
    time_s: FloatArray | None = None,
) -> Unwrapped:
    """Make a cumulative counter monotone, telling wraps from resets.

    A fall is a wrap if the energy that one wrap implies is plausible power for its interval, measured
    by the other intervals; else it is a reset (counter restarted, host rebooted), or, if tiny, a glitch
    of a read. Where neither ``span_j`` nor ``unit_j`` is given and the values do not show the unit, the
    range whose implied power is most like the others' is taken, and a note says so.

    Args:
        values_j: J, shape (rows,), finite.
        unit_j: the counter's unit, J, if known; the range is 2^32 units.
        span_j: the counter's range, J, if known.
        time_s: of each value, s; None: equal steps of unknown length, power is then per step.
    """
    if unit_j is not None and span_j is None:
        span_j = unit_j * 2.0**COUNTER_BITS
    steps = values_j[1:] - values_j[:-1]
    if not steps.size or steps.min() >= 0.0:
        return Unwrapped(values_j - values_j[:1], 0, 0, span_j)
    falls = (steps < 0.0).nonzero()[0]
    seconds = np.ones(steps.size) if time_s is None else time_s[1:] - time_s[:-1]
    # Two rows at one time have a step, but no power.
    usable = (steps > 0.0) & (seconds > 0.0)
    usual = steps[usable] / seconds[usable]
    usual.sort()
    notes: list[Note] = []
    if span_j is None and (unit := infer_unit(values_j)) is not None:
        span_j = unit * 2.0**COUNTER_BITS
    if span_j is None:
        span_j = _likeliest_span(values_j, steps[falls], seconds[falls], usual)
        notes.append(
            Note("wrap", f"the values do not show the counter's unit; {span_j:.0f} J is likeliest")
        )
    limit_w = _most_plausible_w(usual)
    wraps = resets = 0
    for index in falls:
        before, after = values_j[index], values_j[index + 1]
        implied_j = steps[index] + span_j
        enough = limit_w * max(seconds[index], 0.05)
        if 0.0 <= implied_j <= enough:
            steps[index] = implied_j
            wraps += 1
            text = f"{_told(before, after)} J: wrapped at {span_j:.1f} J, {implied_j:.1f} J"
            notes.append(Note("wrap", text, int(index) + 1))
        elif -steps[index] <= min(1e-6 * span_j, enough):
            text = f"goes back by {-steps[index]:.4f} J: a read out of order, taken for no energy"
            notes.append(Note("backwards", text, int(index) + 1))
            _level(steps, int(index))
        else:
            resets += 1
            text = (
                f"{_told(before, after)} J: a wrap at {span_j:.0f} J would mean "
                f"{_told(float(implied_j) / max(float(seconds[index]), 1e-3))} W; the counter was reset"
            )
            notes.append(Note("reset", text, int(index) + 1, fatal=True))
            # The least that can have been used.
            steps[index] = max(after, 0.0) if after < before else 0.0
    monotone = np.zeros(values_j.size)
    with np.errstate(over="ignore"):  # of numbers that are no joules
        steps.cumsum(out=monotone[1:])
    return Unwrapped(monotone, wraps, resets, span_j, tuple(notes))


def _level(steps_j: FloatArray, fall: int) -> None:
    """Takes a small fall out, in place: what rises after it counts from where the counter had been."""
    owed, steps_j[fall] = -float(steps_j[fall]), 0.0
    for later in range(fall + 1, steps_j.size):
        taken = min(owed, float(steps_j[later]))
        if taken <= 0.0:  # nothing is owed, or it fell again
            return
        steps_j[later] -= taken
        owed -= taken


def _told(*values: float) -> str:
    """Numbers to a tenth; such as no counter holds in few digits."""
    return " → ".join(f"{v:.1f}" if abs(v) < 1e15 else f"{v:.3g}" for v in map(float, values))


def _most_plausible_w(usual: FloatArray) -> float:
    """The highest power that a fall may imply, from the sorted powers of the other intervals."""
    if usual.size < 3:
        return IMPLAUSIBLE_W
    return min(IMPLAUSIBLE_W, max(10.0 * float(usual[usual.size // 2]), 2.0 * float(usual[-1])))


def _likeliest_span(
    values_j: FloatArray, falls_j: FloatArray, seconds: FloatArray, usual: FloatArray
) -> float:
    """The range whose implied power at the falls is most like the usual power."""
    spans = [2.0 ** (COUNTER_BITS - e) for e in UNIT_EXPONENTS]
    possible = [s for s in spans if s > values_j.max()] or spans[:1]
    if not usual.size:
        return min(possible)
    typical = float(usual[usual.size // 2])
    if values_j.max() > max(spans):  # no counter holds so many joules
        return max(spans)
    implied = {s: (falls_j + s) / np.maximum(seconds, 1e-3) for s in possible}
    return min(possible, key=lambda s: float(np.abs(np.log(implied[s] / typical)).sum()))


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
    units_j: Mapping[str, float] | None = None,
) -> tuple[Curve, ...]:
    """The curves of an EnergiBridge log's energy and power columns; absent domains are absent.

    Args:
        samples: rows; fewer than two distinct times give no curve.
        meter: name of the meter in the curves.
        units_j: counter units by domain, J, where the host's are known.
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
            unit_j = (units_j or {}).get(column.domain or "")
            found.append(_counter_curve(samples, column, kept, meter, unit_j))
        else:
            found.append(_power_curve(samples, column, kept, meter))
    return tuple(found)


def row_energy(samples: Samples) -> dict[str, tuple[float, int]]:
    """Joules from the first row to the last and wraps, by domain of a cumulative column.

    Nothing is trimmed; the first two rows, which often share one ``Time``, both count.
    """
    found = {}
    for column in samples.energy_columns:
        values = column.values
        if column.kind is not Kind.CUMULATIVE or not values.size:
            continue
        steps = values[1:] - values[:-1]
        # Nothing fell and nothing is NaN: most columns of most files.
        if steps.size and steps.min() >= 0.0:
            found[column.domain or ""] = (float(values[-1] - values[0]), 0)
            continue
        kept = np.isfinite(values)
        if kept.any():
            whole = unwrap(values[kept], time_s=samples.time_s[kept])
            found[column.domain or ""] = (float(whole.values_j[-1]), whole.wraps)
    return found


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
    unit_j: float | None,
) -> Curve:
    time_s, values = samples.time_s[rows], column.values[rows]
    whole = unwrap(values, unit_j=unit_j, time_s=time_s)
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
    normal: a run counts from five rows and a second on, if utilisation moved by 30 points within
        it.
    ``line`` of a note is the index of the run's first row.
    """
    if usage_pct is None or power_w.size < 5:
        return []
    edges = np.concatenate([[0], (np.diff(power_w) != 0.0).nonzero()[0] + 1, [power_w.size]])
    notes = []
    for first, end in itertools.pairwise(edges):
        if end - first < 5 or time_s[end - 1] - time_s[first] < 1.0:
            continue
        # The first row of a run may be the last that was read well: a sensor lags its load.
        low, high = np.nanmin(usage_pct[first + 1 : end]), np.nanmax(usage_pct[first + 1 : end])
        if high - low >= 30.0:
            text = (
                f"{power_w[first]:.1f} W in {end - first} rows while utilisation went "
                f"between {low:.0f} and {high:.0f} %"
            )
            notes.append(Note("stale", text, int(first), fatal=True))
    return notes


@dataclass(frozen=True)
class Split:
    """A curve cut at times ``b_0 ≤ … ≤ b_m``.

    Attributes:
        energy_j: of each part, J, shape (m,); they sum to ``total_j``.
        uncertainty_j: half-widths, J, shape (m,).
        total_j: from the first cut to the last, J.
        total_uncertainty_j: its half-width, J; less than the parts', whose inner edges cancel.
        notes: cuts that no row supports.
    """

    energy_j: FloatArray
    uncertainty_j: FloatArray
    total_j: float
    total_uncertainty_j: float
    notes: tuple[Note, ...] = ()


def split(curve: Curve, bounds_s: Sequence[float]) -> Split:
    """Energy between times, with the slope on each side of every edge taken into account.

    Args:
        curve: at least two rows.
        bounds_s: at least two times on the curve's clock, never falling; parts of no length have no
            energy.

    Raises:
        ValueError: fewer than two rows or bounds, or bounds that fall.
    """
    bounds = np.asarray(bounds_s, dtype=np.float64)
    if bounds.size < 2 or curve.time_s.size < 2 or np.any(np.diff(bounds) < 0.0):
        raise ValueError("split() takes two or more rows and two or more bounds that never fall")
    lags, total_lag = _lags(curve, bounds)
    if curve.power_w is not None:
        curve = _step_at(curve, bounds)
    powers = _Powers(curve, bounds)
    values = np.empty(bounds.size)
    deviations = np.empty(bounds.size)
    notes: list[Note] = []
    first, last = curve.time_s[0], curve.time_s[-1]
    inside = (bounds >= first) & (bounds <= last)
    for place in (~inside).nonzero()[0]:
        values[place], deviations[place] = _outside(curve, bounds, int(place), powers, notes)
    interval = np.clip(np.searchsorted(curve.time_s, bounds, "right") - 1, 0, curve.time_s.size - 2)
    for index in np.unique(interval[inside]):
        places = (inside & (interval == index)).nonzero()[0]
        values[places], deviations[places] = _place(curve, bounds, places, int(index), powers)
    values = np.maximum.accumulate(values)
    variance = deviations**2
    doubts = np.array([_doubt(curve, a, b) for a, b in itertools.pairwise(bounds)])
    parts = np.sqrt(variance[:-1] + variance[1:] + doubts**2) + lags
    parts[np.diff(bounds) == 0.0] = 0.0
    total_doubt = _doubt(curve, bounds[0], bounds[-1])
    return Split(
        energy_j=np.diff(values),
        uncertainty_j=parts,
        total_j=float(values[-1] - values[0]),
        total_uncertainty_j=float(np.sqrt(variance[0] + variance[-1] + total_doubt**2)) + total_lag,
        notes=tuple(notes),
    )


def _step_at(curve: Curve, bounds: FloatArray) -> Curve:
    """A power curve that steps at the edges instead of sloping from row to row.

    Between two rows with an edge, each row's power holds up to the edge nearest to it; between the
    first and the last of several edges there is their mean. The doubt stays: power rarely steps to
    the point.
    """
    assert curve.power_w is not None and curve.doubt_j is not None  # noqa: PT018 - the caller looked
    time_s, power, doubt = curve.time_s, curve.power_w, curve.doubt_j
    inner = np.unique(bounds[(bounds > time_s[0]) & (bounds < time_s[-1])])
    inner = inner[~np.isin(inner, time_s)]
    if not inner.size:
        return curve
    index = np.searchsorted(time_s, inner, "right") - 1
    whole = np.diff(curve.energy_j)
    times, energies, doubts = [time_s[:1]], [np.zeros(1)], []
    done = 0
    for k in np.unique(index):
        cuts = inner[index == k]
        lengths = np.diff(np.concatenate([time_s[k : k + 1], cuts, time_s[k + 1 : k + 2]]))
        held = np.full(lengths.size, (power[k] + power[k + 1]) / 2.0)
        held[0], held[-1] = power[k], power[k + 1]
        times += [time_s[done + 1 : k + 1], cuts, time_s[k + 1 : k + 2]]
        energies += [whole[done:k], held * lengths]
        # Shared out so that the squares add up to the interval's.
        doubts += [doubt[done:k], doubt[k] * np.sqrt(lengths / lengths.sum())]
        done = int(k) + 1
    times.append(time_s[done + 1 :])
    energies.append(whole[done:])
    doubts.append(doubt[done:])
    return replace(
        curve,
        time_s=np.concatenate(times),
        energy_j=np.cumsum(np.concatenate(energies)),
        doubt_j=np.concatenate(doubts),
    )


def _doubt(curve: Curve, start_s: float, end_s: float) -> float:
    """Half-width from what lies between the rows of an integrated power column, J."""
    if curve.doubt_j is None:
        return 0.0
    touched = (curve.time_s[1:] > start_s) & (curve.time_s[:-1] < end_s)
    return WIDTH * float(np.sqrt(np.sum(curve.doubt_j[touched] ** 2)))


def _lags(curve: Curve, bounds: FloatArray) -> tuple[FloatArray, float]:
    """Half-widths of the parts and of all from samples that may be means of the time before them, J.

    The integral of a mean over T seconds holds, of each edge, T/2 of the power before it: too much at
    the start, too little at the end. What the mean does not show of a step within those T seconds is
    at most its own change in them.
    """
    if curve.power_w is None or not curve.averaged_s:
        return np.zeros(bounds.size - 1), 0.0
    level = np.interp(bounds, curve.time_s, curve.power_w)
    change = np.empty(bounds.size)
    for place, edge in enumerate(bounds):
        near = (curve.time_s >= edge - curve.averaged_s) & (curve.time_s <= edge)
        change[place] = np.ptp([*curve.power_w[near], level[place]])
    half_s = curve.averaged_s / 2.0
    parts = half_s * (np.abs(np.diff(level)) + change[:-1] + change[1:])
    return parts, float(half_s * (abs(level[-1] - level[0]) + change[0] + change[-1]))


class _Powers:
    """Mean power and its spread in each part of the timeline, from intervals wholly inside it.

    Part 0 lies before the first bound, part m + 1 after the last.
    """

    def __init__(self, curve: Curve, bounds: FloatArray) -> None:
        self.seconds = np.diff(curve.time_s)
        self.slope = np.diff(curve.energy_j) / self.seconds
        begin = np.searchsorted(bounds, curve.time_s[:-1], "right")
        end = np.searchsorted(bounds, curve.time_s[1:], "left")
        # Part of an interval wholly inside one, else −1.
        self.part = np.where(begin == end, begin, -1)
        self.least, self.most = float(self.slope.min()), float(self.slope.max())
        # Deviation of an interval's energy as that of a walk: σ² is per second.
        same = (self.part[1:] == self.part[:-1]) & (self.part[1:] >= 0)
        steps = np.diff(self.slope)[same]
        scale = np.sqrt((self.seconds[1:] + self.seconds[:-1]) / 2.0)[same]
        self.pooled = None
        if steps.size >= 3:
            pooled = float(np.sqrt(np.mean((steps * scale) ** 2) / 2.0))
            self.pooled = pooled * (1.0 + 2.0 / steps.size)

    def near(self, part: int, index: int) -> tuple[float, float] | None:
        """Mean power (W) and σ (W·√s) of a part, next to an interval; None: no whole interval."""
        members = (self.part == part).nonzero()[0]
        if not members.size:
            return None
        nearest = members[np.argsort(np.abs(members - index), kind="stable")]
        power = float(np.mean(self.slope[nearest[:NEAREST]]))
        some = nearest[:SPREAD]
        root = math.sqrt(float(np.mean(self.seconds[some])))
        # Spreads of few intervals are themselves uncertain: widened as Student's t is, by 1 + 2/n.
        spreads = [] if self.pooled is None else [self.pooled]
        if some.size >= 3:
            spread = float(np.std(self.slope[some], ddof=1)) * root
            spreads.append(spread * (1.0 + 2.0 / some.size))
        if not spreads:
            spreads.append(0.25 * power * root)
        return power, max(spreads)


def _moment(curve: Curve, power_w: float) -> float:
    """Half-width of a row's energy from the moment of its sample and the counter's steps, J."""
    return math.hypot(power_w * (curve.sample_s / 2.0 + UPDATE_S), 2.0 * curve.quantum_j)


def _place(
    curve: Curve, bounds: FloatArray, places: np.ndarray, index: int, powers: _Powers
) -> tuple[FloatArray, FloatArray]:
    """Energy at the bounds that fall into one interval between rows, and half-widths, J."""
    start, seconds = curve.time_s[index], float(powers.seconds[index])
    low, high = curve.energy_j[index], curve.energy_j[index + 1]
    cuts = bounds[places] - start
    lengths = np.diff(np.concatenate([[0.0], cuts, [seconds]]))
    parts = np.arange(places[0], places[-1] + 2)
    known = [powers.near(int(p), index) if d > 0 else (0.0, 0.0) for p, d in zip(parts, lengths,
    strict=True)]  # fmt: skip
    # Inside an interval only its first and last part can have intervals of their own.
    guess = np.array([k[0] * d if k else 0.0 for k, d in zip(known, lengths, strict=True)])
    free = np.array([0.0 if k else d for k, d in zip(known, lengths, strict=True)])
    rest = float(high - low) - float(guess.sum())
    share = free if free.any() else lengths
    energy = guess + rest * share / share.sum()
    if energy.min() < 0.0:
        # The powers at the sides do not fit this interval: its own mean is all there is.
        energy = (high - low) * lengths / seconds
    at = low + np.cumsum(energy)[:-1]
    slopes = [k[0] for k in known if k] + [float(powers.slope[index])]
    moment = _moment(curve, max(slopes))
    widths = np.empty(places.size)
    for order, cut in enumerate(cuts):
        widths[order] = math.hypot(
            moment, _width(at[order] - low, float(cut), high - low, seconds, order, known, rest,
            powers)
        )  # fmt: skip
    return at, widths


def _width(
    energy_j: float,
    cut_s: float,
    interval_j: float,
    seconds: float,
    order: int,
    known: list[tuple[float, float] | None],
    rest_j: float,
    powers: _Powers,
) -> float:
    """Half-width of the energy at one cut of an interval, J: the narrowest that can be defended."""
    left_s, right_s = cut_s, seconds - cut_s
    if left_s <= 0.0 or right_s <= 0.0:
        return 0.0
    if all(known):
        sigma = max(k[1] for k in known if k)
        # What the sides' powers leave unexplained may all lie on one side of the edge.
        return math.hypot(WIDTH * sigma * math.sqrt(left_s * right_s / seconds), rest_j)
    # No power outside 0.5 × the lowest … 2 × the highest mean of an interval.
    least, most = 0.5 * powers.least, 2.0 * powers.most
    floor = max(least * left_s, interval_j - most * right_s, 0.0)
    ceiling = min(most * left_s, interval_j - least * right_s, interval_j)
    width = max(ceiling - energy_j, energy_j - floor, 0.0)
    for side, length in ((known[: order + 1], left_s), (known[order + 1 :], right_s)):
        if all(side):
            sigma = max(k[1] for k in side if k)
            width = min(width, WIDTH * sigma * math.sqrt(length * (length + seconds) / seconds))
    return width


def _outside(
    curve: Curve, bounds: FloatArray, place: int, powers: _Powers, notes: list[Note]
) -> tuple[float, float]:
    """Energy at a bound before the first or after the last row: the nearest power goes on."""
    early = bounds[place] < curve.time_s[0]
    end = 0 if early else curve.time_s.size - 1
    missing = float(bounds[place] - curve.time_s[end])
    slope = float(powers.slope[0 if early else -1])
    width = math.hypot(powers.most * abs(missing), _moment(curve, slope))
    # A sample's own length is no missing row.
    if abs(missing) > curve.sample_s + UPDATE_S:
        length = float(bounds[-1] - bounds[0])
        usual = usual_interval(curve.time_s) or 0.0
        fatal = abs(missing) > max(usual, 0.001 * length)
        text = (
            f"{curve.domain} by {curve.meter}: no row {'before' if early else 'after'} an edge "
            f"{abs(missing):.3f} s {'earlier' if early else 'later'} than the rows"
        )
        notes.append(Note("edge", text, fatal=fatal))
    return float(curve.energy_j[end]) + slope * missing, width


def window_energy(
    found: Sequence[Curve], start_s: float, end_s: float, phases_s: Sequence[float] = ()
) -> tuple[Domain, ...]:
    """Joules of a window by domain; nothing is added up, an absent domain is absent.

    Args:
        found: curves on one clock.
        start_s: of the window, on the curves' clock.
        end_s: likewise.
        phases_s: edges of phases inside the window, which sharpen the window's own edges.
    """
    bounds = window_bounds(start_s, end_s, phases_s)
    return tuple(
        domain_of(curve, split(curve, bounds)) for curve in found if curve.time_s.size >= 2
    )


def window_bounds(start_s: float, end_s: float, phases_s: Sequence[float]) -> list[float]:
    """Start, the edges inside, end; in order."""
    return [start_s, *sorted(min(max(p, start_s), end_s) for p in phases_s), end_s]


def domain_of(curve: Curve, parts: Split) -> Domain:
    """The record of one domain."""
    return Domain(
        name=curve.domain,
        meter=curve.meter,
        energy_j=parts.total_j,
        uncertainty_j=parts.total_uncertainty_j,
        wraps=curve.wraps,
        sources=curve.sources,
    )


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
