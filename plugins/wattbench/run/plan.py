"""Plan: the order of all trials of a run on a host, in seeded randomised complete blocks.

Within a block, trials are sorted by the SHA-256 of (seed, host, block, kind, image), or follow a row of a
Williams square whose labels and rows are sorted so. Both are random orders that no Python version, platform
or retry can change.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wattbench.analysis.model.run_document import PlannedTrialDocument
from wattbench.config.experiment import Protocol
from wattbench.run.store_keys import trial_name

IDLE_HOST = "idle"
CONTROL = "control"


@dataclass(frozen=True)
class PlannedTrial:
    """One place in a host's order.

    Attributes:
        planned_position: from 1.
        block: from 1.
        kind: ``workload``, ``idle`` or ``control``.
        image: the treatment; ``idle`` or ``control`` where no image is involved.
        idle_state: of an idle trial, where the experiment has several states: ``container`` or ``loaded``.
    """

    planned_position: int
    block: int
    kind: str
    image: str
    idle_state: str | None = None

    @property
    def name(self) -> str:
        """Folder, container and key name, for example ``003-pip-torch``."""
        return trial_name(self.planned_position, self.image)

    @property
    def label(self) -> str:
        """What people read in Airflow, for example ``03 · pip-torch`` or ``04 · pip-torch (idle)``."""
        state = f", {self.idle_state}" if self.idle_state else ""
        extra = f" (idle{state})" if self.kind == "idle" and self.image != IDLE_HOST else ""
        return f"{self.planned_position:02d} · {self.image}{extra}"

    def to_dict(self) -> PlannedTrialDocument:
        """JSON-ready, with the derived names."""
        document: PlannedTrialDocument = {
            "planned_position": self.planned_position, "block": self.block, "kind": self.kind,
            "image": self.image, "name": self.name, "label": self.label,
        }  # fmt: skip
        return document if self.idle_state is None else {**document, "idle_state": self.idle_state}

    @classmethod
    def from_dict(cls, data: PlannedTrialDocument) -> PlannedTrial:
        """The inverse of :meth:`to_dict`."""
        return cls(
            data["planned_position"], data["block"], data["kind"], data["image"],
            data.get("idle_state"),
        )  # fmt: skip


def seed_of(given: int | str | None, run_id: str) -> str:
    """The run's seed: the given one, else the SHA-256 of the run id (so that a retry draws the same)."""
    return str(given) if given is not None else hashlib.sha256(run_id.encode()).hexdigest()


def make_plan(
    images: Sequence[str], protocol: Protocol, host: str, seed: str
) -> tuple[PlannedTrial, ...]:
    """All trials of one host in order: every block holds every image once.

    Idle and control trials are planned in the first of every ``every_blocks`` blocks: shuffled like the
    others, or with ``order: williams`` before the images, so that these follow each other.
    """
    plan: list[PlannedTrial] = []
    sequences = _williams(images, host, seed) if protocol.order == "williams" else None
    for block in range(1, protocol.max_blocks + 1):
        members = sorted(
            _members(images, protocol, block), key=lambda m: _rank(seed, host, block, *m)
        )
        if sequences is not None:
            members = [m for m in members if m[0] != "workload"]
            members += [("workload", image) for image in next(sequences)]
        for member in members:
            plan.append(PlannedTrial(len(plan) + 1, block, *member))
    return tuple(plan)


def williams_square(size: int) -> list[list[int]]:
    """Rows in which each of ``size`` treatments follows each other one equally often.

    Williams 1949: ``size`` rows where it is even, twice as many where it is odd.
    """
    first = [(i + 1) // 2 if i % 2 else (size - i // 2) % size for i in range(size)]
    rows = [[(place + row) % size for place in first] for row in range(size)]
    return rows if size % 2 == 0 else rows + [row[::-1] for row in rows]


def _williams(images: Sequence[str], host: str, seed: str) -> Iterator[list[str]]:
    """Blocks of one Williams square after another, each with its own random labels and order of rows."""
    for number in itertools.count():
        labels = sorted(images, key=lambda i: _rank(seed, host, number, "label", i))
        rows = williams_square(len(images))
        for row in sorted(rows, key=lambda r: _rank(seed, host, number, "row", str(r))):
            yield [labels[place] for place in row]


def shuffled(trials: Sequence[PlannedTrial], host: str, seed: str) -> tuple[PlannedTrial, ...]:
    """Trials that are tried again, in a random order of their own."""
    return tuple(sorted(trials, key=lambda t: _rank(seed, host, t.block, "again", t.name)))


def _members(
    images: Sequence[str], protocol: Protocol, block: int
) -> Iterator[tuple[str, str] | tuple[str, str, str]]:
    """Kind and image of a block's trials, and the idle state where the plan has several."""
    for image in images:
        yield "workload", image
    idle = protocol.idle_baseline
    if idle is not None and (block - 1) % idle.every_blocks == 0:
        for image in images if idle.per == "image" else [IDLE_HOST]:
            if len(idle.states) == 1:
                yield "idle", image
            else:
                yield from (("idle", image, state) for state in idle.states)
    control = protocol.control
    if control is not None and (block - 1) % control.every_blocks == 0:
        yield "control", CONTROL


def _rank(seed: str, host: str, block: int, *what: str) -> bytes:
    return hashlib.sha256("\0".join((seed, host, str(block), *what)).encode()).digest()
