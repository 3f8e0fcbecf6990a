"""Bindings to NVML, the library of NVIDIA's driver, through ctypes."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wattbench.worker.agent.base import Json


#: nvmlComputeMode_t.
_COMPUTE_MODES = {
    0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process",
}  # fmt: skip


#: Room for the processes of one GPU.
_MOST_PROCESSES = 256


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [(n, ctypes.c_ulonglong) for n in ("total", "free", "used")]


class _Process(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_uint),
        ("memory_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class _FieldValue(ctypes.Structure):
    _fields_ = [
        ("field", ctypes.c_uint),
        ("scope", ctypes.c_uint),
        ("timestamp", ctypes.c_longlong),
        ("latency_us", ctypes.c_longlong),
        ("kind", ctypes.c_int),
        ("status", ctypes.c_int),
        ("value", ctypes.c_uint),  # of a union of 8 bytes
        ("_", ctypes.c_uint),
    ]


class Nvml:
    """What NVIDIA's driver reports, through ctypes; a reading that it refuses is None.

    ``power_mw`` is the mean of the last second on most GPUs since Ampere, ``power_instant_mw`` is not;
    drivers before 530 don't report it.

    Source: NVML API reference, device queries and field values.
    """

    FIELDS = (
        "energy_mj", "power_mw", "util_pct", "temperature_c", "sm_clock_mhz", "throttle",
        "power_instant_mw",
    )  # fmt: skip
    _SUCCESS, _INSUFFICIENT_SIZE = 0, 7
    _SENSOR_GPU, _CLOCK_SM, _CLOCK_MEMORY = 0, 1, 2
    _POWER_INSTANT, _UNSIGNED_INT = 186, 1

    def __init__(self) -> None:
        """Raises OSError where there is no driver."""
        name = os.environ.get("WATTBENCH_NVML") or "libnvidia-ml.so.1"
        self._lib = ctypes.CDLL(name)
        if self._lib.nvmlInit_v2() != self._SUCCESS:
            raise OSError("%s: NVML can't be initialised" % name)
        count = self._number(ctypes.c_uint, "nvmlDeviceGetCount_v2") or 0
        self.devices: dict[int, ctypes.c_void_p] = {}
        for index in range(int(count)):
            device = ctypes.c_void_p()
            if not self._lib.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
                self.devices[index] = device

    def _number(self, kind: Any, function: str, *arguments: Any) -> int | None:
        value = kind()
        try:
            rc = getattr(self._lib, function)(*arguments, ctypes.byref(value))
        except AttributeError:  # an older driver without this query
            return None
        return int(value.value) if rc == self._SUCCESS else None

    def _field(self, device: ctypes.c_void_p, field: int) -> int | None:
        asked = _FieldValue(field=field)
        try:
            rc = self._lib.nvmlDeviceGetFieldValues(device, 1, ctypes.byref(asked))
        except AttributeError:
            return None
        is_read = rc == asked.status == self._SUCCESS and asked.kind == self._UNSIGNED_INT
        return int(asked.value) if is_read else None

    def _string(self, function: str, *arguments: Any) -> str | None:
        buffer = ctypes.create_string_buffer(96)
        try:
            rc = getattr(self._lib, function)(*arguments, buffer, ctypes.c_uint(len(buffer)))
        except AttributeError:
            return None
        return buffer.value.decode(errors="replace") if rc == self._SUCCESS else None

    def driver(self) -> str | None:
        """The driver's version."""
        return self._string("nvmlSystemGetDriverVersion")

    def identity(self, index: int) -> Json:
        """What stays: index, uuid, name."""
        device = self.devices[index]
        uuid, name = (self._string("nvmlDeviceGet" + w, device) for w in ("UUID", "Name"))
        return {"index": index, "uuid": uuid, "name": name}

    def readings(self, index: int) -> Json:
        """What moves: :data:`FIELDS`."""
        device, use = self.devices[index], _Utilisation()
        rc = self._lib.nvmlDeviceGetUtilizationRates(device, ctypes.byref(use))
        clock = self._number(ctypes.c_uint, "nvmlDeviceGetClockInfo", device, self._CLOCK_SM)
        values = (
            self._number(ctypes.c_ulonglong, "nvmlDeviceGetTotalEnergyConsumption", device),
            self._number(ctypes.c_uint, "nvmlDeviceGetPowerUsage", device),
            int(use.gpu) if rc == self._SUCCESS else None,
            self._number(ctypes.c_uint, "nvmlDeviceGetTemperature", device, self._SENSOR_GPU),
            clock,
            self._number(ctypes.c_ulonglong, "nvmlDeviceGetCurrentClocksThrottleReasons", device),
            self._field(device, self._POWER_INSTANT),
        )
        return dict(zip(self.FIELDS, values))  # noqa: B905 (Python 3.10)

    def settings(self, index: int) -> Json:
        """What decides its power and speed; NVML has no query for locked clocks."""
        device = self.devices[index]
        limits_mw = (
            self._number(ctypes.c_uint, function, device)
            for function in (
                "nvmlDeviceGetPowerManagementLimit",
                "nvmlDeviceGetPowerManagementDefaultLimit",
                "nvmlDeviceGetEnforcedPowerLimit",
            )
        )
        limit_w, default_w, enforced_w = (None if mw is None else mw / 1000 for mw in limits_mw)
        sm, memory = (
            self._number(ctypes.c_uint, "nvmlDeviceGetApplicationsClock", device, clock)
            for clock in (self._CLOCK_SM, self._CLOCK_MEMORY)
        )
        persistence = self._number(ctypes.c_uint, "nvmlDeviceGetPersistenceMode", device)
        mode = self._number(ctypes.c_uint, "nvmlDeviceGetComputeMode", device)
        return {
            "power_limit_w": limit_w,
            "default_limit_w": default_w,
            "enforced_limit_w": enforced_w,
            "application_sm_mhz": sm,
            "application_memory_mhz": memory,
            "max_sm_mhz": self._number(
                ctypes.c_uint, "nvmlDeviceGetMaxClockInfo", device, self._CLOCK_SM
            ),
            "persistence": None if persistence is None else bool(persistence),
            "ecc": self._current("nvmlDeviceGetEccMode", device),
            "mig": self._current("nvmlDeviceGetMigMode", device),
            "compute_mode": None if mode is None else _COMPUTE_MODES.get(mode, str(mode)),
            "driver": self.driver(),
            "vbios": self._string("nvmlDeviceGetVbiosVersion", device),
        }

    def _current(self, function: str, device: ctypes.c_void_p) -> bool | None:
        """A switch whose query answers with the current and the pending state."""
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        try:
            query = getattr(self._lib, function)
        except AttributeError:
            return None
        rc = query(device, ctypes.byref(current), ctypes.byref(pending))
        return bool(current.value) if rc == self._SUCCESS else None

    def energy_mj(self, index: int) -> int | None:
        """The cumulative energy counter, mJ."""
        device = self.devices[index]
        return self._number(ctypes.c_ulonglong, "nvmlDeviceGetTotalEnergyConsumption", device)

    def memory_bytes(self, index: int) -> int | None:
        """The memory's size."""
        sizes = _Memory()
        rc = self._lib.nvmlDeviceGetMemoryInfo(self.devices[index], ctypes.byref(sizes))
        return int(sizes.total) if rc == self._SUCCESS else None

    def processes(self, index: int) -> int | None:
        """How many processes compute on it: with no room for a list, NVML gives the number."""
        for version in ("_v3", "_v2", ""):
            query = getattr(self._lib, "nvmlDeviceGetComputeRunningProcesses" + version, None)
            if query is not None:
                count = ctypes.c_uint(0)
                rc = query(self.devices[index], ctypes.byref(count), None)
                return int(count.value) if rc in (self._SUCCESS, self._INSUFFICIENT_SIZE) else None
        return None

    def process_ids(self, index: int) -> list[int] | None:
        """Pids of the processes that compute on it; None: the driver does not list them."""
        listed = (_Process * _MOST_PROCESSES)()
        count = ctypes.c_uint(_MOST_PROCESSES)
        for version in ("_v3", "_v2"):  # the first version's entries have another size
            query = getattr(self._lib, "nvmlDeviceGetComputeRunningProcesses" + version, None)
            if query is not None:
                rc = query(self.devices[index], ctypes.byref(count), listed)
                known = rc == self._SUCCESS
                return [int(p.pid) for p in listed[: count.value]] if known else None
        return None

    def chosen(self, gpus: Sequence[str]) -> list[int]:
        """Indices of the named GPUs: UUIDs or indices."""
        wanted = {str(g) for g in gpus}
        return [
            index
            for index in self.devices
            if str(index) in wanted or self.identity(index)["uuid"] in wanted
        ]


def open_nvml() -> Nvml | None:
    """NVML, or None where there is none."""
    try:
        return Nvml()
    except (OSError, AttributeError):
        return None
