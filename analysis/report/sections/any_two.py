"""Any two images that the reader picks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from wattbench.analysis.presentation.formatting import interval as interval_text
from wattbench.analysis.presentation.formatting import interval_digits, pct
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study
from wattbench.analysis.stats.results import Conclusion

#: Images up to which the page offers any two of them for comparison.
MOST_PICKED = 12


@section
class AnyTwo(Section):
    """Any two images."""

    name = "any-two"
    title = "Any two images"
    place = 30
    template = "any_two.html.j2"

    def context(self, study: Study) -> Mapping[str, object]:
        """Every ordered pair."""
        return {"picked": pairs_to_pick(study.conclusion)}


@dataclass(frozen=True)
class PickedPair:
    """One comparison that the reader can pick; ``basis`` is a host, or all of them."""

    a: str
    b: str
    basis: str
    n: str
    estimate: str
    interval: str
    verdict: str


def pairs_to_pick(conclusion: Conclusion) -> list[PickedPair]:
    """Every ordered pair of images on every basis; empty beyond :data:`MOST_PICKED` images."""
    if not 2 <= len(conclusion.images) <= MOST_PICKED:
        return []
    lines = []
    for a, b in itertools.permutations(conclusion.images, 2):
        found = [(h.host, h.pair(a, b)) for h in conclusion.hosts]
        if conclusion.across.pairs:
            found.insert(0, (f"all hosts ({conclusion.headline.basis})", conclusion.pair(a, b)))
        lines += [
            PickedPair(
                a, b, basis, str(pair.n), pct(pair.estimate_pct, interval_digits(pair.simultaneous)),
                interval_text(pair.simultaneous), str(pair.verdict),
            )
            for basis, pair in found
            if pair is not None
        ]  # fmt: skip
    return lines
