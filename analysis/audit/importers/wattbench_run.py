"""Importer of wattbench's own runs: the run's records, judged as its report judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.checks import Facts, check_over_time
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.runs import assemble, load
from wattbench.analysis.storage.source import open_source

IMPORTED = "every completed trial with joules, whether valid or not, over its own energy_scope"
REPAIRED = "the valid trials, one accepted attempt each, over its own energy_scope"


@dataclass(frozen=True)
class OwnRun:
    """One run, imported and judged.

    Attributes:
        campaign: its facts.
        records: every attempt, and planned trials without any.
        trials: of each planned trial the accepted, else the last attempt.
        findings: all, those about single trials included.
    """

    campaign: Campaign
    records: tuple[Record, ...]
    trials: tuple[Record, ...]
    findings: tuple[Finding, ...]


def read(folder: Path) -> OwnRun:
    """Import one run.

    Raises:
        InputError: its ``run.json`` can't be used.
    """
    data = assemble.assemble(load.load(open_source(folder)))
    images = data.experiment.get("images") or {}
    campaign = Campaign(
        name=data.run_id,
        layout="wattbench",
        records=data.records,
        sizes_gb={
            image: float(entry["size_bytes"]) / 1e9
            for image, entry in images.items()
            if isinstance(entry, Mapping) and entry.get("size_bytes")
        },
        reference=data.experiment.get("reference"),
        imported_rule=IMPORTED,
        repaired_rule=REPAIRED,
    )
    over_time = check_over_time(data.accepted, Facts())
    return OwnRun(campaign, data.records, data.accepted, (*data.findings, *over_time))
