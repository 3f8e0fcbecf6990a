"""The machine's settings that decide its energy and speed: read at ``check`` and at both edges of a window.

A flat table: ``cpu.turbo``, ``kernel.thp``, ``mitigation[spectre_v2]``, and of the meters' devices
``rapl.package[0].long_term_w``, ``gpu[0].power_limit_w``. The part in brackets names the one of several.
What the platform does not report is absent.
"""

from __future__ import annotations

import glob
import os
import platform
import re

from wattbench.worker.agent.base import read_int, read_text, rooted
from wattbench.worker.agent.sysfs import cpuinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Union

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.meters import Meter

    Value = Union[bool, int, float, str, None]

_CPU = "/sys/devices/system/cpu"


def machine_state(readers: Sequence[Meter]) -> Json:
    """All settings that this host reports.

    Args:
        readers: all meters, with the trial's GPUs.
    """
    state: dict[str, Value] = {**_cpu(), **_firmware(), **_kernel()}
    for meter in readers:
        state.update(meter.settings())
    return {key: value for key, value in state.items() if value is not None}


def _cpu() -> dict[str, Value]:
    return {
        "cpu.online": read_text(rooted(_CPU + "/online")),
        "cpu.driver": _of_all("cpufreq/scaling_driver"),
        "cpu.governor": _of_all("cpufreq/scaling_governor"),
        "cpu.epp": _of_all("cpufreq/energy_performance_preference"),
        "cpu.min_mhz": _frequency("cpufreq/scaling_min_freq", min),
        "cpu.max_mhz": _frequency("cpufreq/scaling_max_freq", max),
        "cpu.turbo": turbo(),
        "cpu.smt": smt(),
        "cpu.c_states": _c_states(),
        "cpu.microcode": _microcode(),
    }


def _firmware() -> dict[str, Value]:
    folder = rooted("/sys/class/dmi/id")
    return {
        "bios.version": read_text(folder + "/bios_version"),
        "bios.date": read_text(folder + "/bios_date"),
        "bios.profile": read_text(rooted("/sys/firmware/acpi/platform_profile")),
    }


def _kernel() -> dict[str, Value]:
    pages = read_text(rooted("/sys/kernel/mm/transparent_hugepage/enabled")) or ""
    chosen = re.search(r"\[(\w+)\]", pages)
    balancing = read_int(rooted("/proc/sys/kernel/numa_balancing"))
    state: dict[str, Value] = {
        "kernel.release": platform.release(),
        "kernel.command_line": read_text(rooted("/proc/cmdline")),
        "kernel.numa_balancing": None if balancing is None else balancing > 0,
        "kernel.thp": chosen.group(1) if chosen else None,
    }
    for path in sorted(glob.glob(rooted(_CPU + "/vulnerabilities/*"))):
        state["mitigation[%s]" % os.path.basename(path)] = read_text(path)
    return state


def turbo() -> bool | None:
    """Whether clocks above the nominal one are allowed; None where the platform does not report it."""
    off, boost = (read_int(rooted(_CPU + p)) for p in ("/intel_pstate/no_turbo", "/cpufreq/boost"))
    if off is not None:
        return not off
    return None if boost is None else bool(boost)


def smt() -> bool | None:
    """Whether cores run several threads; None where the platform does not report it."""
    active = read_int(rooted(_CPU + "/smt/active"))
    return None if active is None else bool(active)


def _of_each(name: str) -> list[str]:
    """What each CPU's file says."""
    paths = glob.glob(rooted("%s/cpu[0-9]*/%s" % (_CPU, name)))
    return [text for text in map(read_text, paths) if text]


def _of_all(name: str) -> str | None:
    """What the CPUs' files say, different values joined by ``/``."""
    return "/".join(sorted(set(_of_each(name)))) or None


def _frequency(name: str, choose: Callable[[Iterable[int]], int]) -> float | None:
    """A limit of the CPUs' clocks, MHz."""
    values = [int(text) for text in _of_each(name) if text.isdigit()]
    return choose(values) / 1000 if values else None


def _c_states() -> str | None:
    """Names of the idle states that the kernel may use, as of the CPU that may use most."""
    allowed: list[tuple[int, str]] = []
    for cpu in glob.glob(rooted(_CPU + "/cpu[0-9]*/cpuidle")):
        for folder in glob.glob(cpu + "/state[0-9]*"):
            number = folder.rpartition("state")[2]
            name = read_text(folder + "/name")
            if name and number.isdigit() and not read_int(folder + "/disable"):
                allowed.append((int(number), name))
    return "+".join(name for _, name in sorted(set(allowed))) or None


def _microcode() -> str | None:
    found = re.findall(r"^microcode\s*:\s*(\S+)", cpuinfo(), re.MULTILINE)
    return "/".join(sorted(set(found))) or None
