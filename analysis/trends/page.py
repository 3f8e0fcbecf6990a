"""The page of a comparison: one self-contained HTML file in the report's style."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from wattbench.analysis.model.escaping import content_policy
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.presentation import formatting
from wattbench.analysis.presentation import html as report_page
from wattbench.analysis.presentation.palette import Palette, looks_of
from wattbench.analysis.presentation.scales import Scale, scale_of
from wattbench.analysis.report import sections
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
    made = report_page.environment().overlay(
        loader=jinja2.ChoiceLoader(
            [jinja2.FileSystemLoader(_TEMPLATES), jinja2.FileSystemLoader(report_page.TEMPLATES)]
        )
    )
    template = "nights.html.j2" if result.is_nights else "runs.html.j2"
    return str(
        made.get_template(template).render(
            policy=content_policy(_TEMPLATES, report_page.TEMPLATES),
            css=report_page.css() + "\n" + (_TEMPLATES / "compare.css").read_text(encoding="utf-8"),
            result=result,
            sentence_=headline.sentence(result),
            looks=looks,
            mark=_mark(result),
            found=sections.groups(result.findings, Verdict.FOUND),
            unknown=sections.groups(result.findings, Verdict.UNDECIDABLE),
            passed=sections.groups(result.findings, Verdict.NOT_FOUND),
            facts=_facts(result),
            facts_total=len(result.facts),
            **(_nights(result, looks) if result.is_nights else _few(result, looks)),
        )
    )


def _mark(result: Comparison) -> str:
    return {
        "modelled": "Modelled, not measured.",
        "mixed": "Partly modelled, not measured.",
    }.get(result.energy_source or "", "")


def _facts(result: Comparison) -> list[dict[str, str]]:
    """Changed facts, newest first; the same change on several hosts is one row."""
    rows: dict[tuple[int, str, str, str, str], list[str]] = {}
    for c in result.facts:
        rows.setdefault((c.run, c.what, c.image, c.before, c.after), []).append(c.host)
    return [
        {
            "night": headline.label(result, run),
            "run_id": result.runs[run].run_id,
            "hosts": formatting.listed([h for h in hosts if h]) or "all hosts",
            "what": f"{what} of {image}" if image else what,
            "before": short(before),
            "after": short(after),
        }
        for (run, what, image, before, after), hosts in sorted(rows.items(), reverse=True)[:_LISTED]
    ]


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


def _nights(result: Comparison, looks: Palette) -> dict[str, Any]:
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
    return HostPart(host, sections.slug(host.host or "host"), panels, own, quarantine, left_out)


# Few runs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One interval; places are % of the axis."""

    name: str
    run: str
    variable: str
    at: float | None
    low: float | None
    high: float | None
    estimate: str
    interval: str
    verdict: str
    detail: str


@dataclass(frozen=True)
class Axis:
    """Rows with their axis."""

    title: str
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float
    margin: tuple[float, float]


def _few(result: Comparison, looks: Palette) -> dict[str, Any]:
    effects = side_by_side.effects(result.runs, result.conclusions)
    changes = side_by_side.verdict_changes(effects)
    names = {r.run_id: headline.label(result, i) for i, r in enumerate(result.runs)}
    shown = effects[effects["image"] != effects["reference"]] if len(effects) else effects
    hosts = [
        _axis(
            str(host),
            [
                _effect_row(r, names, looks)
                for r in rows.sort_values("image", kind="stable").to_dict("records")
            ],
            result,
        )
        for host, rows in shown.groupby("host", sort=True)
    ]
    return {
        "names": names,
        "differences": _axis(
            "",
            [
                _difference_row(result, d, looks)
                for d in sorted(result.differences, key=lambda d: (d.host_after, d.image, d.after))
            ],
            result,
        )
        if result.differences
        else None,
        "hosts": hosts,
        "verdict_changes": [
            row | {"run_before": names[row["run_before"]], "run_after": names[row["run_after"]]}
            for row in changes.to_dict("records")
        ],
        "joules": [
            {
                "subject": d.subject,
                "run_before": headline.label(result, d.before),
                "run_after": headline.label(result, d.after),
                "before": formatting.significant(d.joules_before),
                "after": formatting.significant(d.joules_after),
                "change": formatting.pct(100 * (d.joules_after / d.joules_before - 1), 1),
            }
            for d in result.differences
        ],
    }


@dataclass(frozen=True)
class _Raw:
    name: str
    run: str
    variable: str
    estimate: float | None
    low: float | None
    high: float | None
    verdict: str
    detail: str


def _effect_row(row: dict[Any, Any], names: dict[str, str], looks: Palette) -> _Raw:
    return _Raw(
        str(row["image"]), names[row["run_id"]], looks[str(row["image"])].variable,
        _or_none(row["estimate_pct"]), _or_none(row["lower_pct"]), _or_none(row["upper_pct"]),
        _text(row["verdict"]) or "–", _text(row["reason"]),
    )  # fmt: skip


def _difference_row(result: Comparison, d: side_by_side.Difference, looks: Palette) -> _Raw:
    interval = d.pair.simultaneous
    run = f"{headline.label(result, d.before)} → {headline.label(result, d.after)}"
    return _Raw(
        d.subject, run, looks[d.image].variable, d.pair.estimate_pct,
        interval.lower_pct if interval else None, interval.upper_pct if interval else None,
        str(d.pair.verdict), d.pair.reason or "",
    )  # fmt: skip


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)


def _or_none(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _axis(title: str, raw: list[_Raw], result: Comparison) -> Axis:
    margin = result.options.regression_pct
    values = [v for r in raw for v in (r.estimate, r.low, r.high) if v is not None]
    scale = scale_of(values, margin)

    def place(pct: float | None) -> float | None:
        return None if pct is None else round(100 * scale.place(pct), 2)

    rows = tuple(
        Row(
            r.name, r.run, r.variable, place(r.estimate), place(r.low), place(r.high),
            formatting.pct(r.estimate, 1), _interval(r), r.verdict, r.detail,
        )
        for r in raw
    )  # fmt: skip
    zero, low, high = (_at(scale, v) for v in (0.0, -margin, margin))
    ticks = tuple((_at(scale, t), f"{t:+g}" if t else "0") for t in scale.ticks())
    return Axis(title, rows, ticks, zero, (low, high))


def _at(scale: Scale, pct: float) -> float:
    return round(100 * scale.place(pct), 2)


def _interval(row: _Raw) -> str:
    if row.estimate is None:
        return "–"
    if row.low is None or row.high is None:
        return "unbounded"
    return f"{formatting.number(row.low, 1, signed=True)} to {formatting.number(row.high, 1, signed=True)} %"
