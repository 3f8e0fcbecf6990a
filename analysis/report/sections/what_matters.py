"""Effects of declared factors and layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from wattbench.analysis.model.experiment_document import ImageDocument
from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.formatting import count, pct
from wattbench.analysis.presentation.formatting import interval as interval_text
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import tables
from wattbench.analysis.report.figures import Artist
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study
from wattbench.analysis.stats.factors import Effect
from wattbench.analysis.stats.results import DECIDED, PairVerdict


@section
class WhatMatters(Section):
    """What matters: only where the experiment declares factors or layers."""

    name = "what-matters"
    title = "What matters"
    place = 10
    template = "what_matters.html.j2"

    def tables(self, study: Study) -> Iterable[Table]:
        """Every effect, and levels together."""
        return tables.what_matters(study.effects, study.conclusion.reference)

    def figures(self, study: Study, artist: Artist) -> Iterable[Drawing | None]:
        """Every effect on one axis."""
        return [artist.effects(study.effects, study.conclusion.settings)]

    def context(self, study: Study) -> Mapping[str, object]:
        """The effects in words, and what the names stand for."""
        return {
            "summary": summary(study.effects),
            "meanings": meanings(study.effects, study.data.images),
        }


def summary(effects: Sequence[Effect]) -> str:
    """The effects in one or two sentences; empty without any."""
    main = [e for e in effects if e.kind != "interaction"]
    estimated = [e.energy for e in main if e.energy and e.energy.estimate_pct is not None]
    if not main:
        return ""
    if not estimated:
        return "No effect can be estimated: no block holds both images of a comparison."
    largest = next((e for e in main if e.energy and e.energy.verdict in DECIDED), None)
    counted = ", ".join(
        f"{number} {verdict}"
        for verdict in PairVerdict
        if (number := sum(p.verdict is verdict for p in estimated))
    )
    rest = f"Of {count(len(estimated), 'effect')}: {counted}."
    if largest is None or largest.energy is None:
        return f"No effect on energy is shown. {rest}"
    pair = largest.energy
    return (
        f"The largest effect that is shown: {largest.name}, {pct(pair.estimate_pct)} energy "
        f"({interval_text(pair.simultaneous)}). {rest}"
    )


def meanings(
    effects: Sequence[Effect], images: Mapping[str, ImageDocument]
) -> list[tuple[str, str]]:
    """(name, what it stands for) of every level and layer."""
    found = []
    for effect in effects:
        if effect.kind == "layer":
            found.append((effect.name, effect.level.partition(": ")[2]))
        elif effect.kind == "factor":
            own, base = (images.get(i, ImageDocument()) for i in (effect.image, effect.against))
            env = {k: v for k, v in own.get("env", {}).items() if base.get("env", {}).get(k) != v}
            other = [
                str(own[k])
                for k in ("ref", "command", "framework")
                if own.get(k) not in (None, base.get(k))
            ]
            found.append((effect.name, ", ".join([*other, *(f"{k}={v}" for k, v in env.items())])))
    return [(name, text) for name, text in found if text]
