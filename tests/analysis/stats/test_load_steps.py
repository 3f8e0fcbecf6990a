"""Steps of servers: medians' intervals against the binomial law, and a front that noise can't make."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from wattbench.analysis.stats import load_steps
from wattbench.analysis.stats.load_steps import Slo, StepComparison, median_interval
from wattbench.analysis.stats.results import PairVerdict, Settings

SETTINGS = Settings("a")


def coverage(n: int, cut: int) -> float:
    """That of the interval from the cut-th smallest to the cut-th largest of n draws, for the median."""
    return 1 - 2 * sum(math.comb(n, k) for k in range(cut)) / 2**n


@pytest.mark.parametrize("n", [6, 7, 10, 15, 29, 30, 60])
def test_a_medians_interval_is_the_shortest_pair_of_order_statistics_that_covers(n: int) -> None:
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    middle, low, high = median_interval(values, 0.95)
    assert middle == np.median(values)
    assert low is not None
    assert high == n + 1 - low
    assert coverage(n, int(low)) >= 0.95 > coverage(n, int(low) + 1)


def test_few_trials_leave_a_median_unbounded_and_none_leave_nothing() -> None:
    assert median_interval(np.arange(5.0), 0.95) == (2.0, None, None)
    assert median_interval(np.array([np.nan, 3.0]), 0.95) == (3.0, None, None)
    assert median_interval(np.array([np.nan]), 0.95) == (None, None, None)


def rows(
    images: dict[str, tuple[float, float]], blocks: int = 12, noise: float = 0.01, seed: int = 1
) -> pd.DataFrame:
    """Image → (joules per request, latency p99 in ms) at two steps, the second of half the joules."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {
                "block": block, "image": image, "step": step, "error_pct": 0.0,
                "j_per_request": joules * factor * math.exp(rng.normal(0, noise)),
                "latency_p99_ms": latency / factor * math.exp(rng.normal(0, noise)),
            }
            for block in range(1, blocks + 1)
            for image, (joules, latency) in images.items()
            for step, factor in (("c1", 1.0), ("c8", 0.5))
        ]
    )  # fmt: skip


def compared(
    frame: pd.DataFrame, slo: Slo | None = None, **settings: float
) -> dict[str, StepComparison]:
    images = tuple(sorted(set(frame["image"])))
    found = load_steps.compare(
        frame, images, Settings("a", **settings), slo or Slo(), "j_per_request"  # type: ignore[arg-type]
    )  # fmt: skip
    return {step.step: step for step in found}


def test_who_needs_less_and_answers_faster_is_on_the_front_and_who_is_beaten_in_both_is_not() -> (
    None
):
    found = compared(rows({"a": (2.0, 50.0), "b": (1.8, 40.0), "c": (1.5, 90.0), "d": (2.2, 60.0)}))
    for step in found.values():
        assert step.on_front == {"a": False, "b": True, "c": True, "d": False}


def test_noise_alone_puts_none_on_the_front_and_none_off_it() -> None:
    claims = 0
    for seed in range(40):
        frame = rows({"a": (2.0, 50.0), "b": (2.0, 50.0)}, noise=0.03, seed=seed)
        claims += any(
            state is not None
            for step in compared(frame).values()
            for state in step.on_front.values()
        )
    # two families at 5 % each: 40 runs of noise make 4 claims on average, 9 or more in 2 of 100
    assert claims <= 8


def test_equal_energy_and_a_slower_server_is_beaten_only_where_both_are_shown() -> None:
    found = compared(rows({"a": (2.0, 50.0), "slow": (2.0, 80.0)}))
    for step in found.values():
        assert step.energy[0].verdict in (PairVerdict.EQUIVALENT, PairVerdict.UNDECIDED)
        assert step.latency[0].verdict is PairVerdict.MORE
        assert step.on_front == {"a": True, "slow": None}


def test_the_slo_is_met_or_missed_only_where_the_interval_decides_it() -> None:
    frame = rows({"a": (2.0, 50.0), "b": (2.0, 99.9), "c": (2.0, 130.0)}, noise=0.05)
    step = compared(frame, Slo(100.0, 0.1))["c1"]
    assert step.meets == {"a": True, "b": None, "c": False}
    frame.loc[frame["image"] == "a", "error_pct"] = 0.5
    assert compared(frame, Slo(100.0, 0.1))["c1"].meets["a"] is False
    few = rows({"a": (2.0, 50.0), "b": (1.8, 40.0)}, blocks=3)
    assert compared(few, Slo(100.0))["c1"].meets == {"a": None, "b": None}
    assert compared(few)["c1"].on_front == {"a": None, "b": None}


def test_the_estimate_of_a_step_is_its_own_ratio_of_joules() -> None:
    frame = rows({"a": (2.0, 50.0), "b": (1.76, 40.0)}, noise=0.004)
    for step in compared(frame).values():
        (pair,) = step.energy
        assert pair.estimate_pct == pytest.approx(-12.0, abs=0.5)
        assert pair.simultaneous is not None
        assert pair.simultaneous.lower_pct is not None
        assert pair.simultaneous.lower_pct < -12.0 < (pair.simultaneous.upper_pct or 0.0)
