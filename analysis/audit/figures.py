"""Violins with boxes of energy and time, before and after the repairs, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.audit.tables import BASES

#: Readable on light and on dark ground.
_INK = "#808890"
_FILL = {"published": "#c58b2a", "imported": "#4f8fd0", "repaired": "#3fa37a"}

#: Up to so many trials each is drawn as a point.
_POINTS = 300

_MEASURES = {"energy_j": "energy, kJ", "duration_s": "time, s"}
_SCALES = {"energy_j": 1e-3, "duration_s": 1.0}


def draw(trials: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Figures by name (``workload_energy``, ``idle_time``, …) as SVG text.

    Args:
        trials: basis → tidy frame (``image``, ``kind``, ``energy_j``, ``duration_s``).
    """
    figures: dict[str, str] = {}
    for kind in ("workload", "idle"):
        for measure, label in _MEASURES.items():
            panels = {
                basis: values
                for basis in BASES
                if (values := _values(trials.get(basis), kind, measure))
                and any(v.size for v in values.values())
            }
            if panels:
                name = f"{kind}_{'energy' if measure == 'energy_j' else 'time'}"
                figures[name] = _figure(panels, label)
    return figures


def _values(frame: pd.DataFrame | None, kind: str, measure: str) -> dict[str, np.ndarray]:
    if frame is None or frame.empty:
        return {}
    mine = frame[(frame["kind"] == kind) & frame[measure].notna()]
    return {
        key_of(str(image)): rows[measure].to_numpy(dtype=float) * _SCALES[measure]
        for image, rows in mine.groupby("image", sort=True)
    }


def _figure(panels: Mapping[str, Mapping[str, np.ndarray]], label: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    images = sorted({image for values in panels.values() for image in values})
    # Fixed ids and no date: the same data give the same bytes.
    with mpl.rc_context(
        {"svg.hashsalt": "wattbench", "svg.fonttype": "none", "text.parse_math": False}
    ):
        figure = Figure(figsize=(4.2 * len(panels), 0.55 * len(images) + 1.1), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
        for axis, (basis, values) in zip(axes, panels.items(), strict=True):
            _panel(axis, images, values, _FILL[basis])
            axis.set_title(basis, color=_INK, fontsize=10)
            axis.set_xlabel(label, color=_INK, fontsize=9)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _panel(axis: Any, images: list[str], values: Mapping[str, np.ndarray], colour: str) -> None:
    for place, image in enumerate(images):
        v = values.get(image, np.empty(0))
        if not v.size:
            continue
        if v.size > 2 and np.ptp(v) > 0:
            parts = axis.violinplot(
                [v], positions=[place], orientation="horizontal", widths=0.8, showextrema=False
            )
            for body in parts["bodies"]:
                body.set(facecolor=colour, alpha=0.3)
        if v.size > 1:
            ink = {"color": _INK, "linewidth": 1.0}
            axis.boxplot(
                [v], positions=[place], orientation="horizontal", widths=0.25, showfliers=False,
                manage_ticks=False, boxprops=ink, whiskerprops=ink, capprops=ink,
                medianprops={"color": colour, "linewidth": 2},
            )  # fmt: skip
        if v.size <= _POINTS:
            axis.plot(v, np.full(v.size, place - 0.3), "|", color=colour, markersize=5, alpha=0.8)
    axis.set_yticks(range(len(images)), images)
    axis.tick_params(colors=_INK, labelsize=9)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=4)
    axis.set_ylim(len(images) - 0.4, -0.6)
    axis.grid(axis="x", color=_INK, alpha=0.2)
    for spine in axis.spines.values():
        spine.set_visible(False)
