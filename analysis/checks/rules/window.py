"""The window: how well its edges are known, what else lies in it, whether its length is the meter's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wattbench.analysis.checks.evidence import log_line, place
from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.checks.selections import measured
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Record

#: Share of the window that its edges' uncertainty, or start-up, may have before it is a finding.
NOTABLE_EDGE = 0.01
NOTABLE_STARTUP = 0.05

#: Durations of a sampling grid lie this near above its multiples, as a share of the interval.
GRID_SHARE = 0.1
GRID_FEWEST = 5
#: Sampling intervals that people choose, s, longest first.
GRID_CANDIDATES = (60.0, 30.0, 10.0, 5.0, 2.0, 1.0, 0.5)

SAMPLING_COARSE = code(
    "sampling-coarse",
    Severity.WARNING,
    place=210,
    shared=True,
    meaning="Samples are too far apart for what is reported.",
    why="The edges of a window or phase are uncertain by up to one interval.",
    action="Lower meter.interval_ms or lengthen the window.",
)

DURATION_QUANTISED = code(
    "duration-quantised",
    Severity.WARNING,
    place=220,
    meaning="Reported durations fall on the meter's sampling grid.",
    why="They are the meter's durations, rounded up, not the workload's.",
    action="Take durations from the workload's own markers.",
)

STARTUP_IN_WINDOW = code(
    "startup-in-window",
    Severity.WARNING,
    place=250,
    shared=True,
    meaning="Start-up is a notable part of the window.",
    why="Image size and import time are mixed with steady-state inference.",
    action="Compare the phases: start-up and steady state are reported apart.",
)


@check(
    SAMPLING_COARSE,
    fine="edges are known to 1 %",
    example=lambda r: replace(r, row=replace(r.row, energy_uncertainty_j=90.0)),
)
def sampling_coarse(record: Record) -> Outcomes:
    """Uncertainty of the window's edges against its energy."""
    row, sampling = record.row, record.sampling
    if row.status == "failed":
        return  # it has no energy that could be uncertain
    if record.edges and row.energy_j and row.energy_uncertainty_j is not None:
        share = row.energy_uncertainty_j / row.energy_j
        if share > NOTABLE_EDGE:
            yield Found(
                f"the window's energy is known to ±{100 * share:.1f} %",
                place(record, uncertainty_j=row.energy_uncertainty_j, energy_j=row.energy_j),
            )
    elif sampling is None or not sampling.interval_s or not row.duration_s:
        yield Unknown("too few rows to show the sampling interval")
    elif sampling.interval_s / row.duration_s > NOTABLE_EDGE:
        share = sampling.interval_s / row.duration_s
        yield Found(
            f"a row every {sampling.interval_s:.3g} s in a window of {row.duration_s:.0f} s: "
            f"its end is known to {100 * share:.1f} %",
            place(record, interval_s=sampling.interval_s, duration_s=row.duration_s, share=share),
        )


@campaign_check(
    DURATION_QUANTISED,
    fine="durations are not the sampling grid's",
    example=lambda c: Campaign(
        tuple(
            replace(r, row=replace(r.row, duration_s=10.0 * i), sampling=None)
            for i, r in enumerate(c.records, start=1)
        ),
        replace(c.facts, imported=True),
    ),
)
def quantised(campaign: Campaign) -> Outcomes:
    """Durations that are multiples of the sampling interval plus a little."""
    if not campaign.facts.imported:
        return
    timed = [r for r in measured(campaign.records, "workload", "idle") if r.row.duration_s]
    if len(timed) < GRID_FEWEST:
        yield Unknown(f"{len(timed)} trials; at least {GRID_FEWEST} are needed")
        return
    intervals = [r.sampling.interval_s for r in timed if r.sampling and r.sampling.interval_s]
    # Without samples the interval shows only if durations take several of its multiples.
    candidates = [float(np.median(intervals))] if intervals else list(GRID_CANDIDATES)
    durations = np.array([r.row.duration_s for r in timed])
    for interval in candidates:
        rests = durations / interval % 1.0
        on_grid = (rests <= GRID_SHARE) | (rests >= 1 - GRID_SHARE)
        multiples = sorted({int(m) for m in np.rint(durations[on_grid] / interval)})
        if on_grid.mean() >= 0.9 and (intervals or len(multiples) > 2):
            first = timed[int(np.flatnonzero(on_grid)[0])]
            yield Found(
                f"{on_grid.sum()} of {len(timed)} durations are multiples of "
                f"{'the sampling interval of ' if intervals else ''}{interval:.3g} s "
                f"({len(multiples)} distinct values)",
                place(first, interval_s=interval, n=len(timed), multiples=multiples[:50]),
            )
            return


@check(
    STARTUP_IN_WINDOW,
    kinds=("workload",),
    fine="start-up is under 5 % of the window",
    example=lambda r: replace(r, row=replace(r.row, startup_s=9.0)),
)
def startup_in_window(record: Record) -> Outcomes:
    """Share of the window before the first steady phase."""
    duration, startup = record.row.duration_s, record.row.startup_s
    if startup is None:
        worked = record.log.get("worked_s")
        startup = duration - worked if duration and worked else None
    if not duration or startup is None:
        yield Unknown("the window is not split into phases")
    elif startup / duration > NOTABLE_STARTUP:
        share = startup / duration
        yield Found(
            f"{startup:.1f} s of {duration:.1f} s ({100 * share:.1f} %) are not steady work",
            place(record, **log_line(record), startup_s=startup, duration_s=duration, share=share),
        )
