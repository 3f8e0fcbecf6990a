"""A report in Markdown, for comments on pull requests: the answer, the ranking, what is wrong."""

from __future__ import annotations

from wattbench.analysis.model.escaping import code
from wattbench.analysis.model.escaping import markdown as escaped
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.presentation.findings import groups
from wattbench.analysis.presentation.palette import looks_of
from wattbench.analysis.report import answer
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.results import Conclusion


def markdown(data: RunData, conclusion: Conclusion, findings: tuple[Finding, ...]) -> str:
    """The report's first screen as Markdown."""
    counts = conclusion.counts
    valid = int((data.trials["status"] == "valid").sum())
    lines = [f"### {escaped(conclusion.headline.sentence)}", ""]
    if conclusion.headline.conditions:
        lines += [escaped(conclusion.headline.conditions), ""]
    if conclusion.headline.modelled:
        lines += ["> **Modelled, not measured.** These joules come from a power model.", ""]
    lines += [
        f"{code(data.run_id)} · {len(data.hosts)} host{'s' * (len(data.hosts) != 1)} · "
        f"{valid}/{len(data.trials)} trials valid",
        "",
    ]
    lines += [f"- {escaped(s)}" for s in answer.missing(data, conclusion)]
    ranked = answer.ranking(conclusion, looks_of(conclusion.images, conclusion.reference)).bars
    if ranked:
        level = f"{100 * (1 - conclusion.settings.alpha):g} % interval"
        lines += [
            "",
            f"| rank | image | energy vs {escaped(conclusion.reference or '')} | {level} | verdict |",
            "| ---: | :--- | ---: | :--- | :--- |",
            *(
                f"| {row.rank or '–'} | {escaped(row.image)} | {b.estimate} | {b.interval} "
                f"| {escaped(': '.join(filter(None, (b.entry.verdict, b.entry.detail))))} |"
                for row, b in zip(conclusion.ranking, ranked, strict=True)
            ),
        ]
    found = groups(findings, Verdict.FOUND)
    lines += ["", f"**Findings**: {len(found) or 'none'}" if not found else "**Findings**", ""]
    lines += [
        f"- **{g.severity}** `{g.code}` {escaped(g.subjects)}: {escaped(g.findings[0].message)}"
        for g in found
    ]
    unknown = groups(findings, Verdict.UNDECIDABLE)
    if unknown:
        lines += ["", f"Could not be decided: {', '.join(f'`{g.code}`' for g in unknown)}."]
    if not counts.get("valid"):
        lines += ["", "No workload trial is valid: nothing is compared."]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"
