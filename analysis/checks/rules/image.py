"""Images: pulled inside a window, or not resolved to one digest."""

from __future__ import annotations

from dataclasses import replace

from wattbench.analysis.checks.evidence import place
from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.checks.selections import grouped
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Record

PULL_IN_WINDOW = code(
    "pull-in-window",
    Severity.ERROR,
    place=40,
    meaning="An image was pulled inside the measurement window.",
    why="Download, decompression and disk work were counted as inference.",
    action="Pull by digest before the first trial and start containers with --pull never.",
)

IMAGE_UNPINNED = code(
    "image-unpinned",
    Severity.WARNING,
    place=240,
    meaning="An image was not resolved to one digest.",
    why="A tag can move between trials and hosts.",
    action="Pin the reference by digest.",
)


@check(
    PULL_IN_WINDOW,
    fine="no pull inside a window",
    example=lambda r: replace(r, log={"file": "stderr.log", "line": 3, "pull_lines": (3, 9)}),
)
def pull_in_window(record: Record) -> Outcomes:
    """Docker pulled the image after the measurement had begun."""
    lines = record.log.get("pull_lines")
    if lines and record.row.status == "failed" and lines[0] == lines[1]:
        return  # looked for and not found: nothing was pulled
    if lines:
        layers = record.log.get("layers_downloaded", 0)
        yield Found(
            f"{record.log.get('ref') or 'an image'} was pulled inside the window "
            f"({layers} layers downloaded)",
            place(
                record,
                line=lines[0],
                last_line=lines[1],
                layers_downloaded=layers,
                digest=record.row.digest,
            ),
        )
    elif not (record.log.get("file") or record.container or record.expected):
        yield Unknown("no log of this run")


@campaign_check(
    IMAGE_UNPINNED,
    fine="every image is known by digest",
    example=lambda c: replace(
        c, records=tuple(replace(r, row=replace(r.row, digest=None)) for r in c.records)
    ),
)
def image_unpinned(campaign: Campaign) -> Outcomes:
    """Images without a digest."""
    ran = [
        r
        for r in campaign.records
        if r.row.kind == "workload" and r.row.status not in ("missing", "skipped")
    ]
    if not ran:
        yield Unknown("no trial ran a workload")
    for image, trials in sorted(grouped(ran, lambda r: r.row.image).items()):
        without = [r for r in trials if r.row.digest is None]
        if without:
            known = len(trials) - len(without)
            yield Found(
                f"the image's digest is not known in {len(without)} of {len(trials)} trials",
                place(without[0], unknown=len(without), known=known),
                subject=f"image {image}",
            )
