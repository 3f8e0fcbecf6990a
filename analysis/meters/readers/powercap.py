"""Reading of the agent's powercap.csv: RAPL zones, differenced modulo their range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wattbench.analysis.meters.counters import unwrap
from wattbench.analysis.meters.curves import Curve, add
from wattbench.analysis.meters.reading import READ_S, Edge, Reading, read_table, with_edges
from wattbench.analysis.meters.registry import Edges, Meter, meter
from wattbench.analysis.model.records import Note, PowercapZone

#: The counter's names in powercap → our domains. Zones of one name (sockets) are added.
_ZONES = {"dram": "dram", "core": "pp0", "uncore": "pp1", "psys": "psys"}


FILE = "powercap.csv"

#: Key of the zones' counters in the marks of the window's edges.
MARK = "powercap_uj"


@meter
class Powercap(Meter):
    """RAPL through the kernel's powercap files, read by the agent."""

    kind = "powercap"
    files = (FILE,)
    rank = 80

    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """The rows, and the counters at the window's edges."""
        if not edges.left(FILE, MARK, raw):
            return None
        zones = {**(edges.after.get("powercap") or {}), **(edges.before.get("powercap") or {})}
        return powercap_reading(raw.get(FILE, b""), zones, edges.marks)


def powercap_reading(
    data: bytes, zones: Mapping[str, PowercapZone], edges: Sequence[Edge] = ()
) -> Reading:
    """RAPL through the kernel: all sockets, every wrap corrected by the zone's own range.

    Args:
        data: ``powercap.csv``; may be empty, edge readings alone make curves too.
        zones: of the report's edges, by the name of their column.
        edges: counters at the window's edges, on the same clock.
    """
    frame, notes = read_table(data, FILE)
    names = [c for c in frame.columns if c not in ("unix_s", "mono_s")]
    names += sorted({z for e in edges for z in e.values(MARK)} - set(names))
    time_s = frame["unix_s"].to_numpy(dtype=float)
    by_domain: dict[str, list[Curve]] = {}
    for zone in names:
        facts = zones.get(zone) or PowercapZone()
        domain = _domain_of_zone(zone, str(facts.get("name") or ""))
        values = (
            frame[zone].to_numpy(dtype=float) if zone in frame else np.full(time_s.size, np.nan)
        )
        marks = [(e.unix_s, e.values(MARK).get(zone)) for e in edges]
        time, counter = with_edges(time_s, values, marks)
        if domain is None or time.size < 2:
            notes.append(Note("missing-column", f"zone {zone} was not read twice", column=zone))
            continue
        span = facts.get("max_energy_range_uj")
        whole = unwrap(counter / 1e6, span_j=span / 1e6 if span else None, time_s=time)
        found = tuple(replace(n, column=zone, line=None) for n in whole.notes)
        by_domain.setdefault(domain, []).append(
            Curve(
                domain, "powercap", time, whole.values_j, (zone,), whole.wraps,
                sample_s=READ_S, quantum_j=2.0**-14, notes=found,
            )
        )  # fmt: skip
    curves_found = [_sum_sockets(domain, found, notes) for domain, found in by_domain.items()]
    notes += [note for curve in curves_found for note in curve.notes]
    return Reading("powercap", tuple(curves_found), time_s, {}, tuple(notes))


def _sum_sockets(domain: str, found: list[Curve], notes: list[Note]) -> Curve:
    """One curve per domain: zones of several sockets, at the rows of the one that has the fewest."""
    fewest = min(found, key=lambda c: c.time_s.size).time_s
    common = [np.isin(c.time_s, fewest) for c in found]
    if any(mask.sum() != fewest.size for mask in common):
        notes.append(Note("bad-row", f"{domain}: the sockets' rows differ", fatal=True))
        return found[0]
    aligned = [
        replace(c, time_s=c.time_s[mask], energy_j=c.energy_j[mask])
        for c, mask in zip(found, common, strict=True)
    ]
    summed = add("powercap", domain, aligned)
    assert summed is not None  # there is at least one
    return summed


def _domain_of_zone(zone: str, name: str) -> str | None:
    """``package-1`` → package; None for a zone that says nothing."""
    if name.startswith("package") or (not name and zone.count(":") == 1):
        return "package"
    return _ZONES.get(name)
