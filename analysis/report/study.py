"""A run, judged and concluded: what every section of a report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.presentation.findings import Group, groups
from wattbench.analysis.presentation.palette import Palette
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report.text import answer_text
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.factors import Effect
from wattbench.analysis.stats.results import Conclusion
from wattbench.analysis.storage.source import Source

#: What every caption ends with where joules come from a model.
MODELLED = " Modelled, not measured."
PARTLY = " Partly modelled, not measured."


@dataclass(frozen=True)
class Study:
    """A run, judged and concluded: what a report is made from.

    Attributes:
        source: where the run's files lie.
        data: tidy rows, records, findings of the checks.
        conclusion: the statistics.
        findings: of checks and statistics.
        effects: of declared factors and layers; empty without any.
        looks: colour and marker of each image.
        parts: section → its tables by name; empty while the sections make them.
    """

    source: Source
    data: RunData
    conclusion: Conclusion
    findings: tuple[Finding, ...]
    effects: tuple[Effect, ...]
    looks: Palette
    parts: Mapping[str, Mapping[str, Table]] = field(default_factory=dict)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Every table by name."""
        return {name: table for part in self.parts.values() for name, table in part.items()}

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

    @cached_property
    def found(self) -> list[Group]:
        """Findings that were found, by code."""
        return groups(self.findings, Verdict.FOUND)

    def valid(self, host: str, kind: str) -> pd.DataFrame:
        """Valid rows of one kind on a host."""
        trials = self.data.trials
        return trials[
            (trials["status"] == "valid") & (trials["host"] == host) & (trials["kind"] == kind)
        ]

    def valid_work(self, host: str) -> pd.DataFrame:
        """Valid workload rows of a host."""
        return self.valid(host, "workload")


def versions(data: RunData) -> list[tuple[str, str]]:
    """Versions of the controller's parts."""
    return [(str(k), str(v)) for k, v in data.document.get("versions", {}).items()]


def digests(data: RunData) -> list[tuple[str, str, str]]:
    """(image, reference as configured, digest)."""
    return [
        (
            name,
            image.get("ref") or image.get("runtime") or "",
            image.get("digest") or "not resolved",
        )
        for name, image in data.images.items()
    ]
