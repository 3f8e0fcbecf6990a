"""Windows that the triggerer has: which trial may follow at once, and which wait is begun anew."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.stored_runs import experiment, measured, prepared
from tests.wattbench.airflow.test_trial_order import states
from wattbench.airflow import triggers, windows
from wattbench.airflow.host_threads import Stop, StoppedError, in_thread
from wattbench.airflow.triggers import Done, MeasuredAttempt, Outcome, RestedHost
from wattbench.airflow.windows import Ended, Window, find_window
from wattbench.errors import HostError
from wattbench.run.stored_run import Run
from wattbench.steps.trial import Begun
from wattbench.storage.object_store import Store

HOST, GROUP = "lab-a", "gpu-a.trial"
DONE = ("success", "success", "success")
MEASURES = ("success", "deferred", None)
ENDS = ("success", "success", "running")
WAITS = ("deferred", None, None)
CLEARED = (None, None, None)
BROUGHT = Ended("done", "", is_brought=True)
NOT_BROUGHT = Ended("done", "", is_brought=False)

Trial = tuple[str | None, str | None, str | None]


@pytest.fixture
def run(store: Store, monkeypatch: pytest.MonkeyPatch) -> Run:
    protocol = experiment().model_dump(mode="json")["protocol"] | {"stop_without_comparison": False}
    made = prepared(store, experiment(protocol=protocol))
    monkeypatch.setattr(triggers, "_known_run", lambda _: made)
    monkeypatch.setattr(windows, "_windows", {})
    return made


def opened(run: Run, index: int, end: Ended | Exception | None, *, placed: bool = True) -> Window:
    """A window of a trial's first attempt, open where it has no end."""
    trial = run.plan(HOST)[index]
    future: Future[Ended] = Future()
    if isinstance(end, Exception):
        future.set_exception(end)
    elif end is not None:
        future.set_result(end)
    place = (GROUP, index) if placed else None
    window = Window(run.run_id, place, trial, Begun(f"{index}", 1, ""), future)
    windows._windows[HOST] = (*windows.windows_of(HOST, run.run_id), window)
    return window


def follows(run: Run, *seen: tuple[Trial, ...]) -> bool:
    """Whether the trial that waits may follow at once; the states of all trials before and after its wait."""
    index = len(seen[0]) - 1
    waiting = RestedHost(run_id=run.run_id, host=HOST, group=GROUP, map_index=index)

    def now(tasks: tuple[str, ...], index: int | None = None) -> Mapping[str, str | None]:
        assert (set(tasks), index) == ({"rest", "measure", "collect"}, None)
        return states(*seen[-1])

    waiting._states = now  # type: ignore[method-assign]
    return waiting._follows_at_once(Stop(), run, run.plan(HOST)[index], states(*seen[0]))


def test_a_trial_follows_as_soon_as_the_raw_logs_of_the_one_before_are_in_the_store(
    run: Run,
) -> None:
    opened(run, 0, BROUGHT)
    assert follows(run, (MEASURES, WAITS))
    opened(run, 1, BROUGHT)
    assert follows(run, (ENDS, MEASURES, WAITS))


def test_a_trial_before_which_the_host_may_stop_waits_for_the_records(
    store: Store, run: Run
) -> None:
    doubtful = prepared(store, experiment(), "doubtful")
    opened(doubtful, 0, BROUGHT)
    opened(doubtful, 1, BROUGHT)
    assert not follows(doubtful, (ENDS, MEASURES, WAITS))


@pytest.mark.parametrize("end", [NOT_BROUGHT, HostError("gone", code="lost")])
def test_a_trial_waits_for_collect_where_the_raw_logs_are_still_on_the_host(
    run: Run, end: Ended | Exception
) -> None:
    opened(run, 0, end)
    assert not follows(run, (MEASURES, WAITS))


def test_a_trial_waits_for_airflow_where_another_process_waits_for_the_window(run: Run) -> None:
    assert not follows(run, (MEASURES, WAITS))
    opened(run, 0, BROUGHT, placed=False)
    assert not follows(run, (MEASURES, WAITS))


def test_a_trial_whose_measure_a_person_has_set_is_collected_first(run: Run) -> None:
    window = opened(run, 0, BROUGHT)
    ended = (("success", "success", "running"), WAITS)
    assert not follows(run, (MEASURES, WAITS), ended)
    window.measured.set()
    assert follows(run, (MEASURES, WAITS), ended)


@pytest.mark.parametrize("first", [CLEARED, ("success", None, None), ("success", "deferred", None)])
def test_a_trial_that_is_cleared_during_a_window_is_measured_before_the_next(
    run: Run, first: Trial
) -> None:
    opened(run, 0, BROUGHT)
    measured(run, run.plan(HOST)[0], datetime(2026, 3, 14, 1, 0, tzinfo=UTC), 10.0)
    opened(run, 1, BROUGHT)
    assert follows(run, (DONE, MEASURES, WAITS))
    assert not follows(run, (DONE, MEASURES, WAITS), (first, MEASURES, WAITS))


def test_a_window_whose_end_could_not_be_waited_for_is_opened_anew(run: Run) -> None:
    trial = run.plan(HOST)[0]
    assert find_window(run, HOST, trial, 1) is None
    opened(run, 0, HostError("away for too long", code="unreachable"))
    assert find_window(run, HOST, trial, 1) is None
    window = opened(run, 0, None)
    assert find_window(run, HOST, trial, 1) is window
    assert find_window(run, HOST, trial, 2) is None


def outcome_of(trigger: RestedHost | MeasuredAttempt, **answers: Any) -> Outcome:
    for name, answer in answers.items():
        setattr(trigger, name, answer)
    return trigger.work(Stop())


def test_nothing_touches_the_host_of_a_trial_that_is_cleared_during_its_window(run: Run) -> None:
    """A connection would fail: the host has no connection here."""
    opened(run, 0, BROUGHT)
    spec = run.plan(HOST)[0].to_dict()
    rest = RestedHost(run_id=run.run_id, host=HOST, group=GROUP, map_index=0, spec=spec)
    begun = outcome_of(rest, _states=lambda *_: states(WAITS))
    assert begun == Done({"return_value": {"late": False}})
    measure = MeasuredAttempt(run_id=run.run_id, host=HOST, spec=spec, rest={}, late=False)
    outcome = {"attempt": 1, "state": "done", "message": ""}
    assert outcome_of(measure) == Done({"return_value": outcome})


def test_a_measure_that_is_cleared_alone_waits_for_the_open_window(run: Run) -> None:
    """Its `rest` is not asked again, so that it has no turn."""
    window, stop = opened(run, 1, None), Stop()
    measure = MeasuredAttempt(
        run_id=run.run_id, host=HOST, spec=run.plan(HOST)[0].to_dict(), rest={}, late=False
    )
    reached: list[bool] = []
    asked = threading.Event()

    def wait_for(end: Future[Ended]) -> Ended:
        asked.set()
        return Stop.wait_for(stop, end)

    def on_host(*_: object) -> None:
        reached.append(window.end.done())
        raise HostError("no host here", code="auth")

    stop.on_host = on_host  # type: ignore[method-assign, assignment]
    stop.wait_for = wait_for  # type: ignore[method-assign, assignment]
    waiting = in_thread(lambda: measure.work(stop), "measure")
    while not asked.wait(0.05) and not waiting.done():
        pass
    window.end.set_result(BROUGHT)
    with pytest.raises(HostError):
        waiting.result(20)
    assert reached == [True]


@pytest.mark.parametrize("state", ["failed", "success"])
def test_nothing_touches_the_host_when_the_run_is_marked_during_a_window(
    run: Run, state: str
) -> None:
    """A connection would fail in another way: the host has none here."""
    window, stop = opened(run, 0, None), Stop()
    rest = RestedHost(
        run_id=run.run_id, host=HOST, group=GROUP, map_index=1, spec=run.plan(HOST)[1].to_dict()
    )
    marked = states(("success", state, "success"), (state, None, None))
    rest._states = lambda *_: marked  # type: ignore[method-assign, assignment]
    waiting = in_thread(lambda: rest.work(stop), "rest")
    with pytest.raises(TimeoutError):
        waiting.result(1.0)
    window.end.set_result(BROUGHT)
    with pytest.raises(StoppedError):
        waiting.result(20)
