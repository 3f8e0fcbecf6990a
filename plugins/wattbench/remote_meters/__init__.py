"""Meters that the controller reads over the network: the registry of their kinds.

Classes of readers that entry points of the group ``wattbench.remote_meters`` name are kinds too.
What all of them share is :mod:`~wattbench.remote_meters.protocol`; :mod:`~wattbench.remote_meters.watch`
reads a host's around a window.
"""

from __future__ import annotations

from wattbench.analysis.model import extensions
from wattbench.remote_meters.client import Access
from wattbench.remote_meters.http import HttpReader
from wattbench.remote_meters.prometheus import PrometheusReader
from wattbench.remote_meters.protocol import Reader, RemoteSettings

#: Entry points that add kinds.
GROUP = "wattbench.remote_meters"


def _installed() -> dict[str, type[Reader]]:
    """Every class of readers by its kind; one that is none, or of a kind that is there, is one warning."""
    kinds: dict[str, type[Reader]] = {"http": HttpReader, "prometheus": PrometheusReader}
    for name, added in extensions.load(GROUP):
        if not (isinstance(added, type) and issubclass(added, Reader)):
            why = "it is not a class of Reader"
        elif (kind := str(added.Settings.model_fields["kind"].default)) in kinds:
            why = f"there is a meter {kind!r} already"
        else:
            kinds[kind] = added
            continue
        extensions.log.warning("%s %r is left out: %s", GROUP, name, why)
    return kinds


READERS = _installed()


def reader_of(settings: RemoteSettings, access: Access | None = None) -> Reader:
    """The reader of a configured meter."""
    return READERS[settings.kind](settings, access or Access())


def raw_file(kind: str) -> str:
    """Name of the raw file that a kind leaves in an attempt's folder."""
    return f"{kind}.jsonl"
