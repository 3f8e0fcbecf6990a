"""Package power that no CPU has: the counters' unit was misread, and their joules say nothing.

EnergiBridge before 0.0.7 misreads the unit of some CPUs: 0.27 W or 19 kW for a package at work. One unit
serves all counters of a CPU, so the memory's joules are wrong with the package's; a GPU's are not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Domain, Record
from wattbench.analysis.model.trials import changed

CODE = "power-implausible"

#: Mean power of a package that works, of one under a load of unknown CPU usage, and of any, W.
_WORKING_W, _LOADED_W, _LEAST_W = 1.0, 0.5, 0.05
#: Mean power of the one package that EnergiBridge reads, and of all that other meters add up, W.
_MOST_W, _MOST_ADDED_W = 1000.0, 4000.0
#: Mean CPU usage of a CPU that works, %.
_WORKING_PCT = 20.0

#: Domains that are read from the CPU's counters, in one unit.
_COUNTERS = re.compile(r"package|dram|pp\d|core\d+|cpu")


@dataclass(frozen=True)
class Misread:
    """Trials whose counters were read in a wrong unit.

    Attributes:
        subjects: of these trials.
        findings: one per treatment.
        reason: the first of them as the reason of a verdict; empty without any.
        rescued: whether all trials have other domains, which are compared instead.
    """

    subjects: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    rescued: bool = False


def misread(trials: Sequence[Record]) -> Misread:
    """The valid trials of implausible package power."""
    valid = [r for r in trials if r.row.status == "valid"]
    groups: defaultdict[tuple[str, str], list[tuple[Record, float]]] = defaultdict(list)
    totals: defaultdict[tuple[str, str], int] = defaultdict(int)
    for r in valid:
        key = r.row.image, r.row.kind
        totals[key] += 1
        power_w = _implausible_w(r)
        if power_w is not None:
            groups[key].append((r, power_w))
    if not groups:
        return Misread()
    subjects = frozenset(r.subject for mine in groups.values() for r, _ in mine)
    findings = tuple(_found(key, mine, totals[key]) for key, mine in groups.items())
    rescued = all(_others(r) for r in valid) and len(subjects) == len(valid)
    return Misread(subjects, findings, findings[0].message, rescued)


def without(trials: Sequence[Record], wrong: Misread) -> tuple[Record, ...]:
    """Trials without the joules that were misread: over their other domains, or else not valid."""
    return tuple(
        (_of_others(r) if wrong.rescued else _refused(r)) if r.subject in wrong.subjects else r
        for r in trials
    )


def _implausible_w(record: Record) -> float | None:
    """Mean power of the package where no CPU has it."""
    row = record.row
    package = next((d for d in record.domains if d.name == "package"), None)
    if package is None or not row.package_j or not row.duration_s:
        return None
    power_w = row.package_j / row.duration_s
    most = _MOST_W if package.meter == "energibridge" else _MOST_ADDED_W
    usage = record.series.get("CPU_USAGE")
    works = row.kind == "workload" and not record.log.get("without_gpu")
    if usage is not None:
        least = _WORKING_W if usage["mean"] >= _WORKING_PCT else _LEAST_W
    else:
        least = _LOADED_W if works else _LEAST_W
    return None if least <= power_w <= most else power_w


def _found(key: tuple[str, str], mine: Sequence[tuple[Record, float]], total: int) -> Finding:
    (image, kind), (first, _) = key, mine[0]
    power_w = median(w for _, w in mine)
    usage = median(r.series.get("CPU_USAGE", {}).get("mean", 0.0) for r, _ in mine)
    load = f" at {usage:.0f} % CPU usage" if usage >= _WORKING_PCT else ""
    some = "" if len(mine) == total else f" in {len(mine)} of {total} trials"
    return finding(
        CODE,
        Verdict.FOUND,
        f"image {image}",
        f"{image}{'' if kind == 'workload' else ' (idle)'}: the package's mean power is {power_w:.3g} W{load}"
        f"{some}, which is too {'little' if power_w < _MOST_W else 'much'} for a CPU package: its unit was "
        "misread (EnergiBridge before 0.0.7 does so on some CPUs)",
        **first.row.raw_place(),
        power_w=power_w,
        cpu_usage_pct=usage,
        trials=len(mine),
    )


def _others(record: Record) -> tuple[Domain, ...]:
    """Counted domains that are not read from the CPU's counters."""
    return tuple(d for d in record.domains if d.counted and not _COUNTERS.fullmatch(d.name))


def _of_others(record: Record) -> Record:
    """A trial over its other domains."""
    others = _others(record)
    row = record.row
    parts = dict.fromkeys(d.name.rstrip("0123456789") for d in others)
    joules = sum(d.energy_j for d in others)
    each = joules / row.units if row.units else None
    return changed(
        record,
        row=changed(
            row,
            energy_j=joules,
            energy_scope="+".join(parts),
            energy_uncertainty_j=sum(d.uncertainty_j for d in others),
            package_j=None,
            dram_j=None,
            j_per_image=each if row.images_inferred else None,
            j_per_unit=each,
            findings=_with_code(row.findings),
        ),
        domains=tuple(
            replace(d, counted=False) if _COUNTERS.fullmatch(d.name) else d for d in record.domains
        ),
    )


def _refused(record: Record) -> Record:
    """A trial that has no other joules."""
    row = record.row
    reason = f"{CODE}: the package's mean power is {_implausible_w(record):.3g} W"
    return changed(
        record,
        row=changed(row, status="invalid", reason=reason, findings=_with_code(row.findings)),
    )


def _with_code(codes: str | None) -> str:
    return f"{codes} {CODE}" if codes else CODE
