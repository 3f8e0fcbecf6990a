"""What every importer yields: records, derived rows, and what was met on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record


@dataclass(frozen=True)
class DerivedRow:
    """A row of somebody's summary table."""

    file: str
    line: int
    image: str
    kind: str
    run: int | None
    energy_j: float | None
    duration_s: float | None


@dataclass(frozen=True)
class Campaign:
    """An imported campaign.

    Attributes:
        name: the ``run_id`` of its rows.
        layout: ``study``, ``derived``, ``wattbench`` or ``experiment-runner``.
        records: one a raw file or start.
        derived: rows of published tables.
        summaries: imported joules and seconds by subject: the meter's summary line, or the study's
            own measurement file.
        findings: of the import itself.
        sizes_gb: image sizes, GB.
        reference: the image the others are compared with.
        imported_rule: what the ``imported`` tables count, one sentence.
        repaired_rule: what the ``repaired`` tables count.
    """

    name: str
    layout: str
    records: tuple[Record, ...] = ()
    derived: tuple[DerivedRow, ...] = ()
    summaries: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    sizes_gb: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None
    imported_rule: str = ""
    repaired_rule: str = ""
