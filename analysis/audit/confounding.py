"""What differs with the treatment beside the treatment: the day, and the GPU's power state when idle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np

from wattbench.analysis.audit.campaign import Campaign, DerivedRow
from wattbench.analysis.checks.evidence import place
from wattbench.analysis.checks.selections import grouped
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Record

#: Hours without a trial of a treatment from which on the next one is of another session.
_PAUSE_H = 6.0
#: Trials of a session from which on it is compared.
_FEWEST = 4
ALARM = 0.05

#: Idle power of a GPU differs between treatments from this share on.
_POWER_SHARE = 0.05


def check(campaign: Campaign, trials: Sequence[Record]) -> list[Finding]:
    """Steps between sessions, steps in published tables, and idle GPU power that differs with the image."""
    valid = [r for r in trials if r.row.status == "valid"]
    return [*_sessions(valid), *_published(campaign.derived), *_idle_power(valid)]


def _sessions(valid: Sequence[Record]) -> Iterator[Finding]:
    """Treatments that were measured in several sessions and need different energy in them."""
    from scipy import stats

    timed = sorted((r for r in valid if r.row.started_at), key=lambda r: r.row.started_at or "")
    groups = grouped(timed, lambda r: (r.row.host, r.row.image, r.row.kind))
    compared: list[tuple[tuple[str, str, str], list[Record], list[Record]]] = []
    for key, mine in groups.items():
        parts = list(_split(mine))
        compared += [(key, a, b) for a, b in pairwise(parts) if min(len(a), len(b)) >= _FEWEST]
    for (_, image, kind), before, after in compared:
        x, y = (np.array([r.row.energy_j or np.nan for r in part]) for part in (before, after))
        if not (np.isfinite(x).all() and np.isfinite(y).all() and min(x.min(), y.min()) > 0):
            continue
        p = float(stats.mannwhitneyu(x, y).pvalue) * len(compared)
        if p > ALARM:
            continue
        change_pct = 100 * (float(np.median(y)) / float(np.median(x)) - 1)
        first = after[0].row
        yield finding(
            "drift",
            Verdict.FOUND,
            f"image {image}",
            f"{image}{'' if kind == 'workload' else ' (idle)'}: the {len(after)} trials from "
            f"{str(first.started_at)[:10]} on need {change_pct:+.2f} % energy against the {len(before)} of "
            f"{str(before[0].row.started_at)[:10]} (Mann–Whitney, corrected p {min(p, 1.0):.2g})",
            severity=Severity.WARNING,
            **place(after[0]),
            kind="session",
            change_pct=change_pct,
            p=min(p, 1.0),
        )


def _split(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Sessions of a treatment: stretches without a long pause."""
    part: list[Record] = []
    for record in records:
        if part and _hours(part[-1], record) > _PAUSE_H:
            yield part
            part = []
        part.append(record)
    if part:
        yield part


def _hours(before: Record, after: Record) -> float:
    a, b = (datetime.fromisoformat(str(r.row.started_at)) for r in (before, after))
    return (b - a).total_seconds() / 3600


def _published(rows: Iterable[DerivedRow]) -> Iterator[Finding]:
    """Steps in the order of a published table, which is that of its runs."""
    from wattbench.analysis.stats import diagnostics

    tables: defaultdict[tuple[str, str, str], list[DerivedRow]] = defaultdict(list)
    for row in rows:
        tables[row.file, row.image, row.kind].append(row)
    groups = {
        key: mine
        for key, mine in tables.items()
        if len(mine) >= diagnostics.FEWEST and all(r.energy_j and r.energy_j > 0 for r in mine)
    }
    for (file, image, kind), mine in groups.items():
        logs = np.log([r.energy_j or np.nan for r in mine])
        steps = diagnostics.steps(logs - logs.mean(), list(range(len(mine))))
        if steps.p is None or steps.p * len(groups) > ALARM:
            continue
        for step in steps.steps:
            first = mine[min(step.position or 0, len(mine) - 1)]
            yield finding(
                "drift",
                Verdict.FOUND,
                f"image {image}",
                f"{file}: the energy of {image}{'' if kind == 'workload' else ' (idle)'} steps by "
                f"{step.change_pct:+.2f} % at line {first.line}",
                severity=Severity.WARNING,
                file=file,
                line=first.line,
                kind="step",
                change_pct=step.change_pct,
                p=steps.p,
            )


def _idle_power(valid: Sequence[Record]) -> Iterator[Finding]:
    """Idle GPU power that depends on the image: another power state, and not the image's doing."""
    from scipy import stats

    idle = [r for r in valid if r.row.kind == "idle" and "GPU_POWER" in r.series]
    groups = {
        image: mine
        for image, mine in sorted(grouped(idle, lambda r: r.row.image).items())
        if len(mine) >= _FEWEST
    }
    if len(groups) < 2:
        return
    watts = {i: np.array([r.series["GPU_POWER"]["mean"] for r in g]) for i, g in groups.items()}
    medians = {image: float(np.median(w)) for image, w in watts.items()}
    low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    if medians[high] - medians[low] <= _POWER_SHARE * medians[low]:
        return
    p = float(stats.kruskal(*watts.values()).pvalue)
    if p > ALARM:
        return
    first = groups[high][0].row
    yield finding(
        "state-changed",
        Verdict.FOUND,
        "campaign",
        f"the idle GPU draws {medians[high]:.1f} W in {high} and {medians[low]:.1f} W in {low} "
        f"(Kruskal–Wallis p {p:.2g}): its power state differs with the image, not by its doing",
        **first.raw_place(),
        median_w=medians,
        p=p,
    )
