"""The verbs of attempts that were started: ``wait``, ``finish``, ``list``, ``forget``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import AgentError, number, open_lock
from wattbench.worker.agent.settle import settle
from wattbench.worker.agent.spool import Attempt, folder_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool


class _OverdueError(Exception):
    """The time of a ``wait`` is over."""


def verb_wait(spool: Spool, payload: Json) -> Json:
    """Sleep in the kernel until the attempt is over or the time is."""
    attempt = _known(spool, payload)
    deadline = time.monotonic() + number(payload, "timeout_s", 3600)

    def expire(*_: object) -> NoReturn:
        raise _OverdueError

    signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001))
        while True:
            with contextlib.suppress(OSError):  # no reader: the window has long been open
                fifo = os.open(attempt.path("attached"), os.O_WRONLY | os.O_NONBLOCK)
                os.write(fifo, b"1")
                os.close(fifo)
            _until_released(attempt)
            with spool.guard():
                if not attempt.is_running():
                    break
    except _OverdueError:
        return {"over": False}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    with spool.guard():
        report = settle(attempt)
    return {"over": report is not None, "report": report, "path": attempt.folder}


def _until_released(attempt: Attempt) -> None:
    """Sleep until no supervisor holds the attempt; at once where nothing can be locked."""
    with contextlib.suppress(OSError):
        file = open_lock(attempt.path("supervisor.lock"))
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        finally:
            os.close(file)


def _known(spool: Spool, payload: Json) -> Attempt:
    attempt = Attempt(spool, str(payload.get("id", "")))
    if not attempt.exists():
        raise AgentError("unknown", "%s is not in %s" % (attempt.id, spool.root), "start it")
    return attempt


def verb_finish(spool: Spool, payload: Json) -> Json:
    """Let an attempt that only holds end well; answers as ``wait``."""
    attempt = _known(spool, payload)
    deadline = time.monotonic() + number(payload, "timeout_s", limits.FINISH_S)
    while attempt.is_running() and time.monotonic() < deadline:
        try:
            os.close(os.open(attempt.path("finish"), os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nothing waits yet: the meter is still starting
            time.sleep(0.05)
        else:
            break
    left_s = max(deadline - time.monotonic(), 0.0)
    return verb_wait(spool, {"id": attempt.id, "timeout_s": left_s})


def verb_list(spool: Spool, payload: Json) -> Json:
    """A run's attempts (without ``run``: all)."""
    listed = []
    for attempt in spool.attempts(folder_name(payload, "run")):
        with spool.guard():
            report = settle(attempt)
        listed.append(
            {
                "id": attempt.id, "path": attempt.folder, "state": "over" if report else "running",
                "outcome": report["state"] if report else None,
                "files": report["files"] if report else {},
            }
        )  # fmt: skip
    return {"attempts": listed}


def verb_forget(spool: Spool, payload: Json) -> Json:
    """Remove attempts that are over."""
    run = folder_name(payload, "run")
    if not run and not payload.get("id"):
        raise AgentError("bad-request", "forget: neither id nor run")
    import shutil
    import tempfile

    attempts = spool.attempts(run) if run else [Attempt(spool, str(payload["id"]))]
    forgotten = []
    with spool.guard():
        for attempt in attempts:
            if not attempt.exists():
                continue
            if settle(attempt) is None:
                raise AgentError("busy", "%s is being measured" % attempt.id, "wait for it")
            trial = os.path.dirname(attempt.folder)
            bin_ = tempfile.mkdtemp(prefix=".forgotten-", dir=trial)
            os.rename(attempt.folder, os.path.join(bin_, "attempt"))
            shutil.rmtree(bin_, ignore_errors=True)
            for folder in (trial, os.path.dirname(trial)):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            forgotten.append(attempt.id)
    return {"forgotten": forgotten}
