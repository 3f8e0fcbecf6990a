"""Applies all checks: findings and status of every trial, and the findings of the whole campaign."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wattbench.analysis.checks.facts import Campaign, Facts
from wattbench.analysis.checks.outcome import Found, Unknown, to_finding
from wattbench.analysis.checks.registry import TrialCheck, campaign_checks, trial_checks
from wattbench.analysis.model.finding_codes import CODES, Severity
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import changed

_NOTHING_KNOWN = Facts()

#: Share of the trials from which on an error is the campaign's.
_MOST = 0.5

#: Files named as examples of a shared fault.
_EXAMPLES = 20


def check_trial(record: Record) -> tuple[Finding, ...]:
    """Every check of one trial, found or not."""
    kind, absent = record.row.kind, _is_absent(record)
    return tuple(
        to_finding(check.code, check.outcome(record), record.subject, check.fine)
        for check in trial_checks()
        if _applies(check, kind, absent=absent)
    )


def check_campaign(records: Sequence[Record], facts: Facts = _NOTHING_KNOWN) -> tuple[Finding, ...]:
    """The campaign's or run's findings: its own, and one row for what no trial showed or could decide.

    Args:
        records: all attempts.
        facts: what else is known; :meth:`Facts.of_run` reads ``run.json``.
    """
    return judge(records, facts)[1]


def apply(records: Iterable[Record], facts: Facts = _NOTHING_KNOWN) -> tuple[Record, ...]:
    """Records with findings, status and reason set.

    A found error makes a trial ``invalid``; ``failed``, ``missing`` and ``skipped`` ones stay that.
    """
    return judge(tuple(records), facts)[0]


def judge(
    records: Sequence[Record], facts: Facts = _NOTHING_KNOWN
) -> tuple[tuple[Record, ...], tuple[Finding, ...]]:
    """Judge all trials and the campaign.

    Returns:
        the records as :func:`apply` gives them, and the findings that are not about one trial.
    """
    per_trial, whole, shared = _findings(records, facts)
    places = {code: place for place, code in enumerate(CODES)}
    judged = []
    for record in records:
        subject = record.subject
        judged.append(_with(record, per_trial.get(subject, ()), shared.get(subject, ()), places))
    return tuple(judged), tuple(whole)


def check_over_time(records: Sequence[Record], facts: Facts) -> tuple[Finding, ...]:
    """Drift and outliers without regard to blocks, as the literature judges them."""
    campaign = Campaign(tuple(records), facts)
    return tuple(
        to_finding(check.code, outcome, facts.whole, check.fine)
        for check in campaign_checks()
        if check.statistical
        for outcome in tuple(check.probe(campaign)) or (None,)
    )


def _is_absent(record: Record) -> bool:
    """Whether a trial's absence is all that can be said of it.

    A start that is in a text log alone is checked like any other: what the log says of it counts.
    """
    logged = record.log.get("file") and not record.log.get("derived")
    return record.row.status in ("missing", "skipped") and not logged


def _applies(check: TrialCheck, kind: str, *, absent: bool) -> bool:
    """Whether a check applies to trials of a kind; of an absent one only its absence can be checked."""
    return check.code == "trial-missing" if absent else kind in check.kinds


@dataclass
class _Outcomes:
    """What the checks of all trials ended as.

    Attributes:
        probed: code → trials that were looked at.
        judged: code → trials that did not fail and could be decided.
        unknown: code → reasons why it could not be decided.
        found: code → trials of which it was found, and what.
    """

    probed: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    unknown: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    found: defaultdict[str, list[tuple[Record, Found]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @classmethod
    def of(cls, records: Sequence[Record]) -> _Outcomes:
        """Check records."""
        outcomes = cls()
        keys = [(r.row.kind, _is_absent(r)) for r in records]
        for check in trial_checks():
            applies = {key: _applies(check, key[0], absent=key[1]) for key in set(keys)}
            mine = [r for r, key in zip(records, keys, strict=True) if applies[key]]
            outcomes._add(check, mine)
        return outcomes

    def _add(self, check: TrialCheck, records: Sequence[Record]) -> None:
        """One check of the records that it applies to."""
        found: list[tuple[Record, Found]] = []
        unknown: Counter[str] = Counter()
        failed = sum(r.row.status == "failed" for r in records)
        for record in records:
            outcome = check.outcome(record)
            if outcome is None:
                continue
            if isinstance(outcome, Unknown):
                unknown[outcome.why] += 1
                failed -= record.row.status == "failed"
            else:
                found.append((record, outcome))
        self.probed[check.code] += len(records)
        self.judged[check.code] += len(records) - unknown.total() - failed
        if unknown:
            self.unknown[check.code] += unknown
        if found:
            self.found[check.code] += found


def _findings(
    records: Sequence[Record], facts: Facts
) -> tuple[Mapping[str, list[Finding]], list[Finding], Mapping[str, list[str]]]:
    """Findings by subject of a trial, those of the campaign, and codes by subject of what is shared."""
    outcomes = _Outcomes.of(records)
    whole = _shared(outcomes, facts)
    hoisted = {f.code for f in whole}
    shared: defaultdict[str, list[str]] = defaultdict(list)
    for code in hoisted:
        for record, _ in outcomes.found[code]:
            shared[record.subject].append(code)
    per_trial: defaultdict[str, list[Finding]] = defaultdict(list)
    found_codes = Counter({code: len(found) for code, found in outcomes.found.items()})
    for code, found in outcomes.found.items():
        if code not in hoisted:
            for record, outcome in found:
                per_trial[record.subject].append(to_finding(code, outcome, record.subject))
    known = {r.subject for r in records}
    campaign = Campaign(tuple(records), facts)
    fine: defaultdict[str, list[str]] = defaultdict(list)
    for check in campaign_checks():
        if (check.statistical and not facts.with_statistics) or (check.live and facts.imported):
            continue
        results = tuple(check.probe(campaign))
        for result in results:
            if isinstance(result, Unknown):
                outcomes.unknown[check.code][result.why] += 0
                continue
            found_codes[check.code] += 1
            finding = to_finding(check.code, result, facts.whole)
            (per_trial[finding.subject] if finding.subject in known else whole).append(finding)
        fine[check.code].append(check.fine)
    for trial_check in trial_checks():
        fine[trial_check.code].append(trial_check.fine)
    whole += _closing(facts, found_codes, outcomes, fine)
    return per_trial, whole, shared


def _shared(outcomes: _Outcomes, facts: Facts) -> list[Finding]:
    """Faults that every trial that can be judged has, of an import also those of most: said once.

    They are the campaign's, which its trials can't be compared without: none is taken out for them.
    """
    findings = []
    for code in (c for c in CODES.values() if c.shared):
        hits = [(r, found) for r, found in outcomes.found[code.name] if r.row.status != "failed"]
        worst = min(
            (f.severity or code.severity for _, f in hits), key=list(Severity).index, default=None
        )
        serious = worst is Severity.ERROR
        judged = outcomes.judged[code.name]
        fewest = _MOST * judged if serious else judged
        if len(hits) < max(2, fewest) or (serious and not facts.imported):
            continue
        who = f"all {judged}" if len(hits) == judged else f"{len(hits)} of {judged}"
        first = [found for _, found in hits[:_EXAMPLES]]
        findings.append(
            to_finding(
                code.name,
                Found(
                    f"{who} trials that can be judged: {first[0].message}",
                    {k: v for k, v in first[0].evidence.items() if k in ("file", "line")}
                    | {
                        "trials": len(hits),
                        "images": sorted({r.row.image for r, _ in hits}),
                        "examples": [dict(o.evidence) for o in first],
                    },
                    worst,
                ),
                facts.whole,
            )
        )
    return findings


def _closing(
    facts: Facts,
    found: Counter[str],
    outcomes: _Outcomes,
    fine: Mapping[str, Sequence[str]],
) -> list[Finding]:
    """One row per code for what was not found, and one for what could not be decided."""
    of_trials = {check.code for check in trial_checks()}
    rows = []
    for code in CODES:
        whys, probed = outcomes.unknown.get(code), outcomes.probed[code]
        if whys:
            why = min(whys, key=lambda w: (-whys[w], w))
            n = whys.total()
            text = f"{why} ({n} of {probed} trials)" if n else why
            rows.append(to_finding(code, Unknown(text), facts.whole))
        elif code in of_trials and not probed:
            nothing = Unknown("no trial has data that this check could look at")
            rows.append(to_finding(code, nothing, facts.whole))
        elif code in fine and not found[code]:
            rows.append(to_finding(code, None, facts.whole, "; ".join(dict.fromkeys(fine[code]))))
    return rows


def _with(
    record: Record, found: Iterable[Finding], shared: Sequence[str], places: Mapping[str, int]
) -> Record:
    """The record with its findings, and the status that they leave it; codes name what is shared too."""
    found = tuple(sorted(found, key=lambda f: places[f.code]))
    row = record.row
    status, reason = row.status, row.reason
    if status in ("valid", "invalid"):
        error = next((f for f in found if f.is_found_error), None)
        status = "invalid" if error else "valid"
        reason = f"{error.code}: {error.message}" if error else None
    named = {*(f.code for f in found), *shared}
    codes = " ".join(sorted(named, key=places.__getitem__)) or None
    if (status, reason, codes, found) == (row.status, row.reason, row.findings, record.findings):
        return record
    row = changed(row, status=status, reason=reason, findings=codes)
    return changed(record, row=row, findings=found)
