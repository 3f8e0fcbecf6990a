"""The answer in one sentence, and what is true of the whole comparison."""

from __future__ import annotations

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.presentation import formatting
from wattbench.analysis.presentation.formatting import number
from wattbench.analysis.stats.results import PairVerdict
from wattbench.analysis.trends.compare import Comparison
from wattbench.analysis.trends.levels import CONTROL
from wattbench.analysis.trends.side_by_side import Difference

#: Regressions or differences that the sentence names.
_NAMED = 2


def sentence(result: Comparison) -> str:
    """What a reader has to know first."""
    answer = _nights(result) if result.is_nights else _few(result)
    prefix = {
        "modelled": "Modelled, not measured: ",
        "mixed": "Partly modelled, not measured: ",
    }.get(result.energy_source or "", "")
    return prefix + answer


def label(result: Comparison, run: int) -> str:
    """A run by its night; a few runs are called A, B, C."""
    return chr(ord("A") + run) if not result.is_nights else result.runs[run].night


def _where(result: Comparison) -> str:
    hosts = formatting.count(len(result.host_names), "host")
    return f"{hosts} over {formatting.count(len(result.runs), 'night')}"


def _nights(result: Comparison) -> str:
    found = [
        f.evidence for f in result.findings if f.code == "regression" and f.verdict is Verdict.FOUND
    ]
    limit = f"{result.options.regression_pct:g} %"
    if not found:
        if not any(h.tracks for h in result.hosts):
            return f"Nothing can be followed on {_where(result)}: no host has a baseline."
        return f"No image needs {limit} more energy than before, on {_where(result)}."
    found = sorted(found, key=lambda e: -e["change_pct"])
    named = [
        f"{e['image']}{' on ' + e['host'] if e['host'] else ''} uses {number(e['change_pct'], 1)} % "
        f"more energy since {e['first_night']}"
        for e in found[:_NAMED]
    ]
    more = len(found) - len(named)
    tail = f"; and {formatting.count(more, 'more regression')}" if more else ""
    return "; ".join(named) + tail + "."


def _few(result: Comparison) -> str:
    if len(result.runs) == 1:
        return "One run only: " + _lower(result.conclusions[0].headline.sentence)
    if not result.differences:
        return "The runs stand side by side; no image was measured on the same host in both."
    decided = [
        d
        for d in result.differences
        if d.pair.verdict in (PairVerdict.LESS, PairVerdict.MORE)
        and d.pair.estimate_pct is not None
    ]
    if not decided:
        same = [d for d in result.differences if d.pair.verdict is PairVerdict.EQUIVALENT]
        if len(same) == len(result.differences):
            limit = f"±{result.options.regression_pct:g} %"
            return f"Every image needs the same energy as before, within {limit}."
        open_ = formatting.count(
            len(result.differences) - len(same), "comparison is", "comparisons are"
        )
        return f"No image is shown to need more or less energy than before; {open_} undecided."
    decided.sort(key=lambda d: -abs(d.pair.estimate_pct or 0.0))
    named = [_difference(result, d) for d in decided[:_NAMED]]
    more = len(decided) - len(named)
    tail = f"; and {more} more" if more else ""
    if not all(d.host_before and d.host_after for d in result.differences):
        tail += "; no host is named: nothing shows the runs to be of one machine"
    return "; ".join(named) + tail + "."


def _difference(result: Comparison, d: Difference) -> str:
    estimate = d.pair.estimate_pct or 0.0
    word = "more" if estimate > 0 else "less"
    against = "the control workload" if d.baseline == CONTROL else d.baseline
    return (
        f"against {against}, {d.subject} uses {number(abs(estimate), 1)} % {word} energy in run "
        f"{label(result, d.after)} than in run {label(result, d.before)} "
        f"(in joules {d.joules_before:.4g} → {d.joules_after:.4g})"
    )


def _lower(sentence_: str) -> str:
    """Continues after a colon, but for a name at its start."""
    known = ("No image", "No verdict", "Modelled", "Partly")
    return sentence_[:1].lower() + sentence_[1:] if sentence_.startswith(known) else sentence_
