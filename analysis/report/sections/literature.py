"""Tables in the form of the published study."""

from __future__ import annotations

from collections.abc import Iterable

from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import tables
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study


@section
class Literature(Section):
    """Tables in the form of the literature."""

    name = "tables"
    title = "Tables of the literature"
    place = 60
    template = "literature.html.j2"

    def tables(self, study: Study) -> Iterable[Table]:
        """The study's tables, a basis per host."""
        data = study.data
        return tables.paper(data, study.conclusion.reference, tables.sizes_gb(data))
