"""Attempts in their windows, as the triggerer has them: other waits ask here, not the host.

The thread that opens a window by waiting for its end brings the raw logs at once, over the same connection.
So the next trial need not wait for ``collect``, and ``collect`` does not touch the host. Meters on the
network are read from before the attempt is started until they show what follows the window.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wattbench.airflow.connections import meter_readers
from wattbench.airflow.host_threads import Stop, in_thread
from wattbench.airflow.task_context import log
from wattbench.analysis.model.attempt_report import AttemptReport
from wattbench.analysis.model.errors import UserError
from wattbench.run import store_keys
from wattbench.worker.agent import limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from wattbench.remote_meters.watch import Watch
    from wattbench.run.plan import PlannedTrial
    from wattbench.run.stored_run import Run
    from wattbench.steps.load_host import OnHost
    from wattbench.steps.trial import Begun, RestReadings
    from wattbench.worker.answers import ReportDocument
    from wattbench.worker.ssh import Host


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        state: of the agent's report.
        message: of the agent's report.
        is_brought: whether its raw logs are in the store, so that nothing has to be fetched any more.
    """

    state: str
    message: str
    is_brought: bool


@dataclass(frozen=True)
class Window:
    """An attempt whose end a thread of this process waits for.

    Attributes:
        run_id: whose attempt.
        place: the trial's mapped group and its index there; None: unknown.
        trial: which trial.
        begun: the attempt on the host.
        end: how it ended.
        joined: set once its ``measure`` waits too, so that Airflow has nothing left to do for it.
        measured: set when its ``measure`` ends by itself; a person may end that task sooner.
    """

    run_id: str
    place: tuple[str, int] | None
    trial: PlannedTrial
    begun: Begun
    end: Future[Ended]
    joined: threading.Event = field(default_factory=threading.Event, compare=False)
    measured: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def has_failed(self) -> bool:
        """Whether waiting for the end has failed, so that it has to be waited for anew."""
        return self.end.done() and self.end.exception() is not None

    @property
    def is_brought(self) -> bool:
        """Whether the attempt is over and its raw logs are in the store."""
        return self.end.done() and not self.has_failed and self.end.result().is_brought


#: By host: this process's windows of the run that opened the last one; those that the host has forgotten.
_windows: dict[str, tuple[Window, ...]] = {}
_forgotten: dict[str, frozenset[str]] = {}
_lock = threading.Lock()


def windows_of(host_name: str, run_id: str) -> tuple[Window, ...]:
    """The windows of a run that this process opened on a host, in their order."""
    return tuple(w for w in _windows.get(host_name, ()) if w.run_id == run_id)


def find_window(run: Run, host_name: str, trial: PlannedTrial, attempt: int) -> Window | None:
    """The window of an attempt, if this process opened it and has not failed to wait for its end."""
    return next(
        (
            window
            for window in reversed(windows_of(host_name, run.run_id))
            if (window.trial, window.begun.attempt) == (trial, attempt) and not window.has_failed
        ),
        None,
    )


def ended_before(run: Run, host_name: str, trial: PlannedTrial, attempt: int) -> Ended | None:
    """How an attempt ended whose raw logs are in the store already; another may be in its window by now."""
    key = store_keys.trial_key(run.run_id, host_name, trial.name, attempt, "attempt.json")
    if not run.store.exists(key):
        return None
    report = AttemptReport.of(run.store.get_json(key))
    return Ended(report.state, report.message, is_brought=True)


@dataclass(frozen=True)
class Started:
    """An attempt that the host was given, and what reads its remote meters.

    Attributes:
        begun: the attempt on the host.
        watch: the readings.
        reading: ends them, and puts them into the store.
    """

    begun: Begun
    watch: Watch
    reading: ExitStack


def start_attempt(
    run: Run,
    host: Host,
    host_name: str,
    trial: PlannedTrial,
    rest: RestReadings,
    *,
    late: bool,
    check: Callable[[], None],
    on_host: OnHost,
) -> Started:
    """Read the host's remote meters from now on, then start the open attempt, or attach to it.

    Args:
        rest: what was read of the host when it had rested.
        late: it is executed after its block.
        check: raises if nothing may be started any more.
        on_host: does something on another host, for a load from there.

    Raises:
        ConfigError: a remote meter's connection can't be used.
        HostError: the host refused.
    """
    from wattbench.steps import trial as steps
    from wattbench.steps.load_host import load_host_of

    attempt = steps.next_attempt(run, host_name, trial)
    key = store_keys.trial_key(run.run_id, host_name, trial.name, attempt)
    readers = meter_readers(host_name, run.host_config(host_name))
    if (
        any(reader.settings.live for reader in readers)
        and not steps.remote_files(run, key, readers)
        and steps.is_begun(run, host, host_name, trial)
    ):
        # Readings from here on don't cover the window, and another triggerer's may do so: it stores them.
        log.warning("%s has begun already: its remote meters are not read anew", trial.label)
        readers = tuple(reader for reader in readers if not reader.settings.live)
    with ExitStack() as reading:
        watch = reading.enter_context(steps.read_around(run, host, key, readers))
        check()
        load = load_host_of(run, on_host)
        begun = steps.begin(run, host, host_name, trial, rest, late=late, load=load)
        return Started(begun, watch, reading.pop_all())


def open_window(
    run: Run,
    host_name: str,
    trial: PlannedTrial,
    started: Started,
    place: tuple[str, int] | None,
) -> Window:
    """Wait for an attempt's end in a thread, which opens its window.

    A controller that runs on the host first does all that ``measure`` needs of it.
    """
    joined = threading.Event()

    def see_through() -> Ended:
        with started.reading:
            if run.host_config(host_name).controller:
                joined.wait(limits.CONTROLLER_LEAD_S)
            report = Stop().on_host(host_name, lambda host: _end(run, host, host_name, started))
        return _bring(run, host_name, trial, started.begun, report)

    end = in_thread(see_through, f"window on {host_name}")
    window = Window(run.run_id, place, trial, started.begun, end, joined)
    with _lock:
        others = windows_of(host_name, run.run_id)
        _windows[host_name] = (*others, window)
        if not others:
            _forgotten[host_name] = frozenset()
    return window


def _end(run: Run, host: Host, host_name: str, started: Started) -> ReportDocument:
    from wattbench.steps import trial as steps

    report = steps.await_end(run, host, host_name, started.begun)
    steps.over(started.watch, host, AttemptReport.of(report))
    return report


def _bring(
    run: Run, host_name: str, trial: PlannedTrial, begun: Begun, report: ReportDocument
) -> Ended:
    from wattbench.steps import trial as steps

    ended = AttemptReport.of(report)
    if begun.attempt in run.stored_attempts(host_name, trial):
        # A person has ended `measure`; by now the host may be another run's.
        return Ended(ended.state, ended.message, is_brought=True)
    try:
        Stop().on_host(
            host_name,
            lambda host: steps.bring_early(run, host, host_name, trial, begun, report),
        )
    except UserError as error:
        log.warning("left to collect: %s", error)
        return Ended(ended.state, ended.message, is_brought=False)
    return Ended(ended.state, ended.message, is_brought=True)


def forget_collected(run: Run, host: Host, host_name: str) -> None:
    """Let the host remove the attempts whose records are in the store by now."""
    from wattbench.steps import trial as steps

    for window in windows_of(host_name, run.run_id):
        begun = window.begun
        if begun.id in _forgotten[host_name] or not window.is_brought:
            continue
        if steps.forget_collected(run, host, host_name, window.trial, begun.attempt):
            with _lock:
                _forgotten[host_name] |= {begun.id}
