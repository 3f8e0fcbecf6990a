"""Reading of EnergiBridge's log, and of a log in its format that a power model wrote."""

from __future__ import annotations

from collections.abc import Mapping

from wattbench.analysis.meters import energibridge
from wattbench.analysis.meters.curves import curves
from wattbench.analysis.meters.reading import Reading
from wattbench.analysis.meters.registry import Edges, Meter, meter

FILE = "energibridge.csv"


@meter
class EnergiBridge(Meter):
    """EnergiBridge: RAPL counters, and GPU power by NVML."""

    kind = "energibridge"
    files = (FILE,)
    rank = 90

    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """The log, if there is one."""
        del edges  # its log has its own
        return None if FILE not in raw else energibridge_reading(raw[FILE], self.kind)


@meter
class Modelled(EnergiBridge):
    """A power model that writes EnergiBridge's format."""

    kind = "modelled"
    rank = 95
    modelled = True


def energibridge_reading(data: bytes, kind: str = "energibridge") -> Reading:
    """A log as curves and gauges.

    Raises:
        InputError: the log is too large.
    """
    samples = energibridge.read(data)
    found = curves(samples, meter=kind)
    series = {
        column.name: column.values
        for column in samples.columns.values()
        if column.kind is not energibridge.Kind.CUMULATIVE
    }
    notes = (*samples.notes, *(note for curve in found for note in curve.notes))
    return Reading(kind, found, samples.time_s, series, notes, own_clock=True)
