"""What a campaign's numbers are taken to say, against what its files can carry."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, median

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.tables import Tables
from wattbench.analysis.checks import Trials
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding


def check(campaign: Campaign, trials: Trials, tables: Tables) -> list[Finding]:
    """Scope of the joules that were reported, and sampling against the differences that were found."""
    if campaign.layout == "wattbench":
        return []
    valid = [i for i, status in enumerate(trials.rows["status"]) if status == "valid"]
    return [*_scope(campaign, trials, valid), *_sampling(trials, valid, tables)]


def _scope(campaign: Campaign, trials: Trials, valid: Sequence[int]) -> list[Finding]:
    """The meter's summary counts the CPU package only, and not its last interval."""
    rows = trials.rows
    pairs = [
        (i, joules)
        for i in valid
        if rows["package_j"][i]
        and (joules := campaign.summaries.get(trials.subjects[i], (None,))[0])
    ]
    if not pairs:
        return []
    total = sum(rows["energy_j"][i] or 0.0 for i, _ in pairs)
    package = sum(rows["package_j"][i] for i, _ in pairs)
    omitted: defaultdict[str, list[float]] = defaultdict(list)
    for i, joules in pairs:
        if not rows["wraps"][i]:
            omitted[rows["kind"][i]].append(100 * (1 - joules / rows["package_j"][i]))
    shares = {kind: median(v) for kind, v in sorted(omitted.items())}
    scopes = sorted({rows["energy_scope"][i] or "" for i, _ in pairs})
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
            file=rows["raw"][pairs[0][0]],
            line=1,
            trials=len(pairs),
            package_share=package / total,
            omitted_pct=shares,
            scopes=scopes,
        )
    ]


def _sampling(trials: Trials, valid: Sequence[int], tables: Tables) -> list[Finding]:
    """The end of a window is known to one interval: what that is worth, against differences of medians."""
    kind, package, seconds = (trials.rows[c] for c in ("kind", "package_j", "duration_s"))
    work = [i for i in valid if kind[i] == "workload" and trials.interval_s[i]]
    energy = tables.tables["energy"]
    if not work or energy.empty:
        return []
    interval = median(trials.interval_s[i] or 0.0 for i in work)
    idle = [
        package[i] / seconds[i] for i in valid if kind[i] == "idle" and package[i] and seconds[i]
    ]
    tails = [
        package[i] - aligned
        for i in work
        if package[i] and (aligned := trials.aligned_j[i]) and not trials.rows["wraps"][i]
    ]
    doubt = interval * fmean(idle) if idle else (median(tails) if tails else None)
    if doubt is None:
        return []
    basis = next(b for b in ("published", "imported", "repaired") if (energy["basis"] == b).any())
    mine = energy[energy["basis"] == basis]
    medians = dict(zip(mine["image"].astype(str), mine["median_j"].astype(float), strict=True))
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
            file=trials.rows["raw"][work[0]],
            line=1,
            interval_s=interval,
            doubt_j=doubt,
            basis=basis,
            pairs=under,
        )
    ]
