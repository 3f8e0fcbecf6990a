"""What the work costs: energy, money and carbon of units of work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import costs, tables
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study


@section
class Costs(Section):
    """What the work costs, by the figures that the experiment states."""

    name = "costs"
    title = "What the work costs"
    place = 55

    def tables(self, study: Study) -> Iterable[Table]:
        """KWh, money, CO2e and SCI."""
        data = study.data
        return [costs.costs(data, tables.steady(data), study.conclusion, tables.unit_of(data))]

    def sentences(self, study: Study) -> Sequence[str]:
        """What each image needs more or less than the reference per year."""
        return costs.yearly(study.tables["costs"])
