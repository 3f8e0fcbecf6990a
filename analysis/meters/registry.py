"""The registry of meters: how the raw files of each kind are read.

A meter is a class with the decorator :func:`meter`. Modules of ``analysis/meters/readers`` are imported
when the registry is first read, and so are the entry points of the group ``wattbench.meters``.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from wattbench.analysis.meters.reading import Edge, Reading
from wattbench.analysis.model import extensions
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.records import EdgeReadings, Note

#: Entry points that add meters: modules that register them when they are imported.
GROUP = "wattbench.meters"

#: ``before`` and ``after`` of the window, of the agent's report.
EdgesOfReport = Mapping[str, EdgeReadings]

#: Rank of the configured meter, whatever its own is, unless that is better.
CONFIGURED = 50


@dataclass(frozen=True)
class Edges:
    """What was read at the edges of a window; each meter looks under keys of its own.

    Attributes:
        marks: energy counters at the start and the end, read inside the meter.
        before: the platform's state before the window, of the agent's report.
        after: the same after it.
    """

    marks: tuple[Edge, ...] = ()
    before: EdgeReadings = field(default_factory=lambda: EdgeReadings())
    after: EdgeReadings = field(default_factory=lambda: EdgeReadings())

    def left(self, file: str, mark: str, raw: Mapping[str, bytes]) -> bool:
        """Whether a meter left anything: its file, or counters under its key at an edge."""
        return file in raw or any(edge.values(mark) for edge in self.marks)


@dataclass(frozen=True)
class Device:
    """A GPU at the edges of a window and inside it, as its meter reports it.

    Attributes:
        name: domain of its energy: ``gpu0``, ….
        identity: a name that stays with the card, such as its UUID.
        slowed_by: reasons for slower clocks that were seen; None: not recorded.
        power_capped: whether its power limit held its clocks down.
        other_processes: processes of others that computed on it before the window.
        foreign_inside: most processes of others that were seen on it inside the window.
        foreign_after: processes on it after the window.
        driver: version of its driver.
    """

    name: str
    identity: str = ""
    slowed_by: tuple[str, ...] | None = None
    power_capped: bool = False
    other_processes: int = 0
    foreign_inside: int = 0
    foreign_after: int = 0
    driver: str = ""


class Meter(ABC):
    """How one kind of meter is read.

    Attributes:
        kind: its name in hosts.yaml, and the meter of its domains.
        files: raw files that it leaves in an attempt's folder.
        rank: of several meters that read a GPU the one of the lowest rank counts; of several that
            read one file the configured one reads it, else the one of the lowest rank.
        modelled: whether its joules are a model's; nothing measured is added to them.
        only_given: whether its GPUs are those that the trial was given, and no others of the host.
    """

    kind = ""
    files: tuple[str, ...] = ()
    rank = 60
    modelled = False
    only_given = False

    @abstractmethod
    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """Energy curves and gauges of an attempt; None: the meter left nothing.

        Args:
            raw: the attempt's files by name; of the configured meter all are there, if only empty.
            edges: readings at the window's edges.

        Raises:
            InputError: a file can't be used at all.
        """

    def devices(
        self, edges: EdgesOfReport, series: Mapping[str, Mapping[str, float]]
    ) -> tuple[Device, ...]:
        """The state of its GPUs.

        Args:
            edges: ``before`` and ``after`` of the window, of the agent's report.
            series: summaries of gauges over the window.
        """
        del edges, series
        return ()


_METERS: dict[str, Meter] = {}
_M = TypeVar("_M", bound=type[Meter])


def meter(cls: _M) -> _M:
    """Register a meter.

    Raises:
        ValueError: another one is of its kind.
    """
    if cls.kind in _METERS:
        raise ValueError(f"meter {cls.kind!r} is registered twice")
    _METERS[cls.kind] = cls()
    meters.cache_clear()
    return cls


@functools.cache
def meters() -> Mapping[str, Meter]:
    """Every meter by kind, by rank and kind."""
    extensions.import_modules("wattbench.analysis.meters.readers", GROUP)
    return dict(sorted(_METERS.items(), key=lambda item: (item[1].rank, item[0])))


def raw_files() -> tuple[str, ...]:
    """Names of all meters' raw files."""
    return tuple(dict.fromkeys(name for m in meters().values() for name in m.files))


def devices(edges: EdgesOfReport, series: Mapping[str, Mapping[str, float]]) -> tuple[Device, ...]:
    """The state of every GPU that a meter reported on."""
    return tuple(d for m in meters().values() for d in m.devices(edges, series))


def preferred(configured: str) -> list[str]:
    """Kinds of meters for a GPU's energy, best first."""
    known = meters()
    rank = {kind: m.rank for kind, m in known.items()}
    rank[configured] = min(CONFIGURED, rank.get(configured, CONFIGURED))
    if configured in known and known[configured].modelled:
        rank[configured] = -1
    return sorted(rank, key=lambda kind: (rank[kind], kind))


def read_all(
    raw: Mapping[str, bytes], edges: Edges, configured: str, beside: Collection[str] = ()
) -> tuple[dict[str, Reading], list[Note]]:
    """Every meter's reading by its kind, and why files could not be used.

    Args:
        raw: the attempt's files by name.
        edges: readings at the window's edges.
        configured: kind of the meter that counts.
        beside: kinds of the host's other meters.
    """
    known = meters()
    there = {name: data for name, data in raw.items() if data}
    chosen: list[Meter] = []
    read: set[str] = set()
    for one in sorted(
        known.values(), key=lambda m: (m.kind != configured, m.kind not in beside, m.rank)
    ):
        if not read & set(one.files):
            chosen.append(one)
            read |= set(one.files)
    readings: dict[str, Reading] = {}
    notes: list[Note] = []
    for one in sorted(chosen, key=lambda m: -m.rank):
        expected = one.kind == configured or one.kind in beside
        needed = dict.fromkeys(one.files, b"") if expected else {}
        try:
            reading = one.read(needed | there, edges)
        except InputError as error:
            notes.append(Note("no-energy", str(error), fatal=one.kind == configured))
            continue
        if reading is not None:
            readings[one.kind] = reading
    return readings, notes
