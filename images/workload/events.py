"""The event lines (docs/workload-protocol.md): one JSON object per line, stamped on both clocks, flushed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Version of the event lines.
PROTOCOL = 1


class Refusal(Exception):  # noqa: N818
    """This image can't do the work that was asked for; the message says what it lacks."""


def emit(event: str, **fields: Any) -> None:
    """Prints one event.

    Args:
        event: its name.
        fields: JSON values; NaN and infinity are refused, since they are no JSON.
    """
    line = {"event": event, "unix_s": time.time(), "mono_s": time.monotonic(), **fields}
    sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Marks the begin and the end of a phase; one that fails has no end."""
    emit("phase", name=name, edge="begin")
    yield
    emit("phase", name=name, edge="end")
