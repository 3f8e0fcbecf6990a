"""Durations of named steps, some of them side by side."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from wattbench.analysis.storage.atomic import write_atomically


class Timings:
    """Collects how long each step took; safe to use from several threads."""

    def __init__(self, since_unix_s: float, clock: Callable[[], float] = time.time) -> None:
        """Starts counting at a time in the past, when the command was given.

        Wall clock, since the beginning was another process's.
        """
        self._clock = clock
        self._began = since_unix_s
        self._steps: list[tuple[str, float, float]] = []
        self._lock = threading.Lock()
        if self.elapsed_s >= 1:
            self._steps.append(("setting up .venv", 0.0, self.elapsed_s))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times what happens inside, also when it fails."""
        began = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._steps.append((name, began - self._began, self._clock() - began))

    def add(self, name: str, began: datetime, ended: datetime) -> None:
        """A step that was timed elsewhere."""
        with self._lock:
            at = began.timestamp() - self._began
            self._steps.append((name, at, (ended - began).total_seconds()))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    def save(self, file: Path) -> None:
        """Keep name, begin and duration in seconds of every step, in the order of their starts."""
        write_atomically(file, json.dumps(sorted(self._steps, key=lambda step: step[1])))

    def table(self) -> str:
        """One line per step in the order of their starts: when it began, how long it took."""
        rows = sorted(self._steps, key=lambda step: step[1])
        lines = [f"  {name:<34} {took:7.1f} s   from {at:6.1f} s" for name, at, took in rows]
        return "\n".join(["where the time went (steps side by side overlap):", *lines])


def minutes(seconds: float) -> str:
    """A duration as the demo's last line has it: `3 min 10 s`."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s"
