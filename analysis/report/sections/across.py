"""What the hosts say together."""

from __future__ import annotations

from collections.abc import Iterable

from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import tables
from wattbench.analysis.report.figures import Artist
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study


@section
class Across(Section):
    """Across hosts."""

    name = "across"
    title = "Across hosts"
    place = 40
    template = "across.html.j2"

    def tables(self, study: Study) -> Iterable[Table]:
        """Combined pairs, each host's share, interactions."""
        return tables.across(study.conclusion)

    def figures(self, study: Study, artist: Artist) -> Iterable[Drawing | None]:
        """Every host's ratios, and its ranking."""
        return [artist.across(study.conclusion), artist.ranks(study.conclusion)]
