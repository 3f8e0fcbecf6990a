"""Which metered domains the repaired numbers cover, and the share of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.checks.selections import grouped
from wattbench.analysis.model.records import Domain, Record
from wattbench.analysis.model.trials import changed

#: A domain that this share of the valid trials have is compared; trials without it are left out.
_COMMON = 0.9

#: Share of the metered joules under which the CPU package does not stand for a trial, and from which
#: on nothing needs to be said of the rest.
LEAST_SHARE, WHOLE_SHARE = 0.5, 0.95


@dataclass(frozen=True)
class Scope:
    """What the repaired numbers of a campaign cover.

    Attributes:
        parts: domains that are summed, such as ``("package", "dram")``; empty: each trial's own.
        package_share: the CPU package's share of all metered joules.
        left_out: subjects of valid trials that lack one of the parts, with what they have.
        apart: why treatments can't be compared over the parts; empty: they can.
        apart_image: the treatment of which most would be left out.
    """

    parts: tuple[str, ...]
    package_share: float
    left_out: dict[str, str]
    apart: str = ""
    apart_image: str = ""

    def joules_of(self, record: Record) -> float | None:
        """A trial's joules over the parts; None where it lacks one."""
        if not self.parts:
            return record.row.energy_j
        if record.subject in self.left_out:
            return None
        if self.parts == ("package",):
            return record.row.package_j
        return sum(d.energy_j for d in record.domains if d.counted and _part(d) in self.parts)

    @property
    def is_package(self) -> bool:
        """Whether the CPU package alone is compared."""
        return self.parts == ("package",)


def restated(record: Record, scope: Scope) -> Record:
    """A record whose ``energy_j`` covers what is compared; the other domains keep their own columns."""
    row = record.row
    if not scope.parts or row.energy_j is None or record.subject in scope.left_out:
        return record
    if "+".join(scope.parts) == row.energy_scope or not set(scope.parts) <= _parts_of(record):
        return record
    energy_j = scope.joules_of(record)
    mine = [d for d in record.domains if d.counted and _part(d) in scope.parts]
    return changed(
        record,
        row=changed(
            row,
            energy_j=energy_j,
            energy_scope="+".join(scope.parts),
            energy_uncertainty_j=sum(d.uncertainty_j for d in mine),
            j_per_image=energy_j / row.images_inferred
            if energy_j and row.images_inferred
            else None,
        ),
    )


def _parts_of(record: Record) -> frozenset[str]:
    return frozenset((record.row.energy_scope or "").split("+")) - {""}


def _part(domain: Domain) -> str:
    return domain.name.rstrip("0123456789")


def scope_of(campaign: Campaign, trials: Sequence[Record]) -> Scope:
    """The scope of a campaign's repaired numbers."""
    valid = [r for r in trials if r.row.status == "valid" and r.row.energy_j is not None]
    share = package_share(valid)
    if campaign.judged is not None or not valid:
        return Scope((), share, {})
    scopes = {r.subject: _parts_of(r) for r in valid}
    counts = Counter(part for parts in scopes.values() for part in parts)
    common = frozenset(p for p, n in counts.items() if n >= _COMMON * len(valid))
    if not common:
        common = Counter(scopes.values()).most_common(1)[0][0]
    order = [p for p in ("system", "package", "dram", "gpu") if p in common]
    parts = tuple(order + sorted(common - set(order)))
    if campaign.package_only and "package" in common and share >= LEAST_SHARE:
        parts = ("package",)
    left_out = {
        subject: "+".join(sorted(mine)) or "no domain"
        for subject, mine in scopes.items()
        if not set(parts) <= mine
    }
    work = [r for r in valid if r.row.kind == "workload" and r.subject not in left_out]
    return Scope(parts, share, left_out, *_apart(work, parts))


def _apart(work: Sequence[Record], parts: Sequence[str]) -> tuple[str, str]:
    """Treatments that meter different domains where the parts that all have are too little of one's joules.

    Returns:
        Why they can't be compared, and the treatment of which most would be left out.
    """
    metered: dict[str, str] = {}
    left: dict[str, float] = {}
    for image, mine in grouped(work, lambda r: r.row.image).items():
        metered[image] = Counter(r.row.energy_scope or "" for r in mine).most_common(1)[0][0]
        total = sum(r.row.energy_j or 0.0 for r in mine)
        own = sum(d.energy_j for r in mine for d in r.domains if d.counted and _part(d) in parts)
        left[image] = 1 - own / total if total > 0 else 0.0
    worst = max(left, key=left.__getitem__, default="")
    if len(set(metered.values())) < 2 or left[worst] <= 1 - WHOLE_SHARE:
        return "", ""
    other = next(i for i, scope in metered.items() if scope != metered[worst])
    return (
        f"treatments meter different domains ({worst}: {metered[worst]}, {other}: {metered[other]}); over "
        f"{'+'.join(parts) or 'nothing'}, which all have, {100 * left[worst]:.0f} % of the joules of {worst} "
        "are left out"
    ), worst


def package_share(records: Sequence[Record]) -> float:
    """The CPU package's share of all joules that are metered in valid trials; 1 where nothing is."""
    metered = [
        r.row for r in records if r.row.status == "valid" and r.row.energy_j and r.row.package_j
    ]
    total = sum(row.energy_j or 0.0 for row in metered)
    return sum(row.package_j or 0.0 for row in metered) / total if total > 0 else 1.0
