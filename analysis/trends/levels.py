"""One level per image, host and run: the median log joules of its valid trials, over a baseline.

The baseline is the host's control workload, which no image can change; without one it is the
reference image. Joules of hosts are never compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wattbench.analysis.stats.endpoints import common_scope

CONTROL = "control"

#: A control workload is a baseline if at least this share of the runs has it.
_SHARE_OF_RUNS = 0.5

#: A run counts for an image from this share of its usual number of valid trials on.
_SHARE_OF_TRIALS = 0.5


@dataclass(frozen=True)
class Baseline:
    """What a host's images are compared with.

    Attributes:
        host: its name.
        name: ``control`` or the reference image; None where there is neither.
        scope: the domains compared, those common to all trials; None where not reported.
        energy_source: measured, modelled or mixed.
        note: which domains had to be left out.
        reason: why there is no baseline.
    """

    host: str
    name: str | None
    scope: str | None
    energy_source: str | None
    note: str | None = None
    reason: str | None = None


def prepare(trials: pd.DataFrame, reference: str | None) -> tuple[pd.DataFrame, list[Baseline]]:
    """Valid workload and control trials with ``log`` (of joules over the host's common domains).

    Args:
        trials: as :func:`analysis.history.read.together` gives them.
        reference: the reference image.

    Returns:
        The trials, and the baseline of every host.
    """
    kept = trials[
        (trials["status"] == "valid")
        & trials["kind"].isin(["workload", CONTROL])
        & (trials["energy_j"] > 0)
    ].copy()
    logs = pd.Series(np.nan, index=kept.index)
    baselines = []
    for host, rows in kept.groupby("host", observed=True):
        scope, joules, note = _joules(rows)
        if joules is not None:
            logs[rows.index] = np.log(joules.where(joules > 0))
        baselines.append(_baseline(str(host), rows, reference, scope, note, joules is not None))
    kept["log"] = logs
    return kept[kept["log"].notna()], baselines


def _joules(rows: pd.DataFrame) -> tuple[str | None, pd.Series | None, str | None]:
    found = common_scope(rows)
    if found.joules is None:
        return None, None, f"the runs have no energy domain in common ({', '.join(found.seen)})"
    missing = ", ".join(found.dropped)
    note = f"compared over {found.scope} only: not every run has {missing}" if missing else None
    return found.scope, found.joules, note


def _baseline(
    host: str,
    rows: pd.DataFrame,
    reference: str | None,
    scope: str | None,
    note: str | None,
    usable: bool,
) -> Baseline:
    sources = sorted(str(s) for s in rows["energy_source"].dropna().unique())
    source = (sources[0] if len(sources) == 1 else "mixed") if sources else None
    runs = rows["run"].nunique()
    controlled = rows.loc[rows["kind"] == CONTROL, "run"].nunique()
    name: str | None = None
    reason = None
    if not usable:
        reason, note = note, None
    elif controlled and controlled >= _SHARE_OF_RUNS * runs:
        name = CONTROL
    elif (
        reference is not None
        and ((rows["kind"] == "workload") & (rows["image"] == reference)).any()
    ):
        name = reference
    else:
        reason = f"neither a control workload nor a valid trial of the reference {reference}"
    return Baseline(host, name, scope, source, note, reason)


def of_runs(trials: pd.DataFrame, baselines: Sequence[Baseline]) -> pd.DataFrame:
    """The level of every host, image and run.

    Returns:
        Columns ``host, image, kind, run, n, median_log, digest, baseline, baseline_n, log_ratio,
        left_out``; by host, image and run. ``log_ratio`` is missing where ``left_out`` says why.
        The baseline's own rows have no ratio.
    """
    groups = trials.groupby(["host", "image", "kind", "run"], observed=True, sort=True)
    levels = groups.agg(
        n=("log", "size"), median_log=("log", "median"), digest=("digest", "first"),
        images_inferred=("images_inferred", "median"),
    ).reset_index()  # fmt: skip
    for column in ("host", "image", "kind", "digest"):
        levels[column] = levels[column].astype(object)
    base = pd.DataFrame(
        [(b.host, b.name) for b in baselines if b.name], columns=["host", "baseline"]
    )
    levels = levels.merge(base, on="host", how="left")
    own = _is_baseline(levels)
    beside = levels.loc[own, ["host", "run", "n", "median_log"]].rename(
        columns={"n": "baseline_n", "median_log": "baseline_log"}
    )
    levels = levels.merge(beside, on=["host", "run"], how="left")
    usual = levels.groupby(["host", "image", "kind"])["n"].transform("median")
    few = levels["n"] < _SHARE_OF_TRIALS * usual
    # The baseline of a run is as good as its trials are many, too.
    own = _is_baseline(levels)
    usual_base = levels[own].groupby("host")["n"].median()
    few_base = levels["baseline_n"] < _SHARE_OF_TRIALS * levels["host"].map(usual_base)
    levels["left_out"] = np.select(
        [levels["baseline"].isna(), levels["baseline_log"].isna(), few, few_base],
        ["no baseline", "baseline not measured", "too few trials", "too few baseline trials"],
        default="",
    )
    ratio = levels["median_log"] - levels["baseline_log"]
    levels["log_ratio"] = ratio.where((levels["left_out"] == "") & ~own)
    return levels.drop(columns="baseline_log")


def _is_baseline(levels: pd.DataFrame) -> pd.Series:
    control = (levels["kind"] == CONTROL) & (levels["baseline"] == CONTROL)
    image = (levels["kind"] == "workload") & (levels["image"] == levels["baseline"])
    return control | image
