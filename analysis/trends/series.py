"""Many runs: of every host a series an image, its changes of level, and the control workload's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pandas as pd

from wattbench.analysis.stats import control_chart
from wattbench.analysis.trends.level_changes import Change, Course, follow
from wattbench.analysis.trends.levels import CONTROL, Baseline


@dataclass(frozen=True, eq=False)
class Track:
    """One image on one host over the nights.

    Attributes:
        host: the host.
        image: the image.
        runs: places of its runs, ascending, one a value of the course.
        digests: of each of these runs; None where not reported.
        course: of the log ratio to the baseline (of a baseline's own track: of its log joules).
    """

    host: str
    image: str
    runs: tuple[int, ...]
    digests: tuple[str | None, ...]
    course: Course

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels relative to the first, one more than changes (of logarithms)."""
        return tuple(accumulate((c.shift for c in self.course.changes), initial=0.0))

    @property
    def now(self) -> float:
        """The last level relative to the first."""
        return self.levels[-1]


@dataclass(frozen=True, eq=False)
class Shared:
    """A move of all images against the reference: it was the reference that changed.

    Attributes:
        image: the reference.
        change: its own, of the opposite sign.
        track: one of the tracks that show it, for its runs.
    """

    image: str
    change: Change
    track: Track


@dataclass(frozen=True, eq=False)
class HostNights:
    """One host.

    Attributes:
        host: its name.
        baseline: what its images are compared with.
        tracks: one an image, by name.
        own: the baseline's own joules; None without a baseline.
        quarantine: the judgement of its control workload; None without one.
        shared: moves of the reference, where it is the baseline.
        left_out: runs of an image without a value, by reason.
    """

    host: str
    baseline: Baseline
    tracks: tuple[Track, ...]
    own: Track | None
    quarantine: control_chart.Quarantine | None
    shared: tuple[Shared, ...]
    left_out: dict[str, int]


def by_host(
    levels: pd.DataFrame, baselines: Sequence[Baseline], quarantine_pct: float
) -> tuple[HostNights, ...]:
    """Follows every image on every host.

    Args:
        levels: by :func:`analysis.history.levels.of_runs`.
        baselines: of the hosts.
        quarantine_pct: limit of the control workload's relative SD, %.
    """
    workload = levels[levels["kind"] == "workload"]
    family = max(
        1, workload.loc[workload["log_ratio"].notna(), ["host", "image"]].drop_duplicates().shape[0]
    )
    own_family = max(1, sum(b.name is not None for b in baselines))
    return tuple(
        _host(b, levels[levels["host"] == b.host], family, own_family, quarantine_pct)
        for b in baselines
    )


def _host(
    baseline: Baseline, levels: pd.DataFrame, family: int, own_family: int, quarantine_pct: float
) -> HostNights:
    images = levels[(levels["kind"] == "workload") & (levels["image"] != baseline.name)]
    tracks = tuple(
        _track(baseline.host, str(image), rows, "log_ratio", family)
        for image, rows in images.groupby("image", sort=True)
        if rows["log_ratio"].notna().any()
    )
    kind = CONTROL if baseline.name == CONTROL else "workload"
    base_levels = levels[(levels["kind"] == kind) & (levels["image"] == baseline.name)]
    if baseline.name == CONTROL:
        base_levels = levels[levels["kind"] == CONTROL]
    own = (
        _track(baseline.host, str(baseline.name), base_levels, "median_log", own_family)
        if baseline.name is not None and len(base_levels)
        else None
    )
    controls = levels[levels["kind"] == CONTROL].sort_values("run")
    judged = None
    if len(controls):
        joules = np.exp(controls["median_log"].to_numpy(float))
        judged = control_chart.standing(joules.tolist(), quarantine_pct)
    reasons = images.loc[images["left_out"] != "", "left_out"].value_counts()
    return HostNights(
        host=baseline.host,
        baseline=baseline,
        tracks=tracks,
        own=own,
        quarantine=judged,
        shared=() if baseline.name in (None, CONTROL) else _shared(str(baseline.name), tracks),
        left_out={str(k): int(v) for k, v in reasons.items()},
    )


def _track(host: str, image: str, rows: pd.DataFrame, column: str, family: int) -> Track:
    measured = rows[rows[column].notna()].sort_values("run")
    return Track(
        host,
        image,
        tuple(int(r) for r in measured["run"]),
        tuple(None if pd.isna(d) else str(d) for d in measured["digest"]),
        follow(measured[column].to_numpy(float), family),
    )


def _shared(reference: str, tracks: Sequence[Track]) -> tuple[Shared, ...]:
    """Changes that every image has at about the same night, in one direction, of one size."""
    if len(tracks) < 2:
        return ()
    first, *others = tracks
    found = []
    for change in first.course.changes:
        night = first.runs[change.index]
        together = [_near(t, night) for t in others]
        shifts = np.array([change.shift, *(c.shift for c in together if c is not None)])
        if len(shifts) < len(tracks) or np.ptp(np.sign(shifts)) != 0:
            continue
        if np.ptp(shifts) > 0.5 * abs(shifts.mean()):
            continue
        found.append(Shared(reference, _turned(change), first))
    return tuple(found)


def _near(track: Track, night: int) -> Change | None:
    """The track's change within one night of a run."""
    close = [c for c in track.course.changes if abs(track.runs[c.index] - night) <= 1]
    return close[0] if close else None


def _turned(change: Change) -> Change:
    return Change(
        change.index, change.earliest, change.latest, -change.shift, -change.upper, -change.lower,
        change.before, change.after, change.p, change.settled,
    )  # fmt: skip


def is_shared(host: HostNights, track: Track, change: Change) -> bool:
    """Whether a change of a track is the reference's own."""
    night = track.runs[change.index]
    return any(
        abs(s.track.runs[s.change.index] - night) <= 1
        and np.sign(s.change.shift) != np.sign(change.shift)
        for s in host.shared
    )
