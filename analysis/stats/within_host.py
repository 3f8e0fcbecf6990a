"""Statistics of one host: omnibus tests, paired comparisons, effect sizes.

Blocked runs are compared inside their blocks: the omnibus statistic is Friedman's, or Skillings
and Mack's where blocks are incomplete, its p that of the permutation within blocks which the
randomised plan really made. Campaigns without blocks are compared as independent samples, and
marked so.

Sources: Friedman 1937; Skillings & Mack 1981, Technometrics 23:171; Hodges & Lehmann 1963;
Wilcoxon 1945; Cliff 1993; Brunner & Munzel 2000 (the interval of delta).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats.nonparametric import rank_compare_2indep

from wattbench.analysis.stats import power
from wattbench.analysis.stats.endpoints import HostTrials, secondary_endpoints
from wattbench.analysis.stats.ranks import RankShift, two_sided
from wattbench.analysis.stats.results import (
    TOO_FEW_BLOCKS,
    Delta,
    Omnibus,
    Pair,
    Secondary,
    Settings,
)
from wattbench.analysis.stats.verdicts import Comparison, decide

Array = npt.NDArray[np.float64]

#: Permutations are enumerated while a step of the recursion costs at most this many sums.
_ENUMERABLE = 250_000

#: Totals are equal when their first six decimals are.
_DECIMALS = 10**6

#: Statistics are equal within this, so that rounding can't move a tie across the observed value.
_TIE = 1e-7


def omnibus(trials: HostTrials, settings: Settings) -> Omnibus | None:
    """Whether the images of a host differ at all; None with fewer than two images to compare."""
    if trials.design == "unblocked":
        return kruskal_wallis(list(trials.samples().values()))
    return blocked_omnibus(trials.table().to_numpy(float), settings)


def blocked_omnibus(table: Array, settings: Settings) -> Omnibus | None:
    """Friedman's test, or what stands for it with missing cells or two images.

    Args:
        table: blocks × images; NaN is a missing cell.
        settings: for the seed and number of Monte-Carlo draws.

    Returns:
        The test, or None when no block holds two images.
    """
    table = table[(~np.isnan(table)).sum(axis=1) >= 2]
    table = table[:, (~np.isnan(table)).any(axis=0)]
    blocks, images = table.shape
    if blocks == 0:
        return None
    filled = [row[~np.isnan(row)] for row in table]
    ties = sum(len(set(row.tolist())) < len(row) for row in filled)
    if images == 2:
        shift = RankShift.signed_rank(table[:, 0] - table[:, 1])
        statistic = float((shift.contrasts > 0).sum())
        p = two_sided(shift)
        return Omnibus("Wilcoxon signed-rank", statistic, 1, p, "exact", blocks, 2, ties)
    scores = _block_scores(table)
    inverse, df = _inverse_covariance(scores)
    totals = np.nansum(scores, axis=0)
    statistic = float(totals @ inverse @ totals)
    p, method = _permutation_p(scores, inverse, statistic, settings)
    name = "Friedman" if not np.isnan(table).any() else "Skillings–Mack"
    return Omnibus(name, statistic, df, p, method, blocks, images, ties)


def _block_scores(table: Array) -> Array:
    """Centred mid-ranks within each block, weighted by √(12 / (k + 1)); shape as ``table``."""
    ranks = stats.rankdata(table, axis=1, nan_policy="omit")
    k = (~np.isnan(table)).sum(axis=1, keepdims=True)
    return np.asarray((ranks - (k + 1) / 2) * np.sqrt(12 / (k + 1)))


def _inverse_covariance(scores: Array) -> tuple[Array, int]:
    """Pseudo-inverse of the totals' permutation covariance, and its rank.

    Without ties this is Skillings and Mack's covariance; with ties in complete blocks the
    statistic is Friedman's with the usual correction.
    """
    present = (~np.isnan(scores)).astype(float)
    k = present.sum(axis=1)
    spread = np.nansum(scores**2, axis=1) / (k - 1)
    covariance = np.diag(spread @ present) - (present * (spread / k)[:, None]).T @ present
    return np.linalg.pinv(covariance, hermitian=True), int(np.linalg.matrix_rank(covariance))


def _permutation_p(
    scores: Array, inverse: Array, observed: float, settings: Settings
) -> tuple[float, str]:
    """P(statistic ≥ observed) when every block's scores are permuted among its images."""
    exact = _exact_p(scores, inverse, observed)
    if exact is not None:
        return exact, "exact"
    rng = np.random.default_rng(settings.seed)
    draws = settings.draws
    totals = np.zeros((draws, scores.shape[1]))
    for row in scores:
        where = np.flatnonzero(~np.isnan(row))
        totals[:, where] += rng.permuted(np.tile(row[where], (draws, 1)), axis=1)
    statistics = np.einsum("di,ij,dj->d", totals, inverse, totals)
    hits = int((statistics >= observed - _TIE).sum())
    return (hits + 1) / (draws + 1), f"Monte Carlo ({draws} draws, seed {settings.seed})"


def _exact_p(scores: Array, inverse: Array, observed: float) -> float | None:
    """The same by recursion over blocks, or None where that grows too large.

    Complete blocks make the statistic symmetric in the images: sorted totals stand for all their
    orders.
    """
    symmetric = not np.isnan(scores).any()
    multipliers = np.random.default_rng(0).integers(1, 2**62, scores.shape[1], dtype=np.int64)
    states = np.zeros((1, scores.shape[1]))
    weights = np.ones(1)
    for row in scores:
        where = np.flatnonzero(~np.isnan(row))
        if math.factorial(len(where)) * len(states) > _ENUMERABLE:
            return None
        orders = np.array(list(itertools.permutations(row[where])))
        step = np.zeros((len(orders), scores.shape[1]))
        step[:, where] = orders
        grown = (states[:, None, :] + step[None, :, :]).reshape(-1, scores.shape[1])
        if symmetric:
            grown.sort(axis=1)
        # Equal totals are found by a 64-bit hash of their decimals: two of 10⁵ differing ones meet with
        # a chance of 10⁻⁹, and sorting numbers is ten times faster than sorting rows.
        hashes = np.rint(grown * _DECIMALS).astype(np.int64) @ multipliers
        _, first, index = np.unique(hashes, return_index=True, return_inverse=True)
        keys = grown[first]
        mass = np.repeat(weights / len(orders), len(orders))
        weights = np.asarray(np.bincount(index.ravel(), weights=mass, minlength=len(keys)), float)
        states = keys
    statistics = np.einsum("di,ij,dj->d", states, inverse, states)
    return float(min(1.0, weights[statistics >= observed - _TIE].sum()))


def kruskal_wallis(samples: Sequence[Array]) -> Omnibus | None:
    """Kruskal and Wallis's test; None with fewer than two samples."""
    used = [s for s in samples if len(s)]
    if len(used) < 2:
        return None
    n = min(len(s) for s in used)
    values, counts = np.unique(np.concatenate(used), return_counts=True)
    df = len(used) - 1
    if len(values) == 1:
        return Omnibus("Kruskal–Wallis", 0.0, df, 1.0, "chi-square", n, len(used), 1)
    h, p = stats.kruskal(*used)
    ties = int((counts > 1).sum())
    return Omnibus("Kruskal–Wallis", float(h), df, float(p), "chi-square", n, len(used), ties)


def compare(
    trials: HostTrials, settings: Settings, column: str = "joules", factor: float = 1.0
) -> tuple[Pair, ...]:
    """Every pair of images on one host, with its verdict.

    Args:
        trials: the host's.
        settings: α, correction, margin.
        column: the endpoint.
        factor: calibrated share of α under early stopping.

    Returns:
        Pairs in the order of ``trials.images``; ``b`` is the reference (the first image) where it
        takes part.
    """
    return judge(_comparisons(trials, settings, column), trials.design, settings, factor)


def judge(
    comparisons: Sequence[Comparison], design: str, settings: Settings, factor: float = 1.0
) -> tuple[Pair, ...]:
    """One family of comparisons on one host, with verdicts."""
    tests = max(1, sum(c.shift is not None for c in comparisons))
    level = settings.alpha * factor / tests
    ready = [_with_detail(c, design, level) for c in comparisons]
    return decide(ready, settings, factor)


def _comparisons(trials: HostTrials, settings: Settings, column: str) -> list[Comparison]:
    table = trials.table(column) if trials.design == "blocked" else None
    logs = trials.samples(column)
    return [
        _comparison(a, b, logs, table, settings.alpha if column == "joules" else None)
        for b, a in itertools.combinations(trials.images, 2)
    ]


def _comparison(
    a: str,
    b: str,
    logs: dict[str, Array],
    table: pd.DataFrame | None,
    delta_alpha: float | None,
) -> Comparison:
    for image in (a, b):
        if len(logs[image]) == 0:
            return Comparison(Pair(a, b, 0, reason=f"{image} has no valid trial here"), None)
    cliffs = cliffs_delta(logs[a], logs[b], delta_alpha) if delta_alpha else None
    if table is None:
        n = min(len(logs[a]), len(logs[b]))
        pair = Pair(
            a,
            b,
            n,
            delta=cliffs,
            sd_log_pct=power.pooled_sd_pct(logs[a], logs[b]),
            method="Hodges–Lehmann shift of log energy, rank-sum inversion (independent samples)",
            ties=int(np.isin(logs[a], logs[b]).sum()),
        )
        return Comparison(pair, RankShift.rank_sum(logs[a], logs[b]))
    return paired(a, b, (table[a] - table[b]).dropna().to_numpy(float), cliffs)


def paired(a: str, b: str, differences: Array, delta: Delta | None = None) -> Comparison:
    """A comparison by log ratios inside blocks."""
    n = len(differences)
    if n == 0:
        return Comparison(Pair(a, b, 0, delta=delta, reason="no block holds both images"), None)
    pair = Pair(
        a,
        b,
        n,
        delta=delta,
        sd_log_pct=float(100 * np.std(differences, ddof=1)) if n > 1 else None,
        method="Hodges–Lehmann log ratio within blocks, signed-rank inversion",
        ties=int((differences == 0).sum()),
    )
    return Comparison(pair, RankShift.signed_rank(differences))


def _with_detail(comparison: Comparison, design: str, level: float) -> Comparison:
    """Adds what depends on the family: the detectable effect and the word for too few blocks."""
    pair = comparison.pair
    if comparison.shift is None:
        return comparison
    blocked = design == "blocked"
    needed = power.smallest_n(level, blocked=blocked)
    noun = TOO_FEW_BLOCKS if blocked else "too few trials"
    unit = "blocks" if blocked else "trials per image"
    detectable = None
    if pair.sd_log_pct is not None and pair.n >= needed:
        detectable = power.detectable_pct(pair.n, pair.sd_log_pct, alpha=level, blocked=blocked)
    detailed = replace(pair, detectable_pct=detectable)
    bounded = comparison.shift.interval(1 - level)[0] is not None
    why = "" if bounded else f"{noun} ({pair.n}; an interval needs at least {needed} {unit})"
    return Comparison(detailed, comparison.shift, why)


def cliffs_delta(a: Array, b: Array, alpha: float = 0.05) -> Delta:
    """Cliff's delta with Brunner and Munzel's standard error, on the logit scale of P(a > b).

    On the plain scale that interval leaves [−1, 1] and covers 86 % instead of 95 % at a delta of
    0.92 (30 trials per image, by simulation). Samples that don't overlap have no standard error: they
    get the bound of min(n, m) independent comparisons that all fell one way (Clopper–Pearson,
    conservative). Too little data or all-equal values get none.
    """
    sign = np.sign(np.subtract.outer(a, b))
    delta = float(sign.mean())
    smaller = min(len(a), len(b))
    if smaller < 2:
        return Delta(delta, None, None, "one trial of an image: no interval")
    if not sign.any():
        return Delta(0.0, None, None, "all values are equal")
    if abs(delta) == 1:
        bound = 2 * (alpha / 2) ** (1 / smaller) - 1
        return Delta(delta, *((bound, 1.0) if delta > 0 else (-1.0, -bound)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # zero variances are dealt with below
        low, high = rank_compare_2indep(a, b).conf_int(alpha=alpha)
    half = float(high - low) / 2
    if not math.isfinite(half) or half == 0:
        return Delta(delta, None, None, "the ranks don't vary: no interval")
    share = (1 + delta) / 2
    centre, reach = math.log(share / (1 - share)), half / (share * (1 - share))
    # 2 · logistic(x) − 1 = tanh(x / 2)
    return Delta(delta, math.tanh((centre - reach) / 2), math.tanh((centre + reach) / 2))


def secondary(trials: HostTrials, settings: Settings, factor: float = 1.0) -> tuple[Secondary, ...]:
    """The secondary endpoints, each with its own correction over pairs."""
    found = []
    scopes = trials.rows["energy_scope"].dropna().nunique()
    for column, label, unit in secondary_endpoints(trials.rows, settings.endpoint):
        values = trials.rows[column]
        reason = None
        if values.isna().all():
            reason = "no trial has it"
        elif scopes > 1 and unit == "J":
            reason = "trials cover different energy domains"
        elif (values.dropna() <= 0).any():
            reason = "some values are not positive: they have no ratio"
        if reason:
            found.append(Secondary(column, label, unit, (), reason))
            continue
        found.append(
            Secondary(column, label, unit, compare(trials, settings, column, factor=factor))
        )
    return tuple(found)
