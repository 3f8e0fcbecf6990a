"""Findings: what is wrong with a trial, a host, an image or a run, under a stable code.

A check ends as ``found``, ``not-found`` or ``undecidable``. The last is shown and never taken for fine.
Severity ``error`` takes the subject out of the statistics, ``warning`` stands beside the number,
``info`` was handled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wattbench.analysis.model.finding_codes import Code, Severity, Verdict, code_named


@dataclass(frozen=True)
class Effect:
    """A measured effect of what a finding names.

    Attributes:
        code: the finding's code.
        change: what was changed, for example ``bytecode: absent → compiled``.
        energy_pct: difference in energy, %; negative saves.
        low_pct: lower end of its interval.
        high_pct: upper end.
        run_id: the run that measured it.
        energy_source: ``measured`` or ``modelled``.
    """

    code: str
    change: str
    energy_pct: float
    low_pct: float
    high_pct: float
    run_id: str
    energy_source: str

    def sentence(self) -> str:
        """One line for people."""
        mark = "" if self.energy_source == "measured" else " (modelled, not measured)"
        return (
            f"{self.change}: {self.energy_pct:+.1f} % energy "
            f"[{self.low_pct:+.1f}, {self.high_pct:+.1f}], run {self.run_id}{mark}"
        )


#: Numbers, files and lines behind a finding: JSON values, stored and shown as they are.
Evidence = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One check's outcome for one subject.

    Attributes:
        code: the name of a declared code.
        verdict: found, not-found or undecidable.
        severity: what a found one does; a not-found row carries what it would have had.
        subject: ``run``, ``campaign``, ``host NAME``, ``image NAME`` or
            ``trial HOST/NNN-IMAGE/ATTEMPT`` (imported: ``trial FOLDER/FILE``).
        message: one sentence with numbers and units.
        evidence: numbers, files and lines (``{"file": …, "line": …}``) behind the message; JSON values.
        action: the next step; the code's own unless the check gives another.
        source: (images) supports the claim that it costs; the code's own unless the check gives another.
        effect: (images) measured, where one was given for the code.
    """

    code: str
    verdict: Verdict
    severity: Severity
    subject: str
    message: str
    evidence: Evidence = field(default_factory=dict)
    action: str = ""
    source: str = ""
    effect: Effect | None = None

    def __post_init__(self) -> None:
        try:
            code_named(self.code)
        except KeyError:
            raise ValueError(f"unknown finding code {self.code!r}") from None

    @property
    def definition(self) -> Code:
        """What the code means."""
        return code_named(self.code)

    @property
    def next_step(self) -> str:
        """What to do."""
        return self.action or self.definition.action

    @property
    def why(self) -> str:
        """Why it matters: the measured effect, else a sentence and what supports it."""
        if self.effect is not None:
            return self.effect.sentence()
        return f"{self.definition.why} {self.source or self.definition.source}".strip()

    @property
    def is_found_error(self) -> bool:
        """Whether this finding invalidates its subject."""
        return self.verdict is Verdict.FOUND and self.severity is Severity.ERROR

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready dict; source and effect stand in those of an image."""
        plain: dict[str, object] = {
            "code": self.code,
            "verdict": str(self.verdict),
            "severity": str(self.severity),
            "subject": self.subject,
            "message": self.message,
            "evidence": dict(self.evidence),
            "action": self.next_step,
        }
        if not self.definition.source:
            return plain
        return plain | {
            "source": self.source or self.definition.source,
            "effect": vars(self.effect) if self.effect else None,
        }


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
    usual = code_named(code).severity
    return Finding(code, verdict, severity or usual, subject, message, evidence, action)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Found before undecidable before not found, errors first."""
    rank = {Verdict.FOUND: 0, Verdict.UNDECIDABLE: 1, Verdict.NOT_FOUND: 2}
    severities = {severity: place for place, severity in enumerate(Severity)}

    def key(f: Finding) -> tuple[int, int, int, str, str]:
        return rank[f.verdict], severities[f.severity], f.definition.place, f.code, f.subject

    return tuple(sorted(findings, key=key))


def dump(findings: Iterable[Finding]) -> str:
    """``findings.json``: a list, errors found first."""
    # One per line: readable, and json's fast encoder does not indent.
    lines = (json.dumps(f.to_dict(), ensure_ascii=False) for f in ordered(findings))
    return "[\n" + ",\n".join(lines) + "\n]\n"
