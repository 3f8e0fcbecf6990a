"""Reading of the controller's prometheus.jsonl: PromQL queries, asked by the controller after the window."""

from __future__ import annotations

from wattbench.analysis.meters.registry import meter
from wattbench.analysis.meters.remote import RemoteMeter


@meter
class Prometheus(RemoteMeter):
    """Queries to Prometheus servers."""

    kind = "prometheus"
    files = ("prometheus.jsonl",)
