"""Every fault of the stand-in and every exit code of EnergiBridge, from the agent to the finding."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import STAND_IN, Case, Chain, Lives

pytestmark = pytest.mark.slow  # attempts in real time

#: A model without CPU power: its joules at the window's edges are known exactly.
FLAT = "cpus:2,idle_w:40,core_w:0,dram_core_w:0"
#: A row by which the workload runs, on a slow machine too, and that it outlives.
ROW = 9
LONG = {"seconds": 1.6}
#: A clock that the reader can't have overlooked.
STEP_MS = 2500


@dataclass(frozen=True)
class Ends:
    """How a case has to end.

    Attributes:
        status: of the trial.
        codes: findings that must be there.
        state: of the attempt.
        says: part of the reason, or of the agent's message.
        outlived: whether the work went on without its meter; None: either.
        log: whether the meter left a file.
        wraps: counted.
    """

    status: str
    codes: frozenset[str] = frozenset()
    state: str = "done"
    says: str = ""
    outlived: bool | None = False
    log: bool = True
    wraps: int = 0


@dataclass(frozen=True)
class Fault:
    """One case and its end.

    Attributes:
        switches: those of the stand-in that it tries.
    """

    case: Case
    ends: Ends
    switches: frozenset[str] = field(default=frozenset())


def fault(switches: str, ends: Ends, **case: Any) -> Fault:
    """A case by its switches: ``name:value,…``."""
    names = frozenset(item.partition(":")[0] for item in switches.split(",") if item)
    given = ",".join(filter(None, (FLAT, switches)))
    return Fault(Case(given, **case), ends, names)


def failed(says: str, *codes: str, state: str = "failed", **more: Any) -> Ends:
    """The attempt did not end well."""
    return Ends("failed", frozenset({"trial-failed", *codes}), state, says, **more)


def invalid(code: str, says: str, **more: Any) -> Ends:
    """The attempt ended well, its joules can't be believed."""
    return Ends("invalid", frozenset({code}), "done", says, **more)


def orphaned(says: str) -> Ends:
    """The meter ended first, its workload ran on and was ended by the agent."""
    return failed(says, "container-orphaned", outlived=True)


def signal_the_meter(number: int, at_start: bool, folder: Path) -> None:
    """From outside, as an operator or the kernel would."""
    deadline = time.monotonic() + 30
    known: dict[str, Any] = {}
    while time.monotonic() < deadline:
        known = json.loads((folder / "supervisor.json").read_text() or "{}")
        if "session" in known and (at_start or (folder / "command.json").exists()):
            break
        time.sleep(0.005)
    os.kill(known["session"]["pid"], number)


VALID = Ends("valid")
CUDA = {"device": "cuda"}
MAXIMUM = {"seconds": 4.0}

FAULTS: dict[str, Fault] = {
    # the model's own numbers, and the platforms
    "nothing": fault("", VALID),
    "amd": fault("platform:amd", Ends("valid", frozenset({"meter-scope"}))),
    "an unknown cpu": fault("platform:unknown", Ends("failed", frozenset({"meter-silent"}), says="no energy")),
    "twelve cpus, another unit, low counters": fault("cpus:12,unit:16,offset_j:100", VALID),
    "a busy cpu": Fault(
        Case("idle_w:5,core_w:20,dram_idle_w:1,dram_core_w:2", says={"spin": 0.3}), VALID,
        frozenset({"idle_w", "core_w", "dram_idle_w", "dram_core_w"}),
    ),
    # counters
    "an intel wrap": fault("wrap_after_j:20", Ends("valid", frozenset({"counter-wrap"}), wraps=1)),
    "an amd wrap": fault("platform:amd,wrap_after_j:20", Ends("valid", frozenset({"counter-wrap"}), wraps=1)),
    "counters that are reset": fault(f"reset:{ROW}", invalid("meter-silent", "was reset"), says=LONG),
    # the gpu
    "a gpu that swings": fault("gpus:1,gpu_w:100,gpu_swing_w:30,gpu_period_s:1.3", VALID, **CUDA),
    "a gpu without nvml": fault("", invalid("meter-silent", "gpu0 was given to the trial"), **CUDA),
    "a gpu at rest": fault("gpus:1,gpu_usage:0", invalid("gpu-idle", "never exceeds 0 %"), **CUDA),
    "a gpu whose power was never read": fault(
        "gpus:1,gpu_stale:1", invalid("meter-silent", "gpu0 was given to the trial"), **CUDA
    ),
    "a gpu whose power stands still": fault(
        f"gpus:1,gpu_swing_w:50,gpu_stale:{ROW}",
        invalid("sensor-stale", "while utilisation went"), says={"seconds": 3.0}, **CUDA,
    ),
    "a gpu that is lost": fault(f"gpus:1,gpu_lost:{ROW}", orphaned("GpuLost"), says=LONG, **CUDA),
    # the exit codes' table
    "the command ends with 7": fault("", failed("the workload ended with 7"), says={"exit": 7}),
    "the command ends with 1": fault("", failed("the workload ended with 1"), says={"exit": 1}),
    "the command ends with 101": fault("", failed("the workload ended with 101"), says={"exit": 101}),
    "the command is killed": fault("", failed("the workload ended with 137"), says={"signal": 9}),
    "the meter's child is killed": fault(f"command_killed:{ROW}", failed("on a `None` value", outlived=None), says=LONG),
    "the command is not found by the meter": fault("not_found", failed("Failed to execute command")),
    "the command is not found": fault("", failed("/nonexistent/program"), command=("/nonexistent/program",)),
    "no command": fault("refused:1", failed("ended with 1 before", log=False)),
    "an unknown flag": fault("refused:2", failed("ended with 2 before", log=False)),
    "the limit of -m": fault("max_execution:2", orphaned("the meter ended with 0 before"), says=MAXIMUM),
    "counters unreadable at the start": fault("msr_start", failed("/dev/cpu/0/msr", log=False)),
    "counters unreadable later": fault(f"msr_later:{ROW}", orphaned("failed to read MSR"), says=LONG),
    "a sample longer than the interval": fault(f"slow_sample:{ROW}", orphaned("overflow when subtracting"), says=LONG),
    "the output's folder is missing": fault("no_folder", failed("Failed to open output", log=False)),
    "TERM": fault(f"terminated:{ROW}", failed("the meter ended with 1", outlived=None), says=LONG),
    "TERM without a handler": fault(f"terminated:{ROW},handler:0", orphaned("the meter ended with -15"), says=LONG),
    "KILL": fault(f"killed:{ROW}", orphaned("the meter ended with -9"), says=LONG),
    "KILL inside a row": fault(f"partial_row:{ROW}", orphaned("the meter ended with -9"), says=LONG),
    "KILL inside the last row": fault("partial_row:-1", failed("the meter ended with -9")),
    **{
        f"{name} from outside{' at the start' if at_start else ''}": fault(
            "", failed("the meter ended with", outlived=None, log=not at_start),
            meddle=functools.partial(signal_the_meter, number, at_start),
        )
        for name, number, at_start in (
            ("INT", signal.SIGINT, False), ("HUP", signal.SIGHUP, False),
            ("TERM", signal.SIGTERM, True), ("KILL", signal.SIGKILL, True),
        )
    },
    # clocks
    "a clock that jumps ahead": fault(
        f"clock_step_ms:{STEP_MS},clock_step_row:{ROW}",
        invalid("clock-skew", "its clock is not the host's"), says=LONG,
    ),
    "a clock that jumps back": fault(
        f"clock_step_ms:-{STEP_MS},clock_step_row:{ROW}", orphaned("SystemTimeError"), says=LONG
    ),
    # what a trial of another kind does
    "a run that takes too long": fault(
        "", failed("stopped after timeout_s", state="timeout"), says={"seconds": 30}, spec={"timeout_s": 1}
    ),
    "a workload that is suspended": fault(
        "", failed("stopped after timeout_s", state="timeout"),
        says={"signal": int(signal.SIGSTOP), "seconds": 0.1}, spec={"timeout_s": 2},
    ),
    "an idle host": fault("", VALID, kind="idle"),
    "the control workload": fault("", VALID, kind="control"),
    "modelled joules": fault("", Ends("valid", frozenset({"modelled-energy"})), meter="modelled"),
    "a window shorter than the interval": fault(
        "", Ends("valid", frozenset({"sampling-coarse"})), says={"seconds": 0.02}, interval_ms=300
    ),
    # the work
    "another device": fault("", invalid("device-mismatch", "ran on cuda"), says={"device": "cuda"}),
    "other iterations": fault("", invalid("unequal-work", "2 iterations asked for"), says={"iterations": 3}),
}  # fmt: skip


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Lives:
    """All cases, side by side: they mostly sleep."""
    chain = Chain(tmp_path_factory.mktemp("faults"))
    return chain.run_all({name: fault.case for name, fault in FAULTS.items()})


@pytest.mark.parametrize("name", ["a run that takes too long", "a workload that is suspended"])
def test_a_timeout_is_not_taken_for_a_step_of_the_clock(lives: Lives, name: str) -> None:
    """While the work is being ended the meter goes on: none of its rows may lie beyond the edge."""
    live = lives[name]
    assert "clock-skew" not in live.found
    last = live.raw["energibridge.csv"].decode().splitlines()[-1].split(",")[1]
    assert float(last) / 1000 < live.report["edges"]["after"]["unix_s"]


@pytest.mark.parametrize("name", FAULTS)
def test_fault_ends_with_its_status_its_findings_and_a_reason(lives: Lives, name: str) -> None:
    live, ends = lives[name], FAULTS[name].ends
    row = live.record.row
    shown = f"{row.reason} | {live.report['message']}"
    assert (row.status, live.report["state"]) == (ends.status, ends.state), shown
    assert ends.codes <= set(live.found), shown
    assert ends.says in shown
    assert (row.reason is None) == (row.status == "valid")
    assert row.wraps == ends.wraps
    if ends.outlived is not None:
        assert live.report["meter"]["outlived"] is ends.outlived


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_left_running_and_the_raw_files_are_kept(lives: Lives, name: str) -> None:
    live, ends = lives[name], FAULTS[name].ends
    assert live.left == []
    assert ("energibridge.csv" in live.raw) == ends.log
    assert {"stderr.log", "workload.jsonl", "meter.log"} <= set(live.raw)
    for file, facts in live.report["files"].items():
        if file in live.raw:
            assert len(live.raw[file]) == facts["bytes"]


@pytest.mark.parametrize("name", [n for n, f in FAULTS.items() if f.ends.status == "valid"])
def test_joules_of_a_valid_trial_are_the_truth_within_their_uncertainty(
    lives: Lives, name: str
) -> None:
    live = lives[name]
    counted = [d for d in live.record.domains if d.counted]
    assert counted
    least, most, doubt = 0.0, 0.0, live.record.row.energy_uncertainty_j
    assert doubt is not None
    for domain in counted:
        low, high = live.true_joules(domain.name)
        # Half-widths hold in 95 % of windows; a stalled sample is this machine's, not the meter's.
        slack = domain.uncertainty_j + live.stall_s() * 200
        assert low - slack - 0.01 <= domain.energy_j <= high + slack + 0.01, domain
        least, most = least + low, most + high
    assert live.record.row.energy_j is not None
    assert least - doubt - live.stall_s() * 200 <= live.record.row.energy_j
    assert live.record.row.energy_j <= most + doubt + live.stall_s() * 200
    assert live.record.row.energy_j == pytest.approx(sum(d.energy_j for d in counted))


@pytest.mark.parametrize("name", [n for n, f in FAULTS.items() if f.ends.status == "failed"])
def test_what_broke_off_before_it_spoke_is_no_proof_of_a_wrong_device(
    lives: Lives, name: str
) -> None:
    from wattbench.run.retry import is_deterministic

    assert not is_deterministic(lives[name].record)
    assert "device-mismatch" not in lives[name].found


def test_faults_that_another_attempt_would_repeat_are_not_tried_again(
    lives: Lives,
) -> None:
    from wattbench.run.retry import is_deterministic

    for name in ("another device", "other iterations", "a gpu at rest"):
        assert is_deterministic(lives[name].record), name


def test_every_switch_of_the_stand_in_is_tried() -> None:
    listed = subprocess.run(
        [sys.executable, str(STAND_IN), "--switches"], capture_output=True, text=True, check=True
    ).stdout
    known = {line.split(" ")[0] for line in listed.splitlines()}
    assert known == frozenset().union(*(fault.switches for fault in FAULTS.values()))
