"""Servers under load: energy against latency, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wattbench.analysis.model.records import ExpectedSlo, Record
from wattbench.analysis.presentation import canvas
from wattbench.analysis.presentation.canvas import INK, MUTED, PAPER, WARN, Drawing
from wattbench.analysis.presentation.formatting import (
    count,
    interval,
    listed,
    minus,
    pct,
    significant,
    slug,
)
from wattbench.analysis.presentation.table import Row, Table
from wattbench.analysis.report import tables
from wattbench.analysis.report.figures import LOG_RATIO, Artist, legend, plain_log
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study
from wattbench.analysis.runs import steady_steps
from wattbench.analysis.stats import early_stopping, load_steps
from wattbench.analysis.stats.headline import less
from wattbench.analysis.stats.load_steps import Slo, StepComparison, median_interval
from wattbench.analysis.stats.results import DECIDED, Pair, PairVerdict

_WITH_INTERVAL = (
    "throughput_per_s", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_max_ms",
    "first_byte_p50_ms", "first_byte_p99_ms", "goodput_per_s", "mean_w", "j_per_request", "j_per_token",
    "tokens_per_s",
)  # fmt: skip
_PLAIN = (
    "error_pct", "j_per_request_uncertainty", "j_per_token_uncertainty", "cpu_pct", "late_p99_ms",
    "late_max_ms",
)  # fmt: skip
_COLUMNS = (
    "host", "image", "step", "concurrency", "rate_per_s", "n",
    *(c + end for c in _WITH_INTERVAL for end in ("", "_lower", "_upper")), *_PLAIN,
    "meets_slo", "on_front",
)  # fmt: skip
#: Room of a step's name in the figure, dots.
_NAME_PX = (26.0, 14.0)
_PAIR = ("host", "step", "compared", *tables.pair_row(Pair("", "", 0)))


@dataclass(frozen=True)
class _Load:
    """The load of a run, as its trials were asked for it."""

    unit: str
    slo: Slo
    steps: tuple[str, ...]

    @property
    def energy(self) -> str:
        """The column of joules per unit."""
        return f"j_per_{self.unit}"

    @classmethod
    def of(cls, records: Iterable[Record]) -> _Load | None:
        """None: no trial was a server's."""
        servers = [r for r in records if r.is_server]
        if not servers:
            return None
        asked = servers[0].expected
        names = [step["name"] for step in asked.get("steps") or ()]
        names += [s.name for r in servers for s in r.steps]
        unit, slo = asked.get("unit"), asked.get("slo") or ExpectedSlo()
        is_token = unit is not None and unit["name"] == "token"
        return cls(
            "token" if is_token else "request",
            Slo(slo.get("p99_ms"), slo.get("max_error_pct")),
            tuple(dict.fromkeys(names)),
        )


@section
class EnergyLatency(Section):
    """Energy against latency: only where servers were measured."""

    name = "energy-latency"
    title = "Energy against latency"
    place = 15

    def sentences(self, study: Study) -> Sequence[str]:
        """What is decided at the last step at which images keep the SLO, per host."""
        load = _Load.of(study.data.accepted)
        if load is None:
            return ()
        rows, several = steady_steps.frame_of(study.data.accepted), len(study.data.hosts) > 1
        found = []
        for host in study.data.hosts:
            of_host = rows[rows["host"] == host]
            sentence = _sentence(_compared(study, of_host, load), of_host, load, study)
            found.append(f"{host}: {sentence}" if several else sentence[:1].upper() + sentence[1:])
        return found

    def tables(self, study: Study) -> Iterable[Table]:
        """Every step of each image, and every pair of images at each step."""
        load = _Load.of(study.data.accepted)
        if load is None:
            return ()
        rows = steady_steps.frame_of(study.data.accepted)
        level = 1 - study.conclusion.settings.alpha
        steps: list[Row] = []
        pairs: list[Row] = []
        for host in study.data.hosts:
            of_host = rows[rows["host"] == host]
            for step in _compared(study, of_host, load):
                at = of_host[of_host["step"] == step.step]
                steps += [
                    {"host": host, "image": image, "step": step.step}
                    | _row(at[at["image"] == image], level)
                    | {"meets_slo": step.meets[image] if load.slo.p99_ms else None,
                       "on_front": step.on_front[image]}
                    for image in study.conclusion.images
                    if (at["image"] == image).any()
                ]  # fmt: skip
                pairs += [
                    {"host": host, "step": step.step, "compared": what, **tables.pair_row(pair)}
                    for what, family in (
                        (f"energy per {load.unit}", step.energy), ("latency p99", step.latency),
                    )
                    for pair in family
                ]  # fmt: skip
        host_shown = ("host",) if len(study.data.hosts) > 1 else ()
        decided = ("meets_slo", "on_front") if load.slo.p99_ms else ("on_front",)
        goodput = ("goodput_per_s",) if load.slo.p99_ms else ()
        first = ("first_byte_p50_ms",) if load.unit == "token" else ()
        shown = ("image", *host_shown, "step", "n", "throughput_per_s", "error_pct", "latency_p50_ms",
                 "latency_p99_ms", *first, "mean_w", load.energy, f"{load.energy}_lower",
                 f"{load.energy}_upper", *decided, *goodput,
                 f"{load.energy}_uncertainty")  # fmt: skip
        return [
            Table(
                "steps",
                "Every step",
                f"Medians over valid trials with their {100 * level:g} % intervals; “metered to” is the "
                "meter’s uncertainty in a trial. Latencies are those of successful requests, from the "
                "intended time.",
                pd.DataFrame(steps, columns=list(_COLUMNS)).astype({"concurrency": "Int64"}),
                shown,
                "an empty cell under “keeps SLO” or “on the front”: the intervals don’t decide it",
            ),
            Table(
                "step_pairs",
                "Pairs of images at each step",
                "Ratios inside blocks with simultaneous intervals over all pairs and steps of a host, of "
                "energy and of latency apart.",
                pd.DataFrame(pairs, columns=list(_PAIR)),
                ("a", "b", *host_shown, "step", "compared", "n", "estimate_pct", "lower_pct",
                 "upper_pct", "verdict"),
            ),
        ]  # fmt: skip

    def figures(self, study: Study, artist: Artist) -> Iterable[Drawing | None]:
        """One curve per image over the steps, of each host."""
        load = _Load.of(study.data.accepted)
        if load is None:
            return
        frame = study.tables["steps"].frame
        for host in study.data.hosts:
            yield _figure(frame[frame["host"] == host], load, artist, host)


def _compared(study: Study, rows: pd.DataFrame, load: _Load) -> list[StepComparison]:
    """The steps of one host in the order of the plan."""
    conclusion = study.conclusion
    share = early_stopping.factor(len(conclusion.images), conclusion.settings)
    found = load_steps.compare(
        rows, conclusion.images, conclusion.settings, load.slo, load.energy, share
    )
    return sorted(found, key=lambda s: load.steps.index(s.step))


def _row(rows: pd.DataFrame, level: float) -> Row:
    """Medians of one image at one step."""
    found: Row = {
        "n": len(rows),
        "concurrency": rows["concurrency"].iloc[0],
        "rate_per_s": rows["rate_per_s"].iloc[0],
    }
    for column in _WITH_INTERVAL:
        values = median_interval(rows[column].to_numpy(float), level)
        found |= dict(zip((column, f"{column}_lower", f"{column}_upper"), values, strict=True))
    return found | {column: tables.median(rows[column]) for column in _PLAIN}


# The sentence -------------------------------------------------------------------------------------


def _sentence(
    steps: Sequence[StepComparison], rows: pd.DataFrame, load: _Load, study: Study
) -> str:
    """What one host says at its last step with two images that may be compared."""
    limit = _limit(load.slo)
    for step in reversed(steps):
        fit = [i for i in study.conclusion.images if step.meets[i]]
        pairs = [p for p in step.energy if p.a in fit and p.b in fit]
        if not pairs:
            continue
        of_step = rows[rows["step"] == step.step]
        at = f"at {_load_text(of_step)}{limit and f' within {limit}'}"
        others = _left_out(step, limit, set(of_step["image"]))
        decided = [
            p if p.verdict is PairVerdict.LESS else p.flipped()
            for p in pairs
            if p.verdict in DECIDED
        ]
        if decided:
            pair = min(decided, key=lambda p: (p.estimate_pct or 0.0, p.a, p.b))
            size, bounds = less(pair)
            sentence = f"{at}, {pair.a} needs {size} ({bounds}) less per {load.unit} than {pair.b}."
            return sentence + others
        pair = pairs[0]
        estimate = (
            ""
            if pair.estimate_pct is None
            else f" ({pct(pair.estimate_pct)}, {interval(pair.simultaneous)})"
        )
        outcome = (
            f"{pair.a} and {pair.b} need the same within ±{study.conclusion.settings.equivalence_pct:g} %"
            if pair.verdict is PairVerdict.EQUIVALENT
            else f"which image needs less per {load.unit} is undecided: {pair.a} against {pair.b}"
        )
        return minus(f"{at}, {outcome}{estimate}.") + others
    if limit and steps:
        return (
            f"no step has two images that are shown to keep {limit}: nothing is compared within it."
        )
    return "no step of two images can be compared."


def _left_out(step: StepComparison, limit: str, measured: set[str]) -> str:
    """Images with trials that are not shown to keep the SLO."""
    failing = [i for i, meets in step.meets.items() if meets is False]
    unknown = [i for i, meets in step.meets.items() if meets is None and i in measured]
    outside = f" Not within it: {listed(failing)}." if failing and limit else ""
    return outside + (
        f" Undecided whether within it: {listed(unknown)}." if unknown and limit else ""
    )


def _limit(slo: Slo) -> str:
    latency = "" if slo.p99_ms is None else f"p99 {slo.p99_ms:g} ms"
    errors = "" if slo.max_error_pct is None else f"{slo.max_error_pct:g} % errors"
    return " and ".join(filter(None, (latency, errors)))


def _load_text(rows: pd.DataFrame) -> str:
    """The load of a step in words."""
    rate, concurrency = rows["rate_per_s"].iloc[0], rows["concurrency"].iloc[0]
    if not pd.isna(rate):
        return f"{rate:g} requests/s"
    if not pd.isna(concurrency):
        return f"{count(int(concurrency), 'request')} at a time"
    return f"step {rows['step'].iloc[0]}"


# The figure ---------------------------------------------------------------------------------------


def _figure(frame: pd.DataFrame, load: _Load, artist: Artist, host: str) -> Drawing | None:
    """Joules per unit over the 99th percentile of the latency, of one host."""
    energy = load.energy
    frame = frame.dropna(subset=["latency_p99_ms", energy])
    if frame.empty:
        return None
    with canvas.style():
        figure, (axes,) = canvas.new(3.3)
        latencies = frame["latency_p99_ms"].to_numpy(float)
        shown = np.append(latencies, [load.slo.p99_ms] if load.slo.p99_ms else [])
        is_log = bool(shown.max() > LOG_RATIO * shown.min() > 0)
        if is_log:
            axes.set_xscale("log")
        if load.slo.p99_ms:
            axes.axvline(load.slo.p99_ms, color=WARN, lw=1.1, ls=(0, (4, 3)))
            axes.annotate(
                f"SLO {load.slo.p99_ms:g} ms", (load.slo.p99_ms, 0), xycoords=("data", "axes fraction"),
                xytext=(-3, 4), textcoords="offset points", ha="right", va="bottom", fontsize=7.5,
                color=WARN, rotation=90,
            )  # fmt: skip
        for image in artist.look.images:
            of_image = frame[frame["image"] == image]
            if of_image.empty:
                continue
            look = artist.look[image]
            x, y = of_image["latency_p99_ms"].to_numpy(float), of_image[energy].to_numpy(float)
            for of_kind in (of_image["rate_per_s"].isna(), of_image["rate_per_s"].notna()):
                axes.plot(x[of_kind], y[of_kind], color=look.colour, lw=1.2, alpha=0.6, zorder=2)
            axes.plot([], [], look.marker, color=look.colour, ms=5.0, label=image)
            _whiskers(axes, of_image, energy, look.colour)
            for place, row in enumerate(of_image.to_dict("records")):
                on_front = row["on_front"]
                axes.plot(
                    x[place], y[place], look.marker, color=look.colour, zorder=3,
                    ms=7.5 if on_front is True else 5.0, mew=1.2,
                    mfc=PAPER if on_front is False else look.colour,
                    mec=INK if on_front is True else look.colour,
                )  # fmt: skip
        axes.margins(0.14)
        _name_steps(axes, frame, energy)
        if is_log:
            plain_log(axes.xaxis, shown)
        axes.set_xlabel(f"latency p99, ms{' (logarithmic)' if is_log else ''}")
        axes.set_ylabel(f"energy, J/{load.unit}")
        axes.grid(visible=True)
        legend(axes)
        return canvas.finish(
            figure,
            f"energy-latency-{slug(host)}",
            f"Energy against latency on {host}. Medians of each step with their intervals; lines join steps "
            f"of one kind in the order of the plan; {_front_text(frame)}",
            f"Energy per {load.unit} against the 99th percentile of the latency on {host}: "
            + "; ".join(
                f"{r['image']} {r['step']} {significant(r[energy])} J at "
                f"{significant(r['latency_p99_ms'])} ms"
                for r in frame.to_dict("records")
            )
            + ".",
            modelled=artist.modelled,
        )


@dataclass
class _Name:
    """The name of one step, or of several whose points lie together."""

    image: str
    point: tuple[float, float]
    at: np.ndarray
    steps: list[str]

    def is_near(self, at: np.ndarray) -> bool:
        """Whether a name at a place of the figure would lie over this one."""
        return bool((np.abs(self.at - at) < _NAME_PX).all())


def _name_steps(axes: Any, frame: pd.DataFrame, energy: str) -> None:
    """Each point's step; below the point where another image's name stands above it."""
    axes.autoscale_view()
    names: list[_Name] = []
    for row in frame.to_dict("records"):
        point = (row["latency_p99_ms"], row[energy])
        at = axes.transData.transform(point)
        near = next((n for n in names if n.image == row["image"] and n.is_near(at)), None)
        if near is not None:
            near.steps.append(str(row["step"]))
        else:
            names.append(_Name(row["image"], point, at, [str(row["step"])]))
    for place, name in enumerate(names):
        below = any(other.is_near(name.at) for other in names[:place])
        axes.annotate(
            ", ".join(name.steps), name.point, xytext=(5, -10 if below else 4),
            textcoords="offset points", fontsize=7, color=MUTED,
        )  # fmt: skip


def _whiskers(axes: Any, rows: pd.DataFrame, energy: str, colour: str) -> None:
    """Intervals of the medians in both directions, where they are bounded."""
    for row in rows.to_dict("records"):
        x, y = row["latency_p99_ms"], row[energy]
        across = [row["latency_p99_ms_lower"], row["latency_p99_ms_upper"]]
        along = [row[f"{energy}_lower"], row[f"{energy}_upper"]]
        if not pd.isna(across).any():
            axes.plot(across, [y, y], color=colour, lw=1.0, zorder=2)
        if not pd.isna(along).any():
            axes.plot([x, x], along, color=colour, lw=1.0, zorder=2)


def _front_text(frame: pd.DataFrame) -> str:
    """Which images are shown to be on the front, by step."""
    shown: dict[str, list[str]] = {}
    for row in frame.to_dict("records"):
        if row["on_front"] is True:
            shown.setdefault(str(row["step"]), []).append(str(row["image"]))
    if not shown:
        return "at no step is an image shown to be beaten by none in both."
    by_step: Mapping[str, str] = {step: listed(images) for step, images in shown.items()}
    text = "; ".join(f"{step}: {images}" for step, images in by_step.items())
    return (
        "large marks are shown to be beaten by no other image in both at the step, hollow ones to be beaten "
        f"({text})."
    )
