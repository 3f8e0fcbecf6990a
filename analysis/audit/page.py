"""The audit's page: one self-contained HTML file, for light and dark screens."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from wattbench.analysis.audit import figures
from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.audit.tables import BASES
from wattbench.analysis.model.escaping import content_policy
from wattbench.analysis.model.finding_codes import CODES, Severity, Verdict
from wattbench.analysis.model.findings import Finding

if TYPE_CHECKING:
    from wattbench.analysis.audit.run import Audit

_TEMPLATES = Path(__file__).with_name("templates")

#: Findings of a code, and trials out of the statistics, that the page lists; all are in the CSV and JSON.
_LISTED = 60

_TITLES = {
    "energy": "Energy under load, J", "time": "Time under load, s", "normality": "Normality (Shapiro–Wilk)",
    "omnibus": "All images together (Kruskal–Wallis)", "dunn": "Pairs (Dunn, Bonferroni)",
    "effects": "Effects: difference of means, Cliff's delta", "relative": "Against the reference image",
    "idle_energy": "Energy idle, J", "idle_time": "Time idle, s", "domains": "Domains of the valid trials",
    "repairs": "Trials: imported, repaired, taken out",
    "verdicts": "Every pair: % energy of image_a against image_b, intervals that hold together",
    "undefined": "Empty cells, and why",
}  # fmt: skip


def write(result: Audit, summary: Mapping[str, Any], out: Path) -> None:
    """Write ``index.html`` and ``figures/*.svg``."""
    drawn = figures.draw(result.tables.trials)
    out_of_statistics = [r.row for r in result.trials if r.row.status != "valid"]
    (out / "figures").mkdir(exist_ok=True)
    for name, svg in drawn.items():
        (out / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    html = environment.get_template("audit.html").render(
        policy=content_policy(_TEMPLATES),
        summary=summary,
        groups=_groups(result.findings),
        undecidable=[f for f in result.findings if f.verdict is Verdict.UNDECIDABLE],
        fine=[f for f in result.findings if f.verdict is Verdict.NOT_FOUND],
        bases=result.tables.tables["bases"].to_dict("records"),
        before_after=[
            (_TITLES[name], _before_after(result.tables.tables[name]))
            for name in ("energy", "time", "idle_energy", "idle_time")
            if not result.tables.tables[name].empty
        ],
        tables=[
            (name, _TITLES[name], list(table.columns), table.to_numpy(dtype=object).tolist())
            for name, table in result.tables.tables.items()
            if name not in ("energy", "time", "idle_energy", "idle_time", "bases")
            and not table.empty
        ],
        answers=result.answers,
        doubted=result.has_errors,
        figures=drawn,
        out_of_statistics=out_of_statistics[:_LISTED],
        not_valid=len(out_of_statistics),
        listed=_LISTED,
        modelled="modelled" in summary["energy_source"],
    )
    (out / "index.html").write_text(html, encoding="utf-8")


def _groups(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Found findings by severity and code, with a place for each."""
    found = [f for f in findings if f.verdict is Verdict.FOUND]
    by: defaultdict[tuple[Severity, str], list[Finding]] = defaultdict(list)
    for f in found:
        by[f.severity, f.code].append(f)
    return [
        {
            "severity": str(severity),
            "code": code,
            "meaning": CODES[code].meaning,
            "why": CODES[code].why,
            "action": by[severity, code][0].action or CODES[code].action,
            "n": len(by[severity, code]),
            "rows": [
                (_subject(f), f.message, _place(f), _evidence(f))
                for f in by[severity, code][:_LISTED]
            ],
        }
        for severity in Severity
        for code in CODES
        if (severity, code) in by
    ]


def _subject(f: Finding) -> str:
    """Whose a finding is; of a file that its place names no more than "trial"."""
    return "trial" if f.subject == f"trial {f.evidence.get('file')}" else f.subject


def _place(f: Finding) -> str:
    """``file:line`` of a finding, or of its first example."""
    evidence: Mapping[str, Any] = f.evidence
    if "file" not in evidence:
        examples = (
            evidence.get("examples") or evidence.get("variants") or evidence.get("levels") or []
        )
        evidence = next((e for e in examples if e.get("file")), {})
    file, line = evidence.get("file"), evidence.get("line")
    return f"{file}:{line}" if file and line else str(file or "")


def _evidence(f: Finding) -> list[tuple[str, str]]:
    return [
        (str(k), _short(v))
        for k, v in f.evidence.items()
        if k not in ("file", "line") and v not in (None, [], {}, ())
    ]


def _short(value: Any) -> str:
    text = _cell(value)
    return text if len(text) <= 400 else text[:397] + "…"


def _before_after(table: pd.DataFrame) -> dict[str, Any]:
    """One row an image, the bases side by side, and what the repairs changed."""
    bases = [b for b in BASES if (table["basis"] == b).any()]
    values = [c for c in table.columns if c not in ("basis", "image")]
    cells: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in table.to_dict("records"):
        cells[key_of(str(row["image"]))][str(row["basis"])] = {str(k): v for k, v in row.items()}
    change = len(bases) > 1
    rows = []
    for image in sorted(cells):
        mine = cells[image]
        line: list[Any] = [image]
        for basis in bases:
            line += [mine.get(basis, {}).get(c) for c in values]
        if change:
            median = next(c for c in values if c.startswith("median"))
            before, after = mine.get(bases[0], {}).get(median), mine.get(bases[-1], {}).get(median)
            line.append(f"{100 * (after / before - 1):+.2f} %" if before and after else "")
        rows.append(line)
    return {"bases": bases, "values": values, "rows": rows, "change": change}


def _cell(value: Any) -> str:
    """A table cell: numbers to a readable number of digits, nothing for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value == 0 or 1e-3 <= abs(value) < 1e7:
            return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4g}"
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_cell(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_cell(v) for v in value)
    return str(value)
