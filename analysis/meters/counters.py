"""Cumulative energy counters: unit, wraps and resets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.analysis.meters.energibridge import (
    FloatArray,
)
from wattbench.analysis.model.records import Note

#: RAPL counters have 32 bits.
COUNTER_BITS = 32
#: Units that RAPL hardware uses: 2^-10 … 2^-16 J, coarsest first.
UNIT_EXPONENTS = tuple(range(10, 17))
#: No single counter's domain draws more, W: what lies above is a fault of the data.
IMPLAUSIBLE_W = 5000.0


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
    is taken. None where none does (values rounded in the log) or where a handful of values can't decide.
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
    span_j: float | None = None,
    time_s: FloatArray | None = None,
) -> Unwrapped:
    """Make a cumulative counter monotone, telling wraps from resets.

    A fall is a wrap if the energy that one wrap implies is plausible power for its interval, measured
    by the other intervals; else it is a reset (counter restarted, host rebooted), or, if tiny, a glitch
    of a read. Where ``span_j`` is not given and the values do not show the unit, the range
    whose implied power is most like the others' is taken, and a note says so.

    Args:
        values_j: J, shape (rows,), finite.
        span_j: the counter's range, J, if known.
        time_s: of each value, s; None: equal steps of unknown length, power is then per step.
    """
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
            text = f"{joules_text(before, after)} J: wrapped at {span_j:.1f} J, {implied_j:.1f} J"
            notes.append(Note("wrap", text, int(index) + 1))
        elif -steps[index] <= min(1e-6 * span_j, enough):
            text = f"goes back by {-steps[index]:.4f} J: a read out of order, taken for no energy"
            notes.append(Note("backwards", text, int(index) + 1))
            _level(steps, int(index))
        else:
            resets += 1
            text = (
                f"{joules_text(before, after)} J: a wrap at {span_j:.0f} J would mean "
                f"{joules_text(float(implied_j) / max(float(seconds[index]), 1e-3))} W; the counter was reset"
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


def joules_text(*values: float) -> str:
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
