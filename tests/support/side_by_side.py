"""Measurements in real time, side by side, each taken again where the machine stalled in it.

Counters rise by the clock and meters sample by it: what is measured while the machine stops is about the
stop. Whether it stopped is seen by a ticker beside the measurement, never by its outcome.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")

_TICK_S = 0.02
#: A ticker that came so much too late was not run, nor were the processes beside it.
_STALL_S = 0.25
#: Measurements of one case; the last one is judged however it went.
_TRIES = 2


class StallWatch:
    """A ticker that remembers the longest time between two ticks; a context manager."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticker.join()

    @property
    def stalled(self) -> bool:
        """Whether the machine stood still."""
        return self.longest_s > _STALL_S

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_TICK_S):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - last)
            last = now


def side_by_side(
    measure: Callable[[str, int], T], names: Iterable[str], at_once: int
) -> dict[str, T]:
    """Measure several cases, several at once, as they mostly wait.

    Args:
        measure: takes a case's name and the number of measurements of it that a stall has spoiled.
        names: of the cases.
        at_once: cases that are measured at the same time.
    """

    def one(name: str) -> T:
        for spoiled in range(_TRIES - 1):
            with StallWatch() as watch:
                measured = measure(name, spoiled)
            if not watch.stalled:
                return measured
        return measure(name, _TRIES - 1)

    wanted = list(names)
    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))
