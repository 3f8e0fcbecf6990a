"""The warm-up's end: steady, or at its limits; never longer, never sooner than asked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stored_runs import experiment, prepared
from wattbench.config.experiment import WarmUp
from wattbench.steps.warm_up import Reading, Warmth, judge, keep
from wattbench.storage.object_store import Store


def heating(
    tau_s: float, rise_c: float, until_s: float, *, every_s: float = 5, power: bool = True
) -> list[Reading]:
    """A body that warms exponentially, read by a sensor of whole degrees; leakage follows the heat."""

    def at(t: float) -> Reading:
        warm = 1 - math.exp(-t / tau_s)
        return Reading(t, round(40 + rise_c * warm), 100 * (1 + 0.02 * warm) if power else None)

    return [at(t * every_s) for t in range(int(until_s / every_s) + 1)]


def ended(readings: list[Reading], wanted: WarmUp) -> Warmth:
    """As the sensor looks: after each reading."""
    for n in range(1, len(readings) + 1):
        found = judge(readings[:n], wanted)
        if found.over:
            return found
    raise AssertionError("it never ends")


@given(st.floats(10, 240), st.floats(5, 50), st.floats(0, 120), st.floats(180, 900))
def test_it_ends_when_hardly_anything_moves_and_within_its_limits(
    tau_s: float, rise_c: float, seconds: float, max_s: float
) -> None:
    wanted = WarmUp(seconds=seconds, max_s=max_s)
    found = ended(heating(tau_s, rise_c, 1000), wanted)
    assert seconds <= found.elapsed_s <= max(seconds, max_s) + 5
    # Half a minute's move of at most 0.5 °C by a sensor of whole degrees: under 1.5 °C in truth.
    warm_s = tau_s * math.log(max(1.0, rise_c * (1 - math.exp(-30 / tau_s)) / 1.5))
    if found.steady:
        assert found.elapsed_s >= warm_s - 30
    else:
        assert found.elapsed_s >= max_s


def test_a_slow_machine_takes_longer_than_a_quick_one() -> None:
    wanted = WarmUp(seconds=30, max_s=900)
    quick, slow = (ended(heating(tau, 30, 900), wanted) for tau in (15, 120))
    assert quick.steady
    assert slow.steady
    assert quick.elapsed_s < 150 < slow.elapsed_s


def test_a_host_without_sensors_is_warmed_for_the_fixed_time() -> None:
    blind = [Reading(t, None, None) for t in range(0, 100, 5)]
    found = ended(blind, WarmUp(seconds=60))
    assert (found.elapsed_s, found.steady) == (60, None)
    assert "neither temperature nor power" in found.why


def test_a_fixed_time_is_a_fixed_time() -> None:
    found = ended(heating(300, 40, 100), WarmUp(seconds=60, until_steady=False))
    assert (found.elapsed_s, found.steady, found.why) == (60, None, "for a fixed time")


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_the_limit_is_never_below_the_least(seconds: float) -> None:
    assert WarmUp(seconds=seconds, max_s=0).limit_s == seconds
    assert WarmUp(seconds=90, until_steady=False).limit_s == 90


def test_a_warm_up_that_did_not_become_steady_is_a_soft_problem_of_the_host(store: Store) -> None:
    run = prepared(store, experiment())
    run.write_host_document("lab-a", {"host": "lab-a", "facts": {"a": 1}, "problems": []})
    for max_s, problems in ((60, ["not-steady"]), (900, [])):
        found = ended(heating(100, 40, 900), WarmUp(seconds=30, max_s=max_s))
        keep(run, "lab-a", found)
        document = run.host_document("lab-a")
        assert document is not None
        assert document["facts"] == {"a": 1}
        assert document["warm_up"]["steady"] is (not problems)
        assert [p["code"] for p in document["problems"]] == problems
