"""Tests that are run again, and measurements that must then be taken again.

Counters rise by the clock and meters sample by it: on a machine that stalled in between they tell of
the stall, and looking at the same files once more would tell the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

#: Runs of tests that had failed before; ``now``: whether the present one is such.
begun = 0
now = False


class Measured(Mapping[str, T]):
    """What was measured, by name: side by side, as it mostly waits.

    A test that is run again has what it looks at measured again, alone.

    Args:
        measure: of a name and of how many runs of failed tests there were before.
        names: of the measurements.
        at_once: so many side by side.
    """

    def __init__(
        self, measure: Callable[[str, int], T], names: Iterable[str], at_once: int
    ) -> None:
        self._measure = measure
        self._measured = dict.fromkeys(names, 0)
        with ThreadPoolExecutor(at_once) as pool:
            done = pool.map(lambda name: measure(name, 0), self._measured)
            self._done = dict(zip(self._measured, done, strict=True))

    def __getitem__(self, name: str) -> T:
        if now and self._measured[name] < begun:
            self._done[name] = self._measure(name, begun)
            self._measured[name] = begun
        return self._done[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._done)

    def __len__(self) -> int:
        return len(self._done)
