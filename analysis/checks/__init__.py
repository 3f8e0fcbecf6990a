"""One set of checks for live runs and imported campaigns.

``trial`` and ``campaign`` hold the two tables, a row a probe. Each probe ends as found, not-found or
undecidable; the last is shown and never taken for fine. :func:`apply` gives every record its findings and
its status; :func:`judge` adds the campaign's findings, one row for what was not found. :func:`judge_trials`
does the same for a campaign of which only columns are kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wattbench.analysis.checks.campaign import CAMPAIGN_CHECKS, Facts
from wattbench.analysis.checks.columns import Trials
from wattbench.analysis.checks.outcome import Found, Outcome, Unknown, to_finding
from wattbench.analysis.checks.tally import SHARED, Tally, checks_of, found_of
from wattbench.analysis.checks.trial import TRIAL_CHECKS
from wattbench.analysis.model.finding_codes import CODES, Severity
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record

__all__ = [
    "SHARED", "Facts", "Tally", "Trials", "apply", "check_campaign", "check_over_time", "check_trial",
    "judge", "judge_trials",
]  # fmt: skip

_FINE = {check.code: check.fine for check in TRIAL_CHECKS}

#: Files named as examples of a shared fault.
_EXAMPLES = 20


def check_trial(record: Record) -> tuple[Finding, ...]:
    """Every check of one trial, found or not."""
    return tuple(
        to_finding(code, probe(record), record.subject, _FINE[code])
        for code, probe in checks_of(record)
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
    per_trial, whole = _findings(Trials.of(records), Tally.of(records), facts)
    judged = tuple(_with(record, per_trial.get(record.subject, [])) for record in records)
    return judged, tuple(whole)


def judge_trials(
    trials: Trials, tally: Tally, facts: Facts
) -> tuple[Trials, list[Finding], list[Finding]]:
    """Judge trials of which columns are kept, and what their probes came to.

    Returns:
        the trials with status, reason and findings set; the findings of single trials in their order;
        those that are not about one trial.
    """
    per_trial, whole = _findings(trials, tally, facts)
    rows = dict(trials.rows)
    for name in ("status", "reason", "findings"):
        rows[name] = list(rows[name])
    findings: list[Finding] = []
    for i, subject in enumerate(trials.subjects):
        if subject not in per_trial and rows["status"][i] == "valid":
            continue
        found = _sorted(per_trial.get(subject, ()))
        findings += found
        rows["status"][i], rows["reason"][i], rows["findings"][i] = _left(
            rows["status"][i], rows["reason"][i], found
        )
    return replace(trials, rows=rows), findings, whole


def _findings(
    trials: Trials, tally: Tally, facts: Facts
) -> tuple[Mapping[str, list[Finding]], list[Finding]]:
    """Findings by subject of a trial, and those of the campaign."""
    shared = _shared(trials, tally, facts)
    hoisted = {f.code for f in shared}
    subjects = trials.subjects
    per_trial: defaultdict[str, list[Finding]] = defaultdict(list)
    whole: list[Finding] = list(shared)
    found_codes: Counter[str] = Counter()
    unknown: dict[str, Counter[str]] = dict(tally.unknown)
    for place, code, outcome in tally.own:
        found_codes[code] += 1
        per_trial[subjects[place]].append(to_finding(code, outcome, subjects[place]))
    for code, having in tally.shared.items():
        found_codes[code] += len(having.places)
        if code not in hoisted:
            for place in having.places:
                outcome = found_of(code, trials.record(place))
                per_trial[subjects[place]].append(to_finding(code, outcome, subjects[place]))
    known = set(subjects)
    fine: dict[str, list[str]] = defaultdict(list)
    for row in CAMPAIGN_CHECKS:
        if (row.statistical and not facts.with_statistics) or (row.live and facts.imported):
            continue
        result = row.probe(trials, facts)
        if isinstance(result, Unknown):
            unknown.setdefault(row.code, Counter())[result.why] += 0
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
    whole += _closing(facts, found_codes, unknown, tally.probed, fine)
    return per_trial, whole


def check_over_time(records: Sequence[Record], facts: Facts) -> tuple[Finding, ...]:
    """Drift and outliers without regard to blocks, as the literature judges them."""
    findings: list[Finding] = []
    trials = Trials.of(records)
    for row in CAMPAIGN_CHECKS:
        if row.statistical:
            result = row.probe(trials, facts)
            outcomes: Sequence[Outcome] = (
                [result] if isinstance(result, Unknown) else result or [None]
            )
            findings += [
                to_finding(row.code, outcome, facts.whole, row.fine) for outcome in outcomes
            ]
    return tuple(findings)


def _shared(trials: Trials, tally: Tally, facts: Facts) -> list[Finding]:
    """Faults that every trial that can be judged has: said once."""
    findings = []
    for code in [c for c in CODES if c in tally.shared]:
        hits = tally.shared[code].judged
        serious = Severity.ERROR in tally.shared[code].severities
        if len(hits) < max(2, tally.judged[code]) or (serious and not facts.imported):
            continue
        first = [found_of(code, trials.record(i)) for i in hits[:_EXAMPLES]]
        findings.append(
            to_finding(
                code,
                Found(
                    f"all {len(hits)} trials that can be judged: {first[0].message}",
                    {k: v for k, v in first[0].evidence.items() if k in ("file", "line")}
                    | {
                        "trials": len(hits),
                        "images": sorted({trials.rows["image"][i] for i in hits}),
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


def _left(
    status: str, reason: str | None, found: Sequence[Finding]
) -> tuple[str, str | None, str | None]:
    """Status, reason and codes that findings leave a trial with."""
    if status in ("valid", "invalid"):
        error = next((f for f in found if f.is_found_error), None)
        status = "invalid" if error else "valid"
        reason = f"{error.code}: {error.message}" if error else None
    return status, reason, " ".join(dict.fromkeys(f.code for f in found)) or None


def _with(record: Record, found: Iterable[Finding]) -> Record:
    """The record with its findings, and the status that they leave it."""
    found = _sorted(found)
    row = record.row
    status, reason, codes = _left(row.status, row.reason, found)
    if (status, reason, codes, found) == (row.status, row.reason, row.findings, record.findings):
        return record
    row = replace(row, status=status, reason=reason, findings=codes)
    return replace(record, row=row, findings=found)
