"""Progress of an image pull, from Docker's event stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

_RATE_OVER_S = 15.0


class _Detail(TypedDict, total=False):
    message: str
    current: int | None
    total: int | None


class PullEvent(TypedDict, total=False):
    """One event of Docker's stream."""

    id: str
    status: str
    error: str
    errorDetail: _Detail | None
    progressDetail: _Detail | None


@dataclass
class _LayerState:
    received: int = 0  # by this attempt's current download
    banked: int = 0  # by downloads that broke off
    total: int | None = None
    unpacked: int = 0
    stage: str = ""


@dataclass
class PullProgress:
    """Adds up the events of one pull: pure, the clock is an argument.

    Attributes:
        sizes: compressed size by the first 12 digits of the layer's digest, from the manifest.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    layers: dict[str, _LayerState] = field(default_factory=dict)
    _history: deque[tuple[float, int]] = field(default_factory=deque)

    def feed(self, event: PullEvent, now: float) -> bool:
        """Take one event; True if bytes moved or a layer got a step further.

        Args:
            event: as Docker sends it.
            now: monotonic time, s.
        """
        if "error" in event:
            detail = event.get("errorDetail") or _Detail()
            self.error = str(detail.get("message") or event["error"])
            return False
        name, status = str(event.get("id", "")), str(event.get("status", ""))
        if status.startswith("Pulling from") or not name:
            return status.startswith(("Digest:", "Status:"))
        layer = self.layers.setdefault(name, _LayerState())
        layer.total = layer.total or self.sizes.get(name)
        moved = self._advance(layer, status, event.get("progressDetail") or _Detail())
        if moved:
            self._history.append((now, self.received))
            while self._history[-1][0] - self._history[0][0] > _RATE_OVER_S:
                self._history.popleft()
        return moved

    @staticmethod
    def _advance(layer: _LayerState, status: str, detail: _Detail) -> bool:
        current = int(detail.get("current") or 0)
        if status == "Downloading":
            layer.total = int(detail.get("total") or 0) or layer.total
            moved = current > layer.received
            if current < layer.received:  # Docker started this layer again
                layer.banked += layer.received
            layer.received, layer.stage = current, status
            return moved
        if status == "Extracting":
            moved = current != layer.unpacked or layer.stage != status
            layer.unpacked, layer.stage = current, status
            return moved
        if status.startswith(("Retrying", "Waiting", "Pulling fs layer")):
            layer.stage = status
            return False  # a countdown is not progress
        if status in ("Download complete", "Pull complete") and layer.total:
            layer.received = layer.total  # a small layer is complete before Docker reports progress
        moved, layer.stage = layer.stage != status, status
        return moved

    @property
    def expected(self) -> int | None:
        """Bytes that this pull has to move, as far as is known; layers at the host need none."""
        sizes = dict(self.sizes)
        sizes.update({name: one.total for name, one in self.layers.items() if one.total})
        return sum(size for name, size in sizes.items() if name not in self.present) or None

    @property
    def received(self) -> int:
        """Bytes received, those of downloads that broke off included."""
        return sum(layer.received + layer.banked for layer in self.layers.values())

    @property
    def present(self) -> set[str]:
        """Layers that the host had before."""
        return {name for name, layer in self.layers.items() if layer.stage == "Already exists"}

    @property
    def unpacked(self) -> int:
        """Layers that are complete at the host."""
        return sum(
            layer.stage in ("Pull complete", "Already exists") for layer in self.layers.values()
        )

    def rate(self, now: float) -> float | None:
        """Bytes a second over the last seconds; None where nothing moved yet."""
        if not self._history or now <= self._history[0][0]:
            return None
        began, at = self._history[0]
        return (self.received - at) / (now - began)

    def line(self, now: float) -> str:
        """``12.0 of 48.0 MB (25 %), 4.0 MB/s, 9 s left; 1 of 3 layers unpacked``."""
        current = sum(layer.received for layer in self.layers.values())
        total = self.expected
        text = f"{current / 1e6:.1f} MB"
        if total:
            share = min(100, int(100 * current / total))
            text = f"{current / 1e6:.1f} of {total / 1e6:.1f} MB ({share} %)"
        rate = self.rate(now)
        if rate and total and total > current:
            text += f", {rate / 1e6:.1f} MB/s, {(total - current) / rate:.0f} s left"
        waiting = [
            layer.stage for layer in self.layers.values() if layer.stage.startswith("Retrying")
        ]
        count = max(len(self.layers), len(self.sizes))
        return f"{text}; {self.unpacked} of {count} layers unpacked" + (
            f"; {waiting[0].lower()}" if waiting else ""
        )
