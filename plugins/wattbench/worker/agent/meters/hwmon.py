"""The meter ``hwmon``: energy and power files of the kernel's hardware monitors.

Known are AMD CPUs (``amd_energy``) and GPUs (``amdgpu``), NVIDIA's Jetson (``ina3221``) and Grace, and other
ACPI power meters (``power_meter``). A chip that is not known is not read.

``hwmon.csv``: ``unix_s,mono_s`` and one column per file, ``DOMAIN/QUANTITY/SOURCE``, for example
``package/energy_uj/amd_energy-Esocket0`` (cumulative) or ``system/power_uw@1000/power_meter-0`` (mean of
the last 1000 ms). Domains of several columns are sums; one that begins with ``rail-`` lies inside another.
"""

from __future__ import annotations

import glob
import os
import re
import time

from wattbench.worker.agent.base import read_int, read_text, rooted
from wattbench.worker.agent.meters import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import MeterSpec

    #: Column → what reads it.
    Sources = dict[str, Callable[[], "int | None"]]

#: How GPUs of the driver amdgpu are named in hosts.yaml: ``amd-0`` is the first by PCI address.
AMD_GPU = re.compile(r"amd-(\d+)")
#: Chips whose power is averaged over an interval that they don't report, ms.
_AVERAGED_MS = {"amdgpu": 1000}
#: How long a counter is given to move when the meter is proven, s.
_PROOF_S = 0.3


def _chips(name: str) -> list[str]:
    """Folders of the monitors of a name, by the address of their devices."""
    found = [
        folder
        for folder in glob.glob(rooted("/sys/class/hwmon/hwmon*"))
        if read_text(folder + "/name") == name
    ]
    return sorted(found, key=lambda folder: os.path.realpath(folder + "/device"))


def _column(domain: str, quantity: str, *words: str) -> str:
    return "/".join([domain, quantity, re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(words))])


def _file(path: str) -> Callable[[], int | None]:
    return lambda: read_int(path)


def _product(one: str, other: str) -> Callable[[], int | None]:
    """Volts times amperes: mV × mA are µW."""

    def read() -> int | None:
        millivolts, milliamperes = read_int(one), read_int(other)
        known = millivolts is not None and milliamperes is not None
        return (millivolts or 0) * (milliamperes or 0) if known else None

    return read


def _amd_cpus() -> Iterator[tuple[str, Callable[[], int | None]]]:
    """Sockets; the counters of cores lie inside them."""
    for folder in _chips("amd_energy"):
        for path in sorted(glob.glob(folder + "/energy*_label")):
            label = read_text(path) or ""
            if label.startswith("Esocket"):
                yield (
                    _column("package", "energy_uj", "amd_energy", label),
                    _file(path[: -len("_label")] + "_input"),
                )


def _power_file(folder: str, stem: str) -> tuple[str, str] | None:
    """A chip's quantity and file of power: of the moment where there is one, else an average."""
    if os.path.exists("%s/%s_input" % (folder, stem)):
        return "power_uw", "%s/%s_input" % (folder, stem)
    if os.path.exists("%s/%s_average" % (folder, stem)):
        chip = read_text(folder + "/name") or ""
        interval_ms = read_int("%s/%s_average_interval" % (folder, stem))
        averaged_ms = interval_ms or _AVERAGED_MS.get(chip, 1000)
        return "power_uw@%d" % averaged_ms, "%s/%s_average" % (folder, stem)
    return None


def _amd_gpus(given: Sequence[str]) -> Iterator[tuple[str, Callable[[], int | None]]]:
    for index, folder in enumerate(_chips("amdgpu")):
        power = _power_file(folder, "power1")
        if power and "amd-%d" % index in given:
            yield _column("gpu%d" % index, power[0], "amdgpu", str(index)), _file(power[1])


def _jetson() -> Iterator[tuple[str, Callable[[], int | None]]]:
    """Rails; the one of the input is the whole board."""
    for folder in _chips("ina3221"):
        for path in sorted(glob.glob(folder + "/in[1-3]_label")):
            label = read_text(path) or ""
            number = os.path.basename(path)[2]
            amperes = "%s/curr%s_input" % (folder, number)
            if not label or label == "NC" or not os.path.exists(amperes):
                continue
            board = label in ("VDD_IN", "POM_5V_IN")
            domain = "system" if board else "rail-" + label.lower().replace("_", "-")
            yield (
                _column(domain, "power_uw", "ina3221", label),
                _product("%s/in%s_input" % (folder, number), amperes),
            )


def _acpi() -> Iterator[tuple[str, Callable[[], int | None]]]:
    """Power meters of the firmware: the whole system, or what Grace names them.

    Of several without a name it is not known what each covers: none of them counts.
    """
    folders = _chips("power_meter")
    labels = [
        read_text(folder + "/power1_oem_info") or read_text(folder + "/device/power1_oem_info")
        for folder in folders
    ]
    for place, (folder, label) in enumerate(zip(folders, labels)):  # noqa: B905
        power = _power_file(folder, "power1")
        if power is None:
            continue
        if label is None:
            domain = "system" if len(folders) == 1 else "rail-power-meter-%d" % place
        elif label.startswith("Grace Power Socket"):
            domain = "package"
        elif label.startswith("Module Power"):
            domain = "system"
        else:
            domain = "rail-" + re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
        yield _column(domain, power[0], "power_meter", label or str(place)), _file(power[1])


class Hwmon(Meter):
    """The kernel's hardware monitors; those that this user may read when it is made."""

    kind = "hwmon"
    files = ("hwmon.csv",)

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        super().__init__(gpus)
        found = [*_amd_cpus(), *_amd_gpus(self.gpus), *_jetson(), *_acpi()]
        self._sources: Sources = {name: read for name, read in found if read() is not None}

    def columns(self) -> list[str]:
        return list(self._sources)

    def row(self) -> list[Any]:
        return [read() for read in self._sources.values()]

    def counters(self) -> Json:
        energies = {n: read() for n, read in self._sources.items() if "/energy_uj/" in n}
        return {"hwmon_uj": energies} if energies else {}

    def prove(self, settings: MeterSpec, gpus: Sequence[str], folder: str) -> Json:
        del settings, gpus, folder
        before = self.row()
        time.sleep(_PROOF_S)
        alive = [
            name
            for name, first, last in zip(self._sources, before, self.row())  # noqa: B905
            if last is not None and (last != first if "/energy_uj/" in name else last > 0)
        ]
        counted = [name for name in alive if not name.startswith("rail-")]
        message = None
        if not self._sources:
            message = "no energy or power file of a known chip below /sys/class/hwmon can be read"
        elif not counted:
            message = "no hwmon file of a whole domain moves: %s" % ", ".join(self._sources)
        return {"ok": bool(counted), "columns": alive, "message": message}

    @classmethod
    def fixes(cls, settings: MeterSpec, error: str) -> list[str]:
        del settings, error
        return [
            "sudo chmod a+r /sys/class/hwmon/hwmon*/energy*_input; "
            "sudo modprobe -a amd_energy acpi_power_meter ina3221"
        ]

    @classmethod
    def owns(cls, gpu: str) -> bool:
        """GPUs of the driver amdgpu."""
        return AMD_GPU.fullmatch(gpu) is not None

    def container_options(self) -> list[str]:
        return ["--device", "/dev/kfd", "--device", "/dev/dri"] if self.gpus else []

    def environment(self) -> dict[str, str]:
        if not self.gpus:
            return {}
        return {"ROCR_VISIBLE_DEVICES": ",".join(gpu[len("amd-") :] for gpu in self.gpus)}


METERS = (Hwmon,)
