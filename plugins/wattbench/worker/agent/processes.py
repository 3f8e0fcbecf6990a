"""Processes of an attempt: identified, found wherever they run, ended.

A pid alone identifies nothing. Processes are ended only if their session and start time (field 22 of
``/proc/PID/stat``), their ``WATTBENCH_ATTEMPT`` variable or their parent say that they are the attempt's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from wattbench.worker.agent.base import boot_mark, read_bytes, read_text, stat_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wattbench.worker.agent.base import Json

_PR_SET_CHILD_SUBREAPER = 36


def process_mark(pid: int) -> Json:
    """Identity of a process, other than that of a later one with the same pid."""
    fields = stat_fields("/proc/%d/stat" % pid)
    return {"pid": pid, "start_ticks": int(fields[19]) if fields else None, "boot": boot_mark()}


def is_of_this_boot(mark: Any) -> bool:
    """Whether a value is a process mark, complete and of this boot."""
    return (
        isinstance(mark, dict)
        and type(mark.get("pid")) is int
        and type(mark.get("start_ticks")) is int
        and mark["pid"] > 1
        and mark.get("boot") == boot_mark()
    )


def processes_of(mark: Any, folder: str | None) -> list[int]:
    """Living processes of a session that ``mark`` leads or led, or with the variable of an attempt.

    It names the attempt's folder: ids are unique in one spool only, and a machine may have several.
    Pids 0 and 1 and the caller are never among them.
    """
    needle = ("WATTBENCH_ATTEMPT=%s" % folder).encode() if folder else None
    led = is_of_this_boot(mark)
    found = []
    for pid, fields in _living():
        session, ticks = int(fields[3]), int(fields[19])
        if led and session == mark["pid"] and ticks >= mark["start_ticks"]:
            if pid != session or ticks == mark["start_ticks"]:
                found.append(pid)
        elif needle and needle in _environ(pid).split(b"\0"):
            found.append(pid)
    return found


def _living() -> Iterable[tuple[int, list[str]]]:
    """Every process but 0, 1, the caller and zombies: pid and the fields of its stat file."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (0, 1, os.getpid()):
            fields = stat_fields("/proc/%s/stat" % name)
            if fields and fields[0] != "Z":
                yield int(name), fields


def _environ(pid: int) -> bytes:
    try:
        return read_bytes("/proc/%d/environ" % pid)
    except OSError:
        return b""


def adopt_orphans() -> bool:
    """Become the parent of every orphaned descendant, however often it forked; whether that works."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def descendants() -> list[int]:
    """Living descendants of this process."""
    children: dict[int, list[int]] = {}
    for pid, fields in _living():
        children.setdefault(int(fields[1]), []).append(pid)
    found, level = [], [os.getpid()]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def name_of(pid: int) -> str:
    """A process's name as the kernel has it; its pid if it is gone."""
    return read_text("/proc/%d/comm" % pid) or "pid %d" % pid


def is_alive(mark: Any) -> bool:
    """Whether the very process that a mark names still runs."""
    if not is_of_this_boot(mark):
        return False
    fields = stat_fields("/proc/%d/stat" % mark["pid"])
    return fields is not None and fields[0] != "Z" and int(fields[19]) == mark["start_ticks"]


def send_signal(pids: Iterable[int], number: int) -> None:
    """Signal processes; those that are gone or not ours are passed over."""
    for pid in pids:
        if pid > 1:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def end_processes(find: Callable[[], list[int]], grace_s: float = 3.0) -> list[int]:
    """TERM, then KILL after ``grace_s``, until no process is found any more or 5 s have passed.

    Returns:
        The pids that were found at first.
    """
    first = remaining = find()
    number, deadline = signal.SIGTERM, time.monotonic() + grace_s
    while remaining and time.monotonic() < deadline + 5:
        send_signal(remaining, number)
        if number == signal.SIGTERM:
            send_signal(remaining, signal.SIGCONT)  # a stopped process takes no SIGTERM
        time.sleep(0.05)
        if time.monotonic() >= deadline:
            number = signal.SIGKILL
        remaining = find()
    return first
