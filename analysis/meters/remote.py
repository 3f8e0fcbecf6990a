"""Reading of meters on the network: raw files that the controller wrote, on its own clock.

``wattbench.remote_meters.protocol`` lists the lines of such a file. A reading is at most one interval
old when it arrives: its moment lies anywhere in it. The offset of the host's clock and the meter's lag
shift all moments alike; what is not known of both goes into the uncertainty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from wattbench.analysis.meters.clocks import CLOCK_STEP_S, Clock
from wattbench.analysis.meters.counters import unwrap
from wattbench.analysis.meters.curves import (
    COARSE_W,
    FROZEN_ROWS,
    FROZEN_S,
    Curve,
    integrate_power,
)
from wattbench.analysis.meters.energibridge import FloatArray
from wattbench.analysis.meters.reading import Edge, Reading
from wattbench.analysis.meters.registry import Edges, Meter
from wattbench.analysis.meters.window import split
from wattbench.analysis.model.meter_units import ENERGY_J, POWER_W
from wattbench.analysis.model.records import Note

#: No machine draws more, W.
IMPLAUSIBLE_W = 50_000.0
#: An exporter reads its meter when it is scraped, and the meter's values are at most so old then, s.
EXPORTED_S = 1.0
#: A counter that stands still although a host draws at least this is frozen, W.
LEAST_W = 1.0
#: Beyond any counter: one without a range never wraps, J.
_ENDLESS_J = 2.0**63


@dataclass
class _Lines:
    """What a raw file has of one meter."""

    settings: Mapping[str, Any]
    clocks: list[tuple[float, float, float]] = field(default_factory=list)
    server_trips_s: list[float] = field(default_factory=list)
    scraped: bool = False
    samples: list[Mapping[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.settings.get("meter"))

    def number(self, key: str, default: float = 0.0) -> float:
        value = _number(self.settings.get(key))
        return default if value is None else value


class RemoteMeter(Meter):
    """Meters of one kind on the network, one curve each; their readings lie in one file."""

    rank = 100

    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """The controller's readings on the host's clock."""
        (file,) = self.files
        return remote_reading(self.kind, raw[file], edges.marks) if file in raw else None


def remote_reading(kind: str, data: bytes, edges: Sequence[Edge] = ()) -> Reading:
    """One curve per meter of the kind, named after it.

    Args:
        kind: of the meters.
        data: ``KIND.jsonl``; may be empty.
        edges: of the window, which choose between a meter's power and its counter.
    """
    meters, notes = _parsed(data, f"{kind}.jsonl")
    if not meters:
        notes.append(Note("no-energy", f"{kind}.jsonl has no readings of a meter", fatal=True))
    curves: list[Curve] = []
    times: list[tuple[bool, FloatArray]] = []
    for lines in meters.values():
        found, more = _curves(lines)
        notes += more
        if not found:
            why = lines.errors[0] if lines.errors else f"{lines.name} was not read twice"
            notes.append(Note("no-energy", why, column=lines.name, fatal=True))
            continue
        chosen = _of_less_uncertainty(found, edges)
        notes += chosen.notes
        curves.append(chosen)
        times.append((bool(lines.settings.get("primary")), chosen.time_s))
    main = max(times, key=lambda one: one[0], default=(False, np.empty(0)))[1]
    return Reading(kind, tuple(curves), main, {}, tuple(notes))


def _parsed(data: bytes, name: str) -> tuple[dict[str, _Lines], list[Note]]:
    meters: dict[str, _Lines] = {}
    clocks: list[tuple[float, float, float]] = []
    notes: list[Note] = []
    for number, text in enumerate(data.splitlines(), start=1):
        try:
            line = json.loads(text)
            (key, value), *more = line.items()
            if more or not isinstance(value, dict):
                raise ValueError("not one object")
        except (ValueError, AttributeError, RecursionError):
            notes.append(Note("bad-row", f"{name}: not a line of ours; left out", number))
            continue
        meter = str(value.get("meter"))
        if key == "settings":
            meters.setdefault(meter, _Lines(value))
        elif key == "clock":
            reading = tuple(_number(value.get(k)) for k in ("unix_s", "ahead_s", "trip_s"))
            if None not in reading:
                clocks.append(reading)  # type: ignore[arg-type]
        elif meter in meters:
            _take(meters[meter], key, value)
    for lines in meters.values():
        lines.clocks = sorted(clocks)
    return meters, notes


def _take(lines: _Lines, key: str, value: Mapping[str, Any]) -> None:
    if key == "sample" and _number(value.get("unix_s")) is not None:
        lines.samples.append(value)
    elif key == "error":
        lines.errors.append(str(value.get("error")))
    elif key == "server":
        lines.server_trips_s.append(_number(value.get("trip_s")) or 0.0)
        lines.scraped = value.get("scraped") is True


def _curves(lines: _Lines) -> tuple[list[Curve], list[Note]]:
    """Curves of the counter and of the power, as far as there are, and what was met."""
    notes: list[Note] = []
    if lines.errors and lines.samples:
        failed = len(lines.errors)
        text = f"{failed} of {failed + len(lines.samples)} readings failed, the first: {lines.errors[0]}"
        notes.append(Note("bad-row", text, column=lines.name))
    samples = sorted(lines.samples, key=lambda one: float(one["unix_s"]))
    clock, server_s, clock_notes = _clock(lines, samples)
    notes += clock_notes
    found = []
    for quantity, make in (("energy", _counter), ("power", _power)):
        rows = [(s, v) for s in samples if (v := _decimal(s.get(quantity))) is not None]
        if len(rows) < 2:
            continue
        unix_s = np.array([float(s["unix_s"]) for s, _ in rows])
        trips = np.array([_number(s.get("trip_s")) or 0.0 for s, _ in rows])
        age_s = lines.number("interval_s", 1.0)
        if lines.scraped:
            age_s = min(age_s, EXPORTED_S)
        time_s = clock.there(unix_s) - (trips + age_s) / 2.0 - lines.number("lag_s")
        time_s, places = np.unique(time_s, return_index=True)
        if time_s.size < 2:
            continue
        curve = make(lines, time_s, [rows[place][1] for place in places])
        if curve is not None:
            found.append(
                replace(
                    curve,
                    sample_s=age_s + float(trips.max()),
                    shift_s=clock.doubt_s + server_s + lines.number("lag_uncertainty_s"),
                )
            )
    return found, notes


def _clock(
    lines: _Lines, samples: Sequence[Mapping[str, Any]]
) -> tuple[Clock, float, tuple[Note, ...]]:
    """The controller's moments on the host's clock, what the server's own adds to their doubt, and notes."""
    name = lines.name
    if not lines.clocks:
        note = Note(
            "clock-step", f"{name}: how far the host's clock is off is not known", None, name, True
        )
        return Clock(np.zeros(1), np.zeros(1), 0.0, 0.0), 0.0, (note,)
    clock = Clock.of(lines.clocks)
    offsets = [
        float(s["unix_s"]) - mono for s in samples if (mono := _number(s.get("mono_s"))) is not None
    ]
    steps = {
        "the controller's clock": float(np.ptp(offsets)) if offsets else 0.0,
        "the host's clock against the controller's": clock.step_s,
    }
    notes = tuple(
        Note("clock-step", f"{name}: {what} moved by {step_s:.3f} s", None, name, True)
        for what, step_s in steps.items()
        if step_s > CLOCK_STEP_S
    )
    return clock, max(lines.server_trips_s, default=0.0) / 2.0, notes


def _counter(lines: _Lines, time_s: FloatArray, values: Sequence[Decimal]) -> Curve | None:
    unit = ENERGY_J.get(str(lines.settings.get("energy_unit")))
    if unit is None:
        return None
    name = lines.name
    resolution_j = _step(values) * unit
    joules = np.array([float((v - values[0]) * Decimal(str(unit))) for v in values])
    notes: list[Note] = []
    if not np.any(np.diff(joules)):
        seconds = float(time_s[-1] - time_s[0])
        if len(values) >= FROZEN_ROWS and resolution_j < LEAST_W * seconds:
            text = f"{name}: its counter stands still at {values[0]} for {seconds:.0f} s"
            notes.append(Note("stale", text, column=name, fatal=True))
    # A value was reached when it was first seen; how long it stood after that says nothing.
    new = np.concatenate([[True], np.diff(joules) != 0.0])
    new[-1] = True
    time_s, joules = time_s[new], joules[new]
    wraps_at = _number(lines.settings.get("wraps_at"))
    span_j = _ENDLESS_J if wraps_at is None else wraps_at * unit
    whole = unwrap(joules, span_j=span_j, time_s=time_s)
    for note in whole.notes:
        lasting = note.kind == "backwards" or note.fatal
        notes.append(replace(note, message=f"{name}: {note.message}", column=name, line=None,
                             fatal=lasting))  # fmt: skip
    steps, seconds_each = np.diff(whole.values_j), np.diff(time_s)
    if np.any(steps - resolution_j > IMPLAUSIBLE_W * seconds_each):
        text = f"{name}: its counter rises by {steps.max():.6g} J at once: not possible"
        notes.append(Note("jump", text, column=name, fatal=True))
    return Curve(
        str(lines.settings.get("domain")), name, time_s, whole.values_j, (name,), whole.wraps,
        quantum_j=resolution_j / 2.0, notes=tuple(notes),
    )  # fmt: skip


def _power(lines: _Lines, time_s: FloatArray, values: Sequence[Decimal]) -> Curve | None:
    unit = POWER_W.get(str(lines.settings.get("power_unit")))
    if unit is None:
        return None
    name = lines.name
    watts = np.array([float(v) * unit for v in values])
    notes: list[Note] = []
    seconds = float(time_s[-1] - time_s[0])
    if watts.max() > IMPLAUSIBLE_W:
        text = f"{name}: {watts.max():.6g} W is not possible; correct its unit"
        notes.append(Note("jump", text, column=name, fatal=True))
    if len(values) >= FROZEN_ROWS and seconds >= FROZEN_S and not np.any(np.diff(watts)):
        text = f"{name}: {watts[0]:g} W in all of {len(values)} readings"
        fine = bool(np.rint(watts[0] * 1e3) % (1e3 * COARSE_W))
        notes.append(Note("stale", text, column=name, fatal=fine))
    energy_j, doubt_j = integrate_power(time_s, watts)
    return Curve(
        str(lines.settings.get("domain")), name, time_s, energy_j, (name,), quantum_j=0.0,
        power_w=watts, doubt_j=doubt_j, averaged_s=lines.number("averaged_s"),
        offset_w=10.0 ** _last_digit(values) * unit, notes=tuple(notes),
    )  # fmt: skip


def _of_less_uncertainty(found: Sequence[Curve], edges: Sequence[Edge]) -> Curve:
    """Of a meter's counter and its power, the finer one in the window."""
    marks = [edge.unix_s for edge in edges]
    if len(found) == 1 or len(marks) != 2 or marks[1] <= marks[0]:
        return found[0]
    return min(found, key=lambda curve: split(curve, marks).total_uncertainty_j)


def _last_digit(values: Sequence[Decimal]) -> int:
    """Exponent of the last digit that the meter prints."""
    return min(int(v.as_tuple().exponent) for v in values)


def _step(values: Sequence[Decimal]) -> float:
    """What the counter counts in: all its steps are multiples of it."""
    digit = _last_digit(values)
    counts = [int((v - values[0]).scaleb(-digit)) for v in values]
    return float(math.gcd(*counts) or 1) * 10.0**digit


def _decimal(value: Any) -> Decimal | None:
    try:
        found = Decimal(value) if isinstance(value, str) and len(value) < 100 else None
    except InvalidOperation:
        return None
    if found is None or not found.is_finite() or abs(int(found.as_tuple().exponent)) > 40:
        return None
    return found if abs(found) < 1e30 else None


def _number(value: Any) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and abs(value) < 1e19 else None
