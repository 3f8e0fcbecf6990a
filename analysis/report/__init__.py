"""The report of a run: one page for people, the same numbers as files for programs.

:func:`make` is the one way in, for the last task of a run and for the command line alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, dump
from wattbench.analysis.presentation import html
from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.findings import groups
from wattbench.analysis.presentation.palette import looks_of
from wattbench.analysis.report import answer, registry, tables
from wattbench.analysis.report.badge import badge
from wattbench.analysis.report.figures import Artist
from wattbench.analysis.report.junit import junit
from wattbench.analysis.report.markdown import markdown
from wattbench.analysis.report.registry import TEMPLATES, Section
from wattbench.analysis.report.study import Study
from wattbench.analysis.runs import assemble, load, parquet
from wattbench.analysis.stats.conclude import conclude
from wattbench.analysis.stats.endpoints import endpoint_text
from wattbench.analysis.stats.factors import what_matters
from wattbench.analysis.storage.source import Source

__all__ = ["SHORT_FORMS", "Made", "ShortForm", "Study", "make", "study", "write_data"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ShortForm:
    """A report's answer as one text for another program.

    Attributes:
        file: its name beside the page.
        of: makes it.
    """

    file: str
    of: Callable[[Study], str]


#: By the name that the command line has for it.
SHORT_FORMS = {
    "md": ShortForm("report.md", lambda done: markdown(done.data, done.conclusion, done.findings)),
    "junit": ShortForm("junit.xml", junit),
    "badge": ShortForm("badge.svg", badge),
}


@dataclass(frozen=True)
class Made:
    """A written report.

    Attributes:
        headline: the answer in one sentence.
        text: the answer as lines for a terminal.
        trials_parquet: the run's ``trials.parquet``.
        page: ``index.html``.
        findings: all, of checks and statistics.
    """

    headline: str
    text: tuple[str, ...]
    trials_parquet: bytes
    page: Path
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        """Whether a found finding is an error."""
        return any(f.is_found_error for f in self.findings)


def study(source: Source, progress: Progress | None = None) -> Study:
    """Read, judge and conclude a run.

    Raises:
        InputError: the source holds no run.
    """
    say = progress or _silent
    say(f"reading {source.place}")
    data = assemble.assemble(load.load(source))
    say(f"concluding from {len(data.trials)} trials")
    undecided = {f.code for f in data.findings if f.verdict is Verdict.UNDECIDABLE}
    conclusion = conclude(data.trials, data.settings, "unequal-work" not in undecided)
    sizes, _ = tables.size_by_image(tables.sizes(data, conclusion).frame)
    sizes_mb = {image: 1000 * size for image, size in sizes.items()}
    bare = Study(
        source,
        data,
        conclusion,
        (*data.findings, *conclusion.findings),
        what_matters(data.trials, data.settings, data.experiment, sizes_mb),
        looks_of(conclusion.images, conclusion.reference),
    )
    first = {"": (tables.ranking(conclusion), tables.medians(conclusion, data))}
    return replace(
        bare, parts=_named(first | {s.name: s.tables(bare) for s in registry.sections()})
    )


def make(source: Source, out_dir: Path, progress: Progress | None = None) -> Made:
    """Write a run's report.

    Args:
        source: the run.
        out_dir: made where it does not exist; ``index.html``, ``summary.json``, ``trials.csv``,
            ``attempts.csv``, ``phases.csv``, ``findings.json``, ``report.txt``, every file of
            :data:`SHORT_FORMS`, ``tables/``, ``figures/``.
        progress: called with one line before each step.

    Raises:
        InputError: the source holds no run.
    """
    say = progress or _silent
    done = study(source, progress)
    out = Path(out_dir)
    say("writing tables")
    write_data(done, out)
    say("drawing figures")
    drawn = _figures(done)
    for of_section in drawn.values():
        for figure in of_section.values():
            figure.write(out / "figures")
    say("writing index.html")
    index = out / "index.html"
    index.write_text(
        html.render("report.html.j2", _context(done, drawn), TEMPLATES), encoding="utf-8"
    )
    return Made(
        done.conclusion.headline.sentence,
        tuple(done.text()),
        parquet.parquet_bytes(done.data),
        index,
        done.findings,
    )


def _silent(_: str) -> None:
    return None


def write_data(done: Study, out: Path) -> None:
    """Write all of a report that needs no drawing: every file but ``index.html`` and ``figures/``."""
    out.mkdir(parents=True, exist_ok=True)
    write_frame(done.data.trials, out / "trials.csv")
    write_frame(done.data.attempts, out / "attempts.csv")
    write_frame(done.data.phases, out / "phases.csv")
    (out / "findings.json").write_text(dump(done.findings), encoding="utf-8")
    summary = json.dumps(summary_of(done), indent=1, ensure_ascii=False, allow_nan=False)
    (out / "summary.json").write_text(summary + "\n", encoding="utf-8")
    for table in done.tables.values():
        table.write(out / "tables", done.mark.strip())
    for form in SHORT_FORMS.values():
        (out / form.file).write_text(form.of(done), encoding="utf-8")
    (out / "report.txt").write_text("\n".join(done.text()) + "\n", encoding="utf-8")


def summary_of(done: Study) -> dict[str, object]:
    """``summary.json``: the answer, the counts, and the whole conclusion for programs."""
    trials, head = done.data.trials, done.conclusion.headline
    found = [f for f in done.findings if f.verdict is Verdict.FOUND]
    return {
        "schema": 1,
        "run_id": done.data.run_id,
        "headline": head.sentence,
        "conditions": head.conditions,
        "best": head.best,
        "decided": head.decided,
        "modelled": head.modelled,
        "reference": done.conclusion.reference,
        "trials": {str(k): int(v) for k, v in trials["status"].value_counts().items()},
        "planned": len(trials),
        "hosts": list(done.data.hosts),
        "images": list(done.conclusion.images),
        "findings": {
            severity: sum(f.severity == severity for f in found)
            for severity in ("error", "warning", "info")
        },
        "conclusion": replace(done.conclusion, findings=()).to_dict(),
    }


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def _named(made: Mapping[str, Iterable[_N | None]]) -> dict[str, dict[str, _N]]:
    """Section → name → what it made.

    Raises:
        InputError: two sections give the same name.
    """
    owners: dict[str, str] = {}
    found: dict[str, dict[str, _N]] = {}
    for section, parts in made.items():
        found[section] = {part.name: part for part in parts if part is not None}
        for name in found[section]:
            if owners.setdefault(name, section) != section:
                raise InputError(
                    f"report section {section!r}: its {name!r} is made by {owners[name]!r} too; "
                    "rename it or uninstall the section"
                )
    return found


def _figures(done: Study) -> dict[str, dict[str, Drawing]]:
    """Section → every figure that the data allow, by name."""
    artist = Artist(done.looks, modelled=bool(done.mark))
    return _named({s.name: s.figures(done, artist) for s in registry.sections()})


def _shown(done: Study, drawn: Mapping[str, Mapping[str, Drawing]]) -> list[tuple[Section, str]]:
    """Every section with its part of the page, empty where it has nothing to show."""
    parts: list[tuple[Section, str]] = []
    for section in registry.sections():
        is_first = not any(part for _, part in parts)
        parts.append((section, section.html(done, drawn[section.name], is_first=is_first)))
    return parts


def _context(done: Study, drawn: Mapping[str, Mapping[str, Drawing]]) -> dict[str, object]:
    data, conclusion = done.data, done.conclusion
    word, _ = answer.lead(conclusion)
    parts = _shown(done, drawn)
    endpoint = endpoint_text(data.settings.endpoint, tables.valid_work(data))
    return {
        "data": data,
        "conclusion": conclusion,
        "lead": word,
        "mark": done.mark.strip(),
        "forest": answer.ranking(conclusion, done.looks),
        "found": done.found,
        "unknown": groups(done.findings, Verdict.UNDECIDABLE),
        "passed": groups(done.findings, Verdict.NOT_FOUND),
        "missing": answer.missing(data, conclusion),
        "valid": int((data.trials["status"] == "valid").sum()),
        "skipped": int((data.trials["status"] == "skipped").sum()),
        "medians": done.tables["medians"],
        "looks": done.looks,
        "anchors": {anchor for s in registry.sections() for anchor in s.anchors(done)},
        "by_host": answer.by_host(conclusion),
        "rival": answer.rival(conclusion),
        "endpoint": endpoint[:1].upper() + endpoint[1:],
        "links": [link for s, part in parts if part for link in s.links(done)],
        "sections": [part for _, part in parts],
    }
