"""Copies of accepted experiments read back as what they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.stored_runs import HOSTS, experiment
from wattbench.airflow import accepted
from wattbench.config.loader import experiment_paths, load_experiment, load_hosts

CONFIG = Path(__file__).resolve().parents[3] / "config"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(accepted, "folder", lambda: tmp_path / "accepted")
    return tmp_path


@pytest.mark.parametrize("path", experiment_paths(CONFIG), ids=lambda path: path.stem)
def test_an_experiment_reads_back_as_it_was(path: Path, home: Path) -> None:
    config = home / "config"
    shutil.copytree(CONFIG, config)
    names = yaml.safe_load(path.read_text())["hosts"]
    example = yaml.safe_load((CONFIG / "hosts.example.yaml").read_text())
    one = next(iter(example["hosts"].values()))
    example["hosts"] = dict.fromkeys(names, one)
    (config / "hosts.yaml").write_text(yaml.safe_dump(example))
    hosts = load_hosts(config)
    found = load_experiment(config / "experiments" / path.name, hosts)
    accepted.keep(path.stem, found, hosts)
    assert accepted.recall(path.stem) == accepted.Accepted(experiment=found, hosts=hosts)
    assert accepted.recall_hosts() == hosts


def test_a_copy_that_is_damaged_or_of_another_version_is_none(home: Path) -> None:
    assert accepted.recall("night") is None
    assert accepted.recall_hosts() is None
    (home / "accepted").mkdir()
    (home / "accepted" / "night.json").write_text('{"experiment": {"hosts": 3}}')
    assert accepted.recall("night") is None
    assert accepted.recall_hosts() is None


def test_what_cannot_be_copied_is_not_kept_and_not_refused() -> None:
    accepted.keep("odd", experiment().model_copy(update={"description": "\ud800"}), HOSTS)
    assert accepted.recall("odd") is None
