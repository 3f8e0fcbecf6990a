"""Break-even against school algebra, a brute-force inversion of the test, and simulations of known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wattbench.analysis.stats.break_even import Course, break_even


@pytest.mark.parametrize(
    ("once", "each", "course", "units"),
    [
        (4000.0, -2.0, Course.PAYS, 2000.0),
        (-4000.0, 2.0, Course.LOSES, 2000.0),
        (100.0, 1.0, Course.MORE, None),
        (-100.0, -1.0, Course.LESS, None),
    ],
)
def test_without_noise_two_totals_meet_where_school_algebra_says(
    once: float, each: float, course: Course, units: float | None
) -> None:
    found = break_even(np.full(8, once), np.full(8, each), 0.0, 0.95)
    assert (found.course, found.units, found.lower, found.upper) == (course, units, units, units)


def test_the_doubt_of_a_download_widens_the_interval_by_its_units() -> None:
    found = break_even(np.full(8, 4000.0), np.full(8, -2.0), 500.0, 0.95)
    assert (found.lower, found.units, found.upper) == (1750.0, 2000.0, 2250.0)
    assert break_even(np.full(8, 4000.0), np.full(8, -2.0), 5000.0, 0.95).course is Course.OPEN


@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_too_few_blocks_leave_it_open(blocks: int) -> None:
    found = break_even(np.full(blocks, 4000.0), np.full(blocks, -2.0), 0.0, 0.95)
    assert found.course is Course.OPEN
    assert found.units is None


def test_an_interval_that_spans_both_answers_leaves_it_open() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 3, 20)
    assert break_even(np.full(20, 4000.0), noise, 0.0, 0.95).course is Course.OPEN
    assert break_even(1000 * noise, np.full(20, -1.0), 0.0, 0.95).course is Course.OPEN


@given(seed=st.integers(0, 10_000), blocks=st.integers(6, 14))
@settings(max_examples=25, deadline=None)
def test_the_interval_is_what_scipys_test_does_not_reject(seed: int, blocks: int) -> None:
    """An independent signed-rank test at both bounds, and a little outside of them."""
    rng = np.random.default_rng(seed)
    once, each = rng.normal(5000, 400, blocks), rng.normal(-2, 0.15, blocks)
    found = break_even(once, each, 0.0, 0.9)
    assert found.course is Course.PAYS
    assert found.lower is not None
    assert found.upper is not None
    assert found.units is not None
    assert found.lower <= found.units <= found.upper

    def p(n: float) -> float:
        return float(stats.wilcoxon(once + n * each, method="exact").pvalue)

    span = found.upper - found.lower
    for inside in (found.lower + 1e-6 * span, found.units, found.upper - 1e-6 * span):
        assert p(inside) > 0.1
    for outside in (found.lower - 1e-6 * span, found.upper + 1e-6 * span):
        assert p(outside) <= 0.1


def test_nineteen_of_twenty_intervals_hold_the_true_crossing() -> None:
    rng = np.random.default_rng(7)
    tries, held = 1500, 0
    for _ in range(tries):
        shared = rng.normal(0, 300, 12)  # of a block: both parts of a trial move with the room
        found = break_even(
            4000 + shared + rng.normal(0, 500, 12), -2 + shared / 5000 + rng.normal(0, 0.1, 12), 0.0, 0.95
        )  # fmt: skip
        assert found.lower is not None
        assert found.upper is not None
        held += found.lower <= 2000 <= found.upper
    # the exact level of 12 blocks is 0.9575; three standard errors of a share of 1500
    assert held / tries == pytest.approx(0.9575, abs=3 * (0.9575 * 0.0425 / tries) ** 0.5)


@given(seed=st.integers(0, 10_000), factor=st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_a_unit_of_joules_changes_nothing_and_one_of_work_scales_it(
    seed: int, factor: float
) -> None:
    rng = np.random.default_rng(seed)
    once, each = rng.normal(-5000, 400, 10), rng.normal(2, 0.1, 10)
    found = break_even(once, each, 50.0, 0.95)
    assert found.course is Course.LOSES
    joules = break_even(once * factor, each * factor, 50.0 * factor, 0.95)
    work = break_even(once, each * factor, 50.0, 0.95)
    assert found.units is not None
    assert joules.units == pytest.approx(found.units)
    assert joules.upper == pytest.approx(found.upper)
    assert work.units == pytest.approx(found.units / factor)
    assert work.lower == pytest.approx(found.lower / factor)
