"""The meter ``nvml``: energy counters of NVIDIA GPUs.

``nvml.csv``: ``unix_s,mono_s`` and for each given GPU, *i* being its NVML index,
``gpu<i>_energy_mj`` (cumulative), ``gpu<i>_power_mw``, ``gpu<i>_util_pct``,
``gpu<i>_temperature_c``, ``gpu<i>_sm_clock_mhz``, ``gpu<i>_throttle`` (bit mask),
``gpu<i>_power_instant_mw``; then ``gpu<i>_foreign``, the number of processes on it that are not the trial's.
An empty cell: the driver does not report it.

``WATTBENCH_NVML`` names another NVML library.
"""

from __future__ import annotations

import re

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import read_bytes, read_text
from wattbench.worker.agent.meters import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import AttemptSpec, MeterSpec
    from wattbench.worker.agent.meters.nvml_library import Nvml


def open_library() -> Nvml | None:
    """NVML, or None where there is no driver; its bindings are imported only where GPUs matter."""
    from wattbench.worker.agent.meters.nvml_library import open_nvml

    return open_nvml()


#: The id of a container in the cgroups of its processes.
_CONTAINER = re.compile(r"[0-9a-f]{64}")


def foreign(pids: Sequence[int], runtime: str, folder: str) -> int:
    """How many of these processes are not the trial's; those that have ended are none.

    A process of the trial names the attempt's folder in its environment. Of a trial in a container, which
    has one, any process outside of containers is foreign, and so is every further container as one.

    Args:
        pids: of processes that compute on a GPU.
        runtime: the attempt's.
        folder: the attempt's.
    """
    if runtime == "docker":
        groups = [text for text in (read_text("/proc/%d/cgroup" % pid) for pid in pids) if text]
        containers = [_CONTAINER.search(text) for text in groups]
        bare = sum(1 for found in containers if found is None)
        return bare + max(0, len({found.group() for found in containers if found}) - 1)
    return sum(1 for pid in pids if _is_foreign(pid, folder))


def _is_foreign(pid: int, folder: str) -> bool:
    try:
        environment = read_bytes("/proc/%d/environ" % pid)
    except PermissionError:
        return True  # of another user
    except OSError:
        return False
    return bool(environment) and (
        "WATTBENCH_ATTEMPT=%s" % folder
    ).encode() not in environment.split(b"\0")


class NvmlMeter(Meter):
    """NVIDIA's own counters of the given GPUs."""

    kind = "nvml"
    files = ("nvml.csv",)

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        super().__init__(gpus)
        self._library = open_library() if self.gpus else None
        self._chosen = self._library.chosen(self.gpus) if self._library else []
        self.margin_s = limits.GPU_MARGIN_S if self._library else 0.0
        self._attempt: tuple[str, str] | None = None

    def begin(self, spec: AttemptSpec, folder: str) -> None:
        from wattbench.worker.agent.sysfs import sees_all_pids

        if sees_all_pids():
            self._attempt = str(spec["runtime"]), folder

    def _readings(self) -> list[Json]:
        return [self._library.readings(i) for i in self._chosen] if self._library else []

    def columns(self) -> list[str]:
        if not self._library:
            return []
        names = ["gpu%d_%s" % (i, field) for i in self._chosen for field in self._library.FIELDS]
        return names + ["gpu%d_foreign" % i for i in self._chosen if self._attempt]

    def row(self) -> list[Any]:
        values = [value for reading in self._readings() for value in reading.values()]
        return values + self._foreign()

    def _foreign(self) -> list[int | None]:
        if not self._library or not self._attempt:
            return []
        listed = map(self._library.process_ids, self._chosen)
        return [None if pids is None else foreign(pids, *self._attempt) for pids in listed]

    def period_s(self, interval_s: float, configured: bool) -> float:
        # Power that is sampled more seldom than its load swings says little: at the meter's pace.
        return interval_s if configured else min(1.0, max(0.1, interval_s))

    def counters(self) -> Json:
        if not self._library:
            return {}
        return {"nvml_mj": {str(i): self._library.energy_mj(i) for i in self._chosen}}

    def edge(self) -> Json:
        library = self._library
        if not library:
            return {"nvml": []}
        return {
            "nvml": [
                library.identity(i)
                | library.readings(i)
                | {"driver": library.driver(), "processes": library.processes(i)}
                for i in self._chosen
            ]
        }

    def settings(self) -> Json:
        library = self._library
        if not library:
            return {}
        return {
            "gpu[%d].%s" % (index, name): value
            for index in self._chosen
            for name, value in library.settings(index).items()
        }

    def idle_levels(self, mark: Any, seconds: float) -> Json:
        del mark, seconds
        if not self._library:
            return {}
        values = self._readings()
        heat = [v["temperature_c"] for v in values if v["temperature_c"] is not None]
        power = [v["power_mw"] for v in values if v["power_mw"] is not None]
        return {
            "gpu_temperature_c": max(heat) if heat else None,
            "gpu_power_w": sum(power) / 1000 if power else None,
        }

    def prove(self, settings: MeterSpec, gpus: Sequence[str], folder: str) -> Json:
        del settings, gpus, folder
        columns = [
            "gpu%d_%s" % (index, field)
            for index, reading in zip(self._chosen, self._readings())  # noqa: B905
            for field, value in reading.items()
            if field in ("energy_mj", "power_mw", "power_instant_mw") and value is not None
        ]
        message = None if columns else "NVML reports neither energy nor power of the host's gpus"
        return {"ok": bool(columns), "columns": columns, "message": message}

    def sensors(self) -> Json:
        return {"nvml": open_library() is not None}

    def devices(self) -> list[Json]:
        library = open_library()
        if library is None:
            return []
        return [
            library.identity(index)
            | library.readings(index)
            | {
                "driver": library.driver(),
                "memory_bytes": library.memory_bytes(index),
                "processes": library.processes(index),
            }
            for index in library.devices
        ]

    @classmethod
    def owns(cls, gpu: str) -> bool:
        """Any GPU that no other meter claims: UUIDs and indices of NVIDIA's have many forms."""
        del gpu
        return True

    @classmethod
    def preparation(cls) -> tuple[str, ...]:
        return ("nvidia",)

    def container_options(self) -> list[str]:
        if not self.gpus:
            return []
        # the value is a line of CSV: the quotes keep the commas of the list together
        return ["--gpus", '"device=%s"' % ",".join(self.gpus)]

    def environment(self) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


METERS = (NvmlMeter,)
