"""Location shifts: rank tests with estimate and interval that agree with each other.

A :class:`RankShift` inverts an exact rank test: its *contrasts* (Walsh averages of paired
differences, or all differences between two samples) are ordered, the test counts how many exceed a
hypothetical shift, the Hodges–Lehmann estimate is their median and the interval is cut from their
ends (Lehmann 1975, *Nonparametrics*, ch. 2.5 and 4.3). Contrasts equal to the hypothetical shift
count against the claim, which is valid under ties and makes test and interval one thing. A
:class:`TShift` does the same from an estimate with a standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]

#: Largest sizes with exact null distributions; beyond, the normal law with continuity correction.
EXACT_SIGNED_RANK = 300
EXACT_RANK_SUM = 10_000

#: Probabilities are compared with this slack, so that 2/2**n meets α exactly where it is equal.
_SLACK = 1e-12


class Shift(Protocol):
    """What a comparison needs to come to a verdict; all shifts are differences of logarithms."""

    @property
    def estimate(self) -> float:
        """The point estimate."""

    def p_greater(self, shift: float) -> float:
        """One-sided p of "the true shift is at most ``shift``"."""

    def p_less(self, shift: float) -> float:
        """One-sided p of "the true shift is at least ``shift``"."""

    def interval(self, level: float) -> tuple[float | None, float | None]:
        """Bounds at a two-sided confidence; None is unbounded."""


def two_sided(shift: Shift, at: float = 0.0) -> float:
    """Two-sided p of "the true shift is ``at``"."""
    return min(1.0, 2 * min(shift.p_greater(at), shift.p_less(at)))


@lru_cache(maxsize=512)
def signed_rank_cdf(n: int) -> Array:
    """P(W ≤ w) for w = 0 … n(n+1)/2 of Wilcoxon's signed-rank statistic without ties."""
    top = n * (n + 1) // 2
    if n > EXACT_SIGNED_RANK:
        return _normal_cdf(top, math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    pmf = np.zeros(top + 1)
    pmf[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.zeros_like(pmf)
        shifted[rank:] = pmf[: top + 1 - rank]
        pmf = (pmf + shifted) / 2
    return np.asarray(np.cumsum(pmf))


@lru_cache(maxsize=512)
def rank_sum_cdf(n: int, m: int) -> Array:
    """P(U ≤ u) for u = 0 … n·m of the Mann–Whitney statistic without ties."""
    top = n * m
    if top > EXACT_RANK_SUM:
        return _normal_cdf(top, math.sqrt(n * m * (n + m + 1) / 12))
    # The counts are the Gaussian binomial's coefficients: ∏ (1 − q^(m+i)) / (1 − q^i), i = 1 … n.
    counts = [1] + [0] * top
    for i in range(1, n + 1):
        for u in range(top, m + i - 1, -1):
            counts[u] -= counts[u - m - i]
        for u in range(i, top + 1):
            counts[u] += counts[u - i]
    total = math.comb(n + m, n)
    return np.cumsum([c / total for c in counts])


def _normal_cdf(top: int, sd: float) -> Array:
    return np.asarray(stats.norm.cdf((np.arange(top + 1) + 0.5 - top / 2) / sd))


@dataclass(frozen=True, eq=False)
class RankShift:
    """A shift by inversion of an exact rank test.

    Attributes:
        contrasts: sorted, shape (M,).
        cdf: null distribution of the number of contrasts above the true shift, shape (M + 1,).
    """

    contrasts: Array
    cdf: Array

    @classmethod
    def signed_rank(cls, differences: Array) -> RankShift:
        """From paired differences, n ≥ 1, assumed symmetric about the shift."""
        d = np.asarray(differences, dtype=float)
        i, j = np.triu_indices(len(d))
        return cls(np.sort((d[i] + d[j]) / 2), signed_rank_cdf(len(d)))

    @classmethod
    def rank_sum(cls, a: Array, b: Array) -> RankShift:
        """From two independent samples, each n ≥ 1; assumes that they differ by a shift only."""
        contrasts = np.sort(np.subtract.outer(np.asarray(a, float), np.asarray(b, float)).ravel())
        return cls(contrasts, rank_sum_cdf(*sorted((len(a), len(b)))))

    @property
    def estimate(self) -> float:
        """Hodges and Lehmann's: the median contrast."""
        return float(np.median(self.contrasts))

    def p_greater(self, shift: float) -> float:
        """P(W ≥ number of contrasts above ``shift``)."""
        not_above = int(np.searchsorted(self.contrasts, shift, side="right"))
        return float(self.cdf[not_above])

    def p_less(self, shift: float) -> float:
        """P(W ≥ number of contrasts below ``shift``), by symmetry of the null distribution."""
        not_below = len(self.contrasts) - int(np.searchsorted(self.contrasts, shift, side="left"))
        return float(self.cdf[not_below])

    def cut(self, level: float) -> int:
        """How many contrasts are cut from each end; 0: no interval of that level exists."""
        return int(np.searchsorted(self.cdf, (1 - level) / 2 + _SLACK, side="right"))

    def interval(self, level: float) -> tuple[float | None, float | None]:
        """The closed interval of shifts that the two-sided test at 1 − level does not reject."""
        k = self.cut(level)
        if k == 0:
            return None, None
        return float(self.contrasts[k - 1]), float(self.contrasts[-k])


@dataclass(frozen=True)
class TShift:
    """A shift by an estimate, its standard error (> 0) and Student's t on ``df``."""

    estimate: float
    se: float
    df: float

    def p_greater(self, shift: float) -> float:
        """Upper tail of t at the standardised distance."""
        return float(stats.t.sf((self.estimate - shift) / self.se, self.df))

    def p_less(self, shift: float) -> float:
        """Lower tail."""
        return float(stats.t.cdf((self.estimate - shift) / self.se, self.df))

    def interval(self, level: float) -> tuple[float | None, float | None]:
        """Estimate ± t · se."""
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * self.se
        return self.estimate - half, self.estimate + half
