"""Workloads of the agent's own: the control workload, and what a meter runs around a pull."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time

from wattbench.worker.agent.base import stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def burn(rounds: int) -> None:
    """The control workload: a fixed amount of SHA-256, reported as the workload's JSON lines."""

    def emit(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **stamp(), **fields}), flush=True)

    emit("start", program="burn", framework="hashlib", precision="int")
    emit("device", requested="cpu", actual="cpu", name=platform.machine(), uuid=None)
    emit("versions", python=platform.python_version(), threads=1)
    block, digest = bytes(1 << 20), b""
    emit("phase", name="steady:burn", edge="begin")
    began = time.monotonic()
    for _ in range(rounds):
        digest = hashlib.sha256(digest + block).digest()
    duration_s = time.monotonic() - began
    emit("phase", name="steady:burn", edge="end")
    emit(
        "result", phase="steady:burn", resolution="burn", iterations=rounds, batch=1, images=rounds,
        duration_s=duration_s, fingerprint=list(digest[:8]),
    )  # fmt: skip
    emit("end", images=rounds)


def hold() -> None:
    """Sleep in the kernel until ``finish`` opens the other end of a fifo in the attempt's folder."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo("finish")
    os.close(os.open("finish", os.O_RDONLY))
