"""Whose turn it is: never two at once, never out of order, never stuck."""

from __future__ import annotations

import random

import pytest

from wattbench.airflow.trial_order import Turn, is_late, turn
from wattbench.dag_runs import TASK_ACTIVE, TASK_OVER


def states(*trials: tuple[str | None, str | None, str | None]) -> dict[str, str | None]:
    return {
        f"gpu-a.trial.{task}_{i}": state
        for i, trial in enumerate(trials)
        for task, state in zip(("rest", "measure", "collect"), trial, strict=True)
    }


def test_each_of_airflow_s_states_is_over_or_active_or_waits_for_something() -> None:
    from airflow.utils.state import TaskInstanceState

    waits = {"up_for_reschedule", "awaiting_input"}
    assert {str(state) for state in TaskInstanceState} == TASK_OVER | TASK_ACTIVE | waits
    assert not TASK_OVER & TASK_ACTIVE


DONE = ("success", "success", "success")
WAITING = (None, None, None)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (DONE, Turn.GO),
        (("success", "failed", "success"), Turn.GO),
        (("failed", "upstream_failed", "skipped"), Turn.GO),
        (("skipped", "skipped", "skipped"), Turn.GO),
        (("success", "running", None), Turn.WAIT),
        (("success", None, None), Turn.WAIT),
        (("success", "up_for_retry", None), Turn.WAIT),
        (("success", "success", "queued"), Turn.WAIT),
        (("up_for_retry", None, None), Turn.GIVE_WAY),
        (WAITING, Turn.GIVE_WAY),
    ],
)
def test_a_trial_follows_the_one_before(
    before: tuple[str | None, str | None, str | None], expected: Turn
) -> None:
    assert turn(states(before, ("running", None, None), WAITING), "gpu-a.trial", 1) is expected


def test_a_cleared_trial_waits_for_a_later_one_in_its_window() -> None:
    cleared = ("running", None, None)
    assert turn(states(cleared, ("success", "running", None)), "gpu-a.trial", 0) is Turn.WAIT
    assert turn(states(cleared, ("running", None, None)), "gpu-a.trial", 0) is Turn.GO


def test_group_names_with_digits_and_underscores_are_understood() -> None:
    known = {"h_1.again_3.rest_0": "running", "h_1.again_3.measure_0": None}
    assert turn(known, "h_1.again_3", 0) is Turn.GO


@pytest.mark.parametrize("seed", range(20))
def test_any_interleaving_runs_all_trials_in_order_one_at_a_time(seed: int) -> None:
    """A scheduler that starts, fails and retries sensors at random (one at a time, as Airflow does)."""
    rng = random.Random(seed)
    n = 8
    known: dict[str, str | None] = {
        f"g.{t}_{i}": None for i in range(n) for t in ("rest", "measure", "collect")
    }
    executed: list[int] = []
    for _ in range(2000):
        if all(known[f"g.collect_{i}"] in ("success", "skipped") for i in range(n)):
            break
        resting = [i for i in range(n) if known[f"g.rest_{i}"] == "running"]
        pending = [i for i in range(n) if known[f"g.rest_{i}"] in (None, "up_for_retry")]
        if not resting and pending:
            pick = rng.choice(pending[:2])
            known[f"g.rest_{pick}"] = "running"
            continue
        if resting and rng.random() < 0.7:
            i = resting[0]
            decision = turn(known, "g", i)
            if decision is Turn.GIVE_WAY:
                known[f"g.rest_{i}"] = None
            elif rng.random() < 0.1:
                known[f"g.rest_{i}"] = "up_for_retry"
            elif decision is Turn.GO:
                known[f"g.rest_{i}"] = "success"
        active = [i for i in range(n) if known[f"g.rest_{i}"] == "success"]
        for i in active:
            if known[f"g.measure_{i}"] is None:
                known[f"g.measure_{i}"] = "running"
                executed.append(i)
            elif known[f"g.measure_{i}"] == "running" and rng.random() < 0.5:
                known[f"g.measure_{i}"] = "success"
            elif known[f"g.measure_{i}"] == "success":
                known[f"g.collect_{i}"] = "success"
        running = [i for i in range(n) if known[f"g.measure_{i}"] == "running"]
        assert len(running) <= 1
    assert executed == list(range(n))


def test_a_task_that_is_not_expanded_yet_is_passed_over() -> None:
    """The scheduler expands `rest`, `measure` and `collect` one after the other, and `rest` may run by then."""
    seen = {"h.trial.rest_0": "running", "h.trial.rest_1": None, "h.trial.collect": None}
    assert turn(seen, "h.trial", 0) is Turn.GO
    assert turn(seen, "h.trial", 1) is not Turn.GO
    assert not is_late(seen, "h.trial", 0)


@pytest.mark.parametrize(
    ("later", "late"), [("success", True), ("failed", True), ("skipped", False), (None, False)]
)
def test_late_is_what_is_executed_after_a_later_trial(later: str | None, late: bool) -> None:
    rest = "success" if later in ("success", "failed") else later
    seen = {"h.trial.rest_0": "running", "h.trial.rest_1": rest, "h.trial.collect_1": later}
    assert is_late(seen, "h.trial", 0) is late
    assert not is_late(seen, "h.trial", 1)
