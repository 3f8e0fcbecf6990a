"""Diagnostics of one host's data: drift, steps, autocorrelation, outliers, normality.

All of it looks at residuals: log joules of a trial minus the mean of its image, in the order of
execution. None of it changes a verdict; the sensitivity rows show what would.

Sources: Spearman 1904; Ljung & Box 1978; Iglewicz & Hoaglin 1993 (modified z); Shapiro & Wilk 1965.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.stats import carry_over, control_chart
from wattbench.analysis.stats.endpoints import HostTrials
from wattbench.analysis.stats.results import (
    Autocorrelation,
    Fitness,
    Outlier,
    Settings,
    Step,
    Steps,
    Trend,
)
from wattbench.analysis.stats.verdicts import to_pct

Array = npt.NDArray[np.float64]

#: Fewest trials for a judgement on drift, steps or autocorrelation.
FEWEST = 8

#: Modified z beyond which a value is an outlier (Iglewicz & Hoaglin's advice).
OUTLIER_Z = 3.5

#: Fewest trials of an image for a judgement on outliers: the MAD of fewer flags plain noise too often.
FEWEST_FOR_OUTLIERS = 8

#: A check of fitness speaks up at this p.
ALARM = 0.05

_NO_ORDER = "the order of execution is unknown"


def judge(trials: HostTrials, settings: Settings) -> Fitness | None:
    """The fitness of one host's data; None without valid trials."""
    rows = trials.rows
    if rows.empty:
        return None
    residual = residuals(rows) if is_order_known(rows) else None
    codes = trials.planned["findings"].fillna("").str.split()
    return Fitness(
        trend=Trend(None, None, None, False, _NO_ORDER) if residual is None else trend(residual),
        steps=Steps((), None, _NO_ORDER)
        if residual is None
        else steps(residual, positions(rows), settings.seed),
        autocorrelation=Autocorrelation(None, None, False, _NO_ORDER)
        if residual is None
        else autocorrelation(residual),
        outliers=outliers(rows),
        throttled=int(codes.map(lambda c: "throttled" in c).sum()),
        late=int(rows["late"].fillna(value=False).sum()),
        carry_over=carry_over.judge(rows, trials.images[0]),
    )


def is_order_known(rows: pd.DataFrame) -> bool:
    """Whether the rows' order of execution is known."""
    return bool(rows["position"].notna().all() or rows["started_at"].notna().all())


def residuals(rows: pd.DataFrame) -> Array:
    """Log joules minus the mean of their image, in the rows' order."""
    logs = pd.Series(np.log(rows["joules"].to_numpy(float)), index=rows.index)
    return np.asarray((logs - logs.groupby(rows["image"]).transform("mean")).to_numpy(float))


def positions(rows: pd.DataFrame) -> list[int]:
    """Where each row stood in the order; counted from 1 where an import does not report it."""
    return [
        place if pd.isna(position) else int(position)
        for place, position in enumerate(rows["position"], start=1)
    ]


def trend(residual: Array) -> Trend:
    """Monotone drift by Spearman's rho against the order, with the fitted change over the run."""
    n = len(residual)
    if n < FEWEST:
        return Trend(None, None, None, False, f"{n} trials; at least {FEWEST} are needed")
    if np.ptp(residual) < 1e-12:
        return Trend(0.0, 1.0, 0.0, False, "no trial differs from its image's mean")
    rho, p = stats.spearmanr(np.arange(n), residual)
    slope = float(stats.theilslopes(residual).slope)
    return Trend(float(rho), float(p), to_pct(slope * (n - 1)), bool(p <= ALARM))


def steps(residual: Array, where: list[int], seed: int = 0) -> Steps:
    """Changes of level: found at all by permutation, placed by PELT."""
    n = len(residual)
    if n < FEWEST:
        return Steps((), None, f"{n} trials; at least {FEWEST} are needed")
    p = control_chart.step_p(residual, np.random.default_rng(seed))
    if p > ALARM:
        return Steps((), p)
    found = control_chart.change_points(residual)
    return Steps(tuple(Step(where[c.index], to_pct(c.shift)) for c in found), p)


def autocorrelation(residual: Array) -> Autocorrelation:
    """Whether neighbours resemble each other: lag 1, and Ljung–Box over up to ten lags."""
    n = len(residual)
    if n < FEWEST:
        return Autocorrelation(None, None, False, f"{n} trials; at least {FEWEST} are needed")
    total = float(residual @ residual)
    if total < 1e-20:
        return Autocorrelation(0.0, 1.0, False, "no trial differs from its image's mean")
    lag1 = float(residual[1:] @ residual[:-1]) / total
    from statsmodels.stats.diagnostic import acorr_ljungbox  # half a second, spared where not asked

    lags = max(1, min(10, n // 5))
    p = float(acorr_ljungbox(residual, lags=[lags])["lb_pvalue"].iloc[0])
    return Autocorrelation(lag1, p, p <= ALARM)


def outliers(rows: pd.DataFrame) -> tuple[Outlier, ...]:
    """Trials whose log joules lie far from their image's median, by the modified z of the MAD."""
    found = []
    for image, group in rows.groupby("image", sort=False):
        if len(group) < FEWEST_FOR_OUTLIERS:
            continue
        scores = modified_z(np.log(group["joules"].to_numpy(float)))
        found += [
            Outlier(
                image=str(image),
                position=_integer(group["position"].iloc[i]),
                block=_integer(group["block"].iloc[i]),
                planned_position=_integer(group["planned_position"].iloc[i]),
                attempt=_integer(group["attempt"].iloc[i]),
                energy_j=float(group["window_j"].iloc[i]),
                score=float(scores[i]),
            )
            for i in np.flatnonzero(np.abs(scores) > OUTLIER_Z)
        ]
    return tuple(found)


def outlier_mask(rows: pd.DataFrame) -> pd.Series:
    """True for each row that :func:`outliers` flags."""
    mask = pd.Series(data=False, index=rows.index)
    for _, group in rows.groupby("image", sort=False):
        if len(group) >= FEWEST_FOR_OUTLIERS:
            scores = modified_z(np.log(group["joules"].to_numpy(float)))
            mask.loc[group.index] = np.abs(scores) > OUTLIER_Z
    return mask


def modified_z(values: Array) -> Array:
    """Distance from the median in MADs scaled to SDs.

    Where more than half of the values are equal the MAD is 0; the mean absolute deviation stands
    in. All-equal values score 0.
    """
    distance = values - np.median(values)
    scale = float(np.median(np.abs(distance))) / float(stats.norm.ppf(0.75))
    if scale < 1e-12:
        scale = float(np.mean(np.abs(distance))) * math.sqrt(math.pi / 2)
    if scale < 1e-12:
        return np.zeros_like(values)
    return np.asarray(distance / scale)


def shapiro_p(values: Array) -> float | None:
    """Shapiro and Wilk's p; None below three values or where all are equal."""
    if len(values) < 3 or np.ptp(values) == 0:
        return None
    return float(stats.shapiro(values).pvalue)


def _integer(value: object) -> int | None:
    return None if pd.isna(value) else int(value)  # type: ignore[call-overload]


def findings(host: str, fitness: Fitness) -> tuple[Finding, ...]:
    """``drift`` (trend or step) and ``outlier`` of one host, found or not."""
    subject = f"host {host}" if host else "campaign"
    found = [_trend_finding(subject, fitness.trend), *_step_findings(subject, fitness.steps)]
    for o in fitness.outliers:
        place = f"position {o.position}" if o.position is not None else "an unknown position"
        name = (
            f"trial {host}/{o.planned_position:03d}-{o.image}/{o.attempt}"
            if o.planned_position is not None
            else subject
        )
        found.append(
            finding(
                "outlier",
                Verdict.FOUND,
                name,
                f"{o.image} at {place} took {o.energy_j:.6g} J, a modified z of {o.score:.1f} "
                f"(limit {OUTLIER_Z})",
                energy_j=o.energy_j,
                score=o.score,
                position=o.position,
                block=o.block,
            )
        )
    if not fitness.outliers:
        found.append(
            finding("outlier", Verdict.NOT_FOUND, subject, f"no modified z beyond {OUTLIER_Z}")
        )
    return (*found, carry_over.to_finding(subject, fitness.carry_over))


def _trend_finding(subject: str, trend: Trend) -> Finding:
    if trend.p is None or trend.rho is None or trend.change_pct is None:
        return finding(
            "drift", Verdict.UNDECIDABLE, subject, f"no trend can be judged: {trend.reason}"
        )
    message = (
        f"energy changes by {trend.change_pct:+.2f} % from the first trial to the last "
        f"(Spearman's rho {trend.rho:.2f}, p {trend.p:.3g})"
    )
    verdict = Verdict.FOUND if trend.found else Verdict.NOT_FOUND
    return finding(
        "drift",
        verdict,
        subject,
        message,
        kind="trend",
        rho=trend.rho,
        p=trend.p,
        change_pct=trend.change_pct,
    )


def _step_findings(subject: str, steps: Steps) -> list[Finding]:
    return [
        finding(
            "drift",
            Verdict.FOUND,
            subject,
            f"energy steps by {step.change_pct:+.2f} % at position {step.position}",
            kind="step",
            position=step.position,
            change_pct=step.change_pct,
            p=steps.p,
        )
        for step in steps.steps
    ]
