"""What a campaign's numbers are taken to say, against what its files can carry."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.scopes import Scope
from wattbench.analysis.audit.tables import Tables
from wattbench.analysis.audit.verdicts import MOST_TREATMENTS
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Record


def check(
    campaign: Campaign, trials: Sequence[Record], scope: Scope, tables: Tables
) -> list[Finding]:
    """Scope of the joules, and sampling against the differences that were found."""
    if campaign.judged is not None:
        return []
    valid = [r for r in trials if r.row.status == "valid"]
    findings = [*_mixed(valid, scope)]
    if campaign.package_only:
        findings += [*_scope(campaign, valid), *_sampling(valid, tables)]
    return findings


def versions(claimed: Mapping[str, str], trials: Sequence[Record]) -> Iterator[Finding]:
    """Versions that the text claims, against the banners of the logs."""
    for name, version in claimed.items():
        banner = re.compile(
            rf"{re.escape(name)}(?: Version)? (?P<version>\d[\w.\-]*)", re.IGNORECASE
        )
        stated = [
            (r, line, match["version"])
            for r in trials
            for text, line in zip(
                r.log.get("banners") or (), r.log.get("banner_lines") or (), strict=True
            )
            if (match := banner.fullmatch(text))
        ]
        wrong = [w for w in stated if not f"{w[2]}.".startswith(f"{version}.")]
        if wrong:
            record, line, seen = min(wrong, key=lambda w: (w[0].log["file"], w[1]))
            yield finding(
                "row-untraceable",
                Verdict.FOUND,
                f"image {record.row.image}",
                f"the text says {name} {version}, the logs of {len(wrong)} of {len(stated)} starts "
                f"say {seen}",
                file=record.log.get("file"),
                line=line,
                claimed=version,
                seen=sorted({v for _, _, v in wrong}),
            )


def _mixed(valid: Sequence[Record], scope: Scope) -> Iterator[Finding]:
    """Treatments, and single trials, that lack domains of others: they can't be compared with these."""
    if scope.apart:
        first = next(r for r in valid if r.row.image == scope.apart_image)
        yield finding(
            "meter-scope",
            Verdict.FOUND,
            "campaign",
            scope.apart,
            severity=Severity.ERROR,
            action="Compare treatments that the same meters measured, or measure the others' domains too.",
            **first.row.raw_place(),
        )
    for r in valid:
        if has := scope.left_out.get(r.subject):
            yield finding(
                "meter-scope",
                Verdict.FOUND,
                r.subject,
                f"{has} is metered, the other trials have {'+'.join(scope.parts)}: left out of the repaired "
                "tables",
                **r.row.raw_place(),
                scope=has,
            )


def _scope(campaign: Campaign, valid: Sequence[Record]) -> list[Finding]:
    """The meter's summary counts the CPU package only, and not its last interval."""
    pairs = [
        (r.row, r.row.package_j, joules)
        for r in valid
        if r.row.package_j and (joules := campaign.summaries.get(r.subject, (None,))[0])
    ]
    if not pairs:
        return []
    total = sum(row.energy_j or 0.0 for row, _, _ in pairs)
    package = sum(package_j for _, package_j, _ in pairs)
    omitted: defaultdict[str, list[float]] = defaultdict(list)
    for row, package_j, joules in pairs:
        if not row.wraps and joules != package_j:
            omitted[row.kind].append(100 * (1 - joules / package_j))
    shares = {kind: median(v) for kind, v in sorted(omitted.items())}
    if package >= total and not any(shares.values()):
        return []  # nothing else is metered, and nothing left out
    scopes = sorted({row.energy_scope or "" for row, _, _ in pairs})
    omits = ", ".join(
        f"{share:.1f} % of {kind} trials' package joules" for kind, share in shares.items()
    )
    return [
        finding(
            "meter-scope",
            Verdict.FOUND,
            "campaign",
            f"the reported joules cover the CPU package only, {100 * package / total:.0f} % of what the "
            f"same files meter ({', '.join(scopes)})"
            + (f"; the summary line leaves out the last interval: {omits}" if omits else ""),
            **pairs[0][0].raw_place(),
            trials=len(pairs),
            package_share=package / total,
            omitted_pct=shares,
            scopes=scopes,
        )
    ]


def _sampling(valid: Sequence[Record], tables: Tables) -> list[Finding]:
    """The end of a window is known to one interval: what that is worth, against differences of medians."""
    sampled = [
        (r, r.sampling.interval_s)
        for r in valid
        if r.row.kind == "workload" and r.sampling and r.sampling.interval_s
    ]
    energy = tables.tables["energy"]
    if not sampled or energy.empty:
        return []
    interval = median(interval_s for _, interval_s in sampled)
    idle = [
        r.row.package_j / r.row.duration_s
        for r in valid
        if r.row.kind == "idle" and r.row.package_j and r.row.duration_s
    ]
    tails = [
        r.row.package_j - aligned
        for r, _ in sampled
        if r.row.package_j and (aligned := r.log.get("aligned_j")) and not r.row.wraps
    ]
    doubt = interval * fmean(idle) if idle else (median(tails) if tails else None)
    if doubt is None:
        return []
    basis = next(b for b in ("published", "imported", "repaired") if (energy["basis"] == b).any())
    mine = energy[energy["basis"] == basis]
    medians = dict(zip(mine["image"].astype(str), mine["median_j"].astype(float), strict=True))
    if len(medians) > MOST_TREATMENTS:
        return []
    under = [
        {"image_a": a, "image_b": b, "diff_j": medians[a] - medians[b]}
        for a, b in itertools.combinations(medians, 2)
        if abs(medians[a] - medians[b]) < doubt
    ]
    if not under:
        return []
    return [
        finding(
            "sampling-coarse",
            Verdict.FOUND,
            "campaign",
            f"a run's end is known to one interval of {interval:.3g} s, worth up to {doubt:.0f} J of idle "
            f"power; {len(under)} of {len(medians) * (len(medians) - 1) // 2} differences of medians "
            f"({basis}) are smaller",
            **sampled[0][0].row.raw_place(),
            interval_s=interval,
            doubt_j=doubt,
            basis=basis,
            pairs=under,
        )
    ]
