"""What every importer yields: records, published rows, and the rules by which its numbers are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record


@dataclass(frozen=True)
class DerivedRow:
    """A row of a published summary table.

    ``precision_j`` is what the last printed digit of its joules is worth; None: not known.
    """

    file: str
    line: int
    image: str
    kind: str
    run: int | None
    energy_j: float | None
    duration_s: float | None
    precision_j: float | None = None


@dataclass(frozen=True)
class Judged:
    """Trials that the importer has judged itself.

    Attributes:
        trials: of each planned trial the accepted, else the last attempt.
        findings: all, those about single trials included.
    """

    trials: tuple[Record, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Campaign:
    """An imported campaign.

    Attributes:
        name: the ``run_id`` of its rows.
        layout: the importer's layout.
        records: one per raw file or start; all attempts of a campaign that is judged already.
        judged: set where the importer has judged the trials itself.
        derived: rows of published tables.
        support: file and line of a published row → file and line of the summary line, or the raw file,
            that it was made from.
        summaries: joules and seconds by subject that the campaign itself reports: the meter's summary
            line, or the study's own measurement file.
        package_only: whether ``summaries`` and published tables cover the CPU package only, which is
            what EnergiBridge's summary line adds up.
        findings: of the import itself.
        sizes_gb: image sizes, GB.
        reference: the image the others are compared with.
        key: the name under which load, idle and published data of an image are joined.
        read_with: layouts whose files were read together with this one's.
        inferred: what was inferred from names, and how to override it; one sentence each.
        imported_rule: what the ``imported`` tables count, one sentence.
        repaired_rule: what the ``repaired`` tables count.
    """

    name: str
    layout: str
    records: tuple[Record, ...] = ()
    judged: Judged | None = None
    derived: tuple[DerivedRow, ...] = ()
    support: Mapping[tuple[str, int], tuple[str, int | None]] = field(default_factory=dict)
    summaries: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    package_only: bool = False
    findings: tuple[Finding, ...] = ()
    sizes_gb: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None
    key: Callable[[str], str] = key_of
    inferred: tuple[str, ...] = ()
    read_with: frozenset[str] = frozenset()
    imported_rule: str = ""
    repaired_rule: str = ""
