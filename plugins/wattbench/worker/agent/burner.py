"""The warm-up: a process that keeps every core busy, started, watched and ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time

from wattbench.worker.agent.base import (
    CorruptError,
    boot_mark,
    own_command,
    stamp,
    write_json,
)  # fmt: skip
from wattbench.worker.agent.documents import Burner, read_document
from wattbench.worker.agent.processes import end_processes, is_alive, process_mark, processes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool


def last_burner(spool: Spool) -> Burner | None:
    """The burner that was started last; None also where its document is corrupt."""
    try:
        return read_document(spool.path("warm.json"), Burner)
    except CorruptError:
        return None


def busy_until(spool: Spool, mono_s: float) -> None:
    """Remember when the host was last at work for us."""
    write_json(spool.path("busy.json"), {"mono_s": mono_s, "boot": boot_mark()})


def stop_burner(spool: Spool) -> bool:
    """End the warm-up's burner; whether one was running."""
    burner = last_burner(spool)
    if not burner or not end_processes(lambda: processes_of(burner["process"], None), grace_s=1.0):
        return False
    elapsed = min(time.monotonic() - burner["started"]["mono_s"], burner["seconds"])
    write_json(spool.path("warm.json"), {**burner, "elapsed_s": elapsed})
    busy_until(spool, time.monotonic())
    return True


def burner_state(spool: Spool) -> Json:
    """``running`` and ``elapsed_s`` of the last burner."""
    burner = last_burner(spool)
    if not burner:
        return {"running": False, "elapsed_s": 0.0}
    running = is_alive(burner["process"])
    elapsed = burner.get("elapsed_s")
    if elapsed is None:
        gone = burner["process"].get("boot") != boot_mark()
        elapsed = 0.0 if gone else time.monotonic() - burner["started"]["mono_s"]
        elapsed = min(elapsed, burner["seconds"])
    return {"running": running, "elapsed_s": elapsed}


def start_burner(spool: Spool, owner: str, seconds: float) -> None:
    """Leave a burner behind, detached from this process."""
    process = subprocess.Popen(
        own_command("burner", str(seconds)),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd="/",
    )  # fmt: skip
    write_json(
        spool.path("warm.json"),
        {
            "owner": owner, "process": process_mark(process.pid), "started": stamp(),
            "seconds": seconds,
        },
    )  # fmt: skip
    busy_until(spool, time.monotonic() + seconds)
    process.returncode = 0  # it outlives this process


def burner(seconds: float) -> None:
    """Keep every usable core busy; the alarm ends each process whatever happens."""
    cores = sorted(os.sched_getaffinity(0))
    children = []
    for core in cores:
        pid = os.fork()
        if pid == 0:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {core})
            block = bytes(1 << 16)
            while True:
                block = hashlib.sha256(block).digest() * 2048
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
