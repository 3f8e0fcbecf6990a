"""Carry-over: whether the trial executed before leaves an effect on the next one's energy.

Additive linear model of log joules on block, image and preceding image, with Fisher's F test for the last.
Rest between trials should leave nothing; where it does not, estimates adjusted for the preceding image stand
beside the unadjusted ones.

Sources: Williams 1949; Jones & Kenward, *Design and Analysis of Cross-Over Trials*, chapter 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.stats.results import CarryOver, CarryOverChange
from wattbench.analysis.stats.verdicts import to_pct

Array = npt.NDArray[np.float64]

#: Fewest residual degrees of freedom for the F test.
FEWEST_RESIDUAL = 10
ALARM = 0.05


def preceding(of_host: pd.DataFrame) -> pd.Series:
    """What was executed directly before each row on the same host.

    Args:
        of_host: all rows of one host, of every kind, in the columns of :mod:`analysis.model.trials`.

    Returns:
        ``image``, ``image (idle)`` or ``control``; missing for a run's first trial and where the trial
        before has no row.
    """
    label = (
        of_host["image"]
        .astype("object")
        .where(of_host["kind"] != "idle", of_host["image"].astype("object") + " (idle)")
    )
    places = zip(of_host["run_id"].fillna(""), of_host["position"], strict=True)
    known = {
        (run, int(position)): name
        for (run, position), name in zip(places, label, strict=True)
        if pd.notna(position)
    }
    found = [
        known.get((run, int(position) - 1)) if pd.notna(position) else None
        for run, position in zip(of_host["run_id"].fillna(""), of_host["position"], strict=True)
    ]
    return pd.Series(found, index=of_host.index, dtype="object")


def judge(rows: pd.DataFrame, reference: str) -> CarryOver:
    """Test for an effect of the preceding trial.

    Args:
        rows: valid trials with ``joules``, ``image``, ``block_key`` and ``after`` (:func:`preceding`).
        reference: image that the others are compared with.
    """
    used = rows[rows["after"].notna() & rows["block_key"].notna()]
    log_j = np.log(used["joules"].to_numpy(float))
    if used["after"].nunique() < 2:
        return CarryOver(reason="each trial follows the same one, or no order is known")
    constant = np.ones((len(used), 1))
    base = np.hstack([constant, _columns(used["block_key"]), _columns(used["image"])])
    full = np.hstack([base, _columns(used["after"])])
    rank_base, rank_full = np.linalg.matrix_rank(base), np.linalg.matrix_rank(full)
    added, residual = int(rank_full - rank_base), len(used) - int(rank_full)
    if added < 1 or residual < FEWEST_RESIDUAL:
        return CarryOver(
            reason=f"{len(used)} trials with a known predecessor leave {max(residual, 0)} degrees of "
            f"freedom; {FEWEST_RESIDUAL} are needed"
        )
    without, with_it = _residual_ss(base, log_j), _residual_ss(full, log_j)
    if with_it < 1e-20:
        return CarryOver(reason="the trials show no residual variation")
    f = ((without - with_it) / added) / (with_it / residual)
    p = float(stats.f.sf(f, added, residual))
    return CarryOver(float(f), added, residual, p, p <= ALARM, _changes(used, log_j, reference))


def _changes(used: pd.DataFrame, log_j: Array, reference: str) -> tuple[CarryOverChange, ...]:
    """Each image against the reference, unadjusted and adjusted for the preceding trial."""
    images = [i for i in sorted(set(used["image"].astype(str))) if i != reference]
    image = np.array([[float(i == name) for name in images] for i in used["image"].astype(str)])
    blocks = _columns(used["block_key"])
    after = _columns(used["after"])
    constant = np.ones((len(used), 1))
    plain = np.linalg.lstsq(np.hstack([image, constant, blocks]), log_j, rcond=None)[0]
    adjusted = np.linalg.lstsq(np.hstack([image, constant, blocks, after]), log_j, rcond=None)[0]
    return tuple(
        CarryOverChange(name, to_pct(float(plain[i])), to_pct(float(adjusted[i])))
        for i, name in enumerate(images)
    )


def _columns(levels: pd.Series) -> Array:
    """Indicator columns of all levels but the first."""
    return pd.get_dummies(levels.astype(str), drop_first=True).to_numpy(float)


def _residual_ss(design: Array, values: Array) -> float:
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(np.sum((values - fitted) ** 2))


def to_finding(subject: str, result: CarryOver) -> Finding:
    """``carry-over`` of one host, found or not."""
    if result.p is None:
        return finding(
            "carry-over", Verdict.UNDECIDABLE, subject, f"no carry-over test: {result.reason}"
        )
    largest = max(result.changes, key=lambda c: abs(c.adjusted_pct - c.plain_pct), default=None)
    change = (
        f"; adjusted for it, {largest.image} goes from {largest.plain_pct:+.2f} to "
        f"{largest.adjusted_pct:+.2f} % against the reference"
        if largest and result.found
        else ""
    )
    word = "depends" if result.found else "does not depend measurably"
    return finding(
        "carry-over",
        Verdict.FOUND if result.found else Verdict.NOT_FOUND,
        subject,
        f"energy {word} on the trial executed before (F {result.f:.2f}, p {result.p:.3g}){change}",
        f=result.f,
        p=result.p,
    )
