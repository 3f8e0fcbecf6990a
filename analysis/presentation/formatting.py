"""Text of numbers, intervals, sizes and lists: typographic minus, thin groups, units, no empty digits.

Imports neither pandas nor the statistics: the web pages and the statistics use it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

from wattbench.analysis.model.escaping import one_line

NOTHING = "–"
THIN_SPACE = "\u202f"


class Bounds(Protocol):
    """Both ends of an interval in percent; None: unbounded on that side."""

    @property
    def lower_pct(self) -> float | None:
        """Lower bound."""

    @property
    def upper_pct(self) -> float | None:
        """Upper bound."""


# Numbers ------------------------------------------------------------------------------------------


def missing(value: Any) -> bool:
    """Whether a value is None, NaN, infinite or one of pandas' markers of a missing value."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return True
    return type(value).__name__ in ("NAType", "NaTType")


def number(value: Any, digits: int = 2, *, signed: bool = False) -> str:
    """Fixed decimals, grouped by thousands, no negative zero."""
    if missing(value):
        return NOTHING
    text = f"{round(float(value), digits) + 0.0:{'+' if signed else ''},.{digits}f}"
    return text.replace(",", THIN_SPACE).replace("-", "−")


def significant(value: Any, digits: int = 4) -> str:
    """A number with this many significant digits, without an exponent."""
    if missing(value):
        return NOTHING
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(float(value))))
    return number(value, max(0, places))


def tick(value: float) -> str:
    """Label of an axis of effects: ``+2.5``, ``−10``, ``0``."""
    return minus(f"{value:+g}") if value else "0"


def pct(value: Any, digits: int = 1, *, signed: bool = True) -> str:
    """Percent with its sign."""
    return NOTHING if missing(value) else f"{number(value, digits, signed=signed)}{THIN_SPACE}%"


def p_value(p: float) -> str:
    """Four decimals; smaller values as a bound."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float) -> str:
    """Bytes in decimal units, as Docker prints them."""
    for unit, name in _UNITS:
        if abs(count) >= unit:
            digits = 2 if abs(count) < 10 * unit else 1 if abs(count) < 100 * unit else 0
            return f"{count / unit:.{digits}f} {name}"
    return f"{count:.0f} B"


# Intervals ----------------------------------------------------------------------------------------


def interval_digits(bounds: Bounds | None) -> int:
    """Decimals that show an interval: one, or two where it is narrower than half a percent."""
    if bounds is None or bounds.lower_pct is None or bounds.upper_pct is None:
        return 1
    return 2 if bounds.upper_pct - bounds.lower_pct < 0.5 else 1


def interval(bounds: Bounds | None, *, none: str = "no interval", signed: bool = True) -> str:
    """An interval in percent: ``−5.0 to −4.1 %``, ``up to +1.0 %``, ``unbounded``, ``no interval``.

    Args:
        bounds: the interval.
        none: text where there is no interval.
        signed: whether positive bounds carry a plus sign.
    """
    if bounds is None:
        return none
    digits, low, high = interval_digits(bounds), bounds.lower_pct, bounds.upper_pct
    if low is None and high is None:
        return "unbounded"
    if low is None:
        return f"up to {pct(high, digits, signed=signed)}"
    if high is None:
        return f"{pct(low, digits, signed=signed)} or more"
    return f"{number(low, digits, signed=signed)} to {pct(high, digits, signed=signed)}"


# Words --------------------------------------------------------------------------------------------


def count(n: int, one: str, many: str | None = None) -> str:
    """``1 host``, ``3 hosts``."""
    return f"{number(n, 0)} {one if n == 1 else many or one + 's'}"


def listed(names: Sequence[str], limit: int = 6) -> str:
    """``a, b and c``; a list over the limit ends in the number of names left out."""
    if len(names) > limit:
        return ", ".join(names[:limit]) + f" and {len(names) - limit} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else ""]))


def minus(text: str) -> str:
    """Text with a typographic minus before numbers; hyphens inside names and dates stay."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "−", text)


def stop(text: str) -> str:
    """Text with a full stop at its end; its start may be a name and stays."""
    text = minus(text.strip())
    return text + ("" if text.endswith((".", "!", "?")) else ".")


def sentence(text: str) -> str:
    """Text with a capital at its start and a full stop at its end."""
    text = stop(text)
    return text[:1].upper() + text[1:]


def slug(name: str) -> str:
    """A name as an anchor and as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "host"


def shortened(text: str, width: int) -> str:
    """One line of at most ``width`` characters, cut at the end."""
    text = one_line(text)
    return text if len(text) <= width else text[: width - 1] + "…"
