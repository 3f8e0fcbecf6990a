"""Threads that wait on hosts: they end at once when asked to, and hand their connection on."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from tests.support.stored_runs import HOSTS
from wattbench.airflow import host_threads, task_context
from wattbench.airflow.host_threads import Stop, StoppedError, in_thread
from wattbench.errors import HostError


@dataclass(eq=False)
class Connection:
    """A connection whose calls wait until it is dropped."""

    target: str
    is_open: bool = True
    dropped: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        assert self.dropped.wait(20)
        raise HostError("gone", code="lost")

    @property
    def is_connected(self) -> bool:
        return self.is_open

    def abandon(self) -> None:
        self.close()

    def close(self) -> None:
        self.is_open = False
        self.dropped.set()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Connection]]:
    """The connections that were opened."""
    opened: list[Connection] = []

    def connect(name: str) -> Connection:
        opened.append(Connection(name))
        return opened[-1]

    monkeypatch.setattr(host_threads, "new_connection", connect)
    for module in (host_threads, task_context):
        monkeypatch.setattr(module, "hosts_config", lambda: HOSTS)
    monkeypatch.setattr(host_threads, "host_target", lambda name, _: name)
    idle: dict[str, host_threads._Idle] = {}
    monkeypatch.setattr(host_threads, "_idle", idle)
    yield opened
    for one in idle.values():
        one.closing.cancel()


def test_a_pause_ends_when_the_thread_is_to_end() -> None:
    stop = Stop()
    paused = in_thread(lambda: stop.pause(3600), "pause")
    stop.set()
    with pytest.raises(StoppedError):
        paused.result(20)


def test_a_wait_for_another_thread_ends_with_its_result_or_when_asked_to() -> None:
    other: Future[int] = Future()
    stop = Stop()
    first, second = (in_thread(lambda: stop.wait_for(other), "wait") for _ in range(2))
    other.set_result(3)
    assert (first.result(20), second.result(20)) == (3, 3)
    never: Future[int] = Future()
    third = in_thread(lambda: stop.wait_for(never), "wait")
    stop.set()
    with pytest.raises(StoppedError):
        third.result(20)


def test_work_on_a_host_that_is_given_up_is_not_begun_again(made: list[Connection]) -> None:
    stop, begun = Stop(), threading.Event()

    def work(host: object) -> None:
        assert isinstance(host, Connection)
        begun.set()
        host.wait()

    future = in_thread(lambda: stop.on_host("lab-a", work), "work")
    assert begun.wait(20)
    stop.set()
    with pytest.raises(StoppedError):
        future.result(20)
    assert len(made) == 1
    assert not made[0].is_open


def test_who_comes_next_gets_the_idle_connection(made: list[Connection]) -> None:
    first = Stop().on_host("lab-a", lambda host: host)
    assert Stop().on_host("lab-a", lambda host: host) is first
    other = Stop().on_host("lab-b", lambda host: host)
    assert other is not first
    assert [c.is_open for c in made] == [True, True]


def test_two_at_once_get_a_connection_each_and_one_is_kept(made: list[Connection]) -> None:
    Stop().on_host("lab-a", lambda _: Stop().on_host("lab-a", lambda _: None))
    assert sorted(c.is_open for c in made) == [False, True]


def test_a_connection_that_failed_is_not_handed_on(
    made: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_host: object) -> None:
        raise HostError("no", code="leased")

    with pytest.raises(HostError):
        Stop().on_host("lab-a", refuse)
    Stop().on_host("lab-a", lambda host: host)
    assert [c.is_open for c in made] == [False, True]
    assert task_context.PASSING.isdisjoint({"leased"})


def test_a_host_that_has_moved_is_connected_to_anew(
    made: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    Stop().on_host("lab-a", lambda host: host)
    monkeypatch.setattr(host_threads, "host_target", lambda name, _: f"{name} elsewhere")
    Stop().on_host("lab-a", lambda host: host)
    assert [c.is_open for c in made] == [False, True]


def test_a_connection_that_broke_while_it_was_idle_is_replaced(made: list[Connection]) -> None:
    Stop().on_host("lab-a", lambda host: host)
    made[0].close()
    Stop().on_host("lab-a", lambda host: host)
    assert [c.is_open for c in made] == [False, True]


def test_a_connection_is_closed_when_it_was_idle_for_long_and_only_then(
    made: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        Stop().on_host("lab-a", lambda host: host)
    timers = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    waiting = [t for t in timers if t.args[:1] == ("lab-a",) and not t.finished.is_set()]
    assert len(waiting) == 1
    monkeypatch.setattr(host_threads, "KEEP_S", 0.0)
    Stop().on_host("lab-a", lambda host: host)
    assert made[0].dropped.wait(20)
    assert len(made) == 1


def test_a_thread_logs_for_whom_it_works() -> None:
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="")
    whose.set("trial 3")
    assert in_thread(whose.get, "whose").result(20) == "trial 3"
