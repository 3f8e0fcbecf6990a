"""Programs of a user's through the DAG, on a virtual host: in Python, in a shell and in C, without ours inside."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.integration.conftest import Lab
from wattbench.dag_runs import Run

pytestmark = pytest.mark.docker

PYTHON = """\
import sys, time
print("model loaded", flush=True)
time.sleep(1)
print("processed 500 documents, checksum 00ff")
"""
SHELL = "echo model loaded; sleep 1; echo processed 500 documents, checksum 00ff\n"
C = """\
#include <stdio.h>
#include <unistd.h>
int main(void) {
    puts("model loaded"); fflush(stdout); sleep(1);
    puts("processed 500 documents, checksum 00ff");
    return 0;
}
"""
WORKLOAD: dict[str, Any] = {
    "command": ["python3", "/bench/bench.py"],
    "files": {
        "/bench/bench.py": "bench.py",
        "/bench/bench.sh": "bench.sh",
        "/bench/bench": "bench.bin",
    },
    "unit": {"name": "document", "pattern": r"processed (\d+)"},
    "same_work": {"pattern": "checksum (.*)"},
    "ready": {"pattern": "model loaded"},
}


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    folder = lab.config / "experiments"
    (folder / "bench.py").write_text(PYTHON)
    (folder / "bench.sh").write_text(SHELL)
    (folder / "bench.c").write_text(C)
    argv = ["cc", "-static", "-o", str(folder / "bench.bin"), str(folder / "bench.c")]
    subprocess.run(argv, check=True)
    image = {"ref": lab.image("pip-numpy"), "env": {"PYTHONPATH": ""}}
    lab.write_experiment(
        "it-programs",
        hosts=[lab.bed.hosts[0].name],
        workload=WORKLOAD,
        reference="python",
        container={"memory": "256m", "tmpfs": {"/scratch": "1m"}},
        images={
            "python": image,
            "shell": image | {"command": ["sh", "/bench/bench.sh"]},
            "c": image | {"command": ["/bench/bench"]},
            "wrong": image | {"command": ["sh", "-c", "echo processed nothing"]},
        },
    )
    return lab.follow(lab.trigger("it-programs", blocks=1))


def test_all_three_are_measured_counted_and_compared(lab: Lab, run: Run) -> None:
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    rows = {r[-1].row.image: r[-1].row for r in stored.records(host).values()}
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(
        ("python", "shell", "c"), "valid"
    ), lab.table(run)
    for row in rows.values():
        assert (row.unit, row.units) == ("document", 500)
        assert row.j_per_unit is not None
        assert row.j_per_unit * 500 == pytest.approx(row.energy_j)
        assert row.steady_s is not None
        assert 0.5 < row.steady_s < (row.duration_s or 0)  # it sleeps for 1 s
    assert len(set(stored.files("c").values())) == 3


def test_a_program_that_a_pattern_can_t_count_is_refused_before_its_first_trial(
    lab: Lab, run: Run
) -> None:
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    error = str(stored.pulls(host)["wrong"]["error"])
    assert "workload.unit.pattern 'processed (\\\\d+)' matches no line" in error
