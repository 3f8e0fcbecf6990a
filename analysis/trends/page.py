"""The page of a comparison: one self-contained HTML file in the report's style."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.presentation import formatting, html
from wattbench.analysis.presentation.findings import groups
from wattbench.analysis.presentation.forest import Entry, forest
from wattbench.analysis.presentation.formatting import NOTHING, slug
from wattbench.analysis.presentation.palette import Palette, looks_of
from wattbench.analysis.presentation.table import Grid, Head
from wattbench.analysis.stats.results import Interval
from wattbench.analysis.trends import charts, headline, side_by_side
from wattbench.analysis.trends.charts import Panel
from wattbench.analysis.trends.compare import Comparison
from wattbench.analysis.trends.fact_changes import short
from wattbench.analysis.trends.findings import regression
from wattbench.analysis.trends.levels import CONTROL
from wattbench.analysis.trends.series import HostNights

_TEMPLATES = Path(__file__).with_name("templates")

#: Changed facts and runs that the page lists; the tables have all.
_LISTED = 40


def render(result: Comparison) -> str:
    """The page as HTML."""
    looks = looks_of(result.images, result.reference)
    template = "nights.html.j2" if result.is_nights else "runs.html.j2"
    context = {
        "result": result,
        "sentence_": headline.sentence(result),
        "looks": looks,
        "mark": _mark(result),
        "found": groups(result.findings, Verdict.FOUND),
        "unknown": groups(result.findings, Verdict.UNDECIDABLE),
        "passed": groups(result.findings, Verdict.NOT_FOUND),
        "anchors": {f"host-{slug(name)}" for name in result.host_names if name},
        "facts": _facts(result),
        "facts_total": len(result.facts),
    }
    own = _nights(result, looks) if result.is_nights else _few(result, looks)
    return html.render(template, context | own, _TEMPLATES)


def _mark(result: Comparison) -> str:
    return {
        "modelled": "Modelled, not measured.",
        "mixed": "Partly modelled, not measured.",
    }.get(result.energy_source or "", "")


def _facts(result: Comparison) -> Grid:
    """Changed facts, newest first; the same change on several hosts is one row."""
    rows: dict[tuple[int, str, str, str, str], list[str]] = {}
    for c in result.facts:
        rows.setdefault((c.run, c.what, c.image, c.before, c.after), []).append(c.host)
    cells = [
        (
            headline.label(result, run),
            formatting.listed([h for h in hosts if h]) or "all hosts",
            f"{what} of {image}" if image else what,
            short(before),
            short(after),
        )
        for (run, what, image, before, after), hosts in sorted(rows.items(), reverse=True)[:_LISTED]
    ]
    first = "night" if result.is_nights else "since run"
    return Grid.of("What changed", (first, "host", "what", "before", "after"), cells)


# Nights -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostPart:
    """One host's section."""

    host: HostNights
    slug: str
    panels: tuple[Panel, ...]
    own: Panel | None
    quarantine: str
    left_out: str


def _nights(result: Comparison, looks: Palette) -> dict[str, object]:
    parts = [_host_part(result, h, looks) for h in result.hosts]
    images = sorted({t.image for h in result.hosts for t in h.tracks}, key=result.images.index)
    table = [
        (
            part,
            [next((p for p in part.panels if p.name == image), None) for image in images],
        )
        for part in parts
    ]
    return {"parts": parts, "followed": images, "table": table}


def _host_part(result: Comparison, host: HostNights, looks: Palette) -> HostPart:
    shown = charts.range_of(host.tracks)
    panels = tuple(
        charts.panel(
            track,
            shown,
            result.runs,
            name=track.image,
            variable=looks[track.image].variable,
            alarming=regression(track, result.options.regression_pct) is not None,
        )
        for track in sorted(host.tracks, key=lambda t: result.images.index(t.image))
    )
    own = None
    if host.own is not None:
        name = "control workload" if host.baseline.name == CONTROL else str(host.baseline.name)
        own = charts.panel(
            host.own,
            charts.range_of([host.own]),
            result.runs,
            name=f"{name}, its own joules",
            variable="muted",
            alarming=False,
            marked=False,
        )
    left_out = ", ".join(f"{n} ({why})" for why, n in host.left_out.items())
    quarantine = "" if host.quarantine is None else host.quarantine.reason
    return HostPart(host, slug(host.host or "host"), panels, own, quarantine, left_out)


# Few runs ---------------------------------------------------------------------------------------


def _few(result: Comparison, looks: Palette) -> dict[str, object]:
    effects = side_by_side.effects(result.runs, result.conclusions)
    changes = side_by_side.verdict_changes(effects)
    names = {r.run_id: headline.label(result, i) for i, r in enumerate(result.runs)}
    shown = effects[effects["image"] != effects["reference"]] if len(effects) else effects
    margin_pct = result.options.regression_pct
    hosts = [
        forest(
            [
                _effect(row, names, looks)
                for row in rows.sort_values("image", kind="stable").to_dict("records")
            ],
            margin_pct,
            str(host) or "The host",
        )
        for host, rows in shown.groupby("host", sort=True)
    ]
    differences = sorted(result.differences, key=lambda d: (d.host_after, d.image, d.after))
    return {
        "names": names,
        "differences": differences
        and forest([_difference(result, d, looks) for d in differences], margin_pct),
        "hosts": hosts,
        "verdict_changes": _verdict_changes(changes, names, result.reference),
        "joules": _joules(result),
    }


def _verdict_changes(changes: pd.DataFrame, names: dict[str, str], reference: str | None) -> Grid:
    rows = [
        (row["host"] or NOTHING, row["image"], names[row["run_before"]], row["verdict_before"],
         names[row["run_after"]], row["verdict_after"])
        for row in changes.to_dict("records")
    ]  # fmt: skip
    heads = ("host", "image", "run", "verdict", "later run", "its verdict")
    title = f"Changed verdicts against {reference}"
    return Grid.of(title, heads, rows, note="no verdict of an image that two runs share changed")


def _joules(result: Comparison) -> Grid:
    rows = [
        (
            d.subject,
            f"{headline.label(result, d.before)} → {headline.label(result, d.after)}",
            formatting.significant(d.joules_before),
            formatting.significant(d.joules_after),
            formatting.pct(100 * (d.joules_after / d.joules_before - 1), 1),
        )
        for d in result.differences
    ]
    heads = (Head("image"), Head("runs"), Head("before", "J", True), Head("after", "J", True),
             Head("change", "", True))  # fmt: skip
    caption = "Not relative to anything: the host’s own changes are in it."
    return Grid("Median joules per trial", heads, tuple(rows), caption)


def _effect(row: dict[Any, Any], names: dict[str, str], looks: Palette) -> Entry:
    estimate, low, high = (_or_none(row[f"{c}_pct"]) for c in ("estimate", "lower", "upper"))
    bounds = None if estimate is None else Interval(estimate, low, high, 0.95)
    return Entry(
        str(row["image"]), looks[str(row["image"])].variable, estimate, bounds,
        _text(row["verdict"]) or NOTHING, _text(row["reason"]), names[row["run_id"]],
    )  # fmt: skip


def _difference(result: Comparison, d: side_by_side.Difference, looks: Palette) -> Entry:
    runs = f"{headline.label(result, d.before)} → {headline.label(result, d.after)}"
    return Entry(
        d.subject, looks[d.image].variable, d.pair.estimate_pct, d.pair.simultaneous,
        str(d.pair.verdict), d.pair.reason or "", runs,
    )  # fmt: skip


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)


def _or_none(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
