"""Verdicts: correction over pairs, simultaneous intervals, equivalence tests.

One procedure serves one host and many: it sees shifts of log energy only through the
:class:`~analysis.ranks.Shift` protocol. Error control: the family-wise rate of false *less* or
*more* is at most α (Holm 1979), and so, apart, is that of false *equivalent* (two one-sided tests,
Schuirmann 1987, corrected in the same way).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wattbench.analysis.stats.ranks import Shift, two_sided
from wattbench.analysis.stats.results import Equivalence, Interval, Pair, PairVerdict, Settings


@dataclass(frozen=True)
class Comparison:
    """One pair before its verdict: the pair's descriptive fields, and its shift if there is one.

    ``too_few``: what to say of an undecided pair that has too little data; else empty.
    """

    pair: Pair
    shift: Shift | None
    too_few: str = ""


def to_pct(log_ratio: float) -> float:
    """A difference of logarithms as % energy."""
    return 100 * math.expm1(log_ratio)


def to_log(pct: float) -> float:
    """The inverse of :func:`to_pct`."""
    return math.log1p(pct / 100)


def adjust(p: Sequence[float], correction: str) -> list[float]:
    """Adjusted p values, by ``holm`` or ``bonferroni``."""
    m = len(p)
    if correction == "bonferroni":
        return [min(1.0, m * v) for v in p]
    # Written out: statsmodels' multipletests collects garbage at every call, 0.15 s each.
    adjusted = [0.0] * m
    highest = 0.0
    for step, k in enumerate(sorted(range(m), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (m - step) * p[k]))
        adjusted[k] = highest
    return adjusted


def interval_of(shift: Shift, level: float, nominal: float | None = None) -> Interval:
    """A shift's interval in % energy, at ``level``, labelled ``nominal``."""
    lower, upper = shift.interval(level)
    return Interval(
        to_pct(shift.estimate),
        None if lower is None else to_pct(lower),
        None if upper is None else to_pct(upper),
        level if nominal is None else nominal,
    )


def decide(
    comparisons: Sequence[Comparison], settings: Settings, factor: float = 1.0
) -> tuple[Pair, ...]:
    """The verdict of every pair.

    Args:
        comparisons: all pairs of the family; those without a shift stay undecided and don't count
            as tests.
        settings: α, correction and margin.
        factor: share of α that is spent where the data were looked at repeatedly (see
            ``sequential``).

    Returns:
        One pair a comparison, in the same order.
    """
    tested = [(c, c.shift) for c in comparisons if c.shift is not None]
    margin = settings.equivalence_pct
    low, high = to_log(-margin), to_log(margin)
    p = [min(1.0, two_sided(s) / factor) for _, s in tested]
    p_equal = [min(1.0, max(s.p_greater(low), s.p_less(high)) / factor) for _, s in tested]
    adjusted = adjust(p, settings.correction)
    adjusted_equal = adjust(p_equal, settings.correction)
    alpha = settings.alpha * factor
    decided: dict[int, Pair] = {}
    for k, (comparison, shift) in enumerate(tested):
        equivalence = Equivalence(
            margin_pct=margin,
            p=p_equal[k],
            p_adjusted=adjusted_equal[k],
            holds=adjusted_equal[k] <= settings.alpha,
            interval=interval_of(shift, 1 - 2 * alpha, 1 - 2 * settings.alpha),
        )
        differs = adjusted[k] <= settings.alpha
        simultaneous = interval_of(shift, 1 - alpha / len(tested), 1 - settings.alpha)
        if differs:
            simultaneous = _beside_zero(simultaneous)
        verdict = _verdict(differs, equivalence.holds, shift.estimate)
        decided[id(comparison)] = replace(
            comparison.pair,
            individual=interval_of(shift, 1 - alpha, 1 - settings.alpha),
            simultaneous=simultaneous,
            p=p[k],
            p_adjusted=adjusted[k],
            equivalence=equivalence,
            verdict=verdict,
            within_margin=equivalence.holds if differs else None,
            reason=None
            if verdict is not PairVerdict.UNDECIDED
            else comparison.too_few or _reason(simultaneous, margin),
        )
    return tuple(decided.get(id(c), c.pair) for c in comparisons)


def _verdict(differs: bool, equivalent: bool, estimate: float) -> PairVerdict:
    if differs:
        return PairVerdict.LESS if estimate < 0 else PairVerdict.MORE
    return PairVerdict.EQUIVALENT if equivalent else PairVerdict.UNDECIDED


def _beside_zero(interval: Interval) -> Interval:
    """Ends at 0 an interval that reaches past it though the sign is decided.

    Holm's later steps are less strict than the simultaneous level, so this can happen. The closed
    interval still covers a true difference of 0.
    """
    if interval.estimate_pct < 0:
        upper = interval.upper_pct
        return replace(interval, upper_pct=0.0 if upper is None else min(upper, 0.0))
    lower = interval.lower_pct
    return replace(interval, lower_pct=0.0 if lower is None else max(lower, 0.0))


def _reason(interval: Interval, margin_pct: float) -> str:
    if interval.lower_pct is None or interval.upper_pct is None:
        return "too little data for an interval"
    return f"the interval includes 0 and equivalence within ±{margin_pct:g} % is not shown"
