"""All trials of a campaign as columns: what its checks and tables look at.

A campaign of raw files alone may hold tens of thousands of trials that differ in a few numbers. Of these
there are columns only; a record is made where something is to be said of one trial.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from wattbench.analysis.checks.trial import series
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import COLUMNS, TrialRow

#: Readings of a file that tell the platform's state: name in ``Record.series`` → what it is, share of change.
STATES = {
    "total_memory": ("memory seen by the kernel", 0.0),
    "cpu_frequency": ("CPU frequency at the start", 0.15),
    r"gpu\d*_memory_used": ("GPU memory in use at the start", 0.10),
    "used_memory": ("memory in use at the start", 0.40),
}

#: (name, counted, how many of that name before it in the same trial).
DomainKey = tuple[str, bool, int]


@dataclass(eq=False)
class Trials:
    """Columns of equal length, a value a trial.

    Attributes:
        rows: the one schema's columns by name.
        interval_s: sampling interval, s.
        aligned_j: joules of the samples over the span of the log's summary line, J.
        naive_j: last minus first value of the package counter, J.
        constant: columns of the raw file that never change; None without a file.
        unknown: columns of the raw file that nobody knows.
        derived: whether a published row is all there is of the trial.
        first: pattern of :data:`STATES` → the first reading.
        domains: joules of each domain.
        records: the trials' records, where they were kept; None for trials of raw files alone, which
            have no plan, no log, no edges and no word of their workload.
        made: makes the record of a trial of a raw file alone.
    """

    rows: dict[str, list[Any]]
    interval_s: list[float | None]
    aligned_j: list[float | None]
    naive_j: list[float | None]
    constant: list[tuple[str, ...] | None]
    unknown: list[tuple[str, ...]]
    derived: list[bool]
    first: dict[str, list[float | None]]
    domains: dict[DomainKey, list[float | None]] = field(default_factory=dict)
    records: tuple[Record, ...] | None = None
    made: Callable[[int], Record] | None = None

    def __len__(self) -> int:
        return len(self.derived)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Trials:
        """The columns of records, which are kept."""
        records = tuple(records)
        first: dict[str, list[float | None]] = {}
        for pattern in STATES:
            courses = (series(r, pattern) for r in records)
            first[pattern] = [c[0]["first"] if c else None for c in courses]
        domains: dict[DomainKey, list[float | None]] = {}
        for i, record in enumerate(records):
            seen: Counter[tuple[str, bool]] = Counter()
            for d in record.domains:
                key = (d.name, d.counted, seen[d.name, d.counted])
                seen[d.name, d.counted] += 1
                if key not in domains:
                    domains[key] = [None] * len(records)
                domains[key][i] = d.energy_j
        return cls(
            rows={name: [getattr(r.row, name) for r in records] for name in COLUMNS},
            interval_s=[r.sampling.interval_s if r.sampling else None for r in records],
            aligned_j=[r.log.get("aligned_j") for r in records],
            naive_j=[r.log.get("naive_j") for r in records],
            constant=[r.log.get("constant") for r in records],
            unknown=[
                tuple(n.column or "" for n in r.notes if n.kind == "unknown-column")
                for r in records
            ],
            derived=[bool(r.log.get("derived")) for r in records],
            first=first,
            domains=domains,
            records=records,
        )

    @classmethod
    def joined(cls, parts: Sequence[Trials], order: Sequence[int]) -> Trials:
        """Trials of several parts, whose records were not kept.

        Args:
            parts: one after the other.
            order: the place among all of these of each trial of the result.
        """

        def column(values: Iterable[Sequence[Any]]) -> list[Any]:
            whole = list(itertools.chain.from_iterable(values))
            return [whole[i] for i in order]

        keys = dict.fromkeys(key for p in parts for key in p.domains)
        return cls(
            rows={name: column(p.rows[name] for p in parts) for name in COLUMNS},
            interval_s=column(p.interval_s for p in parts),
            aligned_j=column(p.aligned_j for p in parts),
            naive_j=column(p.naive_j for p in parts),
            constant=column(p.constant for p in parts),
            unknown=column(p.unknown for p in parts),
            derived=column(p.derived for p in parts),
            first={name: column(p.first[name] for p in parts) for name in STATES},
            domains={k: column(p.domains.get(k) or [None] * len(p) for p in parts) for k in keys},
        )

    def record(self, i: int) -> Record:
        """A trial's record."""
        if self.records is not None:
            return self.records[i]
        assert self.made is not None  # one of the two is there
        record, row = self.made(i), self.row(i)
        return replace(record, row=row, state="failed" if row.status == "failed" else record.state)

    def row(self, i: int) -> TrialRow:
        """A trial's row."""
        return TrialRow(**{name: values[i] for name, values in self.rows.items()})

    @cached_property
    def subjects(self) -> list[str]:
        """What findings call each trial."""
        if self.records is not None:
            return [r.subject for r in self.records]
        return [f"trial {raw}" for raw in self.rows["raw"]]

    @cached_property
    def treatments(self) -> list[str]:
        """Image, and kind where it is no workload."""
        return [
            image if kind == "workload" else f"{image} ({kind})"
            for image, kind in zip(self.rows["image"], self.rows["kind"], strict=True)
        ]

    @cached_property
    def usable(self) -> list[bool]:
        """Whether a trial has numbers: its own, or those of a published table alone."""
        return [
            status in ("valid", "invalid") or derived
            for status, derived in zip(self.rows["status"], self.derived, strict=True)
        ]

    @cached_property
    def in_time(self) -> list[int]:
        """Places of the trials whose start is known, in its order."""
        starts, positions = self.rows["started_at"], self.rows["position"]
        return sorted(
            (i for i, start in enumerate(starts) if start),
            key=lambda i: (starts[i], positions[i] or 0),
        )

    def measured(self, *kinds: str) -> list[int]:
        """Places of the usable trials of these kinds that have joules."""
        joules, kind = self.rows["energy_j"], self.rows["kind"]
        return [
            i
            for i, fine in enumerate(self.usable)
            if fine and joules[i] is not None and kind[i] in kinds
        ]

    def by(self, column: str, places: Sequence[int] | None = None) -> dict[Any, list[int]]:
        """Places by a column's value, in order of first appearance."""
        values = self.treatments if column == "treatment" else self.rows[column]
        groups: defaultdict[Any, list[int]] = defaultdict(list)
        for i in range(len(self)) if places is None else places:
            groups[values[i]].append(i)
        return dict(groups)
