"""How a check ends: it yields what it found and what it could not decide; nothing means not found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from wattbench.analysis.model.finding_codes import CODES, Severity, Verdict
from wattbench.analysis.model.findings import Evidence, Finding


@dataclass(frozen=True)
class Found:
    """Something is wrong.

    Attributes:
        message: one sentence with numbers and units.
        evidence: the numbers, files and lines behind it.
        severity: other than the code's usual one.
        subject: other than the one the check was asked about.
        action: other than the code's own.
    """

    message: str
    evidence: Evidence = field(default_factory=dict)
    severity: Severity | None = None
    subject: str | None = None
    action: str = ""


@dataclass(frozen=True)
class Unknown:
    """The data does not show whether something is wrong."""

    why: str


Outcome = Found | Unknown
Outcomes = Iterator[Outcome]

_WORST_FIRST = list(Severity)


def merged(code: str, outcomes: Iterable[Outcome]) -> Outcome | None:
    """The outcomes of one subject as one: the worst found leads and the others follow it.

    A cause that is added never lowers the severity, and what could not be decided never hides what
    was found. None: not found.
    """
    everything = tuple(outcomes)
    if len(everything) < 2:
        return everything[0] if everything else None
    usual = CODES[code].severity
    found = sorted(
        (o for o in everything if isinstance(o, Found)),
        key=lambda o: _WORST_FIRST.index(o.severity or usual),
    )
    if found:
        evidence = {k: v for o in reversed(found) for k, v in o.evidence.items()}
        text = "; ".join(dict.fromkeys(o.message for o in found))
        return replace(found[0], message=text, evidence=evidence)
    whys = dict.fromkeys(o.why for o in everything if isinstance(o, Unknown))
    return Unknown("; ".join(whys))


def to_finding(code: str, outcome: Outcome | None, subject: str, fine: str = "") -> Finding:
    """An outcome as a finding.

    Args:
        code: of the check.
        outcome: of the check; None: not found.
        subject: what was checked.
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
