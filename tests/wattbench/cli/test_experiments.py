"""``wattbench check``, ``new`` and ``explain``, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from wattbench.cli import main
from wattbench.config import reference
from wattbench.config.loader import experiment_paths, load_experiment, load_hosts

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hosts.yaml").write_text((REPO / "config/hosts.example.yaml").read_text())
    (tmp_path / "experiments").mkdir()
    monkeypatch.setenv("WATTBENCH_CONFIG", str(tmp_path))
    return tmp_path


def test_a_new_experiment_is_one_that_loads(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["new", "slim", "--image", "full=python:3.12", "--image", "slim=python:3.12-slim"]
    assert main([*argv, "--blocks", "12", "--schedule", "30 1 * * *"]) == 0
    assert "wattbench plan slim" in capsys.readouterr().out
    (path,) = experiment_paths(config)
    made = load_experiment(path, load_hosts(config))
    assert list(made.images) == ["full", "slim"]
    assert (made.reference, made.schedule, made.protocol.blocks) == ("full", "30 1 * * *", 12)
    assert main(["check"]) == 0
    assert "slim.yaml  ok" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["Slim"], "rename it"),
        (["slim", "--schedule", "daily"], "is not a cron line"),
        (["slim", "--host", "mars"], "'mars' is not in hosts.yaml"),
        (["slim", "--blocks", "0"], "protocol.blocks: 0"),
        (["slim", "--image", "no-reference"], "write NAME=REF"),
        (["slim", "--image", "b=a//x"], "images.b.ref"),
    ],
)
def test_a_refused_new_experiment_leaves_no_file(
    config: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert main(["new", *argv, "--image", "a=python:3.12"]) == 2
    assert said in capsys.readouterr().err
    assert list((config / "experiments").iterdir()) == []


def test_new_overwrites_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config / "experiments/slim.yaml").write_text("mine")
    assert main(["new", "slim", "--image", "a=python:3.12"]) == 2
    assert "exists" in capsys.readouterr().err
    assert (config / "experiments/slim.yaml").read_text() == "mine"


def test_check_names_each_refused_file_and_the_sound_ones(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new", "sound", "--image", "a=python:3.12"])
    (config / "experiments/odd.yaml").write_text("schedule: every day\n")
    (config / "experiments/late.yml").write_text("")
    capsys.readouterr()
    assert main(["check"]) == 2
    out = capsys.readouterr().out
    assert "sound.yaml  ok" in out
    assert "experiments/odd.yaml line 1: schedule: 'every day' is not a cron line" in out
    assert "experiments/late.yml: experiments end with .yaml" in out


def test_check_and_plan_name_the_host_that_a_load_comes_from(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured, other = list(load_hosts(config).hosts)[:2]
    load = {"request": {"path": "/"}, "steps": [{"concurrency": 1, "requests": 9}]}
    document = {
        "hosts": [measured], "images": {"a": {"ref": "a"}, "b": {"ref": "b"}}, "reference": "a",
        "workload": {"serve": {"port": 8000}, "load": load | {"from": {"host": other}}},
    }  # fmt: skip
    (config / "experiments/servers.yaml").write_text(yaml.safe_dump(document))
    assert main(["check"]) == 0
    assert f"on {measured}, asked from {other}; by trigger" in capsys.readouterr().out
    assert main(["plan", "servers", "--blocks", "3"]) == 0
    assert f"{measured}, asked from {other}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("protocol.rest.min_s", "default 60"),
        ("hosts.gpu-a.meter.kind", "energibridge, hwmon, modelled, nvml, powercap"),
        ("workload.passes.resolution", "required"),
        ("protocol.rest", "protocol.rest.max_s: Maximum cool-down, seconds"),
    ],
)
def test_explain_prints_values_default_and_meaning(
    capsys: pytest.CaptureFixture[str], key: str, said: str
) -> None:
    assert main(["explain", key]) == 0
    assert said in capsys.readouterr().out


def test_explain_of_an_unknown_key_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "min_sec"]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("name", reference.SCHEMAS)
def test_the_stored_schema_is_what_the_models_say(name: str) -> None:
    stored = json.loads((REPO / f"config/schema/{name}.json").read_text(encoding="utf-8"))
    said = "python -m wattbench.config_reference --schemas config/schema"
    assert stored == json.loads(json.dumps(reference.json_schema(reference.SCHEMAS[name]))), said


def test_editors_accept_the_shipped_files_and_mark_a_misspelt_key() -> None:
    schema = jsonschema.Draft202012Validator(reference.json_schema(reference.SCHEMAS["experiment"]))
    for path in (REPO / "config/experiments").glob("*.yaml"):
        experiment = json.loads(json.dumps(yaml.safe_load(path.read_text())))
        assert list(schema.iter_errors(experiment)) == [], path
        assert list(schema.iter_errors(experiment | {"shedule": None}))
    hosts = jsonschema.Draft202012Validator(reference.json_schema(reference.SCHEMAS["hosts"]))
    assert hosts.is_valid(yaml.safe_load((REPO / "config/hosts.example.yaml").read_text()))
