"""Files of which not everything could be used."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from wattbench.analysis.checks.evidence import place, place_of_note
from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Found, Outcomes
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Note, Record

FILE_UNREAD = code(
    "file-unread",
    Severity.WARNING,
    place=290,
    meaning="A file of the campaign could not be used, in whole or in part.",
    why="Its content is not part of any number on this page.",
    action="Correct or remove the file named, or declare in a mapping file what it is.",
)


@check(
    FILE_UNREAD,
    fine="every line of the raw files could be used",
    example=lambda r: replace(r, notes=(Note("bad-row", "line of 3 cells", 12),)),
)
def part_unread(record: Record) -> Outcomes:
    """Lines and cells of the raw file that could not be used, and a file of requests as a whole."""
    broken = next((n for n in record.notes if n.kind == "requests"), None)
    if broken is not None and record.row.status != "failed":
        folder = (record.row.raw or "").rpartition("/")[0]
        where = {"file": f"{folder}/requests.csv.gz"} if folder else {}
        yield Found(broken.message, where, Severity.ERROR, action="Run the trial again.")
    notes = [
        n for n in record.notes if n.kind in ("bad-row", "bad-cell", "repeated-row") and not n.fatal
    ]
    if notes:
        first = notes[0]
        at = f"line {first.line}: " if first.line else ""
        more = f"; {len(notes) - 1} more" if len(notes) > 1 else ""
        yield Found(
            f"{at}{first.column + ': ' if first.column else ''}{first.message}{more}",
            place(record) | place_of_note(first) | {"notes": [n.message for n in notes[:20]]},
        )


@campaign_check(
    FILE_UNREAD,
    fine="every column of the raw files is known",
    example=lambda c: replace(
        c,
        records=tuple(
            replace(r, notes=(Note("unknown-column", "not known", column="FAN_RPM"),))
            for r in c.records
        ),
    ),
)
def unknown_columns(campaign: Campaign) -> Outcomes:
    """Columns of raw files whose meaning is not known: they are in no energy total."""
    having: defaultdict[str, list[Record]] = defaultdict(list)
    for record in campaign.records:
        for name in {n.column or "" for n in record.notes if n.kind == "unknown-column"}:
            having[name].append(record)
    for name, records in sorted(having.items()):
        yield Found(
            f"column {name!r} of {len(records)} raw files is unknown: it is left out of all energy totals",
            {**place(records[0], column=name, files=len(records)), "line": 1},
            Severity.INFO,
            action="If it is energy or power, give its usual name in the mapping file's columns.",
        )
