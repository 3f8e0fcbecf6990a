"""Change points, and the quarantine rule.

Sources: Killick, Fearnhead & Eckley 2012 (PELT, by ``ruptures``); Montgomery, *Statistical Quality
Control*, ch. 6 (moving range); the chi-square bound of a normal standard deviation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]

#: Expected moving range of two normal values in SDs (d₂ for n = 2).
_MOVING_RANGE = 2 / math.sqrt(math.pi)

#: Fewest values on either side of a change point.
SHORTEST = 3

#: Fewest runs that can quarantine a host.
QUARANTINE_RUNS = 5

#: Only this many latest runs count, so that old instability is forgotten.
RECENT_RUNS = 20


@dataclass(frozen=True)
class Quarantine:
    """Whether a host is too unsteady for its results to be used.

    Attributes:
        quarantined: the bound exceeds the limit.
        runs: control runs used.
        sd_pct: relative SD of the control workload's joules, %; None with fewer than two runs.
        bound_pct: lower one-sided 95 % bound of the true relative SD, %; None below five runs.
        limit_pct: the limit.
        reason: one sentence.
    """

    quarantined: bool
    runs: int
    sd_pct: float | None
    bound_pct: float | None
    limit_pct: float
    reason: str


def quarantine(
    control_j: Sequence[float], limit_pct: float = 1.0, *, confidence: float = 0.95
) -> Quarantine:
    """Judges a host by its control workload's joules, one value a run.

    The SD is that of log joules. ν·s²/σ² is chi-square with ν = n − 1, so that σ ≥ s·√(ν /
    χ²(confidence; ν)) with that confidence. A healthy host is thus quarantined in at most one
    series of twenty.
    """
    values = [math.log(v) for v in control_j if v > 0]
    n = len(values)
    sd = float(100 * np.std(values, ddof=1)) if n > 1 else None
    if sd is None or n < QUARANTINE_RUNS:
        reason = f"{n} control runs; at least {QUARANTINE_RUNS} are needed to judge the host"
        return Quarantine(False, n, sd, None, limit_pct, reason)
    bound = sd * math.sqrt((n - 1) / _chi_square(confidence, n - 1))
    out = bound > limit_pct
    reason = (
        f"the control workload's SD over {n} runs is {sd:.2f} %, at least {bound:.2f} % with "
        f"{confidence:.0%} confidence; the limit is {limit_pct:g} %"
    )
    return Quarantine(out, n, sd, bound, limit_pct, reason)


@cache
def _chi_square(confidence: float, freedom: int) -> float:
    return float(stats.chi2.ppf(confidence, freedom))


def standing(control_j: Sequence[float], limit_pct: float = 1.0) -> Quarantine:
    """Where a host stands after its control runs: into quarantine, and out of it again.

    In by :func:`quarantine` over its latest :data:`RECENT_RUNS` runs. Out once it passes again: the
    SD of the latest :data:`QUARANTINE_RUNS` runs, all of them since, is within the limit. Runs from
    before no longer count.

    Args:
        control_j: the control workload's joules, one value a run, oldest first.
        limit_pct: of their relative SD, %.
    """
    first = 0
    judged = quarantine((), limit_pct)
    for end in range(1, len(control_j) + 1):
        since = control_j[first:end]
        if not judged.quarantined:
            judged = quarantine(since[-RECENT_RUNS:], limit_pct)
            first = end if judged.quarantined else first
            continue
        latest = quarantine(since[-QUARANTINE_RUNS:], limit_pct)
        if latest.bound_pct is not None and (latest.sd_pct or 0.0) <= limit_pct:
            judged, first = latest, end - QUARANTINE_RUNS
    if not judged.quarantined:
        return judged
    runs = len(control_j) - first
    return replace(
        judged,
        reason=f"{judged.reason}; {runs} control runs since, and {QUARANTINE_RUNS} in a row within "
        "the limit lift it",
    )


def local_sd(values: Array) -> float:
    """SD of normal noise from differences of neighbours: blind to slow or rare changes of level.

    The median moving range (÷ 0.9539); where half of the neighbours are equal, the mean one (÷
    1.1284).
    """
    moves = np.abs(np.diff(values))
    typical = float(np.median(moves)) / (math.sqrt(2) * float(stats.norm.ppf(0.75)))
    return typical if typical > 0 else float(np.mean(moves)) / _MOVING_RANGE


@dataclass(frozen=True)
class ChangePoint:
    """A change of level by ``shift``; ``index`` is the first value of the new one."""

    index: int
    shift: float


def change_points(values: Sequence[float] | Array, penalty: float = 4.0) -> tuple[ChangePoint, ...]:
    """Changes of level by PELT on squared error.

    Args:
        values: in order.
        penalty: in units of σ² log n a change; 4 raises false alarms in under one white series of
            twenty.

    Returns:
        The changes in order; none with fewer than six values or where nothing varies.
    """
    x = np.asarray(values, float)
    n = len(x)
    if n < 2 * SHORTEST:
        return ()
    sd = local_sd(x)
    if sd == 0:
        sd = float(np.std(x))
    if sd == 0:
        return ()
    import ruptures  # spared where nothing has changed

    scaled = ((x - np.mean(x)) / sd).reshape(-1, 1)
    # The linear kernel's cost is the squared error; this is PELT in C (a year of nights in 5 ms).
    search = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST, jump=1)
    ends = search.fit_predict(scaled, pen=penalty * math.log(n))
    edges = [0, *ends]
    means = [float(np.mean(x[a:b])) for a, b in itertools.pairwise(edges)]
    return tuple(
        ChangePoint(int(edge), after - before)
        for edge, (before, after) in zip(ends[:-1], itertools.pairwise(means), strict=True)
    )


def step_p(values: Sequence[float] | Array, rng: np.random.Generator, draws: int = 1999) -> float:
    """P of one change of level at all: the largest CUSUM gain among random orders of the values.

    Exact up to Monte-Carlo error for exchangeable values, normal or not.
    """
    x = np.asarray(values, float)
    n = len(x)
    if n < 2 * SHORTEST or np.ptp(x) == 0:
        return 1.0
    x = x - x.mean()
    split = np.arange(SHORTEST, n - SHORTEST + 1)
    weight = 1 / (split * (n - split))

    def gain(rows: Array) -> Array:
        sums = np.cumsum(rows, axis=1)[:, SHORTEST - 1 : n - SHORTEST]
        sums *= sums
        sums *= weight
        return np.asarray(sums.max(axis=1))

    observed = gain(x[None, :])[0]
    shuffled = gain(rng.permuted(np.tile(x, (draws, 1)), axis=1))
    return float((np.sum(shuffled >= observed * (1 - 1e-12)) + 1) / (draws + 1))
