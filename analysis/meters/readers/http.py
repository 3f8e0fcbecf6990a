"""Reading of the controller's http.jsonl: devices that answer JSON, polled by the controller."""

from __future__ import annotations

from wattbench.analysis.meters.registry import meter
from wattbench.analysis.meters.remote import RemoteMeter


@meter
class Http(RemoteMeter):
    """Devices that answer JSON, such as wall plugs."""

    kind = "http"
    files = ("http.jsonl",)
