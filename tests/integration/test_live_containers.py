"""EnergiBridge's ways to end around a real container, from the agent to the finding.

Whatever ends the meter or the docker client leaves a container at work: each must be found out, stopped,
removed and said.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from tests.support.live_chain import Case, Chain, Lives
from wattbench.run.retry import is_deterministic

pytestmark = pytest.mark.docker

FLAT = "cpus:2,idle_w:40,core_w:0,dram_core_w:0"
#: A row, at 5 a second, by which the container has long been running.
ROW = 20
#: Seconds that the container works, and those that an orphaned one would.
SHORT, LONG = 1, 600
WORKLOAD = """
event() { printf '{"event": "%s", "unix_s": %s%s}\\n' "$1" "$(date +%s.%N)" "$2"; }
event start ', "program": "sh", "precision": "fp32"'
event device ', "requested": "cpu", "actual": "cpu"'
event phase ', "name": "steady:64", "edge": "begin"'
@WORK@
event phase ', "name": "steady:64", "edge": "end"'
event result ', "phase": "steady:64", "resolution": 64, "iterations": 2, "batch": 1, "images": 2'
event end ', "images": 2'
"""

#: Name → switches, work, status, part of the message, whether a container was left to the agent.
CASES: dict[str, tuple[str, str, str, str, bool]] = {
    "nothing": ("", f"sleep {SHORT}", "valid", "done", False),
    "exit 7": ("", "exit 7", "failed", "the workload ended with 7", False),
    "killed inside": ("", "sh -c 'kill -9 $$' || exit $?", "failed", "the workload ended with 137", False),
    "counters unreadable later": (f"msr_later:{ROW}", f"sleep {LONG}", "failed", "failed to read MSR", True),
    "a slow sample": (f"slow_sample:{ROW}", f"sleep {LONG}", "failed", "overflow when subtracting", True),
    "a clock that jumps back": (f"clock_step_ms:-9000,clock_step_row:{ROW}", f"sleep {LONG}", "failed", "SystemTimeError", True),
    "TERM": (f"terminated:{ROW}", f"sleep {LONG}", "failed", "the meter ended with 1 ", True),
    "TERM without a handler": (f"terminated:{ROW},handler:0", f"sleep {LONG}", "failed", "the meter ended with -15", True),
    "KILL": (f"killed:{ROW}", f"sleep {LONG}", "failed", "the meter ended with -9", True),
    "the limit of -m": ("max_execution:4", f"sleep {LONG}", "failed", "the meter ended with 0 ", True),
    "the client is killed": (f"command_killed:{ROW}", f"sleep {LONG}", "failed", "the meter ended with 101", True),
    "too long": ("", f"sleep {LONG}", "failed", "stopped after timeout_s", False),
}  # fmt: skip


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Lives:
    if shutil.which("docker") is None or not docker("version", "--format", "{{.Server.Version}}"):
        pytest.skip("no Docker daemon here")
    listed = docker("images", "--no-trunc", "--format", "{{.Repository}} {{.ID}}").splitlines()
    bases = [line.split()[1] for line in listed if line.split()[0].endswith("/base")]
    if not bases:
        pytest.skip("no base image here: run make demo first")

    def case(switches: str, work: str) -> Case:
        spec: dict[str, Any] = {
            "runtime": "docker", "image": {"name": "bare", "ref": bases[0]}, "env": {},
            "entrypoint": "/bin/sh", "command": ["-c", WORKLOAD.replace("@WORK@", work)],
            "timeout_s": 60 if switches or work != f"sleep {LONG}" else 5,
        }  # fmt: skip
        return Case(",".join(filter(None, (FLAT, switches))), interval_ms=200, spec=spec)

    chain = Chain(tmp_path_factory.mktemp("containers"))
    return chain.run_all({name: case(*settings[:2]) for name, settings in CASES.items()}, at_once=4)


@pytest.mark.parametrize("name", CASES)
def test_no_container_outlives_its_attempt_unsaid(lives: Lives, name: str) -> None:
    live, (_, _, status, message, orphaned) = lives[name], CASES[name]
    assert live.record.row.status == status, live.record.row.reason
    assert message in live.report["message"]
    assert live.report["meter"]["outlived"] is orphaned
    assert ("container-orphaned" in live.found) is orphaned
    assert live.left == []
    assert docker("ps", "-aq", "--filter", f"label=wattbench.attempt={live.report['id']}") == ""
    assert live.report["container"]["exit_code"] is not None
    if status == "failed":
        assert "trial-failed" in live.found
        assert not is_deterministic(live.record)


def test_joules_of_a_container_s_window_are_the_truth(lives: Lives) -> None:
    live = lives["nothing"]
    for domain in (d for d in live.record.domains if d.counted):
        low, high = live.true_joules(domain.name)
        slack = domain.uncertainty_j + 200 * live.stall_s() + 0.01
        assert low - slack <= domain.energy_j <= high + slack
