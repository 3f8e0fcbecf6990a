"""The verb ``facts``: what this host is, can measure, and what speaks against measuring on it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import socket
import tempfile
import time

from wattbench.worker.agent import limits, meters
from wattbench.worker.agent.base import (
    SELF,
    boot_mark,
    number,
    parse_json,
    read_text,
    sha256_of,
)  # fmt: skip
from wattbench.worker.agent.docker import DockerError, docker
from wattbench.worker.agent.levels import sample
from wattbench.worker.agent.machine import machine_state, smt, turbo
from wattbench.worker.agent.preflight import preflight
from wattbench.worker.agent.sysfs import (
    cpuinfo,
    governor,
    is_container,
    memory,
    temperature_c,
    throttle_counts,
    usable_cores,
    virtualisation,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import MeterSpec
    from wattbench.worker.agent.meters import Meter
    from wattbench.worker.agent.spool import Spool


def verb_facts(spool: Spool, payload: Json) -> Json:
    """What this host is, can measure, and what speaks against measuring on it."""
    gpus = [str(g) for g in payload.get("gpus") or []]
    meter = payload.get("meter")
    readers = meters.present(gpus)
    idle = sample(number(payload, "sample_s", 1.0), gpus)
    answer: Json = {
        "agent_sha256": sha256_of(SELF),
        "host": host_facts(),
        "docker": docker_facts(),
        "clock_unix_s": time.time(),
        "clock": {"synchronised": clock_synchronised()},
        "cpu": cpu_facts(),
        "machine": machine_state(readers),
        "load": None if is_container() else list(os.getloadavg()),
        "disk_free_bytes": shutil.disk_usage(spool.root).free,
        "gpu": [device for reader in readers for device in reader.devices()],
        "sensors": _sensors(readers),
        "idle": idle,
        "meter": _prove(meter, gpus, readers, spool) if meter else None,
        "further_meters": [
            _prove(further, gpus, readers, spool) for further in payload.get("further_meters") or []
        ],
    }
    wanted = {
        "docker": payload.get("docker", True), "meter": meter, "gpus": gpus, "spool": spool.root,
        "further_meters": payload.get("further_meters") or [],
        "min_free_bytes": int(number(payload, "min_free_bytes", limits.MIN_FREE_BYTES)),
        "containers": payload.get("containers") or {},
        "load_cpus": payload.get("load_cpus") or {},
    }  # fmt: skip
    rows = preflight(answer, wanted)
    problems = [
        {key: row[key] for key in ("code", "severity", "message", "action")}
        for row in rows
        if row["severity"] in ("hard", "soft")
    ]
    return answer | {"probes": rows, "problems": problems}


def _sensors(readers: Sequence[Meter]) -> Json:
    """Which sensors this user can read, and the commands that open the others (``fix``)."""
    known: Json = {
        "temperature": temperature_c() is not None, "throttle": bool(throttle_counts()), "fix": [],
    }  # fmt: skip
    for reader in readers:
        sensors = reader.sensors()
        known["fix"] += sensors.pop("fix", [])
        known.update(sensors)
    return known


def _prove(settings: MeterSpec, gpus: list[str], readers: Sequence[Meter], spool: Spool) -> Json:
    """Show that the host's meter yields energy."""
    kind = meters.find(settings.get("kind"))
    meter = next(reader for reader in readers if type(reader) is kind)
    answer: Json = {
        "ok": False, "kind": kind.kind, "columns": [], "version": None, "message": None,
        "argv": None,
    }  # fmt: skip
    why = kind.refusal(settings)
    if why:
        return answer | {"message": why}
    with tempfile.TemporaryDirectory(prefix=".meter-", dir=spool.root) as folder:
        return answer | meter.prove(settings, gpus, folder)


def host_facts() -> Json:
    """The machine and its system."""
    info = cpuinfo()
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
        info = parse_json(done.stdout) if not done.returncode else {}
        if done.returncode or info.get("ServerErrors"):
            raise DockerError(" ".join((info.get("ServerErrors") or [done.stderr])[0].split()))
        lines = docker("ps", "--format", "{{json .}}").stdout.splitlines()
    except (DockerError, ValueError) as error:
        return {"ok": False, "message": str(error), "version": None, "root": None, "running": []}
    running = [parse_json(line) for line in lines]
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
    """Governor, turbo and SMT; None where the platform does not report them."""
    return {"governor": governor(), "turbo": turbo(), "smt": smt()}


def clock_synchronised() -> bool | None:
    """Whether the kernel's clock is being disciplined (adjtimex answers TIME_ERROR if not)."""
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != 5
