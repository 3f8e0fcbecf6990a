"""The report of a run: one page for people, the same numbers as files for programs.

:func:`make` is the one way in, for the last task of a run and for the command line alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, dump
from wattbench.analysis.model.trials import write_csv
from wattbench.analysis.presentation import html
from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.findings import groups
from wattbench.analysis.presentation.formatting import slug
from wattbench.analysis.presentation.palette import Palette, looks_of
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import power_curves, sections, tables
from wattbench.analysis.report.figures import Artist
from wattbench.analysis.report.markdown import markdown
from wattbench.analysis.report.text import answer_text
from wattbench.analysis.runs import assemble, load, parquet
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.conclude import conclude
from wattbench.analysis.stats.factors import Effect, what_matters
from wattbench.analysis.stats.results import Conclusion
from wattbench.analysis.storage.source import Source

__all__ = ["Made", "Study", "make", "study"]

Progress = Callable[[str], None]
_TEMPLATES = Path(__file__).with_name("templates")

#: What every caption ends with where joules come from a model.
MODELLED = " Modelled, not measured."
PARTLY = " Partly modelled, not measured."

#: Raw files that the page lists; the CSV has all.
MOST_FILES = 3000


@dataclass(frozen=True)
class Study:
    """A run, judged and concluded: what a report is made from.

    Attributes:
        data: tidy rows, records, findings of the checks.
        conclusion: the statistics.
        findings: of checks and statistics.
        effects: of declared factors and layers; empty without any.
        tables: every table by name.
        looks: colour and marker of each image.
    """

    data: RunData
    conclusion: Conclusion
    findings: tuple[Finding, ...]
    effects: tuple[Effect, ...]
    tables: dict[str, Table]
    looks: Palette

    def text(self) -> list[str]:
        """The answer as lines for a terminal."""
        return answer_text(self.conclusion, self.tables["medians"].grid())

    @property
    def mark(self) -> str:
        """What captions end with."""
        sources = set(self.data.trials["energy_source"].dropna())
        if "modelled" not in sources:
            return ""
        return MODELLED if sources == {"modelled"} else PARTLY


@dataclass(frozen=True)
class Made:
    """A written report.

    Attributes:
        headline: the answer in one sentence.
        text: the answer as lines for a terminal.
        trials_parquet: the run's ``trials.parquet``.
        page: ``index.html``.
        findings: all, of checks and statistics.
        markdown: the first screen for a comment.
    """

    headline: str
    text: tuple[str, ...]
    trials_parquet: bytes
    page: Path
    findings: tuple[Finding, ...]
    markdown: str

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
    made = tables.everything(data, conclusion)
    sizes, _ = sections.sizes(made["sizes"].frame)
    sizes_mb = {image: 1000 * size for image, size in sizes.items()}
    effects = what_matters(data.trials, data.settings, data.experiment, sizes_mb)
    made |= {t.name: t for t in tables.what_matters(effects, conclusion.reference)}
    return Study(
        data,
        conclusion,
        (*data.findings, *conclusion.findings),
        effects,
        made,
        looks_of(conclusion.images, conclusion.reference),
    )


def make(source: Source, out_dir: Path, progress: Progress | None = None) -> Made:
    """Write a run's report.

    Args:
        source: the run.
        out_dir: made where it does not exist; ``index.html``, ``summary.json``, ``trials.csv``,
            ``attempts.csv``, ``phases.csv``, ``findings.json``, ``report.md``, ``report.txt``,
            ``tables/``, ``figures/``.
        progress: called with one line before each step.

    Raises:
        InputError: the source holds no run.
    """
    say = progress or _silent
    done = study(source, progress)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    say("writing tables")
    files = sections.raw_files(source)
    done.tables["raw_files"] = Table(
        "raw_files",
        "Raw files",
        f"SHA-256 {sections.checksums_from(source)}.",
        pd.DataFrame(files, columns=["file", "bytes", "sha256"]),
    )
    _write_data(done, out)
    say("drawing figures")
    drawn = figures_of(done, source)
    for figure in drawn.values():
        figure.write(out / "figures")
    say("writing index.html")
    index = out / "index.html"
    index.write_text(
        html.render("report.html.j2", _context(done, drawn), _TEMPLATES), encoding="utf-8"
    )
    text = markdown(done.data, done.conclusion, done.findings)
    (out / "report.md").write_text(text, encoding="utf-8")
    lines = tuple(done.text())
    (out / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Made(
        done.conclusion.headline.sentence,
        lines,
        parquet.parquet_bytes(done.data),
        index,
        done.findings,
        text,
    )


def _silent(_: str) -> None:
    return None


def _write_data(done: Study, out: Path) -> None:
    write_csv(done.data.trials, out / "trials.csv")
    write_csv(done.data.attempts, out / "attempts.csv")
    write_frame(done.data.phases, out / "phases.csv")
    (out / "findings.json").write_text(dump(done.findings), encoding="utf-8")
    summary = json.dumps(summary_of(done), indent=1, ensure_ascii=False, allow_nan=False)
    (out / "summary.json").write_text(summary + "\n", encoding="utf-8")
    for table in done.tables.values():
        table.write(out / "tables", done.mark.strip())


def summary_of(done: Study) -> dict[str, Any]:
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


def figures_of(done: Study, source: Source) -> dict[str, Drawing]:
    """Every figure that the data allow, by name."""
    conclusion = done.conclusion
    artist = Artist(done.looks, modelled=bool(done.mark))
    sizes, kind = sections.sizes(done.tables["sizes"].frame)
    drawn: list[Drawing | None] = [
        artist.forest(conclusion),
        artist.across(conclusion),
        artist.ranks(conclusion),
        artist.pareto(conclusion, sizes, kind, sections.optimal(done.tables["sizes"].frame)),
        artist.effects(done.effects, conclusion.settings),
    ]
    for name in done.data.hosts:
        drawn += _figures_of_host(done, artist, source, name)
    return {d.name: d for d in drawn if d is not None}


def _figures_of_host(
    done: Study, artist: Artist, source: Source, host: str
) -> list[Drawing | None]:
    trials = done.data.trials
    valid = trials[(trials["status"] == "valid") & (trials["host"] == host)]
    work, idle = valid[valid["kind"] == "workload"], valid[valid["kind"] == "idle"]
    at = slug(host)
    chosen = power_curves.typical(done.data.accepted, host)
    curves, _ = power_curves.read(source, chosen.values())
    costs = done.tables["startup"].frame
    costs = costs[costs["host"] == host]
    medians = work.groupby("image")[["startup_j", "steady_j"]].median()
    medians = medians.reindex([i for i in done.looks.images if i in medians.index]).reset_index()
    return [
        artist.spread(work, "energy_j", f"energy-{at}", "Energy per trial", host),
        artist.spread(work, "duration_s", f"time-{at}", "Time per trial", host),
        artist.energy_time(work, f"energy-time-{at}", host),
        artist.power(curves, f"power-{at}", host),
        artist.course(work, f"order-{at}", host),
        artist.rest(power_curves.rest_course(done.data.records, host), f"rest-{at}", host),
        artist.spread(idle, "energy_j", f"idle-energy-{at}", "Energy per trial while idle", host),
        artist.spread(idle, "duration_s", f"idle-time-{at}", "Time per trial while idle", host),
        artist.startup(medians, f"startup-{at}", host),
        artist.break_even(
            costs,
            str(done.conclusion.reference),
            f"break-even-{at}",
            host,
            sections.decided(done.tables["break_even"].frame, host),
        ),
    ]


def _context(done: Study, drawn: dict[str, Drawing]) -> dict[str, Any]:
    data, conclusion = done.data, done.conclusion
    word, tone = sections.lead(conclusion)
    found = groups(done.findings, Verdict.FOUND)
    trials = sections.trials(data, found)
    return {
        "data": data,
        "conclusion": conclusion,
        "findings": done.findings,
        "lead": word,
        "tone": tone,
        "mark": done.mark.strip(),
        "forest": sections.ranking(conclusion, done.looks),
        "found": found,
        "trials": trials,
        "picked": sections.pairs_to_pick(conclusion),
        "citation": sections.citation(data, conclusion),
        "unknown": groups(done.findings, Verdict.UNDECIDABLE),
        "passed": groups(done.findings, Verdict.NOT_FOUND),
        "missing": sections.missing(data, conclusion),
        "valid": int((data.trials["status"] == "valid").sum()),
        "tables": done.tables,
        "figures": drawn,
        "what_matters": sections.what_matters(done.effects),
        "meanings": sections.meanings(done.effects, data.experiment),
        "looks": done.looks,
        "facts": sections.facts_of_hosts(data),
        "problems": sections.problems(data),
        "protocol": sections.protocol(data),
        "versions": sections.versions(data),
        "digests": sections.digests(data),
        "skipped": int((data.trials["status"] == "skipped").sum()),
        "anchors": {f"host-{slug(h)}" for h in data.hosts} | {t.anchor for t in trials},
        "lost": sections.lost(data),
        "by_host": sections.by_host(conclusion),
        "rival": sections.rival(conclusion),
        "raw_files": done.tables["raw_files"].frame.head(MOST_FILES).to_numpy(object).tolist(),
    }
