"""Findings: what is wrong with a trial, a host, an image or a run, under a stable code.

A check ends as ``found``, ``not-found`` or ``undecidable``. The last is shown and never taken for fine.
Severity ``error`` takes the subject out of the statistics, ``warning`` stands beside the number,
``info`` was handled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wattbench.analysis.model.finding_codes import CODES, Severity, Verdict


@dataclass(frozen=True)
class Finding:
    """One check's outcome for one subject.

    Attributes:
        code: a key of :data:`CODES`.
        verdict: found, not-found or undecidable.
        severity: what a found one does; a not-found row carries what it would have had.
        subject: ``run``, ``campaign``, ``host NAME``, ``image NAME`` or
            ``trial HOST/NNN-IMAGE/ATTEMPT`` (imported: ``trial FOLDER/FILE``).
        message: one sentence with numbers and units.
        evidence: numbers, files and lines (``{"file": …, "line": …}``) behind the message; JSON values.
        action: the next step; the code's own unless the check knows better.
    """

    code: str
    verdict: Verdict
    severity: Severity
    subject: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    action: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown finding code {self.code!r}")

    @property
    def is_found_error(self) -> bool:
        """Whether this finding invalidates its subject."""
        return self.verdict is Verdict.FOUND and self.severity is Severity.ERROR

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "code": self.code,
            "verdict": str(self.verdict),
            "severity": str(self.severity),
            "subject": self.subject,
            "message": self.message,
            "evidence": dict(self.evidence),
            "action": self.action or CODES[self.code].action,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of :meth:`to_dict`."""
        severity = Severity(data["severity"])
        CODES.adopt(data["code"], severity)
        return cls(
            code=data["code"],
            verdict=Verdict(data["verdict"]),
            severity=severity,
            subject=data["subject"],
            message=data["message"],
            evidence=data["evidence"],
            action=data.get("action", ""),
        )


def finding(
    code: str,
    verdict: Verdict,
    subject: str,
    message: str,
    *,
    severity: Severity | None = None,
    action: str = "",
    **evidence: Any,
) -> Finding:
    """A finding with its code's usual severity unless another is given."""
    return Finding(
        code, verdict, severity or CODES[code].severity, subject, message, evidence, action
    )


def dump(findings: Iterable[Finding]) -> str:
    """``findings.json``: a list, errors found first."""
    rank = {Verdict.FOUND: 0, Verdict.UNDECIDABLE: 1, Verdict.NOT_FOUND: 2}
    severities = list(Severity)
    codes = {code: place for place, code in enumerate(CODES)}
    ordered = sorted(
        findings,
        key=lambda f: (
            rank[f.verdict],
            severities.index(f.severity),
            codes[f.code],
            f.subject,
        ),
    )
    # One a line: readable, and json's fast encoder knows no indentation.
    lines = (json.dumps(f.to_dict(), ensure_ascii=False) for f in ordered)
    return "[\n" + ",\n".join(lines) + "\n]\n"
