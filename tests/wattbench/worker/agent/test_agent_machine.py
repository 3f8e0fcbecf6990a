"""Settings of the machine: a /sys and /proc of known content, and a library with NVML's interface."""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import nvml_library
from wattbench.analysis import checks
from wattbench.analysis.meters.attempt import RawAttempt, evaluate
from wattbench.analysis.model import machine_state
from wattbench.analysis.model.trials import TrialRow
from wattbench.worker.agent import machine
from wattbench.worker.agent.meters import nvml, rapl

CPU = "sys/devices/system/cpu"
ZONE = "sys/class/powercap/intel-rapl"
FILES = {
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro mitigations=auto quiet",
    "proc/cpuinfo": "processor: 0\nmicrocode\t: 0x2b000603\n\nprocessor: 1\nmicrocode\t: 0x2b000603",
    "proc/stat": "cpu  1000 0 500 9000 100 0 0 0 0 0",
    "proc/sys/kernel/numa_balancing": "1",
    "sys/class/dmi/id/bios_version": "2.19",
    "sys/class/dmi/id/bios_date": "03/04/2026",
    "sys/firmware/acpi/platform_profile": "performance",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    f"{CPU}/online": "0-1",
    f"{CPU}/intel_pstate/no_turbo": "1",
    f"{CPU}/smt/active": "0",
    f"{CPU}/vulnerabilities/spectre_v2": "Mitigation: Enhanced IBRS",
    f"{CPU}/vulnerabilities/meltdown": "Not affected",
    f"{ZONE}:0/name": "package-0",
    f"{ZONE}:0/energy_uj": "5000000",
    f"{ZONE}:0/max_energy_range_uj": "262143328850",
    f"{ZONE}:0/constraint_0_name": "long_term",
    f"{ZONE}:0/constraint_0_power_limit_uw": "150000000",
    f"{ZONE}:0/constraint_0_time_window_us": "27983872",
    f"{ZONE}:0/constraint_1_name": "short_term",
    f"{ZONE}:0/constraint_1_power_limit_uw": "317000000",
    f"{ZONE}:0/constraint_1_time_window_us": "2440",
    f"{ZONE}:0:0/name": "dram",
    f"{ZONE}:0:0/constraint_0_name": "long_term",
    f"{ZONE}:0:0/constraint_0_power_limit_uw": "0",
    f"{ZONE}:1/name": "psys",
    f"{ZONE}:1/constraint_0_name": "long_term",
    f"{ZONE}:1/constraint_0_power_limit_uw": "300000000",
}
for cpu, (governor, lowest) in enumerate([("performance", 800), ("powersave", 1200)]):
    FILES |= {
        f"{CPU}/cpu{cpu}/cpufreq/scaling_driver": "intel_pstate",
        f"{CPU}/cpu{cpu}/cpufreq/scaling_governor": governor,
        f"{CPU}/cpu{cpu}/cpufreq/energy_performance_preference": "performance",
        f"{CPU}/cpu{cpu}/cpufreq/scaling_min_freq": f"{lowest}000",
        f"{CPU}/cpu{cpu}/cpufreq/scaling_max_freq": "3500000",
        f"{CPU}/cpu{cpu}/cpuidle/state0/name": "POLL",
        f"{CPU}/cpu{cpu}/cpuidle/state0/disable": "0",
        f"{CPU}/cpu{cpu}/cpuidle/state1/name": "C1E",
        f"{CPU}/cpu{cpu}/cpuidle/state1/disable": "0",
        f"{CPU}/cpu{cpu}/cpuidle/state2/name": "C6",
        f"{CPU}/cpu{cpu}/cpuidle/state2/disable": "1",
    }

KNOWN = {
    "cpu.online": "0-1", "cpu.driver": "intel_pstate", "cpu.governor": "performance/powersave",
    "cpu.epp": "performance", "cpu.min_mhz": 800.0, "cpu.max_mhz": 3500.0, "cpu.turbo": False,
    "cpu.smt": False, "cpu.c_states": "POLL+C1E", "cpu.microcode": "0x2b000603",
    "bios.version": "2.19", "bios.date": "03/04/2026", "bios.profile": "performance",
    "kernel.command_line": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro mitigations=auto quiet",
    "kernel.numa_balancing": True, "kernel.thp": "madvise",
    "mitigation[spectre_v2]": "Mitigation: Enhanced IBRS", "mitigation[meltdown]": "Not affected",
    "rapl.package[0].long_term_w": 150.0, "rapl.package[0].long_term_s": 27.983872,
    "rapl.package[0].short_term_w": 317.0, "rapl.package[0].short_term_s": 0.00244,
    "rapl.dram[0].long_term_w": 0.0, "rapl.psys[1].long_term_w": 300.0,
}  # fmt: skip
GPU_B = {
    "power_limit_w": 400.0, "default_limit_w": 700.0, "enforced_limit_w": 400.0,
    "application_sm_mhz": 1980, "application_memory_mhz": 2619, "max_sm_mhz": 1980,
    "persistence": True, "ecc": True, "compute_mode": "exclusive-process", "driver": "999.1",
    "vbios": "96.00.99.00.01",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's /proc and /sys."""
    folder = tmp_path / "machine"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


def test_settings_are_those_of_the_kernels_files(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(root))
    state = machine.machine_state([rapl.Powercap()])
    state.pop("kernel.release")
    assert state == KNOWN


def test_what_a_platform_does_not_report_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(tmp_path))
    assert set(machine.machine_state([rapl.Powercap()])) == {"kernel.release"}


def test_every_setting_that_is_read_can_be_expected() -> None:
    read = [*KNOWN, "kernel.release", *(f"gpu[1].{name}" for name in GPU_B), "gpu[1].mig"]
    assert {machine_state.item_key(key) for key in read} <= set(machine_state.ITEMS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("limit_mw 300000", {"gpu[1].power_limit_w": 300.0, "gpu[1].enforced_limit_w": 300.0}),
        ("ecc 0", {"gpu[1].ecc": False}),
    ],
)
def test_a_cap_or_ecc_that_changes_in_mid_run_is_an_error_of_its_trial(
    agent: Any, root: Path, tmp_path: Path, line: str, expected: dict[str, Any]
) -> None:
    """Live: agent, stand-in NVML and tree of kernel files; the workload itself changes the setting."""
    state = tmp_path / "state"
    agent.environment |= {
        "WATTBENCH_SYSROOT": str(root), "WATTBENCH_NVML": str(nvml_library.build(tmp_path)),
        "NVML_STATE": str(state),
    }  # fmt: skip
    agent.take()
    meter = {"kind": "nvml", "interval_ms": 50}
    steady, changed, after = (
        agent.run(agent.sh(script, trial=f"{n:03d}-pip", gpus=["GPU-b"], meter=meter))
        for n, script in enumerate(["true", f"echo {line} > {state}", "true"], 1)
    )
    first = steady["edges"]["before"]["machine"]
    assert {k: v for k, v in first.items() if k.startswith("gpu")} == {
        f"gpu[1].{name}": value for name, value in GPU_B.items()
    }
    assert {k: v for k, v in first.items() if k in KNOWN} == KNOWN
    assert steady["edges"]["after"]["machine"] == first
    assert changed["edges"]["after"]["machine"] == first | expected

    records = [
        evaluate(
            RawAttempt(report),
            expected={"meter": "nvml", "gpus": ["GPU-b"]},
            plan_row=TrialRow(
                run_id="r", host="lab-a", kind="workload", block=1, position=n,
                planned_position=n, image="a", attempt=1,
            ),
        )
        for n, report in enumerate([steady, changed, after], 1)
    ]  # fmt: skip
    records, whole = checks.judge(records)
    found = [[f for f in record.findings if f.code == "state-changed"] for record in records]
    assert [len(of_trial) for of_trial in found] == [0, 1, 0]
    assert found[1][0].severity == "error"
    for key in expected:
        assert f"{key} changes inside the window from" in found[1][0].message
    between = [f for f in whole if f.code == "state-changed" and f.verdict == "found"]
    assert [(f.subject, f.severity) for f in between] == [("host lab-a", "error")] * len(expected)
    assert all("at trial lab-a/003-a/1" in f.message for f in between)


def judged(report: dict[str, Any], folder: Path) -> Any:
    row = TrialRow(
        run_id="r", host="lab-a", kind="workload", block=1, position=1, planned_position=1,
        image="a", attempt=1,
    )  # fmt: skip
    raw = RawAttempt(report, {"nvml.csv": (folder / "nvml.csv").read_bytes()})
    (record,) = checks.apply([evaluate(raw, expected={"meter": "nvml"}, plan_row=row)])
    return record


@pytest.mark.parametrize("who", ["an intruder", "the trial itself"])
def test_an_intruder_on_the_gpu_in_mid_window_is_found_and_the_trial_itself_is_none(
    agent: Any, root: Path, tmp_path: Path, who: str
) -> None:
    state = tmp_path / "state"
    agent.environment |= {
        "WATTBENCH_SYSROOT": str(root), "WATTBENCH_NVML": str(nvml_library.build(tmp_path)),
        "NVML_STATE": str(state),
    }  # fmt: skip
    with subprocess.Popen(["sleep", "600"]) as intruder:
        try:
            pid = intruder.pid if who == "an intruder" else "$$"
            agent.take()
            csv = "$(dirname $WATTBENCH_SPOOL)/spool/trials/run-1/001-pip/1/nvml.csv"
            # the workload waits until the process that it planted has been sampled thrice
            script = (
                f"echo pid {pid} > {state}; n=$(wc -l < {csv}); "
                f"while [ $(wc -l < {csv}) -lt $((n + 3)) ]; do sleep 0.02; done; rm {state}"
            )
            spec = agent.sh(script, gpus=["GPU-a"], meter={"kind": "nvml", "interval_ms": 50})
            report = agent.run(spec)
        finally:
            intruder.kill()
    assert report["state"] == "done"
    record = judged(report, agent.attempt_folder(spec))
    found = [f for f in record.findings if f.code == "host-busy" and "GPU" in f.message]
    if who == "an intruder":
        assert record.series["gpu0_foreign"]["max"] == 1
        assert "1 other process computed on GPU GPU-a inside the window" in found[0].message
        assert found[0].is_found_error
    else:
        assert record.series["gpu0_foreign"]["max"] == 0
        assert not found


def test_a_process_of_the_host_or_of_another_container_is_foreign_to_a_container(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            while not Path(f"/proc/{process.pid}/environ").read_bytes():
                time.sleep(0.001)  # Popen returns while the kernel is still at exec
            assert nvml.foreign([process.pid], "process", str(tmp_path)) == 1
            text = Path(f"/proc/{process.pid}/cgroup").read_text()
            inside = (
                re.search(r"[0-9a-f]{64}", text) is not None
            )  # these tests may run in a container
            assert nvml.foreign([process.pid], "docker", str(tmp_path)) == (0 if inside else 1)
        finally:
            process.kill()
    assert nvml.foreign([process.pid], "process", str(tmp_path)) == 0  # it has ended


def test_facts_report_the_settings(agent: Any, root: Path) -> None:
    agent.environment["WATTBENCH_SYSROOT"] = str(root)
    machine = agent.call("facts", {"sample_s": 0, "docker": False})["machine"]
    assert {k: v for k, v in machine.items() if k in KNOWN} == KNOWN
    one = dict(itertools.islice(KNOWN.items(), 3))
    assert not list(machine_state.differences(machine, one))
