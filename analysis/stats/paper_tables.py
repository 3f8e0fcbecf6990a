"""Tables of the published study's statistics: normality, Kruskal–Wallis, Dunn, Cliff's delta.

Centre and spread, Shapiro–Wilk, Kruskal–Wallis, Dunn's test with Bonferroni's correction,
difference of means, Cliff's delta, difference of medians and of image size against a reference
image. They treat trials as independent draws; the product's own conclusions are the blocked ones
of ``within_host``.

Input is one tidy frame, one row per trial, with the columns ``image``, ``kind``, ``energy_j`` and
``duration_s``. A number that is not defined (a spread of one trial) is an empty cell and has a row
in :attr:`Description.undefined` that says why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

#: The columns of each table, without ``basis``.
COLUMNS: dict[str, tuple[str, ...]] = {
    "energy": ("image", "n", "median_j", "mean_j", "sd_j"),
    "time": ("image", "n", "median_s", "mean_s", "sd_s"),
    "normality": ("image", "n", "shapiro_p"),
    "omnibus": ("test", "statistic", "p"),
    "dunn": ("image_a", "image_b", "p_bonferroni"),
    "effects": ("image_a", "image_b", "mean_diff_j", "cliffs_delta"),
    "relative": (
        "image",
        "reference",
        "median_diff_j",
        "median_diff_pct",
        "size_diff_gb",
        "size_diff_pct",
    ),
    "idle_energy": ("image", "n", "median_j", "mean_j", "sd_j"),
    "idle_time": ("image", "n", "median_s", "mean_s", "sd_s"),
}
UNDEFINED_COLUMNS = ("table", "subject", "reason")

Groups = dict[str, np.ndarray]


@dataclass(frozen=True)
class Description:
    """The tables of one basis.

    Attributes:
        tables: name → frame whose first column is ``basis``, then :data:`COLUMNS`.
        undefined: ``basis, table, subject, reason`` of every cell that is empty because its
            number is not defined.
    """

    tables: Mapping[str, pd.DataFrame]
    undefined: pd.DataFrame


class _Builder:
    """Collects rows of all tables and the reasons for empty cells."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in COLUMNS}
        self.reasons: list[tuple[str, str, str]] = []

    def add(self, table: str, *cells: object) -> None:
        self.rows[table].append(cells)

    def undefined(self, table: str, subject: str, reason: str) -> None:
        self.reasons.append((table, subject, reason))

    def build(self, basis: str) -> Description:
        def frame(rows: list[tuple[object, ...]], columns: tuple[str, ...]) -> pd.DataFrame:
            table = pd.DataFrame(rows, columns=list(columns))
            table.insert(0, "basis", basis)
            return table

        return Description(
            {name: frame(rows, COLUMNS[name]) for name, rows in self.rows.items()},
            frame(list(self.reasons), UNDEFINED_COLUMNS),
        )


def describe(
    trials: pd.DataFrame,
    basis: str,
    *,
    reference: str | None = None,
    sizes_gb: Mapping[str, float] | None = None,
    printed_digits: int | None = None,
    most_pairs: int | None = None,
) -> Description:
    """All tables of one basis.

    Args:
        trials: tidy frame; rows without a value are left out of the table of that value.
        basis: what the rows stand for, the first column of each table.
        reference: the image the others are compared with; by default that of lowest median energy.
        sizes_gb: uncompressed sizes of images, GB.
        most_pairs: pairs beyond which none are tabulated; None: all.
        printed_digits: round medians to these digits before they are subtracted, as is done
            who works from a printed table; None: full precision.

    Returns:
        the tables; images in alphabetical order.
    """
    out = _Builder()
    workload = trials[trials["kind"] == "workload"]
    idle = trials[trials["kind"] == "idle"]
    energy = groups(workload, "energy_j")
    _spread(out, "energy", energy)
    _spread(out, "time", groups(workload, "duration_s"))
    _spread(out, "idle_energy", groups(idle, "energy_j"))
    _spread(out, "idle_time", groups(idle, "duration_s"))
    _normality(out, energy)
    _omnibus(out, energy)
    pairs = len(energy) * (len(energy) - 1) // 2
    if most_pairs is not None and pairs > most_pairs:
        for name in ("dunn", "effects"):
            out.undefined(
                name, "all pairs", f"{pairs} pairs are more than the {most_pairs} tabulated"
            )
    else:
        _dunn(out, energy)
        for a, b in itertools.combinations(energy, 2):
            difference = float(energy[a].mean() - energy[b].mean())
            out.add("effects", a, b, difference, cliffs_delta(energy[a], energy[b]))
    _relative(out, energy, reference, sizes_gb or {}, printed_digits)
    return out.build(basis)


def groups(trials: pd.DataFrame, value: str) -> Groups:
    """Image → its values as a float array, missing ones left out; images in alphabetical order."""
    present = trials[trials[value].notna()]
    return {
        str(image): rows[value].to_numpy(dtype=float)
        for image, rows in present.groupby("image", sort=True)
    }


def cliffs_delta(a: np.ndarray, b: np.ndarray) -> float:
    """Cliff's delta, P(a > b) − P(a < b), in [−1, 1]; ties count for neither side.

    Computed from the Mann–Whitney U statistic (Cliff 1993: delta = 2U/(nm) − 1).
    """
    u = (
        stats.mannwhitneyu(a, b, method="asymptotic").statistic
        if np.ptp(np.concatenate([a, b]))
        else None
    )
    return 0.0 if u is None else float(2 * u / (len(a) * len(b)) - 1)


def _spread(out: _Builder, table: str, values: Groups) -> None:
    for image, v in values.items():
        sd = float(v.std(ddof=1)) if len(v) > 1 else None
        if sd is None:
            out.undefined(table, image, "one trial has no standard deviation")
        out.add(table, image, len(v), float(np.median(v)), float(v.mean()), sd)


def _normality(out: _Builder, energy: Groups) -> None:
    for image, v in energy.items():
        reason = None
        if len(v) < 3:
            reason = f"Shapiro–Wilk needs three trials, there are {len(v)}"
        elif not np.ptp(v):
            reason = "all values are equal"
        elif len(v) > 5000:
            reason = f"Shapiro–Wilk's p is not accurate beyond 5000 trials, there are {len(v)}"
        if reason:
            out.undefined("normality", image, reason)
        out.add("normality", image, len(v), None if reason else float(stats.shapiro(v).pvalue))


def _no_ranks(energy: Groups) -> str | None:
    """Why tests between images are not defined, or None."""
    if len(energy) < 2:
        return "one image has nothing to be compared with" if energy else "no trials"
    if not np.ptp(np.concatenate(list(energy.values()))):
        return "all values are equal"
    return None


def _omnibus(out: _Builder, energy: Groups) -> None:
    if reason := _no_ranks(energy):
        out.undefined("omnibus", "Kruskal–Wallis", reason)
        out.add("omnibus", "Kruskal–Wallis", None, None)
        return
    result = stats.kruskal(*energy.values())
    out.add("omnibus", "Kruskal–Wallis", float(result.statistic), float(result.pvalue))


def _dunn(out: _Builder, energy: Groups) -> None:
    pairs = list(itertools.combinations(energy, 2))
    if reason := _no_ranks(energy):
        out.undefined("dunn", "all pairs", reason)
        for a, b in pairs:
            out.add("dunn", a, b, None)
        return
    ranks = stats.rankdata(np.concatenate(list(energy.values())))
    n = ranks.size
    ties = np.unique(ranks, return_counts=True)[1].astype(float)
    variance = n * (n + 1) / 12 - float(np.sum(ties**3 - ties)) / (12 * (n - 1))
    sizes = {image: v.size for image, v in energy.items()}
    parts = np.split(ranks, np.cumsum(list(sizes.values()))[:-1])
    means = {image: float(part.mean()) for image, part in zip(energy, parts, strict=True)}
    for a, b in pairs:
        z = abs(means[a] - means[b]) / math.sqrt(variance * (1 / sizes[a] + 1 / sizes[b]))
        out.add("dunn", a, b, min(1.0, 2 * float(stats.norm.sf(z)) * len(pairs)))


def _relative(
    out: _Builder,
    energy: Groups,
    reference: str | None,
    sizes_gb: Mapping[str, float],
    digits: int | None,
) -> None:
    medians = {image: float(np.median(v)) for image, v in energy.items()}
    if digits is not None:
        medians = {image: round(m, digits) for image, m in medians.items()}
    if not medians:
        out.undefined("relative", "all images", "no trials")
        return
    if reference is None:
        reference = min(medians, key=lambda image: medians[image])
    if reference not in medians:
        out.undefined("relative", reference, "the reference image has no trials in this basis")
        return
    base = medians[reference]
    for image, median in medians.items():
        if image == reference:
            continue
        size = size_pct = None
        if image in sizes_gb and reference in sizes_gb:
            size = sizes_gb[image] - sizes_gb[reference]
            size_pct = 100 * size / sizes_gb[reference]
        else:
            out.undefined(
                "relative", image, "the size of this or of the reference image is not given"
            )
        pct = 100 * (median - base) / base if base else None
        out.add("relative", image, reference, median - base, pct, size, size_pct)
