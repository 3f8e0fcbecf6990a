"""Without a container: the real workload as bare-metal control arm, its digest, and equal work."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import (
    ROOT,
    STAND_IN,
    Case,
    Chain,
    Here,
    Lives,
    Shelf,
    quiet_platform,
)
from wattbench.analysis import checks
from wattbench.analysis.runs.load import planned_row
from wattbench.config.experiment import Experiment
from wattbench.errors import HostError
from wattbench.run.retry import is_deterministic
from wattbench.run.store_keys import file_key
from wattbench.run.stored_run import Run
from wattbench.steps.prove_workload import prove
from wattbench.steps.pull_image import list_packages
from wattbench.workloads.builtin import PATH
from wattbench.workloads.program_bundle import bundle

pytestmark = pytest.mark.slow  # attempts in real time, of the real workload

FLAT = "cpus:2,idle_w:40,core_w:0,dram_core_w:0"

# ── the workload itself ─────────────────────────────────────────────────────────────────────────

#: The command of a ``process`` image, as in an experiment's YAML.
BARE = (sys.executable, "-m", "workload")
ENV = {"PYTHONPATH": str(ROOT / "images"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Lives:
    torch = pytest.importorskip("torch")
    cases = {"cpu": Case(FLAT, command=BARE, spec={"env": ENV}, interval_ms=200)}
    if not torch.cuda.is_available():
        cases["cuda"] = Case(
            f"{FLAT},gpus:1", command=BARE, spec={"env": ENV}, interval_ms=200, device="cuda"
        )
    idle = Case(FLAT, command=BARE, spec={"env": ENV}, kind="idle", idle_s=2, loaded=True)
    cases |= {
        "loaded idle": idle,
        "idle of a program that holds nothing": replace(idle, command=(), spec={}),
    }
    return Chain(tmp_path_factory.mktemp("bare")).run_all(cases)


def test_bare_metal_arm_measures_the_very_workload_of_the_images(bare: Lives) -> None:
    live = bare["cpu"]
    row = live.record.row
    assert row.status == "valid", (row.reason, live.raw["stderr.log"])
    assert (row.device, row.images_inferred) == ("cpu", 2)
    assert live.report["container"] is None
    low, high = live.true_joules("package")
    assert row.package_j is not None
    assert row.energy_uncertainty_j is not None
    doubt = row.energy_uncertainty_j + 200 * live.stall_s()
    assert low - doubt <= row.package_j <= high + doubt
    assert [p.name for p in live.record.phases] == [
        "start", "import", "load", "warmup", "steady:64", "stop",
    ]  # fmt: skip
    assert sum(p.energy_j or 0 for p in live.record.phases) == pytest.approx(row.energy_j)
    assert live.record.work.weights_sha256
    assert live.record.work.results[0].fingerprint


def test_window_of_a_loaded_idle_trial_is_the_time_in_which_the_model_was_held(bare: Lives) -> None:
    live = bare["loaded idle"]
    row = live.record.row
    assert row.status == "valid", (row.reason, live.raw["stderr.log"])
    assert (row.kind, row.idle_state, row.device) == ("idle", "loaded", "cpu")
    events = [json.loads(line) for line in live.raw["workload.jsonl"].splitlines()]
    begin, end = (e["unix_s"] for e in events if e.get("name") == "idle")
    assert row.duration_s == pytest.approx(end - begin)
    assert row.energy_j is not None
    assert row.energy_uncertainty_j is not None
    doubt = row.energy_uncertainty_j + 200 * live.stall_s()
    assert row.package_j == pytest.approx(40 * (end - begin), abs=doubt)  # idle_w: 40, core_w: 0
    start_s, end_s = live.window
    assert row.duration_s < end_s - start_s - 1  # import, load, one inference, settling
    assert (row.images_inferred, row.units, live.record.phases) == (None, None, ())


def test_idle_trial_of_a_program_that_does_not_hold_its_model_has_failed(bare: Lives) -> None:
    row = bare["idle of a program that holds nothing"].record.row
    assert (row.status, row.energy_j) == ("failed", None)
    assert row.reason == "the workload did not report that it held its model loaded (phase idle)"


def test_workload_without_its_gpu_refuses_and_is_not_tried_again(bare: Lives) -> None:
    if "cuda" not in bare:
        pytest.skip("this machine has a GPU: the workload would run on it")
    live = bare["cuda"]
    assert (live.record.row.status, live.report["rc"]) == ("failed", 3)
    found = live.found["device-mismatch"]
    assert "device cuda is not there" in found.message
    assert is_deterministic(live.record)


# ── proving that an image can hold its model ────────────────────────────────────────────────────


def loaded_run(image: dict[str, Any]) -> Run:
    """A run whose idle trials hold the model loaded, with its workload's files in the store."""
    meter = {"kind": "modelled", "interval_ms": 100, "command": [str(STAND_IN)]}
    experiment = Experiment.model_validate(
        {
            "hosts": ["h1"],
            "workload": {
                "program": "vit-tiny", "framework": "numpy",
                "passes": [{"resolution": 32, "iterations": 2}],
            },
            "images": {"bare": {"runtime": "process", **image}},
            "reference": "bare",
            "protocol": {"timeout_s": 60, "idle_baseline": {"seconds": 1, "state": "loaded"}},
        }
    )  # fmt: skip
    store: Any = Shelf()
    store.put(file_key("run-1", bundle().sha256), bundle().content)
    document = {
        "run_id": "run-1", "seed": "1", "experiment": experiment.model_dump(mode="json"),
        "hosts": {"h1": {"config": {"ssh_conn_id": "x", "meter": meter}}},
        "workload_files": {"bare": {PATH: bundle().sha256}},
    }  # fmt: skip
    return Run(store, document)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WATTBENCH_METER_CONFIG", "/nonexistent")
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(quiet_platform(tmp_path / "platform")))
    monkeypatch.setenv("WATTBENCH_METER_FAULT", FLAT)
    host = Here(tmp_path / "spool")
    host.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
    return host


def test_shipped_program_is_proven_to_hold_its_model_and_leaves_nothing(here: Any) -> None:
    prove(loaded_run({"python": sys.executable}), here, "h1", "bare")
    assert here.call("list", {})["attempts"] == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys; sys.exit('unknown option --idle-s')", "unknown option --idle-s"),
        ("print('done')", "its idle trials can't hold the model loaded; use the built-in"),
    ],
)
def test_image_whose_own_command_can_not_hold_a_model_is_refused_before_the_first_trial(
    here: Any, source: str, said: str
) -> None:
    with pytest.raises(HostError, match=r"images\.bare: its idle trials") as caught:
        prove(loaded_run({"command": [sys.executable, "-c", source]}), here, "h1", "bare")
    assert said in str(caught.value)
    assert "set protocol.idle_baseline.state: container" in str(caught.value)
    assert caught.value.code == "workload"


# ── the digest of a process ─────────────────────────────────────────────────────────────────────


def a_run(command: list[str]) -> Run:
    experiment = Experiment.model_validate(
        {
            "hosts": ["h1"],
            "workload": {"passes": [{"resolution": 64, "iterations": 2}]},
            "images": {"bare": {"runtime": "process", "command": command}},
            "reference": "bare",
        }
    )
    store: Any = Shelf()
    return Run(store, {"run_id": "run-1", "experiment": experiment.model_dump(mode="json")})


def test_digest_of_a_process_is_the_sha256_of_its_package_list(tmp_path: Path) -> None:
    run = a_run([sys.executable, "-m", "workload"])
    here: Any = Here(tmp_path / "spool")
    assert run.digest("bare", "h1") is None
    list_packages(run, here, "h1", "bare")
    pull = run.pulls("h1")["bare"]
    installed = {
        f"{(d.metadata['Name'] or '').lower()}=={d.version}"
        for d in importlib.metadata.distributions()
    }
    listed = [f"python=={platform.python_version()}", *sorted(installed)]
    assert pull["packages"] == listed
    assert pull["image"] is None
    text = "".join(line + "\n" for line in listed)
    assert pull["digest"] == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert run.digest("bare", "h1") == pull["digest"]
    assert run.digest("bare", "h2") is None  # another host, other packages
    assert run.digest("idle", "h1") is None


def test_trial_that_was_never_tried_has_its_process_s_digest_too() -> None:
    document = {
        "run_id": "run-1",
        "experiment": {"images": {"bare": {"runtime": "process"}, "pip": {"digest": "sha256:p"}}},
        "hosts": {"h1": {"pulls": {"bare": {"image": None, "digest": "sha256:b"}}}},
    }
    planned = {"kind": "workload", "block": 1, "planned_position": 1}
    assert planned_row(document, "h1", planned | {"image": "bare"}).digest == "sha256:b"
    assert planned_row(document, "h2", planned | {"image": "bare"}).digest is None
    assert planned_row(document, "h1", planned | {"image": "pip"}).digest == "sha256:p"


@pytest.mark.parametrize("command", [["/bin/ls"], ["/nonexistent/python"]])
def test_command_that_is_no_python_has_no_digest_and_says_why(
    tmp_path: Path, command: list[str]
) -> None:
    run = a_run(command)
    here: Any = Here(tmp_path / "spool")
    list_packages(run, here, "h1", "bare")
    pull = run.pulls("h1")["bare"]
    assert (pull["digest"], pull["packages"]) == (None, [])
    assert command[0] in pull["why"]
    assert "\n" not in pull["why"]
    assert "error" not in pull  # its trials go on


def test_host_that_can_not_be_asked_is_no_missing_digest() -> None:
    class Gone:
        def call(self, *_: object) -> None:
            raise HostError("h1: unreachable", code="unreachable")

    gone: Any = Gone()
    with pytest.raises(HostError, match="unreachable"):
        list_packages(a_run(["python3"]), gone, "h1", "bare")


# ── equal work ──────────────────────────────────────────────────────────────────────────────────

#: What five trials of one precision print; the usual fingerprint is 1, −2, 3.
NEAR = {"fingerprint": [1.0001, -2.0, 3.0002]}
OFF = {"fingerprint": [1.0, -2.0, 3.15]}  # 5 % of the largest
WORK: dict[str, tuple[dict[str, Any], str]] = {
    "usual": ({}, "fp32"),
    "usual too": ({}, "fp32"),
    "rounded otherwise": (NEAR, "fp32"),
    "other weights": ({"weights": "v" * 64}, "fp32"),
    "other input": ({"input": "j" * 64}, "fp32"),
    "other outputs": (OFF, "fp32"),
    "no numbers": ({"fingerprint": [1.0]}, "fp32"),
    "other iterations": ({"iterations": 5}, "fp32"),
    "bf16": ({}, "bf16"),
    "bf16 too": ({}, "bf16"),
    "bf16 off by 5 %": (OFF, "bf16"),
    "bf16 off by half": ({"fingerprint": [1.0, -2.0, 4.5]}, "bf16"),
}
UNEQUAL = {
    "other weights": "weights differ",
    "other input": "inputs differ",
    "other outputs": "outputs differ",
    "no numbers": "outputs differ",
    "other iterations": "2 iterations asked for",
    "bf16 off by half": "outputs differ",
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name → record, all judged as one run."""
    chain = Chain(tmp_path_factory.mktemp("work"))
    lives = chain.run_all(
        {
            name: Case(FLAT, says={"seconds": 0.4, **says}, precision=precision)
            for name, (says, precision) in WORK.items()
        }
    )
    records, _ = checks.judge([live.record for live in lives.values()])
    return dict(zip(lives, records, strict=True))


@pytest.mark.parametrize("name", WORK)
def test_unequal_work_is_invalid_and_rounding_is_not(work: dict[str, Any], name: str) -> None:
    record = work[name]
    found = {f.code: f for f in record.findings if f.verdict == "found"}
    if name in UNEQUAL:
        assert record.row.status == "invalid"
        assert UNEQUAL[name] in found["unequal-work"].message
        assert is_deterministic(record)
    else:
        assert record.row.status == "valid", record.row.reason
        assert "unequal-work" not in found
