"""CPU time of a controller on the measured host is distinguished from that of others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wattbench.worker.agent.sysfs import family_cpu_ns

#: Burns CPU in itself and in a child that ends, then in one that lives; says how much it burned, as the
#: kernel counts it, and waits.
FAMILY = """\
import os, resource, subprocess, sys, time
def burn(s):
    while time.process_time() < s: pass
burner = [sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass"]
subprocess.run(burner)
living = subprocess.Popen([*burner[:2], burner[2] + "\\nprint(flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
living.stdout.readline()
burn(0.3)
print(os.getpid(), flush=True)
input()
living.communicate(b"\\n")
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(one.ru_utime + one.ru_stime for one in used), flush=True)
"""


def test_the_cpu_time_of_services_and_all_that_they_started_is_counted(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        (tmp_path / "scheduler.pid").write_text(f"{pid} 123 boot settings\n")
        (tmp_path / "gone.pid").write_text("999999999 123 boot settings\n")
        (tmp_path / "torn.pid").write_text("")
        counted_s = family_cpu_ns(str(tmp_path)) / 1e9
        process.stdin.write("\n")
        process.stdin.flush()
        kernel_s = float(process.stdout.readline())
        process.stdin.close()
    # /proc counts in ticks of 10 ms, per process twice; the rest is the end of the living child
    assert counted_s == pytest.approx(kernel_s, abs=0.15)
    assert counted_s > 0.8


def test_an_empty_folder_has_used_nothing(tmp_path: Path) -> None:
    assert family_cpu_ns(str(tmp_path)) == 0
    assert family_cpu_ns(str(tmp_path / "absent")) == 0


#: Burns CPU for three seconds, writes when it was done, and waits.
BUSY = """\
import sys, time
end = time.monotonic() + 3
print(flush=True)
while time.monotonic() < end: pass
open(sys.argv[1], "w").write(str(time.monotonic()))
input()
"""


def test_a_window_opens_once_the_controller_on_the_host_is_at_rest(
    agent: Any, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(done)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "scheduler.pid").write_text(f"{process.pid} 123 boot settings\n")
        agent.take("run-1")
        report = agent.run(agent.sh("true", controller=str(tmp_path)))
        process.communicate("\n")
    assert report["state"] == "done"
    assert report["edges"]["before"]["mono_s"] > float(done.read_text())


def test_an_attempt_that_is_ended_before_its_window_starts_no_workload(
    agent: Any, tmp_path: Path
) -> None:
    agent.take("run-1")
    spec = agent.sh(f"touch {tmp_path}/started", controller=str(tmp_path), lead_s=600)
    agent.call("start", spec)
    agent.call("cleanup", {"owner": "run-1"})
    assert agent.over(spec)["state"] == "killed"
    assert not (tmp_path / "started").exists()
