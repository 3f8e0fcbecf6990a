"""A workload's output: counted in full, kept up to a limit, read with bounded memory."""

from __future__ import annotations

import json
import os
import time

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wattbench.worker.agent.base import Json

_BLOCK = 1 << 16


class Stream:
    """Copies a pipe into a file until the limit; what comes after that is counted and dropped.

    Attributes:
        pipe: the end that the workload writes to.
        total: bytes that came.
        kept: bytes that were written.
        error: why writing ended before the limit.
        blocks: what was kept and when it came, Unix seconds; None: that is not asked for.
    """

    def __init__(self, target: int, timed: bool = False) -> None:
        self.source, self.pipe = os.pipe()
        os.set_blocking(self.source, False)
        self._target = target
        self.total = self.kept = 0
        self.error: str | None = None
        self.blocks: list[tuple[float, bytes]] | None = [] if timed else None

    def copy(self) -> int | None:
        """Copy a block at most; its size, 0 once all writers are gone, None: there is nothing now."""
        try:
            block = os.read(self.source, _BLOCK)
        except BlockingIOError:
            return None
        self.total += len(block)
        view = memoryview(block)[: limits.OUTPUT_BYTES - self.kept]
        if self.blocks is not None and view:
            self.blocks.append((time.time(), bytes(view)))
        while view and not self.error:
            try:
                written = os.write(self._target, view)
            except OSError as error:
                self.error = error.strerror
                break
            self.kept += written
            view = view[written:]
        return len(block)

    def drain(self) -> None:
        """Copy what was written before; whoever still writes gets no more than the limit through."""
        for _ in range(limits.OUTPUT_BYTES // _BLOCK):
            if not self.copy():
                break


def timed_lines(out: Stream, err: Stream) -> bytes:
    """Lines of both streams in the order in which they ended: time, ``o`` or ``e``, text."""
    lines = []
    for mark, stream in ((b"o", out), (b"e", err)):
        rest, moment = b"", 0.0
        for moment, block in stream.blocks or []:
            *whole, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
            lines += [(moment, mark, line) for line in whole if line]
        if rest:
            lines.append((moment, mark, rest))
    lines.sort(key=lambda line: line[0])
    return b"".join(b"%.6f %s %s\n" % line for line in lines)


def account(out: Stream, err: Stream) -> Json:
    """What became of both streams, for the report's ``output``."""
    return {
        "stdout_bytes": out.total, "stderr_bytes": err.total, "kept_bytes": out.kept + err.kept,
        "cut": out.kept < out.total or err.kept < err.total,
        "error": out.error or err.error,
    }  # fmt: skip


def events(path: str) -> Iterator[Json]:
    """JSON objects among the first :data:`limits.OUTPUT_BYTES` of a file, one per line.

    Whatever else is there is passed over: other text, torn or overlong lines, deep nesting.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    with open(file, "rb") as stream:
        left = limits.OUTPUT_BYTES
        while left > 0:
            try:
                line = stream.readline(min(limits.LINE_BYTES, left))
            except OSError:
                return
            if not line:
                return
            left -= len(line)
            event = event_of(line)
            if event is not None:
                yield event


def event_of(line: bytes) -> Json | None:
    """A line that is a JSON object; None: it is something else."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = parse_json(line.decode("utf-8", "replace"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def event_lines(path: str) -> bytes:
    """The events of a file, one JSON line each."""
    return "".join(json.dumps(event) + "\n" for event in events(path)).encode()
