"""Keep one of Airflow's processes at work, from outside: `python -m wattbench.watchdog scheduler`.

A process that ends is started again. One that lives but that Airflow's API calls unhealthy (a scheduler whose
loop has stopped schedules nothing for ever, and says nothing) is ended with all it has started, and started
again; tasks that die with it are tried again, and `measure` attaches to its attempt.

Standard library only: it costs some megabytes beside each process.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.request import urlopen

#: What each process is called in the answer of Airflow's health endpoint.
PARTS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
NAMES = ("api-server", *PARTS)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Limits:
    """How patient a watchdog is, all in seconds.

    Attributes:
        poll_s: between two looks.
        start_s: longest time until a process is healthy, s.
        unhealthy_s: time after which an unhealthy process is started again, s.
        grace_s: from a polite end to a hard one.
        quick_s: a process that ends sooner than this has not come up.
        longest_pause_s: before it is started again; the pause grows from one second.
    """

    poll_s: float = 5.0
    start_s: float = 120.0
    unhealthy_s: float = 45.0
    grace_s: float = 10.0
    quick_s: float = 60.0
    longest_pause_s: float = 60.0


#: A process that has never come up ends so often before the watchdog gives up.
FIRST_TRIES = 3


class Watchdog:
    """Watches one process.

    Args:
        name: one of ``NAMES``, for messages.
        argv: the process's command.
        is_healthy: True, False, or None where it is not known.
        limits: how patient.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        is_healthy: Callable[[], bool | None],
        limits: Limits = Limits(),
    ) -> None:
        self.name, self.argv, self.is_healthy, self.limits = name, list(argv), is_healthy, limits
        self.child: subprocess.Popen[bytes] | None = None
        self._ending = False

    def run(self) -> int:
        """Keep the process running until it is asked to end.

        Returns:
            The process's exit code: after a signal to end, or if it has never come up.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        ended_early, pause_s, came_up = 0, 1.0, False
        while True:
            began = time.monotonic()
            self.child = subprocess.Popen(self.argv, preexec_fn=_die_with_parent)
            if self._ending:  # the signal came while there was no child to pass it on to
                self.child.terminate()
            self._watch(began)
            code = self._reap()
            if self._ending:
                return code
            lived_s = time.monotonic() - began
            if lived_s >= self.limits.quick_s:
                ended_early, pause_s, came_up = 0, 1.0, True
            else:
                ended_early += 1
            if ended_early >= FIRST_TRIES and not came_up:
                self._say(
                    f"ended {ended_early} times within {self.limits.quick_s:g} s of its start; giving up"
                )
                return code or 1
            self._say(
                f"ended with {code} after {lived_s:.0f} s; starting it again in {pause_s:g} s"
            )
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, self.limits.longest_pause_s)

    def _watch(self, began: float) -> None:
        """Come back when the process has ended or has to be ended."""
        assert self.child is not None
        ill_since, was_healthy = None, False
        while True:
            if _has_ended(self.child, self.limits.poll_s):
                return
            health, now = self.is_healthy(), time.monotonic()
            if health is not False:
                ill_since, was_healthy = None, was_healthy or bool(health)
                continue
            if not was_healthy and now - began < self.limits.start_s:
                continue
            ill_since = ill_since or now
            if now - ill_since >= self.limits.unhealthy_s and not self._ending:
                self._say(f"lives but has been unhealthy for {now - ill_since:.0f} s; ending it")
                return

    def _reap(self) -> int:
        """End the process, if it lives, and all it has started."""
        assert self.child is not None
        family = descendants(self.child.pid)
        if self.child.poll() is None:
            self.child.terminate()
            if not _has_ended(self.child, self.limits.grace_s):
                family |= descendants(self.child.pid)
                self.child.kill()
                self.child.wait()
            for pid, started in family.items():
                if _started(pid) == started:
                    _kill(pid)
        return self.child.returncode

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._ending = True
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._ending and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))

    def _say(self, text: str) -> None:
        sys.stderr.write(
            f"watchdog: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {self.name}: {text}\n"
        )
        sys.stderr.flush()


def descendants(pid: int) -> dict[int, str]:
    """All processes that descend from one, with the start times that distinguish a pid from its next user."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            if (started := _started(child)) is not None:
                found[child] = started
                todo.append(child)
    return found


def health_url() -> str | None:
    """Airflow's health endpoint, by the address that its processes have for the API."""
    api = os.environ.get("AIRFLOW__CORE__EXECUTION_API_SERVER_URL")
    return (
        None
        if api is None
        else api.rstrip("/").removesuffix("/execution") + "/api/v2/monitor/health"
    )


def health_of(part: str, url: str) -> bool | None:
    """What Airflow's API says of a part; None where it, or its database, can't say."""
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 (http, our own)
            found = json.load(answer)
        if found["metadatabase"]["status"] != "healthy":
            return None
        return bool(found[part]["status"] == "healthy")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def command_of(name: str, arguments: Sequence[str]) -> list[str]:
    """How a process is started."""
    if name in ("scheduler", "triggerer"):
        return [sys.executable, "-m", f"wattbench.{name}", *arguments]
    return [sys.executable, "-m", "airflow", name, *arguments]


def main(argv: Sequence[str] | None = None) -> int:
    """Watch one of Airflow's processes: its name, then its own arguments."""
    name, *arguments = argv if argv is not None else sys.argv[1:] or [""]
    if name not in NAMES:
        sys.stderr.write(f"watchdog: {name!r} is none of {', '.join(NAMES)}\n")
        return 2
    part, url = PARTS.get(name), health_url()

    def is_healthy() -> bool | None:
        return None if part is None or url is None else health_of(part, url)

    return Watchdog(name, command_of(name, arguments), is_healthy).run()


def _has_ended(child: subprocess.Popen[bytes], within_s: float) -> bool:
    """Wait in the kernel; `Popen.wait` with a timeout wakes up twenty times a second."""
    if child.poll() is not None:
        return True
    handle = os.pidfd_open(child.pid)
    try:
        select.select([handle], [], [], within_s)
    finally:
        os.close(handle)
    return child.poll() is not None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # the command's name may hold spaces


def _started(pid: int) -> str | None:
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
