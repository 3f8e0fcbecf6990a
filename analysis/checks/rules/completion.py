"""Whether a trial was executed to its end, once, and with all that it printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from wattbench.analysis.checks.evidence import place, place_of_note
from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.checks.selections import grouped, treatment, usable
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Output, Record

#: Run numbers without a file that are named.
_MOST_HOLES = 1000

TRIAL_FAILED = code(
    "trial-failed",
    Severity.ERROR,
    place=50,
    meaning="A trial ended without a usable measurement.",
    why="A mean over the trials that happened to work is biased.",
    action="Read the trial's stderr.log and the reason beside it; clear the trial to measure it again.",
)

TRIAL_MISSING = code(
    "trial-missing",
    Severity.ERROR,
    place=60,
    meaning="A planned trial has no accepted attempt.",
    why="Blocks are incomplete, and what went missing is rarely random.",
    action="Clear the trial's task, or trigger the run again.",
)

CONTAINER_ORPHANED = code(
    "container-orphaned",
    Severity.ERROR,
    place=110,
    meaning="A container ran on after its meter had ended, or was left by an earlier trial.",
    why="Part of the work was not measured, and it disturbed what came after.",
    action="Look at the meter's exit in the trial's record; left-overs are removed at the next call.",
)

OUTPUT_FLOOD = code(
    "output-flood",
    Severity.WARNING,
    place=115,
    meaning="The workload printed more than is kept; the rest was cut off.",
    why="Results and errors in the part cut off are not checked, and output of that size costs energy.",
    action="Make the workload print less, then measure again.",
)


@check(TRIAL_FAILED, fine="the attempt ended well", example=lambda r: replace(r, state="timeout"))
def trial_failed(record: Record) -> Outcomes:
    """The attempt ended badly, its workload did not finish, or its file shows that it was cut."""
    evidence = place(record, state=record.state)
    if record.timing.get("boot_changed"):
        yield Found("the host was rebooted inside the trial", evidence)
    if record.row.status == "failed" or record.state != "done":
        log = record.log
        line = log.get("failed_line") or log.get("panic_line") or log.get("line")
        noted = next((n for n in record.notes if n.message == record.row.reason), None)
        where = place(record, line=line) if line else place(record)
        if noted is not None:
            where = {"file": record.row.raw_place()["file"]} | place_of_note(noted)
        yield Found(
            record.row.reason or f"the attempt ended as {record.state}", {**evidence, **where}
        )
    elif record.work.errors:
        yield Found(
            f"the workload reports: {record.work.errors[0]}",
            evidence | {"errors": list(record.work.errors)},
        )
    elif record.work.finished is False:
        yield Found("the workload's output ends before its last event", evidence)


@check(
    TRIAL_MISSING,
    fine="every trial was executed",
    example=lambda r: replace(r, row=replace(r.row, status="missing")),
)
def trial_missing(record: Record) -> Outcomes:
    """A planned trial, or a start in a log, without a measurement."""
    if record.row.status != "missing" or record.log.get("derived"):
        return  # a derived row is judged by whether it can be traced
    line = record.log.get("line")
    yield Found(
        record.row.reason or "no accepted attempt", place(record, line=line) if line else {}
    )


@campaign_check(
    TRIAL_MISSING,
    fine="no trial is missing",
    example=lambda c: Campaign(
        tuple(replace(r, row=replace(r.row, run=2 * i)) for i, r in enumerate(c.records)),
        replace(c.facts, imported=True),
    ),
)
def missing(campaign: Campaign) -> Outcomes:
    """Numbers of trials by treatment: holes in the numbering, fewer than claimed, unequal."""
    facts = campaign.facts
    if not facts.imported:
        return
    by_treatment = grouped(campaign.records, treatment)
    count_of = {name: sum(map(usable, group)) for name, group in by_treatment.items()}
    # Where no number stands twice, they count over all treatments: others' numbers are no holes.
    everywhere = {r.row.run for r in campaign.records if r.row.run is not None}
    counted_together = len(by_treatment) > 1 and not _overlap(by_treatment.values())
    for name, group in sorted(by_treatment.items()):
        subject = f"image {group[0].row.image}"
        numbers = {r.row.run for r in group if r.row.run is not None}
        if counted_together:
            numbers = everywhere
        count = range(min(numbers), max(numbers) + 1) if numbers else range(0)
        # Numbers with more holes than this, such as dates, are not counted through.
        if 0 < len(count) - len(numbers) <= _MOST_HOLES:
            holes = [n for n in count if n not in numbers]
            yield Found(
                f"{name}: run numbers {', '.join(map(str, holes[:20]))} have no file",
                {"missing_runs": holes},
                Severity.WARNING,
                subject,
            )
        if facts.expected_trials and count_of[name] < facts.expected_trials:
            yield Found(
                f"{name}: {count_of[name]} trials of {facts.expected_trials} that are claimed",
                {"n": count_of[name], "claimed": facts.expected_trials},
                Severity.WARNING,
                subject,
            )
    if len(set(count_of.values())) > 1:
        yield Found(
            "the numbers of usable trials differ: "
            + ", ".join(f"{t} {n}" for t, n in sorted(count_of.items())),
            {"n": dict(sorted(count_of.items()))},
            Severity.WARNING,
        )


@check(
    CONTAINER_ORPHANED,
    fine="nothing outlived its meter",
    example=lambda r: replace(r, meter={"outlived": True}),
)
def container_orphaned(record: Record) -> Outcomes:
    """The work went on after the meter had ended."""
    log = record.log
    if record.meter.get("outlived"):
        what = "container" if record.container else "workload"
        yield Found(f"the {what} was still running when the meter had ended", place(record))
    if log.get("after_panic"):
        lines = log["after_panic"]
        yield Found(
            f"the workload printed {len(lines)} lines after the meter's panic",
            place(record, line=lines[0], panic_line=log.get("panic_line"), lines=list(lines)),
        )
    worked, duration = log.get("worked_s"), record.row.duration_s
    interval = (record.sampling.interval_s if record.sampling else None) or 0.0
    if worked and duration is not None and worked > duration + interval + 1:
        yield Found(
            f"the workload says {worked:.0f} s of work, the meter's file covers {duration:.0f} s",
            place(record, line=log.get("line"), worked_s=worked, metered_s=duration),
        )
    if not record.meter and not log.get("file"):
        yield Unknown("how the meter ended is not known")


@check(
    OUTPUT_FLOOD,
    fine="all that the workloads printed was kept",
    example=lambda r: replace(r, output=Output(printed_bytes=10**9, kept_bytes=10**7, cut=True)),
)
def output_flood(record: Record) -> Outcomes:
    """Output of the workload beyond what is kept."""
    output = record.output
    if output is None:
        if record.meter:  # nothing cuts the output of an import
            yield Unknown("how much the workload printed was not recorded")
    elif output.cut:
        yield Found(
            f"the workload printed {output.printed_bytes / 1e6:.1f} MB, "
            f"{output.kept_bytes / 1e6:.1f} MB of it are kept",
            place(record, printed_bytes=output.printed_bytes, kept_bytes=output.kept_bytes),
        )


def _overlap(groups: Iterable[Sequence[Record]]) -> bool:
    """Whether two treatments have a run number in common."""
    numbers = [{r.row.run for r in group if r.row.run is not None} for group in groups]
    return sum(map(len, numbers)) > len(set().union(*numbers))
