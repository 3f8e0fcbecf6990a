"""Programs of a user's on real agents: proven before the first trial, measured, counted and compared."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.live_chain import STAND_IN, Here, Shelf, judged, quiet_platform
from wattbench.analysis import checks
from wattbench.analysis.model.records import Record
from wattbench.config.hosts import HostConfig, HostsConfig
from wattbench.config.loader import read_experiment
from wattbench.errors import HostError
from wattbench.run.plan import PlannedTrial
from wattbench.run.retry import is_deterministic
from wattbench.run.stored_run import Run
from wattbench.steps.prepare import prepare
from wattbench.steps.prove_workload import prove
from wattbench.steps.trial import await_end, begin
from wattbench.worker.attempt_spec import expectation

pytestmark = pytest.mark.slow  # attempts in real time

METER = {"kind": "modelled", "interval_ms": 100, "command": [str(STAND_IN)]}
HOSTS = HostsConfig.model_validate(
    {
        "store": {"bucket": "wattbench"},
        "hosts": {"h1": {"ssh_conn_id": "x", "meter": METER}},
    }
)
BENCH = """\
import sys, time
print("loading", flush=True)
time.sleep(0.3)
print("model loaded", file=sys.stderr, flush=True)
time.sleep(0.4)
print("processed 500 documents")
print("checksum 00ff, mean 0.25")
"""
WORKLOAD: dict[str, Any] = {
    "command": [sys.executable, "-IS", "/bench/bench.py"],
    "files": {"/bench/bench.py": "bench.py"},
    "unit": {"name": "document", "pattern": r"processed (\d+)"},
    "same_work": {"pattern": "checksum ([0-9a-f]+)"},
    "ready": {"pattern": "model loaded"},
}


class Memory(Shelf):
    def check(self) -> None: ...


class Bench:
    """One host with its agent, and experiments in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, Here(folder / "spool")
        self.host.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})

    def run(self, bench: str = BENCH, **changes: Any) -> Run:
        (self.folder / "bench.py").write_text(bench)
        path = self.folder / "night.yaml"
        content = {
            "hosts": ["h1"],
            "workload": WORKLOAD | changes,
            "images": {"a": {"runtime": "process"}, "b": {"runtime": "process"}},
            "reference": "a",
            "protocol": {"timeout_s": 30, "idle_baseline": None},
        }
        path.write_text(yaml.safe_dump(content))
        store: Any = Memory()
        return prepare(
            store, HOSTS, read_experiment(path), run_id="run-1",
            identity={"dag_id": "night", "dag_run_id": "1", "run_after": "2026-01-01T00:00:00+00:00"},
            skipped_hosts={}, skipped_images={}, registries={}, folder=self.folder,
        )  # fmt: skip

    def prove(self, run: Run) -> None:
        host: Any = self.host
        prove(run, host, "h1", "a")

    def record(self, run: Run, number: int = 1, image: str = "a") -> Record:
        """One trial, begun and waited for as ``rest`` and ``measure`` do it, evaluated as ``collect`` does it."""
        trial = PlannedTrial(number, number, "workload", image)
        host: Any = self.host
        await_end(run, host, "h1", begin(run, host, "h1", trial, {"rested_s": 1.0}))
        identity = f"run-1/h1/{trial.name}/1"
        report = self.host.call("status", {"id": identity})["report"]
        folder = self.folder / "spool/trials/run-1" / trial.name / "1"
        raw = {
            p.name: p.read_bytes()
            for p in folder.iterdir()
            if p.suffix in (".csv", ".log", ".jsonl")
        }
        config = HostConfig.model_validate(run.document["hosts"]["h1"]["config"])
        return judged(report, raw, expectation(run.experiment, config, trial), trial, "h1")[0]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("WATTBENCH_METER_CONFIG", "/nonexistent")
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(quiet_platform(tmp_path / "platform")))
    monkeypatch.setenv("WATTBENCH_METER_FAULT", "cpus:2,idle_w:40,core_w:0,dram_core_w:0")
    return Bench(tmp_path)


def test_a_program_is_shipped_proven_measured_counted_and_split(bench: Bench) -> None:
    run = bench.run()
    (sha256,) = run.document["workload_files"]["a"].values()
    bench.prove(run)
    assert bench.host.call("list", {})["attempts"] == []  # the probe leaves nothing
    record = bench.record(run)
    row = record.row
    assert row.status == "valid", row.reason
    assert (row.unit, row.units, row.images_inferred, row.j_per_image) == (
        "document",
        500,
        None,
        None,
    )
    assert row.energy_j is not None
    assert row.j_per_unit == pytest.approx(row.energy_j / 500)
    assert row.energy_j == pytest.approx(40 * (row.duration_s or 0), rel=0.05)
    assert record.work.same_work == "00ff"
    assert [p.name for p in record.phases][:2] == ["start", "steady:run"]
    assert row.startup_s is not None
    assert 0.3 <= row.startup_s < (row.duration_s or 0) - 0.4
    assert (bench.folder / "spool/files" / sha256).read_text() == BENCH


def test_a_file_that_is_edited_while_a_run_lasts_changes_nothing(bench: Bench) -> None:
    run = bench.run()
    (bench.folder / "bench.py").write_text("raise SystemExit(1)")
    assert bench.record(run).row.status == "valid"  # shipped by measure, from the store


@pytest.mark.parametrize(
    ("changes", "output", "said"),
    [
        ({}, 'print("done")', r"workload.unit.pattern 'processed (\\d+)' matches no line"),
        ({}, 'print("processed 1"); print("processed 2"); print("checksum 0")', "matches 2 times (lines 1, 2)"),
        ({"unit": {"name": "row", "pattern": r"processed (\w+)"}}, 'print("processed all, checksum 0")',
         "finds 'all', which is not a number above 0"),
        ({"unit": {"name": "row", "count": 3}}, 'print("checksum 0")', "workload.ready.pattern 'model loaded' matches no"),
        ({"unit": {"name": "row"}}, 'print("model loaded, checksum 0")', "no event line reports rows done"),
        ({"same_work": {"pattern": "checksum ?([0-9a-f]*)"}}, 'print("model loaded, processed 1, checksum")',
         "workload.same_work.pattern 'checksum ?([0-9a-f]*)' finds no value in line 1: its group is empty"),
        ({"same_work": {"pattern": "checksum (.*)", "tolerance": 0.1}}, 'print("processed 1, checksum x")',
         "'x' is not a number, so it can't have a tolerance"),
        ({}, "import sys; sys.exit('no such model')", "its workload failed: the workload ended with 1: no such model"),
    ],
)  # fmt: skip
def test_a_program_that_can_t_pass_the_checks_is_refused_before_its_first_trial(
    bench: Bench, changes: dict[str, Any], output: str, said: str
) -> None:
    run = bench.run(output, **changes)
    with pytest.raises(HostError) as refused:
        bench.prove(run)
    line = str(refused.value)
    assert said in line
    assert line.startswith("images.a: its ")
    assert "\n" not in line
    assert bench.host.call("list", {})["attempts"] == []


class Malformed(Here):
    """A host whose reports have fields of other types than agreed."""

    def wait(self, attempt_id: str, timeout_s: float) -> dict[str, Any]:
        return super().wait(attempt_id, timeout_s) | {
            "report": {"state": 7, "spec": "x", "files": []}
        }


def test_a_malformed_report_of_a_probe_is_an_error_of_that_image(
    bench: Bench, tmp_path: Path
) -> None:
    run = bench.run()
    bench.host = Malformed(tmp_path / "spool")
    with pytest.raises(HostError, match=r"^images\.a: its workload failed: ") as refused:
        bench.prove(run)
    assert "state: 7 is not text; files: [] is not an object" in str(refused.value)
    assert refused.value.code == "workload"


def test_what_the_probe_refuses_would_be_invalid_and_not_tried_again(bench: Bench) -> None:
    record = bench.record(bench.run('print("model loaded")'))
    assert record.row.status == "invalid"
    assert record.row.reason is not None
    assert "unit.pattern" in record.row.reason
    assert is_deterministic(record)


def test_without_unit_and_same_work_there_are_joules_and_equal_work_is_undecidable(
    bench: Bench,
) -> None:
    run = bench.run("print('hello')", unit=None, same_work=None, ready=None)
    bench.prove(run)
    records, whole = checks.judge([bench.record(run, 1), bench.record(run, 2, "b")])
    assert {r.row.status for r in records} == {"valid"}
    assert {(r.row.unit, r.row.units, r.row.j_per_unit) for r in records} == {(None, None, None)}
    (finding,) = [f for f in whole if f.code == "unequal-work"]
    assert finding.verdict == "undecidable"
    assert "set workload.same_work" in finding.message


@pytest.mark.parametrize(
    ("same_work", "usual", "odd", "is_found"),
    [
        ({"pattern": "sum (.*)"}, "1.0", "1.001", True),
        ({"pattern": "sum (.*)", "tolerance": 1e-2}, "1.0", "1.001", False),
        ({"pattern": "sum (.*)", "tolerance": 1e-4}, "1.0", "1.001", True),
    ],
)
def test_values_of_equal_work_agree_as_text_or_within_the_tolerance(
    bench: Bench, same_work: dict[str, Any], usual: str, odd: str, is_found: bool
) -> None:
    first = bench.record(
        bench.run(f"print('sum {usual}')", same_work=same_work, unit=None, ready=None)
    )
    others = [replace(first, row=replace(first.row, planned_position=n)) for n in (2, 3)]
    wrong = replace(others[0], work=replace(first.work, same_work=odd),
                    row=replace(first.row, planned_position=4))  # fmt: skip
    found = ["unequal-work" in str(r.row.findings) for r in checks.apply([first, *others, wrong])]
    assert found == [False] * 3 + [is_found]


def test_windows_of_other_amounts_of_work_are_not_compared(bench: Bench) -> None:
    first = bench.record(bench.run())
    others = [replace(first, row=replace(first.row, planned_position=n)) for n in (2, 3)]
    less = replace(others[0], work=replace(first.work, units=499.0),
                   row=replace(first.row, planned_position=4))  # fmt: skip
    (*_, odd) = checks.apply([first, *others, less])
    assert odd.row.status == "invalid"
    assert "units done differ" in str(odd.row.reason)
