"""Forest plots as places on one axis, and findings' links."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wattbench.analysis.presentation.findings import target
from wattbench.analysis.presentation.forest import Entry, forest
from wattbench.analysis.stats.results import Interval

PERCENT = st.floats(-90, 900)


def entry(estimate: float, low: float | None, high: float | None) -> Entry:
    return Entry("slim", "series-1", estimate, Interval(estimate, low, high, 0.95), "less")


@given(st.lists(st.tuples(PERCENT, PERCENT, PERCENT).map(sorted), min_size=1, max_size=6))
def test_every_estimate_lies_inside_its_interval_on_the_axis(rows: list[list[float]]) -> None:
    plot = forest([entry(middle, low, high) for low, middle, high in rows], 1.0)
    for bar in plot.bars:
        assert 0 <= bar.low <= bar.at <= bar.high <= 100
    assert plot.margin[0] <= plot.zero <= plot.margin[1]


def test_an_unbounded_interval_is_open_and_a_missing_one_is_not() -> None:
    unbounded, none = forest(
        [entry(-2.0, None, 1.0), Entry("fat", "series-2", 3.0, None, "undecided", "one block")], 1.0
    ).bars
    assert unbounded.is_open
    assert not none.is_open
    assert none.interval == "no interval"


def test_the_reference_has_no_interval_and_lies_at_zero() -> None:
    plot = forest([Entry("base", "series-0", 0.0, None, "reference", is_reference=True)], 1.0)
    (bar,) = plot.bars
    assert (bar.estimate, bar.interval, bar.at) == ("0", "–", plot.zero)


def test_a_reason_that_several_share_is_said_once() -> None:
    rows = [Entry(name, "series-1", 1.0, None, "undecided", "too few blocks") for name in "ab"]
    assert forest(rows, 1.0).details == {"a, b": "too few blocks"}


def test_all_attempts_of_a_trial_have_one_anchor_and_a_run_has_none() -> None:
    assert target("trial lab-a/002-slim/1") == target("trial lab-a/002-slim/2")
    assert target("host lab-a") == "host-lab-a"
    assert target("run") == target("campaign") == ""
