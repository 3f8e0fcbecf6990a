"""Every planned trial with its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wattbench.analysis.presentation.findings import Group, target
from wattbench.analysis.presentation.formatting import missing, number
from wattbench.analysis.presentation.table import cell
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study
from wattbench.analysis.runs.assemble import RunData

#: Trials that the page lists.
MOST_TRIALS = 2000


@section
class Trials(Section):
    """Trials."""

    name = "trials"
    title = "Trials"
    place = 80
    template = "trials.html.j2"

    def anchors(self, study: Study) -> set[str]:
        """A row per trial."""
        return {line.anchor for line in trials(study.data, study.found)}

    def context(self, study: Study) -> Mapping[str, object]:
        """The trials that the page lists."""
        return {"trials": trials(study.data, study.found)}


@dataclass(frozen=True)
class TrialLine:
    """One planned trial: ``links`` are (code, anchor) of its findings; an empty anchor: no link."""

    anchor: str
    name: str
    block: str
    status: str
    energy: str
    duration: str
    reason: str
    links: tuple[tuple[str, str], ...]


def trials(data: RunData, found: Sequence[Group]) -> list[TrialLine]:
    """Planned trials in the order of the plan, up to :data:`MOST_TRIALS`; all are in trials.csv."""
    anchors = {group.code: group.anchor for group in found}
    lines = []
    for row in data.trials.head(MOST_TRIALS).to_dict("records"):
        place = "" if missing(row["planned_position"]) else f"{row['planned_position']:03d}"
        name = f"{row['host']}/{place}-{row['image']}"
        codes = "" if missing(row.get("findings")) else str(row["findings"])
        lines.append(
            TrialLine(
                target(f"trial {name}/1"), name, cell(row["block"], "d"), str(row["status"]),
                number(row["energy_j"]), number(row["duration_s"]), cell(row["reason"]),
                tuple((code, anchors.get(code, "")) for code in codes.split()),
            )
        )  # fmt: skip
    return lines
