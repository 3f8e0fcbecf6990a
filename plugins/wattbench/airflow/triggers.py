"""Waits of a run in Airflow's triggerer: a thread and a connection per waiting host, no slot, no process.

A trigger here runs a step of :mod:`wattbench.steps` in a thread of its own. It ends its task by itself where
all is well; with bad news the task goes on for a moment on a worker, which alone can fail it for good. A
trigger that is lost with its triggerer is run anew from its beginning by the next one: steps may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent

from wattbench.airflow.host_threads import Stop, StoppedError, in_thread
from wattbench.airflow.task_context import log, stored_run
from wattbench.airflow.trial_order import Turn, is_late, turn
from wattbench.airflow.windows import (
    Started,
    Window,
    ended_before,
    find_window,
    forget_collected,
    open_window,
    start_attempt,
    windows_of,
)
from wattbench.analysis.model.errors import UserError
from wattbench.dag_runs import TASK_OVER
from wattbench.errors import ConfigError, HostError
from wattbench.run.plan import PlannedTrial

if TYPE_CHECKING:
    from wattbench.run.stored_run import Run
    from wattbench.steps.trial import RestReadings
    from wattbench.worker.ssh import Host

#: An event that sends a task back to a worker comes no sooner than this after its deferral, s: LocalExecutor
#: would take the end of the first process for the end of the second (apache/airflow 72716).
SHORTEST_DEFERRAL_S = 5.0
#: Between two questions to Airflow whether the trial before is over, s.
TURN_POLL_S = 1.0
#: After so many such questions all trials are looked at again.
TURN_POLLS = 5
#: Between two looks whether another run still has the host, s.
CLAIM_POLL_S = 15.0


@dataclass(frozen=True)
class Done:
    """The task has succeeded, with these XComs."""

    xcoms: dict[str, Any]


@dataclass(frozen=True)
class Skipped:
    """The task is skipped."""

    reason: str


@dataclass(frozen=True)
class Resume:
    """The task goes on on a worker with this event."""

    event: dict[str, Any]


Outcome = Done | Skipped | Resume


class ThreadTrigger(BaseTrigger):
    """A step in a thread of the triggerer.

    Args:
        arguments: JSON values; those of the step.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class and arguments, as Airflow keeps them until a triggerer runs them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments

    @abstractmethod
    def work(self, stop: Stop) -> Outcome:
        """The step; may be repeated from its beginning.

        Raises:
            UserError: becomes the task's failure, in one line.
            StoppedError: the trigger was cancelled.
        """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the step in a thread and say how it ended."""
        began, stop = time.monotonic(), Stop()
        future = in_thread(functools.partial(self._outcome, stop), str(self.task_id))
        try:
            outcome = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            threading.Thread(target=stop.set, daemon=True).start()  # closing may take a moment
            raise
        if isinstance(outcome, Done):
            yield TaskSuccessEvent(xcoms=outcome.xcoms)
        elif isinstance(outcome, Skipped):
            yield TaskSkippedEvent()
        else:
            await asyncio.sleep(SHORTEST_DEFERRAL_S - (time.monotonic() - began))
            yield TriggerEvent(outcome.event)  # type: ignore[no-untyped-call]

    def _outcome(self, stop: Stop) -> Outcome:
        try:
            outcome = self.work(stop)
        except UserError as error:
            stop.check()
            log.error("%s", error)
            return Resume({"failed": str(error)})
        if isinstance(outcome, Skipped):
            log.info("skipped: %s", outcome.reason)
        return outcome


@functools.lru_cache(maxsize=16)
def _known_run(run_id: str) -> Run:
    """A run's document, shared by all that waits for the run in this process."""
    logging.getLogger("botocore").setLevel(logging.WARNING)
    return stored_run(run_id)


class FreeHost(ThreadTrigger):
    """Wait until no other run of this store has the host; nothing touches the host.

    Arguments: ``run_id``, ``host``.
    """

    def work(self, stop: Stop) -> Outcome:
        """Ends on a worker, which takes the host."""
        run, host = _known_run(self.arguments["run_id"]), self.arguments["host"]
        _wait_until_free(stop, run, host)
        return Resume({})


def _wait_until_free(stop: Stop, run: Run, host: str) -> None:
    """Wait until no other run of this store has a host; nothing touches the host."""
    from wattbench.run import host_claims

    while other := host_claims.holder(run, host):
        log.info("waiting for %s: it is held by %s", host, other.run_id)
        stop.pause(CLAIM_POLL_S)


class WarmHost(ThreadTrigger):
    """Load the host until it is warm, or its time is over.

    Its GPUs follow. What was read stays here: the load on the host outlives a triggerer, and 60 s of
    readings are enough.

    Arguments: ``run_id``, ``host``.
    """

    def work(self, stop: Stop) -> Outcome:
        """Start the load where it does not run yet, look now and then, stop it."""
        from wattbench.steps import warm_up

        run, name = _known_run(self.arguments["run_id"]), self.arguments["host"]
        wanted = run.experiment.protocol.warm_up
        pause_s = min(5.0, max(1.0, wanted.seconds / 10))

        def warm(host: Host) -> None:
            gpus, readings = warm_up.gpu_load(run, name), list[warm_up.Reading]()
            if gpus is None or not gpus.is_running(host):
                while not (found := warm_up.look(run, host, name, readings)).over:
                    stop.pause(pause_s)
                warm_up.keep(run, name, found)
            if gpus is not None:
                gpus.start(host)
                while not (found := gpus.look(host)).over:
                    stop.pause(pause_s)
                gpus.end(host)
                warm_up.keep_gpus(run, name, found)

        stop.on_host(name, warm)
        return Done({})


class RestedHost(ThreadTrigger):
    """Wait for a trial's turn, then until the host is quiet again; start the attempt at once.

    While another trial is in its window only Airflow is asked, never the host. The attempt begins here and
    not in ``measure``, which Airflow needs seconds to start and which attaches to it.

    Arguments: ``run_id``, ``host``, ``group``, ``spec``, and of the task
    ``dag_id``, ``dag_run_id``, ``map_index``.
    """

    def work(self, stop: Stop) -> Outcome:
        """Succeeds with the host's readings once the trial may start."""
        from wattbench.steps import early_stopping, trial

        run, name = _known_run(self.arguments["run_id"]), self.arguments["host"]
        planned = PlannedTrial.from_dict(self.arguments["spec"])
        late = self._wait_for_turn(stop, run, planned)
        if late is None:
            return Resume({"give_way": True})
        late = late or bool(self.arguments["spec"].get("late"))
        if decision := early_stopping.stop_before(run, name, planned):
            run.write_outcome(name, planned, decision.status, decision.reason)
            return Skipped(decision.reason)
        if find_window(run, name, planned, trial.next_attempt(run, name, planned)):
            log.info("the attempt has begun already")  # this task was cleared in mid-window
            return Done({"return_value": {"late": late}})
        # In a run that was just marked failed or success, Airflow calls an open window over.
        _wait_for_last_window(stop, run, name)
        _wait_until_free(stop, run, name)
        self._refuse_if_ended()

        def may_start() -> None:
            stop.check()
            self._refuse_if_ended()

        def rest(host: Host) -> tuple[RestReadings, Started | None]:
            forget_collected(run, host, name)
            while True:
                look = trial.is_rested(run, host, name)
                if look.ready or (look.busy and trial.is_begun(run, host, name, planned)):
                    break
                stop.pause(look.look_again_s)
            try:
                return look.readings, start_attempt(
                    run, host, name, planned, look.readings,
                    late=late, check=may_start, on_host=stop.on_host,
                )  # fmt: skip
            except (HostError, ConfigError) as error:
                log.warning("left to measure, which meets it again and reports it: %s", error)
                return look.readings, None

        readings, started = stop.on_host(name, rest)
        if started is not None:
            place = (self.arguments["group"], self.arguments["map_index"])
            open_window(run, name, planned, started, place)
        return Done({"return_value": readings | {"late": late}})

    def _wait_for_turn(self, stop: Stop, run: Run, planned: PlannedTrial) -> bool | None:
        """Whether the trial is late, once it is its turn; None: it has to give way to an earlier one."""
        group, index = self.arguments["group"], self.arguments["map_index"]
        while True:
            seen = self._states(("rest", "measure", "collect"))
            decision = turn(seen, group, index)
            if decision is Turn.GIVE_WAY:
                log.info("an earlier trial has not begun yet: giving way to it")
                return None
            if decision is Turn.GO or self._follows_at_once(stop, run, planned, seen):
                return is_late(seen, group, index)
            # All tasks of the group are many: until the trial before is over, it alone is asked for mostly.
            for _ in range(TURN_POLLS):
                stop.pause(TURN_POLL_S)
                if TASK_OVER.issuperset(self._states(("collect",), max(index - 1, 0)).values()):
                    break

    def _follows_at_once(
        self, stop: Stop, run: Run, planned: PlannedTrial, seen: Mapping[str, str | None]
    ) -> bool:
        """Wait for the end of the trial before, if its window is all that this trial waits for.

        Returns:
            Whether its raw logs are in the store, so that this trial need not wait for its ``collect``.
        """
        from wattbench.steps import early_stopping

        group, index, name = (self.arguments[key] for key in ("group", "map_index", "host"))
        known = windows_of(name, run.run_id)
        if not known or known[-1].place != (group, index - 1):
            return False
        if not self._waits_for_windows_alone(run, known, seen):
            return False
        if early_stopping.needs_records(run, name, planned):
            return False
        try:
            brought = stop.wait_for(known[-1].end).is_brought
        except UserError:
            return False
        # A person may have cleared an earlier trial meanwhile, or set the `measure` before, so that its
        # `collect` is on the host by now.
        now = self._states(("rest", "measure", "collect"))
        is_over = now.get(f"{group}.measure_{index - 1}") in TASK_OVER
        was_set = is_over and not known[-1].measured.is_set()
        return brought and not was_set and self._waits_for_windows_alone(run, known, now)

    def _waits_for_windows_alone(
        self, run: Run, known: Sequence[Window], states: Mapping[str, str | None]
    ) -> bool:
        """Whether it is this trial's turn as soon as the last of the known windows is over."""
        group, index, name = (self.arguments[key] for key in ("group", "map_index", "host"))
        over = dict(states)
        for window in known:
            of, number = window.place or ("", -1)
            if of != group or states.get(f"{group}.rest_{number}") != "success":
                continue
            if states.get(f"{group}.collect_{number}") in TASK_OVER:
                continue
            # With a record in the store, `measure` has been cleared: a further attempt is coming.
            is_open = window.begun.attempt not in run.stored_attempts(name, window.trial)
            if is_open and (window is known[-1] or window.is_brought):
                over |= {
                    f"{group}.measure_{number}": "success",
                    f"{group}.collect_{number}": "success",
                }
        return turn(over, group, index) is Turn.GO

    def _states(self, tasks: tuple[str, ...], index: int | None = None) -> Mapping[str, str | None]:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        found = RuntimeTaskInstance.get_task_states(
            dag_id=self.arguments["dag_id"],
            task_ids=[f"{self.arguments['group']}.{task}" for task in tasks],
            run_ids=[self.arguments["dag_run_id"]],
            map_index=index,
        )
        return dict(found.get(self.arguments["dag_run_id"], {}))

    def _refuse_if_ended(self) -> None:
        """Start nothing in a run that has just been ended: its triggers live on for some seconds.

        Raises:
            StoppedError: this task is no longer deferred.
        """
        index = self.arguments["map_index"]
        states = self._states(("rest",), index)
        if states.get(f"{self.arguments['group']}.rest_{index}") != "deferred":
            raise StoppedError


class MeasuredAttempt(ThreadTrigger):
    """Wait until an attempt is over; start it, or attach to it, unless this process has done so.

    Arguments: ``run_id``, ``host``, ``spec``, ``rest``, ``late``.
    """

    def work(self, stop: Stop) -> Outcome:
        """Succeeds with the report's state if it is ``done``."""
        from wattbench.steps import trial

        run, name = _known_run(self.arguments["run_id"]), self.arguments["host"]
        planned = PlannedTrial.from_dict(self.arguments["spec"])
        rest: RestReadings = self.arguments["rest"]
        late = bool(self.arguments["late"])
        attempt = trial.next_attempt(run, name, planned)
        ended = ended_before(run, name, planned, attempt)
        if ended is None:
            window = find_window(run, name, planned, attempt)
            if window is None:
                _wait_for_last_window(stop, run, name)  # cleared alone, it has had no turn
                started = stop.on_host(
                    name,
                    lambda host: start_attempt(
                        run,
                        host,
                        name,
                        planned,
                        rest,
                        late=late,
                        check=stop.check,
                        on_host=stop.on_host,
                    ),
                )
                window = open_window(run, name, planned, started, None)
            window.joined.set()
            log.info("waiting for %s; nothing touches the host until it is over", window.begun.id)
            ended = stop.wait_for(window.end)
            window.measured.set()
        log.info("%s: %s %s", planned.label, ended.state, ended.message)
        if ended.state != "done":
            return Resume({"failed": f"{ended.state}: {ended.message}"})
        outcome = {"attempt": attempt, "state": ended.state, "message": ended.message}
        return Done({"return_value": outcome})


def _wait_for_last_window(stop: Stop, run: Run, host: str) -> None:
    """Wait until no attempt of this process is in its window."""
    for window in windows_of(host, run.run_id)[-1:]:
        with contextlib.suppress(UserError):
            stop.wait_for(window.end)
