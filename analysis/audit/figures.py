"""Distributions of energy and time by image, before and after the repairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.audit.tables import BASES
from wattbench.analysis.presentation import canvas
from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.formatting import significant
from wattbench.analysis.presentation.palette import looks_of

#: Treatments beyond which a figure shows nothing that a table does not.
_ROWS = 60

_MEASURES = {"energy_j": "energy, kJ", "duration_s": "time, s"}
_SCALES = {"energy_j": 1e-3, "duration_s": 1.0}


def draw(
    trials: Mapping[str, pd.DataFrame], *, modelled: bool, key: Callable[[str], str] = key_of
) -> dict[str, Drawing]:
    """Figures by name (``workload_energy``, ``idle_time``, …).

    Args:
        trials: basis → tidy frame (``image``, ``kind``, ``energy_j``, ``duration_s``).
        modelled: whether any joules come from a model.
        key: the name under which load, idle and published data of an image are joined.
    """
    figures: dict[str, Drawing] = {}
    for kind in ("workload", "idle"):
        for measure, label in _MEASURES.items():
            panels = {
                basis: values
                for basis in BASES
                if (values := _values(trials.get(basis), kind, measure, key))
                and any(v.size for v in values.values())
            }
            if panels and max(map(len, panels.values())) <= _ROWS:
                name = f"{kind}_{'energy' if measure == 'energy_j' else 'time'}"
                figures[name] = _figure(name, panels, label, modelled=modelled)
    return figures


def _values(
    frame: pd.DataFrame | None, kind: str, measure: str, key: Callable[[str], str]
) -> dict[str, np.ndarray]:
    if frame is None or frame.empty:
        return {}
    mine = frame[(frame["kind"] == kind) & frame[measure].notna()]
    return {
        key(str(image)): rows[measure].to_numpy(dtype=float) * _SCALES[measure]
        for image, rows in mine.groupby("image", sort=True)
    }


def _figure(
    name: str, panels: Mapping[str, Mapping[str, np.ndarray]], label: str, *, modelled: bool
) -> Drawing:
    images = sorted({image for values in panels.values() for image in values})
    looks = looks_of(images, None)
    with canvas.style():
        figure, rows = canvas.new(
            (0.5 + 0.36 * len(images)) * len(panels) + 0.3, len(panels), sharex=True, sharey=True
        )
        for axes, (basis, values) in zip(rows, panels.items(), strict=True):
            for place, image in enumerate(images):
                if image in values and values[image].size:
                    look = looks[image]
                    canvas.distribution(axes, place, values[image], look.colour, look.marker)
            axes.set_title(basis)
            axes.set_yticks(range(len(images)), images)
            axes.tick_params(axis="y", length=0, labelcolor=canvas.INK)
            axes.set_ylim(len(images) - 0.4, -0.6)
            axes.grid(visible=True, axis="x")
        rows[-1].set_xlabel(label)
        medians = "; ".join(
            f"{basis}: "
            + ", ".join(f"{i} {significant(np.median(v))}" for i, v in values.items() if v.size)
            for basis, values in panels.items()
        )
        title = name.replace("_", " ").capitalize()
        return canvas.finish(
            figure,
            name,
            f"{title}. Points are trials, boxes quartiles with the median, whiskers 1.5 interquartile "
            "ranges, shapes the density; one panel per basis.",
            f"{title}, {label}; medians: {medians}.",
            modelled=modelled,
        )
