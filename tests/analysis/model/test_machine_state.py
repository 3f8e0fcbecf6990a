"""Expected settings of a machine, and how a change of one is said."""

from __future__ import annotations

import re

import pytest

from wattbench.analysis.model import machine_state
from wattbench.analysis.model.machine_state import ITEMS, Kind, Value, differences, shown_change

STATE = {
    "gpu[0].power_limit_w": 400.0, "gpu[1].power_limit_w": 300.0, "cpu.turbo": True,
    "rapl.package[1].long_term_w": 150.0, "kernel.thp": "madvise", "gpu[0].compute_mode": "default",
}  # fmt: skip


def test_a_key_without_brackets_is_expected_of_all_that_there_are() -> None:
    found = list(differences(STATE, {"gpu.power_limit_w": 400}))
    assert [(d.key, d.found, d.mend) for d in found] == [
        ("gpu[1].power_limit_w", 300.0, "sudo nvidia-smi -i 1 -pl 400")
    ]
    assert not list(differences(STATE, {"gpu[0].power_limit_w": 400}))


@pytest.mark.parametrize(
    ("key", "value", "command"),
    [
        ("cpu.turbo", False, "echo 1 > $p || echo 0 > /sys/devices/system/cpu/cpufreq/boost"),
        ("rapl.package.long_term_w", 120.5, "= package-1 ] && echo 120500000 > $z/constraint_0_power_limit_uw"),
        ("rapl.package.short_term_s", 0.01, "echo 10000 > $z/constraint_1_time_window_us"),
        ("kernel.thp", "never", "echo never | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"),
        ("gpu.compute_mode", "exclusive-process", "sudo nvidia-smi -i 0 -c EXCLUSIVE_PROCESS"),
        ("kernel.numa_balancing", False, "sudo sysctl kernel.numa_balancing=0"),
        ("gpu.ecc", True, "sudo nvidia-smi -i INDEX -e 1"),
    ],
)  # fmt: skip
def test_each_difference_has_the_command_that_sets_it(key: str, value: Value, command: str) -> None:
    (found,) = differences(STATE, {key: value})
    assert command in found.mend


def test_what_the_host_does_not_report_is_a_difference() -> None:
    (found,) = differences({}, {"cpu.smt": False})
    assert (found.key, found.found) == ("cpu.smt", None)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (400, 400.0, False), (400, 400.1, False), (400, 401, True), (0, 0.0, False), (0, 0.01, True),
        (False, None, True), ("off", "off", False), ("never", "always", True),
    ],
)  # fmt: skip
def test_numbers_are_equal_within_the_rounding_of_hardware_and_all_else_exactly(
    one: Value, other: Value, expected: bool
) -> None:
    assert machine_state.differs(one, other) is expected


def test_every_setting_has_a_command_that_can_be_filled_in() -> None:
    values = {Kind.SWITCH: True, Kind.NUMBER: 1.5, Kind.TEXT: "some-text"}
    for key, item in ITEMS.items():
        (found,) = differences({}, {key: values[item.kind]})
        assert found.mend
        assert not re.search(r"\{\w*\}", found.mend)


def test_of_a_command_line_only_the_words_that_differ_are_said() -> None:
    old = "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro mitigations=off quiet"
    new = old.replace("mitigations=off ", "isolcpus=2 ")
    assert shown_change(old, new) == "without mitigations=off; with isolcpus=2"
    assert shown_change(True, False) == "from on to off"
    assert shown_change(400.0, None) == "from 400 to not reported"
