"""The answer as plain text: the last lines of a command, and ``report.txt``."""

from __future__ import annotations

from wattbench.analysis.presentation.formatting import minus
from wattbench.analysis.presentation.palette import looks_of
from wattbench.analysis.presentation.table import Grid
from wattbench.analysis.report import answer
from wattbench.analysis.stats.results import Conclusion


def answer_text(conclusion: Conclusion, medians: Grid | None = None) -> list[str]:
    """Verdict, ranking with intervals, and medians as lines for a terminal.

    Args:
        conclusion: of a run.
        medians: joules, seconds and watts of each image; None leaves them out.
    """
    head = conclusion.headline
    lines = [minus(head.sentence), *([minus(head.conditions)] if head.conditions else [])]
    bars = answer.ranking(conclusion, looks_of(conclusion.images, conclusion.reference)).bars
    if bars:
        level = f"{100 * (1 - conclusion.settings.alpha):g} % interval"
        heads = ("image", f"energy against {conclusion.reference}", level, "verdict")
        rows = [(b.entry.name, b.estimate, b.interval, b.entry.verdict) for b in bars]
        grid = Grid.of("Ranking", heads, rows).right_aligned(1)
        lines += ["", *grid.text()]
    if medians is not None and medians.rows:
        lines += ["", f"{medians.title}:", *medians.text()]
    return lines
