"""Meters that the controller reads over the network: the registry of their kinds.

What all of them share is :mod:`~wattbench.remote_meters.protocol`; :mod:`~wattbench.remote_meters.watch`
reads a host's around a window.
"""

from __future__ import annotations

from wattbench.remote_meters.client import Access
from wattbench.remote_meters.http import HttpReader
from wattbench.remote_meters.prometheus import PrometheusReader
from wattbench.remote_meters.protocol import Reader, RemoteSettings

READERS: dict[str, type[Reader]] = {"http": HttpReader, "prometheus": PrometheusReader}


def reader_of(settings: RemoteSettings, access: Access | None = None) -> Reader:
    """The reader of a configured meter."""
    return READERS[settings.kind](settings, access or Access())


def raw_file(kind: str) -> str:
    """Name of the raw file that a kind leaves in an attempt's folder."""
    return f"{kind}.jsonl"
