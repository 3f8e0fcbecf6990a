"""Entry point of the statistics: trial rows in, :class:`Conclusion` out.

Every host is concluded alone, then the hosts together; the headline says in one sentence what
follows, and no more than follows. The order of evidence is fixed before looking: the endpoint that the
experiment declares decides, raw joules of the whole window or joules per unit in the steady phases; all
else stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.trials import STATUSES
from wattbench.analysis.stats import across_hosts, diagnostics, early_stopping, within_host
from wattbench.analysis.stats.endpoints import (
    HostTrials,
    endpoint_text,
    host_trials,
    images_of,
    reference_of,
)
from wattbench.analysis.stats.headline import ONE_HOST, View, headline, why_unranked
from wattbench.analysis.stats.results import (
    AcrossHosts,
    Conclusion,
    HostConclusion,
    ImageSummary,
    Interval,
    Pair,
    RankedImage,
    Sensitivity,
    Settings,
    find_pair,
)


def conclude(trials: pd.DataFrame, settings: Settings, equal_work: bool = True) -> Conclusion:
    """Concludes from a run.

    Args:
        trials: rows in the schema of :mod:`analysis.trials`; all kinds and statuses.
        settings: as laid down before the first trial.
        equal_work: whether the images are shown to have done the same work.

    Returns:
        A conclusion for whatever is there, including nothing: each missing part says why.
    """
    reference, note = reference_of(trials, settings.reference)
    images = images_of(trials, reference)
    workload = trials[trials["kind"] == "workload"]
    share = early_stopping.factor(len(images), settings)
    names = [str(h) for h in sorted(workload["host"].fillna("").unique())]
    parts = [host_trials(trials, name, images, settings.endpoint) for name in names]
    hosts = [_host(part, settings, share) for part in parts]
    across = across_hosts.combine(list(zip(parts, hosts, strict=True)), settings, share)
    leading, basis = _leading(hosts, across)
    ranking = _ranking(images, reference, leading)
    source = _source([h.energy_source for h in hosts])
    notes = [note] if note else []
    if settings.precision_pct is not None and settings.precision_pct >= settings.equivalence_pct:
        notes.append(
            f"the precision asked for, ±{settings.precision_pct:g} %, is not below the margin of "
            f"equivalence, ±{settings.equivalence_pct:g} %: runs that stop early can hardly show "
            "equivalence"
        )
    if across_hosts.turns_round(across.pairs, hosts):
        notes.append("which image uses less depends on the host: see the hosts one by one")
    view = View(
        reference, ranking, leading, basis, tuple(hosts), across, settings, source,
        endpoint_text(settings.endpoint, workload),
    )  # fmt: skip
    return Conclusion(
        headline=headline(view, equal_work=equal_work),
        settings=settings,
        reference=reference,
        images=images,
        ranking=ranking,
        counts=_counts(workload),
        hosts=tuple(hosts),
        across=across,
        findings=_findings(hosts),
        energy_source=source,
        notes=tuple(notes),
    )


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {s: int((rows["status"] == s).sum()) for s in STATUSES}


def _source(sources: Sequence[str | None]) -> str | None:
    known = {s for s in sources if s is not None}
    if not known:
        return None
    return known.pop() if len(known) == 1 else "mixed"


def _findings(hosts: Sequence[HostConclusion]) -> tuple[Finding, ...]:
    return tuple(f for h in hosts if h.fitness for f in diagnostics.findings(h.host, h.fitness))


# One host ---------------------------------------------------------------------------------------


def _host(trials: HostTrials, settings: Settings, share: float) -> HostConclusion:
    table = trials.table()
    filled = table.notna()
    base = HostConclusion(
        host=trials.host,
        design=trials.design,
        blocks=int((filled.sum(axis=1) >= 2).sum()),
        complete_blocks=int(filled.all(axis=1).sum()) if len(trials.images) else 0,
        scope=trials.scope,
        energy_source=trials.energy_source,
        counts=_counts(trials.planned),
        notes=trials.notes,
    )
    if trials.reason is not None:
        summaries = tuple(_summary(trials, i, None, None) for i in trials.images)
        return replace(base, images=summaries, reason=trials.reason)
    pairs = within_host.compare(trials, settings, factor=share)
    few = "one image only: nothing to compare" if len(trials.images) == 1 else None
    return replace(
        base,
        images=_summaries(trials, pairs),
        omnibus=within_host.omnibus(trials, settings),
        pairs=pairs,
        secondary=within_host.secondary(trials, settings, factor=share),
        fitness=diagnostics.judge(trials, settings),
        sensitivity=_sensitivity(trials, pairs, settings, share),
        stopping=None if settings.precision_pct is None else early_stopping.judge(trials, settings),
        reason=few,
    )


def _summaries(trials: HostTrials, pairs: tuple[Pair, ...]) -> tuple[ImageSummary, ...]:
    """Images by their estimate against the reference, those without one last."""
    reference = trials.images[0]
    against = {i: find_pair(pairs, i, reference) for i in trials.images[1:]}
    estimates = {i: p.estimate_pct for i, p in against.items() if p and p.estimate_pct is not None}
    if len(trials.samples()[reference]):
        estimates[reference] = 0.0
    order = sorted(estimates, key=lambda i: (estimates[i], i))
    ranks = {image: rank for rank, image in enumerate(order, start=1)}
    intervals = {i: p.simultaneous for i, p in against.items() if p}
    listed = order + [i for i in trials.images if i not in ranks]
    return tuple(_summary(trials, i, ranks.get(i), intervals.get(i)) for i in listed)


def _summary(
    trials: HostTrials, image: str, rank: int | None, interval: Interval | None
) -> ImageSummary:
    planned = int((trials.planned["image"] == image).sum())
    rows = trials.rows[trials.rows["image"] == image]
    if rows.empty:
        return ImageSummary(image, planned, 0, reason="no valid trial")
    joules = rows["window_j"].to_numpy(float)
    seconds = rows["duration_s"].dropna().to_numpy(float)
    several = len(joules) > 1
    sd = float(np.std(joules, ddof=1)) if several else None
    return ImageSummary(
        image=image,
        planned=planned,
        valid=len(joules),
        rank=rank,
        median_j=float(np.median(joules)),
        mean_j=float(joules.mean()),
        sd_j=sd,
        cv_pct=None if sd is None else float(100 * sd / joules.mean()),
        median_s=float(np.median(seconds)) if len(seconds) else None,
        shapiro_p=diagnostics.shapiro_p(joules),
        vs_reference=interval,
        reason=None if several else "one trial: its spread is unknown",
    )


def _sensitivity(
    trials: HostTrials, pairs: tuple[Pair, ...], settings: Settings, share: float
) -> tuple[Sensitivity, ...]:
    """The verdicts under every other choice of trials that there is."""
    rows = trials.rows
    codes = rows["findings"].fillna("").str.split()
    # A code that every trial carries says something of the run, not of a trial.
    common = set.intersection(*(set(c) for c in codes)) if len(codes) else set()
    choices = {
        "without outliers": diagnostics.outlier_mask(rows),
        "without late attempts": rows["late"].fillna(value=False).astype(bool),
        "without trials that carry a finding": codes.map(lambda c: bool(set(c) - common)),
    }
    found = []
    for scenario, out in choices.items():
        if out.any():
            found.append(
                _scenario(scenario, int(out.sum()), trials.keep(~out), pairs, settings, share)
            )
    more = _with_throttled(trials, settings.endpoint)
    if more is not None:
        added = len(more.rows) - len(rows)
        found.append(_scenario("with throttled trials", added, more, pairs, settings, share))
    return tuple(found)


def _with_throttled(trials: HostTrials, endpoint: str) -> HostTrials | None:
    """The host with its throttled trials counted in, where these have joules; None without any."""
    planned = trials.planned
    throttled = planned["findings"].fillna("").str.split().map(lambda c: "throttled" in c)
    back = throttled & (planned["status"] == "invalid") & (planned["energy_j"] > 0)
    if not back.any():
        return None
    frame = planned.copy()
    frame.loc[back, "status"] = "valid"
    more = host_trials(frame, trials.host, trials.images, endpoint)
    return more if len(more.rows) > len(trials.rows) else None


def _scenario(
    name: str,
    count: int,
    trials: HostTrials,
    pairs: tuple[Pair, ...],
    settings: Settings,
    share: float,
) -> Sensitivity:
    others = within_host.compare(trials, settings, factor=share)
    changed = tuple(
        (p.a, p.b, p.verdict, o.verdict)
        for p, o in zip(pairs, others, strict=True)
        if p.verdict is not o.verdict
    )
    return Sensitivity(name, count, others, changed)


# The answer -------------------------------------------------------------------------------------


def _leading(
    hosts: Sequence[HostConclusion], across: AcrossHosts
) -> tuple[tuple[Pair, ...], str | None]:
    """The comparisons that lead, and what they rest on."""
    if across.pairs:
        return tuple(p.leading for p in across.pairs), across.label
    # A host of one block estimates, but without any spread: it leads only where it is alone.
    compared = [h for h in hosts if any(p.sd_log_pct is not None for p in h.pairs)]
    compared = compared or [h for h in hosts if any(p.individual for p in h.pairs)]
    if len(compared) == 1:
        return compared[0].pairs, ONE_HOST
    return (), None


def _ranking(
    images: Sequence[str], reference: str | None, pairs: tuple[Pair, ...]
) -> tuple[RankedImage, ...]:
    rows: list[tuple[float | None, str, Pair | None]] = []
    for image in images:
        pair = None if reference is None else find_pair(pairs, image, reference)
        estimate = 0.0 if image == reference and pairs else (pair.estimate_pct if pair else None)
        rows.append((estimate, image, pair))
    rows.sort(key=lambda r: (r[0] is None, r[0] or 0.0, r[1]))
    return tuple(
        RankedImage(
            image=image,
            rank=None if estimate is None else place,
            is_reference=image == reference,
            pair=pair,
            reason=None if estimate is not None else why_unranked(pair),
        )
        for place, (estimate, image, pair) in enumerate(rows, start=1)
    )
