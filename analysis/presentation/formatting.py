"""Numbers as people read them: a real minus, thin groups, units, no more digits than carry meaning."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from wattbench.analysis.stats.results import Interval

NOTHING = "–"
_NARROW = "\u202f"


def missing(value: Any) -> bool:
    """Whether there is nothing to say."""
    return (
        value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value))
    )


def number(value: Any, digits: int = 2, *, signed: bool = False) -> str:
    """Fixed decimals, grouped by thousands."""
    if missing(value):
        return NOTHING
    text = f"{round(float(value), digits) + 0.0:{'+' if signed else ''},.{digits}f}"
    return text.replace(",", _NARROW).replace("-", "−")


def significant(value: Any, digits: int = 4) -> str:
    """So many significant digits, never an exponent."""
    if missing(value):
        return NOTHING
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(float(value))))
    return number(value, max(0, places))


def pct(value: Any, digits: int = 1, *, signed: bool = True) -> str:
    """Percent with its sign."""
    return NOTHING if missing(value) else f"{number(value, digits, signed=signed)}{_NARROW}%"


def interval_digits(interval: Interval | None) -> int:
    """Decimals that show an interval: one, or two where it is narrower than half a percent."""
    half = interval.half_width_pct if interval else None
    return 2 if half is not None and half < 0.25 else 1


def interval(value: Interval | None) -> str:
    """``−5.0 to −4.1 %``; a bound that can't be told is said to be so."""
    if value is None:
        return NOTHING
    if value.lower_pct is None and value.upper_pct is None:
        return "unbounded"
    digits = interval_digits(value)
    low = "−∞" if value.lower_pct is None else number(value.lower_pct, digits, signed=True)
    high = "∞" if value.upper_pct is None else number(value.upper_pct, digits, signed=True)
    return f"{low} to {high}{_NARROW}%"


def count(n: int, one: str, many: str | None = None) -> str:
    """``1 host``, ``3 hosts``."""
    return f"{number(n, 0)} {one if n == 1 else many or one + 's'}"


def listed(names: list[str], limit: int = 6) -> str:
    """``a, b and c``; long lists end in how many more."""
    if len(names) > limit:
        return ", ".join(names[:limit]) + f" and {len(names) - limit} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else ""]))
