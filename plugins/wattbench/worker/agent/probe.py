"""The verb ``probe``: start what a trial would start, until its workload prints its first event."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import AgentError
from wattbench.worker.agent.docker import (
    DockerError,
    container_name,
    docker_argv,
    remove_container,
    write_environment,
)  # fmt: skip
from wattbench.worker.agent.lease import active_attempt, holding
from wattbench.worker.agent.streams import event_of
from wattbench.worker.agent.text import reason_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool


def verb_probe(spool: Spool, payload: Json) -> Json:
    """Start what a trial would start, until its workload prints its first event; nothing is measured.

    Raises:
        AgentError: ``entry-point``: it can't start, or what starts is not the workload.
    """
    spec = {k: v for k, v in payload.items() if k != "spool"}
    with spool.guard():
        active = active_attempt(spool, holding(spool, str(spec.get("owner"))))
    if active:
        raise AgentError("busy", "%s is being measured" % active, "wait for it", active=active)
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=spool.root) as folder:
            environment = os.path.join(folder, "environment")
            write_environment(environment, spec.get("env") or {})
            trouble = first_words(docker_argv(spec, spool.root, environment))
        remove_container(container_name(spec))
    except (DockerError, OSError) as error:
        raise AgentError("docker", str(error), "check dockerd on the host") from error
    if trouble:
        raise AgentError(
            "entry-point", "its container %s" % trouble,
            "use an image whose entry point is the workload (docs/images.md), "
            "or say how it starts in the image's `command`",
        )  # fmt: skip
    return {"speaks": True}


def first_words(argv: list[str], limit_s: float = limits.PROBE_S) -> str | None:
    """Read a command's output until the workload's first event; None, or what came instead.

    Of either stream no more than its end is kept.
    """
    deadline = time.monotonic() + limit_s
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            said, started = _listen(process, deadline)
            overdue = time.monotonic() >= deadline
            if not started and not overdue:
                process.wait(deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            overdue = True
        finally:
            process.kill()
    if started:
        return None
    if overdue:
        return "printed no event of a workload within %g s; it said: %s" % (limit_s, said)
    return "ended with %d before any event of a workload; it said: %s" % (process.returncode, said)


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, bool]:
    """Read both streams until the first event, their end, or the deadline.

    Returns:
        The line that says most about a failure, and whether the event came.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    ends, line, started = {out: b"", err: b""}, b"", False
    unread = [out, err]
    while unread and not started and (left_s := deadline - time.monotonic()) > 0:
        for stream in select.select(unread, [], [], left_s)[0]:
            block = os.read(stream, 1 << 16)
            ends[stream] = (ends[stream] + block)[-8000:]
            if not block:
                unread.remove(stream)
            elif stream == out:
                *lines, line = (line + block).split(b"\n")
                started = any(map(_is_start, lines))
                line = line[: limits.LINE_BYTES]
    said = [reason_in(ends[stream].decode("utf-8", "replace")) for stream in (err, out)]
    return said[0] or said[1][:200] or "nothing", started


def _is_start(line: bytes) -> bool:
    event = event_of(line)
    return event is not None and event.get("event") == "start"
