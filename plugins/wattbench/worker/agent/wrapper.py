"""Inside the meter: runs the workload and marks both edges of the window."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

from wattbench.worker.agent import limits, meters
from wattbench.worker.agent.base import read_json, stamp, write_bytes, write_json
from wattbench.worker.agent.processes import process_mark
from wattbench.worker.agent.streams import Stream, account, timed_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from wattbench.worker.agent.base import Json

#: The fifo by which the supervisor learns of both edges: one of these bytes each.
PROGRESS = "progress"
STARTED, ENDED = b"s", b"e"


def run(folder: str, argv: list[str]) -> int:
    """Run the workload and write ``command.json``: both edges with the energy counters there.

    Returns:
        The workload's exit code; 128 + n if signal n ended it (meters panic over a killed child).
    """
    path = os.path.join(folder, "command.json")
    spec = read_json(os.path.join(folder, "spec.json")) or {}
    readers = meters.present(spec.get("gpus") or [])
    record: Json = {"ended": None, "rc": None, "argv": argv, "process": process_mark(os.getpid())}
    child: list[subprocess.Popen[bytes]] = []
    awake = _forward_signals(child)
    timed = bool(spec.get("times_lines"))
    out, err = Stream(1, timed), Stream(2, timed)
    wait_s = _edge_wait_s(spec)
    time.sleep(wait_s)
    # stamped last before the start and first after the end: the window holds the workload only
    before = meters.counters(readers)
    record["started"] = started = stamp()
    started.update(before)
    try:
        child.append(subprocess.Popen(argv, stdout=out.pipe, stderr=err.pipe))
    except OSError as error:
        print("wattbench: %s: %s" % (argv[0], error.strerror), file=sys.stderr)
        record["error"] = "%s: %s" % (argv[0], error.strerror)
        returncode = 127
    else:
        write_json(path, record, sync=False)
        _signal_edge(folder, STARTED)
        returncode = _until_over(child[0], out, err, awake)
    record["ended"] = ended = stamp()
    ended.update(meters.counters(readers))
    _signal_edge(folder, ENDED)
    if returncode >= 0:  # it was not stopped
        _rest(awake, wait_s)
    record["rc"] = returncode if returncode >= 0 else 128 - returncode
    for stream in (out, err):
        stream.drain()
    if timed:
        with contextlib.suppress(OSError):  # a full disk shows in what is written next
            write_bytes(os.path.join(folder, "output.log"), timed_lines(out, err), sync=False)
    record["output"] = account(out, err)
    write_json(path, record)
    return int(record["rc"])


def _edge_wait_s(spec: Json) -> float:
    """How long the host waits on both sides of the window, so that the meter's rows show it alone."""
    meter = spec.get("meter") or {}
    if not meter or not meters.find(meter.get("kind")).wraps:
        return 0.0
    interval_s = (meter.get("interval_ms") or limits.INTERVAL_MS) / 1000
    return float(min(limits.EDGE_INTERVALS * interval_s, limits.EDGE_WAIT_S))


def _rest(awake: int, seconds: float) -> None:
    """Sleep, unless a signal asks for an end."""
    with contextlib.suppress(BlockingIOError):
        os.read(awake, 512)  # of the child's end
    select.select([awake], [], [], seconds)


def _forward_signals(child: list[subprocess.Popen[bytes]]) -> int:
    """Pass signals on to the child; the descriptor that any of them, or the child's end, wakes."""

    def forward(number: int, _frame: FrameType | None) -> None:
        for process in child:
            process.send_signal(number)
        if not child:
            sys.exit(128 + number)

    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_r, False)
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    return wake_r


def _until_over(child: subprocess.Popen[bytes], out: Stream, err: Stream, awake: int) -> int:
    """Copy the child's output until it has ended, asleep in the kernel meanwhile."""
    streams = {stream.source: stream for stream in (out, err)}
    for stream in streams.values():
        os.close(stream.pipe)  # the child has its own
    while child.poll() is None:
        ready = select.select([awake, *streams], [], [])[0]
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(awake, 512)
        for source in ready:
            if source != awake and streams[source].copy() == 0:
                del streams[source]  # closed by all who had it
    return int(child.returncode)


def _signal_edge(folder: str, edge: bytes) -> None:
    """Tell the supervisor, if there is one."""
    with contextlib.suppress(OSError):
        file = os.open(os.path.join(folder, PROGRESS), os.O_WRONLY | os.O_NONBLOCK)
        os.write(file, edge)
        os.close(file)
