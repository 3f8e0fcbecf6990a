"""Findings as pages show them: grouped by severity and code, with links to what they are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wattbench.analysis.model.finding_codes import CODES, Severity, Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.presentation.formatting import slug, stop


def target(subject: str) -> str:
    """Anchor of a finding's subject: ``trial lab-a/002-slim/1`` → ``trial-lab-a-002-slim``; may be empty."""
    kind, _, name = subject.partition(" ")
    if kind == "trial" and name.count("/") == 2:
        return slug(f"trial {name.rpartition('/')[0]}")
    return slug(subject) if kind == "host" and name else ""


@dataclass(frozen=True)
class Group:
    """Findings of one code, verdict and severity.

    Attributes:
        code: the stable code.
        severity: ``error``, ``warning`` or ``info``.
        message: of the first, or how many there are.
        findings: all.
    """

    code: str
    severity: str
    findings: tuple[Finding, ...]

    @property
    def meaning(self) -> str:
        """What was seen."""
        return CODES[self.code].meaning

    @property
    def why(self) -> str:
        """Why it matters."""
        return CODES[self.code].why

    @property
    def subjects(self) -> str:
        """One subject by name, more by number and kind."""
        names = list(dict.fromkeys(f.subject for f in self.findings))
        if len(names) == 1:
            return names[0]
        kinds = sorted({n.split(" ")[0] for n in names})
        kind = kinds[0] if len(kinds) == 1 else "subject"
        return f"{len(names)} {kind}s"

    @property
    def anchor(self) -> str:
        """Anchor of the group on the page."""
        word = "undecidable-" if self.findings[0].verdict is Verdict.UNDECIDABLE else ""
        return f"finding-{word}{self.code}-{self.severity}"

    @property
    def subjects_at(self) -> str:
        """Anchor of the subject where there is only one."""
        return target(self.findings[0].subject) if len(self.findings) == 1 else ""

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """(message with its subject, anchor of the subject) of each finding, in order."""
        return tuple((f"{f.subject}: {stop(f.message)}", target(f.subject)) for f in self.findings)

    @property
    def actions(self) -> tuple[str, ...]:
        """What to do, each once."""
        return tuple(dict.fromkeys(f.action or CODES[f.code].action for f in self.findings))


def groups(findings: Iterable[Finding], verdict: Verdict) -> list[Group]:
    """Findings of a verdict by severity and code, errors first."""
    found: dict[tuple[int, int], list[Finding]] = {}
    severities, codes = list(Severity), list(CODES)
    for f in findings:
        if f.verdict is verdict:
            key = (severities.index(f.severity), codes.index(f.code))
            found.setdefault(key, []).append(f)
    return [
        Group(codes[c], str(severities[s]), tuple(group)) for (s, c), group in sorted(found.items())
    ]
