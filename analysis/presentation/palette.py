"""Colours: one per image, the same everywhere, distinguishable without colour vision, in light and in dark.

Figures are drawn in the light values. On a page each is replaced by a CSS variable, so that figures
follow the reader's theme; a figure's own file keeps the light values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: CSS variable → (light, dark). Text, quiet text, hairlines, ground.
TONES: dict[str, tuple[str, str]] = {
    "ink": ("#1d2329", "#e6e8ea"),
    "muted": ("#5a6570", "#a2acb6"),
    "line": ("#d4d9de", "#3a424a"),
    "wash": ("#f1f3f5", "#20262c"),
    "paper": ("#fffffe", "#14181c"),
    "warn": ("#9a5b00", "#f0b45a"),
    "bad": ("#b3261e", "#ff8a80"),
    "good": ("#1b6e4b", "#6fcf9f"),
}

#: The reference is slate; others follow Okabe and Ito (2008), darkened for white ground where
#: their contrast is under 3 : 1, lightened for dark ground.
SERIES: tuple[tuple[str, str], ...] = (
    ("#66717d", "#a3adb8"),
    ("#0072b2", "#5ab0ea"),
    ("#c85a00", "#f5914a"),
    ("#00805d", "#3fc89c"),
    ("#b4578d", "#e59ac6"),
    ("#8a6a00", "#e3bd3a"),
    ("#2c86b8", "#8fd0f5"),
    ("#7a4fb5", "#b99af0"),
    ("#7d4a3a", "#d7a08d"),
)
#: Beside the colour, so that print and colour-blind readers can distinguish images.
MARKERS = "oDs^vPX*h"


@dataclass(frozen=True)
class Look:
    """How one image is drawn. ``variable`` is the CSS variable of its colour."""

    colour: str
    marker: str
    variable: str


@dataclass(frozen=True)
class Palette:
    """The look of every image, in the order given; the first is the reference."""

    images: tuple[str, ...]

    def __getitem__(self, image: str) -> Look:
        place = self.images.index(image) if image in self.images else 0
        # Beyond nine images colours return, with another marker.
        turn, index = divmod(place, len(SERIES))
        return Look(SERIES[index][0], MARKERS[(index + turn) % len(MARKERS)], f"series-{index}")


def looks_of(images: Sequence[str], reference: str | None) -> Palette:
    """Colours by name, the reference first."""
    return Palette(tuple(sorted(images, key=lambda i: (i != reference, i))))


def variables(dark: bool) -> dict[str, str]:
    """CSS variable → value."""
    place = int(dark)
    series = {f"series-{i}": pair[place] for i, pair in enumerate(SERIES)}
    return {name: pair[place] for name, pair in TONES.items()} | series


def by_light_value() -> dict[str, str]:
    """Light value → CSS variable; all light values differ."""
    return {value: name for name, value in variables(dark=False).items()}
