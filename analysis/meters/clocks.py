"""The clock of one machine as another one has seen it: offsets by exchanges of timestamps, their doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.analysis.meters.energibridge import FloatArray

#: A change of a clock's offset above this is a step, s.
CLOCK_STEP_S = 0.1
#: What a clock may be off where its offset was read on one side of the window only, s.
ONE_SIDED_S = 0.05


@dataclass(frozen=True, eq=False)
class Clock:
    """Moments of one machine on the clock of another.

    Attributes:
        unix_s: when an offset was read, by the one.
        ahead_s: how far the other was ahead then.
        doubt_s: what a moment between them may be off, s.
        step_s: how far the offset has moved.
    """

    unix_s: FloatArray
    ahead_s: FloatArray
    doubt_s: float
    step_s: float

    @classmethod
    def of(cls, readings: Sequence[tuple[float, float, float]]) -> Clock:
        """From readings: when, how far ahead, and the round trip that showed it; at least one.

        A round trip may have lain wholly on one way; between two readings the offset may have moved at any
        time.
        """
        unix_s, ahead_s, trips_s = (np.array(column) for column in zip(*readings, strict=True))
        moved_s = float(np.ptp(ahead_s))
        spread_s = moved_s if ahead_s.size > 1 else 2.0 * ONE_SIDED_S
        return cls(unix_s, ahead_s, float(trips_s.max()) / 2.0 + spread_s / 2.0, moved_s)

    def there(self, unix_s: FloatArray) -> FloatArray:
        """The one machine's moments on the other's clock."""
        return unix_s + np.interp(unix_s, self.unix_s, self.ahead_s)
