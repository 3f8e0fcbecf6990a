"""Waits in the triggerer: what Airflow hears of a step that ends well, badly, or is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.triggers.base import TaskSkippedEvent, TaskSuccessEvent, TriggerEvent

from wattbench.airflow import triggers
from wattbench.airflow.host_threads import Stop, StoppedError
from wattbench.airflow.triggers import Done, Outcome, Resume, Skipped, ThreadTrigger
from wattbench.errors import HostError


class Step(ThreadTrigger):
    """A step that is given."""

    step: Callable[[Stop], Outcome]

    def work(self, stop: Stop) -> Outcome:
        return self.step(stop)


def run(step: Callable[[Stop], Outcome]) -> list[TriggerEvent]:
    trigger = Step()
    trigger.step = step

    async def collect() -> list[TriggerEvent]:
        return [event async for event in trigger.run()]

    return asyncio.run(collect())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "SHORTEST_DEFERRAL_S", 0.0)


def test_a_step_that_ends_well_ends_its_task_with_its_values() -> None:
    (event,) = run(lambda _: Done({"return_value": {"rested_s": 2.5}}))
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms == {"return_value": {"rested_s": 2.5}}


def test_a_step_that_is_not_needed_skips_its_task() -> None:
    (event,) = run(lambda _: Skipped("precise enough"))
    assert isinstance(event, TaskSkippedEvent)


def test_bad_news_goes_back_to_a_worker_in_one_line() -> None:
    def fail(_stop: Stop) -> Outcome:
        raise HostError("lab-a: no; look there", code="auth")

    (event,) = run(fail)
    assert event.payload == {"failed": "lab-a: no; look there"}
    (event,) = run(lambda _: Resume({"give_way": True}))
    assert event.payload == {"give_way": True}


def test_an_unforeseen_error_is_left_to_airflow_which_tries_again() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda _: Done({"return_value": 1 // 0}))


def test_a_cancelled_trigger_ends_its_thread() -> None:
    begun, ended = threading.Event(), threading.Event()

    def wait(stop: Stop) -> Outcome:
        begun.set()
        try:
            stop.pause(3600)
        except StoppedError:
            ended.set()
            raise
        raise AssertionError

    trigger = Step()
    trigger.step = wait

    async def cancel() -> None:
        async def first() -> Any:
            return [event async for event in trigger.run()]

        task = asyncio.create_task(first())
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert ended.wait(20)


@pytest.mark.parametrize(
    "kind",
    [triggers.FreeHost, triggers.WarmHost, triggers.RestedHost, triggers.MeasuredAttempt],
)
def test_each_trigger_is_made_again_from_what_airflow_keeps(kind: type[ThreadTrigger]) -> None:
    from airflow._shared.module_loading import import_string

    path, arguments = kind(run_id="r", host="h").serialize()
    made = import_string(path)(**arguments)
    assert type(made) is kind
    assert made.serialize() == (path, {"run_id": "r", "host": "h"})
