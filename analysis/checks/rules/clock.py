"""Clocks: steps inside a window, windows that overlap, hosts whose clock is off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wattbench.analysis.checks.evidence import place, place_of_note
from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.checks.selections import grouped, host_of, in_time
from wattbench.analysis.meters.clocks import CLOCK_STEP_S
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Record

CLOCK_SKEW = code(
    "clock-skew",
    Severity.ERROR,
    place=90,
    meaning="A clock stepped inside the window, or the host's clock is off.",
    why="Samples can't be assigned to the window.",
    action="Let chrony or systemd-timesyncd discipline the host's clock.",
)


@campaign_check(
    CLOCK_SKEW,
    fine="no two windows overlap",
    example=lambda c: replace(
        c,
        records=tuple(replace(r, row=replace(r.row, duration_s=1e5)) for r in c.records),
    ),
)
def overlapping(campaign: Campaign) -> Outcomes:
    """Windows of one host that overlap: two measurements at once, or a clock that went back."""
    for group in grouped(in_time(campaign.records), host_of).values():
        # Times are UTC; numpy takes no offset.
        starts = np.array(
            [str(r.row.started_at).removesuffix("Z").removesuffix("+00:00") for r in group],
            dtype="datetime64[ns]",
        )
        seconds = np.array([r.row.duration_s or 0.0 for r in group])
        ends = starts + np.rint(seconds * 1e9).astype("timedelta64[ns]")
        for i in (np.flatnonzero(ends[:-1] > starts[1:]) + 1).tolist():
            before, record = group[i - 1], group[i]
            yield Found(
                f"begins before {before.row.raw or before.subject} ends",
                place(record, started_at=record.row.started_at, overlaps=before.subject),
                subject=record.subject,
            )


@check(
    CLOCK_SKEW,
    fine="no step of the clock",
    example=lambda r: replace(r, timing={**r.timing, "clock_step_s": -0.4}),
)
def clock_skew(record: Record) -> Outcomes:
    """A step of the wall clock inside the window."""
    notes = [n for n in record.notes if n.kind == "clock-step"]
    step_s = record.timing.get("clock_step_s")
    if notes:  # the reader has weighed what the step does to the energy
        worst = next((n for n in notes if n.fatal), notes[0])
        severity = None if worst.fatal else Severity.WARNING
        yield Found(
            worst.message, place(record) | place_of_note(worst) | {"steps": len(notes)}, severity
        )
    elif step_s is not None and abs(step_s) > CLOCK_STEP_S:
        yield Found(
            f"the wall clock stepped by {step_s:+.3f} s inside the window",
            place(record, clock_step_s=step_s),
        )
    elif step_s is None and not record.row.samples:
        yield Unknown("no clock reading of the window")
