"""Reading of the controller's http.jsonl: devices that answer JSON, polled by the controller."""

from __future__ import annotations

from collections.abc import Mapping

from wattbench.analysis.meters.reading import Reading
from wattbench.analysis.meters.registry import Edges, Meter, meter
from wattbench.analysis.meters.remote import remote_reading

FILE = "http.jsonl"


@meter
class Http(Meter):
    """Meters on the network, one curve each."""

    kind = "http"
    files = (FILE,)
    rank = 100

    def read(self, raw: Mapping[str, bytes], edges: Edges) -> Reading | None:
        """The controller's readings on the host's clock."""
        if FILE not in raw:
            return None
        return remote_reading(self.kind, raw[FILE], edges.marks)
