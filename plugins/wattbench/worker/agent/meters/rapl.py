"""The meter ``powercap``: RAPL counters of all sockets, from the kernel's powercap files.

``powercap.csv``: ``unix_s,mono_s`` and one column per readable zone, named like its folder
(``intel-rapl:0``, ``intel-rapl:0:1``): the cumulative counter in µJ. Names and ranges are in the
report's ``edges``. Sampled often enough that no counter can wrap unseen at 500 W.
"""

from __future__ import annotations

import glob
import os

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import read_int, read_text, rooted
from wattbench.worker.agent.meters import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import MeterSpec


def zones() -> Json:
    """Every RAPL zone and subzone: ``{zone: {name, energy_uj or None, max_energy_range_uj}}``."""
    found: Json = {}
    for folder in sorted(glob.glob(rooted("/sys/class/powercap/intel-rapl:*"))):
        found[os.path.basename(folder)] = {
            "name": read_text(folder + "/name"),
            "energy_uj": read_int(folder + "/energy_uj"),
            "max_energy_range_uj": read_int(folder + "/max_energy_range_uj"),
        }
    return found


def energies(names: Iterable[str]) -> list[int | None]:
    """The zones' counters now, µJ."""
    return [read_int(rooted("/sys/class/powercap/%s/energy_uj" % name)) for name in names]


def power_w(before: Json, after: Json, seconds: float) -> float | None:
    """Mean power of the packages between two :func:`zones` readings, W; None where unknown."""
    total, known = 0.0, False
    for zone, first in before.items():
        last = after.get(zone, {}).get("energy_uj")
        if zone.count(":") == 1 and first["energy_uj"] is not None and last is not None:
            delta = last - first["energy_uj"]
            if delta < 0:
                delta += (first["max_energy_range_uj"] or 0) + 1
            total, known = total + delta / 1e6 / seconds, True
    return total if known else None


def power_limits() -> Json:
    """Every zone's limits and their time windows: ``rapl.package[0].long_term_w``, ``…long_term_s``."""
    found: Json = {}
    for folder in sorted(glob.glob(rooted("/sys/class/powercap/intel-rapl:*"))):
        kind, number = zone_label(folder)
        for path in glob.glob(folder + "/constraint_*_name"):
            stem, name = path[: -len("_name")], read_text(path)
            limit_uw, window_us = (
                read_int(stem + f) for f in ("_power_limit_uw", "_time_window_us")
            )
            key = "rapl.%s[%s].%s_" % (kind, number, name)
            found[key + "w"] = None if limit_uw is None else limit_uw / 1e6
            found[key + "s"] = None if window_us is None else window_us / 1e6
    return found


def zone_label(folder: str) -> tuple[str, str]:
    """Kind and number of a zone: ``package``, ``0``; of one inside a package that package's number."""
    name = read_text(folder + "/name") or "zone"
    if name.startswith("package-"):
        return "package", name[len("package-") :]
    parts = os.path.basename(folder).split(":")
    outer = read_text(os.path.dirname(folder) + "/%s/name" % ":".join(parts[:2])) or ""
    return name, outer[len("package-") :] if outer.startswith("package-") else parts[1]


class Powercap(Meter):
    """RAPL through the kernel; the zones that this user may read when it is made."""

    kind = "powercap"
    files = ("powercap.csv",)

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        super().__init__(gpus)
        self._zones = {n: f for n, f in zones().items() if f["energy_uj"] is not None}

    def columns(self) -> list[str]:
        return list(self._zones)

    def row(self) -> list[Any]:
        return energies(self._zones)

    def period_s(self, interval_s: float, configured: bool) -> float:
        ranges = [f["max_energy_range_uj"] for f in self._zones.values()]
        bound = min([10.0] + [r / 1e6 / (4 * limits.MAX_ZONE_W) for r in ranges if r])
        return float(min(bound, interval_s) if configured else bound)

    def counters(self) -> Json:
        return {"powercap_uj": dict(zip(self._zones, energies(self._zones)))}  # noqa: B905

    def edge(self) -> Json:
        return {"powercap": zones()}

    def settings(self) -> Json:
        return power_limits()

    def idle_mark(self) -> Any:
        return zones()

    def idle_levels(self, mark: Any, seconds: float) -> Json:
        return {"power_w": power_w(mark, zones(), seconds)}

    def prove(self, settings: MeterSpec, gpus: Sequence[str], folder: str) -> Json:
        del settings, gpus, folder
        columns = self.columns()
        message = None if columns else "no RAPL counter below /sys/class/powercap can be read"
        return {"ok": bool(columns), "columns": columns, "message": message}

    def sensors(self) -> Json:
        from wattbench.worker.agent import preparation

        known = {zone: facts["energy_uj"] is not None for zone, facts in zones().items()}
        closed = not all(known.values())
        return {"powercap": known, "fix": [preparation.sudo("rapl")] if closed else []}

    @classmethod
    def preparation(cls) -> tuple[str, ...]:
        return ("rapl",)

    @classmethod
    def fixes(cls, settings: MeterSpec, error: str) -> list[str]:
        from wattbench.worker.agent import preparation

        del settings, error
        closed = any(facts["energy_uj"] is None for facts in zones().values())
        return [preparation.sudo("rapl")] if closed else ["sudo modprobe intel_rapl_msr"]


METERS = (Powercap,)
