"""Servers step by step: medians with intervals, and images compared inside blocks.

Energy and latency are two families of tests per host, each over all pairs of images and all steps, so that a
step can be picked afterwards. A median's interval is that of its order statistics (David & Nagaraja 2003,
*Order Statistics*, ch. 7.1): exact for any distribution, and unbounded below six trials at 95 %.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from wattbench.analysis.stats import within_host
from wattbench.analysis.stats.results import Pair, PairVerdict, Settings

Array = npt.NDArray[np.float64]


def median_interval(values: Array, level: float) -> tuple[float | None, float | None, float | None]:
    """A median with the bounds of its interval; None: unknown or unbounded."""
    known = np.sort(values[~np.isnan(values)])
    if not known.size:
        return None, None, None
    middle = float(np.median(known))
    cut = int(stats.binom.ppf((1 - level) / 2, known.size, 0.5))
    if cut == 0:
        return middle, None, None
    return middle, float(known[cut - 1]), float(known[-cut])


@dataclass(frozen=True)
class Slo:
    """What a server must keep.

    Attributes:
        p99_ms: the 99th percentile of the latency is at most this.
        max_error_pct: share of requests that may fail.
    """

    p99_ms: float | None = None
    max_error_pct: float | None = None


@dataclass(frozen=True)
class StepComparison:
    """One step on one host.

    Attributes:
        step: its name.
        energy: every pair of images, joules per unit.
        latency: every pair, 99th percentile of the latency.
        meets: image → whether it is shown to meet the SLO; None: not decided.
        on_front: image → whether no other image is shown to need less and answer faster, and each other is
            shown to need more or answer slower; None: not decided.
    """

    step: str
    energy: tuple[Pair, ...]
    latency: tuple[Pair, ...]
    meets: dict[str, bool | None]
    on_front: dict[str, bool | None]


def compare(
    rows: pd.DataFrame,
    images: Sequence[str],
    settings: Settings,
    slo: Slo,
    energy: str,
    share: float = 1.0,
) -> tuple[StepComparison, ...]:
    """Compare the images of one host at each step.

    Args:
        rows: one per step of each valid trial of the host: ``block``, ``image``, ``step``,
            ``latency_p99_ms``, ``error_pct`` and the column of ``energy``.
        images: the reference first.
        settings: α, correction, margin.
        slo: of the experiment.
        energy: column of the joules per unit.
        share: of α that is spent where the data were looked at repeatedly.
    """
    steps = list(dict.fromkeys(rows["step"]))
    energies = _pairs(rows, steps, images, settings, energy, share)
    latencies = _pairs(rows, steps, images, settings, "latency_p99_ms", share)
    found = []
    for step in steps:
        of_step = rows[rows["step"] == step]
        found.append(
            StepComparison(
                step,
                energies[step],
                latencies[step],
                {
                    i: _meets(of_step[of_step["image"] == i], slo, 1 - settings.alpha)
                    for i in images
                },
                {i: _on_front(i, energies[step], latencies[step]) for i in images},
            )
        )
    return tuple(found)


def _pairs(
    rows: pd.DataFrame,
    steps: Sequence[str],
    images: Sequence[str],
    settings: Settings,
    column: str,
    share: float,
) -> dict[str, tuple[Pair, ...]]:
    pairs = [(a, b) for b, a in itertools.combinations(images, 2)]
    comparisons = []
    for step in steps:
        of_step = rows[(rows["step"] == step) & (rows[column] > 0)]
        logs = of_step.assign(v=np.log(of_step[column].to_numpy(float)))
        table = logs.pivot_table(index="block", columns="image", values="v", aggfunc="mean")
        table = table.reindex(columns=list(images))
        comparisons += [
            within_host.paired(a, b, (table[a] - table[b]).dropna().to_numpy(float))
            for a, b in pairs
        ]
    judged = within_host.judge(comparisons, "blocked", settings, share)
    return {
        step: judged[place * len(pairs) : (place + 1) * len(pairs)]
        for place, step in enumerate(steps)
    }


def _meets(rows: pd.DataFrame, slo: Slo, level: float) -> bool | None:
    """Whether an image meets the SLO at a step."""
    if rows.empty:
        return None
    if slo.max_error_pct is not None and rows["error_pct"].median() > slo.max_error_pct:
        return False
    if slo.p99_ms is None:
        return True
    _, low, high = median_interval(rows["latency_p99_ms"].to_numpy(float), level)
    if high is not None and high <= slo.p99_ms:
        return True
    return False if low is not None and low > slo.p99_ms else None


def _on_front(image: str, energy: Sequence[Pair], latency: Sequence[Pair]) -> bool | None:
    """Whether no other image is better in both; of one image alone nothing is said."""
    against = {
        pair.b if pair.a == image else pair.a: tuple(
            p.verdict if p.a == image else p.verdict.flipped() for p in (pair, other)
        )
        for pair, other in zip(energy, latency, strict=True)
        if image in (pair.a, pair.b)
    }
    if not against:
        return None
    if any(both == (PairVerdict.MORE, PairVerdict.MORE) for both in against.values()):
        return False
    return True if all(PairVerdict.LESS in both for both in against.values()) else None
