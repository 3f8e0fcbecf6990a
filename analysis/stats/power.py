"""Power: number of trials that an effect needs, and effect that a number of trials detects.

Tests are of rank type; their power is that of Student's t test with the sample size reduced by the
asymptotic relative efficiency under normal noise, 3/π (Lehmann 1975, ch. 4.3), never below the
size at which the exact test can reject at all. Effects are percent energy, noise is the SD of log
energy in percent, which is the coefficient of variation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

#: Efficiency of rank tests against Student's t under normal noise.
EFFICIENCY = 3 / math.pi

#: Largest number of trials per image that is searched.
MOST = 100_000


def pooled_sd_pct(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    """Root mean square of two samples' SDs of log energy, in percent; None where n < 2."""
    if min(len(a), len(b)) < 2:
        return None
    return float(100 * math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2))


def smallest_n(alpha: float, *, blocked: bool = True) -> int:
    """The smallest n at which a two-sided exact rank test can reject."""
    n = 1
    while 2 / (2**n if blocked else math.comb(2 * n, n)) > alpha * (1 + 1e-12):
        n += 1
    return n


def power(
    n: float, effect_pct: float, sd_pct: float, *, alpha: float = 0.05, blocked: bool = True
) -> float:
    """Probability that a true effect is found.

    Args:
        n: blocks, or trials per image.
        effect_pct: true difference, % energy.
        sd_pct: blocked: SD of the log ratio between blocks; unblocked: pooled SD of log energy,
            both in %.
        alpha: of this comparison (divide by the number of pairs for a corrected one).
        blocked: paired within blocks, or independent samples.

    Returns:
        Between 0 and 1; 0 below :func:`smallest_n`.
    """
    if n < smallest_n(alpha, blocked=blocked):
        return 0.0
    shift = abs(math.log1p(effect_pct / 100))
    if sd_pct <= 0:
        return 1.0 if shift > 0 else 0.0
    df, error = _sample(n, sd_pct, blocked=blocked)
    centre = shift / error
    critical = stats.t.ppf(1 - alpha / 2, df)
    # The far tail adds nothing that can be seen, and nct loses its footing there for large centres.
    return float(np.clip(np.nan_to_num(stats.nct.sf(critical, df, centre), nan=1.0), 0.0, 1.0))


def _sample(n: float, sd_pct: float, *, blocked: bool) -> tuple[float, float]:
    """Degrees of freedom and standard error of the log ratio, of the reduced sample size."""
    effective = n * EFFICIENCY
    df = max(1.0, effective - 1 if blocked else 2 * effective - 2)
    return df, sd_pct / 100 / math.sqrt(effective if blocked else effective / 2)


def trials_needed(
    effect_pct: float,
    sd_pct: float,
    *,
    alpha: float = 0.05,
    target: float = 0.8,
    blocked: bool = True,
) -> int | None:
    """The smallest n with at least the target power; None beyond :data:`MOST`."""
    return _least(
        lambda n: power(n, effect_pct, sd_pct, alpha=alpha, blocked=blocked) >= target,
        smallest_n(alpha, blocked=blocked),
    )


def _least(is_enough: Callable[[int], bool], low: int) -> int | None:
    """The smallest n from ``low`` on that is enough; None beyond :data:`MOST`."""
    high = low
    while not is_enough(high):
        low, high = high + 1, 2 * high
        if high > MOST:
            return None
    while low < high:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle + 1
    return high


def equivalence_power(
    n: float, margin_pct: float, sd_pct: float, *, alpha: float = 0.05, blocked: bool = True
) -> float:
    """Probability that two one-sided tests show equivalence where there is no difference.

    With ``T`` Student's law this is ``2 T(δ/se − t(1 − α)) − 1`` (Chow, Shao & Wang 2008, ch. 3),
    of the reduced sample size.

    Args:
        n: blocks, or trials per image.
        margin_pct: margin of equivalence, ± % energy.
        sd_pct: as for :func:`power`.
        alpha: of each one-sided test.
        blocked: paired within blocks, or independent samples.
    """
    if n < smallest_n(2 * alpha, blocked=blocked):
        return 0.0
    if sd_pct <= 0:
        return 1.0
    df, error = _sample(n, sd_pct, blocked=blocked)
    reach = math.log1p(margin_pct / 100) / error - stats.t.ppf(1 - alpha, df)
    return max(0.0, float(2 * stats.t.cdf(reach, df) - 1))


def trials_to_decide(
    margin_pct: float,
    sd_pct: float,
    *,
    alpha: float = 0.05,
    target: float = 0.8,
    blocked: bool = True,
) -> int | None:
    """The smallest n that decides a pair; None beyond :data:`MOST`.

    At this n a difference of the margin is found with the target power, and so is equivalence where
    there is no difference.
    """
    return _least(
        lambda n: (
            power(n, margin_pct, sd_pct, alpha=alpha, blocked=blocked) >= target
            and equivalence_power(n, margin_pct, sd_pct, alpha=alpha, blocked=blocked) >= target
        ),
        smallest_n(alpha, blocked=blocked),
    )


def detectable_pct(
    n: int, sd_pct: float, *, alpha: float = 0.05, target: float = 0.8, blocked: bool = True
) -> float | None:
    """The smallest increase found with the target power, % energy; None where no effect can be."""
    if n < smallest_n(alpha, blocked=blocked):
        return None
    if sd_pct <= 0:
        return 0.0

    def missing(log_effect: float) -> float:
        effect = 100 * math.expm1(log_effect)
        return power(n, effect, sd_pct, alpha=alpha, blocked=blocked) - target

    high = sd_pct / 100
    while missing(high) < 0:
        high *= 2
    return 100 * math.expm1(float(optimize.brentq(missing, 0.0, high, xtol=1e-9)))


@dataclass(frozen=True)
class Need:
    """One row of the table: ``trials`` an image for an effect, None if too many."""

    label: str
    effect_pct: float
    sd_pct: float
    blocked: bool
    trials: int | None


@dataclass(frozen=True)
class Noise:
    """SDs of a pair: ``paired_pct`` between blocks, ``pooled_pct`` within images."""

    label: str
    paired_pct: float | None
    pooled_pct: float | None


def needs(
    noises: Iterable[Noise], effects_pct: Iterable[float], *, alpha: float, target: float
) -> list[Need]:
    """The trials every effect needs under every noise, blocked and unblocked."""
    effects = list(effects_pct)
    return [
        Need(
            noise.label,
            effect,
            sd,
            blocked,
            trials_needed(effect, sd, alpha=alpha, target=target, blocked=blocked),
        )
        for noise in noises
        for blocked, sd in ((True, noise.paired_pct), (False, noise.pooled_pct))
        if sd is not None
        for effect in effects
    ]


def noise_from_cv(cvs_pct: Iterable[float], correlation: float = 0.0) -> list[Noise]:
    """Noise of a pair of images with equal coefficients of variation.

    Args:
        cvs_pct: coefficients of variation of joules between trials of one image, %.
        correlation: of two images' log energy inside a block; 0 is what blocking is worth without
            drift.
    """
    return [Noise(f"CV {cv:g} %", cv * math.sqrt(2 * (1 - correlation)), cv) for cv in cvs_pct]
