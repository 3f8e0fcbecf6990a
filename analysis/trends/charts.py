"""Small charts as SVG for the page: colours are the page's CSS variables, text is its font."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

import numpy as np
import numpy.typing as npt

from wattbench.analysis.presentation import formatting
from wattbench.analysis.presentation.scales import Scale
from wattbench.analysis.stats.verdicts import to_pct
from wattbench.analysis.trends.read import StoredRun
from wattbench.analysis.trends.series import Track

Array = npt.NDArray[np.float64]

_WIDTH, _HEIGHT = 360, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 14, 22

#: A panel shows at least this range, so that noise does not look like news, %.
_LEAST_PCT = 1.0


@dataclass(frozen=True)
class Panel:
    """One small multiple.

    Attributes:
        name: the image, or what else is followed.
        variable: CSS variable of its colour.
        state: where it stands, for its caption.
        alarming: whether the state is a regression.
        svg: the drawing.
    """

    name: str
    variable: str
    state: str
    alarming: bool
    svg: str


@dataclass(frozen=True)
class Range:
    """Percent shown by the panels of one host."""

    low: float
    high: float

    def y(self, pct: float) -> float:
        """From the top of the drawing."""
        inside = min(max(pct, self.low), self.high)
        share = (self.high - inside) / (self.high - self.low)
        return _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

    def ticks(self) -> tuple[float, ...]:
        """Round values."""
        return Scale(self.low, self.high, symmetric_log=False).ticks()


def relative_pct(track: Track) -> Array:
    """Values in % against the first level."""
    values = track.course.values - track.course.levels[0]
    return np.asarray(100 * np.expm1(values))


def range_of(tracks: Sequence[Track]) -> Range:
    """What all of the tracks need; excursions may leave it."""
    low, high = -_LEAST_PCT, _LEAST_PCT
    for track in tracks:
        keep = np.ones(len(track.course.values), bool)
        keep[list(track.course.excursions)] = False
        shown = relative_pct(track)[keep]
        if len(shown):
            low, high = min(low, float(shown.min())), max(high, float(shown.max()))
    room = 0.06 * (high - low)
    return Range(low - room, high + room)


def panel(
    track: Track,
    shown: Range,
    runs: Sequence[StoredRun],
    *,
    name: str,
    variable: str,
    alarming: bool,
    marked: bool = True,
) -> Panel:
    """One track: nights as dots, its levels as a line, ± 3 SD as a band, changes ``marked`` by size."""
    course = track.course
    x = _places(runs, track.runs)
    pct = relative_pct(track)
    parts = [*_grid(shown), *_dates(runs)]
    for start, end in course.segments:
        level = to_pct(float(course.levels[start] - course.levels[0]))
        left, right = x[start], x[end - 1]
        if course.sd is not None:
            half = 300 * course.sd
            top, bottom = shown.y(level + half), shown.y(level - half)
            parts.append(
                f'<rect x="{left - 1:.1f}" y="{top:.1f}" width="{right - left + 2:.1f}" '
                f'height="{bottom - top:.1f}" fill="var(--{variable})" opacity=".13"/>'
            )
        y = shown.y(level)
        parts.append(
            f'<path d="M{left - 1:.1f} {y:.1f}H{right + 1:.1f}" stroke="var(--{variable})" '
            'stroke-width="1.6"/>'
        )
    parts += _dots(x, pct, shown, set(course.excursions), variable)
    for change in course.changes if marked else ():
        at = (x[change.index - 1] + x[change.index]) / 2
        anchor, shift = ("end", -3) if at > 0.7 * _WIDTH else ("start", 3)
        dash = "" if change.settled else ' stroke-dasharray="2 3"'
        parts.append(
            f'<path d="M{at:.1f} {_TOP - 6}V{_HEIGHT - _BOTTOM}" stroke="var(--ink)"{dash}/>'
            f'<text x="{at + shift:.1f}" y="{_TOP - 3}" text-anchor="{anchor}" fill="var(--ink)">'
            f"{escape(formatting.pct(to_pct(change.shift), 1))}</text>"
        )
    label = escape(f"{track.host} {name}: {describe(track, runs)}", quote=True)
    svg = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}" font-size="10.5" '
        f'fill="none">{"".join(parts)}</svg>'
    )
    return Panel(name, variable, describe(track, runs), alarming, svg)


def describe(track: Track, runs: Sequence[StoredRun]) -> str:
    """Where a track stands: ``+2.0 % since 2026-07-20``, or how steady it is."""
    course = track.course
    spread = (
        ""
        if course.sd is None
        else f"night to night ±{formatting.significant(100 * course.sd, 2)} %"
    )
    if course.changes:
        last = course.changes[-1]
        night = runs[track.runs[last.index]].night
        more = len(course.changes) - 1
        tail = f", {more} change{'s' if more > 1 else ''} before" if more else ""
        word = "" if last.settled else ", to be confirmed"
        return f"{formatting.pct(to_pct(last.shift), 2)} since {night}{word}{tail}"
    if course.reason:
        return course.reason
    return f"steady over {len(course.values)} nights, {spread}"


def _places(runs: Sequence[StoredRun], which: Sequence[int]) -> Array:
    """Where runs lie across: by time where every run has one, else by order."""
    begin, span = _span(runs)
    if begin is None:
        shares = np.array([i / max(1, len(runs) - 1) for i in which], float)
    else:
        whens = [runs[i].when for i in which]
        shares = np.array([(w - begin) / span for w in whens if w is not None], float)
    return np.asarray(_LEFT + 4 + shares * (_WIDTH - _LEFT - _RIGHT - 8))


def _span(runs: Sequence[StoredRun]) -> tuple[datetime | None, timedelta]:
    whens = [r.when for r in runs if r.when is not None]
    if len(whens) < len(runs) or max(whens) <= min(whens):
        return None, timedelta(days=1)
    return min(whens), max(whens) - min(whens)


def _grid(shown: Range) -> list[str]:
    parts = []
    for tick in shown.ticks():
        y = shown.y(tick)
        strong = "muted" if abs(tick) < 1e-9 else "line"
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="var(--{strong})" stroke-width=".7"/>'
            f'<text x="{_LEFT - 4}" y="{y + 3.5:.1f}" text-anchor="end" fill="var(--muted)">'
            f"{formatting.number(tick, 0 if float(tick).is_integer() else 1, signed=bool(tick))}%</text>"
        )
    return parts


def _dates(runs: Sequence[StoredRun]) -> list[str]:
    begin, span = _span(runs)
    if begin is None:
        return [f'<text x="{_LEFT}" y="{_HEIGHT - 7}" fill="var(--muted)">runs in order</text>']
    parts = []
    for mark in _marks(begin, begin + span):
        x = _LEFT + 4 + (mark - begin) / span * (_WIDTH - _LEFT - _RIGHT - 8)
        name = f"{mark:%b}" if span > timedelta(days=60) else f"{mark.day} {mark:%b}"
        anchor = "start" if x < _LEFT + 16 else "end" if x > _WIDTH - 20 else "middle"
        parts.append(
            f'<path d="M{x:.1f} {_HEIGHT - _BOTTOM}v4" stroke="var(--muted)"/>'
            f'<text x="{x:.1f}" y="{_HEIGHT - 7}" text-anchor="{anchor}" fill="var(--muted)">{name}</text>'
        )
    return parts


def _marks(begin: datetime, end: datetime) -> list[datetime]:
    """Beginnings of months, or days where there are few; about six."""
    if end - begin > timedelta(days=60):
        months = (end.year - begin.year) * 12 + end.month - begin.month
        step = max(1, math.ceil(months / 6))
        first = begin.year * 12 + begin.month - 1
        turns = [divmod(first + i, 12) for i in range(0, months + 1, step)]
        stamps = [datetime(y, m + 1, 1, tzinfo=begin.tzinfo) for y, m in turns]
    else:
        days = (end - begin).days + 1
        start = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        stamps = [
            start + timedelta(days=i) for i in range(0, days + 1, max(1, math.ceil(days / 6)))
        ]
    return [s for s in stamps if begin <= s <= end]


def _dots(x: Array, pct: Array, shown: Range, odd: set[int], variable: str) -> list[str]:
    """All nights as one path of round caps; excursions hollow, at the edge if they lie beyond."""
    usual = "".join(
        f"M{x[i]:.1f} {shown.y(float(pct[i])):.1f}h0" for i in range(len(x)) if i not in odd
    )
    size = 4 if len(x) <= 60 else 2.6
    parts = [
        f'<path d="{usual}" stroke="var(--{variable})" stroke-width="{size}" '
        'stroke-linecap="round" opacity=".8"/>'
    ]
    parts += [
        f'<circle cx="{x[i]:.1f}" cy="{shown.y(float(pct[i])):.1f}" r="2.4" stroke="var(--{variable})"/>'
        for i in sorted(odd)
    ]
    return parts
