"""A few runs: what each says of its images, and how an image differs between two of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from wattbench.analysis.stats import power
from wattbench.analysis.stats.conclude import conclude
from wattbench.analysis.stats.ranks import RankShift, Shift, TShift
from wattbench.analysis.stats.results import Conclusion, Pair, Settings, find_pair
from wattbench.analysis.stats.verdicts import Comparison, decide
from wattbench.analysis.trends.levels import CONTROL, Baseline
from wattbench.analysis.trends.read import StoredRun

Array = npt.NDArray[np.float64]

#: From this share of an image's blocks with a baseline on, they are compared inside blocks.
_PAIRED_SHARE = 0.5


@dataclass(frozen=True)
class Difference:
    """One image in two runs, relative to the same baseline.

    Attributes:
        image: the image.
        before: run compared with, by place; ``after``: the later one.
        host_before: where the first was measured; ``host_after``: likewise.
        baseline: ``control`` or the reference image.
        joules_before: median joules, not relative to anything; ``joules_after``: likewise.
        pair: how the ratio changed, % energy of the later run against the earlier.
    """

    image: str
    before: int
    after: int
    host_before: str
    host_after: str
    baseline: str
    joules_before: float
    joules_after: float
    pair: Pair

    @property
    def subject(self) -> str:
        """For example ``slim on gpu-a``."""
        if self.host_before == self.host_after:
            return f"{self.image} on {self.host_after}" if self.host_after else self.image
        return f"{self.image} on {self.host_after} (before: {self.host_before})"


def conclusions(
    runs: Sequence[StoredRun], settings: Settings, progress: Callable[[str], None]
) -> tuple[Conclusion, ...]:
    """What every run says alone, against one reference."""
    found = []
    for done, run in enumerate(runs, start=1):
        found.append(conclude(run.frame(), settings))
        progress(f"{done} of {len(runs)} runs concluded")
    return tuple(found)


def effects(runs: Sequence[StoredRun], concluded: Sequence[Conclusion]) -> pd.DataFrame:
    """Per run, host and image: % energy against the reference with its simultaneous interval."""
    rows = []
    for run, conclusion in zip(runs, concluded, strict=True):
        for host in conclusion.hosts:
            for summary in host.images:
                pair = None
                if conclusion.reference is not None and summary.image != conclusion.reference:
                    pair = find_pair(host.pairs, summary.image, conclusion.reference)
                interval = pair.simultaneous if pair else None
                rows.append(
                    {
                        "run_id": run.run_id, "night": run.night, "host": host.host,
                        "image": summary.image, "reference": conclusion.reference,
                        "n": summary.valid, "median_j": summary.median_j,
                        "estimate_pct": pair.estimate_pct if pair else None,
                        "lower_pct": interval.lower_pct if interval else None,
                        "upper_pct": interval.upper_pct if interval else None,
                        "verdict": str(pair.verdict) if pair else None,
                        "reason": (pair.reason if pair else None) or summary.reason,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def verdict_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Verdicts of a host's image that differ from the first run that gave one.

    Args:
        table: by :func:`effects`.
    """
    columns = ["host", "image", "run_before", "verdict_before", "run_after", "verdict_after"]
    rows = []
    decided = table[table["verdict"].notna()] if len(table) else table
    for (host, image), group in (
        decided.groupby(["host", "image"], sort=True) if len(decided) else ()
    ):
        first, *later = group.to_dict("records")
        rows += [
            (host, image, first["run_id"], first["verdict"], r["run_id"], r["verdict"])
            for r in later
            if r["verdict"] != first["verdict"]
        ]
    return pd.DataFrame(rows, columns=columns)


def differences(
    trials: pd.DataFrame,
    baselines: Sequence[Baseline],
    runs: int,
    reference: str | None,
    settings: Settings,
) -> tuple[Difference, ...]:
    """Every image of every later run against the first one, corrected over all of them.

    Runs are compared host by host, each with the first that measured this host; where two share
    none and have one host each, host against host.

    Args:
        trials: by :func:`analysis.history.levels.prepare`.
        baselines: of the hosts.
        runs: how many there are.
        reference: stands for the baseline where two hosts differ in theirs.
        settings: α, correction and margin.
    """
    cells = {
        (int(str(run)), str(host)): rows
        for (run, host), rows in trials.groupby(["run", "host"], observed=True)
    }
    named = {b.host: b.name for b in baselines}
    open_: list[tuple[Difference, Comparison]] = []
    for after in range(1, runs):
        for before, host_before, host_after in _hosts(cells, after):
            name = named[host_after] if named[host_before] == named[host_after] else reference
            if name is not None:
                open_ += _of_hosts(
                    cells[before, host_before], cells[after, host_after],
                    Difference("", before, after, host_before, host_after, name, 0.0, 0.0, Pair("", "", 0)),
                )  # fmt: skip
    tests = max(1, sum(c.shift is not None for _, c in open_))
    ready = [_with_word(c, settings.alpha / tests) for _, c in open_]
    decided = decide(ready, settings)
    return tuple(replace(d, pair=p) for (d, _), p in zip(open_, decided, strict=True))


def _hosts(cells: dict[tuple[int, str], pd.DataFrame], after: int) -> list[tuple[int, str, str]]:
    """What the hosts of a run are compared with: (earlier run, its host, host)."""
    later = sorted(h for r, h in cells if r == after)
    first = {h: min(r for r, host in cells if host == h) for h in later}
    common = [(first[h], h, h) for h in later if first[h] < after]
    start = min(r for r, _ in cells)
    theirs = [h for r, h in cells if r == start]
    if not common and len(theirs) == len(later) == 1 and start < after:
        return [(start, theirs[0], later[0])]
    return common


def _of_hosts(
    before: pd.DataFrame, after: pd.DataFrame, blank: Difference
) -> list[tuple[Difference, Comparison]]:
    images = sorted(set(_images(before)) & set(_images(after)) - {blank.baseline})
    found = []
    for image in images:
        old, new = (_Sample.of(rows, image, blank.baseline) for rows in (before, after))
        pair = Pair(
            a="after", b="before", n=min(old.n, new.n), method=_method(old, new),
        )  # fmt: skip
        shift, reason = _shift(old, new)
        difference = replace(
            blank,
            image=image,
            joules_before=math.exp(float(np.median(old.logs))),
            joules_after=math.exp(float(np.median(new.logs))),
        )
        found.append((difference, Comparison(replace(pair, reason=reason), shift)))
    return found


def _images(rows: pd.DataFrame) -> list[str]:
    return [str(i) for i in rows.loc[rows["kind"] == "workload", "image"].dropna().unique()]


@dataclass(frozen=True, eq=False)
class _Sample:
    """One image and the baseline in one run on one host, in logarithms."""

    logs: Array
    base: Array
    ratios: Array

    @classmethod
    def of(cls, rows: pd.DataFrame, image: str, baseline: str) -> _Sample:
        of_image = rows[(rows["kind"] == "workload") & (rows["image"] == image)]
        kind = CONTROL if baseline == CONTROL else "workload"
        base = rows[rows["kind"] == kind]
        base = base if baseline == CONTROL else base[base["image"] == baseline]
        ratios = (
            of_image.groupby("block")["log"].mean() - base.groupby("block")["log"].mean()
        ).dropna()
        return cls(
            of_image["log"].to_numpy(float), base["log"].to_numpy(float), ratios.to_numpy(float)
        )

    @property
    def paired(self) -> bool:
        return len(self.ratios) >= max(1.0, _PAIRED_SHARE * len(self.logs))

    @property
    def n(self) -> int:
        return len(self.ratios) if self.paired else min(len(self.logs), len(self.base))


def _method(old: _Sample, new: _Sample) -> str:
    if old.paired and new.paired:
        return "Hodges–Lehmann shift of the blocks' log ratios, rank-sum inversion"
    return "difference of mean log ratios, Welch–Satterthwaite t of four samples"


def _shift(old: _Sample, new: _Sample) -> tuple[Shift | None, str | None]:
    if old.paired and new.paired:
        return RankShift.rank_sum(new.ratios, old.ratios), None
    samples = (new.logs, new.base, old.logs, old.base)
    if min(len(s) for s in samples) < 2:
        return None, "fewer than two trials of the image or of its baseline in a run"
    shares = [float(np.var(s, ddof=1)) / len(s) for s in samples]
    total = sum(shares)
    if total == 0:
        return None, "no trial differs from another: no interval"
    df = total**2 / sum(v**2 / (len(s) - 1) for v, s in zip(shares, samples, strict=True))
    means = [float(s.mean()) for s in samples]
    return TShift(means[0] - means[1] - means[2] + means[3], math.sqrt(total), df), None


def _with_word(comparison: Comparison, level: float) -> Comparison:
    shift, n = comparison.shift, comparison.pair.n
    if shift is None or shift.interval(1 - level)[0] is not None:
        return comparison
    needed = power.smallest_n(level, blocked=False)
    why = f"too few blocks ({n} a run; an interval needs at least {needed})"
    return Comparison(comparison.pair, shift, why)


def to_frame(found: Sequence[Difference], runs: Sequence[StoredRun]) -> pd.DataFrame:
    """One row a difference."""
    rows = []
    for d in found:
        interval = d.pair.simultaneous
        rows.append(
            {
                "image": d.image, "host_before": d.host_before, "host_after": d.host_after,
                "run_before": runs[d.before].run_id, "run_after": runs[d.after].run_id,
                "baseline": d.baseline, "n": d.pair.n, "joules_before": d.joules_before,
                "joules_after": d.joules_after, "change_pct": d.pair.estimate_pct,
                "lower_pct": interval.lower_pct if interval else None,
                "upper_pct": interval.upper_pct if interval else None,
                "p_adjusted": d.pair.p_adjusted, "verdict": str(d.pair.verdict),
                "reason": d.pair.reason, "method": d.pair.method,
            }
        )  # fmt: skip
    columns = [
        "image", "host_before", "host_after", "run_before", "run_after", "baseline", "n",
        "joules_before", "joules_after", "change_pct", "lower_pct", "upper_pct", "p_adjusted",
        "verdict", "reason", "method",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
