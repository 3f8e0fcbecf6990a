"""Axes for effects in percent: linear, or logarithmic beyond 1 % where effects differ by orders.

An image that needs ten times the energy must not press all others into one line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Above this many percent beside an effect within LINEAR_PCT, the axis turns logarithmic.
FAR_PCT = 40.0
#: Least distance of two ticks, as a share of the axis: ``+1000`` must fit on the narrowest page.
_APART = 0.22


@dataclass(frozen=True)
class Scale:
    """Maps percent to 0 … 1.

    Attributes:
        low: left end, %.
        high: right end, %.
        symmetric_log: whether beyond ±1 % steps are of equal ratio.
    """

    low: float
    high: float
    symmetric_log: bool

    def place(self, pct: float) -> float:
        """From 0 (left end) to 1 (right end); what lies beyond is put at the end."""
        low, value, high = (self._bend(v) for v in (self.low, pct, self.high))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def _bend(self, pct: float) -> float:
        return math.copysign(math.log10(1 + abs(pct)), pct) if self.symmetric_log else pct

    def ticks(self) -> tuple[float, ...]:
        """Round values inside, zero among them, so far apart that their labels don't touch."""
        if self.symmetric_log:
            marks = [0.0, *(s * m * 10.0**e for e in range(5) for m in (1, 2, 5) for s in (-1, 1))]
        else:
            rough = (self.high - self.low) / 4
            power = 10 ** math.floor(math.log10(rough))
            step = power * min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * power - rough))
            first = math.ceil(self.low / step)
            marks = [step * i for i in range(first, math.floor(self.high / step) + 1)]
        kept: list[float] = []
        # Zero first; then, on a bent axis, from the ends inwards: ticks stand where the data are.
        order = (lambda m: (m != 0, -abs(m))) if self.symmetric_log else abs
        for mark in sorted((m for m in marks if self.low <= m <= self.high), key=order):
            place = self.place(mark)
            if all(abs(place - self.place(other)) >= _APART for other in kept):
                kept.append(mark)
        return tuple(sorted(kept))


def scale_of(values: Sequence[float], margin_pct: float) -> Scale:
    """An axis that holds 0, the margin of equivalence and all values."""
    everything = [0.0, -1.3 * margin_pct, 1.3 * margin_pct, *values]
    low, high = min(everything), max(everything)
    near = any(0 < abs(v) < FAR_PCT / 8 for v in values)
    bent = max(abs(low), abs(high)) > FAR_PCT and near
    room = 0.04 * (high - low)
    if bent:
        return Scale(max(-99.0, low * 1.5), high * 1.5, symmetric_log=True)
    return Scale(low - room, high + room, symmetric_log=False)
