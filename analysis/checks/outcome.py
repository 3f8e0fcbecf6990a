"""How one probe ends: nothing found (None), :class:`Found`, or :class:`Unknown`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wattbench.analysis.model.finding_codes import CODES, Severity, Verdict
from wattbench.analysis.model.findings import Finding


@dataclass(frozen=True)
class Found:
    """Something is wrong.

    Attributes:
        message: one sentence with numbers and units.
        evidence: the numbers, files and lines behind it.
        severity: other than the code's usual one.
        subject: other than the one the probe was asked about.
        action: other than the code's own.
    """

    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity | None = None
    subject: str | None = None
    action: str = ""


@dataclass(frozen=True)
class Unknown:
    """The data can't tell."""

    why: str


Outcome = Found | Unknown | None


def to_finding(code: str, outcome: Outcome, subject: str, fine: str = "") -> Finding:
    """An outcome as a finding.

    Args:
        code: of the check.
        outcome: of its probe.
        subject: what was probed.
        fine: message of a not-found one.
    """
    usual = CODES[code].severity
    if outcome is None:
        return Finding(code, Verdict.NOT_FOUND, usual, subject, fine or "not found")
    if isinstance(outcome, Unknown):
        return Finding(code, Verdict.UNDECIDABLE, usual, subject, outcome.why)
    return Finding(
        code,
        Verdict.FOUND,
        outcome.severity or usual,
        outcome.subject or subject,
        outcome.message,
        outcome.evidence,
        outcome.action,
    )
