"""Reading of the controller's prometheus.jsonl: PromQL queries, asked by the controller after the window."""

from __future__ import annotations

from collections.abc import Mapping

from wattbench.analysis.meters.reading import Reading
from wattbench.analysis.meters.registry import Edges, Meter, meter
from wattbench.analysis.meters.remote import remote_reading

FILE = "prometheus.jsonl"


@meter
class Prometheus(Meter):
    """Meters on the network, one curve each."""

    kind = "prometheus"
    files = (FILE,)
    rank = 100

    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """The controller's readings on the host's clock."""
        if FILE not in raw:
            return None
        return remote_reading(self.kind, raw[FILE], edges.marks)
