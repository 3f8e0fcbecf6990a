#!/usr/bin/env python3
"""The part of wattbench that runs on a worker host: one file, Python 3.9 standard library, Linux.

``python3 agent.py VERB`` reads a JSON object on stdin and writes one on stdout: ``{"ok": true, …}``
or ``{"ok": false, "error": CODE, "message": …, "action": …}``, with exit code 0 where the agent
knows what is wrong. Nothing passes through a shell. docs/architecture.md has verbs, spool, report.

Beside the verbs: ``supervise DIR READY_FD`` is an attempt's supervisor, ``command DIR -- ARGV`` the
wrapper inside the meter, ``burner SECONDS`` the warm-up, ``burn --rounds N`` the control workload,
``hold`` what a meter runs around a pull until ``finish``, ``clock`` answers each line with the time,
``pipe SOCKET`` joins stdin and stdout with a Unix socket (how the controller reaches this host's
Docker).

How an attempt lives and ends:

* ``start`` renames a complete folder into place, so that it exists whole or not at all. The
  supervisor it leaves behind holds a flock on ``supervisor.lock`` all its life: who wants to know
  whether the attempt is over takes the shared lock, ``wait`` by sleeping in the kernel. Locks end
  with their process, so a killed supervisor or a reboot shows at once; whoever finds a folder with
  neither lock nor report *settles* it: ends what was left running and reports it as ``lost``.
* A pid alone names nobody. Processes are ended only if their session and start time (field 22 of
  ``/proc/PID/stat``) or their ``WATTBENCH_ATTEMPT`` variable say that they are the attempt's.
* Boots are told apart by boot_id and the start time of process 1: in a container the boot_id is the
  machine's and survives a restart, the start time does not.

Our own meters, one header line each, readings taken just after the stamps:

* ``powercap.csv``: ``unix_s,mono_s`` and one column a readable zone, named like its folder
  (``intel-rapl:0``, ``intel-rapl:0:1``): the cumulative counter in µJ. Names and ranges are in the
  report's ``edges``. Sampled often enough that no counter can wrap unseen at 500 W.
* ``nvml.csv``: ``unix_s,mono_s`` and for each given GPU, *i* being its NVML index,
  ``gpu<i>_energy_mj`` (cumulative), ``gpu<i>_power_mw``, ``gpu<i>_util_pct``,
  ``gpu<i>_temperature_c``, ``gpu<i>_sm_clock_mhz``, ``gpu<i>_throttle`` (bit mask),
  ``gpu<i>_power_instant_mw``. An empty cell: the driver did not tell.

``WATTBENCH_SYSROOT`` is put before every path below /proc and /sys that tells about the platform
(never before those that tell about processes); ``WATTBENCH_NVML`` names another NVML library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import platform
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn

Json = dict[str, Any]

SCHEMA = 1
DEFAULT_SPOOL = "/var/spool/wattbench"
#: From the end of an attempt's timeout until its report: stopping, inspecting and removing, s.
SETTLE_S = 120.0
#: The lease outlives the attempt's deadline by this much, so that nobody else comes first, s.
LEASE_MARGIN_S = 300.0
#: How long a meter may take to end by itself once its workload was stopped, s (plus an interval).
GRACE_S = 10.0
#: How long an unreachable Docker daemon is waited for; a restarting one answers after some 12 s.
DOCKER_PATIENCE_S = 40.0
#: How long the supervisor waits for a ``wait`` to arrive before it opens the window, s.
LEAD_S = 3.0
#: How long GPUs are sampled before and after the window: their counters move every 100 ms.
GPU_MARGIN_S = 0.25
#: Set aside so that the report can be written on a disk that became full, bytes.
RESERVE_BYTES = 1 << 20
#: A machine draws less than this through one counter: the bound behind the sampling period, W.
MAX_ZONE_W = 500.0
#: How long a container may take until its workload speaks, s.
PROBE_S = 60.0
#: How long an attempt that only holds may take until it can be told to end, s.
FINISH_S = 30.0
#: The load above which an idle host is called busy, %.
BUSY_PCT = 10.0

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class AgentError(Exception):
    """A refusal that the caller can act on."""

    def __init__(self, code: str, message: str, action: str = "", **details: Any) -> None:
        super().__init__(message)
        self.answer: Json = {
            "ok": False, "error": code, "message": message, "action": action, **details,
        }  # fmt: skip


# -------------------------------------------------------------------------------- files and clocks


def rooted(path: str) -> str:
    """A platform path, below ``WATTBENCH_SYSROOT`` if set."""
    return os.environ.get("WATTBENCH_SYSROOT", "") + path


def read_text(path: str) -> str | None:
    """A small file's text without surrounding blanks; None if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def read_int(path: str) -> int | None:
    """A file that holds one whole number; None if it can't be read or holds something else."""
    text = read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def read_json(path: str) -> Json | None:
    """A JSON object; None if the file is absent or torn."""
    text = read_text(path)
    try:
        data = json.loads(text) if text else None
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def write_bytes(path: str, data: bytes, sync: bool = True) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    temporary = "%s.tmp%d" % (path, os.getpid())
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: str, data: Json, sync: bool = True) -> None:
    """Write a JSON object whole or not at all."""
    write_bytes(path, json.dumps(data).encode() + b"\n", sync)


def sha256_of(path: str) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def stamp() -> Json:
    """This moment on both clocks, s. CLOCK_MONOTONIC is the machine's, in containers too."""
    return {"unix_s": time.time(), "mono_s": time.monotonic()}


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold an exclusive flock."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --------------------------------------------------------------------------------------- processes


def boot_mark() -> str:
    """Names this boot of the host, also where the host is a container."""
    boot_id = read_text(rooted("/proc/sys/kernel/random/boot_id")) or "unknown"
    init = _stat_fields(rooted("/proc/1/stat"))
    return "%s/%s" % (boot_id, init[19] if init else "unknown")


def _stat_fields(path: str) -> list[str] | None:
    """Fields 3… of a stat file (the name before them may hold anything)."""
    text = read_text(path)
    return text[text.rfind(")") + 1 :].split() if text else None


def process_mark(pid: int) -> Json:
    """What tells a process from a later one with the same pid."""
    fields = _stat_fields("/proc/%d/stat" % pid)
    return {"pid": pid, "start_ticks": int(fields[19]) if fields else None, "boot": boot_mark()}


def processes_of(mark: Json | None, folder: str | None) -> list[int]:
    """Living processes of a session that ``mark`` leads or led, or with the variable of an attempt.

    It names the attempt's folder: ids are unique in one spool only, and a machine may have several.
    Pids 0 and 1 and the caller are never among them.
    """
    needle = ("WATTBENCH_ATTEMPT=%s" % folder).encode() if folder else None
    led = mark is not None and mark.get("start_ticks") and mark.get("boot") == boot_mark()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (0, 1, os.getpid()):
            continue
        fields = _stat_fields("/proc/%s/stat" % name)
        if not fields or fields[0] == "Z":
            continue
        pid, session, ticks = int(name), int(fields[3]), int(fields[19])
        if led and mark is not None and session == mark["pid"] and ticks >= mark["start_ticks"]:
            if pid != session or ticks == mark["start_ticks"]:
                found.append(pid)
        elif needle and needle in (_environ(pid) or b"").split(b"\0"):
            found.append(pid)
    return found


def _environ(pid: int) -> bytes | None:
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return file.read()
    except OSError:
        return None


def is_alive(mark: Any) -> bool:
    """Whether the very process that a mark names still runs."""
    if not mark or not mark.get("start_ticks") or mark.get("boot") != boot_mark():
        return False
    fields = _stat_fields("/proc/%d/stat" % mark["pid"])
    return fields is not None and fields[0] != "Z" and int(fields[19]) == mark["start_ticks"]


def send_signal(pids: Iterable[int], number: int) -> None:
    """Signal processes; those that are gone or not ours are passed over."""
    for pid in pids:
        if pid > 1:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def end_processes(mark: Json | None, folder: str | None, grace_s: float = 3.0) -> list[int]:
    """TERM, then KILL after ``grace_s``, until none is left.

    Returns:
        The pids that were running.
    """
    first = remaining = processes_of(mark, folder)
    number, deadline = signal.SIGTERM, time.monotonic() + grace_s
    while remaining and time.monotonic() < deadline + 5:
        send_signal(remaining, number)
        time.sleep(0.05)
        if time.monotonic() >= deadline:
            number = signal.SIGKILL
        remaining = processes_of(mark, folder)
    return first


# ------------------------------------------------------------------------------- platform readings


def virtualisation() -> str | None:
    """``container``, ``vm`` or None (a machine of its own)."""
    if os.path.exists(rooted("/.dockerenv")) or os.path.exists(rooted("/run/.containerenv")):
        return "container"
    if re.search(r"docker|lxc|kubepods|containerd", read_text(rooted("/proc/1/cgroup")) or ""):
        return "container"
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", _cpuinfo(), re.MULTILINE)
    return "vm" if flags else None


def is_container() -> bool:
    """Whether /proc/stat and its like show more than this host."""
    return virtualisation() == "container"


def _cpuinfo() -> str:
    return read_text(rooted("/proc/cpuinfo")) or ""


def usable_cores() -> int:
    """Logical CPUs that this host may use."""
    return len(os.sched_getaffinity(0))


def _cgroup_cpu_ns(folder: str) -> int | None:
    """CPU time used in a cgroup and all below it, living or dead, ns."""
    usage = read_int(folder + "/cpuacct.usage")
    if usage is None:
        match = re.search(r"^usage_usec (\d+)", read_text(folder + "/cpu.stat") or "", re.MULTILINE)
        usage = int(match.group(1)) * 1000 if match else None
    return usage


def _cgroup_roots() -> list[str]:
    tree = rooted("/sys/fs/cgroup")
    return [tree + "/cpuacct", tree + "/cpu,cpuacct", tree]


def host_cpu_ns() -> int | None:
    """CPU time the host has used, ns: the whole machine's, or in a container its own cgroup's."""
    if is_container():
        readings = (_cgroup_cpu_ns(root) for root in _cgroup_roots())
        return next((ns for ns in readings if ns is not None), None)
    match = re.search(r"^cpu +(.*)", read_text(rooted("/proc/stat")) or "", re.MULTILINE)
    if not match:
        return None
    # user nice system idle iowait irq softirq steal; guests are inside user and nice
    ticks = [int(t) for t in match.group(1).split()[:8]]
    return (sum(ticks) - sum(ticks[3:5])) * (10**9 // os.sysconf("SC_CLK_TCK"))


class ContainerCpu:
    """CPU time of this host's containers.

    With the cgroupfs driver their common parent keeps the dead ones' time. systemd's scopes vanish
    with their container, so the last reading of each is kept: it lags by up to a sampling period.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def needs_sampling(self) -> bool:
        """Whether :meth:`read` misses what ended since its last call."""
        return any(os.path.isdir(root + "/system.slice") for root in _cgroup_roots())

    def read(self) -> int | None:
        """Time so far, ns; None where no container's cgroup can be seen (or none has run yet)."""
        for root in _cgroup_roots():
            usage = _cgroup_cpu_ns(root + "/docker")
            if usage is not None:
                return usage
            for folder in glob.glob(root + "/system.slice/docker-*.scope"):
                usage = _cgroup_cpu_ns(folder)
                if usage is not None:
                    self._seen[folder] = usage
        return sum(self._seen.values()) if self._seen else None


def own_cpu_ns() -> int:
    """CPU time of this process and of its ended children, ns."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(sum(u.ru_utime + u.ru_stime for u in uses) * 1e9)


def memory() -> Json:
    """``total_bytes`` and ``available_bytes``, of the own cgroup where that is less."""
    text = read_text(rooted("/proc/meminfo")) or ""
    kib = {m.group(1): int(m.group(2)) for m in re.finditer(r"^(\w+):\s+(\d+) kB", text, re.M)}
    total = kib["MemTotal"] * 1024 if "MemTotal" in kib else None
    available = kib["MemAvailable"] * 1024 if "MemAvailable" in kib else None
    if is_container():
        tree = rooted("/sys/fs/cgroup")
        for folder, limit_file, usage_file in (
            (tree + "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            (tree, "memory.max", "memory.current"),
        ):
            limit = read_int("%s/%s" % (folder, limit_file))
            usage = read_int("%s/%s" % (folder, usage_file))
            if limit is not None and usage is not None and (total is None or limit < total):
                # the page cache counts as used there, and can be taken back
                stat = read_text(folder + "/memory.stat") or ""
                cache = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
                total, available = limit, limit - usage + (int(cache.group(1)) if cache else 0)
    return {"total_bytes": total, "available_bytes": available}


def swap() -> Json:
    """Pages swapped since boot; the kernel's, so in a container the whole machine's."""
    text = read_text(rooted("/proc/vmstat")) or ""
    return {
        m.group(1): int(m.group(2)) for m in re.finditer(r"^(pswpin|pswpout) (\d+)", text, re.M)
    }


def throttle_counts() -> Json:
    """Thermal throttle events since boot, summed over CPUs; empty where the CPU does not count."""
    counts: Json = {}
    pattern = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
    for path in glob.glob(rooted(pattern)):
        value = read_int(path)
        if value is not None:
            key = os.path.basename(path)[: -len("_throttle_count")]
            counts[key] = counts.get(key, 0) + value
    return counts


def quota_throttles() -> Json:
    """How often this virtual host was held back by its own cgroup's CPU quota; empty on a machine."""
    for folder in ("/cpu", "/cpu,cpuacct", "") if is_container() else ():
        text = read_text(rooted("/sys/fs/cgroup%s/cpu.stat" % folder)) or ""
        match = re.search(r"^nr_throttled (\d+)", text, re.MULTILINE)
        if match:
            return {"cpu_quota": int(match.group(1))}
    return {}


def frequency_khz() -> float | None:
    """Mean current frequency of the CPUs, kHz."""
    pattern = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
    values = [v for v in map(read_int, glob.glob(rooted(pattern))) if v is not None]
    return sum(values) / len(values) if values else None


def temperature_c() -> float | None:
    """The hottest CPU sensor, °C; without one the hottest thermal zone."""
    cpu = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
    paths = [
        path
        for folder in glob.glob(rooted("/sys/class/hwmon/hwmon*"))
        if read_text(folder + "/name") in cpu
        for path in glob.glob(folder + "/temp*_input")
    ] or glob.glob(rooted("/sys/class/thermal/thermal_zone*/temp"))
    values = [v for v in map(read_int, paths) if v is not None]
    return max(values) / 1000 if values else None


def powercap() -> Json:
    """Every RAPL zone and subzone: ``{zone: {name, energy_uj or None, max_energy_range_uj}}``."""
    zones: Json = {}
    for folder in sorted(glob.glob(rooted("/sys/class/powercap/intel-rapl:*"))):
        zones[os.path.basename(folder)] = {
            "name": read_text(folder + "/name"),
            "energy_uj": read_int(folder + "/energy_uj"),
            "max_energy_range_uj": read_int(folder + "/max_energy_range_uj"),
        }
    return zones


def powercap_energies(zones: Iterable[str]) -> list[int | None]:
    """The zones' counters now, µJ."""
    return [read_int(rooted("/sys/class/powercap/%s/energy_uj" % zone)) for zone in zones]


def readable_zones() -> Json:
    """The RAPL zones whose counter can be read by this user."""
    return {zone: facts for zone, facts in powercap().items() if facts["energy_uj"] is not None}


def powercap_power_w(before: Json, after: Json, seconds: float) -> float | None:
    """Mean power of the packages between two :func:`powercap` readings, W; None where unknown."""
    total, known = 0.0, False
    for zone, first in before.items():
        last = after.get(zone, {}).get("energy_uj")
        if zone.count(":") == 1 and first["energy_uj"] is not None and last is not None:
            delta = last - first["energy_uj"]
            if delta < 0:
                delta += (first["max_energy_range_uj"] or 0) + 1
            total, known = total + delta / 1e6 / seconds, True
    return total if known else None


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [(n, ctypes.c_ulonglong) for n in ("total", "free", "used")]


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
    """What NVIDIA's driver tells, through ctypes; a reading that it refuses is None.

    ``power_mw`` is the mean of the last second on most GPUs since Ampere, ``power_instant_mw`` is not;
    drivers before 530 don't tell it.

    Source: NVML API reference, device queries and field values.
    """

    FIELDS = (
        "energy_mj", "power_mw", "util_pct", "temperature_c", "sm_clock_mhz", "throttle",
        "power_instant_mw",
    )  # fmt: skip
    _SUCCESS, _INSUFFICIENT_SIZE = 0, 7
    _SENSOR_GPU, _CLOCK_SM = 0, 1
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
        told = rc == asked.status == self._SUCCESS and asked.kind == self._UNSIGNED_INT
        return int(asked.value) if told else None

    def _string(self, function: str, *arguments: Any) -> str | None:
        buffer = ctypes.create_string_buffer(96)
        rc = getattr(self._lib, function)(*arguments, buffer, ctypes.c_uint(len(buffer)))
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
        """How many processes compute on it: with no room for a list, NVML tells the number."""
        for version in ("_v3", "_v2", ""):
            query = getattr(self._lib, "nvmlDeviceGetComputeRunningProcesses" + version, None)
            if query is not None:
                count = ctypes.c_uint(0)
                rc = query(self.devices[index], ctypes.byref(count), None)
                return int(count.value) if rc in (self._SUCCESS, self._INSUFFICIENT_SIZE) else None
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


# ------------------------------------------------------------------------------------------ Docker


class DockerError(Exception):
    """The docker client is absent, or its daemon does not answer."""


def docker(*arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run the docker client; the daemon's own refusals are in the result.

    Raises:
        DockerError: no client, no daemon, or no answer in time.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise DockerError("no docker command in %s" % os.environ.get("PATH")) from None
    except subprocess.TimeoutExpired:
        raise DockerError("docker %s: no answer in %g s" % (arguments[0], timeout_s)) from None
    if done.returncode and re.search(
        r"cannot connect to the docker daemon|permission denied.*docker|error during connect"
        r"|unexpected EOF",
        done.stderr,
        re.IGNORECASE | re.DOTALL,
    ):
        raise DockerError(" ".join(done.stderr.split()))
    return done


def patiently(work: Callable[[], Any], patience_s: float) -> Any:
    """Do something with Docker, again for a while if the daemon is away."""
    deadline, pause = time.monotonic() + patience_s, 1.0
    while True:
        try:
            return work()
        except DockerError:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 8.0)


def container_name(spec: Json) -> str:
    """The container's name: the attempt's."""
    words = ("wattbench", spec["run"], spec["host"], spec["trial"], spec["attempt"])
    return re.sub(r"[^A-Za-z0-9_.-]", "-", "-".join(str(w) for w in words))


def inspect(name: str) -> Json | None:
    """A container's state; None if there is none of that name."""
    done = docker("container", "inspect", name)
    if done.returncode:
        return None
    found = json.loads(done.stdout)
    return dict(found[0]) if found else None


def end_container(name: str) -> tuple[Json | None, bool]:
    """Stop a container if it still runs, keep what its daemon knows of it, remove it.

    Returns:
        The report's ``container`` (None: there was none) and whether it still ran.
    """
    state = inspect(name)
    if state is None:
        return None, False
    running = bool(state["State"].get("Running"))
    if running:
        docker("kill", name)
        docker("wait", name)
        state = inspect(name) or state
    remove_container(name)
    return _container_record(state), running


def remove_container(name: str) -> None:
    """Remove a container, running or not.

    Raises:
        DockerError: it is still there.
    """
    done = docker("rm", "-f", "-v", name)
    if done.returncode and "No such container" not in done.stderr:
        raise DockerError(" ".join(done.stderr.split()))


def _container_record(info: Json) -> Json:
    state = info["State"]
    return {
        "name": info["Name"].lstrip("/"),
        "id": info["Id"],
        "image_id": info["Image"],
        "exit_code": state.get("ExitCode"),
        "oom_killed": state.get("OOMKilled"),
        "started_at": state.get("StartedAt"),
        "finished_at": state.get("FinishedAt"),
        "error": state.get("Error") or None,
        "device_requests": info.get("HostConfig", {}).get("DeviceRequests"),
        "env": info.get("Config", {}).get("Env"),
    }


def labelled(**labels: str) -> list[str]:
    """Names of containers, in any state, that carry all of these ``wattbench.*`` labels."""
    filters = [
        word for k, v in labels.items() for word in ("--filter", "label=wattbench.%s=%s" % (k, v))
    ]
    done = docker("ps", "-a", "--format", "{{.Names}}", *filters)
    return done.stdout.split()


def docker_argv(spec: Json, spool: str) -> list[str]:
    """The ``docker run`` of an attempt: no pull, no network, no --rm (its state is read first)."""
    argv = ["docker", "run", "--pull", "never", "--name", container_name(spec)]
    labels = {k: spec[k] for k in ("run", "host", "owner")}
    for key, value in (labels | {"attempt": spec["id"], "spool": spool}).items():
        argv += ["--label", "wattbench.%s=%s" % (key, value)]
    argv += ["--network", "none"]
    if spec.get("user"):
        argv += ["--user", spec["user"]]
    if spec.get("gpus"):
        # the value is a line of CSV: the quotes keep the commas of the list together
        argv += ["--gpus", '"device=%s"' % ",".join(str(g) for g in spec["gpus"])]
    for key, value in sorted((spec.get("env") or {}).items()):
        argv += ["-e", "%s=%s" % (key, value)]
    if spec.get("entrypoint"):
        argv += ["--entrypoint", spec["entrypoint"]]
    return [*argv, spec["image"]["ref"], *spec["command"]]


def workload_argv(spec: Json, spool: str) -> list[str]:
    """What the wrapper runs: ``docker run …``, the command itself, or one of our own."""
    if spec["runtime"] == "docker":
        return docker_argv(spec, spool)
    if (spec["kind"], *spec["command"][:1]) in (("control", "burn"), ("pull", "hold")):
        return [sys.executable, os.path.abspath(__file__), *spec["command"]]
    return [*([spec["entrypoint"]] if spec.get("entrypoint") else []), *spec["command"]]


# ------------------------------------------------------------------------------------------ meters


def meter_command(meter: Json) -> list[str]:
    """The meter's program: a list, a path, or a line of words."""
    command = meter.get("command") or ""
    if isinstance(command, list):
        return [str(word) for word in command]
    return [command] if os.path.exists(command) or " " not in command else shlex.split(command)


def uses_program(meter: Json) -> bool:
    """Whether joules come from a program with EnergiBridge's interface."""
    return meter["kind"] in ("energibridge", "modelled")


def meter_argv(meter: Json, gpus: Sequence[str], csv: str, output: str) -> list[str]:
    """The meter's own part of the command line, up to and without ``--``."""
    argv = [*meter_command(meter), "-o", csv, "-c", output, "-i", str(int(meter["interval_ms"]))]
    return argv + (["-g"] if gpus else [])


def attempt_argv(spec: Json, folder: str, spool: str) -> list[str]:
    """The whole command line: meter, wrapper, workload."""
    wrapper = [sys.executable, os.path.abspath(__file__), "command", folder, "--"]
    argv = wrapper + workload_argv(spec, spool)
    if not uses_program(spec["meter"]):
        return argv
    csv, output = os.path.join(folder, "energibridge.csv"), os.path.join(folder, "stdout.log")
    return [*meter_argv(spec["meter"], spec["gpus"], csv, output), "--", *argv]


class Sampler(threading.Thread):
    """Writes one CSV row at once, one every period, and one at the end."""

    def __init__(
        self, path: str, columns: list[str], read: Callable[[], list[Any]], period_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._file = open(path, "w", encoding="utf-8")
        self._read, self._period_s = read, period_s
        self._over = threading.Event()
        self.error: str | None = None
        self._file.write(",".join(["unix_s", "mono_s", *columns]) + "\n")
        self._row()

    def _row(self) -> None:
        now = stamp()
        cells = ["%.6f" % now["unix_s"], "%.6f" % now["mono_s"]]
        cells += ["" if value is None else str(value) for value in self._read()]
        self._file.write(",".join(cells) + "\n")
        self._file.flush()

    def run(self) -> None:
        """Sample until :meth:`finish`."""
        try:
            while not self._over.wait(self._period_s):
                self._row()
            self._row()
        except OSError as error:
            self.error = str(error)

    def finish(self) -> None:
        """Take the last row and close the file."""
        self._over.set()
        self.join(10)
        with contextlib.suppress(OSError):
            self._file.close()


def start_samplers(
    spec: Json, folder: str, nvml: Nvml | None, containers: ContainerCpu
) -> list[Sampler]:
    """Our own meters, as far as this host has them."""
    interval_s, kind = spec["meter"]["interval_ms"] / 1000, spec["meter"]["kind"]
    samplers = []
    zones = readable_zones()
    if zones:
        ranges = [z["max_energy_range_uj"] for z in zones.values() if z["max_energy_range_uj"]]
        period = min([10.0] + [r / 1e6 / (4 * MAX_ZONE_W) for r in ranges])
        period = min(period, interval_s) if kind == "powercap" else period
        path = os.path.join(folder, "powercap.csv")
        samplers.append(Sampler(path, list(zones), lambda: powercap_energies(zones), period))
    gpus = nvml.chosen(spec["gpus"]) if nvml else []
    if nvml and gpus:
        meter = nvml
        columns = ["gpu%d_%s" % (index, field) for index in gpus for field in Nvml.FIELDS]
        path = os.path.join(folder, "nvml.csv")
        # Power that is sampled more seldom than its load swings says little: at the meter's pace.
        period = interval_s if kind == "nvml" else min(1.0, max(0.1, interval_s))
        samplers.append(
            Sampler(
                path, columns, lambda: [v for i in gpus for v in meter.readings(i).values()], period
            )
        )
    if spec["runtime"] == "docker" and containers.needs_sampling():
        samplers.append(Sampler(os.devnull, [], lambda: [containers.read()], 1.0))
    for sampler in samplers:
        sampler.start()
    return samplers


def counters(nvml: Nvml | None, gpus: Sequence[int], zones: Iterable[str]) -> Json:
    """Energy counters for one edge of the window."""
    zones = list(zones)
    reading: Json = {"powercap_uj": dict(zip(zones, powercap_energies(zones)))}  # noqa: B905
    if nvml:
        reading["nvml_mj"] = {str(index): nvml.energy_mj(index) for index in gpus}
    return reading


def edges(spec: Json, nvml: Nvml | None, containers: ContainerCpu, over: bool) -> Json:
    """The platform's state outside the window, cheap to read."""
    gpus = nvml.chosen(spec["gpus"]) if nvml else []
    host_ns = host_cpu_ns()
    # before the first container of a host there is no cgroup of theirs to read
    trial_ns = containers.read() if spec["runtime"] == "docker" else 0
    trial_ns = 0 if trial_ns is None and not over else trial_ns
    known = host_ns is not None and trial_ns is not None
    return {
        **stamp(),
        "powercap": powercap(),
        "nvml": [
            nvml.identity(i) | nvml.readings(i) | {"processes": nvml.processes(i)} for i in gpus
        ] if nvml else [],
        "throttle": throttle_counts() | quota_throttles(),
        "swap": swap(),
        "memory_available_bytes": memory()["available_bytes"],
        "load": None if is_container() else list(os.getloadavg()),
        "cgroup_cpu_ns": host_ns,
        "cpu_busy_ns": (host_ns or 0) - (trial_ns or 0) - own_cpu_ns() if known else None,
        "frequency_khz": frequency_khz(),
        "temperature_c": temperature_c(),
    }  # fmt: skip


# -------------------------------------------------------------------------------- inside the meter


def command(folder: str, argv: list[str]) -> int:
    """Run the workload and mark both edges of the window, with the energy counters there.

    Returns:
        The workload's exit code; 128 + n if signal n ended it (meters panic over a killed child).
    """
    path = os.path.join(folder, "command.json")
    spec = read_json(os.path.join(folder, "spec.json")) or {}
    nvml = open_nvml() if spec.get("gpus") else None
    gpus = nvml.chosen(spec["gpus"]) if nvml else []
    zones = list(readable_zones())
    record: Json = {"ended": None, "rc": None, "argv": argv, "process": process_mark(os.getpid())}
    child: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for process in child:
            process.send_signal(number)
        if not child:
            sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    # stamped last before the start and first after the end: the window holds the workload only
    before = counters(nvml, gpus, zones)
    record["started"] = started = stamp()
    started.update(before)
    try:
        child.append(subprocess.Popen(argv))
    except OSError as error:
        print("wattbench: %s: %s" % (argv[0], error.strerror), file=sys.stderr)
        record["error"] = "%s: %s" % (argv[0], error.strerror)
        returncode = 127
    else:
        write_json(path, record, sync=False)
        returncode = child[0].wait()
    record["ended"] = ended = stamp()
    ended.update(counters(nvml, gpus, zones))
    record["rc"] = returncode if returncode >= 0 else 128 - returncode
    write_json(path, record)
    return int(record["rc"])


def burn(rounds: int) -> None:
    """The control workload: a fixed amount of SHA-256, told in the workload's JSON lines."""

    def tell(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **stamp(), **fields}), flush=True)

    tell("start", program="burn", framework="hashlib", precision="int")
    tell("device", requested="cpu", actual="cpu", name=platform.machine(), uuid=None)
    tell("versions", python=platform.python_version(), threads=1)
    block, digest = bytes(1 << 20), b""
    tell("phase", name="steady:burn", edge="begin")
    began = time.monotonic()
    for _ in range(rounds):
        digest = hashlib.sha256(digest + block).digest()
    duration_s = time.monotonic() - began
    tell("phase", name="steady:burn", edge="end")
    tell(
        "result", phase="steady:burn", resolution="burn", iterations=rounds, batch=1, images=rounds,
        duration_s=duration_s, fingerprint=list(digest[:8]),
    )  # fmt: skip
    tell("end", images=rounds)


def hold() -> None:
    """Sleep in the kernel until ``finish`` opens the other end of a fifo in the attempt's folder."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo("finish")
    os.close(os.open("finish", os.O_RDONLY))


# --------------------------------------------------------------------------------------- the spool


class Spool:
    """The agent's folder on this host."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        try:
            os.makedirs(os.path.join(self.root, "trials"), exist_ok=True)
        except OSError as error:
            raise AgentError(
                "spool",
                "%s can't be used: %s" % (self.root, error.strerror),
                "sudo install -d -o %s %s"
                % (os.environ.get("USER", "$USER"), shlex.quote(self.root)),
            ) from error

    def path(self, *names: str) -> str:
        """A path below the spool."""
        return os.path.join(self.root, *names)

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Held while the lease or an attempt changes hands."""
        return locked(self.path("lease.lock"))

    def lease(self) -> Json | None:
        """The lease as written."""
        return read_json(self.path("lease.json"))

    def attempts(self, run: str | None = None) -> list[Attempt]:
        """All attempts in the spool, in order of their folders."""
        folders = sorted(glob.glob(self.path("trials", glob.escape(run) if run else "*", "*", "*")))
        found = []
        for folder in folders:
            spec = read_json(os.path.join(folder, "spec.json"))
            if spec:
                found.append(Attempt(self, spec["id"]))
        return found


class Attempt:
    """One attempt's folder.

    Args:
        spool: the spool.
        attempt_id: ``run/host/nnn-image/attempt``.
    """

    RAW = (
        "energibridge.csv", "powercap.csv", "nvml.csv", "stdout.log", "stderr.log", "meter.log",
        "workload.jsonl", "command.json", "spec.json", "supervisor.log",
    )  # fmt: skip

    def __init__(self, spool: Spool, attempt_id: str) -> None:
        parts = attempt_id.split("/")
        if len(parts) != 4 or not all(_SAFE.fullmatch(part) for part in parts):
            raise AgentError(
                "bad-request", "attempt id %r is not run/host/nnn-image/attempt" % attempt_id
            )
        self.id, self.spool = attempt_id, spool
        self.folder = spool.path("trials", parts[0], parts[2], parts[3])

    def path(self, name: str) -> str:
        """A file of the attempt."""
        return os.path.join(self.folder, name)

    @property
    def spec(self) -> Json | None:
        """What ``start`` was given; None: there is no such attempt."""
        return read_json(self.path("spec.json"))

    @property
    def report(self) -> Json | None:
        """The report; None while the attempt runs."""
        return read_json(self.path("report.json"))

    def is_running(self) -> bool:
        """Whether a supervisor holds the attempt."""
        if not os.path.isdir(self.folder) or os.path.exists(self.path("report.json")):
            return False
        with open(self.path("supervisor.lock"), "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def settle(self) -> Json | None:
        """The report of an attempt that is over; a lost one is ended and reported first.

        Call it under the spool's guard: ``start`` holds that until the supervisor has its lock.

        Returns:
            The report; None while a supervisor works.
        """
        if not os.path.isdir(self.folder):
            return None
        report = self.report
        if report is not None or self.is_running():
            return report
        with open(self.path("supervisor.lock"), "a") as file:
            for _ in range(5):  # somebody else's glance at the lock lasts microseconds
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.02)
            else:
                return None
            return self.report or settle_lost(self)

    def note(self, verb: str) -> None:
        """Record that a call touched the attempt while it ran."""
        with contextlib.suppress(OSError), open(self.path("connections.jsonl"), "a") as file:
            file.write(json.dumps({"verb": verb, "unix_s": time.time()}) + "\n")

    def connections(self) -> list[Any]:
        """The calls recorded so far."""
        return json_lines(self.path("connections.jsonl"))

    def files(self) -> Json:
        """Raw files with size and SHA-256."""
        return {
            name: {"bytes": os.path.getsize(self.path(name)), "sha256": sha256_of(self.path(name))}
            for name in self.RAW
            if os.path.isfile(self.path(name))
        }


def json_lines(path: str) -> list[Any]:
    """The lines of a file that are JSON objects; whatever else is there is passed over."""
    found = []
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.lstrip().startswith("{"):
                with contextlib.suppress(ValueError):
                    value = json.loads(line)
                    found += [value] if isinstance(value, dict) else []
    return found


# ---------------------------------------------------------------------------------- the supervisor


class Supervisor:
    """Sees one attempt through: edges, meter, deadline, container, report."""

    def __init__(self, attempt: Attempt, spec: Json) -> None:
        self.attempt, self.spec = attempt, spec
        self.stopped: str | None = None  # why it was cut short: timeout or killed
        self.notes: list[str] = []
        self.outlived = False
        self.leftovers: list[str] = []
        self.container: Json | None = None
        self.meter: subprocess.Popen[bytes] | None = None
        self.session: Json | None = None
        self.command: Json | None = None
        self._wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, *_: object) -> None:
        self.stopped = self.stopped or "killed"

    @property
    def uses_docker(self) -> bool:
        """Whether the workload is a container."""
        return bool(self.spec["runtime"] == "docker")

    def run(self, attached: int) -> None:
        """The attempt from before its window to its report."""
        spec, boot = self.spec, boot_mark()
        nvml = open_nvml() if spec["gpus"] else None
        containers = ContainerCpu()
        if self.uses_docker:
            self._sweep()
        version = meter_version(spec["meter"])
        select.select([attached], [], [], float(spec.get("lead_s", LEAD_S)))
        before, offset = edges(spec, nvml, containers, False), unix_minus_mono()
        samplers = start_samplers(spec, self.attempt.folder, nvml, containers)
        margin_s = GPU_MARGIN_S if nvml else 0.0
        time.sleep(margin_s)
        self._measure()
        after = edges(spec, nvml, containers, True)
        time.sleep(margin_s)
        for sampler in samplers:
            sampler.finish()
            if sampler.error:
                self.notes.append("a sampler stopped: %s" % sampler.error)
        self._end()
        meter = {
            "argv": self.argv, "rc": self.meter.returncode if self.meter else None,
            "version": version, "stderr_tail": tail(self.attempt.path("stderr.log")),
            "outlived": self.outlived,
        }  # fmt: skip
        state, message = self._verdict()
        write_report(
            self.attempt,
            {
                "schema": SCHEMA, "id": self.attempt.id, "spec": spec, "state": state,
                "message": "; ".join([message, *self.notes]) if self.notes else message,
                "rc": (self.command or {}).get("rc"), "command": self.command,
                "container": self.container, "leftovers": self.leftovers, "meter": meter,
                "edges": {"before": before, "after": after},
                "clock": {
                    "unix_minus_mono_before": offset, "unix_minus_mono_after": unix_minus_mono(),
                },
                "boot": {"before": boot, "after": boot_mark()}, "rest": spec.get("rest"),
            },
        )  # fmt: skip

    def _sweep(self) -> None:
        """Remove containers that earlier attempts of this spool left, before the window opens."""
        try:
            for name in labelled(spool=self.attempt.spool.root):
                remove_container(name)
                self.leftovers.append(name)
        except DockerError as error:
            self.notes.append(str(error))

    def _measure(self) -> None:
        """Open the window and sleep until the meter has ended, was told to, or had its time."""
        attempt, spec = self.attempt, self.spec
        self.argv = attempt_argv(spec, attempt.folder, attempt.spool.root)
        environment = os.environ | {"WATTBENCH_ATTEMPT": attempt.folder}
        if not self.uses_docker:
            hidden = {"CUDA_VISIBLE_DEVICES": ",".join(str(g) for g in spec["gpus"])}
            environment = environment | hidden | (spec.get("env") or {})
        output = "meter.log" if uses_program(spec["meter"]) else "stdout.log"
        with open(attempt.path(output), "wb") as out, open(attempt.path("stderr.log"), "wb") as err:
            try:
                self.meter = subprocess.Popen(
                    self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
                    start_new_session=True, cwd=attempt.folder,
                )  # fmt: skip
            except OSError as error:
                self.notes.append("%s: %s" % (self.argv[0], error.strerror))
                return
        self.session = process_mark(self.meter.pid)
        supervisor = read_json(attempt.path("supervisor.json")) or {}
        write_json(attempt.path("supervisor.json"), supervisor | {"session": self.session}, False)
        if not self._sleep(float(spec["timeout_s"])) and not self.stopped:
            self.stopped = "timeout"

    def _sleep(self, seconds: float) -> bool:
        """Sleep until the meter has ended (True), SIGTERM came, or the time is over."""
        deadline = time.monotonic() + seconds
        while self.meter is not None and self.meter.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0 or (self.stopped == "killed"):
                return False
            if select.select([self._wake_r], [], [], left)[0]:
                os.read(self._wake_r, 512)
        return True

    def _end(self) -> None:
        """Stop what still runs, gently first: after its workload a meter writes its last row."""
        ran_on = self.meter is None or self.meter.poll() is not None
        if self.uses_docker:
            self._end_container(ran_on)
        elif self.stopped:
            mark: Any = (read_json(self.attempt.path("command.json")) or {}).get("process")
            if is_alive(mark):
                send_signal([mark["pid"]], signal.SIGTERM)
        if self.meter is not None:
            if self.stopped:
                self._wait_for_meter(GRACE_S + self.spec["meter"]["interval_ms"] / 1000)
            elif self.uses_docker and self.outlived:
                self._wait_for_command(GRACE_S)
            left = end_processes(self.session, self.attempt.folder)
            self.outlived = self.outlived or (bool(left) and not self.stopped)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.meter.wait(5)
        self.command = read_json(self.attempt.path("command.json"))

    def _end_container(self, meter_ended: bool) -> None:
        try:
            self.container, running = patiently(
                lambda: end_container(container_name(self.spec)), DOCKER_PATIENCE_S
            )
            self.outlived = running and meter_ended and not self.stopped
        except DockerError as error:
            self.notes.append("the container may be left behind (%s)" % error)

    def _wait_for_meter(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.meter is not None:
                self.meter.wait(seconds)

    def _wait_for_command(self, seconds: float) -> None:
        """Give the orphaned wrapper time to see its container's end and to write it down."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and processes_of(self.session, self.attempt.folder):
            time.sleep(0.05)

    def _verdict(self) -> tuple[str, str]:
        """State and message."""
        record, meter_rc = self.command, self.meter.returncode if self.meter else None
        if self.stopped == "timeout":
            return "timeout", "stopped after timeout_s = %g s" % self.spec["timeout_s"]
        if self.stopped:
            return "killed", "stopped by cleanup"
        if record is None:
            reason = complaint(self.attempt.path("stderr.log"))
            text = "the meter ended with %s before the workload started" % meter_rc
            return "failed", "%s: %s" % (text, reason) if reason else text
        if self.outlived or record["ended"] is None:
            reason = complaint(self.attempt.path("stderr.log"))
            text = "the meter ended with %s before its workload" % meter_rc
            return "failed", "%s: %s" % (text, reason) if reason else text
        if record["rc"]:
            reason = complaint(self.attempt.path("stderr.log"))
            text = "the workload ended with %s" % record["rc"]
            if self.container and self.container["oom_killed"]:
                text += ", killed for lack of memory"
            return "failed", "%s: %s" % (text, reason) if reason else text
        if meter_rc:
            reason = complaint(self.attempt.path("stderr.log"))
            return "failed", "the meter ended with %s: %s" % (
                meter_rc,
                reason or "it does not say why",
            )
        return "done", "done"


def unix_minus_mono() -> float:
    """How far the wall clock is ahead of the monotonic one, s: a step shows as a change."""
    before, unix, after = time.monotonic(), time.time(), time.monotonic()
    return unix - (before + after) / 2


def tail(path: str, size: int = 2000) -> str:
    """The end of a text file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - size))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def complaint(path: str) -> str:
    """The line that says why a meter failed: the panic's, else the last."""
    lines = [line.strip() for line in tail(path, 8000).splitlines() if line.strip()]
    noise = re.compile(r"'docker run --help'|^\[WARNING\]")
    lines = [line for line in lines if not noise.search(line)]
    for number, line in enumerate(lines):
        if "panicked at" in line:
            return " ".join(lines[number : number + 2])
    return lines[-1] if lines else ""


def meter_version(meter: Json) -> str | None:
    """What the meter's program calls itself."""
    if not uses_program(meter):
        return None
    try:
        done = subprocess.run(
            [*meter_command(meter), "--version"], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired, IndexError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines and not done.returncode else None


def write_report(attempt: Attempt, report: Json) -> None:
    """Write the report, last of all: its presence says that the attempt is over."""
    with contextlib.suppress(OSError):
        os.unlink(attempt.path("reserve"))
    try:
        lines = (json.dumps(line) + "\n" for line in json_lines(attempt.path("stdout.log")))
        write_bytes(attempt.path("workload.jsonl"), "".join(lines).encode())
    except OSError as error:
        report["message"] += "; workload.jsonl: %s" % error.strerror
    ended = (report.get("command") or {}).get("ended") or stamp()
    with contextlib.suppress(OSError):
        note_busy_until(attempt.spool, ended["mono_s"])
    report |= {"connections": attempt.connections(), "files": attempt.files()}
    write_json(attempt.path("report.json"), report)


def supervise(folder: str, ready_fd: int) -> None:
    """The supervisor's process: takes the lock, says so, sees the attempt through."""
    with open(os.path.join(folder, "supervisor.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(os.path.join(folder, "report.json")):
            return  # given up for lost while we were starting
        spec = read_json(os.path.join(folder, "spec.json"))
        if spec is None:
            return
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(folder))))
        attempt = Attempt(Spool(root), spec["id"])
        fifo = os.path.join(folder, "attached")
        os.mkfifo(fifo)
        attached = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        write_json(
            os.path.join(folder, "supervisor.json"),
            {"supervisor": process_mark(os.getpid()), **stamp()},
        )
        supervisor = Supervisor(attempt, spec)
        os.write(ready_fd, b"1")
        os.close(ready_fd)
        try:
            supervisor.run(attached)
        except Exception as error:  # noqa: BLE001 - our own defect must not leave a container running
            traceback.print_exc()
            settle_lost(attempt, "the supervisor failed: %r; see supervisor.log" % error)


def settle_lost(attempt: Attempt, message: str | None = None) -> Json:
    """End what an attempt without supervisor left running, and report it as lost."""
    spec = attempt.spec or {}
    supervisor = read_json(attempt.path("supervisor.json")) or {}
    boot = (supervisor.get("supervisor") or {}).get("boot")
    if message is None and boot is None:
        message = "the supervisor never started"
    elif message is None:
        message = "the supervisor was killed" if boot == boot_mark() else "the host restarted"
    container, outlived = None, False
    if spec.get("runtime") == "docker":
        try:
            container, outlived = end_container(container_name(spec))
        except DockerError as error:
            message += "; the container may be left behind (%s)" % error
    if end_processes(supervisor.get("session"), attempt.folder):
        outlived = True
    record = read_json(attempt.path("command.json"))
    report: Json = {
        "schema": SCHEMA, "id": attempt.id, "spec": spec, "state": "lost", "message": message,
        "rc": (record or {}).get("rc"), "command": record, "container": container, "leftovers": [],
        "meter": {
            "argv": None, "rc": None, "version": None,
            "stderr_tail": tail(attempt.path("stderr.log")), "outlived": outlived,
        },
        "edges": {"before": {}, "after": {}},
        "clock": {"unix_minus_mono_before": None, "unix_minus_mono_after": unix_minus_mono()},
        "boot": {"before": boot, "after": boot_mark()}, "rest": spec.get("rest"),
    }  # fmt: skip
    write_report(attempt, report)
    return report


# --------------------------------------------------------------------------------- verbs: attempts


def verb_start(spool: Spool, payload: Json) -> Json:
    """Start an attempt, or attach to it if it was started before."""
    spec = checked_spec(payload)
    attempt = Attempt(spool, spec["id"])
    with spool.guard():
        if os.path.isdir(attempt.folder):
            return _attach(attempt, spec)
        lease = holding(spool, spec["owner"])
        active = active_attempt(spool, lease)
        if active:
            raise AgentError(
                "busy", "%s is being measured" % active, "wait for it, or cleanup", active=active
            )
        free, needed = shutil.disk_usage(spool.root).free, int(spec.get("min_free_bytes") or 0)
        if free < max(needed, 4 * RESERVE_BYTES):
            raise AgentError(
                "disk-full",
                "%s has %.0f MB free, the attempt needs %.0f MB"
                % (spool.root, free / 1e6, max(needed, 4 * RESERVE_BYTES) / 1e6),
                "free space on the host",
                free_bytes=free,
            )
        stop_burner(spool)
        deadline_s = float(spec["timeout_s"]) + SETTLE_S
        lease["active"] = spec["id"]
        extend(lease, deadline_s + LEASE_MARGIN_S)
        _lay_out(attempt, spec, time.time() + deadline_s)
        write_json(spool.path("lease.json"), lease)
        attempt.note("start")
        _launch(attempt)
    if spec["kind"] == "pull":
        _until_held(attempt)
    return {
        "state": "started", "active": spec["id"], "path": attempt.folder,
        "deadline_unix_s": time.time() + deadline_s,
    }  # fmt: skip


def _until_held(attempt: Attempt) -> None:
    """Come back when the window is open, so that nothing of the pull lies before it."""
    deadline = time.monotonic() + FINISH_S
    while attempt.is_running() and time.monotonic() < deadline:
        if os.path.exists(attempt.path("finish")):
            return
        time.sleep(0.02)


def _attach(attempt: Attempt, spec: Json) -> Json:
    known = attempt.spec or {}
    if known.get("id") != spec["id"]:
        raise AgentError(
            "conflict", "%s holds the attempt %s" % (attempt.folder, known.get("id")),
            "give every host a spool of its own",
        )  # fmt: skip
    report = attempt.settle()
    answer: Json = {
        "state": "attached", "active": None if report else spec["id"], "over": report is not None,
        "path": attempt.folder, "deadline_unix_s": known.get("deadline_unix_s"),
    }  # fmt: skip
    return answer | ({"report": report} if report else {})


def checked_spec(payload: Json) -> Json:
    """The spec with its defaults; refuses what can't be run.

    Raises:
        AgentError: ``bad-request``.
    """
    spec = {k: v for k, v in payload.items() if k != "spool"}
    wanted = ("id", "run", "host", "trial", "attempt", "owner", "runtime", "meter", "timeout_s")
    missing = [key for key in wanted if key not in spec]
    if missing:
        raise AgentError("bad-request", "start: no %s in the spec" % ", ".join(missing))
    if spec["id"] != "%s/%s/%s/%s" % tuple(spec[k] for k in ("run", "host", "trial", "attempt")):
        raise AgentError("bad-request", "start: id %r is not run/host/trial/attempt" % spec["id"])
    if spec["runtime"] not in ("docker", "process", "none", "control"):
        raise AgentError("bad-request", "start: runtime %r is unknown" % spec["runtime"])
    if spec["meter"].get("kind") not in ("energibridge", "modelled", "powercap", "nvml"):
        raise AgentError(
            "bad-request", "start: meter kind %r is unknown" % spec["meter"].get("kind")
        )
    spec["meter"] = {"interval_ms": 200} | spec["meter"]
    spec["kind"] = spec.get("kind") or "workload"
    spec["gpus"] = [str(g) for g in spec.get("gpus") or []]
    spec["command"] = [str(word) for word in spec.get("command") or []]
    if spec["runtime"] == "docker" and not (spec.get("image") or {}).get("ref"):
        raise AgentError("bad-request", "start: runtime docker without image.ref")
    if spec["runtime"] != "docker" and not (spec["command"] or spec.get("entrypoint")):
        raise AgentError("bad-request", "start: runtime %s without a command" % spec["runtime"])
    if uses_program(spec["meter"]) and not meter_command(spec["meter"])[0]:
        raise AgentError("bad-request", "start: meter %s without a command" % spec["meter"]["kind"])
    return spec


def _lay_out(attempt: Attempt, spec: Json, deadline_unix_s: float) -> None:
    """Put the attempt's folder in place, complete, by one rename."""
    parent = os.path.dirname(attempt.folder)
    os.makedirs(parent, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".new-", dir=parent)
    try:
        os.chmod(draft, 0o755)  # noqa: S103 (a container's own user may look in)
        write_json(os.path.join(draft, "spec.json"), spec | {"deadline_unix_s": deadline_unix_s})
        with open(os.path.join(draft, "reserve"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        os.rename(draft, attempt.folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise AgentError(
            "disk-full" if error.errno == errno.ENOSPC else "spool",
            "%s: %s" % (parent, error.strerror),
            "free space on the host",
        ) from error


def _launch(attempt: Attempt) -> None:
    """Leave a supervisor behind, detached from this process, its session and its files."""
    ready_r, ready_w = os.pipe()
    with open(attempt.path("supervisor.log"), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "supervise", attempt.folder, str(ready_w)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[ready_w],
            start_new_session=True, cwd="/",
        )  # fmt: skip
    os.close(ready_w)
    ready = os.read(ready_r, 1)
    os.close(ready_r)
    if ready != b"1":
        process.wait()
        raise AgentError(
            "supervisor",
            "the supervisor did not start: %s" % complaint(attempt.path("supervisor.log")),
            "look at %s" % attempt.path("supervisor.log"),
        )
    process.returncode = 0  # not ours to wait for any more: it outlives this process


class _OverdueError(Exception):
    """The time of a ``wait`` is over."""


def verb_wait(spool: Spool, payload: Json) -> Json:
    """Sleep in the kernel until the attempt is over or the time is."""
    attempt = _known(spool, payload)
    deadline = time.monotonic() + float(payload.get("timeout_s", 3600))

    def expire(*_: object) -> NoReturn:
        raise _OverdueError

    signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001))
        while True:
            with contextlib.suppress(OSError):  # nobody listens: the window has long been open
                fifo = os.open(attempt.path("attached"), os.O_WRONLY | os.O_NONBLOCK)
                os.write(fifo, b"1")
                os.close(fifo)
            with open(attempt.path("supervisor.lock"), "a") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
            if os.path.exists(attempt.path("report.json")):
                break
            with spool.guard():
                if attempt.is_running():
                    continue
            break
    except _OverdueError:
        return {"over": False}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    with spool.guard():
        report = attempt.settle()
    return {"over": report is not None, "report": report, "path": attempt.folder}


def _known(spool: Spool, payload: Json) -> Attempt:
    attempt = Attempt(spool, str(payload.get("id", "")))
    if not os.path.isdir(attempt.folder):
        raise AgentError("unknown", "%s is not in %s" % (attempt.id, spool.root), "start it")
    return attempt


def verb_status(spool: Spool, payload: Json) -> Json:
    """How an attempt stands, or without ``id`` the lease's active one."""
    attempt_id = payload.get("id") or (spool.lease() or {}).get("active")
    if not attempt_id:
        return {"state": "unknown", "id": None}
    attempt = Attempt(spool, attempt_id)
    if not os.path.isdir(attempt.folder):
        return {"state": "unknown", "id": attempt_id}
    if attempt.is_running():
        return {"state": "running", "id": attempt_id, "path": attempt.folder}
    with spool.guard():
        report = attempt.settle()
    state = "over" if report else "running"
    return {"state": state, "id": attempt_id, "path": attempt.folder, "report": report}


def verb_finish(spool: Spool, payload: Json) -> Json:
    """Let an attempt that only holds end well; answers as ``wait``."""
    attempt = _known(spool, payload)
    deadline = time.monotonic() + float(payload.get("timeout_s", FINISH_S))
    while attempt.is_running() and time.monotonic() < deadline:
        try:
            os.close(os.open(attempt.path("finish"), os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody holds yet: the meter is still starting
            time.sleep(0.05)
        else:
            break
    left_s = max(deadline - time.monotonic(), 0.0)
    return verb_wait(spool, {"id": attempt.id, "timeout_s": left_s})


def verb_probe(spool: Spool, payload: Json) -> Json:
    """Start what a trial would start, until its workload speaks; nothing is measured.

    Raises:
        AgentError: ``entry-point``: it can't start, or what starts is not the workload.
    """
    spec = {k: v for k, v in payload.items() if k != "spool"}
    with spool.guard():
        active = active_attempt(spool, holding(spool, str(spec.get("owner"))))
    if active:
        raise AgentError("busy", "%s is being measured" % active, "wait for it", active=active)
    try:
        trouble = _first_words(docker_argv(spec, spool.root), spool)
        remove_container(container_name(spec))
    except (DockerError, OSError) as error:
        raise AgentError("docker", str(error), "check dockerd on the host") from error
    if trouble:
        raise AgentError(
            "entry-point", "its container %s" % trouble,
            "use an image whose entry point is the workload (docs/images.md), "
            "or say how it starts in the image's `command`",
        )  # fmt: skip
    return {"speaks": True}


def _first_words(argv: list[str], spool: Spool) -> str | None:
    """Read a command's output until the workload's first event; None, or what came instead."""
    said, overdue = "", threading.Event()
    with tempfile.NamedTemporaryFile(prefix=".probe-", dir=spool.root) as errors:
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process:

            def give_up() -> None:
                overdue.set()
                process.kill()

            timer = threading.Timer(PROBE_S, give_up)
            timer.start()
            try:
                while process.stdout and (line := process.stdout.readline(1 << 16)):
                    if _is_start(line):
                        process.kill()
                        return None
                    said = line.decode("utf-8", "replace").strip()[:200] or said
            finally:
                timer.cancel()
        said = complaint(errors.name) or said or "nothing"
    if overdue.is_set():
        return "was silent about any workload for %g s; it said: %s" % (PROBE_S, said)
    return "ended with %d before any workload spoke; it said: %s" % (process.returncode, said)


def _is_start(line: bytes) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and event.get("event") == "start"


def verb_list(spool: Spool, payload: Json) -> Json:
    """A run's attempts (without ``run``: all)."""
    listed = []
    for attempt in spool.attempts(_safe(payload, "run")):
        with spool.guard():
            report = attempt.settle()
        listed.append(
            {
                "id": attempt.id, "path": attempt.folder, "state": "over" if report else "running",
                "outcome": report["state"] if report else None,
                "files": attempt.files() if report else {},
            }
        )  # fmt: skip
    return {"attempts": listed}


def _safe(payload: Json, key: str) -> str | None:
    value = payload.get(key)
    if value is not None and not _SAFE.fullmatch(str(value)):
        raise AgentError("bad-request", "%s %r can't name a folder" % (key, value))
    return None if value is None else str(value)


def verb_forget(spool: Spool, payload: Json) -> Json:
    """Remove attempts that are over."""
    run = _safe(payload, "run")
    if not run and not payload.get("id"):
        raise AgentError("bad-request", "forget: neither id nor run")
    attempts = spool.attempts(run) if run else [Attempt(spool, payload["id"])]
    forgotten = []
    with spool.guard():
        for attempt in attempts:
            if not os.path.isdir(attempt.folder):
                continue
            if attempt.settle() is None:
                raise AgentError("busy", "%s is being measured" % attempt.id, "wait for it")
            trial = os.path.dirname(attempt.folder)
            bin_ = tempfile.mkdtemp(prefix=".forgotten-", dir=trial)
            os.rename(attempt.folder, os.path.join(bin_, "attempt"))
            shutil.rmtree(bin_, ignore_errors=True)
            for folder in (trial, os.path.dirname(trial)):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            forgotten.append(attempt.id)
    return {"forgotten": forgotten}


# ------------------------------------------------------------------------------------ verbs: lease


def extend(lease: Json, seconds: float) -> None:
    """Let a lease last at least this long from now, on both clocks."""
    now, boot = stamp(), boot_mark()
    if lease.get("boot") != boot:
        lease |= {"boot": boot, "expires_mono_s": 0.0}
    for clock in ("unix_s", "mono_s"):
        lease["expires_" + clock] = max(lease.get("expires_" + clock, 0.0), now[clock] + seconds)


def is_expired(lease: Json) -> bool:
    """By the monotonic clock, which nobody sets; across a restart by the wall clock."""
    clock = "mono_s" if lease.get("boot") == boot_mark() else "unix_s"
    return bool(stamp()[clock] >= lease["expires_" + clock])


def active_attempt(spool: Spool, lease: Json | None) -> str | None:
    """The lease's attempt if it still runs; one without supervisor is settled. Needs the guard."""
    if not lease or not lease.get("active"):
        return None
    attempt = Attempt(spool, lease["active"])
    if os.path.isdir(attempt.folder) and attempt.settle() is None:
        return attempt.id
    return None


def holding(spool: Spool, owner: str) -> Json:
    """The owner's lease.

    Raises:
        AgentError: ``leased`` by somebody else, or ``no-lease``.
    """
    lease = spool.lease()
    if lease is None or (lease["owner"] == owner and is_expired(lease)):
        raise AgentError("no-lease", "%s does not hold this host" % owner, "take the lease first")
    if lease["owner"] != owner:
        raise leased(lease)
    return lease


def leased(lease: Json) -> AgentError:
    """The refusal of a host that somebody else holds."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(lease["expires_unix_s"]))
    return AgentError(
        "leased", "the host is held by %s until %s" % (lease["owner"], until),
        "wait for it, or release it if that run is over",
        owner=lease["owner"], expires_unix_s=lease["expires_unix_s"], active=lease.get("active"),
    )  # fmt: skip


#: Run by the command's own interpreter: the distributions that it would import from.
LIST_PACKAGES = (
    "import importlib.metadata as m, json, platform\n"
    "found = {(d.metadata['Name'] or '').lower() + '==' + d.version for d in m.distributions()}\n"
    "print(json.dumps(['python==' + platform.python_version()] + sorted(found)))"
)


def verb_packages(_spool: Spool, payload: Json) -> Json:
    """The packages of a command's interpreter, and the SHA-256 that stands for them.

    Raises:
        AgentError: ``packages``: the command's first word is no Python that can be asked.
    """
    command = [str(word) for word in payload.get("command") or []]
    if not command:
        raise AgentError("bad-request", "packages: no command")
    try:
        done = subprocess.run(
            [command[0], "-c", LIST_PACKAGES], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=60, check=False, cwd="/",
            env=os.environ | {str(k): str(v) for k, v in (payload.get("env") or {}).items()},
        )  # fmt: skip
        listed = json.loads(done.stdout) if not done.returncode else None
        why = "it is no Python of 3.8 or later"
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        listed, why = None, getattr(error, "strerror", None) or str(error)
    if not isinstance(listed, list):
        raise AgentError(
            "packages", "%s can't tell its packages: %s" % (command[0], why),
            "install it on the host, or name its Python first in the image's command",
        )  # fmt: skip
    digest = hashlib.sha256("".join("%s\n" % line for line in listed).encode()).hexdigest()
    return {"packages": listed, "sha256": digest}


def verb_lease(spool: Spool, payload: Json) -> Json:
    """Take, release or show the lease."""
    action, owner = payload.get("action", "show"), payload.get("owner")
    if action not in ("take", "release", "show") or (action != "show" and not owner):
        raise AgentError("bad-request", "lease: action take or release with an owner, or show")
    with spool.guard():
        lease = spool.lease()
        active = active_attempt(spool, lease)
        if action == "take":
            return _take(spool, lease, active, str(owner), float(payload.get("ttl_s", 3600)))
        if action == "release" and lease and lease["owner"] == owner:
            if active:
                raise AgentError(
                    "busy", "%s is being measured" % active, "cleanup first", active=active
                )
            os.unlink(spool.path("lease.json"))
            lease = None
        return _lease_answer(lease, active)


def _lease_answer(lease: Json | None, active: str | None, reclaimed: Json | None = None) -> Json:
    known = lease or {}
    return {
        "held": bool(lease) and not is_expired(known), "owner": known.get("owner"),
        "expires_unix_s": known.get("expires_unix_s"), "active": active, "reclaimed": reclaimed,
    }  # fmt: skip


def _take(spool: Spool, lease: Json | None, active: str | None, owner: str, ttl_s: float) -> Json:
    reclaimed = None
    if lease and lease["owner"] != owner:
        if not is_expired(lease) or (active and not _is_overdue(spool, active)):
            raise leased(lease)
        reclaimed = {"owner": lease["owner"], **end_all(spool, lease["owner"], None)}
        lease, active = None, None
    if lease is None:
        lease = {"owner": owner, "taken": stamp() | {"boot": boot_mark()}}
    lease["active"] = active
    extend(lease, ttl_s)
    write_json(spool.path("lease.json"), lease)
    return _lease_answer(lease, active, reclaimed)


def _is_overdue(spool: Spool, attempt_id: str) -> bool:
    deadline = (Attempt(spool, attempt_id).spec or {}).get("deadline_unix_s", 0.0)
    return bool(time.time() > deadline)


def verb_cleanup(spool: Spool, payload: Json) -> Json:
    """End everything that belongs to an owner or a run."""
    owner, run = payload.get("owner"), _safe(payload, "run")
    if not owner and not run:
        raise AgentError("bad-request", "cleanup: neither owner nor run")
    with spool.guard():
        answer = end_all(spool, owner, run)
        lease = spool.lease()
        if lease and lease.get("active") in answer["attempts"]:
            lease["active"] = None
            write_json(spool.path("lease.json"), lease)
        return answer


def end_all(spool: Spool, owner: str | None, run: str | None) -> Json:
    """Supervisors with all they hold, containers by label, the burner. Needs the guard.

    Returns:
        ``attempts``, ``containers``, ``burner`` that were ended; ``docker``: why it didn't answer.
    """
    ended = []
    for attempt in spool.attempts(run):
        if owner and (attempt.spec or {}).get("owner") != owner:
            continue
        if attempt.report is None:
            _end_attempt(attempt)
            ended.append(attempt.id)
    containers: list[str] = []
    trouble = None
    labels = (
        {"spool": spool.root} | ({"owner": owner} if owner else {}) | ({"run": run} if run else {})
    )
    if shutil.which("docker"):
        try:
            containers = labelled(**labels)
            for name in containers:
                remove_container(name)
        except DockerError as error:
            trouble = str(error)
    burner = read_json(spool.path("warm.json"))
    burning = bool(burner and owner and burner["owner"] == owner and stop_burner(spool))
    return {"attempts": ended, "containers": containers, "burner": burning, "docker": trouble}


def _end_attempt(attempt: Attempt) -> None:
    """Ask the supervisor to stop; take over if it does not."""
    mark: Any = (read_json(attempt.path("supervisor.json")) or {}).get("supervisor")
    deadline = time.monotonic() + DOCKER_PATIENCE_S + GRACE_S
    if is_alive(mark):
        send_signal([mark["pid"]], signal.SIGTERM)
        while attempt.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if attempt.is_running():
            send_signal([mark["pid"]], signal.SIGKILL)
            while attempt.is_running() and time.monotonic() < deadline + 5:
                time.sleep(0.05)
    attempt.settle()


# ------------------------------------------------------------------------------ verbs: warm, quiet


def note_busy_until(spool: Spool, mono_s: float) -> None:
    """Remember when the host was last put to work by us."""
    write_json(spool.path("busy.json"), {"mono_s": mono_s, "boot": boot_mark()})


def rested_s(spool: Spool) -> float:
    """Since the last window's or burner's end, s; before the first since the lease was taken."""
    now, boot, lease = time.monotonic(), boot_mark(), spool.lease() or {}
    busy = read_json(spool.path("busy.json"))
    if busy and busy["boot"] == boot:
        return max(0.0, now - float(busy["mono_s"]))
    taken = lease.get("taken")
    return max(0.0, now - float(taken["mono_s"])) if taken and taken["boot"] == boot else 0.0


def stop_burner(spool: Spool) -> bool:
    """End the warm-up's burner; whether one was running."""
    burner = read_json(spool.path("warm.json"))
    if not burner or not end_processes(burner["process"], None, grace_s=1.0):
        return False
    elapsed = min(time.monotonic() - burner["started"]["mono_s"], burner["seconds"])
    write_json(spool.path("warm.json"), burner | {"elapsed_s": elapsed})
    note_busy_until(spool, time.monotonic())
    return True


def burner_state(spool: Spool) -> Json:
    """``running`` and ``elapsed_s`` of the last burner."""
    burner = read_json(spool.path("warm.json"))
    if not burner:
        return {"running": False, "elapsed_s": 0.0}
    running = is_alive(burner["process"])
    elapsed = burner.get("elapsed_s")
    if elapsed is None:
        gone = burner["process"]["boot"] != boot_mark()
        elapsed = 0.0 if gone else time.monotonic() - burner["started"]["mono_s"]
        elapsed = min(elapsed, burner["seconds"])
    return {"running": running, "elapsed_s": elapsed}


def verb_warm(spool: Spool, payload: Json) -> Json:
    """Start, stop or watch the burner that brings the host to working temperature."""
    action = payload.get("action", "status")
    if action not in ("start", "stop", "status"):
        raise AgentError("bad-request", "warm: action start, stop or status")
    with spool.guard():
        if action != "status":
            lease = holding(spool, str(payload.get("owner")))
            active = active_attempt(spool, lease)
            if active and action == "start":
                raise AgentError(
                    "busy", "%s is being measured" % active, "wait for it", active=active
                )
        if action == "stop":
            stop_burner(spool)
        if action == "start" and not _is_warmed(spool, payload):
            _start_burner(spool, str(payload["owner"]), float(payload.get("seconds", 60)))
    readings = sample(float(payload.get("sample_s", 0.5)), [])
    return burner_state(spool) | readings


def _is_warmed(spool: Spool, payload: Json) -> bool:
    """Whether the burner runs, or has done what this owner asks for: it may ask as often as it likes."""
    state, burner = burner_state(spool), read_json(spool.path("warm.json")) or {}
    same = burner.get("owner") == str(payload["owner"])
    stopped = "elapsed_s" in burner
    long_enough = state["elapsed_s"] >= float(payload.get("seconds", 60))
    return bool(state["running"] or (same and (stopped or long_enough)))


def _start_burner(spool: Spool, owner: str, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "burner", str(seconds)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd="/",
    )  # fmt: skip
    write_json(
        spool.path("warm.json"),
        {
            "owner": owner, "process": process_mark(process.pid), "started": stamp(),
            "seconds": seconds,
        },
    )  # fmt: skip
    note_busy_until(spool, time.monotonic() + seconds)
    process.returncode = 0  # it outlives this process


def burner(seconds: float) -> None:
    """Keep every usable core busy; the alarm ends each process whatever happens."""
    cores = sorted(os.sched_getaffinity(0))
    children = []
    for core in cores:
        pid = os.fork()
        if pid == 0:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {core})
            block = bytes(1 << 16)
            while True:
                block = hashlib.sha256(block).digest() * 2048
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


def sample(seconds: float, gpus: Sequence[str]) -> Json:
    """CPU load over a short while, temperature and power, each None where it can't be told."""
    zones, cpu, began = powercap(), host_cpu_ns(), time.monotonic()
    time.sleep(seconds)
    cpu_after, elapsed, zones_after = host_cpu_ns(), time.monotonic() - began, powercap()
    known = cpu is not None and cpu_after is not None
    cores = usable_cores() if is_container() else os.cpu_count() or 1
    readings: Json = {
        "cpu_pct": 100 * ((cpu_after or 0) - (cpu or 0)) / 1e9 / elapsed / cores if known else None,
        "temperature_c": temperature_c(),
        "power_w": powercap_power_w(zones, zones_after, elapsed),
    }
    nvml = open_nvml() if gpus else None
    if nvml:
        values = [nvml.readings(index) for index in nvml.chosen(gpus)]
        heat = [v["temperature_c"] for v in values if v["temperature_c"] is not None]
        power = [v["power_mw"] for v in values if v["power_mw"] is not None]
        readings["gpu_temperature_c"] = max(heat) if heat else None
        readings["gpu_power_w"] = sum(power) / 1000 if power else None
    return readings


def verb_quiet(spool: Spool, payload: Json) -> Json:
    """Whether the host has rested and is back at its idle level."""
    owner = str(payload.get("owner"))
    with spool.guard():
        active = active_attempt(spool, holding(spool, owner))
    rested = rested_s(spool)
    answer: Json = {
        "quiet": False, "rested_s": rested, "timed_out": False, "busy": bool(active),
        "readings": {},
    }  # fmt: skip
    if active:
        return answer | {"why": "%s is being measured" % active}
    if burner_state(spool)["running"]:
        return answer | {"why": "the warm-up is running"}
    min_s, max_s = float(payload.get("min_s") or 0), payload.get("max_s")
    if rested < min_s:
        return answer | {"why": "rested %.0f of %.0f s" % (rested, min_s)}
    readings = sample(float(payload.get("sample_s") or 1.0), payload.get("gpus") or [])
    reasons = unrest(readings, payload.get("idle") or {}, payload.get("tolerance") or {})
    rested = rested_s(spool)
    return answer | {
        "quiet": not reasons, "rested_s": rested, "readings": readings, "why": "; ".join(reasons),
        "timed_out": bool(reasons) and max_s is not None and rested >= float(max_s),
    }  # fmt: skip


def unrest(readings: Json, idle: Json, tolerance: Json) -> list[str]:
    """The readings above idle + tolerance; what either side does not know is passed over.

    ``gpu_temperature_c`` and ``gpu_power_w`` share the tolerances of their kind.
    """
    reasons = []
    for name, value in readings.items():
        kind = name[4:] if name.startswith("gpu_") else name
        if value is None or idle.get(name) is None or tolerance.get(kind) is None:
            continue
        if value > idle[name] + tolerance[kind]:
            words = (name, value, idle[name], tolerance[kind])
            reasons.append("%s is %.1f, idle is %.1f + %.1f" % words)
    return reasons


# ------------------------------------------------------------------------------------- verb: facts


def verb_facts(spool: Spool, payload: Json) -> Json:
    """What this host is, can measure, and what speaks against measuring on it."""
    gpus = [str(g) for g in payload.get("gpus") or []]
    meter = payload.get("meter")
    idle = sample(float(payload.get("sample_s") or 1.0), gpus)
    answer: Json = {
        "agent_sha256": sha256_of(os.path.abspath(__file__)),
        "host": host_facts(),
        "docker": docker_facts(),
        "clock_unix_s": time.time(),
        "clock": {"synchronised": clock_synchronised()},
        "cpu": cpu_facts(),
        "load": None if is_container() else list(os.getloadavg()),
        "disk_free_bytes": shutil.disk_usage(spool.root).free,
        "gpu": gpu_facts(),
        "sensors": sensor_facts(),
        "idle": idle,
        "meter": meter_facts(meter, gpus, spool) if meter else None,
    }
    wanted = {
        "docker": payload.get("docker", True), "meter": meter, "gpus": gpus, "spool": spool.root,
        "min_free_bytes": int(payload.get("min_free_bytes") or 1 << 30),
    }  # fmt: skip
    rows = preflight(answer, wanted)
    problems = [
        {key: row[key] for key in ("code", "severity", "message", "action")}
        for row in rows
        if row["severity"] in ("hard", "soft")
    ]
    return answer | {"probes": rows, "problems": problems}


def host_facts() -> Json:
    """The machine and its system."""
    info = _cpuinfo()
    model = re.search(r"^(?:model name|Model)\s*:\s*(.*)", info, re.MULTILINE)
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', read_text("/etc/os-release") or "", re.M)
    kind = virtualisation()
    return {
        "name": socket.gethostname(),
        "os": release.group(1) if release else None,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu_model": model.group(1).strip() if model else None,
        "sockets": len(set(re.findall(r"^physical id\s*:\s*(\d+)", info, re.MULTILINE))) or None,
        "cores": usable_cores(),
        "memory_bytes": memory()["total_bytes"],
        "virtual": kind is not None,
        "virtualisation": kind,
        "boot": boot_mark(),
        "python": platform.python_version(),
    }


def docker_facts() -> Json:
    """The daemon; ``ok`` false with ``message`` where it can't be asked."""
    try:
        done = docker("info", "--format", "{{json .}}")
        info = json.loads(done.stdout) if not done.returncode else {}
        if done.returncode or info.get("ServerErrors"):
            raise DockerError(" ".join((info.get("ServerErrors") or [done.stderr])[0].split()))
        lines = docker("ps", "--format", "{{json .}}").stdout.splitlines()
    except (DockerError, ValueError) as error:
        return {"ok": False, "message": str(error), "version": None, "root": None, "running": []}
    running = [json.loads(line) for line in lines]
    root = str(info.get("DockerRootDir"))
    try:
        free: int | None = shutil.disk_usage(root).free
    except OSError:
        free = None
    return {
        "ok": True, "message": None, "version": info.get("ServerVersion"), "root": root,
        "disk_free_bytes": free, "storage_driver": info.get("Driver"),
        "cgroup_driver": info.get("CgroupDriver"), "cgroup_version": info.get("CgroupVersion"),
        "runtimes": sorted(info.get("Runtimes") or {}),
        "running": [
            {"name": c.get("Names"), "image": c.get("Image"), "labels": c.get("Labels")}
            for c in running
        ],
    }  # fmt: skip


def cpu_facts() -> Json:
    """Governor, turbo and SMT; None where the platform does not tell."""
    base = rooted("/sys/devices/system/cpu")
    governors = {read_text(p) for p in glob.glob(base + "/cpu[0-9]*/cpufreq/scaling_governor")}
    turbo_off, boost = read_int(base + "/intel_pstate/no_turbo"), read_int(base + "/cpufreq/boost")
    turbo = None if turbo_off is None else not turbo_off
    if turbo is None and boost is not None:
        turbo = bool(boost)
    smt = read_int(base + "/smt/active")
    return {
        "governor": "/".join(sorted(g for g in governors if g)) or None,
        "turbo": turbo,
        "smt": None if smt is None else bool(smt),
    }


def gpu_facts() -> list[Json]:
    """Every NVIDIA GPU of this host."""
    nvml = open_nvml()
    if nvml is None:
        return []
    return [
        nvml.identity(index)
        | nvml.readings(index)
        | {
            "driver": nvml.driver(),
            "memory_bytes": nvml.memory_bytes(index),
            "processes": nvml.processes(index),
        }
        for index in nvml.devices
    ]


def sensor_facts() -> Json:
    """Which sensors this user can read, and the commands that open the others."""
    zones = powercap()
    closed = [z for z, facts in zones.items() if facts["energy_uj"] is None]
    fixes = ["sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"] if closed else []
    return {
        "powercap": {zone: facts["energy_uj"] is not None for zone, facts in zones.items()},
        "msr": os.access(rooted("/dev/cpu/0/msr"), os.R_OK),
        "nvml": open_nvml() is not None,
        "temperature": temperature_c() is not None,
        "throttle": bool(throttle_counts()),
        "fix": fixes,
    }


def clock_synchronised() -> bool | None:
    """Whether the kernel's clock is being disciplined (adjtimex answers TIME_ERROR if not)."""
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != 5


def meter_facts(meter: Json, gpus: Sequence[str], spool: Spool) -> Json:
    """Prove the meter by a short run that yields energy."""
    answer: Json = {
        "ok": False, "kind": meter.get("kind"), "columns": [], "version": None, "message": None,
        "argv": None,
    }  # fmt: skip
    if meter.get("kind") == "powercap":
        zones = list(readable_zones())
        message = None if zones else "no RAPL counter below /sys/class/powercap can be read"
        return answer | {"ok": bool(zones), "columns": zones, "message": message}
    if meter.get("kind") == "nvml":
        nvml = open_nvml()
        chosen = nvml.chosen(gpus) if nvml else []
        columns = [
            "gpu%d_%s" % (index, field)
            for index in chosen
            for field, value in (nvml.readings(index) if nvml else {}).items()
            if field in ("energy_mj", "power_mw", "power_instant_mw") and value is not None
        ]
        message = None if columns else "NVML tells neither energy nor power of the host's gpus"
        return answer | {"ok": bool(columns), "columns": columns, "message": message}
    return answer | _prove(meter | {"interval_ms": meter.get("interval_ms") or 200}, gpus, spool)


def _prove(meter: Json, gpus: Sequence[str], spool: Spool) -> Json:
    with tempfile.TemporaryDirectory(prefix=".meter-", dir=spool.root) as folder:
        csv, output = os.path.join(folder, "energy.csv"), os.path.join(folder, "out")
        seconds = max(0.5, 2.5 * meter["interval_ms"] / 1000)
        argv = [*meter_argv(meter, gpus, csv, output), "--", "sleep", "%g" % seconds]
        known: Json = {"argv": argv, "version": meter_version(meter)}
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=seconds + meter["interval_ms"] / 1000 + 15, check=False,
            )  # fmt: skip
        except OSError as error:
            return known | {"message": "%s: %s" % (argv[0], error.strerror)}
        except subprocess.TimeoutExpired:
            return known | {
                "message": "%s did not end after a command of %g s" % (argv[0], seconds)
            }
        if done.returncode:
            with open(os.path.join(folder, "err"), "w") as file:
                file.write(done.stderr)
            reason = complaint(file.name) or "it does not say why"
            return known | {"message": "%s ended with %d: %s" % (argv[0], done.returncode, reason)}
        text = read_text(csv) or ""
    return known | energy_columns(text, bool(gpus))


def energy_columns(text: str, with_gpus: bool) -> Json:
    """Judge a meter's file: its energy and power columns, and whether they show anything."""
    rows = [line.split(",") for line in text.splitlines()]
    header, body = (rows[0], [r for r in rows[1:] if len(r) == len(rows[0])]) if rows else ([], [])
    energy = [c for c in header if re.search(r"_ENERGY \(J\)$", c)]
    power = [c for c in header if re.search(r"_POWER \((mWatts|Watts)\)$", c)]
    values = {c: [r[header.index(c)] for r in body] for c in energy + power}
    alive = [c for c in energy if len(set(values[c])) > 1]
    alive += [c for c in power if any(v not in ("", "0") for v in values[c])]
    message = None
    if not energy + power:
        message = "it writes no energy columns (%s)" % (",".join(header) or "no file")
    elif not alive:
        message = "its energy columns stay at one value: %s" % ", ".join(energy + power)
    elif with_gpus and not any(c.startswith("GPU") for c in power):
        message = "it writes no GPU power columns although the host has gpus"
    return {"ok": message is None, "columns": energy + power, "message": message}


#: What a probe says: severity (``hard``, ``soft``, or ``unknown``: it can't be told), message, action.
Said = Iterator[tuple[str, str, str]]


class Probe(NamedTuple):
    """A row of the preflight: what it asks of a host; saying nothing means that all is well.

    Hard problems refuse the host, soft ones become findings.
    """

    code: str
    asks: str
    look: Callable[[Json, Json], Said]


def preflight(facts: Json, wanted: Json) -> list[Json]:
    """Every probe's rows: {code, asks, severity: fine, unknown, soft or hard, message, action}."""
    rows = []
    for probe in PROBES:
        for severity, message, action in list(probe.look(facts, wanted)) or [("fine", "", "")]:
            rows.append(
                {
                    "code": probe.code, "asks": probe.asks, "severity": severity,
                    "message": message, "action": action,
                }
            )  # fmt: skip
    return rows


def _docker_answers(facts: Json, wanted: Json) -> Said:
    if wanted["docker"] and not facts["docker"]["ok"]:
        action = "start Docker on the host; sudo usermod -aG docker USER for the SSH user"
        yield "hard", facts["docker"]["message"], action


def _meter_yields(facts: Json, wanted: Json) -> Said:
    meter = facts["meter"]
    if meter and not meter["ok"]:
        fix = "; ".join(meter_fixes(wanted["meter"])) or "run it by hand on the host"
        yield "hard", meter["message"], fix


def _spool_has_room(facts: Json, wanted: Json) -> Said:
    if facts["disk_free_bytes"] < wanted["min_free_bytes"]:
        words = (wanted["spool"], facts["disk_free_bytes"] / 1e6, wanted["min_free_bytes"] / 1e6)
        yield "hard", "%s has %.0f MB free of %.0f MB needed" % words, "free space on the host"


def _gpus_are_there(facts: Json, wanted: Json) -> Said:
    known = {str(name) for gpu in facts["gpu"] for name in (gpu["uuid"], gpu["index"])}
    there = ", ".join(str(g["uuid"]) for g in facts["gpu"]) or "none"
    for name in wanted["gpus"]:
        if name not in known:
            text = "GPU %s is not there; there are: %s" % (name, there)
            yield "hard", text, "correct the host's gpus, or check the driver with nvidia-smi -L"


def _gpus_are_idle(facts: Json, wanted: Json) -> Said:
    for gpu in facts["gpu"]:
        given = gpu["uuid"] in wanted["gpus"] or str(gpu["index"]) in wanted["gpus"]
        if gpu["processes"] is None:
            yield "unknown", "GPU %s does not tell its processes" % gpu["uuid"], ""
        elif gpu["processes"]:
            text = "%d processes compute on GPU %s" % (gpu["processes"], gpu["uuid"])
            yield "hard" if given else "soft", text, "stop them: nvidia-smi shows which"


def _cpu_is_idle(facts: Json, _wanted: Json) -> Said:
    busy = facts["idle"]["cpu_pct"]
    if busy is None:
        yield "unknown", "the host does not tell its CPU time", ""
    elif busy > BUSY_PCT:
        yield "soft", "the idle host's CPU load is %.0f %%" % busy, "stop other work on the host"


def _no_foreign_containers(facts: Json, _wanted: Json) -> Said:
    foreign = [
        c for c in facts["docker"]["running"] if "wattbench.attempt=" not in (c["labels"] or "")
    ]
    if foreign:
        text = "containers are running: %s" % ", ".join(str(c["name"]) for c in foreign)
        yield "soft", text, "stop them for the time of the run"


def _governor_is_steady(facts: Json, _wanted: Json) -> Said:
    governor = facts["cpu"]["governor"]
    if governor is None:
        yield "unknown", "the platform tells no CPU governor", ""
    elif governor != "performance":
        action = "sudo cpupower frequency-set -g performance"
        yield "soft", "the CPU governor is %s" % governor, action


def _turbo_is_off(facts: Json, _wanted: Json) -> Said:
    if facts["cpu"]["turbo"] is None:
        yield "unknown", "the platform does not tell whether turbo is on", ""
    elif facts["cpu"]["turbo"]:
        intel = os.path.exists(rooted("/sys/devices/system/cpu/intel_pstate/no_turbo"))
        switch = "1 > /sys/devices/system/cpu/intel_pstate/no_turbo"
        action = switch if intel else "0 > /sys/devices/system/cpu/cpufreq/boost"
        text = "turbo is on: clocks follow the temperature"
        yield "soft", text, "sudo sh -c 'echo %s'" % action


def _clock_is_disciplined(facts: Json, _wanted: Json) -> Said:
    synchronised = facts["clock"]["synchronised"]
    if synchronised is None or (not synchronised and facts["host"]["virtual"]):
        yield "unknown", "the kernel does not tell whether its clock is disciplined", ""
    elif not synchronised:
        yield "soft", "the clock is not synchronised", "sudo timedatectl set-ntp true"


def _sensors_are_open(facts: Json, _wanted: Json) -> Said:
    if not facts["sensors"]["powercap"]:
        yield "unknown", "the host has no RAPL counters below /sys/class/powercap", ""
    for fix in facts["sensors"]["fix"]:
        yield "soft", "RAPL counters can't be read by this user", fix


def _throttling_is_counted(facts: Json, _wanted: Json) -> Said:
    if not facts["sensors"]["throttle"]:
        yield "unknown", "the CPU does not count thermal throttling", ""


#: The preflight. Problems that refuse a host come first.
PROBES = (
    Probe("docker-unreachable", "Docker answers", _docker_answers),
    Probe("meter-failed", "the meter yields energy", _meter_yields),
    Probe("disk-full", "the spool has room", _spool_has_room),
    Probe("gpu-missing", "the given GPUs are there", _gpus_are_there),
    Probe("gpu-busy", "GPUs are idle", _gpus_are_idle),
    Probe("host-busy", "the CPU is idle", _cpu_is_idle),
    Probe("foreign-containers", "no other containers run", _no_foreign_containers),
    Probe("governor", "the CPU's clocks don't follow the load", _governor_is_steady),
    Probe("turbo", "the CPU's clocks don't follow the temperature", _turbo_is_off),
    Probe("clock", "the clock is disciplined", _clock_is_disciplined),
    Probe("sensors", "energy counters can be read without root", _sensors_are_open),
    Probe("throttling", "throttling is counted", _throttling_is_counted),
)


def meter_fixes(meter: Json) -> list[str]:
    """The commands that let a meter read the CPU's energy counters."""
    if meter.get("kind") == "powercap":
        return sensor_facts()["fix"] or ["sudo modprobe intel_rapl_msr"]
    if meter.get("kind") != "energibridge":
        return []
    program = shutil.which(meter_command(meter)[0])
    if program is None:
        return ["install it there, or set the host's meter.command"]
    if virtualisation() is not None and not os.path.exists(rooted("/dev/cpu/0/msr")):
        return ["a virtual host has no energy counters: use meter kind modelled, or a real machine"]
    fixes = []
    if not os.path.exists(rooted("/dev/cpu/0/msr")):
        fixes.append("sudo modprobe msr")
    user, path = os.environ.get("USER", "$USER"), shlex.quote(program)
    if not os.access(rooted("/dev/cpu/0/msr"), os.R_OK):
        fixes.append("sudo groupadd -f msr && sudo usermod -aG msr %s" % user)
        fixes.append("sudo chgrp msr /dev/cpu/*/msr && sudo chmod g+r /dev/cpu/*/msr")
    return [*fixes, "sudo setcap cap_sys_rawio=ep %s" % path]


# -------------------------------------------------------------------------------- the command line


def clock_loop() -> None:
    """Answer every line on stdin with the time, so that a round trip holds no process start."""
    for _line in sys.stdin:
        print(json.dumps({"ok": True, **stamp(), "boot": boot_mark()}), flush=True)


def pipe(path: str) -> None:
    """Join stdin and stdout with a Unix socket, each direction closed on its own."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.connect(path)
    except OSError as error:
        raise SystemExit("%s: %s" % (path, error.strerror)) from error

    def upstream() -> None:
        for block in iter(lambda: os.read(0, 65536), b""):
            peer.sendall(block)
        peer.shutdown(socket.SHUT_WR)

    threading.Thread(target=upstream, daemon=True).start()
    for block in iter(lambda: peer.recv(65536), b""):
        view = memoryview(block)
        while view:
            view = view[os.write(1, view) :]


VERBS: dict[str, Callable[[Spool, Json], Json]] = {
    "facts": verb_facts,
    "packages": verb_packages,
    "lease": verb_lease,
    "warm": verb_warm,
    "quiet": verb_quiet,
    "start": verb_start,
    "wait": verb_wait,
    "status": verb_status,
    "finish": verb_finish,
    "probe": verb_probe,
    "list": verb_list,
    "forget": verb_forget,
    "cleanup": verb_cleanup,
}


def answer_verb(verb: str, text: str) -> Json:
    """One request's answer.

    Raises:
        AgentError: what the caller can act on.
    """
    try:
        payload = json.loads(text or "{}")
    except ValueError as error:
        raise AgentError("bad-request", "stdin is not JSON: %s" % error) from error
    if not isinstance(payload, dict):
        raise AgentError("bad-request", "stdin is not a JSON object")
    spool = Spool(os.environ.get("WATTBENCH_SPOOL") or payload.get("spool") or DEFAULT_SPOOL)
    active = (spool.lease() or {}).get("active")
    if active and os.path.isdir(Attempt(spool, active).folder):
        if Attempt(spool, active).report is None:
            Attempt(spool, active).note(verb)
    return {"ok": True, **VERBS[verb](spool, payload)}


def run_verb(verb: str) -> int:
    """Answer on stdout; 0 for all that the agent understands, 1 for its own defects."""
    try:
        answer, code = answer_verb(verb, sys.stdin.read()), 0
    except AgentError as error:
        answer, code = error.answer, 0
    except Exception as error:  # noqa: BLE001 - the protocol promises an answer
        traceback.print_exc()
        answer, code = AgentError("internal", "agent: %r" % error, "report this").answer, 1
    print(json.dumps(answer), flush=True)
    return code


def main(argv: list[str]) -> int:
    """The command line."""
    if len(argv) == 1 and argv[0] in VERBS:
        return run_verb(argv[0])
    if argv == ["clock"]:
        clock_loop()
        return 0
    if len(argv) == 3 and argv[0] == "supervise":
        supervise(argv[1], int(argv[2]))
        return 0
    if len(argv) > 3 and argv[0] == "command" and argv[2] == "--":
        return command(argv[1], argv[3:])
    if len(argv) == 2 and argv[0] == "burner":
        burner(float(argv[1]))
        return 0
    if len(argv) == 3 and argv[:2] == ["burn", "--rounds"] and argv[2].isdigit():
        burn(int(argv[2]))
        return 0
    if argv == ["hold"]:
        hold()
        return 0
    if len(argv) == 2 and argv[0] == "pipe":
        pipe(argv[1])
        return 0
    print("usage: agent.py %s" % " | ".join([*VERBS, "clock"]), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
