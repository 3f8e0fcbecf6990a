"""The examples: each can be planned where it lies, none is active, each has its page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from wattbench.cli.command_line import main as wattbench_main
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import experiment_paths, load_experiment, load_hosts
from wattbench.run.plan import make_plan
from wattbench.worker.attempt_spec import attempt_spec
from wattbench.workloads import workload_of

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = REPO / "config/experiments/examples"
PATHS = [pytest.param(path, id=path.stem) for path in sorted(EXAMPLES.glob("*.yaml"))]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with the hosts that the examples name."""
    hosts = yaml.safe_load((REPO / "config/hosts.example.yaml").read_text("utf-8"))
    hosts["hosts"]["virtual-1"] = {"ssh_conn_id": "x", "meter": {"kind": "powercap"}}
    (tmp_path / "hosts.yaml").write_text(yaml.safe_dump(hosts))
    monkeypatch.setenv("WATTBENCH_CONFIG", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", PATHS)
def test_an_example_is_planned_where_it_lies(
    path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wattbench_main(["plan", str(path)]) == 0
    experiment = load_experiment(path, load_hosts(config))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{path.stem}: {len(experiment.images)} images, ")
    (first,) = [line for line in lines if line.startswith("  block  1 ")]
    assert all(f"· {image}" in first for image in experiment.images)


@pytest.mark.parametrize("path", PATHS)
def test_an_example_is_active_once_its_files_are_copied(path: Path, config: Path) -> None:
    folder = config / "experiments"
    shutil.copytree(REPO / "config/experiments", folder)
    assert path.name not in {p.name for p in experiment_paths(config)}
    for file in EXAMPLES.glob(f"{path.stem}.*"):
        shutil.copy(file, folder)
    shutil.rmtree(folder / "examples")
    (copied,) = [p for p in experiment_paths(config) if p.name == path.name]
    assert load_experiment(copied, load_hosts(config)).workload


@pytest.mark.parametrize("path", PATHS)
def test_an_example_has_its_page_and_the_editor_its_schema(path: Path) -> None:
    text = path.read_text("utf-8")
    page = REPO / f"docs/example-{path.stem}.md"
    assert page.is_file()
    assert f"]({page.name})" in (REPO / "docs/examples.md").read_text("utf-8")
    assert f"docs/{page.name}" in text
    schema = re.search(r"\$schema=(\S+)", text)
    assert schema
    assert (EXAMPLES / schema[1]).is_file()


def test_what_was_not_run_says_so() -> None:
    assert "NOT RUN" in (EXAMPLES / "llm-engines.yaml").read_text("utf-8")
    assert "**Not run.**" in (REPO / "docs/example-llm-engines.md").read_text("utf-8")


def test_the_engines_get_the_gpu_their_weights_and_shared_memory(config: Path) -> None:
    experiment = load_experiment(EXAMPLES / "llm-engines.yaml", load_hosts(config))
    host = HostConfig.model_validate({"ssh_conn_id": "x", "gpus": ["GPU-0"]})
    plan = make_plan(list(experiment.images), experiment.protocol, "gpu-a", "1")
    for trial in plan:
        if trial.kind != "workload" or trial.block != 1:
            continue
        settings = experiment.workload_of(trial.image)
        spec = attempt_spec(
            experiment, host, run_id="run-1", host_name="gpu-a", trial=trial, attempt=1, ref="a@sha256:0",
            files=workload_of(settings).files(settings), rest={},
        )  # fmt: skip
        assert spec["gpus"] == ["GPU-0"]
        assert spec["container"] == {
            "volumes": {"/models": {"host": "/srv/models", "writable": False}},
            "shm_size": 16 << 30,
        }
        assert {"vllm": "vllm", "sglang": "python3"}[trial.image] == spec["entrypoint"]
