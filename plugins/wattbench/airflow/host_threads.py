"""Threads that wait on hosts, in one process for many hosts: cancellation and shared connections."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from wattbench.airflow.connections import host_target
from wattbench.airflow.task_context import hosts_config, new_connection, on_host
from wattbench.errors import HostError

if TYPE_CHECKING:
    from wattbench.worker.ssh import Host

#: A connection that no thread has used for this time is closed, s.
KEEP_S = 900.0

T = TypeVar("T")


class StoppedError(Exception):
    """What the thread worked for was given up: it ends."""


class Stop:
    """Ends a thread's waits from outside: its pauses, and what it waits for on a host."""

    def __init__(self) -> None:
        self._ended: Future[None] = Future()
        self._lock = threading.Lock()
        self._hosts: list[Host] = []

    def set(self) -> None:
        """Let the thread end; what it has started on a host runs on."""
        self._ended.set_result(None)
        with self._lock:
            for host in self._hosts:
                host.abandon()

    def check(self) -> None:
        """Raise if the thread is to end.

        Raises:
            StoppedError: it is.
        """
        if self._ended.done():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            StoppedError: the thread is to end.
        """
        futures.wait([self._ended], seconds)
        self.check()

    def wait_for(self, other: Future[T]) -> T:
        """Wait for what another thread returns or raises.

        Raises:
            StoppedError: this one is to end.
        """
        either: list[Future[Any]] = [self._ended, other]
        futures.wait(either, return_when=futures.FIRST_COMPLETED)
        self.check()
        return other.result()

    def on_host(self, name: str, work: Callable[[Host], T]) -> T:
        """As :func:`wattbench.airflow.task_context.on_host`, until the thread is to end."""
        return on_host(name, work, connect=self._connected, sleep=self.pause)

    @contextmanager
    def _connected(self, name: str) -> Iterator[Host]:
        self.check()
        with _shared_connection(name) as host:
            with self._lock:
                self._hosts.append(host)
            try:
                self.check()
                yield host
            except HostError:
                self.check()
                raise
            finally:
                with self._lock:
                    self._hosts.remove(host)


def in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Run in a thread that neither waits for a free one nor keeps the process from ending.

    It logs as its caller does: Airflow takes from the context whose log a line belongs to.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def body() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = context.run(work)
        except BaseException as error:  # noqa: BLE001 (who waits gets it)
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=body, name=name, daemon=True).start()
    return future


# ── connections ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Idle:
    """A connection that no thread uses.

    Attributes:
        host: the connection.
        closing: closes it when no thread has asked for it in time.
    """

    host: Host
    closing: threading.Timer


_idle: dict[str, _Idle] = {}
_idle_lock = threading.Lock()


@contextmanager
def _shared_connection(name: str) -> Iterator[Host]:
    """The host's idle connection, or a new one; kept for the next thread, unless it has failed.

    It saves a login before each window.
    """
    host = _take_idle(name) or new_connection(name)
    try:
        yield host
    except BaseException:
        host.close()
        raise
    _keep_idle(name, host)


def _take_idle(name: str) -> Host | None:
    with _idle_lock:
        idle = _idle.pop(name, None)
    if idle is None:
        return None
    idle.closing.cancel()
    if idle.host.is_connected and idle.host.target == host_target(name, hosts_config()):
        return idle.host
    idle.host.close()
    return None


def _keep_idle(name: str, host: Host) -> None:
    closing = threading.Timer(KEEP_S, _close_idle, (name, host))
    closing.daemon = True
    with _idle_lock:
        other, _idle[name] = _idle.get(name), _Idle(host, closing)
    closing.start()
    if other is not None:
        other.closing.cancel()
        other.host.close()


def _close_idle(name: str, host: Host) -> None:
    with _idle_lock:
        if name not in _idle or _idle[name].host is not host:
            return
        del _idle[name]
    host.close()
