"""Simulated campaigns of known truth: coverage and error rates of the procedures.

Everything here is vectorised over campaigns: one call runs the same interval and test as
``analysis.stats.within_host`` on thousands of blocked campaigns. It calibrates early stopping and
proves coverage and error rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from wattbench.analysis.stats.early_stopping import EARLIEST, Calibration, calibrated
from wattbench.analysis.stats.ranks import signed_rank_cdf
from wattbench.analysis.stats.verdicts import to_log

Array = npt.NDArray[np.float64]

#: Walsh averages held at once, to bound memory (8 bytes each).
_HELD = 20_000_000

#: Margin of equivalence, ± % energy: the product's default.
MARGIN_PCT = 1.0

#: Coefficients of variation of the published study's five images, % (0.8–1.9).
STUDY_CVS_PCT = (0.8, 1.0, 1.2, 1.5, 1.9)


def blocked_logs(
    effects_pct: Sequence[float],
    cvs_pct: Sequence[float],
    blocks: int,
    campaigns: int,
    rng: np.random.Generator,
    *,
    drift_pct: float = 0.0,
    steps_pct: Sequence[float] = (),
    outliers: float = 0.0,
) -> Array:
    """Log joules of randomised complete blocks.

    Args:
        effects_pct: true energy of each image relative to a common level, %.
        cvs_pct: noise of each image, %.
        blocks: in each campaign.
        campaigns: how many.
        rng: of the noise and of the order.
        drift_pct: linear change from the first trial to the last.
        steps_pct: changes of level, each at a random trial.
        outliers: probability that a trial takes 5–15 % more.

    Returns:
        Shape (campaigns, blocks, images).
    """
    k = len(effects_pct)
    shape = (campaigns, blocks, k)
    logs = np.array([to_log(e) for e in effects_pct]) + rng.normal(size=shape) * (
        np.asarray(cvs_pct, float) / 100
    )
    position = rng.permuted(np.broadcast_to(np.arange(k), shape).copy(), axis=2)
    order = position + k * np.arange(blocks)[None, :, None]
    logs += to_log(drift_pct) * order / max(1, blocks * k - 1)
    for step in steps_pct:
        logs += to_log(step) * (order >= rng.integers(1, blocks * k, size=(campaigns, 1, 1)))
    if outliers:
        logs += np.where(rng.random(shape) < outliers, np.log1p(rng.uniform(0.05, 0.15, shape)), 0)
    return logs


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What every campaign came to; pairs are (a, b) with a > b in the order of images.

    Attributes:
        pairs: (a, b) indices, shape (m, 2).
        blocks: used, shape (campaigns,).
        lower: simultaneous lower bounds (log), shape (campaigns, m); −inf is unbounded.
        upper: likewise.
        p: Holm-adjusted two-sided p, shape (campaigns, m).
        p_equal: Holm-adjusted p of equivalence, likewise.
        sign: of the estimate, likewise.
    """

    pairs: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    lower: Array
    upper: Array
    p: Array
    p_equal: Array
    sign: Array


@dataclass(frozen=True)
class Rates:
    """Error rates over simulated campaigns.

    Attributes:
        campaigns: how many.
        mean_blocks: used.
        coverage: share whose simultaneous intervals all cover.
        pair_coverage: share of intervals that cover.
        false_difference: share with any false *less* or *more* (a wrong sign counts).
        false_equivalent: share with any *equivalent* of images that differ by at least the margin.
        decided: share of truly different pairs found.
        equivalent: share of pairs inside the margin shown to be so.
    """

    campaigns: int
    mean_blocks: float
    coverage: float
    pair_coverage: float
    false_difference: float
    false_equivalent: float
    decided: float | None
    equivalent: float | None


def cut(n: int, level: float) -> int:
    """Walsh averages cut from each end of n paired differences for a two-sided level."""
    return int(np.searchsorted(signed_rank_cdf(n), (1 - level) / 2 + 1e-12, side="right"))


def run(
    logs: Array,
    *,
    alpha: float = 0.05,
    precision_pct: float | None = None,
    blocks_min: int = 10,
    factor: float = 1.0,
) -> Outcomes:
    """The product's pairwise procedure on many campaigns, stopped early at a precision if given."""
    campaigns, blocks, k = logs.shape
    pairs = np.array([(a, b) for b in range(k) for a in range(b + 1, k)])
    size = max(1, _HELD // (len(pairs) * blocks * (blocks + 1) // 2))
    parts = [
        _run_part(
            logs[i : i + size, :, pairs[:, 0]] - logs[i : i + size, :, pairs[:, 1]],
            alpha,
            precision_pct,
            blocks_min,
            factor,
        )
        for i in range(0, campaigns, size)
    ]
    used, lower, upper, p, p_equal, sign = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Outcomes(pairs, used, lower, upper, p, p_equal, sign)


def _run_part(
    d: Array,
    alpha: float,
    precision_pct: float | None,
    blocks_min: int,
    factor: float,
) -> tuple[npt.NDArray[np.int64], Array, Array, Array, Array, Array]:
    campaigns, blocks, m = d.shape
    level = 1 - factor * alpha / m
    low, high = to_log(-MARGIN_PCT), to_log(MARGIN_PCT)
    used = np.full(campaigns, blocks)
    lower, upper, p, p_equal, sign = (np.zeros((campaigns, m)) for _ in range(5))
    active = np.arange(campaigns)
    for n in range(blocks_min if precision_pct is not None else blocks, blocks + 1):
        i, j = np.triu_indices(n)
        part = d[active]
        walsh = (part[:, i] + part[:, j]) / 2
        total = walsh.shape[1]
        k = cut(n, level)
        if k:
            ends = np.partition(walsh, (k - 1, total - k), axis=1)
            bounds = ends[:, k - 1], ends[:, total - k]
        else:
            bounds = np.full((len(part), m), -np.inf), np.full((len(part), m), np.inf)
        stop = np.ones(len(part), bool)
        if n < blocks and precision_pct is not None:
            half = 50 * (np.exp(bounds[1]) - np.exp(bounds[0]))
            stop = np.asarray((half <= precision_pct).all(axis=1))
        done, walsh = active[stop], walsh[stop]
        used[done] = n
        lower[done], upper[done] = bounds[0][stop], bounds[1][stop]
        cdf = signed_rank_cdf(n)
        above, below = _tail(cdf, walsh, 0.0)
        p[done] = _holm(2 * np.minimum(above, below) / factor)
        sign[done] = np.where(above < below, 1.0, -1.0)
        p_equal[done] = _holm(
            np.maximum(_tail(cdf, walsh, low)[0], _tail(cdf, walsh, high)[1]) / factor
        )
        active = active[~stop]
        if len(active) == 0:
            break
    return used, lower, upper, p, p_equal, sign


def _tail(cdf: Array, walsh: Array, shift: float) -> tuple[Array, Array]:
    """One-sided p of a true shift at most, and at least, ``shift``; shapes (campaigns, m)."""
    return cdf[(walsh <= shift).sum(axis=1)], cdf[(walsh >= shift).sum(axis=1)]


def _holm(p: Array) -> Array:
    """Holm's adjusted p along the last axis."""
    m = p.shape[1]
    order = np.argsort(p, axis=1)
    stepped = np.take_along_axis(p, order, axis=1) * np.arange(m, 0, -1)
    stepped = np.minimum(np.maximum.accumulate(stepped, axis=1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, stepped, axis=1)
    return adjusted


def rates(
    outcomes: Outcomes,
    effects_pct: Sequence[float],
    *,
    alpha: float = 0.05,
) -> Rates:
    """Compares outcomes with the truth."""
    levels = np.array([to_log(e) for e in effects_pct])
    truth = levels[outcomes.pairs[:, 0]] - levels[outcomes.pairs[:, 1]]
    covered = (outcomes.lower <= truth) & (truth <= outcomes.upper)
    differs = outcomes.p <= alpha
    wrong = differs & (outcomes.sign != np.sign(truth))
    equal = ~differs & (outcomes.p_equal <= alpha)
    inside = (truth > to_log(-MARGIN_PCT) + 1e-12) & (truth < to_log(MARGIN_PCT) - 1e-12)
    real = np.abs(truth) > 1e-12
    return Rates(
        campaigns=len(outcomes.blocks),
        mean_blocks=float(outcomes.blocks.mean()),
        coverage=float(covered.all(axis=1).mean()),
        pair_coverage=float(covered.mean()),
        false_difference=float(wrong.any(axis=1).mean()),
        false_equivalent=float((equal & ~inside).any(axis=1).mean()),
        decided=float((differs & ~wrong)[:, real].mean()) if real.any() else None,
        equivalent=(float((outcomes.p_equal <= alpha)[:, inside].mean()) if inside.any() else None),
    )


@dataclass(frozen=True)
class Saving:
    """One precision on simulated blocked campaigns of known truth, stopped early and in full.

    ``share_of_time``: mean blocks used of those planned.
    """

    precision_pct: float
    share_of_time: float
    early: Rates
    full: Rates


def saving(
    precisions_pct: Sequence[float],
    effects_pct: Sequence[float],
    cvs_pct: Sequence[float],
    *,
    blocks_min: int = EARLIEST,
    blocks_max: int = 30,
    campaigns: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Saving, ...]:
    """What stopping early saves, and what it does to the error rates.

    Args:
        precisions_pct: half-widths to stop at.
        effects_pct: true energy of each image relative to a common level, %.
        cvs_pct: noise of each image, %.
        blocks_min: earliest stop.
        blocks_max: planned blocks, and those of the fixed design.
        campaigns: simulated a precision.
        seed: of the campaigns, the same ones for both designs.
        progress: called with (precisions done, precisions).
    """
    share = calibrated(len(effects_pct), blocks_max).factor
    rows = []
    for done, precision in enumerate(precisions_pct):
        logs = blocked_logs(
            effects_pct, cvs_pct, blocks_max, campaigns, np.random.default_rng(seed)
        )
        early = run(logs, precision_pct=precision, blocks_min=blocks_min, factor=share)
        full = rates(run(logs), effects_pct)
        stopped = rates(early, effects_pct)
        rows.append(Saving(precision, stopped.mean_blocks / blocks_max, stopped, full))
        if progress:
            progress(done + 1, len(precisions_pct))
    return tuple(rows)


def calibrate(
    images: int,
    blocks_max: int,
    *,
    campaigns: int = 20_000,
    alpha: float = 0.05,
    seed: int = 20260101,
) -> Calibration:
    """Finds the largest share of α that keeps the joint coverage, by

    Campaigns have equal images, either all equally noisy or one of them three times as noisy, and
    are stopped at five precisions between "at once" and "hardly ever"; the worst of them counts.
    """
    fixed = _worst_miss(images, blocks_max, 1.0, campaigns, alpha, seed)
    share, miss = 1.0, fixed
    while miss > alpha and share > 0.3:
        share = round(share - 0.05, 2)
        miss = _worst_miss(images, blocks_max, share, campaigns, alpha, seed)
    return Calibration(images, blocks_max, share, 1 - miss, 1 - fixed)


def _worst_miss(
    images: int, blocks_max: int, share: float, campaigns: int, alpha: float, seed: int
) -> float:
    pairs = images * (images - 1) // 2
    z = float(stats.norm.ppf(1 - share * alpha / pairs / 2))
    worst = 0.0
    patterns = [[1.0] * images] + ([[3.0] + [1.0] * (images - 1)] if images > 2 else [])
    looks = np.linspace(EARLIEST + 1, 0.85 * blocks_max, 5)
    for cvs in patterns:
        logs = blocked_logs([0.0] * images, cvs, blocks_max, campaigns, np.random.default_rng(seed))
        sd = math.hypot(*sorted(cvs)[-2:])
        for look in looks:
            outcomes = run(logs, alpha=alpha, precision_pct=z * sd / math.sqrt(look), factor=share)
            coverage = rates(outcomes, [0.0] * images, alpha=alpha).coverage
            worst = max(worst, 1 - coverage)
    return worst
