"""A report as plain text, as Markdown, as a page, and as machine-readable files."""

from __future__ import annotations

import csv
import dataclasses
import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wattbench.analysis.image import sections as content
from wattbench.analysis.image.diff import Difference
from wattbench.analysis.image.provenance import Image
from wattbench.analysis.model import escaping
from wattbench.analysis.model.escaping import one_line, visible
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, dump, ordered
from wattbench.analysis.presentation import html
from wattbench.analysis.presentation.table import Grid

_TEMPLATES = Path(__file__).with_name("templates")
_OTHERS = ((Verdict.UNDECIDABLE, "Undecidable"), (Verdict.NOT_FOUND, "Not found"))


def as_text(image: Image, findings: Sequence[Finding]) -> str:
    """For a terminal."""
    facts = content.facts(image)
    lines = [f"{name:<10}{value}" for name, value in facts]
    lines += ["", f"Findings: {content.tally(findings)}"]
    for f in _of(findings, Verdict.FOUND):
        lines += ["", f"{str(f.severity).upper()}  {f.code}"]
        lines += _wrapped(f.message, "  ")
        lines += _wrapped(f"Why: {f.why}", "  ")
        lines += _wrapped(f"Next: {f.next_step}", "  ")
    for verdict, title in _OTHERS:
        if some := _of(findings, verdict):
            lines += ["", title]
            lines += [f"  {line}" for line in _brief(title, some).text()[1:]]
    return "\n".join([*lines, *_tables(content.sections(image))]) + "\n"


def as_markdown(image: Image, findings: Sequence[Finding]) -> str:
    """For a pull request."""
    lines = [f"# Energy audit of {escaping.markdown(image.name)}", ""]
    lines += Grid.of("", ("", ""), content.facts(image)).markdown()
    lines += ["", f"## Findings: {content.tally(findings)}", ""]
    for f in _of(findings, Verdict.FOUND):
        lines += [
            f"* **{f.severity} `{f.code}`** {escaping.markdown(f.message)}<br>{_why(f)}<br>"
            f"*Next:* {f.next_step}"
        ]
    for verdict, title in _OTHERS:
        if some := _of(findings, verdict):
            lines += ["", f"<details><summary>{title} ({len(some)})</summary>", ""]
            lines += [*_brief(title, some).markdown(), "", "</details>"]
    for section in content.sections(image):
        lines += ["", f"## {section.title}", ""]
        lines += section.markdown()
        lines += ["", section.note] if section.note else []
    return "\n".join(lines) + "\n"


def as_json(image: Image, findings: Sequence[Finding]) -> str:
    """One document: the image and its findings."""
    document = image.to_dict() | {"findings": [f.to_dict() for f in ordered(findings)]}
    return _json(document)


def as_html(image: Image, findings: Sequence[Finding]) -> str:
    """One self-contained page, light and dark."""
    return _page(
        title=f"Energy audit of {one_line(image.name)}",
        facts=content.facts(image),
        tally=content.tally(findings),
        found=[_for_page(f) for f in _of(findings, Verdict.FOUND)],
        others=[
            _brief(title, some) for verdict, title in _OTHERS if (some := _of(findings, verdict))
        ],
        sections=content.sections(image),
    )


def difference_as_text(difference: Difference) -> str:
    """For a terminal."""
    lines = [f"{'A':<4}{difference.a}", f"{'B':<4}{difference.b}"]
    if not difference.sections:
        lines += ["", "No difference in anything that is looked at."]
    return "\n".join([*lines, *_tables(difference.sections)]) + "\n"


def difference_as_markdown(difference: Difference) -> str:
    """For a pull request."""
    lines = [f"# {escaping.markdown(difference.title)}"]
    for section in difference.sections:
        lines += ["", f"## {section.title}", ""]
        lines += section.markdown()
    return "\n".join(lines) + "\n"


def difference_as_json(difference: Difference) -> str:
    """Every section as a list of rows by column."""
    differences = {
        section.title: [
            dict(zip(map(str, section.heads), row, strict=True)) for row in section.rows
        ]
        for section in difference.sections
    }
    return _json({"a": difference.a, "b": difference.b, "differences": differences})


def difference_as_html(difference: Difference) -> str:
    """One self-contained page."""
    return _page(
        title=difference.title,
        facts=(("A", difference.a), ("B", difference.b)),
        tally="",
        found=[],
        others=[],
        sections=difference.sections,
    )


def write(image: Image, findings: Sequence[Finding], out: Path) -> None:
    """``index.html``, ``image.json``, ``findings.json``, ``layers.csv``, ``packages.csv``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(as_html(image, findings), encoding="utf-8")
    (out / "image.json").write_text(_json(image.to_dict()), encoding="utf-8")
    (out / "findings.json").write_text(visible(dump(findings)), encoding="utf-8")
    _csv(out / "layers.csv", [dataclasses.asdict(layer) for layer in image.layers])
    _csv(out / "packages.csv", [dataclasses.asdict(one) for one in image.inventory.packages],
         ("manager", "name", "version", "where"))  # fmt: skip


def _csv(path: Path, rows: list[dict[str, Any]], names: Iterable[str] = ()) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: escaping.cell(value) for key, value in row.items()} for row in rows)


def _json(value: Any) -> str:
    return visible(json.dumps(value, indent=1, ensure_ascii=False, default=list) + "\n")


def _of(findings: Iterable[Finding], verdict: Verdict) -> list[Finding]:
    return [f for f in ordered(findings) if f.verdict is verdict]


def _brief(title: str, findings: Iterable[Finding]) -> Grid:
    return Grid.of(title, ("check", "what"), [(f.code, one_line(f.message)) for f in findings])


def _why(f: Finding) -> str:
    """With links that Markdown makes of addresses; a measured effect is text of a user's file."""
    return escaping.markdown(f.why) if f.effect is not None else f.why


def _for_page(f: Finding) -> dict[str, str]:
    return {
        "severity": str(f.severity),
        "code": f.code,
        "meaning": f.definition.meaning,
        "message": one_line(f.message),
        "why": f.definition.why,
        "source": f.source or f.definition.source,
        "effect": f.effect.sentence() if f.effect else "",
        "action": f.next_step,
    }


def _tables(sections: Iterable[Grid]) -> list[str]:
    lines = []
    for section in sections:
        lines += ["", section.title]
        lines += [f"  {line}" for line in section.text()]
        lines += [f"  {section.note}"] if section.note else []
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        one_line(text), 100, initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _page(**context: Any) -> str:
    return visible(html.render("image.html.j2", context, _TEMPLATES))
