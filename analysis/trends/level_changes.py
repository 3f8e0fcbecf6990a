"""A series of nights: its levels, where they change, by how much, and how sure that is.

Candidates come from PELT (:mod:`analysis.control`); a change is kept only where a t test between
its neighbouring levels still holds after Bonferroni over all nights of all series looked at. The
last nights, too few for a level of their own, are held against a stricter limit, so that a large
change is reported on its first night.

Sources: Killick, Fearnhead & Eckley 2012 (PELT); Yao 1987, *Ann. Statist.* 15:1321, and Siegmund
1988 (the confidence set of a change point); Davies & Gather 1993 (Hampel identifier).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import stats

from wattbench.analysis.stats import control_chart

Array = npt.NDArray[np.float64]

#: Chance of any false change in one comparison, over all series and nights.
ALPHA = 0.05

#: Chance of a false alarm about the last nights, over all series, in one comparison: one a year of
#: nightly comparisons.
ALPHA_TONIGHT = 1 / 365

#: Nights of a steady level that the last nights can be held against.
_STEADY = 5

#: A night this many SDs from the median of five is an excursion: it makes no level.
_EXCURSION_SD = 5.0

#: 95 % of the likelihood-ratio statistic of a change point's place: (1 − e^(−x/2))² = 0.95.
_PLACE = -2 * math.log(1 - math.sqrt(0.95))

#: Fewest nights for an estimate of how nights resemble each other.
_PERSISTENCE_FROM = 30


@dataclass(frozen=True)
class Change:
    """A change of level.

    Attributes:
        index: the first value of the new level.
        earliest: first plausible such index (95 %).
        latest: last plausible one.
        shift: new level − old level (of logarithms: a log ratio).
        lower: of its 95 % interval.
        upper: likewise.
        before: values of the old level.
        after: values of the new level.
        p: of no change, corrected for every night of every series looked at.
        settled: False for the last nights, too few for a level of their own.
    """

    index: int
    earliest: int
    latest: int
    shift: float
    lower: float
    upper: float
    before: int
    after: int
    p: float
    settled: bool = True


@dataclass(frozen=True, eq=False)
class Course:
    """One series.

    Attributes:
        values: in order.
        changes: in order.
        levels: the fitted level of every value.
        sd: of single values around their level; None below three values.
        excursions: values of one or two nights that left the level and came back.
        persistence: correlation of neighbouring nights that the tests allow for, ≥ 0.
        reason: why no change can be detected, or None.
    """

    values: Array
    changes: tuple[Change, ...]
    levels: Array
    sd: float | None
    excursions: tuple[int, ...] = ()
    persistence: float = 0.0
    reason: str | None = field(default=None)

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """Half-open ranges of equal level."""
        edges = [0, *(c.index for c in self.changes), len(self.values)]
        return tuple(itertools.pairwise(edges))


def follow(values: Array, family: int = 1) -> Course:
    """Finds the levels of a series.

    Args:
        values: one a night, in order, shape (n,); finite.
        family: how many series are looked at together.

    Returns:
        The course; with fewer than six values it has no changes and says why. Assumes noise of one
        SD throughout, correlated at most between neighbours.
    """
    x = np.asarray(values, float)
    n = len(x)
    if n < 2 * control_chart.SHORTEST:
        levels = np.full(n, np.median(x) if n else 0.0)
        sd = float(np.std(x, ddof=1)) if n > 2 else None
        reason = (
            f"{n} nights; at least {2 * control_chart.SHORTEST} are needed for a change of level"
        )
        return Course(x, (), levels, sd, reason=reason)
    clean, excursions = _without_excursions(x)
    rho = persistence(clean)
    # Long-run variance over the variance of neighbours' differences, ÷ 2.
    penalty = 4.0 * (1 + rho) / (1 - rho) ** 2
    edges = [0, *(c.index for c in control_chart.change_points(clean, penalty)), n]
    edges = _significant(clean, _without_borrowed(clean, edges), rho, family)
    fit = _Fit.of(clean, edges, rho)
    changes = [_change(clean, fit, k, family) for k in range(1, len(edges) - 1)]
    tonight = _tonight(clean, edges, rho, family)
    if tonight is not None:
        changes.append(tonight)
        fit = _Fit.of(clean, [*edges[:-1], tonight.index, n], rho)
    return Course(x, tuple(changes), fit.levels, fit.sd, excursions, rho)


def _without_excursions(x: Array) -> tuple[Array, tuple[int, ...]]:
    """Values with single nights far from the median of five put onto it.

    A lasting change is not an excursion: from its third night on it owns the median. The last two
    nights are left alone, since it is not known yet whether they come back.
    """
    n = len(x)
    sd = control_chart.local_sd(x)
    padded = np.concatenate([x[4:2:-1], x, x[-3:-5:-1]]) if n >= 5 else x
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    far = np.abs(x - medians) > _EXCURSION_SD * sd
    far[-2:] = False
    if sd == 0:
        far[:] = False
    return np.where(far, medians, x), tuple(int(i) for i in np.flatnonzero(far))


def _without_borrowed(x: Array, edges: list[int]) -> list[int]:
    """Edges without a last one that only makes up the shortest level by an older night.

    A change one or two nights ago is reported by :func:`_tonight`.
    """
    n = len(x)
    if len(edges) < 3 or n - edges[-2] != control_chart.SHORTEST:
        return edges
    part = x[edges[-3] :]
    size = len(part)
    rss = [
        float(((part[:k] - part[:k].mean()) ** 2).sum() + ((part[k:] - part[k:].mean()) ** 2).sum())
        for k in (size - control_chart.SHORTEST, size - 2, size - 1)
    ]
    return edges if int(np.argmin(rss)) == 0 else [*edges[:-2], n]


def persistence(x: Array) -> float:
    """Correlation of neighbours, 0 … 0.8, from differences: blind to changes of level.

    For an AR(1) series neighbouring differences correlate by −(1 − ρ)/2. Differences across a
    candidate change are left out. The estimate is drawn to 0 as by 30 nights that do not resemble
    each other, and is 0 below 30 values: of few nights it is mostly noise.
    """
    n = len(x)
    if n < _PERSISTENCE_FROM:
        return 0.0
    moves = np.diff(x)
    keep = np.ones(n - 1, bool)
    keep[[c.index - 1 for c in control_chart.change_points(x)]] = False
    both = keep[1:] & keep[:-1]
    power = float(np.mean(moves[keep] ** 2)) if keep.any() else 0.0
    if power == 0 or not both.any():
        return 0.0
    rho = 1 + 2 * float(np.mean((moves[1:] * moves[:-1])[both])) / power
    return min(0.8, max(0.0, rho * (1 - _PERSISTENCE_FROM / n)))


@dataclass(frozen=True, eq=False)
class _Fit:
    """Levels between edges; ``se_factor`` inflates standard errors for persistence."""

    edges: list[int]
    means: Array
    sd: float
    df: int
    se_factor: float
    levels: Array

    @classmethod
    def of(cls, x: Array, edges: list[int], rho: float) -> _Fit:
        parts = [x[a:b] for a, b in itertools.pairwise(edges)]
        means = np.array([p.mean() for p in parts])
        levels = np.repeat(means, [len(p) for p in parts])
        df = max(1, len(x) - len(parts))
        sd = math.sqrt(float(((x - levels) ** 2).sum()) / df)
        return cls(edges, means, sd, df, math.sqrt((1 + rho) / (1 - rho)), levels)

    def sizes(self, k: int) -> tuple[int, int]:
        """Values before and after edge ``k``."""
        a, b, c = self.edges[k - 1 : k + 2]
        return b - a, c - b

    def shift(self, k: int) -> float:
        return float(self.means[k] - self.means[k - 1])

    def se(self, k: int) -> float:
        before, after = self.sizes(k)
        return self.sd * self.se_factor * math.sqrt(1 / before + 1 / after)

    def p(self, k: int) -> float:
        """Two-sided, uncorrected."""
        se = self.se(k)
        if se == 0:
            return 0.0 if self.shift(k) else 1.0
        return float(2 * stats.t.sf(abs(self.shift(k)) / se, self.df))


def _significant(x: Array, edges: list[int], rho: float, family: int) -> list[int]:
    """Edges without those that don't stand a test; the weakest goes first."""
    while len(edges) > 2:
        fit = _Fit.of(x, edges, rho)
        p = [fit.p(k) for k in range(1, len(edges) - 1)]
        weakest = int(np.argmax(p))
        if _corrected(p[weakest], len(x), family) <= ALPHA:
            break
        edges = [*edges[: weakest + 1], *edges[weakest + 2 :]]
    return edges


def _corrected(p: float, n: int, family: int) -> float:
    places = n - 2 * control_chart.SHORTEST + 1
    return min(1.0, p * places * family)


def _change(x: Array, fit: _Fit, k: int, family: int) -> Change:
    before, after = fit.sizes(k)
    half = float(stats.t.ppf(0.975, fit.df)) * fit.se(k)
    earliest, latest = _plausible(x, fit, k)
    return Change(
        index=fit.edges[k],
        earliest=earliest,
        latest=latest,
        shift=fit.shift(k),
        lower=fit.shift(k) - half,
        upper=fit.shift(k) + half,
        before=before,
        after=after,
        p=_corrected(fit.p(k), len(x), family),
    )


def _plausible(x: Array, fit: _Fit, k: int) -> tuple[int, int]:
    """First and last place of the change whose likelihood is not much below the best one's."""
    start, end = fit.edges[k - 1], fit.edges[k + 1]
    part = x[start:end] - x[start:end].mean()
    split = np.arange(1, len(part))
    sums = np.cumsum(part)[:-1]
    # The squared error that a change at each place explains.
    gain = sums**2 * len(part) / (split * (len(part) - split))
    variance = (fit.sd * fit.se_factor) ** 2
    if variance == 0:
        return fit.edges[k], fit.edges[k]
    best = gain[fit.edges[k] - start - 1]
    inside = np.flatnonzero(gain >= best - _PLACE * variance)
    return int(start + 1 + inside.min()), int(start + 1 + inside.max())


def _tonight(x: Array, edges: list[int], rho: float, family: int) -> Change | None:
    """The last one or two nights, where they lie far off the level before them."""
    n, start = len(x), edges[-2]
    found: Change | None = None
    for last in (1, 2):
        if n - last - start < _STEADY:
            continue
        fit = _Fit.of(x[: n - last], [*edges[:-1], n - last], rho)
        steady = n - last - start
        shift = float(x[-last:].mean() - fit.means[-1])
        # One night is as noisy as any; two that resemble each other are hardly better than one.
        se = fit.sd * math.sqrt((1 + rho * (last - 1)) / last + fit.se_factor**2 / steady)
        if se == 0 or not np.all(np.sign(x[-last:] - fit.means[-1]) == np.sign(shift)):
            continue
        p = min(1.0, float(2 * stats.t.sf(abs(shift) / se, fit.df)) * 2 * family)
        if p <= ALPHA_TONIGHT and (found is None or p < found.p):
            half = float(stats.t.ppf(0.975, fit.df)) * se
            place = n - last
            found = Change(
                place, place, place, shift, shift - half, shift + half, steady, last, p,
                settled=False,
            )  # fmt: skip
    return found
