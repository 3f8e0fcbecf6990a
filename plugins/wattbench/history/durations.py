"""Durations of trials per host, estimated from its earlier trials, to plan what fits before a deadline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from wattbench.config.experiment import Protocol
from wattbench.run.plan import PlannedTrial

if TYPE_CHECKING:
    from wattbench.analysis.model.trials import TrialRow

#: Quantile of the observed durations that is taken as the expected duration.
_QUANTILE = 0.75


@dataclass(frozen=True)
class Pace:
    """How long a host takes over trials.

    Attributes:
        windows_s: of a trial, by ``kind/image``.
        gap_s: from the end of a window to the start of the next: rest, collecting, scheduling.
    """

    windows_s: Mapping[str, float]
    gap_s: float

    def trial_s(self, trial: PlannedTrial) -> float:
        """From the end of the window before to the end of its own.

        An unknown image takes as long as the longest of its kind, an unknown kind no time.
        """
        same_kind = [s for k, s in self.windows_s.items() if k.startswith(f"{trial.kind}/")]
        known = self.windows_s.get(f"{trial.kind}/{trial.image}")
        return self.gap_s + (max(same_kind, default=0.0) if known is None else known)

    def all_s(self, trials: Sequence[PlannedTrial]) -> float:
        """Of several trials, one after the other."""
        return sum(map(self.trial_s, trials))

    def over(self, older: Pace) -> Pace:
        """This pace, and the older one for what this one does not know."""
        return Pace({**older.windows_s, **self.windows_s}, self.gap_s)


def pace_of(rows: Sequence[TrialRow]) -> Pace | None:
    """The pace that a host's trials show; None with fewer than two windows."""
    timed = sorted(
        (datetime.fromisoformat(r.started_at), r.duration_s, f"{r.kind}/{r.image}")
        for r in rows
        if r.started_at is not None and r.duration_s is not None
    )
    if len(timed) < 2:
        return None
    windows: dict[str, list[float]] = {}
    for _, seconds, name in timed:
        windows.setdefault(name, []).append(seconds)
    gaps = [(b[0] - a[0]).total_seconds() - a[1] for a, b in pairwise(timed)]
    return Pace({k: _typical(v) for k, v in windows.items()}, max(0.0, _typical(gaps)))


def _typical(seconds: Sequence[float]) -> float:
    return sorted(seconds)[math.ceil(_QUANTILE * len(seconds)) - 1]


def least_pace(protocol: Protocol) -> Pace:
    """What trials take at the least: the rest, and idle windows. The work itself is unknown."""
    idle = protocol.idle_baseline
    return Pace({"idle/idle": idle.seconds} if idle else {}, protocol.rest.min_s)
