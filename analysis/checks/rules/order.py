"""The order of the trials, and what changes along it: drift and outliers."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from wattbench.analysis.checks.evidence import place
from wattbench.analysis.checks.facts import Campaign, Planned
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, code
from wattbench.analysis.checks.selections import grouped, host_of, in_time, measured, treatment
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Record

FloatArray = npt.NDArray[np.float64]

#: p below which an order, a trend or a step is not attributed to chance.
ALARM = 0.05

#: Trials of a group are averaged in order to at most this number of points before drift is tested.
_DRIFT_POINTS = 400

ORDER_NOT_RANDOMISED = code(
    "order-not-randomised",
    Severity.ERROR,
    place=160,
    meaning="Images were not measured in random order within blocks.",
    why="Drift of the machine or the room cannot be distinguished from an effect of the image.",
    action="Measure in randomised complete blocks.",
)

DRIFT = code(
    "drift",
    Severity.WARNING,
    place=170,
    meaning="Energy drifts or steps with time.",
    why="Unblocked comparisons take it for an effect of the image.",
    action="Trust the blocked comparison; look for the cause at the position named.",
)

OUTLIER = code(
    "outlier",
    Severity.WARNING,
    place=300,
    meaning="A trial lies far from the others of its image.",
    why="It is kept: rank statistics are robust against it, means are not.",
    action="Look at the trial's power curve; the sensitivity row shows the verdict without it.",
)


# ------------------------------------------------------------------------------------------ order


def _reversed_order(campaign: Campaign) -> Campaign:
    count = len(campaign.records) + 1
    return replace(
        campaign,
        records=tuple(
            replace(r, row=replace(r.row, position=count - (r.row.position or 0)))
            for r in campaign.records
        ),
    )


@campaign_check(
    ORDER_NOT_RANDOMISED,
    fine="the order is the planned one, or mixed like a random one",
    example=_reversed_order,
)
def order(campaign: Campaign) -> Outcomes:
    """The order really executed: as planned, or, without a plan, mixed as chance would mix it."""
    for host, records in grouped(campaign.records, host_of).items():
        plan = campaign.facts.plan.get(host)
        yield from _against_plan(host, records, plan) if plan else _mixed(host, records)


def _against_plan(host: str, records: Sequence[Record], plan: Sequence[Planned]) -> Outcomes:
    executed = sorted(
        (r for r in records if r.row.position is not None and not r.row.late),
        key=lambda r: r.row.position or 0,
    )
    if len(executed) < 2:
        yield Unknown("fewer than two trials were executed")
        return
    for a, b in itertools.pairwise(executed):
        if (a.row.planned_position or 0) > (b.row.planned_position or 0):
            yield Found(
                f"trial {b.row.planned_position} ran after {a.row.planned_position}: not the planned order",
                {"before": a.subject, "after": b.subject},
                subject=f"host {host}",
            )
            break
    blocks: defaultdict[int, list[str]] = defaultdict(list)
    for row in plan:
        if row.kind == "workload" and row.block is not None:
            blocks[row.block].append(row.image)
    orders = {tuple(images) for images in blocks.values()}
    if len(orders) == 1 and len(blocks) > 7 and len(next(iter(orders))) > 1:
        yield Found(
            f"all {len(blocks)} blocks have the order {', '.join(next(iter(orders)))}",
            {"blocks": len(blocks)},
            subject=f"host {host}",
        )


def _mixed(host: str, records: Sequence[Record]) -> Outcomes:
    done = [r for r in in_time(records) if r.row.kind in ("workload", "idle")]
    images = [treatment(r) for r in done]
    counts = Counter(images)
    if len(counts) < 2 or len(images) < 3:
        yield Unknown("one image, or too few trials, have no order")
        return
    stretches = [(name, len(list(group))) for name, group in itertools.groupby(images)]
    p, expected = _stretches_p(counts, len(stretches))
    longest = max(stretches, key=lambda s: s[1])
    # One stretch per image: impossible with two or more blocks.
    apart = len(stretches) == len(counts)
    if p >= ALARM and not apart:
        return
    spans = {
        name: {"first": own[0].row.started_at, "last": own[-1].row.started_at, "n": len(own)}
        for name, own in grouped(done, treatment).items()
    }
    treated = len({r.row.image for r in done})
    apart_too = ", idle ones apart," if treated < len(counts) else ""
    yield Found(
        f"{len(images)} trials of {treated} treatments{apart_too} ran in {len(stretches)} stretches "
        f"({expected:.0f} would be expected of a random order, p {p:.2g}); "
        f"the longest is {longest[1]} × {longest[0]}",
        {
            "stretches": len(stretches),
            "expected": expected,
            "p": p,
            "longest": longest[1],
            "spans": spans,
        }
        | place(done[0]),
        subject=f"host {host}" if host else None,
    )


def _stretches_p(counts: Mapping[str, int], stretches: int) -> tuple[float, float]:
    """One-sided p and expectation of the number of stretches under random order.

    Normal approximation of the runs test for several categories (Barton & David 1957), with
    continuity correction.
    """
    from scipy.special import ndtr

    sizes = np.array(list(counts.values()), dtype=float)
    n, squares, cubes = sizes.sum(), (sizes**2).sum(), (sizes**3).sum()
    mean = (n * (n + 1) - squares) / n
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    if variance <= 0:
        return 1.0, float(mean)
    return float(ndtr((stretches + 0.5 - mean) / np.sqrt(variance))), float(mean)


# ------------------------------------------------------------------------------ drift and outliers


def _by_treatment(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Records by host and treatment."""
    return grouped(records, lambda r: (r.row.host, treatment(r)))


def _compared_j(records: Sequence[Record]) -> FloatArray:
    """The joules that are judged over time: the CPU package's, which every import has, else the total."""
    return np.array([r.row.package_j or r.row.energy_j or np.nan for r in records], dtype=float)


def _with_joules(campaign: Campaign, factors: Iterator[float]) -> Campaign:
    return replace(
        campaign,
        records=tuple(
            replace(r, row=replace(r.row, image="a", package_j=3000.0 * factor))
            for r, factor in zip(campaign.records, factors, strict=False)
        ),
    )


@campaign_check(
    DRIFT,
    fine="neither trend nor step",
    example=lambda c: _with_joules(c, itertools.count(1.0, 0.01)),
    statistical=True,
)
def drift(campaign: Campaign) -> Outcomes:
    """Trend and steps of log joules over time within each treatment."""
    from wattbench.analysis.stats import diagnostics

    groups = {
        k: g
        for k, g in _by_treatment(in_time(measured(campaign.records, "workload", "idle"))).items()
        if len(g) >= diagnostics.FEWEST
    }
    if not groups:
        yield Unknown(f"no image has the {diagnostics.FEWEST} trials that a judgement needs")
    for (_, name), group in groups.items():
        joules = _compared_j(group)
        if not (joules > 0).all():
            continue
        width = -(-len(group) // _DRIFT_POINTS)
        starts = np.arange(0, len(joules), width)
        lengths = np.diff(starts, append=len(joules))
        points = np.add.reduceat(np.log(joules), starts) / lengths
        residual = points - points.mean()
        trend = diagnostics.trend(residual)
        subject = f"image {group[0].row.image}"
        if trend.p is not None and trend.p * len(groups) <= ALARM:
            yield Found(
                f"{name}: energy changes by {trend.change_pct:+.2f} % from the first trial to the last "
                f"(Spearman's rho {trend.rho:.2f}, p {trend.p:.2g}, n {len(group)})",
                place(group[0], kind="trend", rho=trend.rho, p=trend.p,
                      change_pct=trend.change_pct, n=len(group), groups=len(groups)),
                subject=subject,
            )  # fmt: skip
        steps = diagnostics.steps(residual, list(range(len(residual))))
        if steps.p is None or steps.p * len(groups) > ALARM:
            continue
        for step in steps.steps:
            first = group[min((step.position or 0) * width, len(group) - 1)]
            yield Found(
                f"{name}: energy steps by {step.change_pct:+.2f} % at {first.row.raw or first.subject} "
                f"({first.row.started_at})",
                place(first, kind="step", change_pct=step.change_pct, p=steps.p, at=first.row.started_at),
                subject=subject,
            )  # fmt: skip


@campaign_check(
    OUTLIER,
    fine="no outlier",
    example=lambda c: _with_joules(c, itertools.chain([2.0], itertools.cycle([1.0, 1.001, 0.999]))),
    statistical=True,
)
def outlier(campaign: Campaign) -> Outcomes:
    """Trials far from the others of their treatment, in energy or in time."""
    from wattbench.analysis.stats import diagnostics

    groups = _by_treatment(measured(campaign.records, "workload", "idle"))
    judged = {k: g for k, g in groups.items() if len(g) >= diagnostics.FEWEST_FOR_OUTLIERS}
    if not judged:
        needed = diagnostics.FEWEST_FOR_OUTLIERS
        yield Unknown(f"no image has the {needed} trials that a judgement needs")
    for (_, name), group in judged.items():
        for what, unit, values in (
            ("energy", "J", _compared_j(group)),
            ("duration", "s", np.array([r.row.duration_s or np.nan for r in group], dtype=float)),
        ):
            if not (values > 0).all():
                continue
            scores = diagnostics.modified_z(np.log(values))
            usual = float(np.median(values))
            for i in np.flatnonzero(np.abs(scores) > diagnostics.OUTLIER_Z):
                change = 100 * (values[i] / usual - 1)
                if abs(change) < 0.1:
                    continue  # far in spreads, but nothing in size
                yield Found(
                    f"{what} {values[i]:.6g} {unit} is {change:+.1f} % from the median of {name}, "
                    f"{usual:.6g} {unit} (modified z {scores[i]:.1f})",
                    place(group[i], value=float(values[i]), median=usual, score=float(scores[i]),
                          n=len(group)),
                    subject=group[i].subject,
                )  # fmt: skip
