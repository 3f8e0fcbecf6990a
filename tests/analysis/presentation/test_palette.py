"""Colours stand out from the ground, in light and in dark (WCAG 2.1)."""

from __future__ import annotations

import pytest

from wattbench.analysis.presentation import palette


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.1, section 1.4.3)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_colours_stand_out_from_the_ground(dark: bool) -> None:
    values = palette.variables(dark)
    ground = luminance(values["paper"])

    def contrast(name: str) -> float:
        low, high = sorted((luminance(values[name]), ground))
        return (high + 0.05) / (low + 0.05)

    for name in ("ink", "muted", "warn", "bad", "good"):
        assert contrast(name) >= 4.5, name
    for name in values:
        if name.startswith("series-"):
            assert contrast(name) >= 3.0, name


def test_light_values_are_all_different() -> None:
    assert len(palette.by_light_value()) == len(palette.variables(dark=False))
