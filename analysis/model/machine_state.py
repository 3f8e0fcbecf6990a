"""Settings of a machine that decide its energy: what is expected of them, and what a change of one means.

The agent reports a flat table, :mod:`wattbench.worker.agent.machine`: ``gpu[0].power_limit_w`` is the item
``gpu.power_limit_w`` of GPU 0. One list serves ``expect``, the finding ``state-changed``, and comparisons.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

Value = bool | int | float | str
#: A machine's settings by key.
State = Mapping[str, Value]

#: Numbers of a setting that differ by less are equal: the hardware rounds limits to units of its own.
_ROUNDING = 0.002

#: Of texts with at least this number of words only those that differ are shown.
_MANY_WORDS = 5

_INSTANCE = re.compile(r"\[([^\]]*)\]")


class Kind(StrEnum):
    """Type of a setting's value."""

    SWITCH = "on or off"
    NUMBER = "a number"
    TEXT = "text"


@dataclass(frozen=True)
class Item:
    """One setting.

    Attributes:
        key: its name, without the part in brackets that names the one of several.
        kind: type of its value.
        moves_energy: whether a change of it moves the energy of the same work by itself: caps, clocks, ECC.
        mend: the command that sets it. Fields: ``value``; ``bit`` and ``inverse`` of a switch; ``micro``, the
            value in millionths; ``which``, the part in brackets.
    """

    key: str
    kind: Kind
    moves_energy: bool
    mend: str


def _sysfs(value: str, path: str) -> str:
    return f"echo {value} | sudo tee {path}"


def _zone(kind: str, constraint: int) -> str:
    """Set a limit of a RAPL zone, which is found by its name."""
    name = "package-{which}" if kind == "package" else kind
    file = f"constraint_{constraint}_power_limit_uw"
    return (
        "sudo sh -c 'for z in /sys/class/powercap/intel-rapl:*; do "
        f'[ "$(cat $z/name)" = {name} ] && echo {{micro}} > $z/{file}; done\''
    )


_BOOT = "set it on the kernel's command line in the boot loader, and boot again"
_SETUP = "set it in the firmware's setup, or update the firmware"
_CPUS = "/sys/devices/system/cpu/cpu*/cpufreq"
_TURBO = (
    "sudo sh -c 'p=/sys/devices/system/cpu/intel_pstate/no_turbo; "
    "[ -e $p ] && echo {inverse} > $p || echo {bit} > /sys/devices/system/cpu/cpufreq/boost'"
)

_ITEMS = (
    Item("cpu.online", Kind.TEXT, True,
         _sysfs("1", "/sys/devices/system/cpu/cpuN/online") + " (0 takes CPU N out)"),
    Item("cpu.driver", Kind.TEXT, True, _BOOT),
    Item("cpu.governor", Kind.TEXT, True, "sudo cpupower frequency-set -g {value}"),
    Item("cpu.epp", Kind.TEXT, True, _sysfs("{value}", f"{_CPUS}/energy_performance_preference")),
    Item("cpu.min_mhz", Kind.NUMBER, True, "sudo cpupower frequency-set -d {value}MHz"),
    Item("cpu.max_mhz", Kind.NUMBER, True, "sudo cpupower frequency-set -u {value}MHz"),
    Item("cpu.turbo", Kind.SWITCH, True, _TURBO),
    Item("cpu.smt", Kind.SWITCH, True, _sysfs("{value}", "/sys/devices/system/cpu/smt/control")),
    Item("cpu.c_states", Kind.TEXT, True,
         "sudo cpupower idle-set -d N (or -e N); cpupower idle-info has the numbers"),
    Item("cpu.microcode", Kind.TEXT, False, "install the CPU's microcode package, and boot again"),
    Item("bios.version", Kind.TEXT, False, _SETUP),
    Item("bios.date", Kind.TEXT, False, _SETUP),
    Item("bios.profile", Kind.TEXT, True, _sysfs("{value}", "/sys/firmware/acpi/platform_profile")),
    Item("kernel.release", Kind.TEXT, False, "install that kernel, and boot it"),
    Item("kernel.command_line", Kind.TEXT, False, _BOOT),
    Item("kernel.numa_balancing", Kind.SWITCH, False, "sudo sysctl kernel.numa_balancing={bit}"),
    Item("kernel.thp", Kind.TEXT, False,
         _sysfs("{value}", "/sys/kernel/mm/transparent_hugepage/enabled")),
    Item("mitigation", Kind.TEXT, False, _BOOT),
    *(
        Item(f"rapl.{zone}.{term}_{unit}", Kind.NUMBER, True,
             _zone(zone, place) if unit == "w" else
             _zone(zone, place).replace("power_limit_uw", "time_window_us"))
        for zone in ("package", "psys", "dram", "core", "uncore")
        for place, term in enumerate(("long_term", "short_term", "peak_power"))
        for unit in ("w", "s")
    ),
    Item("gpu.power_limit_w", Kind.NUMBER, True, "sudo nvidia-smi -i {which} -pl {value}"),
    Item("gpu.default_limit_w", Kind.NUMBER, False, "check the board and its VBIOS"),
    Item("gpu.enforced_limit_w", Kind.NUMBER, True, "sudo nvidia-smi -i {which} -pl {value}"),
    Item("gpu.application_sm_mhz", Kind.NUMBER, True,
         "sudo nvidia-smi -i {which} -ac MEMORY,{value} (MEMORY: gpu.application_memory_mhz)"),
    Item("gpu.application_memory_mhz", Kind.NUMBER, True,
         "sudo nvidia-smi -i {which} -ac {value},SM (SM: gpu.application_sm_mhz)"),
    Item("gpu.max_sm_mhz", Kind.NUMBER, True, "sudo nvidia-smi -i {which} -rgc"),
    Item("gpu.persistence", Kind.SWITCH, False, "sudo nvidia-smi -i {which} -pm {bit}"),
    Item("gpu.ecc", Kind.SWITCH, True, "sudo nvidia-smi -i {which} -e {bit}, and boot again"),
    Item("gpu.mig", Kind.SWITCH, True, "sudo nvidia-smi -i {which} -mig {bit}"),
    Item("gpu.compute_mode", Kind.TEXT, False, "sudo nvidia-smi -i {which} -c {VALUE}"),
    Item("gpu.driver", Kind.TEXT, False, "install that version of the driver, and boot again"),
    Item("gpu.vbios", Kind.TEXT, False, "update the board's VBIOS"),
)  # fmt: skip

#: Every setting, by key.
ITEMS: Mapping[str, Item] = {item.key: item for item in _ITEMS}

#: Settings that host facts show under a name of their own.
_NAMED_ELSEWHERE = ("cpu.governor", "cpu.turbo", "cpu.smt", "gpu.driver", "kernel.release")


def item_key(key: str) -> str:
    """``gpu[0].power_limit_w`` → ``gpu.power_limit_w``."""
    return _INSTANCE.sub("", key)


def moves_energy(key: str) -> bool:
    """Whether a change of a setting moves energy by itself; one that is not known here does not."""
    item = ITEMS.get(item_key(key))
    return item is not None and item.moves_energy


def beside_facts(state: State) -> dict[str, Value]:
    """Settings that host facts do not show under a name of their own."""
    return {key: value for key, value in state.items() if item_key(key) not in _NAMED_ELSEWHERE}


def state_of(document: Mapping[str, object]) -> State:
    """The settings in a host's facts or an edge's readings; empty where there are none."""
    found = document.get("machine")
    if not isinstance(found, Mapping):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, bool | int | float | str)}


def differs(one: Value | None, other: Value | None) -> bool:
    """Whether two values of a setting are not the same."""
    if _is_number(one) and _is_number(other):
        assert one is not None
        assert other is not None
        return not math.isclose(float(one), float(other), rel_tol=_ROUNDING)
    return one != other


def _is_number(value: Value | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A value as text."""
    if value is None:
        return "not reported"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def shown_change(before: Value | None, after: Value | None) -> str:
    """A change as text; of texts of many words, such as a command line, the words that differ."""
    old, new = shown(before).split(), shown(after).split()
    if min(len(old), len(new)) >= _MANY_WORDS:
        gone, come = (" ".join(w for w in a if w not in b) for a, b in ((old, new), (new, old)))
        return "; ".join(
            [*([f"without {gone}"] if gone else []), *([f"with {come}"] if come else [])]
        )
    return f"from {shown(before)} to {shown(after)}"


@dataclass(frozen=True)
class Difference:
    """A setting that is not as expected.

    Attributes:
        key: as the host reports it; as it is expected where the host reports none.
        expected: the expected value.
        found: the value; None: the host does not report it.
        mend: the command that sets it.
    """

    key: str
    expected: Value
    found: Value | None
    mend: str


def differences(state: State, expected: Mapping[str, Value]) -> Iterator[Difference]:
    """Every setting that is not as expected, in the order of the expectations.

    A key without brackets is expected of all that there are.
    """
    for key, value in expected.items():
        matching: dict[str, Value | None] = {
            k: v for k, v in state.items() if key in (k, item_key(k))
        }
        for found_key, found in (matching or {key: None}).items():
            if differs(value, found):
                yield Difference(found_key, value, found, _mend(found_key, value))


def _mend(key: str, value: Value) -> str:
    which = _INSTANCE.search(key)
    micro = round(float(value) * 1e6) if _is_number(value) else ""
    text = shown(value)
    return ITEMS[item_key(key)].mend.format(
        value=text, VALUE=text.upper().replace("-", "_"), micro=micro,
        bit=int(bool(value)), inverse=int(not value), which=which.group(1) if which else "INDEX",
    )  # fmt: skip


def misfit(key: str, value: Value) -> str | None:
    """Why a value can't be expected of a known setting."""
    kind = ITEMS[item_key(key)].kind
    fits = {
        Kind.SWITCH: isinstance(value, bool),
        Kind.NUMBER: _is_number(value),
        Kind.TEXT: isinstance(value, str),
    }
    return None if fits[kind] else f"{key}: {shown(value)!r} must be {kind}" + (
        "; put it in quotes" if kind is Kind.TEXT else ""
    )  # fmt: skip
