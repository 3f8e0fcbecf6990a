"""The meter ``hwmon`` on trees of kernel files of known content; live, from files to judged joules."""

from __future__ import annotations

import csv
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wattbench.analysis import checks
from wattbench.analysis.meters.attempt import RawAttempt, evaluate
from wattbench.analysis.model.trials import TrialRow
from wattbench.worker.agent.meters import hwmon, present

AMD = {
    "hwmon0": {
        "name": "amd_energy", "energy1_label": "Ecore000", "energy1_input": "7",
        "energy2_label": "Esocket0", "energy2_input": "18446744073709551000",
        "energy3_label": "Esocket1", "energy3_input": "5000000",
    },
    "hwmon1": {"name": "k10temp", "temp1_input": "41000"},
    "hwmon2": {"name": "amdgpu", "power1_average": "61000000"},
    "hwmon3": {"name": "amdgpu", "power1_input": "250000000", "power1_average": "9"},
}  # fmt: skip
JETSON = {
    "hwmon0": {
        "name": "ina3221", "in1_label": "VDD_IN", "in1_input": "19000", "curr1_input": "800",
        "in2_label": "VDD_CPU_GPU_CV", "in2_input": "5000", "curr2_input": "1000",
        "in3_label": "NC", "in3_input": "0", "curr3_input": "0",
    },
}  # fmt: skip
GRACE = {
    f"hwmon{i}": {
        "name": "power_meter", "power1_average": str(watts * 1_000_000),
        "power1_average_interval": "50", "power1_oem_info": label,
    }
    for i, (label, watts) in enumerate(
        [("Module Power Socket 0", 500), ("Grace Power Socket 0", 120), ("Grace Power Socket 1", 130),
         ("CPU Power Socket 0", 90), ("SysIO Power Socket 0", 15)]
    )
}  # fmt: skip
ACPI = {
    "hwmon0": {
        "name": "power_meter",
        "power1_average": "212000000",
        "power1_average_interval": "1000",
    }
}
TWO_ACPI = ACPI | {"hwmon1": ACPI["hwmon0"]}


def plant(root: Path, chips: dict[str, dict[str, str]]) -> Path:
    for chip, files in chips.items():
        folder = root / "sys/class/hwmon" / chip
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("chips", "gpus", "row"),
    [
        (AMD, [], {"package/energy_uj/amd_energy-Esocket0": 18446744073709551000,
                   "package/energy_uj/amd_energy-Esocket1": 5000000}),
        (AMD, ["amd-0", "amd-1"], {"package/energy_uj/amd_energy-Esocket0": 18446744073709551000,
                                   "package/energy_uj/amd_energy-Esocket1": 5000000,
                                   "gpu0/power_uw@1000/amdgpu-0": 61_000_000,
                                   "gpu1/power_uw/amdgpu-1": 250_000_000}),
        (JETSON, [], {"system/power_uw/ina3221-VDD_IN": 15_200_000,
                      "rail-vdd-cpu-gpu-cv/power_uw/ina3221-VDD_CPU_GPU_CV": 5_000_000}),
        (GRACE, [], {"system/power_uw@50/power_meter-Module_Power_Socket_0": 500_000_000,
                     "package/power_uw@50/power_meter-Grace_Power_Socket_0": 120_000_000,
                     "package/power_uw@50/power_meter-Grace_Power_Socket_1": 130_000_000,
                     "rail-cpu-power-socket-0/power_uw@50/power_meter-CPU_Power_Socket_0": 90_000_000,
                     "rail-sysio-power-socket-0/power_uw@50/power_meter-SysIO_Power_Socket_0": 15_000_000}),
        (ACPI, [], {"system/power_uw@1000/power_meter-0": 212_000_000}),
        (TWO_ACPI, [], {"rail-power-meter-0/power_uw@1000/power_meter-0": 212_000_000,
                        "rail-power-meter-1/power_uw@1000/power_meter-1": 212_000_000}),
        ({"hwmon0": {"name": "nvme", "power1_input": "5"}}, [], {}),
    ],
    ids=["amd", "amd with gpus", "jetson", "grace", "acpi", "two acpi", "unknown chip"],
)  # fmt: skip
def test_each_chip_is_read_in_microwatts_or_microjoules_by_domain(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chips: Any,
    gpus: list[str],
    row: dict[str, int],
) -> None:
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(plant(tmp_path, chips)))
    meter = hwmon.Hwmon(gpus)
    assert dict(zip(meter.columns(), meter.row(), strict=True)) == row


def test_gpus_of_amd_are_its_own_and_all_others_nvidias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(plant(tmp_path, AMD)))
    owned = {type(m).kind: m.gpus for m in present(["amd-1", "GPU-5f"]) if m.gpus}
    assert owned == {"hwmon": ["amd-1"], "nvml": ["GPU-5f"]}


@pytest.mark.parametrize(
    ("chips", "said"),
    [
        ({}, "no energy or power file of a known chip below /sys/class/hwmon can be read"),
        (
            {"hwmon0": ACPI["hwmon0"] | {"power1_average": "0"}},
            "no hwmon file of a whole domain moves",
        ),
        ({"hwmon0": ACPI["hwmon0"] | {"power1_average": "NaN"}}, "no energy or power file"),
        ({"hwmon0": AMD["hwmon0"]}, "no hwmon file of a whole domain moves"),
        (TWO_ACPI, "no hwmon file of a whole domain moves"),
    ],
    ids=["none", "zero", "no number", "a counter that stands still", "which is what is not known"],
)
def test_a_meter_without_energy_is_refused_before_measuring(
    agent: Any, tmp_path: Path, chips: Any, said: str
) -> None:
    agent.environment["WATTBENCH_SYSROOT"] = str(plant(tmp_path / "root", chips))
    facts = agent.call("facts", {"meter": {"kind": "hwmon"}, "sample_s": 0, "docker": False})
    assert facts["meter"]["ok"] is False
    (problem,) = [p for p in facts["problems"] if p["code"] == "meter-failed"]
    assert problem["severity"] == "hard"
    assert said in problem["message"]
    assert "modprobe" in problem["action"]


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[Path]:
    """Two AMD sockets of 90 W and 60 W, and a board of 210 W."""
    root = plant(
        tmp_path / "root",
        {"hwmon0": AMD["hwmon0"], "hwmon1": ACPI["hwmon0"] | {"power1_average": "210000000"}},
    )
    folder = root / "sys/class/hwmon/hwmon0"
    files = {
        os.open(folder / f"energy{n}_input", os.O_WRONLY): w for n, w in ((2, 90.0), (3, 60.0))
    }
    over = threading.Event()

    def tick() -> None:
        for file, watts in files.items():
            os.pwrite(file, b"%020d\n" % int(watts * 1e6 * time.monotonic()), 0)

    def run() -> None:
        while not over.wait(0.002):
            tick()

    tick()
    ticker = threading.Thread(target=run)
    ticker.start()
    yield root
    over.set()
    ticker.join()


@pytest.mark.slow
def test_an_attempt_has_the_joules_of_both_sockets_and_the_board_beside(
    agent: Any, sockets: Path
) -> None:
    agent.environment["WATTBENCH_SYSROOT"] = str(sockets)
    agent.take()
    spec = agent.sh("sleep 2", meter={"kind": "hwmon", "interval_ms": 50})
    report = agent.run(spec)
    assert report["state"] == "done"
    folder = agent.attempt_folder(spec)
    rows = list(csv.DictReader((folder / "hwmon.csv").read_text().splitlines()))
    assert list(rows[0])[2:] == [
        "package/energy_uj/amd_energy-Esocket0", "package/energy_uj/amd_energy-Esocket1",
        "system/power_uw@1000/power_meter-0",
    ]  # fmt: skip
    raw = RawAttempt(report, {"hwmon.csv": (folder / "hwmon.csv").read_bytes()})
    row = TrialRow(
        run_id="r", host="lab-a", kind="workload", block=1, position=1, planned_position=1,
        image="a", attempt=1,
    )  # fmt: skip
    record = evaluate(raw, expected={"meter": "hwmon"}, plan_row=row)
    (record,) = checks.apply([record])
    by_name = {d.name: d for d in record.domains}
    seconds = report["command"]["ended"]["mono_s"] - report["command"]["started"]["mono_s"]
    package = by_name["package"]
    assert package.counted
    assert abs(package.energy_j - 150 * seconds) <= package.uncertainty_j + 150 * 0.05
    assert record.row.energy_scope == "package"
    board = by_name["system"]
    assert not board.counted
    assert board.energy_j == pytest.approx(210 * seconds, rel=0.01)
    assert not [f for f in record.findings if f.code == "meter-disagree"]
