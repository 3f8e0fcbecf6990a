"""Every table of a report: one frame each, as CSV for programs, booktabs for papers, HTML for the page.

Joules of different hosts are never added or averaged: every table of joules has a column that says the host.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wattbench.analysis.model.experiment_document import ImageDocument
from wattbench.analysis.model.run_document import PullDocument, PullEnergyDocument
from wattbench.analysis.presentation.formatting import minus, missing, number
from wattbench.analysis.presentation.table import Row, Table
from wattbench.analysis.runs import assemble
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats import paper_tables
from wattbench.analysis.stats.factors import Effect
from wattbench.analysis.stats.ranks import RankShift
from wattbench.analysis.stats.results import (
    CarryOver,
    Conclusion,
    HostConclusion,
    Interval,
    Pair,
    PairVerdict,
)


def bounds(interval: Interval | None) -> Row:
    """An interval's columns."""
    if interval is None:
        return {"lower_pct": None, "upper_pct": None, "level_pct": None}
    return {
        "lower_pct": interval.lower_pct,
        "upper_pct": interval.upper_pct,
        "level_pct": 100 * interval.level,
    }


def pair_row(pair: Pair) -> Row:
    """One comparison as columns; the interval is the one behind the verdict."""
    delta, tost = pair.delta, pair.equivalence
    return {
        "a": pair.a,
        "b": pair.b,
        "n": pair.n,
        "estimate_pct": pair.estimate_pct,
        **bounds(pair.simultaneous),
        "p": pair.p,
        "p_adjusted": pair.p_adjusted,
        "verdict": str(pair.verdict),
        "within_margin": pair.within_margin,
        "tost_p": tost.p_adjusted if tost else None,
        "cliffs_delta": delta.delta if delta else None,
        "delta_lower": delta.lower if delta else None,
        "delta_upper": delta.upper if delta else None,
        "sd_log_pct": pair.sd_log_pct,
        "detectable_pct": pair.detectable_pct,
        "ties": pair.ties,
        "method": pair.method,
        "reason": pair.reason,
    }


_PAIR = tuple(pair_row(Pair("", "", 0)))


def _frame(rows: Iterable[Mapping[Any, Any]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([dict(r) for r in rows], columns=list(columns))


def ranking(conclusion: Conclusion) -> Table:
    """The answer: images by energy against the reference."""
    rows = [
        {"rank": r.rank, "image": r.image, "is_reference": r.is_reference}
        | (
            pair_row(r.pair)
            if r.pair
            else {"estimate_pct": 0.0 if r.is_reference and r.rank else None}
        )
        | ({"reason": r.reason} if r.reason else {})
        for r in conclusion.ranking
    ]
    columns = ("rank", "image", "is_reference", *(c for c in _PAIR if c != "a"))
    return Table(
        "ranking",
        "Ranking",
        f"Energy relative to {conclusion.reference}; simultaneous intervals.",
        _frame(rows, columns),
        ("rank", "image", "estimate_pct", "lower_pct", "upper_pct", "p_adjusted", "verdict"),
    )


def pairs(conclusion: Conclusion) -> Table:
    """Every pair on every host, blocked."""
    rows = [{"host": h.host, **pair_row(p)} for h in conclusion.hosts for p in h.pairs]
    return Table(
        "pairs",
        "Every pair of images",
        "Hodges–Lehmann estimates of the ratio of joules inside blocks with simultaneous intervals; "
        "p corrected over pairs; Cliff’s δ with its own interval; the smallest difference that this "
        "number of blocks finds in four of five runs.",
        _frame(rows, ("host", *_PAIR)),
        ("a", "b", "n", "estimate_pct", "lower_pct", "upper_pct", "p_adjusted", "cliffs_delta",
         "delta_lower", "delta_upper", "tost_p", "detectable_pct", "verdict", "reason"),
    )  # fmt: skip


def idle_is_loaded(data: RunData) -> bool:
    """Whether the idle trials that energy above idle refers to held framework and model loaded."""
    return "loaded" in set(_above(data.trials, data)["idle_state"].dropna())


def idle_figures(data: RunData) -> list[tuple[str, str, str]]:
    """Of each idle state of a run: end of its figures' names, of their titles, and the state.

    A run with one state has one entry with the state ``""``: all its idle trials.
    """
    declared = assemble.above_idle_of(data.document)
    if declared is None:
        return [("", ", framework loaded" if idle_is_loaded(data) else "", "")]
    words = {"loaded": ", framework loaded", "container": ", container without work"}
    other = next(state for state in words if state != declared)
    return [("", words[declared], declared), (f"-{other}", words[other], other)]


def of_state(rows: pd.DataFrame, state: str) -> pd.DataFrame:
    """The idle trials of one state of :func:`idle_figures`."""
    kept = [assemble.is_above(one, state or None) for one in rows["idle_state"]]
    return rows[np.array(kept, bool)]


def _above(rows: pd.DataFrame, data: RunData) -> pd.DataFrame:
    """Rows without idle trials of a state that energy above idle does not refer to."""
    declared = assemble.above_idle_of(data.document)
    kept = [
        kind != "idle" or assemble.is_above(state, declared)
        for kind, state in zip(rows["kind"], rows["idle_state"], strict=True)
    ]
    return rows[np.array(kept, bool)]


def idle_states(data: RunData) -> list[Table]:
    """Idle power of both states, of runs that measured both; empty for others."""
    declared = assemble.above_idle_of(data.document)
    if declared is None:
        return []
    idle = data.trials[(data.trials["kind"] == "idle") & (data.trials["status"] == "valid")]
    idle = idle.assign(watts=idle["energy_j"] / idle["duration_s"])
    rows = [
        {"host": host, "image": image, "idle_state": state, "n": len(mine),
         "median_w": median(mine["watts"]), "low_w": mine["watts"].min(), "high_w": mine["watts"].max(),
         "is_subtracted": assemble.is_above(state, declared)}
        for (host, image, state), mine in idle.groupby(["host", "image", "idle_state"])
    ]  # fmt: skip
    columns = ("host", "image", "idle_state", "n", "median_w", "low_w", "high_w", "is_subtracted")
    caption = (
        "Power of valid idle trials: loaded is with the image's framework and model loaded. Energy "
        f"above idle is above the state {declared}, which the experiment names first."
    )
    why = "" if rows else "no idle trial is valid"
    return [Table("idle_states", "Idle power by state", caption, _frame(rows, columns), note=why)]


def secondary(conclusion: Conclusion, data: RunData) -> Table:
    """Secondary endpoints."""
    rows: list[Row] = []
    for host in conclusion.hosts:
        for endpoint in host.secondary:
            base: Row = {"host": host.host, "endpoint": endpoint.label}
            if not endpoint.pairs:
                rows.append(base | {"verdict": "none", "reason": endpoint.reason})
            rows += [base | pair_row(p) for p in endpoint.pairs]
    return Table(
        "secondary",
        "Secondary endpoints",
        "Shown beside the primary endpoint, never chosen after the fact. Above idle: minus the idle "
        f"power measured in the run{', framework loaded' if idle_is_loaded(data) else ''}. Each endpoint "
        "is corrected over its own pairs.",
        _frame(rows, ("host", "endpoint", *_PAIR)),
        ("endpoint", "a", "b", "n", "estimate_pct", "lower_pct", "upper_pct", "verdict", "reason"),
    )


def omnibus(conclusion: Conclusion) -> Table:
    """Do the images differ at all, by the randomisation that was really made."""
    rows = [
        {"host": h.host, "test": o.test, "statistic": o.statistic, "df": o.df, "p": o.p,
         "p_method": o.p_method, "blocks": o.blocks, "images": o.images}
        for h in conclusion.hosts if (o := h.omnibus)
    ]  # fmt: skip
    return Table(
        "omnibus_blocked",
        "Do the images differ at all?",
        "p by permutation inside blocks.",
        _frame(rows, ("host", "test", "statistic", "df", "p", "p_method", "blocks", "images")),
    )


def summaries(conclusion: Conclusion, data: RunData) -> Table:
    """Images on each host."""
    valid = valid_work(data)
    rows = []
    for host in conclusion.hosts:
        for image in host.images:
            mine = valid[(valid["host"] == host.host) & (valid["image"] == image.image)]
            rows.append(
                {
                    "host": host.host,
                    "image": image.image,
                    "planned": image.planned,
                    "valid": image.valid,
                    "rank": image.rank,
                    "median_j": image.median_j,
                    "cv_pct": image.cv_pct,
                    "median_j_above_idle": median(mine["idle_corrected_j"]),
                    "median_j_per_image": median(mine["j_per_image"]),
                    "median_j_per_unit": median(mine["j_per_unit"]),
                    "median_s": image.median_s,
                    "reason": image.reason,
                }
            )
    columns = ("host", "image", "planned", "valid", "rank", "median_j", "cv_pct",
               "median_j_above_idle", "median_j_per_image", "median_s", "reason",
               "median_j_per_unit")  # fmt: skip
    shown = [c for c in columns if c not in ("median_j_per_image", "median_j_per_unit")]
    if valid["units"].notna().any():
        shown.insert(shown.index("median_s"), "median_j_per_unit")
    return Table(
        "images",
        "Images on each host",
        "Valid workload trials, whole window; ranks by the blocked estimate.",
        _frame(rows, columns),
        tuple(shown),
        unit=unit_of(data),
    )


def medians(conclusion: Conclusion, data: RunData) -> Table:
    """Joules, seconds, watts and joules per unit of work: what the first screen shows of each image."""
    valid = valid_work(data)
    rows = []
    for host in conclusion.hosts:
        for image in host.images:
            group = valid[(valid["host"] == host.host) & (valid["image"] == image.image)]
            if len(group):
                rows.append(
                    {"image": image.image, "host": host.host, "n": len(group),
                     "median_j": image.median_j, "median_s": image.median_s,
                     "median_w": median(group["energy_j"] / group["duration_s"]),
                     "median_j_per_unit": median(group["j_per_unit"])}
                )  # fmt: skip
    columns = ("image", "host", "n", "median_j", "median_s", "median_w", "median_j_per_unit")
    return Table(
        "medians",
        "Medians per valid trial",
        "Of the whole window, start-up included.",
        _frame(rows, columns),
        unit=unit_of(data),
    )


def unit_of(data: RunData) -> str:
    """What a unit of the workload is called: ``image``, ``document``, …; ``unit`` where it has no name."""
    names = set(valid_work(data)["unit"].dropna())
    return str(names.pop()) if len(names) == 1 else "unit"


def valid_work(data: RunData) -> pd.DataFrame:
    """Valid workload rows."""
    trials = data.trials
    return trials[(trials["status"] == "valid") & (trials["kind"] == "workload")]


def median(values: pd.Series) -> float | None:
    """The median, None of nothing."""
    present = values.dropna()
    return float(present.median()) if len(present) else None


#: The paper's tables: name here and in ``describe``, number in the paper, title, caption.
_PAPER = (
    ("energy", "Table 1", "Energy under load", "Whole window, valid trials."),
    ("normality", "Table 2", "Normality of the energies", "A description; no verdict rests on it."),
    ("time", "Table 3", "Execution time under load", "The window’s duration."),
    ("dunn", "Table 4", "Dunn’s test of the energies", "Two-sided, Bonferroni-corrected; trials taken "
     "as independent."),
    ("effects", "Table 5", "Effect sizes", "Difference of mean energies and Cliff’s δ, A against B."),
    ("relative", "Table 6", "Energy and size against the reference", "Differences of median energies "
     "and of image sizes on disk."),
    ("omnibus", "", "Kruskal–Wallis over all images", "Trials taken as independent."),
    ("idle_energy", "", "Energy while idle", "The image runs and does nothing."),
    ("idle_time", "", "Time while idle", "The window’s duration."),
)  # fmt: skip


def paper(
    data: RunData, reference: str | None, sizes: Mapping[str, Mapping[str, float]]
) -> list[Table]:
    """Tables 1–6 in the study's form, a basis a host.

    Args:
        data: the run.
        reference: the image compared with.
        sizes: host → image → GB on disk.
    """
    valid = _above(data.trials[data.trials["status"] == "valid"], data)
    parts = []
    for host in data.hosts:
        mine = valid[valid["host"] == host]
        known = (
            reference if reference in set(mine.loc[mine["kind"] == "workload", "image"]) else None
        )
        parts.append(
            paper_tables.describe(mine, host, reference=known, sizes_gb=sizes.get(host) or {})
        )
    tables = []
    for name, label, title, caption in _PAPER:
        if name == "idle_energy" and idle_is_loaded(data):
            caption = "The image holds its framework and model loaded and does nothing."
        rows = [row for p in parts for row in p.tables[name].to_dict("records")]
        frame = _frame(rows, ("basis", *paper_tables.COLUMNS[name]))
        frame = frame.astype(object).where(frame.notna(), None)
        why = sorted({
            f"{row.subject}: {row.reason}"
            for p in parts for row in p.undefined.itertuples() if row.table == name
        })  # fmt: skip
        shown = tuple(c for c in paper_tables.COLUMNS[name])
        tables.append(
            Table(
                name,
                f"{label}. {title}" if label else title,
                caption,
                frame,
                shown,
                "; ".join(why),
            )
        )
    reasons = [row for p in parts for row in p.undefined.to_dict("records")]
    undefined = _frame(reasons, ("basis", *paper_tables.UNDEFINED_COLUMNS))
    tables.append(Table("undefined", "Cells without a number", "Why each is empty.", undefined))
    return tables


def phases(data: RunData) -> Table:
    """Median seconds, joules, watts and joules per unit of every phase."""
    frame = data.phases.assign(
        j_per_unit=data.phases["j_per_unit"].fillna(data.phases["j_per_image"])
    )
    frame = frame[(frame["kind"] == "workload") & (frame["status"] == "valid")]
    rows = []
    keys = ["host", "image", "phase"]
    totals = frame.groupby(["host", "image", "block", "attempt"])["energy_j"].transform("sum")
    frame = frame.assign(share_pct=100 * frame["energy_j"] / totals.where(totals > 0))
    measures = ("duration_s", "energy_j", "mean_w", "j_per_image", "share_pct", "j_per_unit")
    for (host, image, phase), mine in frame.groupby(keys, sort=False):
        rows.append(
            {"host": host, "image": image, "phase": phase, "n": len(mine),
             "start_s": median(mine["start_s"])}
            | {c: median(mine[c]) for c in measures}
        )  # fmt: skip
    columns = ("host", "image", "phase", "n", "start_s", "duration_s", "energy_j", "mean_w",
               "j_per_image", "share_pct", "j_per_unit")  # fmt: skip
    found = _frame(rows, columns).sort_values(["host", "image", "start_s"], kind="stable")
    return Table(
        "phases",
        "Where the joules go",
        "Medians over valid workload trials; phases lie between markers that the workload prints.",
        found,
        ("image", "phase", "n", "duration_s", "energy_j", "mean_w", "j_per_unit", "share_pct"),
        "" if rows else "no valid trial is split into phases",
        unit_of(data),
    )


def startup(data: RunData) -> Table:
    """What a run costs before and after its inferences, and what each inference costs."""
    rows = []
    for (host, image), mine in steady(data).groupby(["host", "image"], sort=True):
        rows.append(
            {
                "host": host,
                "image": image,
                "n": len(mine),
                "fixed_j": float((mine["energy_j"] - mine["steady_j"]).median()),
                "fixed_s": float((mine["duration_s"] - mine["steady_s"]).median()),
                "marginal_j": float((mine["steady_j"] / mine["units"]).median()),
            }
        )
    return Table(
        "startup",
        "What starting costs",
        "Medians: everything of the window outside the steady phases, and the steady joules of one "
        "inference in this run’s mix of resolutions.",
        _frame(rows, ("host", "image", "n", "fixed_j", "fixed_s", "marginal_j")),
        ("image", "n", "fixed_j", "fixed_s", "marginal_j"),
        "" if rows else "no valid trial has steady phases with units of work",
        unit_of(data),
    )


def steady(data: RunData) -> pd.DataFrame:
    """Valid workload rows with steady joules and units of work."""
    valid = valid_work(data)
    return valid[valid["steady_j"].notna() & (valid["units"] > 0)]


@dataclass(frozen=True)
class Spans:
    """Intervals of an image's extra joules against the reference, J; None: unbounded.

    Attributes:
        fixed_j: of one start.
        marginal_j: of one unit of work.
    """

    fixed_j: tuple[float | None, float | None]
    marginal_j: tuple[float | None, float | None]

    @property
    def are_decided(self) -> bool:
        """Whether both differences have a sign."""
        return all(_excludes_zero(span) for span in (self.fixed_j, self.marginal_j))


def _excludes_zero(span: tuple[float | None, float | None]) -> bool:
    low, high = span
    return (low is not None and high is not None and not low <= 0 <= high) or low == high == 0


def cost_spans(data: RunData, reference: str | None, alpha: float) -> dict[tuple[str, str], Spans]:
    """Spans by (host, image): signed-rank intervals of the blocks' differences, Bonferroni-corrected."""
    rows = steady(data)
    fixed_j = rows["energy_j"] - rows["steady_j"]
    marginal_j = rows["steady_j"] / rows["units"]
    found: dict[tuple[str, str], Spans] = {}
    for host, group in rows.assign(fixed=fixed_j, marginal=marginal_j).groupby("host"):
        costs = {
            column: group.pivot_table(index="block", columns="image", values=column)
            for column in ("fixed", "marginal")
        }
        images = [str(i) for i in costs["fixed"].columns if i != reference]
        if reference not in costs["fixed"].columns:
            continue
        level = 1 - alpha / (2 * max(1, len(images)))
        for image in images:
            spans = []
            for table in costs.values():
                differences = (table[image] - table[reference]).dropna().to_numpy(float)
                spans.append(
                    RankShift.signed_rank(differences).interval(level)
                    if len(differences)
                    else (None, None)
                )
            found[str(host), image] = Spans(*spans)
    return found


def break_even(
    costs: Table, reference: str | None, spans: Mapping[tuple[str, str], Spans]
) -> Table:
    """After how many units of work an image's total equals the reference's.

    Total joules of ``n`` units are ``fixed + n × marginal``; two such lines meet once, at
    ``n = (fixed_a − fixed_b) / (marginal_b − marginal_a)``, or never at a positive ``n``. Where the
    interval of a difference includes 0 nothing is said to pay.
    """
    rows: list[Row] = []
    for host, group in costs.frame.groupby("host", sort=True):
        by_image = group.set_index("image")
        if reference not in by_image.index:
            continue
        base = by_image.loc[reference]
        for image, own in by_image.iterrows():
            if image != reference:
                span = spans.get((str(host), str(image)))
                rows.append(_meeting(str(host), str(image), str(reference), own, base, span))
    columns = ("host", "image", "reference", "fixed_diff_j", "marginal_diff_j", "break_even_images",
               "decided", "outcome")  # fmt: skip
    return Table(
        "break_even",
        "Break-even",
        "After how many units of work the totals of two images meet; a line from start-up cost and "
        "cost per unit, so it says nothing about loads that this run did not have.",
        _frame(rows, columns),
        tuple(c for c in columns if c not in ("host", "decided")),
        "" if rows else "no host has steady phases of the reference and of another image",
        costs.unit,
    )


def _meeting(host: str, image: str, reference: str, own: Any, base: Any, span: Spans | None) -> Row:
    fixed_j = float(own["fixed_j"] - base["fixed_j"])
    marginal_j = float(own["marginal_j"] - base["marginal_j"])
    meets = -fixed_j / marginal_j if fixed_j * marginal_j < 0 else None
    decided = span is not None and span.are_decided
    if not decided:
        outcome = f"undecided: the intervals allow it to need more or less than {reference}"
    elif meets is None:
        outcome = _never(fixed_j, marginal_j, reference)
    elif fixed_j > 0:
        outcome = f"more energy at first, less from {number(meets, 0)} inferences on"
    else:
        outcome = f"less energy at first, more from {number(meets, 0)} inferences on"
    return {
        "host": host, "image": image, "reference": reference, "fixed_diff_j": fixed_j,
        "marginal_diff_j": marginal_j, "break_even_images": meets if decided else None,
        "decided": decided, "outcome": outcome,
    }  # fmt: skip


def _never(fixed_j: float, marginal_j: float, reference: str) -> str:
    """Two totals that meet at no number of inferences above 0."""
    if fixed_j == 0 and marginal_j == 0:
        return f"the same as {reference} at every length"
    word = "less" if fixed_j <= 0 and marginal_j <= 0 else "more"
    return f"{word} than {reference} at every length"


def sizes_gb(data: RunData) -> dict[str, dict[str, float]]:
    """Host → image → GB on disk, as its Docker daemon reported after the pull."""
    found: dict[str, dict[str, float]] = {}
    for host in data.hosts:
        found[host] = {
            image: size / 1e9
            for image, pull in data.host(host).get("pulls", {}).items()
            if (size := pull.get("size_bytes_unpacked"))
        }
    return found


def sizes(data: RunData, conclusion: Conclusion) -> Table:
    """Image size beside energy; Pareto-optimal: no other is smaller and needs less energy."""
    on_disk = sizes_gb(data)
    ranked = {r.image: r for r in conclusion.ranking}
    largest = {
        image: max((sizes[image] for sizes in on_disk.values() if image in sizes), default=None)
        for image in conclusion.images
    }
    rows: list[Row] = []
    for image in conclusion.images:
        facts = data.images.get(image, ImageDocument())
        compressed = facts.get("size_bytes")
        rank = ranked.get(image)
        pair = rank.pair if rank else None
        estimate = pair.estimate_pct if pair else (0.0 if rank and rank.is_reference else None)
        rows.append(
            {"image": image, "compressed_mb": compressed / 1e6 if compressed else None,
             "unpacked_gb": largest[image], "estimate_pct": estimate,
             **bounds(pair.simultaneous if pair else None), "digest": facts.get("digest"),
             "pareto": None if estimate is None else _is_pareto(image, largest, conclusion)}
        )  # fmt: skip
    is_open = any(r["pareto"] is None and r["unpacked_gb"] is not None for r in rows)
    columns = ("image", "compressed_mb", "unpacked_gb", "estimate_pct", "lower_pct", "upper_pct",
               "pareto", "digest")  # fmt: skip
    return Table(
        "sizes",
        "Size and energy",
        f"Compressed size to pull, size on disk, energy against {conclusion.reference}.",
        _frame(rows, columns),
        columns[:-1],
        "an empty Pareto cell: a smaller image may need less or more energy, the interval allows both"
        if is_open
        else "",
    )


def size_by_image(frame: pd.DataFrame) -> tuple[dict[str, float], str]:
    """GB by image from the table of sizes, and which size it is: unpacked where it is known of all."""
    unpacked = frame["unpacked_gb"].notna().all()
    column, factor = ("unpacked_gb", 1.0) if unpacked else ("compressed_mb", 1e-3)
    known = frame.dropna(subset=[column])
    values = {str(i): float(v) * factor for i, v in zip(known["image"], known[column], strict=True)}
    return values, "unpacked" if unpacked else "compressed"


def pulls(data: RunData) -> Table:
    """What bringing each image to each host took, apart from every trial."""
    rows = []
    for host in data.hosts:
        for image, pull in data.host(host).get("pulls", {}).items():
            if not pull.get("image") and not pull.get("error"):
                continue  # a process is not pulled
            rows.append({"host": host, "image": image, **_pull_row(pull)})
    columns = ("host", "image", "pulled_mb", "pull_s", "mb_per_s", "pull_j", "uncertainty_j", "window_s",
                "mean_w", "scope", "source", "remark")  # fmt: skip
    return Table(
        "pulls",
        "What deployment took",
        "Bytes received (compressed) until the image was unpacked and verified. Joules are the whole "
        "host’s over the time beside them, its idle draw included; they are in no trial.",
        _frame(rows, columns),
        ("image", "pulled_mb", "pull_s", "mb_per_s", "pull_j", "window_s", "mean_w", "source", "remark"),
        "" if rows else "no image was pulled in this run",
    )  # fmt: skip


def _pull_row(pull: PullDocument) -> Row:
    energy = pull.get("energy", PullEnergyDocument())
    joules, window_s = energy.get("energy_j"), energy.get("window_s")
    fetched, seconds = pull.get("bytes"), pull.get("seconds")
    remarks = [pull.get("error") or energy.get("why") or ""]
    if pull.get("tag_moved_to"):
        remarks.append(f"its tag has since moved to {str(pull['tag_moved_to'])[:19]}…")
    return {
        "pulled_mb": None if fetched is None else fetched / 1e6,
        "pull_s": seconds,
        "mb_per_s": fetched / 1e6 / seconds if fetched and seconds else None,
        "pull_j": joules,
        "uncertainty_j": energy.get("energy_uncertainty_j"),
        "window_s": window_s,
        "mean_w": joules / window_s if joules is not None and window_s else None,
        "scope": energy.get("energy_scope"),
        "source": energy.get("energy_source"),
        "remark": "; ".join(r for r in remarks if r) or None,
    }


def _is_pareto(
    image: str, unpacked_gb: Mapping[str, float | None], conclusion: Conclusion
) -> bool | None:
    """Whether no other image is as small and needs less energy; None where that is undecided."""
    size_gb = unpacked_gb[image]
    if size_gb is None:
        return None
    verdicts = set()
    for other, other_gb in unpacked_gb.items():
        if other != image and (other_gb or math.inf) <= size_gb:
            pair = conclusion.pair(other, image)
            verdicts.add(pair.verdict if pair else PairVerdict.UNDECIDED)
    if PairVerdict.LESS in verdicts:
        return False
    return None if PairVerdict.UNDECIDED in verdicts else True


def across(conclusion: Conclusion) -> list[Table]:
    """What the hosts say together: combined pairs, each host's share, interactions."""
    combined: list[Row] = []
    shares: list[Row] = []
    for pair in conclusion.across.pairs:
        for label, one in (
            ("these hosts", pair.these_hosts),
            ("hosts like these", pair.hosts_like_these),
        ):
            if one is not None:
                combined.append(
                    {"label": label, "leads": label == pair.headline, **pair_row(one),
                     "tau_pct": pair.tau_pct, "i2_pct": pair.i2_pct}
                )  # fmt: skip
        total = sum(h.weight for h in pair.hosts) or 1.0
        shares += [
            {"a": pair.these_hosts.a, "b": pair.these_hosts.b, "host": h.host, "n": h.n,
             "estimate_pct": h.estimate_pct, "se_log_pct": h.se_log_pct,
             "weight_pct": 100 * h.weight / total}
            for h in pair.hosts
        ]  # fmt: skip
    depends = [
        {"a": i.a, "b": i.b, "low_pct": i.low_pct, "high_pct": i.high_pct, "p": i.p,
         "p_adjusted": i.p_adjusted, "depends": i.found, "reason": i.reason}
        for i in conclusion.across.interactions
    ]  # fmt: skip
    return [
        Table(
            "across",
            "Pairs over all hosts",
            "Ratios combined, never joules. These hosts: common effect, each host weighted by its "
            "blocks. Hosts like these: Hartung–Knapp random effects.",
            _frame(combined, ("label", "leads", *_PAIR, "tau_pct", "i2_pct")),
            ("a", "b", "label", "n", "estimate_pct", "lower_pct", "upper_pct", "tau_pct", "i2_pct",
             "verdict"),
        ),
        Table(
            "across_hosts",
            "Each host’s share",
            "Mean log ratio on each host.",
            _frame(shares, ("a", "b", "host", "n", "estimate_pct", "se_log_pct", "weight_pct")),
        ),
        Table(
            "interactions",
            "Does the effect depend on the host?",
            "Welch’s F on the blocks’ log ratios.",
            _frame(depends, ("a", "b", "low_pct", "high_pct", "p", "p_adjusted", "depends", "reason")),
        ),
    ]  # fmt: skip


def gpus(data: RunData) -> list[Table]:
    """Joules of each GPU apart, of trials that used several; empty where none did."""
    joules: dict[tuple[str, str, str], list[float]] = {}
    for record in data.accepted:
        row = record.row
        gpu_domains = [d for d in record.domains if d.counted and d.name.startswith("gpu")]
        if row.status == "valid" and row.kind == "workload" and len(gpu_domains) > 1:
            for domain in gpu_domains:
                key = (row.host, row.image, domain.name)
                joules.setdefault(key, []).append(domain.energy_j)
    rows = [
        {"host": host, "image": image, "gpu": name, "n": len(values),
         "median_j": median(pd.Series(values)), "low_j": min(values), "high_j": max(values)}
        for (host, image, name), values in sorted(joules.items())
    ]  # fmt: skip
    columns = ("host", "image", "gpu", "n", "median_j", "low_j", "high_j")
    title, caption = (
        "Joules of each GPU",
        "Over valid workload trials; the trial’s energy has their sum.",
    )
    return [Table("gpus", title, caption, _frame(rows, columns))] if rows else []


def meters(data: RunData) -> list[Table]:
    """Joules of every meter apart, of hosts that have several; empty where none has."""
    found: dict[tuple[str, str, str, str, bool], list[tuple[float, float, float]]] = {}
    for record in data.accepted:
        row, several = record.row, len(record.expected.get("meters") or ()) > 1
        if row.status == "valid" and row.kind == "workload" and several and row.energy_j:
            for d in record.domains:
                key = (row.host, row.image, d.name, d.meter, d.counted)
                found.setdefault(key, []).append((d.energy_j, d.uncertainty_j, row.energy_j))
    rows = [
        {"host": host, "image": image, "domain": domain, "meter": meter, "counted": counted,
         "n": len(values), "median_j": median(pd.Series([v[0] for v in values])),
         "uncertainty_j": median(pd.Series([v[1] for v in values])),
         "of_total_pct": median(pd.Series([100 * v[0] / v[2] for v in values]))}
        for (host, image, domain, meter, counted), values in sorted(found.items())
    ]  # fmt: skip
    columns = ("host", "image", "domain", "meter", "counted", "n", "median_j", "uncertainty_j",
               "of_total_pct")  # fmt: skip
    caption = (
        "Medians over valid workload trials; the trial’s energy is the sum of what is counted, the others "
        "are cross-checks."
    )
    return [Table("meters", "Joules by meter", caption, _frame(rows, columns))] if rows else []


def fitness(conclusion: Conclusion) -> Table:
    """Was the data fit for the question?"""
    rows = [_fitness_row(h) for h in conclusion.hosts if h.fitness]
    columns = ("host", "rho", "p", "change_pct", "steps", "lag1", "lag1_p", "carry_over_p", "carry_over",
               "outliers", "throttled", "late", "reason")  # fmt: skip
    return Table(
        "fitness",
        "Was the data fit for it?",
        "Of log joules minus their image’s mean, in the order of execution. Carry-over: an F test for an "
        "effect of the preceding trial, and what adjusting for it would change.",
        _frame(rows, columns),
    )


def _fitness_row(host: HostConclusion) -> Row:
    fit = host.fitness
    assert fit is not None
    jumps = ", ".join(f"{s.change_pct:+.1f} % at {s.position}" for s in fit.steps.steps)
    return {
        "host": host.host, "rho": fit.trend.rho, "p": fit.trend.p, "change_pct": fit.trend.change_pct,
        "steps": minus(jumps) or ("none" if fit.steps.p is not None else None),
        "lag1": fit.autocorrelation.lag1, "lag1_p": fit.autocorrelation.p,
        "carry_over_p": fit.carry_over.p, "carry_over": minus(_carry_over(fit.carry_over)),
        "outliers": len(fit.outliers), "throttled": fit.throttled, "late": fit.late,
        "reason": fit.trend.reason,
    }  # fmt: skip


def _carry_over(judged: CarryOver) -> str:
    """What an effect of the preceding trial would change."""
    if judged.p is None:
        return judged.reason or "not tested"
    if not judged.found:
        return "not found"
    changes = (f"{c.image} {c.plain_pct:+.2f} → {c.adjusted_pct:+.2f} %" for c in judged.changes)
    return ", ".join(changes) or "found"


def sensitivity(conclusion: Conclusion) -> Table:
    """The verdicts under other choices of trials."""
    rows = [
        {"host": h.host, "scenario": s.scenario, "trials": s.trials,
         "changed": "; ".join(f"{a} against {b}: {was} → {now}" for a, b, was, now in s.changed)
         or "none"}
        for h in conclusion.hosts for s in h.sensitivity
    ]  # fmt: skip
    return Table(
        "sensitivity",
        "Do the verdicts hold under another choice of trials?",
        "Trials taken out or in, and the verdicts that differ from the main analysis.",
        _frame(rows, ("host", "scenario", "trials", "changed")),
        note="" if rows else "no trial is flagged: there is no other choice",
    )


def what_matters(effects: Sequence[Effect], reference: str | None) -> list[Table]:
    """Every effect of a factor's level or a layer, and where levels are combined their interactions."""
    main = [_effect_row(e) for e in effects if e.kind != "interaction"]
    together = [_effect_row(e) for e in effects if e.kind == "interaction"]
    columns = tuple(_effect_row(Effect("factor", "", "", "", "")))
    shown = ("factor", "of", "n", "estimate_pct", "lower_pct", "upper_pct", "verdict",
             "time_pct", "time_lower_pct", "time_upper_pct")  # fmt: skip
    size = ("size_diff_mb", "size_diff_pct")
    open_ended = [row for row in main if missing(row["lower_pct"]) or missing(row["upper_pct"])]
    tables = [
        Table(
            "what_matters",
            "What matters",
            f"Effects inside blocks, the largest on energy first: a factor’s level against {reference}, a "
            "layer against the rung below it. Simultaneous intervals over all effects, of energy and of "
            "time apart.",
            _frame(main, columns),
            (*shown, *size),
            "; ".join(dict.fromkeys(str(row["reason"]) for row in open_ended)),
        ),
        Table(
            "what_matters_together",
            "Levels together",
            "By how much two levels together differ from the product of each alone.",
            _frame(together, columns),
            shown,
        ),
    ]
    return [t for t in tables if len(t.frame)]


def _effect_row(effect: Effect) -> Row:
    energy, time = effect.energy, effect.time
    seconds = bounds(time.simultaneous if time else None)
    return {
        "kind": effect.kind,
        "factor": effect.factor,
        "of": textwrap.shorten(effect.level, 64, placeholder=" …"),
        "level": effect.level,
        "image": effect.image,
        "against": effect.against,
        "n": energy.n if energy else None,
        "estimate_pct": energy.estimate_pct if energy else None,
        **bounds(energy.simultaneous if energy else None),
        "p": energy.p if energy else None,
        "p_adjusted": energy.p_adjusted if energy else None,
        "verdict": str(energy.verdict) if energy else None,
        "time_pct": time.estimate_pct if time else None,
        "time_lower_pct": seconds["lower_pct"],
        "time_upper_pct": seconds["upper_pct"],
        "time_verdict": str(time.verdict) if time else None,
        "size_diff_mb": effect.size_mb,
        "size_diff_pct": effect.size_pct,
        "reason": effect.reason or (energy.reason if energy else "no valid trial"),
    }
