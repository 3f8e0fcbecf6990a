"""Reading of the agent's hwmon.csv: energy counters and power of the kernel's hardware monitors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wattbench.analysis.meters.counters import unwrap
from wattbench.analysis.meters.curves import Curve, add, integrate_power
from wattbench.analysis.meters.energibridge import FloatArray
from wattbench.analysis.meters.reading import READ_S, Edge, Reading, read_table, with_edges
from wattbench.analysis.meters.registry import Edges, Meter, meter
from wattbench.analysis.model.records import Note

FILE = "hwmon.csv"

#: Key of the counters in the marks of the window's edges.
MARK = "hwmon_uj"

#: The kernel's drivers accumulate in 64 bits of µJ: a fall is never a wrap.
_SPAN_J = 2.0**64 / 1e6
#: ``amd_energy`` brings its counters up to date every 100 ms or so.
_UPDATE_S = 0.1


@meter
class Hwmon(Meter):
    """The kernel's hardware monitors, read by the agent; of GPUs the trial's alone."""

    kind = "hwmon"
    files = (FILE,)
    rank = 90
    only_given = True

    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """The rows, and the counters at the window's edges."""
        if not edges.left(FILE, MARK, raw):
            return None
        return hwmon_reading(raw.get(FILE, b""), edges.marks)


def hwmon_reading(data: bytes, edges: Sequence[Edge] = ()) -> Reading:
    """One curve per domain: the sum of its columns, whose names say domain and quantity.

    Args:
        data: ``hwmon.csv``; may be empty, edge readings alone make curves of counters too.
        edges: counters at the window's edges, on the same clock.
    """
    frame, notes = read_table(data, FILE)
    time_s = frame["unix_s"].to_numpy(dtype=float)
    names = [c for c in frame.columns if c not in ("unix_s", "mono_s")]
    names += sorted({name for e in edges for name in e.values(MARK)} - set(names))
    parts: dict[tuple[str, str], list[Curve]] = {}
    for name in names:
        domain, quantity = _named(name)
        if domain is None:
            notes.append(Note("unknown-column", f"{FILE}: {name} names no domain", column=name))
            continue
        values = (
            frame[name].to_numpy(dtype=float) if name in frame else np.full(time_s.size, np.nan)
        )
        if quantity == "energy_uj":
            marks = [(e.unix_s, e.values(MARK).get(name)) for e in edges]
            curve = _counter(name, domain, *with_edges(time_s, values, marks, READ_S))
        else:
            curve = _power(name, domain, quantity, time_s, values)
        if curve is None:
            notes.append(Note("missing-column", f"{name} was not read twice", column=name))
        else:
            parts.setdefault((domain, quantity), []).append(curve)
    curves = [_sum(domain, found, notes) for (domain, _), found in parts.items()]
    notes += [note for curve in curves for note in curve.notes]
    return Reading("hwmon", tuple(curves), time_s, {}, tuple(notes))


def _named(column: str) -> tuple[str | None, str]:
    """Domain and quantity of ``DOMAIN/QUANTITY/SOURCE``."""
    domain, _, rest = column.partition("/")
    quantity, _, source = rest.partition("/")
    known = quantity == "energy_uj" or quantity.partition("@")[0] == "power_uw"
    return (domain if domain and source and known else None), quantity


def _counter(name: str, domain: str, time_s: FloatArray, counter: FloatArray) -> Curve | None:
    if time_s.size < 2:
        return None
    whole = unwrap(counter / 1e6, span_j=_SPAN_J, time_s=time_s)
    found = tuple(replace(n, column=name, line=None) for n in whole.notes)
    return Curve(
        domain, "hwmon", time_s, whole.values_j, (name,), whole.wraps,
        sample_s=_UPDATE_S, quantum_j=1e-6, notes=found,
    )  # fmt: skip


def _power(
    name: str, domain: str, quantity: str, time_s: FloatArray, power_uw: FloatArray
) -> Curve | None:
    known = np.isfinite(power_uw)
    if known.sum() < 2:
        return None
    watts = power_uw[known] / 1e6
    energy_j, doubt_j = integrate_power(time_s[known], watts)
    averaged_ms = quantity.partition("@")[2]
    return Curve(
        domain, "hwmon", time_s[known], energy_j, (name,), sample_s=READ_S, quantum_j=0.0,
        power_w=watts, doubt_j=doubt_j,
        averaged_s=float(averaged_ms) / 1000 if averaged_ms.isdecimal() else 0.0,
    )  # fmt: skip


def _sum(domain: str, found: list[Curve], notes: list[Note]) -> Curve:
    """A domain's columns together, at the rows that all of them have."""
    common = found[0].time_s
    for curve in found[1:]:
        common = np.intersect1d(common, curve.time_s)
    if any(c.time_s.size != common.size for c in found):
        notes.append(Note("bad-row", f"{domain}: rows of its sources differ", fatal=True))
        return found[0]
    summed = add("hwmon", domain, found)
    assert summed is not None  # there is at least one
    powers = [c.power_w for c in found if c.power_w is not None]
    if len(powers) < len(found):
        return summed
    return replace(
        summed,
        power_w=np.sum(powers, axis=0),
        # the sources' samples are of one moment: their errors add up
        doubt_j=np.sum([c.doubt_j for c in found if c.doubt_j is not None], axis=0),
    )
