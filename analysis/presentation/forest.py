"""A forest plot as a table: estimates and intervals in percent on one axis, as places for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattbench.analysis.presentation.formatting import (
    NOTHING,
    Bounds,
    interval,
    interval_digits,
    pct,
    tick,
)
from wattbench.analysis.presentation.scales import Scale, scale_of


@dataclass(frozen=True)
class Entry:
    """One comparison to be shown.

    Attributes:
        name: the image, or what else is compared.
        variable: CSS variable of its colour.
        estimate_pct: None where nothing can be estimated.
        bounds: its interval; None without one.
        verdict: a word.
        detail: why it is undecided, or what else has to be said.
        beside: text of a second column, for example the run.
        is_reference: the row that others are compared with: no interval, estimate 0.
    """

    name: str
    variable: str
    estimate_pct: float | None
    bounds: Bounds | None
    verdict: str
    detail: str = ""
    beside: str = ""
    is_reference: bool = False


@dataclass(frozen=True)
class Bar:
    """One row; ``at``, ``low`` and ``high`` are places on the axis in %, None where there is none."""

    entry: Entry
    estimate: str
    interval: str
    at: float | None
    low: float | None
    high: float | None

    @property
    def is_open(self) -> bool:
        """Whether the interval is unbounded on a side."""
        return self.entry.bounds is not None and (self.low is None or self.high is None)


@dataclass(frozen=True)
class Forest:
    """Rows with their axis.

    Attributes:
        bars: the rows.
        ticks: (place in %, text).
        zero: place of 0 %.
        margin: ends of the band of equivalence.
        is_logarithmic: whether the axis is logarithmic beyond ±1 %.
        title: of the plot.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float
    margin: tuple[float, float]
    is_logarithmic: bool
    title: str = ""

    @property
    def details(self) -> dict[str, str]:
        """Names, comma-separated → what has to be said of them."""
        names: dict[str, list[str]] = {}
        for bar in self.bars:
            if bar.entry.detail:
                names.setdefault(bar.entry.detail, []).append(
                    " ".join(filter(None, (bar.entry.name, bar.entry.beside)))
                )
        return {", ".join(dict.fromkeys(who)): detail for detail, who in names.items()}


def values_of(rows: Sequence[tuple[float | None, Bounds | None]]) -> list[float]:
    """All estimates and bounds that an axis has to hold."""
    found = [
        value
        for estimate, bounds in rows
        for value in (
            (estimate,) if bounds is None else (estimate, bounds.lower_pct, bounds.upper_pct)
        )
    ]
    return [value for value in found if value is not None]


def forest(entries: Sequence[Entry], margin_pct: float, title: str = "") -> Forest:
    """Rows on one axis that holds 0, the margin of equivalence and every value."""
    scale = scale_of(values_of([(e.estimate_pct, e.bounds) for e in entries]), margin_pct)
    return Forest(
        tuple(_bar(e, scale) for e in entries),
        tuple((_place(scale, t), tick(t)) for t in scale.ticks()),
        _place(scale, 0.0),
        (_place(scale, -margin_pct), _place(scale, margin_pct)),
        scale.symmetric_log,
        title,
    )


def _place(scale: Scale, pct_: float) -> float:
    return round(100 * scale.place(pct_), 2)


def _bar(entry: Entry, scale: Scale) -> Bar:
    if entry.is_reference:
        at = None if entry.estimate_pct is None else _place(scale, entry.estimate_pct)
        return Bar(entry, "0", NOTHING, at, None, None)
    if entry.estimate_pct is None:
        return Bar(entry, NOTHING, NOTHING, None, None, None)
    low, high = (entry.bounds.lower_pct, entry.bounds.upper_pct) if entry.bounds else (None, None)
    return Bar(
        entry,
        pct(entry.estimate_pct, interval_digits(entry.bounds)),
        interval(entry.bounds),
        _place(scale, entry.estimate_pct),
        None if low is None else _place(scale, low),
        None if high is None else _place(scale, high),
    )
