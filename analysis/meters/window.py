"""Energy inside a window and its phases, with uncertainty."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattbench.analysis.meters.curves import NEAREST, SPREAD, UPDATE_S, Curve
from wattbench.analysis.meters.energibridge import (
    FloatArray,
    usual_interval,
)
from wattbench.analysis.model.records import Domain, Note

#: Whole intervals outside the window that show the power there; others may hold the meter's start.
WAITING = 2

#: Half-widths are this many standard deviations, where σ is estimated from few intervals and where it
#: is known.
WIDTH = 2.5
KNOWN_WIDTH = 2.0

#: Student's t, 97.5 %, by degrees of freedom: of the power outside, from one side or both.
STUDENT = {1: 12.71, 2: 4.303}


@dataclass(frozen=True)
class Split:
    """A curve cut at times ``b_0 ≤ … ≤ b_m``.

    Attributes:
        energy_j: of each part, J, shape (m,); they sum to ``total_j``.
        uncertainty_j: half-widths, J, shape (m,).
        total_j: from the first cut to the last, J.
        total_uncertainty_j: its half-width, J; less than the parts', whose inner edges cancel.
        notes: cuts that no row supports.
    """

    energy_j: FloatArray
    uncertainty_j: FloatArray
    total_j: float
    total_uncertainty_j: float
    notes: tuple[Note, ...] = ()


def split(curve: Curve, bounds_s: Sequence[float], inner_doubt_s: float = 0.0) -> Split:
    """Energy between times, with the slope on each side of every edge taken into account.

    Args:
        curve: at least two rows.
        bounds_s: at least two times on the curve's clock, never falling; parts of no length have no
            energy.
        inner_doubt_s: what each bound but the first and the last may be off, s.

    Raises:
        ValueError: fewer than two rows or bounds, or bounds that fall.
    """
    bounds = np.asarray(bounds_s, dtype=np.float64)
    if bounds.size < 2 or curve.time_s.size < 2 or np.any(np.diff(bounds) < 0.0):
        raise ValueError("split() takes two or more rows and two or more bounds that never fall")
    parts_off, total_off = _alike(curve, bounds)
    parts_off = parts_off + _inner(curve, bounds, inner_doubt_s)
    if curve.power_w is not None:
        curve = _step_at(curve, bounds)
    powers = _Powers(curve, bounds)
    values = np.empty(bounds.size)
    deviations = np.empty(bounds.size)
    notes: list[Note] = []
    first, last = curve.time_s[0], curve.time_s[-1]
    inside = (bounds >= first) & (bounds <= last)
    for place in (~inside).nonzero()[0]:
        values[place], deviations[place] = _outside(curve, bounds, int(place), powers, notes)
    interval = np.clip(np.searchsorted(curve.time_s, bounds, "right") - 1, 0, curve.time_s.size - 2)
    for index in np.unique(interval[inside]):
        places = (inside & (interval == index)).nonzero()[0]
        values[places], deviations[places] = _place(curve, bounds, places, int(index), powers)
    values = np.maximum.accumulate(values)
    variance = deviations**2
    doubts = np.array([_doubt(curve, a, b) for a, b in itertools.pairwise(bounds)])
    parts = np.sqrt(variance[:-1] + variance[1:] + doubts**2) + parts_off
    parts[np.diff(bounds) == 0.0] = 0.0
    total_doubt = _doubt(curve, bounds[0], bounds[-1])
    return Split(
        energy_j=np.diff(values),
        uncertainty_j=parts,
        total_j=float(values[-1] - values[0]),
        total_uncertainty_j=float(np.sqrt(variance[0] + variance[-1] + total_doubt**2)) + total_off,
        notes=tuple(notes),
    )


def _step_at(curve: Curve, bounds: FloatArray) -> Curve:
    """A power curve that steps at the edges instead of sloping from row to row.

    Between two rows with an edge, each row's power holds up to the edge nearest to it; between the
    first and the last of several edges there is their mean. The doubt stays: power rarely steps to
    the point.
    """
    assert curve.power_w is not None and curve.doubt_j is not None  # noqa: PT018 - the caller looked
    time_s, power, doubt = curve.time_s, curve.power_w, curve.doubt_j
    inner = np.unique(bounds[(bounds > time_s[0]) & (bounds < time_s[-1])])
    inner = inner[~np.isin(inner, time_s)]
    if not inner.size:
        return curve
    index = np.searchsorted(time_s, inner, "right") - 1
    whole = np.diff(curve.energy_j)
    times, energies, doubts = [time_s[:1]], [np.zeros(1)], []
    done = 0
    for k in np.unique(index):
        cuts = inner[index == k]
        lengths = np.diff(np.concatenate([time_s[k : k + 1], cuts, time_s[k + 1 : k + 2]]))
        held = np.full(lengths.size, (power[k] + power[k + 1]) / 2.0)
        held[0], held[-1] = power[k], power[k + 1]
        times += [time_s[done + 1 : k + 1], cuts, time_s[k + 1 : k + 2]]
        energies += [whole[done:k], held * lengths]
        # Shared out so that the squares add up to the interval's.
        doubts += [doubt[done:k], doubt[k] * np.sqrt(lengths / lengths.sum())]
        done = int(k) + 1
    times.append(time_s[done + 1 :])
    energies.append(whole[done:])
    doubts.append(doubt[done:])
    return replace(
        curve,
        time_s=np.concatenate(times),
        energy_j=np.cumsum(np.concatenate(energies)),
        doubt_j=np.concatenate(doubts),
    )


def _doubt(curve: Curve, start_s: float, end_s: float) -> float:
    """Half-width from what lies between the rows of an integrated power column, J."""
    if curve.doubt_j is None:
        return 0.0
    touched = (curve.time_s[1:] > start_s) & (curve.time_s[:-1] < end_s)
    return WIDTH * float(np.sqrt(np.sum(curve.doubt_j[touched] ** 2)))


def _alike(curve: Curve, bounds: FloatArray) -> tuple[FloatArray, float]:
    """Half-widths of the parts and of all from what is off in all rows alike, J."""
    lags, total = _lags(curve, bounds)
    lengths = np.diff(bounds)
    parts = lags + curve.offset_w * lengths
    total += curve.offset_w * float(lengths.sum())
    if curve.shift_s:
        low, high = _powers_near(curve, bounds, curve.shift_s)
        # A shift adds at one edge what it takes at the other.
        off = np.maximum(high[1:] - low[:-1], high[:-1] - low[1:])
        parts = parts + curve.shift_s * off
        total += curve.shift_s * float(max(high[-1] - low[0], high[0] - low[-1]))
    return parts, total


def _inner(curve: Curve, bounds: FloatArray, doubt_s: float) -> FloatArray:
    """Half-widths of the parts from inner bounds that may each be off by themselves, J.

    What a part gains at a bound, its neighbour loses: the total does not change.
    """
    if not doubt_s:
        return np.zeros(bounds.size - 1)
    edges = doubt_s * _powers_near(curve, bounds, doubt_s)[1]
    edges[[0, -1]] = 0.0
    widths: FloatArray = edges[:-1] + edges[1:]
    return widths


def _powers_near(
    curve: Curve, bounds: FloatArray, within_s: float
) -> tuple[FloatArray, FloatArray]:
    """The least and the most power of an interval within so many seconds of each bound, W."""
    slopes = np.diff(curve.energy_j) / np.diff(curve.time_s)
    # Of a bound on a row both neighbours are near, however little it may be off.
    first = np.searchsorted(curve.time_s, bounds - within_s, "left") - 1
    last = np.searchsorted(curve.time_s, bounds + within_s, "right")
    near = [
        slopes[np.clip(a, 0, slopes.size - 1) : np.clip(b, 1, slopes.size)]
        for a, b in zip(first, last, strict=True)
    ]
    return np.array([s.min() for s in near]), np.array([s.max() for s in near])


def _lags(curve: Curve, bounds: FloatArray) -> tuple[FloatArray, float]:
    """Half-widths of the parts and of all from samples that may be means of the time before them, J.

    The integral of a mean over T seconds holds, of each edge, T/2 of the power before it: too much at
    the start, too little at the end. What the mean does not show of a step within those T seconds is
    at most its own change in them.
    """
    if curve.power_w is None or not curve.averaged_s:
        return np.zeros(bounds.size - 1), 0.0
    level = np.interp(bounds, curve.time_s, curve.power_w)
    change = np.empty(bounds.size)
    for place, edge in enumerate(bounds):
        near = (curve.time_s >= edge - curve.averaged_s) & (curve.time_s <= edge)
        change[place] = np.ptp([*curve.power_w[near], level[place]])
    half_s = curve.averaged_s / 2.0
    parts = half_s * (np.abs(np.diff(level)) + change[:-1] + change[1:])
    return parts, float(half_s * (abs(level[-1] - level[0]) + change[0] + change[-1]))


class _Powers:
    """Mean power and its spread in each part of the timeline, from intervals wholly inside it.

    Part 0 lies before the first bound, part m + 1 after the last.
    """

    def __init__(self, curve: Curve, bounds: FloatArray) -> None:
        self.seconds = np.diff(curve.time_s)
        self.slope = np.diff(curve.energy_j) / self.seconds
        begin = np.searchsorted(bounds, curve.time_s[:-1], "right")
        end = np.searchsorted(bounds, curve.time_s[1:], "left")
        # Part of an interval wholly inside one, else −1.
        self.part = np.where(begin == end, begin, -1)
        self.least, self.most = float(self.slope.min()), float(self.slope.max())
        self.last_part = bounds.size
        # Deviation of an interval's energy as that of a walk: σ² is per second.
        same = (self.part[1:] == self.part[:-1]) & (self.part[1:] >= 0)
        steps = np.diff(self.slope)[same]
        scale = np.sqrt((self.seconds[1:] + self.seconds[:-1]) / 2.0)[same]
        self.pooled = None
        if steps.size >= 3:
            pooled = float(np.sqrt(np.mean((steps * scale) ** 2) / 2.0))
            self.pooled = pooled * (1.0 + 2.0 / steps.size)
        self.waiting = self._waiting()

    def _waiting(self) -> dict[int, tuple[float, float]]:
        """Power (W) and σ (W·√s) of the parts outside, where enough whole intervals show them.

        The host waits there: the nearest intervals count, farther away the meter starts and ends.
        """
        sides = {
            0: (self.part == 0).nonzero()[0][-WAITING:],
            self.last_part: (self.part == self.last_part).nonzero()[0][:WAITING],
        }
        sides = {part: rows for part, rows in sides.items() if rows.size == WAITING}
        if not sides:
            return {}
        seconds = float(np.mean(np.concatenate([self.seconds[rows] for rows in sides.values()])))
        apart = [self.slope[rows] - self.slope[rows].mean() for rows in sides.values()]
        freedom = sum(a.size - 1 for a in apart)
        sigma = math.sqrt(float(np.sum(np.concatenate(apart) ** 2)) / freedom * seconds)
        return {
            part: (float(self.slope[rows].mean()), sigma * STUDENT[freedom] / WIDTH)
            for part, rows in sides.items()
        }

    def near(self, part: int, index: int) -> tuple[float, float] | None:
        """Mean power (W) and σ (W·√s) of a part, next to an interval; None: no whole interval."""
        if part in self.waiting:
            return self.waiting[part]
        members = (self.part == part).nonzero()[0]
        if not members.size:
            return None
        nearest = members[np.argsort(np.abs(members - index), kind="stable")]
        power = float(np.mean(self.slope[nearest[:NEAREST]]))
        some = nearest[:SPREAD]
        root = math.sqrt(float(np.mean(self.seconds[some])))
        # Spreads of few intervals are themselves uncertain: widened as Student's t is, by 1 + 2/n.
        spreads = [] if self.pooled is None else [self.pooled]
        if some.size >= 3:
            spread = float(np.std(self.slope[some], ddof=1)) * root
            spreads.append(spread * (1.0 + 2.0 / some.size))
        if not spreads:
            spreads.append(0.25 * power * root)
        return power, max(spreads)


def _moment(curve: Curve, power_w: float) -> float:
    """Half-width of a row's energy from the moment of its sample and the counter's steps, J.

    The sample lies anywhere in its ``sample_s``, the counter's last update and the end of the
    stamp's last digit anywhere in ``UPDATE_S`` each: three independent uniform variables.
    """
    deviation_s = math.sqrt((curve.sample_s**2 + 2.0 * UPDATE_S**2) / 12.0)
    return math.hypot(KNOWN_WIDTH * power_w * deviation_s, 2.0 * curve.quantum_j)


def _leverage(share: float) -> float:
    """How far a row's moment moves a cut that the mean power before the row places.

    Args:
        share: time from the row to the cut over the time of the mean, which ends at that row: the
            row's own moment counts 1 + share times, that of the mean's other end share times.
    """
    return math.hypot(1.0 + share, share)


def _place(
    curve: Curve, bounds: FloatArray, places: np.ndarray, index: int, powers: _Powers
) -> tuple[FloatArray, FloatArray]:
    """Energy at the bounds that fall into one interval between rows, and half-widths, J."""
    start, seconds = curve.time_s[index], float(powers.seconds[index])
    low, high = curve.energy_j[index], curve.energy_j[index + 1]
    cuts = bounds[places] - start
    lengths = np.diff(np.concatenate([[0.0], cuts, [seconds]]))
    parts = np.arange(places[0], places[-1] + 2)
    known = [powers.near(int(p), index) if d > 0 else (0.0, 0.0) for p, d in zip(parts, lengths,
    strict=True)]  # fmt: skip
    # Inside an interval only its first and last part can have intervals of their own.
    guess = np.array([k[0] * d if k else 0.0 for k, d in zip(known, lengths, strict=True)])
    free = np.array([0.0 if k else d for k, d in zip(known, lengths, strict=True)])
    rest = float(high - low) - float(guess.sum())
    if not free.any():
        # The host waits outside the window: what the powers do not explain lies inside it.
        free = np.array(
            [0.0 if p in (0, powers.last_part) else d for p, d in zip(parts, lengths, strict=True)]
        )
    free_inside = any(k is None for k in known[1:-1])
    share = free if free.any() else lengths
    energy = guess + rest * share / share.sum()
    if energy.min() < 0.0:
        # The powers at the sides do not fit this interval: its own mean is all there is.
        share = lengths
        energy = (high - low) * lengths / seconds
    shares = np.cumsum(share)[:-1] / share.sum()
    at = low + np.cumsum(energy)[:-1]
    # J per second that the sample of the interval's first and of its last row is off.
    first_w, last_w = (
        (energy[side] / lengths[side] if lengths[side] > 0.0 else powers.slope[index])
        * (_leverage(lengths[side] / (WAITING * seconds)) if part in powers.waiting else 1.0)
        for side, part in ((0, parts[0]), (-1, parts[-1]))
    )
    widths = np.empty(places.size)
    for order, cut in enumerate(cuts):
        share_of_last = shares[order]
        moment = _moment(curve, math.hypot((1.0 - share_of_last) * first_w, share_of_last * last_w))
        width = _width(at[order] - low, float(cut), high - low, seconds, order, known, rest, powers)
        for part, length, joules in (
            (parts[order], float(cut), at[order] - low),
            (parts[order + 1], seconds - float(cut), high - at[order]),
        ):
            if part in powers.waiting:
                longer = 1.0 + length / (WAITING * seconds)
                sigma = powers.waiting[part][1]
                width = min(width, WIDTH * sigma * math.sqrt(length * longer))
            elif part in (0, powers.last_part) and not free_inside:
                # Nothing shows what the host draws there: maybe the least of all intervals.
                width = max(width, joules - powers.least * length)
        widths[order] = math.hypot(moment, width)
    return at, widths


def _width(
    energy_j: float,
    cut_s: float,
    interval_j: float,
    seconds: float,
    order: int,
    known: list[tuple[float, float] | None],
    rest_j: float,
    powers: _Powers,
) -> float:
    """Half-width of the energy at one cut of an interval, J: the narrowest that can be defended."""
    left_s, right_s = cut_s, seconds - cut_s
    if left_s <= 0.0 or right_s <= 0.0:
        return 0.0
    if all(known):
        sigma = max(k[1] for k in known if k)
        # What the sides' powers leave unexplained may all lie on one side of the edge.
        return math.hypot(WIDTH * sigma * math.sqrt(left_s * right_s / seconds), rest_j)
    # No power outside 0.5 × the lowest … 2 × the highest mean of an interval.
    least, most = 0.5 * powers.least, 2.0 * powers.most
    floor = max(least * left_s, interval_j - most * right_s, 0.0)
    ceiling = min(most * left_s, interval_j - least * right_s, interval_j)
    width = max(ceiling - energy_j, energy_j - floor, 0.0)
    for side, length in ((known[: order + 1], left_s), (known[order + 1 :], right_s)):
        if all(side):
            sigma = max(k[1] for k in side if k)
            width = min(width, WIDTH * sigma * math.sqrt(length * (length + seconds) / seconds))
    return width


def _outside(
    curve: Curve, bounds: FloatArray, place: int, powers: _Powers, notes: list[Note]
) -> tuple[float, float]:
    """Energy at a bound before the first or after the last row: the nearest power goes on."""
    early = bounds[place] < curve.time_s[0]
    end = 0 if early else curve.time_s.size - 1
    missing = float(bounds[place] - curve.time_s[end])
    slope = float(powers.slope[0 if early else -1])
    width = math.hypot(powers.most * abs(missing), _moment(curve, slope))
    # A sample's own length is no missing row.
    if abs(missing) > curve.sample_s + UPDATE_S:
        length = float(bounds[-1] - bounds[0])
        usual = usual_interval(curve.time_s) or 0.0
        fatal = abs(missing) > max(usual, 0.001 * length)
        text = (
            f"{curve.domain} by {curve.meter}: no row {'before' if early else 'after'} an edge "
            f"{abs(missing):.3f} s {'earlier' if early else 'later'} than the rows"
        )
        notes.append(Note("edge", text, fatal=fatal))
    return float(curve.energy_j[end]) + slope * missing, width


def domain_of(curve: Curve, parts: Split) -> Domain:
    """The record of one domain."""
    return Domain(
        name=curve.domain,
        meter=curve.meter,
        energy_j=parts.total_j,
        uncertainty_j=parts.total_uncertainty_j,
        wraps=curve.wraps,
        sources=curve.sources,
    )
