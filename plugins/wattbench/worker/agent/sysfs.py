"""Readings of the platform from /proc and /sys; None or empty where it does not provide them."""

from __future__ import annotations

import glob
import os
import re

from wattbench.worker.agent.base import read_int, read_text, rooted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json


def virtualisation() -> str | None:
    """``container``, ``vm`` or None (a machine of its own)."""
    if os.path.exists(rooted("/.dockerenv")) or os.path.exists(rooted("/run/.containerenv")):
        return "container"
    if re.search(r"docker|lxc|kubepods|containerd", read_text(rooted("/proc/1/cgroup")) or ""):
        return "container"
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo(), re.MULTILINE)
    return "vm" if flags else None


def is_container() -> bool:
    """Whether /proc/stat and its like show more than this host."""
    return virtualisation() == "container"


def sees_all_pids() -> bool:
    """Whether process ids here are the machine's own, as drivers report them.

    The kernel gives the first PID namespace a fixed inode (linux/proc_ns.h). A virtual machine made from a
    container's image has it beside the file /.dockerenv.
    """
    try:
        return os.readlink(rooted("/proc/self/ns/pid")) == "pid:[%d]" % 0xEFFFFFFC
    except OSError:
        return not is_container()


def cpuinfo() -> str:
    """Content of /proc/cpuinfo."""
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
    import resource

    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(sum(u.ru_utime + u.ru_stime for u in uses) * 1e9)


def family_cpu_ns(folder: str) -> int:
    """CPU time of the services with a pid file in a folder, and of all that they have started, ns."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for path in glob.glob(rooted("/proc/[0-9]*/stat")):
        fields = (read_text(path) or "").rpartition(")")[2].split()
        if len(fields) > 14:  # else it has ended meanwhile
            pid = int(path.split("/")[-2])
            children.setdefault(int(fields[1]), []).append(pid)
            # user and system time, of itself and of its ended children
            used[pid] = sum(int(ticks) for ticks in fields[11:15])
    words = [(read_text(path) or "").split() for path in glob.glob(folder + "/*.pid")]
    todo = [int(one[0]) for one in words if one and one[0].isdigit()]
    total = 0
    while todo:
        pid = todo.pop()
        total += used.get(pid, 0)
        todo += children.get(pid, [])
    return total * (10**9 // os.sysconf("SC_CLK_TCK"))


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


def governor() -> str | None:
    """The CPUs' frequency governor, several joined by ``/``; None where there is none."""
    pattern = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
    found = {read_text(path) for path in glob.glob(rooted(pattern))}
    return "/".join(sorted(name for name in found if name)) or None


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
