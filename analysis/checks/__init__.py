"""One set of checks for live runs and imported campaigns.

``trial`` and ``campaign`` hold the two tables, a row a probe. Each probe ends as found, not-found or
undecidable; the last is shown and never taken for fine. :func:`apply` gives every record its findings and
its status; :func:`judge` adds the campaign's findings, one row for what was not found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wattbench.analysis.checks.campaign import CAMPAIGN_CHECKS, Facts
from wattbench.analysis.checks.outcome import Found, Outcome, Unknown, to_finding
from wattbench.analysis.checks.trial import TRIAL_CHECKS, TrialCheck
from wattbench.analysis.model.finding_codes import CODES, Severity
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record

__all__ = [
    "SHARED", "Facts", "apply", "check_campaign", "check_over_time", "check_trial", "judge",
]  # fmt: skip

#: Codes of which an import has one finding for all, where every trial that can be judged has it.
SHARED = frozenset(
    {
        "device-mismatch", "gpu-idle", "sampling-coarse", "meter-scope", "startup-in-window",
        "memory-pressure", "modelled-energy", "meter-disagree",
    }
)  # fmt: skip

_FINE = {check.code: check.fine for check in TRIAL_CHECKS}

#: Files named as examples of a shared fault.
_EXAMPLES = 20


def check_trial(record: Record) -> tuple[Finding, ...]:
    """Every check of one trial, found or not."""
    return tuple(
        to_finding(check.code, check.probe(record), record.subject, check.fine)
        for check in _checks_of(record)
    )


def check_campaign(
    records: Sequence[Record], facts: Facts | Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """The campaign's or run's findings: its own, and one row for what no trial showed or could tell.

    Args:
        records: all attempts.
        facts: what else is known; ``run.json``'s content will do.
    """
    return judge(records, facts)[1]


def apply(
    records: Iterable[Record], facts: Facts | Mapping[str, Any] | None = None
) -> tuple[Record, ...]:
    """Records with findings, status and reason set.

    A found error makes a trial ``invalid``; ``failed``, ``missing`` and ``skipped`` ones stay that.
    """
    return judge(tuple(records), facts)[0]


def judge(
    records: Sequence[Record], facts: Facts | Mapping[str, Any] | None = None
) -> tuple[tuple[Record, ...], tuple[Finding, ...]]:
    """Judge all trials and the campaign.

    Returns:
        the records as :func:`apply` gives them, and the findings that are not about one trial.
    """
    facts = facts if isinstance(facts, Facts) else Facts.from_run(facts or {})
    per_trial, whole = _findings(records, facts)
    judged = tuple(_with(record, per_trial.get(record.subject, ())) for record in records)
    return judged, tuple(whole)


#: The checks by kind of trial; of one that is absent nothing but this can be said.
_BY_KIND = {
    kind: tuple(c for c in TRIAL_CHECKS if kind in c.kinds)
    for kind in ("workload", "idle", "control")
}
_ABSENT = tuple(c for c in TRIAL_CHECKS if c.code == "trial-missing")


def _checks_of(record: Record) -> Sequence[TrialCheck]:
    """The checks that apply to a record."""
    absent = record.row.status in ("missing", "skipped")
    return _ABSENT if absent else _BY_KIND[record.row.kind]


@dataclass
class _Outcomes:
    """What the probes of all trials ended as.

    Attributes:
        probed: code → trials that were looked at.
        judged: code → trials that did not fail and could be told.
        unknown: code → reasons why it could not be told.
        found: code → trials of which it was found, and what.
    """

    probed: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    unknown: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    found: defaultdict[str, list[tuple[Record, Found]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @classmethod
    def of(cls, records: Iterable[Record]) -> _Outcomes:
        """Probe records."""
        outcomes = cls()
        for record in records:
            for check in _checks_of(record):
                outcome = check.probe(record)
                outcomes.probed[check.code] += 1
                if isinstance(outcome, Unknown):
                    outcomes.unknown[check.code][outcome.why] += 1
                    continue
                outcomes.judged[check.code] += record.row.status != "failed"
                if outcome is not None:
                    outcomes.found[check.code].append((record, outcome))
        return outcomes


def _findings(
    records: Sequence[Record], facts: Facts
) -> tuple[Mapping[str, list[Finding]], list[Finding]]:
    """Findings by subject of a trial, and those of the campaign."""
    outcomes = _Outcomes.of(records)
    whole = _shared(outcomes, facts)
    hoisted = {f.code for f in whole}
    per_trial: defaultdict[str, list[Finding]] = defaultdict(list)
    found_codes = Counter({code: len(found) for code, found in outcomes.found.items()})
    for code, found in outcomes.found.items():
        if code not in hoisted:
            for record, outcome in found:
                per_trial[record.subject].append(to_finding(code, outcome, record.subject))
    known = {r.subject for r in records}
    unknown = outcomes.unknown
    fine: dict[str, list[str]] = defaultdict(list)
    for row in CAMPAIGN_CHECKS:
        if (row.statistical and not facts.with_statistics) or (row.live and facts.imported):
            continue
        result = row.probe(records, facts)
        if isinstance(result, Unknown):
            unknown[row.code][result.why] += 0
            continue
        fine[row.code].append(row.fine)
        for outcome in result:
            found_codes[row.code] += 1
            finding = to_finding(row.code, outcome, facts.whole)
            if finding.subject in known:
                per_trial[finding.subject].append(finding)
            else:
                whole.append(finding)
    for check in TRIAL_CHECKS:
        fine[check.code].append(check.fine)
    whole += _closing(facts, found_codes, unknown, outcomes.probed, fine)
    return per_trial, whole


def check_over_time(records: Sequence[Record], facts: Facts) -> tuple[Finding, ...]:
    """Drift and outliers without regard to blocks, as the literature judges them."""
    findings: list[Finding] = []
    for row in CAMPAIGN_CHECKS:
        if row.statistical:
            result = row.probe(records, facts)
            outcomes: Sequence[Outcome] = (
                [result] if isinstance(result, Unknown) else result or [None]
            )
            findings += [
                to_finding(row.code, outcome, facts.whole, row.fine) for outcome in outcomes
            ]
    return tuple(findings)


def _shared(outcomes: _Outcomes, facts: Facts) -> list[Finding]:
    """Faults that every trial that can be judged has: said once."""
    findings = []
    for code in [c for c in CODES if c in SHARED]:
        hits = [(r, found) for r, found in outcomes.found[code] if r.row.status != "failed"]
        serious = Severity.ERROR in {f.severity or CODES[code].severity for _, f in hits}
        if len(hits) < max(2, outcomes.judged[code]) or (serious and not facts.imported):
            continue
        first = [found for _, found in hits[:_EXAMPLES]]
        findings.append(
            to_finding(
                code,
                Found(
                    f"all {len(hits)} trials that can be judged: {first[0].message}",
                    {k: v for k, v in first[0].evidence.items() if k in ("file", "line")}
                    | {
                        "trials": len(hits),
                        "images": sorted({r.row.image for r, _ in hits}),
                        "examples": [dict(o.evidence) for o in first],
                    },
                    Severity.ERROR if serious else first[0].severity,
                ),
                facts.whole,
            )
        )
    return findings


def _closing(
    facts: Facts,
    found: Counter[str],
    unknown: Mapping[str, Counter[str]],
    probed: Counter[str],
    fine: Mapping[str, Sequence[str]],
) -> list[Finding]:
    """One row a code for what was not found, and one for what could not be told."""
    rows = []
    for code in CODES:
        whys = unknown.get(code)
        if whys:
            why = min(whys, key=lambda w: (-whys[w], w))
            n = whys.total()
            text = f"{why} ({n} of {probed[code]} trials)" if n else why
            rows.append(to_finding(code, Unknown(text), facts.whole))
        elif code in _FINE and not probed[code]:
            rows.append(
                to_finding(
                    code, Unknown("no trial has data that this check could look at"), facts.whole
                )
            )
        elif code in fine and not found[code]:
            rows.append(to_finding(code, None, facts.whole, "; ".join(dict.fromkeys(fine[code]))))
    return rows


_PLACES = {code: place for place, code in enumerate(CODES)}


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda f: _PLACES[f.code]))


def _with(record: Record, found: Iterable[Finding]) -> Record:
    """The record with its findings, and the status that they leave it."""
    found = _sorted(found)
    row = record.row
    status, reason = row.status, row.reason
    if status in ("valid", "invalid"):
        error = next((f for f in found if f.is_found_error), None)
        status = "invalid" if error else "valid"
        reason = f"{error.code}: {error.message}" if error else None
    codes = " ".join(dict.fromkeys(f.code for f in found)) or None
    if (status, reason, codes, found) == (row.status, row.reason, row.findings, record.findings):
        return record
    return replace(
        record, row=replace(row, status=status, reason=reason, findings=codes), findings=found
    )
