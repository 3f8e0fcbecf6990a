"""Kinds of workloads: what an experiment may say of each, and one added from outside in one file."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from images.workload.backends import BACKENDS
from images.workload.programs import PROGRAMS
from tests.support.config_mistakes import refusal
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import read_experiment
from wattbench.run.plan import PlannedTrial
from wattbench.worker.attempt_spec import (
    attempt_spec,
    expectation,
    idle_probe_spec,
    probe_spec,
    warm_spec,
)
from wattbench.workloads import kinds
from wattbench.workloads.builtin import PATH
from wattbench.workloads.program import names
from wattbench.workloads.program_bundle import FOLDER, bundle

REPO = Path(__file__).parents[3]
HOST = HostConfig.model_validate({"ssh_conn_id": "x", "gpus": ["GPU-1"]})
BASE: dict[str, Any] = {
    "hosts": ["h1"],
    "workload": {
        "passes": [{"resolution": 64, "iterations": 2}, {"resolution": 32, "iterations": 9}]
    },
    "images": {"a": {"ref": "r.example/a:1"}},
    "reference": "a",
}


def experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate(BASE | changes)


def spec(what: Experiment, kind: str = "workload", image: str = "a", **more: Any) -> dict[str, Any]:
    return attempt_spec(
        what, HOST, run_id="r", host_name="h1", trial=PlannedTrial(1, 1, kind, image), attempt=1,
        ref="r.example/a@sha256:1", files={PATH: "f" * 64}, rest={}, **more,
    )  # fmt: skip


# ── the built-in program ────────────────────────────────────────────────────────────────────────


def test_config_offers_what_the_program_has() -> None:
    assert set(names.PROGRAMS) == set(PROGRAMS)
    assert tuple(BACKENDS) == names.FRAMEWORKS


def test_the_bundle_is_the_same_bytes_whenever_it_is_built_and_runs_alone(tmp_path: Path) -> None:
    first = bundle().content
    bundle.cache_clear()
    assert bundle().content == first
    path = tmp_path / "workload.pyz"
    path.write_bytes(first)
    with zipfile.ZipFile(path) as archive:
        assert {n for n in archive.namelist() if not n.endswith(".py")} == set()
    done = subprocess.run(
        [sys.executable, "-I", path, "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "--framework {torch," in done.stdout


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.relative_to(FOLDER).as_posix()
)
def test_the_program_is_python_3_9(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=(3, 9))


def test_an_image_needs_only_its_own_python() -> None:
    what = experiment(images={"a": {"ref": "r.example/a:1", "python": "/opt/venv/bin/python"}})
    found = spec(what)
    assert found["entrypoint"] == "/opt/venv/bin/python"
    assert found["command"][:3] == [PATH, "--program", "resnet50"]
    assert found["files"] == {PATH: "f" * 64}
    assert found["command"][-1] == "64:2,32:9"


def test_the_probe_does_one_inference_at_the_smallest_size() -> None:
    found = probe_spec(
        experiment(), HOST, run_id="r", host_name="h1", image="a", ref="x@sha256:1", files={}
    )
    assert found["command"][-4:] == ["--passes", "32:1", "--warmup-iterations", "0"]
    assert found["id"] == "r/h1/pull-a-probe/1"


def test_an_images_own_command_may_say_where_the_program_goes() -> None:
    command = ["numactl", "-N0", "python3", "{workload}"]
    found = spec(experiment(images={"a": {"ref": "r.example/a:1", "command": command}}))
    assert [found["entrypoint"], *found["command"][:3]] == ["numactl", "-N0", "python3", PATH]


def test_an_idle_trial_needs_a_process_that_waits_and_nothing_of_the_workload() -> None:
    found = spec(experiment(), "idle")
    assert (found["entrypoint"], found["command"], found["files"]) == ("sleep", ["180"], {})


LOADED = {"protocol": {"idle_baseline": {"state": "loaded", "seconds": 90}}}


@pytest.mark.parametrize("image", [{"ref": "r.example/a:1"}, {"runtime": "process"}])
def test_a_loaded_idle_trial_runs_the_program_of_the_workload_and_holds_its_model(
    image: dict[str, Any],
) -> None:
    what = experiment(images={"a": image}, **LOADED)
    idle, work = spec(what, "idle"), spec(what)
    assert idle["command"] == [*work["command"], "--idle-s", "90"]
    assert idle["kind"] == "idle"
    same = ("runtime", "image", "entrypoint", "files", "env", "container", "gpus", "times_lines")
    assert {key: idle[key] for key in same} == {key: work[key] for key in same}
    probe = probe_spec(
        what, HOST, run_id="r", host_name="h1", image="a", ref="x@sha256:1", files=work["files"]
    )
    tried = idle_probe_spec(what, probe, "a", loaded=True)
    assert tried["command"] == [*work["command"], "--idle-s", "0"]
    assert (tried["files"], tried["entrypoint"]) == (work["files"], work["entrypoint"])


def test_the_load_that_warms_gpus_is_the_workload_itself_with_a_time_and_a_limit() -> None:
    image = {"ref": "r.example/a:1", "env": {"A": "1"}}
    protocol = {"warm_up": {"seconds": 60, "max_s": 200}}
    what = experiment(images={"a": image}, device="cuda", protocol=protocol)
    host = HOST.model_copy(update={"gpus": ["GPU-a", "GPU-b"]})
    work = spec(what)
    probe = probe_spec(
        what, host, run_id="r", host_name="h1", image="a", ref="x@sha256:1", files=work["files"]
    )
    load = warm_spec(what, probe, "a")
    assert load["command"] == [*work["command"], "--warm-s", "500", "--gpus", "2"]
    assert (load["id"], load["gpus"]) == ("r/h1/pull-a-warm/1", ["GPU-a", "GPU-b"])
    assert load["timeout_s"] > 500
    same = ("runtime", "entrypoint", "files", "env", "container")
    assert {key: load[key] for key in same} == {key: work[key] for key in same}


BOTH = {"state": ["loaded", "container"], "seconds": 90}


def test_of_two_idle_states_each_trial_starts_its_own() -> None:
    what = experiment(images={"a": {"ref": "r.example/a:1"}}, protocol={"idle_baseline": BOTH})
    alone = {
        state: experiment(
            images={"a": {"ref": "r.example/a:1"}},
            protocol={"idle_baseline": BOTH | {"state": state}},
        )
        for state in ("loaded", "container")
    }
    for state, single in alone.items():
        trial = PlannedTrial(1, 1, "idle", "a", state)
        started = attempt_spec(
            what, HOST, run_id="r", host_name="h1", trial=trial, attempt=1,
            ref="r.example/a@sha256:1", files={PATH: "f" * 64}, rest={},
        )  # fmt: skip
        assert expectation(what, HOST, trial)["idle_state"] == state
        assert started == spec(single, "idle")


@pytest.mark.parametrize(
    ("image", "idle", "state"),
    [
        ({"ref": "r.example/a:1"}, {}, "container"),
        ({"ref": "r.example/a:1"}, {"state": "container", "per": "host"}, "host"),
        ({"runtime": "process"}, {"state": "loaded"}, "loaded"),
        ({"runtime": "process"}, {}, "host"),
    ],
)
def test_a_record_says_what_was_loaded_while_the_host_was_idle(
    image: dict[str, Any], idle: dict[str, Any], state: str
) -> None:
    what = experiment(images={"a": image}, protocol={"idle_baseline": idle})
    where = "idle" if idle.get("per") == "host" else "a"
    assert expectation(what, HOST, PlannedTrial(1, 1, "idle", where))["idle_state"] == state
    assert "idle_state" not in expectation(what, HOST, PlannedTrial(1, 1, "workload", "a"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workload": {"command": "bench"}}, "a workload of kind command has no way to load its model and wait; set state: container"),
        ({"workload": {"serve": {"port": 80}, "load": {"request": {"path": "/"}, "steps": [{"concurrency": 1, "requests": 9}]}}}, "a workload of kind serve has no way"),
        ({"protocol": {"idle_baseline": {"state": "loaded", "per": "host"}}}, "per: host has no image; set per: image or state: container"),
        ({"protocol": {"idle_baseline": {"state": "warm"}}}, "idle_baseline.state"),
        ({"protocol": {"idle_baseline": {"state": ["loaded", "loaded"]}}}, "names loaded twice; name it alone, or list container and loaded"),
        ({"protocol": {"idle_baseline": {"state": ["loaded"]}}}, "idle_baseline.state"),
        ({"protocol": {"idle_baseline": BOTH | {"per": "host"}}}, "per: host has no image"),
    ],
)  # fmt: skip
def test_a_loaded_idle_trial_that_nothing_can_hold_is_refused_with_its_key(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match="idle_baseline") as caught:
        experiment(**{**LOADED, **changes})
    assert said in str(caught.value)


def test_keys_of_the_workload_differ_by_image_and_by_level() -> None:
    what = experiment(
        images={
            "a": {"ref": "r.example/a:1"},
            "b": {"ref": "r.example/b:1", "workload": {"batch": 2}, "framework": "jax"},
        }
    )
    assert "--batch 2" in " ".join(spec(what, image="b")["command"])
    expected = expectation(what, HOST, PlannedTrial(1, 1, "workload", "b"))
    assert (expected["batch"], expected["framework"]) == (2, "jax")
    assert expectation(what, HOST, PlannedTrial(1, 1, "workload", "a"))["batch"] == 1


def test_settings_of_an_images_container_lie_over_those_of_the_experiment() -> None:
    what = experiment(
        container={"memory": "8g", "volumes": {"/a": "/srv/a"}},
        images={
            "a": {
                "ref": "r.example/a:1",
                "container": {"memory": 10**9, "volumes": {"/b": "/srv/b"}},
            }
        },
    )
    found = spec(what)["container"]
    assert found["memory"] == 10**9
    assert {path: v["host"] for path, v in found["volumes"].items()} == {
        "/a": "/srv/a",
        "/b": "/srv/b",
    }
    assert spec(what, "idle")["container"] == found


def test_an_experiment_stored_with_a_run_reads_back_equal() -> None:
    what = experiment(
        workload={"command": "bench", "unit": {"name": "row", "count": 5}}, container={"cpus": 2}
    )
    assert Experiment.model_validate(json.loads(what.model_dump_json())) == what


# ── mistakes ────────────────────────────────────────────────────────────────────────────────────

GOOD = """
hosts: [h1]
workload:
  command: [python3, /bench/bench.py]
  files: {/bench/bench.py: bench.py}
  unit: {name: document, pattern: 'processed (\\d+)'}
  same_work: {pattern: 'checksum ([0-9a-f]+)'}
images: {a: {ref: r.example/a:1}, b: {ref: r.example/b:1, container: {memory: 1g}}}
reference: a
container: {shm_size: 1g}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("processed (\\d+)", "processed \\d+", "workload.unit.pattern: 'processed \\\\d+' has 0 groups; put exactly one"),
        ("processed (\\d+)", "(processed) (\\d+)", "has 2 groups"),
        ("checksum ([0-9a-f]+)", "checksum ([0-9a-f+", "workload.same_work.pattern: 'checksum ([0-9a-f+' is not a regular"),
        ("py: bench.py", "py: gone.py", "workload.files: 'gone.py' is not a file in"),
        ("py: bench.py", "py: ../bench.py", "'../bench.py' leaves the experiment's folder"),
        ("py: bench.py", "py: link.py", "'link.py' leaves the experiment's folder"),
        ("/bench/bench.py: ", "bench.py: ", "'bench.py' is not an absolute path in the container"),
        ("'processed (\\d+)'}", "'processed (\\d+)', count: 5}", "workload.unit: pattern and count exclude each other"),
        ("pattern: 'processed (\\d+)'", "count: none", "workload.unit.count: 'none': must be a number"),
        ("  unit:", "  units:", "workload.units: unknown key; did you mean unit? allowed: kind, command, files, unit"),
        ("  command: [python3, /bench/bench.py]", "  kind: servr", "workload: kind is not one of builtin, command"),
        ("memory: 1g", "memory: lots", "images.b.container.memory: 'lots' is not a size; write 8g"),
        ("memory: 1g", "privileged: true", "images.b.container: privileged: a measured container never gets the host"),
        ("memory: 1g", "volumes: {/s: /var/run/docker.sock}", "/var/run/docker.sock would give the container the host"),
        ("memory: 1g", "volumes: {/e: {host: /etc, writable: true}}", "/etc belongs to the host's system"),
        ("memory: 1g", "capabilities: [CAP_SYS_ADMIN]", "the capability SYS_ADMIN would make the container privileged"),
        ("memory: 1g", "volumes: {/s: /run/containerd}", "/run/containerd would give the container the host"),
        ("memory: 1g", "volumes: {/s: /proc/1/root}", "/proc/1/root would give the container the host"),
        ("memory: 1g", "volumes: {/s: /srv/podman.sock}", "/srv/podman.sock would give the container the host"),
        ("memory: 1g", "ulimits: {nofile: {soft: 9, hard: 5}}", "images.b.container.ulimits.nofile: soft: 9 is more than hard: 5; raise hard"),
        ("memory: 1g", "ulimits: {nofile: {soft: -1, hard: 5}}", "soft: -1 is more than hard: 5"),
        ("memory: 1g", "cpus: .inf", "images.b.container.cpus: inf: must be a finite number"),
        ("memory: 1g", "cpuset: 3-1", "images.b.container.cpuset: '3-1' is not a range of CPUs; write the lower number first"),
        ("memory: 1g", "cpuset: '0,5-99999999'", "images.b.container.cpuset: '0,5-99999999': '5-99999999' is not a range of CPUs"),
        ("pattern: 'processed (\\d+)'", "count: .inf", "workload.unit.count: inf: must be a finite number"),
        ("memory: 1g", "cpuset: all", "images.b.container.cpuset: 'all': must match"),
        ("shm_size: 1g", "shm_size: 1g, ipc: host", "container: shm_size has no effect with ipc: host"),
        ("container: {memory: 1g}", "workload: {unit: {name: X}}", "images.b.workload.unit.name: 'X'"),
        ("container: {memory: 1g}", "framework: jax", "images.b.framework: unknown key; allowed: kind, command"),
        ("container: {memory: 1g}", "workload: {kind: builtin}", "images.b.workload: "),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_with_file_path_and_next_action(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "bench.py").touch()
    (tmp_path / "bench.py").touch()
    (folder / "link.py").symlink_to(tmp_path / "bench.py")
    path = folder / "night.yaml"
    path.write_text(GOOD)
    read_experiment(path)
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    line = refusal(read_experiment, path)
    assert said in line
    assert line.startswith("experiments/night.yaml")


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"program": "resnet51"}, "did you mean 'resnet50'? There are: resnet50, vit-tiny"),
        ({"program": "vit"}, "did you mean 'vit-tiny'?"),
        ({"framework": "pytorch"}, "did you mean 'torch'?"),
        ({"precision": "fp8"}, "There are: fp32, fp16, bf16"),
    ],
)
def test_an_unknown_name_is_refused_while_parsing_with_the_nearest_known_one(
    workload: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match="workload") as caught:
        experiment(workload=BASE["workload"] | workload)
    assert said in str(caught.value)


# ── a kind from outside ─────────────────────────────────────────────────────────────────────────

(TOY,) = re.findall(
    r"^```python\n(# transcode\.py\n.*?)^```",
    (REPO / "docs/extending.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)
USE = """
import json, logging
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig
from wattbench.config.reference import markdown
from wattbench.run.plan import PlannedTrial
from wattbench.worker.attempt_spec import attempt_spec, expectation
from wattbench.workloads import kinds
what = Experiment.model_validate({"hosts": ["h"], "workload": {"kind": "transcode", "seconds": 7},
                                  "images": {"a": {"ref": "x/y:1"}}, "reference": "a"})
host = HostConfig.model_validate({"ssh_conn_id": "x"})
trial = PlannedTrial(1, 1, "workload", "a")
spec = attempt_spec(what, host, run_id="r", host_name="h", trial=trial, attempt=1, ref="x", files={}, rest={})
print(json.dumps([list(kinds()), spec["entrypoint"], spec["command"],
                  expectation(what, host, trial)["unit"], "length of the pattern, s." in markdown()]))
"""


def test_a_kind_of_another_distribution_is_one_file_and_one_that_fails_is_a_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "transcode.py").write_text(TOY)
    info = tmp_path / "toy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[wattbench.workloads]\ntranscode = transcode:TRANSCODE\nbroken = nowhere:thing\nodd = transcode:TranscodeSettings\n"
    )
    path = os.pathsep.join([str(tmp_path), str(REPO), str(REPO / "plugins")])
    done = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(done.stdout) == [
        ["builtin", "command", "serve", "transcode"], "ffmpeg",
        ["-f", "lavfi", "-i", "testsrc=size=hd1080:duration=7", "-f", "null", "-"],
        {"name": "second of video", "count": 7, "pattern": None}, True,
    ]  # fmt: skip
    assert done.stderr.count("\n") == 2
    assert "workload kind broken = nowhere:thing is left out: ModuleNotFoundError" in done.stderr
    assert (
        "workload kind odd = transcode:TranscodeSettings is left out: it has no argv" in done.stderr
    )
    assert list(kinds()) == ["builtin", "command", "serve"]
