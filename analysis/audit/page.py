"""The audit's page: one self-contained HTML file, for light and dark screens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from wattbench.analysis.audit import believed, figures
from wattbench.analysis.audit.tables import BASES
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.presentation import html
from wattbench.analysis.presentation.findings import Group, groups
from wattbench.analysis.presentation.formatting import NOTHING, pct, shortened
from wattbench.analysis.presentation.table import Grid, Head, Table, cell, head, plain

if TYPE_CHECKING:
    from wattbench.analysis.audit.result import Audit

#: Findings of a code, and trials out of the statistics, that the page lists; all are in the CSV and JSON.
_LISTED = 60
#: Rows of a table that the page shows.
_ROWS = 400

#: Findings about images in a registry, whatever a treatment is.
_ABOUT_IMAGES = frozenset({"pull-in-window", "image-unpinned"})

_TEMPLATES = Path(__file__).with_name("templates")
#: Tables that stand side by side, basis by basis.
_COMPARED = ("energy", "time", "idle_energy", "idle_time")

_TITLES = {
    "energy": "Energy under load, J", "time": "Time under load, s", "normality": "Normality (Shapiro–Wilk)",
    "omnibus": "All images together (Kruskal–Wallis)", "dunn": "Pairs (Dunn, Bonferroni)",
    "effects": "Effects: difference of means, Cliff's delta", "relative": "Against the reference image",
    "idle_energy": "Energy idle, J", "idle_time": "Time idle, s", "domains": "Domains of the valid trials",
    "repairs": "Trials: imported, repaired, taken out",
    "verdicts": "Every pair: % energy of the first image against the second, intervals that hold together",
    "undefined": "Empty cells, and why",
}  # fmt: skip


def write(result: Audit, summary: Mapping[str, Any], out: Path) -> None:
    """Write ``index.html`` and ``figures/*.svg``."""
    words = believed.in_their_words if result.campaign.judged is None else str
    is_modelled = "modelled" in summary["energy_source"]
    drawn = figures.draw(result.tables.trials, modelled=is_modelled, key=result.campaign.key)
    for figure in drawn.values():
        figure.write(out / "figures")
    context = {
        "summary": summary,
        "words": words,
        "as_it_is": str,
        "about_images": _ABOUT_IMAGES,
        "groups": [(g, _rows(g, words)) for g in groups(result.findings, Verdict.FOUND)],
        "undecidable": [f for f in result.findings if f.verdict is Verdict.UNDECIDABLE],
        "fine": [f for f in result.findings if f.verdict is Verdict.NOT_FOUND],
        "bases": result.tables.tables["bases"].to_dict("records"),
        "before_after": [
            _worded(_before_after(name, result.tables.tables[name], result.campaign.key), words)
            for name in _COMPARED
            if not result.tables.tables[name].empty
        ],
        "tables": [
            _worded(_grid(name, table), words)
            for name, table in result.tables.tables.items()
            if name not in (*_COMPARED, "bases") and not table.empty
        ],
        "answers": result.answers,
        "doubted": result.has_errors,
        "figures": drawn,
        "out_of_statistics": _worded(_out_of_statistics(result), words),
        "mark": "Modelled, not measured." if is_modelled else "",
    }
    (out / "index.html").write_text(html.render("audit.html.j2", context, _TEMPLATES), "utf-8")


def _out_of_statistics(result: Audit) -> Grid:
    out = [r.row for r in result.trials if r.row.status != "valid" and not r.log.get("derived")]
    more = f"{len(out) - _LISTED} more in trials.csv" if len(out) > _LISTED else ""
    return Grid.of(
        "Trials that are not valid",
        ("image", "kind", "run", "status", "reason", "raw file"),
        [
            [cell(v) for v in (r.image, r.kind, r.run, r.status, r.reason, r.raw)]
            for r in out[:_LISTED]
        ],
        "run",
        more,
    )


def _grid(name: str, table: pd.DataFrame) -> Grid:
    left = len(table) - _ROWS
    note = f"{left} more rows in tables/{name}.csv" if left > 0 else ""
    grid = Table(name, _TITLES[name], "", table.head(_ROWS), note=note).grid()
    # In a run's report the basis is a host.
    heads = (
        replace(h, label=c) if c == "basis" else h for c, h in zip(table, grid.heads, strict=True)
    )
    return replace(grid, heads=tuple(heads))


def _worded(grid: Grid, words: Callable[[str], str]) -> Grid:
    """A table whose title and heads are in the campaign's words."""
    heads = tuple(replace(h, label=words(h.label)) for h in grid.heads)
    return replace(grid, title=words(grid.title), heads=heads)


def _rows(
    group: Group, words: Callable[[str], str]
) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """(subject, message, place, evidence) of a group's findings."""
    return [
        (_subject(f, words), f.message, _place(f), _evidence(f)) for f in group.findings[:_LISTED]
    ]


def _subject(f: Finding, words: Callable[[str], str]) -> str:
    """Whose a finding is; of a file that its place names no more than "trial"."""
    kind, _, name = f.subject.partition(" ")
    return (
        kind if f.subject == f"trial {f.evidence.get('file')}" else f"{words(kind)} {name}".strip()
    )


def _place(f: Finding) -> str:
    """``file:line`` of a finding, or of its first example."""
    evidence = f.evidence
    if "file" not in evidence:
        examples = (
            evidence.get("examples") or evidence.get("variants") or evidence.get("levels") or []
        )
        evidence = next((e for e in examples if e.get("file")), {})
    file, line = evidence.get("file"), evidence.get("line")
    return f"{file}:{line}" if file and line else str(file or "")


def _evidence(f: Finding) -> list[tuple[str, str]]:
    return [
        (str(k), shortened(plain(v), 400))
        for k, v in f.evidence.items()
        if k not in ("file", "line") and v not in (None, [], {}, ())
    ]


def _before_after(name: str, table: pd.DataFrame, key: Callable[[str], str]) -> Grid:
    """One row per image and basis, with the change of its median from the first basis that has one."""
    bases = [b for b in BASES if (table["basis"] == b).any()]
    values = [str(c) for c in table.columns if c not in ("basis", "image")]
    median = next(c for c in values if c.startswith("median"))
    images: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in table.to_dict("records"):
        images[key(str(row["image"]))][str(row["basis"])] = {str(k): v for k, v in row.items()}
    rows = []
    for image, mine in sorted(images.items()):
        present = [b for b in bases if b in mine]
        before = next((m for b in present if (m := mine[b][median])), None)
        for basis in present:
            cells = [cell(mine[basis][c], head(c)[2]) for c in values]
            after = mine[basis][median]
            is_first = basis == present[0] or not before or not after
            change = NOTHING if is_first else pct(100 * (after / before - 1), 2)
            rows.append((image, basis, *cells, change))
    heads = [Head("image"), Head("basis"), *(Head(*head(c)[:2], True) for c in values)]
    grid = Grid(
        _TITLES[name], (*heads, Head("change of the median", "", True)), tuple(rows), name=name
    )
    return grid.without_empty_columns()
