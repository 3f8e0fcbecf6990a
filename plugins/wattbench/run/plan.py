"""The plan: the order of all trials of a run on a host, in seeded randomised complete blocks.

Within a block, trials are sorted by the SHA-256 of (seed, host, block, kind, image). That is a uniformly
random order which no Python version, platform or retry can change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
    """

    planned_position: int
    block: int
    kind: str
    image: str

    @property
    def name(self) -> str:
        """Folder, container and key name, for example ``003-pip-torch``."""
        return trial_name(self.planned_position, self.image)

    @property
    def label(self) -> str:
        """What people read in Airflow, for example ``03 · pip-torch`` or ``04 · pip-torch (idle)``."""
        extra = " (idle)" if self.kind == "idle" and self.image != IDLE_HOST else ""
        return f"{self.planned_position:02d} · {self.image}{extra}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the derived names."""
        return asdict(self) | {"name": self.name, "label": self.label}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PlannedTrial:
        """The inverse of :meth:`to_dict`."""
        return cls(data["planned_position"], data["block"], data["kind"], data["image"])


def seed_of(given: int | str | None, run_id: str) -> str:
    """The run's seed: the given one, else the SHA-256 of the run id (so that a retry draws the same)."""
    return str(given) if given is not None else hashlib.sha256(run_id.encode()).hexdigest()


def make_plan(
    images: Sequence[str], protocol: Protocol, host: str, seed: str
) -> tuple[PlannedTrial, ...]:
    """All trials of one host in order: every block holds every image once.

    Idle and control trials are planned and shuffled like the others, in the first of every
    ``every_blocks`` blocks.
    """
    plan: list[PlannedTrial] = []
    for block in range(1, protocol.max_blocks + 1):
        members = sorted(
            _members(images, protocol, block), key=lambda m: _rank(seed, host, block, *m)
        )
        for kind, image in members:
            plan.append(PlannedTrial(len(plan) + 1, block, kind, image))
    return tuple(plan)


def shuffled(trials: Sequence[PlannedTrial], host: str, seed: str) -> tuple[PlannedTrial, ...]:
    """Trials that are tried again, in a random order of their own."""
    return tuple(sorted(trials, key=lambda t: _rank(seed, host, t.block, "again", t.name)))


def _members(images: Sequence[str], protocol: Protocol, block: int) -> Iterator[tuple[str, str]]:
    for image in images:
        yield "workload", image
    idle = protocol.idle_baseline
    if idle is not None and (block - 1) % idle.every_blocks == 0:
        yield from (("idle", i) for i in (images if idle.per == "image" else [IDLE_HOST]))
    control = protocol.control
    if control is not None and (block - 1) % control.every_blocks == 0:
        yield "control", CONTROL


def _rank(seed: str, host: str, block: int, kind: str, image: str) -> bytes:
    return hashlib.sha256("\0".join((seed, host, str(block), kind, image)).encode()).digest()
