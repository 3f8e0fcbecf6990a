"""The figures, one function each: tidy rows in, a :class:`~analysis.report.canvas.Drawing` out.

Units stand on every axis; an image has its colour and marker everywhere. A function returns None
where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wattbench.analysis.presentation import canvas, formatting
from wattbench.analysis.presentation.canvas import INK, LINE, MUTED, PAPER, WASH, Drawing
from wattbench.analysis.presentation.forest import values_of
from wattbench.analysis.presentation.formatting import pct
from wattbench.analysis.presentation.palette import Palette
from wattbench.analysis.presentation.scales import Scale, scale_of
from wattbench.analysis.report.power_curves import PowerCurve
from wattbench.analysis.stats.factors import Effect
from wattbench.analysis.stats.results import (
    HOSTS_LIKE_THESE,
    Conclusion,
    Interval,
    Settings,
    find_pair,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Beyond this ratio of largest to smallest value an axis is logarithmic.
LOG_RATIO = 3.0
#: The row of all hosts in the figure across hosts.
_TOGETHER = "all hosts together"


@dataclass(frozen=True)
class Artist:
    """Draws in one run's colours.

    Attributes:
        look: colour and marker of every image.
        modelled: label every figure as modelled.
    """

    look: Palette
    modelled: bool

    def _finish(self, figure: Any, name: str, caption: str, alt: str) -> Drawing:
        return canvas.finish(figure, name, caption, alt, modelled=self.modelled)

    # ── one host ─────────────────────────────────────────────────────────────────────────────

    def spread(
        self, rows: pd.DataFrame, column: str, name: str, what: str, host: str
    ) -> Drawing | None:
        """Violin, box and every trial of each image.

        Args:
            rows: valid trials of one host and kind.
            column: ``energy_j`` or ``duration_s``.
            name: of the files.
            what: for the caption, for example ``Energy a trial``.
            host: for the caption.
        """
        groups = {
            image: rows.loc[rows["image"] == image, column].dropna().to_numpy(float)
            for image in self.look.images
        }
        groups = {image: v for image, v in groups.items() if v.size}
        if not groups:
            return None
        unit, factor = _unit(column, max(v.max() for v in groups.values()))
        with canvas.style():
            figure, (axes,) = canvas.new(0.75 + 0.42 * len(groups))
            everything = np.concatenate(list(groups.values()))
            bent = bool(everything.min() > 0 and everything.max() > LOG_RATIO * everything.min())
            if bent:
                axes.set_xscale("log")
            for place, (image, values) in enumerate(groups.items()):
                look = self.look[image]
                canvas.distribution(
                    axes, place, values * factor, look.colour, look.marker, logarithmic=bent
                )
            canvas.bare_y(axes, list(groups))
            if bent:
                plain_log(axes.xaxis, everything * factor)
            axes.set_xlabel(f"{what.lower()}, {unit}{' (logarithmic)' if bent else ''}")
            medians = ", ".join(
                f"{i} {formatting.significant(np.median(v) * factor)} {unit}"
                for i, v in groups.items()
            )
            return self._finish(
                figure,
                name,
                f"{what} on {host}. "
                + (
                    "Points are trials, boxes quartiles with the median, whiskers 1.5 interquartile "
                    "ranges, shapes the density."
                    if column == "energy_j"
                    else "Marks as for the energy."
                ),
                f"{what} on {host} by image; medians: {medians}.",
            )

    def energy_time(self, rows: pd.DataFrame, name: str, host: str) -> Drawing | None:
        """Energy of every trial against its duration, with lines of equal power.

        Args:
            rows: valid workload trials of one host.
            name: of the files.
            host: for the caption.
        """
        rows = rows.dropna(subset=["energy_j", "duration_s"])
        if rows["image"].nunique() < 2:
            return None
        unit, factor = _unit("energy_j", float(rows["energy_j"].max()))
        with canvas.style():
            figure, (axes,) = canvas.new(3.0)
            medians = []
            for image in self.look.images:
                group = rows[rows["image"] == image]
                if group.empty:
                    continue
                look = self.look[image]
                energy, time = group["energy_j"] * factor, group["duration_s"]
                axes.plot(time, energy, look.marker, color=look.colour, ms=3.6, alpha=0.5, mew=0)
                axes.plot(
                    time.median(), energy.median(), look.marker, color=look.colour, ms=7.5,
                    mec=PAPER, label=image,
                )  # fmt: skip
                watts = (group["energy_j"] / group["duration_s"]).median()
                medians.append(f"{image} {formatting.significant(watts, 3)} W")
            axes.margins(0.12)
            _equal_power(axes, factor)
            axes.set_xlabel("time per trial, s")
            axes.set_ylabel(f"energy per trial, {unit}")
            axes.grid(visible=True)
            legend(axes)
            return self._finish(
                figure,
                name,
                f"Energy against time on {host}. Small marks are trials, large ones medians; along a "
                "dashed line the mean power is the same.",
                f"Energy against time on {host}; median power: {', '.join(medians)}.",
            )

    def power(self, curves: Mapping[str, PowerCurve], name: str, host: str) -> Drawing | None:
        """Power over time of a typical trial of each image, its phases shaded."""
        shown = {i: curves[i] for i in self.look.images if i in curves}
        if not shown:
            return None
        with canvas.style():
            figure, panels = canvas.new(
                0.55 + 1.12 * len(shown), len(shown), sharex=True, sharey=True
            )
            top = 1.18 * max(float(c.power_w.max()) for c in shown.values())
            for axes, (image, curve) in zip(panels, shown.items(), strict=True):
                _phases(axes, curve, top)
                axes.fill_between(
                    curve.time_s, curve.power_w, step="post", color=self.look[image].colour,
                    alpha=0.16, linewidth=0,
                )  # fmt: skip
                axes.step(
                    curve.time_s, curve.power_w, where="post", color=self.look[image].colour, lw=1.3
                )
                axes.set_ylim(0, top)
                axes.set_title(image, pad=3)
                axes.grid(visible=True, axis="y")
            panels[-1].set_xlabel("time since the window’s start, s")
            panels[len(panels) // 2].set_ylabel(f"power ({next(iter(shown.values())).scope}), W")
            means = ", ".join(
                f"{i} {c.energy_j / c.duration_s:.0f} W over {c.duration_s:.0f} s"
                for i, c in shown.items()
            )
            return self._finish(
                figure,
                name,
                f"Power over time on {host}. Of each image the trial whose energy is nearest the image’s "
                "median; bands are the workload’s phases.",
                f"Power over time of one trial an image on {host}; means: {means}.",
            )

    def course(self, rows: pd.DataFrame, name: str, host: str) -> Drawing | None:
        """Energy against the order of execution, relative to the image's median, over the blocks."""
        rows = rows[rows["energy_j"].notna() & rows["position"].notna()]
        if len(rows) < 2:
            return None
        rows = rows.sort_values("position")
        relative = 100 * (
            rows["energy_j"] / rows.groupby("image")["energy_j"].transform("median") - 1
        )
        with canvas.style():
            figure, (axes,) = canvas.new(2.6)
            _blocks(axes, rows)
            axes.axhline(0, color=MUTED, lw=0.8)
            for image in self.look.images:
                mine = rows["image"] == image
                late = rows["late"].fillna(value=False).astype(bool)
                look = self.look[image]
                for chosen, face in ((mine & ~late, look.colour), (mine & late, PAPER)):
                    axes.plot(
                        rows.loc[chosen, "position"].astype(int), relative[chosen], look.marker,
                        color=look.colour, mfc=face, ms=4.6, mew=1,
                        label=image if face == look.colour and chosen.any() else None,
                    )  # fmt: skip
            axes.set_xlabel("place in the order executed")
            axes.set_ylabel("deviation from median, %")
            axes.margins(x=0.02, y=0.15)
            axes.grid(visible=True, axis="y")
            legend(axes)
            low, high = float(relative.min()), float(relative.max())
            return self._finish(
                figure,
                name,
                f"Energy in the order executed on {host}. Every valid trial against its image’s median; "
                "bands are blocks, hollow marks further attempts.",
                f"Energy by order of execution on {host}: deviations from {low:+.1f} % to "
                f"{high:+.1f} % of the image’s median over {len(rows)} trials.",
            )

    def rest(self, course: pd.DataFrame, name: str, host: str) -> Drawing | None:
        """How long the host rested before each window, and its temperature at the edges.

        Args:
            course: ``position``, ``block``, ``rest_s``, ``before_c``, ``after_c`` of one host.
        """
        course = course[course["position"].notna()].sort_values("position")
        has_rest = bool(course["rest_s"].notna().any())
        warm = [c for c in ("before_c", "after_c") if course[c].notna().any()]
        if not has_rest and not warm:
            return None
        count = has_rest + bool(warm)
        with canvas.style():
            figure, panels = canvas.new(0.6 + 1.3 * count, count, sharex=True)
            position = course["position"].astype(int)
            for axes in panels:
                _blocks(axes, course)
                axes.grid(visible=True, axis="y")
            if has_rest:
                panels[0].vlines(position, 0, course["rest_s"], color=MUTED, lw=1.4)
                panels[0].set_ylabel("rest, s")
                panels[0].set_ylim(bottom=0)
            for column, face, label in (
                ("before_c", PAPER, "at the window’s start"), ("after_c", INK, "at its end"),
            ):  # fmt: skip
                if column in warm:
                    panels[-1].plot(
                        position,
                        course[column],
                        "o",
                        color=INK,
                        mfc=face,
                        ms=3.4,
                        mew=0.9,
                        label=label,
                    )
            if warm:
                panels[-1].set_ylabel("temperature, °C")
                panels[-1].margins(y=0.2)
                legend(panels[-1])
            panels[-1].set_xlabel("place in the order executed")
            rests = course["rest_s"].dropna()
            text = (
                f"rests from {rests.min():.0f} to {rests.max():.0f} s" if len(rests) else "no rests"
            )
            return self._finish(
                figure,
                name,
                f"Rest and temperature on {host}. How long it rested before each window, and its "
                "temperature at the window’s edges; bands are blocks.",
                f"Rest and temperature on {host} over {len(course)} windows: {text}.",
            )

    def startup(self, cost: pd.DataFrame, name: str, host: str) -> Drawing | None:
        """Start-up and steady joules of each image.

        Args:
            cost: ``image``, ``startup_j``, ``steady_j`` (medians) of one host.
            name: of the files.
            host: for the caption.
        """
        rows = [
            (str(r["image"]), float(r["startup_j"]), float(r["steady_j"]))
            for r in cost.dropna(subset=["startup_j", "steady_j"]).to_dict("records")
        ]
        if not rows:
            return None
        unit, factor = _unit("energy_j", max(begin + work for _, begin, work in rows))
        from matplotlib.patches import Patch

        with canvas.style():
            figure, (axes,) = canvas.new(0.95 + 0.32 * len(rows))
            for place, (image, begin, work) in enumerate(rows):
                colour = self.look[image].colour
                axes.barh(place, begin * factor, 0.6, color=colour)
                axes.barh(place, work * factor, 0.6, left=begin * factor, color=colour, alpha=0.32)
            axes.legend(
                handles=[
                    Patch(color=MUTED, label="start-up"),
                    Patch(color=MUTED, alpha=0.32, label="steady"),
                ],
                loc="lower left",
                bbox_to_anchor=(-0.02, 1.0),
                borderaxespad=0.2,
                ncols=2,
            )
            canvas.bare_y(axes, [image for image, *_ in rows])
            axes.set_xlabel(f"energy per trial, {unit}")
            shares = ", ".join(f"{i} {100 * b / (b + w):.0f} %" for i, b, w in rows)
            return self._finish(
                figure,
                name,
                f"Where a trial’s energy goes on {host}. Start-up (container, imports, loading, warm-up) "
                "and steady inference, medians.",
                f"Start-up’s share of a trial’s energy on {host}: {shares}.",
            )

    def break_even(
        self, costs: pd.DataFrame, reference: str, name: str, host: str, decided: set[str]
    ) -> Drawing | None:
        """Energy of one start and n inferences against the reference's, over n.

        Args:
            costs: ``image``, ``fixed_j``, ``marginal_j`` of one host.
            reference: image compared with.
            name: of the files.
            host: for the caption.
            decided: images whose differences both have a sign; only these get a crossing.
        """
        lines = {
            str(r["image"]): (float(r["fixed_j"]), float(r["marginal_j"]))
            for r in costs.dropna(subset=["fixed_j", "marginal_j"]).to_dict("records")
        }
        if reference not in lines or len(lines) < 2:
            return None
        inferences = np.geomspace(1, 1e6, 120)
        fixed, marginal = lines[reference]
        from matplotlib.ticker import FuncFormatter, NullLocator

        with canvas.style():
            figure, (axes,) = canvas.new(2.7)
            axes.set_xscale("log")
            axes.axhline(0, color=self.look[reference].colour, lw=1.4, label=reference)
            crossings = []
            for image in self.look.images:
                if image == reference or image not in lines:
                    continue
                look, (own_fixed, own_marginal) = self.look[image], lines[image]
                ratio = (own_fixed + inferences * own_marginal) / (fixed + inferences * marginal)
                axes.plot(
                    inferences, 100 * (ratio - 1), color=look.colour, lw=1.5, label=image,
                    ls="-" if image in decided else ":",
                )  # fmt: skip
                if image in decided and (own_fixed - fixed) * (own_marginal - marginal) < 0:
                    meets = (own_fixed - fixed) / (marginal - own_marginal)
                    crossings.append(f"{image} at {formatting.significant(meets, 3)}")
                    if inferences[0] <= meets <= inferences[-1]:
                        axes.plot(meets, 0, look.marker, color=look.colour, mec=PAPER, ms=7)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: formatting.number(n, 0)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("inferences after one start")
            axes.set_ylabel(f"energy against {reference}, %")
            axes.grid(visible=True, axis="y")
            legend(axes)
            return self._finish(
                figure,
                name,
                f"Cost of a start spread over n inferences on {host}. Energy against {reference}; where a "
                "line crosses zero, the totals of both are equal; dotted where the "
                "intervals allow both signs.",
                f"Break-even against {reference} on {host}: "
                f"{'; '.join(crossings) or 'no line crosses zero'}.",
            )

    # ── the answer ───────────────────────────────────────────────────────────────────────────

    def forest(self, conclusion: Conclusion) -> Drawing | None:
        """The ranking with intervals."""
        rows = [r for r in conclusion.ranking if r.rank is not None]
        if len(rows) < 2:
            return None
        scale = ranking_scale(conclusion)
        with canvas.style():
            figure, (axes,) = canvas.new(0.8 + 0.34 * len(rows))
            _percent_axis(axes, scale, conclusion.settings.equivalence_pct)
            for place, row in enumerate(rows):
                interval = row.pair.simultaneous if row.pair else None
                estimate = row.pair.estimate_pct if row.pair else 0.0
                self._whisker(axes, scale, place, row.image, estimate or 0.0, interval)
            canvas.bare_y(axes, [r.image for r in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_xlabel(f"energy against {conclusion.reference}, %")
            text = "; ".join(
                f"{r.image} {pct(r.pair.estimate_pct)} ({formatting.interval(r.pair.simultaneous)})"
                for r in rows
                if r.pair
            )
            return self._finish(
                figure,
                "forest",
                f"Energy against {conclusion.reference} with simultaneous "
                f"{100 * (1 - conclusion.settings.alpha):g} % intervals. The band is the margin of "
                "equivalence.",
                f"Energy against {conclusion.reference}: {text}.",
            )

    def _whisker(
        self, axes: Axes, scale: Scale, y: float, image: str, estimate: float,
        interval: Interval | None, *, size: float = 6.5, marker: str | None = None,
        hollow: bool = False,
    ) -> None:  # fmt: skip
        look = self.look[image]
        if interval is not None:
            low = 0.0 if interval.lower_pct is None else scale.place(interval.lower_pct)
            high = 1.0 if interval.upper_pct is None else scale.place(interval.upper_pct)
            if interval.lower_pct is None or interval.upper_pct is None:
                axes.plot([low, high], [y, y], color=look.colour, lw=1.0, ls=":", alpha=0.55)
            else:
                axes.plot([low, high], [y, y], color=look.colour, lw=0.9 if hollow else 1.6)
        face, edge = (PAPER, look.colour) if hollow else (look.colour, PAPER)
        axes.plot(
            scale.place(estimate), y, marker or look.marker, color=face, ms=size, mec=edge, mew=0.8
        )

    def across(self, conclusion: Conclusion) -> Drawing | None:
        """Each image against the reference on every host, and all hosts together."""
        reference = str(conclusion.reference)
        images = [i for i in self.look.images if i != conclusion.reference]
        combined = tuple(p.leading for p in conclusion.across.pairs)
        rows: list[tuple[str, str, float, Interval | None]] = []
        for image in images:
            whole = find_pair(combined, image, reference)
            if whole is not None and whole.estimate_pct is not None:
                rows.append((image, _TOGETHER, whole.estimate_pct, whole.simultaneous))
            for one in conclusion.hosts:
                pair = one.pair(image, reference)
                if pair is not None and pair.estimate_pct is not None:
                    rows.append((image, one.host, pair.estimate_pct, pair.simultaneous))
        if len({host for _, host, *_ in rows}) < 2:
            return None
        scale = scale_of(
            values_of([(e, i) for *_, e, i in rows]), conclusion.settings.equivalence_pct
        )
        with canvas.style():
            figure, (axes,) = canvas.new(0.8 + 0.21 * len(rows) + 0.12 * len(images))
            _percent_axis(axes, scale, conclusion.settings.equivalence_pct)
            y, places, labels = 0.0, [], []
            for index, (image, host, estimate, interval) in enumerate(rows):
                leads = host == _TOGETHER
                if index and rows[index - 1][0] != image:
                    y += 0.6
                self._whisker(axes, scale, y, image, estimate, interval, size=7.5 if leads else 4.5)
                places.append(y)
                labels.append(f"{image}, together" if leads else host)
                y += 1
            axes.set_yticks(places, labels)
            axes.tick_params(axis="y", length=0)
            for mark, (_, host, *_) in zip(axes.get_yticklabels(), rows, strict=True):
                mark.set_color(INK if host == _TOGETHER else MUTED)
            axes.spines["left"].set_visible(False)
            axes.set_ylim(y - 0.4, -0.6)
            axes.set_xlabel(f"energy against {conclusion.reference}, %")
            basis = conclusion.across.label or HOSTS_LIKE_THESE
            return self._finish(
                figure,
                "across_hosts",
                f"Each image against {conclusion.reference}, host by host and together ({basis}). "
                "Simultaneous intervals, dotted where unbounded; absolute joules are never pooled.",
                "Effects by host: "
                + "; ".join(f"{i} on {h} {e:+.1f} %" for i, h, e, _ in rows)
                + ".",
            )

    def effects(self, effects: Sequence[Effect], settings: Settings) -> Drawing | None:
        """Every effect on energy, and below it, hollow, that on time."""
        rows = [
            (e, e.energy, e.time)
            for e in effects
            if e.kind != "interaction" and e.energy and e.energy.estimate_pct is not None
        ]
        if not rows:
            return None
        pairs = [p for _, *both in rows for p in both if p and p.estimate_pct is not None]
        scale = scale_of(
            values_of([(p.estimate_pct or 0.0, p.simultaneous) for p in pairs]),
            settings.equivalence_pct,
        )
        with canvas.style():
            figure, (axes,) = canvas.new(0.95 + 0.4 * len(rows))
            _percent_axis(axes, scale, settings.equivalence_pct)
            for place, (effect, energy, time) in enumerate(rows):
                for pair, y, hollow in ((energy, place - 0.13, False), (time, place + 0.2, True)):
                    if pair is not None and pair.estimate_pct is not None:
                        self._whisker(
                            axes, scale, y, effect.image, pair.estimate_pct, pair.simultaneous,
                            size=4.5 if hollow else 6.5, marker="o", hollow=hollow,
                        )  # fmt: skip
            from matplotlib.lines import Line2D

            axes.legend(
                handles=[
                    Line2D([], [], ls="", marker="o", color=MUTED, ms=6, label="energy"),
                    Line2D([], [], ls="", marker="o", color=MUTED, mfc=PAPER, ms=4.5, label="time"),
                ],
                loc="lower left",
                bbox_to_anchor=(-0.02, 1.0),
                borderaxespad=0.2,
                ncols=2,
            )
            canvas.bare_y(axes, [e.name for e, *_ in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_xlabel("effect, %")
            text = "; ".join(
                f"{e.name} {pct(p.estimate_pct)} ({formatting.interval(p.simultaneous)})"
                for e, p, _ in rows
            )
            return self._finish(
                figure,
                "what_matters",
                "What matters, the largest effect on energy first. Levels against the reference, layers "
                f"against the rung below; simultaneous {100 * (1 - settings.alpha):g} % intervals, dotted "
                "where unbounded. The band is the margin of equivalence."
                + (" Beyond ±1 % the axis is logarithmic." if scale.symmetric_log else ""),
                f"Effects on energy: {text}.",
            )

    def ranks(self, conclusion: Conclusion) -> Drawing | None:
        """The rank of every image on every host."""
        hosts = [h for h in conclusion.hosts if sum(i.rank is not None for i in h.images) > 1]
        if len(hosts) < 2:
            return None
        with canvas.style():
            figure, (axes,) = canvas.new(0.8 + 0.34 * len(conclusion.images))
            ranks = []
            for image in self.look.images:
                places = [
                    (x, next((i.rank for i in h.images if i.image == image), None))
                    for x, h in enumerate(hosts)
                ]
                known = [(x, rank) for x, rank in places if rank is not None]
                if not known:
                    continue
                look = self.look[image]
                axes.plot(
                    *zip(*known, strict=True), look.marker, ls="-", color=look.colour, ms=6, lw=1.4
                )
                axes.annotate(
                    image, known[-1], xytext=(9, 0), textcoords="offset points", va="center",
                    fontsize=8, color=INK,
                )  # fmt: skip
                ranks.append(f"{image} {', '.join(str(rank) for _, rank in known)}")
            axes.set_xticks(range(len(hosts)), [h.host for h in hosts])
            axes.set_yticks(range(1, len(conclusion.images) + 1))
            axes.set_ylim(len(conclusion.images) + 0.5, 0.5)
            axes.set_xlim(-0.2, len(hosts) - 1 + 0.35 * max(1, len(hosts) - 1))
            axes.set_ylabel("rank, 1 is the least energy")
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(length=0)
            return self._finish(
                figure,
                "ranks",
                "Ranks on each host. Lines that cross mean that the order depends on the host.",
                f"Ranks by host ({', '.join(h.host for h in hosts)}): {'; '.join(ranks)}.",
            )

    def pareto(
        self,
        conclusion: Conclusion,
        sizes_gb: Mapping[str, float],
        kind: str,
        optimal: Mapping[str, bool | None],
    ) -> Drawing | None:
        """Image size against energy, and which images no other beats in both.

        Args:
            conclusion: the ranking.
            sizes_gb: GB by image.
            kind: ``unpacked`` or ``compressed``, for the axis.
            optimal: whether an image is Pareto-optimal; None where that is undecided.
        """
        points = {
            r.image: (sizes_gb[r.image], r.pair.estimate_pct if r.pair else 0.0, r.pair)
            for r in conclusion.ranking
            if r.image in sizes_gb and r.rank is not None
        }
        if len(points) < 2:
            return None
        with canvas.style():
            figure, (axes,) = canvas.new(3.0)
            scale = scale_of(
                values_of(
                    [(e or 0.0, p.simultaneous if p else None) for _, e, p in points.values()]
                ),
                conclusion.settings.equivalence_pct,
            )
            front = pareto_front({i: (s, e or 0.0) for i, (s, e, _) in points.items()})
            corner = [(points[i][0], scale.place(points[i][1] or 0.0)) for i in front]
            axes.step(
                [c[0] for c in corner],
                [c[1] for c in corner],
                where="post",
                color=LINE,
                lw=1.6,
                zorder=1,
            )
            for image, (size, estimate, pair) in points.items():
                look, y = self.look[image], scale.place(estimate or 0.0)
                if pair and pair.simultaneous:
                    bounds = pair.simultaneous
                    low = 0.0 if bounds.lower_pct is None else scale.place(bounds.lower_pct)
                    high = 1.0 if bounds.upper_pct is None else scale.place(bounds.upper_pct)
                    axes.plot([size, size], [low, high], color=look.colour, lw=1.2)
                axes.plot(size, y, look.marker, color=look.colour, ms=7, mec=PAPER)
                right = size > 0.75 * max(s for s, *_ in points.values()) and len(points) > 1
                axes.annotate(
                    image, (size, y), xytext=(-8 if right else 8, 5), textcoords="offset points",
                    ha="right" if right else "left", fontsize=8, color=INK,
                )  # fmt: skip
            axes.set_yticks([scale.place(t) for t in scale.ticks()], _tick_labels(scale))
            axes.set_xlabel(f"image size ({kind}), GB")
            axes.set_ylabel(f"energy against {conclusion.reference}, %")
            axes.set_xlim(left=0)
            axes.margins(x=0.12, y=0.12)
            axes.grid(visible=True)
            return self._finish(
                figure,
                "size_energy",
                f"Image size against energy. {_front(front, optimal)}",
                "Size and energy: "
                + "; ".join(f"{i} {s:.2f} GB {e or 0:+.1f} %" for i, (s, e, _) in points.items())
                + ".",
            )


def _front(front: Sequence[str], optimal: Mapping[str, bool | None]) -> str:
    """What the line of lowest estimates means, and which of its images are not decided."""
    shown = [image for image in front if optimal.get(image)]
    text = "The line joins the lowest estimates"
    if shown:
        text += f"; shown that no other image beats them in both: {formatting.listed(shown)}"
    undecided = [image for image, is_optimal in optimal.items() if is_optimal is None]
    return text + (f"; undecided: {formatting.listed(undecided)}." if undecided else ".")


def ranking_scale(conclusion: Conclusion) -> Scale:
    """The axis of the ranking's forest plot."""
    rows = [r.pair for r in conclusion.ranking if r.pair and r.pair.estimate_pct is not None]
    bounds = values_of([(p.estimate_pct or 0.0, p.simultaneous) for p in rows])
    return scale_of(bounds, conclusion.settings.equivalence_pct)


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names that no other point beats in both coordinates (smaller is better), by the first."""
    front: list[str] = []
    best = math.inf
    for name in sorted(points, key=lambda n: points[n]):
        if points[name][1] < best:
            front.append(name)
            best = points[name][1]
    return front


def _percent_axis(axes: Axes, scale: Scale, margin_pct: float) -> None:
    axes.axvspan(scale.place(-margin_pct), scale.place(margin_pct), color=WASH, lw=0)
    axes.axvline(scale.place(0), color=MUTED, lw=0.9)
    axes.set_xticks(
        [scale.place(t) for t in scale.ticks()],
        _tick_labels(scale),
    )
    axes.set_xlim(-0.02, 1.02)


def _tick_labels(scale: Scale) -> list[str]:
    return [formatting.tick(t) for t in scale.ticks()]


def _equal_power(axes: Axes, factor: float) -> None:
    """Lines of equal mean power through the panel, labelled in watts at the right edge."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    left, low = max(left, 1e-9), max(low, 1e-9)
    least, most = low / factor / right, high / factor / left
    step = 10 ** math.floor(math.log10(max(most - least, 1e-9)))
    watts = [w for m in (0.5, 1, 2) for w in _multiples(step * m, least, most)]
    for watt in sorted(set(watts))[:: max(1, len(set(watts)) // 5)]:
        axes.plot([left, right], [watt * left * factor, watt * right * factor],
                  ls=(0, (4, 4)), color=LINE, lw=0.8, zorder=0)  # fmt: skip
        at_right = watt * right * factor
        x, y = (right, at_right) if at_right <= high else (high / (watt * factor), high)
        if low < y and left < x:
            axes.annotate(f"{watt:g} W", (x, y), xytext=(-2, -8), textcoords="offset points",
                          ha="right", fontsize=7, color=MUTED)  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _multiples(step: float, low: float, high: float) -> list[float]:
    first = math.ceil(low / step)
    return [round(step * i, 9) for i in range(first, first + 12) if step * i < high]


def _unit(column: str, largest: float) -> tuple[str, float]:
    if column.endswith("_j") and largest >= 20_000:
        return "kJ", 1e-3
    return ("J" if column.endswith("_j") else "s"), 1.0


def plain_log(axis: Any, values: np.ndarray) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10, … as plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = float(values.min()), float(values.max())
    marks = [m * 10.0**e for e in range(-3, 8) for m in (1, 2, 5)]
    inside = [m for m in marks if 0.8 * low <= m <= 1.25 * high]
    axis.set_major_locator(FixedLocator(inside))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: formatting.significant(v, 2)))


def _blocks(axes: Axes, rows: pd.DataFrame) -> None:
    """Every other block as a band; late attempts lie outside their block's band."""
    if "block" not in rows or rows["block"].isna().all():
        return
    early = rows[~rows["late"].fillna(value=False).astype(bool)] if "late" in rows else rows
    for number in sorted({int(b) for b in early["block"].dropna()}):
        of_block = early[early["block"] == number]
        if number % 2:
            low, high = int(of_block["position"].min()), int(of_block["position"].max())
            axes.axvspan(low - 0.5, high + 0.5, color=WASH, lw=0, zorder=0)


def _phases(axes: Axes, curve: PowerCurve, top: float) -> None:
    for place, phase in enumerate(curve.phases):
        end = phase.start_s + phase.duration_s
        if place % 2:
            axes.axvspan(phase.start_s, end, color=WASH, lw=0, zorder=0)
        if phase.duration_s > 0.07 * curve.longest_s:
            name = phase.name.removeprefix("steady:")
            name = f"{name} px" if name.isdigit() else name
            axes.text(
                (phase.start_s + end) / 2, 0.97 * top, name, ha="center", va="top", fontsize=7,
                color=MUTED,
            )  # fmt: skip


def legend(axes: Axes) -> None:
    """Above the panel, in one line where the names are short enough, else in even lines."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    lines = math.ceil((sum(len(label) for label in labels) + 4 * len(labels)) / 80)
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=math.ceil(len(labels) / lines),
        borderaxespad=0.2,
    )
