"""Endpoints: which trials and which joules of a host are compared.

Only valid workload trials count, over the domains that all of them share: energy that one trial
metered and another did not would look like a difference between images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from wattbench.analysis.model.trials import STEADY, WINDOW
from wattbench.analysis.stats.carry_over import preceding

#: Columns of the domains that can be summed again when trials differ in scope.
DOMAIN_COLUMNS = {"package": "package_j", "dram": "dram_j", "gpu": "gpu_j"}

#: Secondary endpoints: column, label, unit.
SECONDARY = (
    ("idle_corrected_j", "energy above idle", "J"),
    ("steady_j", "energy in steady state", "J"),
    ("j_per_image", "energy per image inferred", "J"),
    ("duration_s", "duration", "s"),
)


def secondary_endpoints(
    rows: pd.DataFrame, endpoint: str = WINDOW
) -> tuple[tuple[str, str, str], ...]:
    """:data:`SECONDARY` for trials whose energy is divided by what their workload counts.

    Where joules per unit of the steady phases are primary, those of the whole window stand here.
    """
    if endpoint == STEADY:
        whole = ("window_j", "energy of the whole window", "J")
        return (whole, *(known for known in SECONDARY if known[0] != "j_per_image"))
    names = sorted(set(rows["unit"].dropna()) - {"image"})
    if not names:
        return SECONDARY
    own = ("j_per_unit", f"energy per {' or '.join(names)}", "J")
    return tuple(own if known[0] == "j_per_image" else known for known in SECONDARY)


def endpoint_text(endpoint: str, rows: pd.DataFrame) -> str:
    """The steady endpoint in words; empty: the whole window's joules."""
    if endpoint != STEADY:
        return ""
    names = sorted(set(rows["unit"].dropna()))
    each = f" per {' or '.join(names)}" if names else ""
    return f"joules{each} in the steady steps"


@dataclass(frozen=True, eq=False)
class HostTrials:
    """One host's trials, ready to be compared.

    Attributes:
        host: its name.
        images: every image of the plan, the reference first.
        planned: all workload rows.
        rows: the valid ones with usable joules, in the order of execution; ``joules`` holds the
            endpoint over the common scope, ``window_j`` joules of the whole window over it,
            ``block_key`` the block (unique over runs; missing without blocks), ``after`` what was
            executed directly before.
        design: blocked where at least two images share a block.
        scope: the common domains, or None.
        energy_source: measured, modelled or mixed.
        reason: why nothing can be compared.
        notes: what was done to the data.
    """

    host: str
    images: tuple[str, ...]
    planned: pd.DataFrame
    rows: pd.DataFrame
    design: Literal["blocked", "unblocked"]
    scope: str | None
    energy_source: str | None
    reason: str | None = None
    notes: tuple[str, ...] = ()

    def keep(self, mask: pd.Series) -> HostTrials:
        """The same host with only some of its valid rows."""
        return replace(self, rows=self.rows[mask])

    def table(self, column: str = "joules") -> pd.DataFrame:
        """Logarithms of a column, one row a block, one column an image; absent cells are missing.

        Values that are not positive have no logarithm and are absent.
        """
        rows = self.rows[self.rows["block_key"].notna()]
        values = _log(rows[column])
        cells = pd.DataFrame({"b": rows["block_key"], "i": rows["image"], "v": values}).dropna()
        table = cells.pivot_table(index="b", columns="i", values="v", aggfunc="mean")
        return table.reindex(columns=list(self.images))

    def samples(self, column: str = "joules") -> dict[str, np.ndarray]:
        """Logarithms of a column by image, regardless of blocks."""
        logs = _log(self.rows[column])
        return {
            image: logs[self.rows["image"] == image].dropna().to_numpy(float)
            for image in self.images
        }


def _log(values: pd.Series) -> pd.Series:
    numbers = values.astype("float64")
    return pd.Series(np.log(numbers.where(numbers > 0).to_numpy(float)), index=values.index)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of execution: by time where every row has one, else by run and position."""
    if len(rows) and rows["started_at"].notna().all():
        return rows.sort_values(["started_at", "position"], kind="stable")
    return rows.sort_values(["run_id", "position"], kind="stable", na_position="last")


def reference_of(trials: pd.DataFrame, wanted: str | None) -> tuple[str | None, str | None]:
    """The reference image, and a note where it isn't the one wanted.

    Without one (or without a valid trial of it) it is the image of lowest median joules, averaged
    over hosts on the log scale.
    """
    workload = trials[trials["kind"] == "workload"]
    valid = workload[(workload["status"] == "valid") & (workload["energy_j"] > 0)]
    if wanted is not None and (valid["image"] == wanted).any():
        return wanted, None
    if valid.empty:
        if wanted is not None and (workload["image"] == wanted).any():
            return wanted, None
        names = sorted(workload["image"].dropna().unique())
        return (str(names[0]) if names else None), None
    logs = pd.DataFrame({"host": valid["host"].fillna(""), "image": valid["image"]})
    logs["v"] = _log(valid["energy_j"])
    medians = logs.groupby(["host", "image"])["v"].median().unstack("image")  # noqa: PD010
    relative = medians.sub(medians.mean(axis=1), axis=0).mean()
    lowest = str(relative.idxmin())
    if wanted is None:
        return lowest, None
    return lowest, (
        f"the reference {wanted} has no valid trial; images are compared with {lowest}, "
        "the one of lowest median, instead"
    )


def images_of(trials: pd.DataFrame, reference: str | None) -> tuple[str, ...]:
    """Every image with a planned workload trial, the reference first, then by name."""
    names = {str(n) for n in trials.loc[trials["kind"] == "workload", "image"].dropna()}
    return tuple(sorted(names, key=lambda n: (n != reference, n)))


def host_trials(
    frame: pd.DataFrame, host: str, images: Sequence[str], endpoint: str = WINDOW
) -> HostTrials:
    """One host's share of a run, by the columns of :mod:`analysis.trials`.

    Args:
        frame: rows of all hosts, kinds and statuses.
        host: its name.
        images: every image of the plan, the reference first.
        endpoint: what ``joules`` holds: those of the ``window``, or of ``steady`` phases per unit.
    """
    of_host = frame[frame["host"].fillna("") == host]
    planned = of_host[of_host["kind"] == "workload"]
    rows = in_order(planned[planned["status"] == "valid"]).copy()
    rows["after"] = preceding(of_host).reindex(rows.index)
    notes: list[str] = []
    if len(rows) == 0:
        return _empty(host, images, planned, "no valid trial", notes)
    scope, joules, reason = _common_scope(rows, notes)
    if joules is None:
        return _empty(host, images, planned, reason or "", notes)
    rows["window_j"] = joules
    rows["joules"], reason = _of_endpoint(rows, endpoint)
    if reason:
        return _empty(host, images, planned, reason, notes)
    usable = rows["joules"] > 0
    if not usable.all():
        notes.append(f"{int((~usable).sum())} valid trials without positive joules are left out")
        rows = rows[usable]
    if rows.empty:
        return _empty(host, images, planned, "no valid trial has joules", notes)
    sources = sorted({str(s) for s in rows["energy_source"].dropna()})
    if len(sources) > 1:
        notes.append("measured and modelled joules are mixed on this host: don't compare them")
    rows["block_key"] = pd.Series(
        [
            None if pd.isna(b) else f"{'' if pd.isna(r) else r}/{int(b):06d}"
            for r, b in zip(rows["run_id"], rows["block"], strict=True)
        ],
        index=rows.index,
        dtype="object",
    )
    shared = rows.dropna(subset=["block_key"]).groupby("block_key")["image"].nunique()
    blocked = bool((shared >= 2).any())
    if not blocked and len(set(rows["image"])) > 1:
        notes.append(
            "trials were not run in blocks: drift of the machine can't be separated from an effect of "
            "the image, and the comparison is of independent samples"
        )
    unblocked = int(rows["block_key"].isna().sum())
    if blocked and unblocked:
        notes.append(f"{unblocked} valid trials belong to no block and are left out")
        rows = rows[rows["block_key"].notna()]
    return HostTrials(
        host,
        tuple(images),
        planned,
        rows,
        "blocked" if blocked else "unblocked",
        scope,
        (sources[0] if len(sources) == 1 else "mixed") if sources else None,
        None,
        tuple(notes),
    )


def _of_endpoint(rows: pd.DataFrame, endpoint: str) -> tuple[pd.Series, str]:
    """The joules that are compared, or why there are none."""
    if endpoint == WINDOW:
        return rows["window_j"], ""
    if len(set(rows["energy_scope"].dropna())) > 1:
        return rows["steady_j"], "the trials cover different energy domains"
    if rows["steady_j"].isna().all():
        return rows["steady_j"], "no trial has steady phases that count"
    return rows["steady_j"] / rows["units"] if rows["units"].notna().any() else rows["steady_j"], ""


def _empty(
    host: str, images: Sequence[str], planned: pd.DataFrame, reason: str, notes: list[str]
) -> HostTrials:
    rows = planned.iloc[:0].assign(
        joules=pd.Series(dtype=float),
        window_j=pd.Series(dtype=float),
        block_key=pd.Series(dtype=object),
        after=pd.Series(dtype=object),
    )
    return HostTrials(
        host, tuple(images), planned, rows, "blocked", None, None, reason, tuple(notes)
    )


@dataclass(frozen=True)
class CommonScope:
    """Joules over the energy domains that all rows share.

    Attributes:
        scope: the domains, joined by ``+``; None where no row states any or none is common.
        joules: per row; None where no domain is common.
        seen: the scopes of the rows.
        dropped: domains that only some rows have.
    """

    scope: str | None
    joules: pd.Series | None
    seen: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def common_scope(rows: pd.DataFrame) -> CommonScope:
    """Reduce rows of different energy scopes to the domains that all of them have."""
    seen = tuple(sorted(str(s) for s in rows["energy_scope"].dropna().unique()))
    if len(seen) <= 1:
        return CommonScope(seen[0] if seen else None, rows["energy_j"], seen)
    scopes = [set(s.split("+")) for s in seen]
    common = [d for d in DOMAIN_COLUMNS if all(d in s for s in scopes)]
    dropped = tuple(sorted(set().union(*scopes) - set(common)))
    if not common:
        return CommonScope(None, None, seen, dropped)
    joules = rows[[DOMAIN_COLUMNS[d] for d in common]].sum(axis=1, min_count=len(common))
    return CommonScope("+".join(common), joules, seen, dropped)


def _common_scope(
    rows: pd.DataFrame, notes: list[str]
) -> tuple[str | None, pd.Series | None, str | None]:
    """The domains all rows share, the joules over them, or why there are none."""
    found = common_scope(rows)
    if found.joules is None:
        seen = ", ".join(found.seen)
        return None, None, f"the trials have no energy domain in common ({seen})"
    silent = int(rows["energy_scope"].isna().sum())
    if len(found.seen) == 1 and silent:
        notes.append(f"{silent} trials do not report which domains they cover")
    if found.dropped:
        missing = ", ".join(found.dropped)
        notes.append(f"compared over {found.scope} only: not every trial has {missing}")
    return found.scope, found.joules, None
