"""The preflight: a table of probes that look at a host's facts."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from wattbench.worker.agent import limits, meters, preparation
from wattbench.worker.agent.base import rooted
from wattbench.worker.agent.docker import network_exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import MeterSpec

#: What a probe says: severity (``hard``, ``soft``, or ``unknown``: it is not known), message, action.
Said = Iterator[tuple[str, str, str]]


class Probe(NamedTuple):
    """A row of the preflight: what it asks of a host; yielding nothing means that all is well.

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
        action = "start Docker on the host; for the SSH user: " + preparation.sudo("docker")
        yield "hard", facts["docker"]["message"], action


def _meter_yields(facts: Json, wanted: Json) -> Said:
    asked = [(facts["meter"], wanted["meter"])] if facts["meter"] else []
    asked += zip(facts["further_meters"], wanted["further_meters"])  # noqa: B905
    for meter, settings in asked:
        yield from _one_meter_yields(meter, settings)


def _one_meter_yields(meter: Json, settings: MeterSpec) -> Said:
    failures = meter.get("failures") or []
    error = meter["message"] if not meter["ok"] else failures[-1] if failures else None
    if error is None:
        return
    fixes = meters.find(settings.get("kind")).fixes(settings, error)
    if meter["ok"]:
        words = (len(failures), len(failures) + 1, error)
        error = "the meter failed %d of %d times before it gave energy: %s" % words
    yield "soft" if meter["ok"] else "hard", error, "; ".join(fixes) or "run it by hand on the host"


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
            yield "unknown", "GPU %s does not report its processes" % gpu["uuid"], ""
        elif gpu["processes"]:
            text = "%d processes compute on GPU %s" % (gpu["processes"], gpu["uuid"])
            yield "hard" if given else "soft", text, "stop them: nvidia-smi shows which"


def _cpu_is_idle(facts: Json, _wanted: Json) -> Said:
    busy = facts["idle"]["cpu_pct"]
    if busy is None:
        yield "unknown", "the host does not report its CPU time", ""
    elif busy > limits.BUSY_PCT:
        yield "soft", "the idle host's CPU load is %.0f %%" % busy, "stop other work on the host"


def _no_foreign_containers(facts: Json, _wanted: Json) -> Said:
    foreign = [
        c for c in facts["docker"]["running"] if "wattbench.attempt=" not in (c["labels"] or "")
    ]
    if foreign:
        text = "containers are running: %s" % ", ".join(str(c["name"]) for c in foreign)
        yield "soft", text, "stop them for the time of the run"


_NEVER_MOUNTED, _NEVER_MOUNTED_BELOW = ("/", "/dev", "/sys"), ("/proc/", "/run/")


def _containers_fit(facts: Json, wanted: Json) -> Said:
    for image, settings in sorted(wanted["containers"].items()):
        for key, why, action in _misfits(facts, settings):
            yield "hard", "images.%s: container.%s: %s" % (image, key, why), action
    for image, cpus in sorted(wanted["load_cpus"].items()):
        for why in _unusable(set(cpus)):
            text = "images.%s: workload.load.from.cpuset: %s" % (image, why)
            yield "hard", text, "name CPUs of this host"


def _misfits(facts: Json, settings: Json) -> Iterator[tuple[str, str, str]]:
    """What a container asks for that this host can't give: key, reason, action."""
    for target, volume in sorted((settings.get("volumes") or {}).items()):
        path = os.path.realpath(volume["host"])
        if not os.path.exists(path):
            text = "%s is not on this host" % volume["host"]
            yield "volumes.%s" % target, text, "create it there, or correct the path"
        elif (
            path in _NEVER_MOUNTED
            or (path + "/").startswith(_NEVER_MOUNTED_BELOW)
            or stat.S_ISSOCK(os.stat(path).st_mode)
        ):
            text = "%s leads to %s, which would give the container the host" % (
                volume["host"],
                path,
            )
            yield "volumes.%s" % target, text, "mount what the workload needs"
    total, cores = facts["host"]["memory_bytes"], sorted(os.sched_getaffinity(0))
    sizes = {k: settings.get(k) or 0 for k in ("memory", "shm_size")}
    sizes["tmpfs"] = sum((settings.get("tmpfs") or {}).values())
    for key, size in sizes.items():
        if total and size > total:
            text = "%.1f GiB of this host's %.1f GiB" % (size / 2**30, total / 2**30)
            yield key, text, "lower it"
    if (settings.get("cpus") or 0) > len(cores):
        yield "cpus", "%g of this host's %d CPUs" % (settings["cpus"], len(cores)), "lower it"
    for why in _unusable(_cpus(settings.get("cpuset") or "")):
        yield "cpuset", why, "name CPUs of this host"
    network = settings.get("network") or "none"
    if network not in ("none", "bridge", "host") and not network_exists(network):
        yield "network", "Docker has no network %s" % network, "docker network create %s" % network


def _unusable(cpus: set[int]) -> Iterator[str]:
    """Why a process can't be given CPUs."""
    there = os.sched_getaffinity(0)
    absent = sorted(cpus - there)
    if absent:
        yield "CPU %d is not usable here; there are %s" % (
            absent[0], ",".join(map(str, sorted(there))),
        )  # fmt: skip


def _cpus(text: str) -> set[int]:
    """The numbers of ``0-3,8``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _governor_is_steady(facts: Json, _wanted: Json) -> Said:
    governor = facts["cpu"]["governor"]
    if governor is None:
        yield "unknown", "the platform reports no CPU governor", ""
    elif governor != "performance":
        text = "the CPU governor is %s" % governor
        yield "soft", text, preparation.sudo("governor")


def _turbo_is_off(facts: Json, _wanted: Json) -> Said:
    if facts["cpu"]["turbo"] is None:
        yield "unknown", "the platform does not report whether turbo is on", ""
    elif facts["cpu"]["turbo"]:
        intel = os.path.exists(rooted("/sys/devices/system/cpu/intel_pstate/no_turbo"))
        switch = "1 > /sys/devices/system/cpu/intel_pstate/no_turbo"
        action = switch if intel else "0 > /sys/devices/system/cpu/cpufreq/boost"
        text = "turbo is on: clocks follow the temperature"
        yield "soft", text, "sudo sh -c 'echo %s'" % action


def _clock_is_disciplined(facts: Json, _wanted: Json) -> Said:
    synchronised = facts["clock"]["synchronised"]
    if synchronised is None or (not synchronised and facts["host"]["virtual"]):
        yield "unknown", "the kernel does not report whether its clock is disciplined", ""
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
    Probe("container-settings", "containers can have what they ask for", _containers_fit),
    Probe("host-busy", "the CPU is idle", _cpu_is_idle),
    Probe("foreign-containers", "no other containers run", _no_foreign_containers),
    Probe("governor", "the CPU's clocks don't follow the load", _governor_is_steady),
    Probe("turbo", "the CPU's clocks don't follow the temperature", _turbo_is_off),
    Probe("clock", "the clock is disciplined", _clock_is_disciplined),
    Probe("sensors", "energy counters can be read without root", _sensors_are_open),
    Probe("throttling", "throttling is counted", _throttling_is_counted),
)
