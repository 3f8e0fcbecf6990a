"""Effects across hosts: common-effect and random-effects combination, and agreement of rankings.

Joules of different hosts are never pooled, only ratios inside each.

*These hosts*: the mean log ratio over the hosts measured, each weighted by its blocks, with Welch
and Satterthwaite's standard error. Weights are fixed by the plan instead of estimated: inverse
variances estimated from a few blocks make a textbook 95 % interval cover 73 % (two hosts, three
blocks) to 90 % (ten blocks). It stays an honest description of these hosts when their effects
differ.

*Hosts like these*: random effects with Hartung and Knapp's interval (Hartung & Knapp 2001,
Statistics in Medicine 20:3875), between-host variance by Paule and Mandel.

Agreement of rankings is Kendall's W, its p by permutation; whether an effect depends on the host
is tested by Welch's F (Welch 1951).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats
from statsmodels.stats.oneway import anova_oneway

from wattbench.analysis.stats.endpoints import HostTrials
from wattbench.analysis.stats.ranks import TShift
from wattbench.analysis.stats.results import (
    HOSTS_LIKE_THESE,
    THESE_HOSTS,
    TOO_FEW_BLOCKS,
    AcrossHosts,
    Agreement,
    HostConclusion,
    HostEffect,
    HostsPair,
    Interaction,
    Pair,
    PairVerdict,
    Settings,
)
from wattbench.analysis.stats.verdicts import Comparison, adjust, decide, to_pct
from wattbench.analysis.stats.within_host import blocked_omnibus

Array = npt.NDArray[np.float64]

#: From this many hosts on, random effects lead.
HOSTS_FOR_RANDOM = 5

#: Below this many images a p of Kendall's W says nothing.
IMAGES_FOR_P = 4

#: Below this many blocks an undecided comparison is said to have too few.
FEW_BLOCKS = 6


@dataclass(frozen=True, eq=False)
class Share:
    """One host's mean log ratio of one pair, its squared standard error and degrees of freedom."""

    host: str
    n: int
    mean: float
    variance: float
    df: float
    differences: Array | None


def combine(
    hosts: Sequence[tuple[HostTrials, HostConclusion]], settings: Settings, factor: float = 1.0
) -> AcrossHosts:
    """Everything across hosts; with fewer than two hosts that compare anything, only the reason.

    Args:
        hosts: every host's trials and conclusion.
        settings: α, correction, margin.
        factor: calibrated share of α under early stopping.
    """
    usable = [(t, c) for t, c in hosts if t.reason is None]
    names = tuple(t.host for t, _ in usable)
    if len(usable) < 2:
        one = "one host" if usable else "no host"
        return AcrossHosts(names, reason=f"{one} with valid trials: nothing to combine")
    images = usable[0][0].images
    pairs = [(a, b) for b, a in itertools.combinations(images, 2)]
    shares = _shares([t for t, _ in usable], pairs)
    best = {c.host: c.images[0].image for _, c in usable if c.images and c.images[0].rank == 1}
    if not any(len(s) >= 2 for s in shares.values()):
        return AcrossHosts(
            names,
            best_by_host=best,
            reason="no pair of images was measured on two hosts with at least two blocks each",
        )
    combined = combine_pairs(pairs, shares, settings, factor)
    leads = HOSTS_LIKE_THESE if any(p.headline == HOSTS_LIKE_THESE for p in combined) else None
    return AcrossHosts(
        hosts=names,
        label=leads or THESE_HOSTS,
        pairs=combined,
        agreement=agreement([c for _, c in usable], settings),
        interactions=_interactions(pairs, shares, settings),
        best_by_host=best,
    )


def _shares(
    hosts: Sequence[HostTrials], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[Share]]:
    """Every host's share in every pair it measured in at least two blocks."""
    found: dict[tuple[str, str], list[Share]] = {pair: [] for pair in pairs}
    for trials in hosts:
        table = trials.table()
        samples = trials.samples()
        for a, b in pairs:
            if trials.design == "blocked":
                share = paired(trials.host, (table[a] - table[b]).dropna().to_numpy(float))
            else:
                share = _independent(trials.host, samples[a], samples[b])
            if share is not None:
                found[a, b].append(share)
    return found


def paired(host: str, d: Array) -> Share | None:
    """One host's share from log ratios inside its blocks; None of fewer than two."""
    if len(d) < 2:
        return None
    variance = float(np.var(d, ddof=1)) / len(d)
    return Share(host, len(d), float(d.mean()), variance, len(d) - 1, d)


def _independent(host: str, x: Array, y: Array) -> Share | None:
    n = min(len(x), len(y))
    if n < 2:
        return None
    vx, vy = float(np.var(x, ddof=1)) / len(x), float(np.var(y, ddof=1)) / len(y)
    df = welch_df([vx, vy], [len(x) - 1, len(y) - 1]) if vx + vy > 0 else float(n - 1)
    return Share(host, n, float(x.mean() - y.mean()), vx + vy, df, None)


def welch_df(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Welch and Satterthwaite's degrees of freedom of a sum of independent variance estimates."""
    total = sum(variances)
    return total**2 / sum(v**2 / df for v, df in zip(variances, dfs, strict=True))


def common_effect(
    means: Sequence[float], variances: Sequence[float], dfs: Sequence[float], ns: Sequence[int]
) -> TShift | None:
    """The mean effect of these hosts; None where nothing varies.

    Args:
        means: log ratio a host.
        variances: squared standard errors.
        dfs: their degrees of freedom.
        ns: blocks, the weights.
    """
    weights = np.asarray(ns, float) / sum(ns)
    parts = weights**2 * np.asarray(variances)
    if parts.sum() <= 0:
        return None
    df = welch_df(list(parts), list(dfs))
    return TShift(float(weights @ np.asarray(means)), math.sqrt(parts.sum()), df)


@dataclass(frozen=True)
class RandomEffects:
    """Hartung and Knapp's shift with the between-host SD (log) and I² (%)."""

    shift: TShift
    tau: float
    i2_pct: float


def hartung_knapp(means: Sequence[float], variances: Sequence[float]) -> RandomEffects | None:
    """Random effects; None with fewer than two hosts or where a variance is 0.

    The between-host variance solves Q(τ²) = hosts − 1 (Paule & Mandel), 0 where Q(0) is smaller.
    """
    y, v = np.asarray(means, float), np.asarray(variances, float)
    df = len(y) - 1
    if df < 1 or v.min() <= 0:
        return None

    def at(tau2: float) -> tuple[Array, float, float]:
        w = 1 / (v + tau2)
        centre = float(w @ y / w.sum())
        return w, centre, float(w @ (y - centre) ** 2)

    q0 = at(0.0)[2]
    tau2 = 0.0
    if q0 > df:
        # Q falls with τ² and is at most Σ(y − ȳ)² / τ², so the root lies below this bound.
        bound = float(((y - y.mean()) ** 2).sum() / df)
        tau2 = float(optimize.brentq(lambda t: at(t)[2] - df, 0.0, bound, xtol=1e-18))
    w, centre, q = at(tau2)
    se = math.sqrt(q / df / w.sum())
    if se <= 0:
        return None
    i2 = max(0.0, 100 * (q0 - df) / q0)
    return RandomEffects(TShift(centre, se, df), math.sqrt(tau2), i2)


def combine_pairs(
    pairs: Sequence[tuple[str, str]],
    shares: dict[tuple[str, str], list[Share]],
    settings: Settings,
    factor: float,
) -> tuple[HostsPair, ...]:
    """One family of comparisons over hosts, from every host's share in each."""
    common, random, spread = [], [], []
    for a, b in pairs:
        found = shares[a, b]
        means, variances = [s.mean for s in found], [s.variance for s in found]
        effects = hartung_knapp(means, variances)
        spread.append(effects)
        common.append(_common_comparison(a, b, found))
        random.append(_random_comparison(a, b, len(found), effects))
    decided = decide(common, settings, factor)
    beside = decide(random, settings, factor)
    return tuple(
        HostsPair(
            these_hosts=these,
            hosts_like_these=like if like.individual else None,
            hosts=_effects(shares[pair]),
            tau_pct=None if effects is None else 100 * effects.tau,
            i2_pct=None if effects is None else effects.i2_pct,
            headline=(
                HOSTS_LIKE_THESE
                if len(shares[pair]) >= HOSTS_FOR_RANDOM and effects is not None
                else THESE_HOSTS
            ),
        )
        for pair, these, like, effects in zip(pairs, decided, beside, spread, strict=True)
    )


def _effects(shares: Sequence[Share]) -> tuple[HostEffect, ...]:
    total = sum(s.n for s in shares)
    return tuple(
        HostEffect(s.host, s.n, to_pct(s.mean), 100 * math.sqrt(s.variance), s.n / total)
        for s in shares
    )


def _common_comparison(a: str, b: str, shares: Sequence[Share]) -> Comparison:
    n = sum(s.n for s in shares)
    if len(shares) < 2:
        where = "one host" if shares else "no host"
        reason = f"measured with at least two blocks on {where} only"
        return Comparison(Pair(a, b, n, reason=reason), None)
    shift = common_effect(
        [s.mean for s in shares],
        [s.variance for s in shares],
        [s.df for s in shares],
        [s.n for s in shares],
    )
    method = "mean log ratio of the hosts weighted by blocks, Welch–Satterthwaite t"
    if shift is None:
        reason = "no block differs from another: no interval"
        return Comparison(Pair(a, b, n, method=method, reason=reason), None)
    few = max(s.n for s in shares)
    too_few = f"{TOO_FEW_BLOCKS} ({few} a host)" if few < FEW_BLOCKS else ""
    return Comparison(Pair(a, b, n, method=method), shift, too_few)


def _random_comparison(a: str, b: str, hosts: int, effects: RandomEffects | None) -> Comparison:
    pair = Pair(a, b, hosts, method="Hartung–Knapp random effects, Paule–Mandel variance")
    return Comparison(pair, effects.shift if effects else None)


def agreement(hosts: Sequence[HostConclusion], settings: Settings) -> Agreement:
    """Kendall's W of the rankings of the images that every host ranked.

    W = χ²_Friedman / (hosts · (images − 1)), with hosts as blocks.
    """
    ranks = [{i.image: i.rank for i in h.images if i.rank is not None} for h in hosts]
    shared = sorted(set.intersection(*(set(r) for r in ranks))) if ranks else []
    k, m = len(shared), len(hosts)
    if m < 2 or k < 2:
        return Agreement(None, m, k, None, None, "fewer than two images ranked on every host")
    table = np.array([[float(r[image] or 0) for image in shared] for r in ranks])
    table = stats.rankdata(table, axis=1)
    spread = ((table.sum(axis=0) - m * (k + 1) / 2) ** 2).sum()
    w = float(12 * spread / (m**2 * (k**3 - k)))
    if k < IMAGES_FOR_P:
        return Agreement(w, m, k, None, None, f"no p below {IMAGES_FOR_P} images")
    test = blocked_omnibus(table, settings)
    if test is None:
        return Agreement(w, m, k, None, None, "no ranking holds two images")
    return Agreement(w, m, k, test.p, test.p_method)


def _interactions(
    pairs: Sequence[tuple[str, str]],
    shares: dict[tuple[str, str], list[Share]],
    settings: Settings,
) -> tuple[Interaction, ...]:
    """Whether each pair's effect differs between hosts, corrected over pairs."""
    raw = [(pair, shares[pair], _welch_f(shares[pair])) for pair in pairs if len(shares[pair]) > 1]
    adjusted = iter(adjust([p for *_, p in raw if p is not None], settings.correction))
    found = []
    for (a, b), share, p in raw:
        low, high = (to_pct(f(s.mean for s in share)) for f in (min, max))
        p_adjusted = None if p is None else next(adjusted)
        found.append(
            Interaction(
                a,
                b,
                low,
                high,
                p,
                p_adjusted,
                p_adjusted is not None and p_adjusted <= settings.alpha,
                "no block differs from another, or a host has no blocks" if p is None else None,
            )
        )
    return tuple(found)


def _welch_f(shares: Sequence[Share]) -> float | None:
    groups = [s.differences for s in shares]
    if any(g is None for g in groups) or min(s.variance for s in shares) <= 0:
        return None
    return float(anova_oneway(groups, use_var="unequal").pvalue)


def turns_round(pairs: Sequence[HostsPair], hosts: Sequence[HostConclusion]) -> bool:
    """Whether two hosts decided one pair in opposite directions."""
    for pair in pairs:
        of_hosts = [h.pair(pair.these_hosts.a, pair.these_hosts.b) for h in hosts]
        verdicts = {t.verdict for t in of_hosts if t is not None}
        if {PairVerdict.LESS, PairVerdict.MORE} <= verdicts:
            return True
    return False
