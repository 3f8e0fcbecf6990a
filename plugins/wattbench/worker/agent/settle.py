"""How an attempt ends: its report, and the end of one that lost its supervisor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from wattbench.worker.agent.base import (
    CorruptError,
    boot_mark,
    open_lock,
    read_json,
    unix_minus_mono,
    write_bytes,
    write_json,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Attempt


def settle(attempt: Attempt) -> Json | None:
    """The report of an attempt that is over; a lost one is ended and reported first.

    Call it under the spool's guard: ``start`` holds that until the supervisor has its lock.

    Returns:
        The report; None while a supervisor works, or where there is no such attempt.
    """
    if not attempt.exists() or attempt.is_running():
        return None
    report = attempt.report
    if report is not None:
        return report
    try:
        attempt.read_spec()
        file = open_lock(attempt.path("supervisor.lock"))
    except CorruptError as error:
        return _end_lost(attempt, str(error), "corrupt")
    except OSError as error:
        return attempt.corrupt("supervisor.lock: %s" % error.strerror)
    try:
        for _ in range(5):  # another process holds the lock for microseconds
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
        else:
            return None
        return attempt.report or end_lost(attempt)
    finally:
        os.close(file)


def end_lost(attempt: Attempt, message: str | None = None) -> Json:
    """End what an attempt without supervisor left running, and report it as lost."""
    boot = _supervisor(attempt).get("boot")
    if message is None and boot is None:
        message = "the supervisor never started"
    elif message is None:
        message = "the supervisor was killed" if boot == boot_mark() else "the host restarted"
    return _end_lost(attempt, message, "lost")


def _supervisor(attempt: Attempt) -> Json:
    mark = (read_json(attempt.path("supervisor.json")) or {}).get("supervisor")
    return mark if isinstance(mark, dict) else {}


def _end_lost(attempt: Attempt, message: str, state: str) -> Json:
    from wattbench.worker.agent.docker import DockerError, end_container
    from wattbench.worker.agent.processes import end_processes, processes_of
    from wattbench.worker.agent.text import tail

    spec = attempt.spec
    session = (read_json(attempt.path("supervisor.json")) or {}).get("session")
    container, outlived = None, False
    if spec and spec["runtime"] == "docker":
        try:
            container, outlived = end_container(spec, attempt.path("server.log"))
        except DockerError as error:
            message += "; the container may be left behind (%s)" % error
    if end_processes(lambda: processes_of(session, attempt.folder)):
        outlived = True
    record = command_record(attempt)
    report: Json = attempt.corrupt(message) | {
        "state": state, "rc": (record or {}).get("rc"), "command": record, "container": container,
        "meter": {
            "argv": None, "rc": None, "version": None,
            "stderr_tail": tail(attempt.path("stderr.log")), "outlived": outlived,
        },
        "clock": {"unix_minus_mono_before": None, "unix_minus_mono_after": unix_minus_mono()},
        "boot": {"before": _supervisor(attempt).get("boot"), "after": boot_mark()},
        "rest": spec.get("rest") if spec else None, "output": (record or {}).get("output"),
    }  # fmt: skip
    try:
        write_report(attempt, report)
    except OSError as error:
        report["message"] += "; report.json can't be written: %s" % error.strerror
    return report


def command_record(attempt: Attempt) -> Json | None:
    """What the wrapper wrote of the window; None: the workload was never started."""
    record = read_json(attempt.path("command.json"))
    if record is None or not isinstance(record.get("started"), dict):
        return None
    ended: Any = record.get("ended")
    return record if ended is None or isinstance(ended, dict) else record | {"ended": None}


def write_report(attempt: Attempt, report: Json) -> None:
    """Write the report, last of all: its presence says that the attempt is over.

    Raises:
        OSError: it can't be written.
    """
    from wattbench.worker.agent.burner import busy_until
    from wattbench.worker.agent.streams import event_lines, events

    for name in ("reserve", "environment"):
        with contextlib.suppress(OSError):
            os.unlink(attempt.path(name))
    try:
        write_bytes(attempt.path("workload.jsonl"), event_lines(attempt.path("stdout.log")))
    except OSError as error:
        report["message"] += "; workload.jsonl: %s" % error.strerror
    ended = ((report.get("command") or {}).get("ended") or {}).get("mono_s")
    with contextlib.suppress(OSError):
        busy_until(attempt.spool, ended if isinstance(ended, float) else time.monotonic())
    report["connections"] = list(events(attempt.path("connections.jsonl")))
    report["files"] = attempt.files()
    for name in attempt.oversized():
        report["message"] += "; %s is too large to be kept" % name
    write_json(attempt.path("report.json"), report)
