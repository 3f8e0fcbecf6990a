"""After how many units of work two images have needed equal energy: confidence set of the crossing.

An image needs ``once + n × each`` joules for ``n`` units. In each block the differences of both against
the reference are known, so the signed-rank test of "equal after n units" can be made for every n. The values
of n that it does not reject are the confidence set (Fieller's argument with ranks): it holds the true
crossing with the test's confidence, and needs neither a normal law nor a ratio of two uncertain numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from wattbench.analysis.stats.ranks import Array, RankShift


class Course(StrEnum):
    """How an image's total compares with the reference's as work goes on."""

    PAYS = "pays"
    LOSES = "loses"
    LESS = "less"
    MORE = "more"
    OPEN = "open"


@dataclass(frozen=True)
class BreakEven:
    """The crossing of two totals, in units of work; None: there is none, or it is undecided.

    Attributes:
        course: ``pays``: more energy at first, less after the crossing; ``loses``: the reverse; ``less`` and
            ``more``: at every length; ``open``: the intervals allow several of these.
        units: the estimate.
        lower: lower bound.
        upper: upper bound.
    """

    course: Course
    units: float | None = None
    lower: float | None = None
    upper: float | None = None


def break_even(once_j: Array, each_j: Array, doubt_j: float, level: float) -> BreakEven:
    """Compare two totals.

    Args:
        once_j: differences of what is spent once, one per block.
        each_j: differences per unit of work, of the same blocks.
        doubt_j: half-width of what all ``once_j`` share, such as a download that was measured once.
        level: confidence.
    """
    first = np.asarray(once_j, dtype=float)
    if not len(first):
        return BreakEven(Course.OPEN)
    start, slope = RankShift.signed_rank(first), RankShift.signed_rank(np.asarray(each_j, float))
    at_once = _sign(start.interval(level), doubt_j)
    at_last = _sign(slope.interval(level), 0.0)
    if at_once is None or at_last is None:
        return BreakEven(Course.OPEN)
    if at_once == at_last:
        return BreakEven(Course.MORE if at_once > 0 else Course.LESS)
    intercepts, slopes = _contrasts(first), _contrasts(np.asarray(each_j, dtype=float))
    half = (len(intercepts) + 1) // 2
    middle = _accepted(intercepts, slopes, 0.0, half)
    lower, upper = _accepted(intercepts, slopes, doubt_j, start.cut(level))
    course = Course.PAYS if at_once > 0 else Course.LOSES
    return BreakEven(course, (middle[0] + middle[1]) / 2, lower, upper)


def _sign(interval: tuple[float | None, float | None], doubt: float) -> int | None:
    """Sign of all values in an interval, widened by the doubt; None: it has none."""
    low, high = interval
    if low is None or high is None:
        return None
    return 1 if low > doubt else -1 if high < -doubt else None


def _contrasts(differences: Array) -> Array:
    """Walsh averages, in the order of pairs of blocks."""
    i, j = np.triu_indices(len(differences))
    return (differences[i] + differences[j]) / 2


def _accepted(intercepts: Array, slopes: Array, doubt: float, k: int) -> tuple[float, float]:
    """Smallest and largest n at which at least k contrasts lie on either side of ±doubt.

    A contrast ``intercept + n × slope`` changes sides at one n, so only these need to be looked at.
    """
    below = _Side(intercepts - doubt, slopes)
    above = _Side(-intercepts - doubt, -slopes)
    at = np.unique(np.concatenate([below.crossings, above.crossings]))
    held = at[(below.count(at) >= k) & (above.count(at) >= k)]
    return float(held[0]), float(held[-1])


class _Side:
    """How many lines ``intercept + n × slope`` are at most 0, by n ≥ 0."""

    def __init__(self, intercepts: Array, slopes: Array) -> None:
        falling, rising = slopes < 0, slopes > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = np.maximum(-intercepts / slopes, 0.0)
        self._always = int(np.sum(~falling & ~rising & (intercepts <= 0)))
        self._from = np.sort(meets[falling])
        # a rising line that is above 0 from the start never counts
        self._until = np.sort(meets[rising & (intercepts <= 0)])
        self.crossings: Array = np.concatenate([self._from, self._until])

    def count(self, at: Array) -> Array:
        """The number at each n."""
        begun = np.searchsorted(self._from, at, side="right")
        over = np.searchsorted(self._until, at, side="left")
        return np.asarray(self._always + begun + len(self._until) - over)
