"""What an audit comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record

if TYPE_CHECKING:  # seconds of imports
    from wattbench.analysis.audit.tables import Tables
    from wattbench.analysis.audit.verdicts import Answer


@dataclass(frozen=True)
class Audit:
    """The outcome.

    Attributes:
        campaign: as imported.
        attempts: judged; the trials themselves where each has one attempt.
        trials: judged.
        findings: all of them.
        tables: on every basis.
        answers: what each basis says by this product's own statistics.
    """

    campaign: Campaign
    attempts: tuple[Record, ...]
    trials: tuple[Record, ...]
    findings: tuple[Finding, ...]
    tables: Tables
    answers: tuple[Answer, ...]

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of the treatments; trials under load and idle ones of an image are of one."""
        names = {r.row.image for r in self.trials} or {d.image for d in self.campaign.derived}
        return tuple(sorted(names))

    @property
    def has_errors(self) -> bool:
        """Whether a found finding has severity error."""
        return any(f.is_found_error for f in self.findings)
