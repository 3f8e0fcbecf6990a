"""Joules of a log by the product's own steps: between its first and last row, and inside a window."""

from __future__ import annotations

from wattbench.analysis.meters.counters import unwrap
from wattbench.analysis.meters.curves import curves
from wattbench.analysis.meters.energibridge import Kind, Samples
from wattbench.analysis.meters.window import domain_of, split
from wattbench.analysis.model.records import Domain


def between_rows(samples: Samples) -> dict[str, tuple[float, int]]:
    """Joules from the first row to the last and wraps, by domain of a cumulative column."""
    counters = [c for c in samples.energy_columns if c.kind is Kind.CUMULATIVE]
    whole = {c.domain or "": unwrap(c.values, time_s=samples.time_s) for c in counters}
    return {domain: (float(w.values_j[-1]), w.wraps) for domain, w in whole.items()}


def in_window(samples: Samples, start_s: float, end_s: float) -> list[Domain]:
    """Every domain between two times on the log's clock."""
    return [domain_of(curve, split(curve, [start_s, end_s])) for curve in curves(samples)]
