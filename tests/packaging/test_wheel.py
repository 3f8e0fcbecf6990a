"""The wheel in an empty virtual environment: all analyses, with light dependencies, far from any checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import simulated_run
from tests.support.image_tarballs import PYTHON_START, docker_save, python_base

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
UV = str(Path(sys.executable).with_name("uv"))
#: Packages that only the controller, a run in an object store or the workload needs.
HEAVY = {"apache-airflow", "boto3", "botocore", "docker", "duckdb", "paramiko", "torch"}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, where no earlier build left anything."""
    source = tmp_path_factory.mktemp("source")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("plugins", "analysis", "images"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=leave)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    _run(UV, "build", "--wheel", "--no-build-isolation", "-p", sys.executable, cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wattbench(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The installed command, run in an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    _run(UV, "venv", "-p", sys.executable, folder / "venv")
    python = folder / "venv/bin/python"
    _run(UV, "pip", "install", "-p", python, "-c", ROOT / "requirements.txt", wheel)
    (folder / "here").mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "WATTBENCH"))}

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(python.with_name("wattbench")), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=folder / "here", env=clean, capture_output=True, text=True
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = simulated_run.small(blocks=7, steady_s=2.0, failing={})
    return simulated_run.write(tmp_path_factory.mktemp("run"), design)


def _run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_source_file_travels(wheel: Path) -> None:
    there = {name.removeprefix("wattbench/") for name in zipfile.ZipFile(wheel).namelist()}
    tracked = _run("git", "ls-files", "plugins/wattbench", "analysis", "images", cwd=ROOT)
    wanted = {  # the workload once, under the name by which it is imported
        re.sub(r"^images/workload/", "workloads/program/", name.removeprefix("plugins/wattbench/"))
        for name in tracked.splitlines()
        if (ROOT / name).is_file()
        and not Path(name).name.startswith(".")
        and Path(name).name != "ruff.toml"
    }
    assert wanted
    assert wanted - there == set()


def test_only_light_packages_are_installed(wattbench: Command) -> None:
    python = Path(wattbench("--help").args[0]).with_name("python")
    installed = {
        line.partition("==")[0] for line in _run(UV, "pip", "freeze", "-p", python).splitlines()
    }
    assert "pandas" in installed
    assert installed & HEAVY == set()


def test_every_analysis_runs(wattbench: Command, run: Path, tmp_path: Path) -> None:
    image = docker_save(tmp_path / "image.tar", [python_base()], **PYTHON_START)
    assert "device-mismatch" in wattbench("findings").stdout
    assert "blocked" in wattbench("power", "--cv", 0.5, "--effect", 1).stdout
    for command, source in (("report", run), ("compare", run), ("audit", run), ("image", image)):
        wattbench(command, source, "--out", tmp_path / command)
        page = (tmp_path / command / "index.html").read_text(encoding="utf-8")
        assert page.rstrip().endswith("</html>")
        assert "<style>" in page


def test_a_missing_extra_is_one_line_that_names_it(
    wattbench: Command, tmp_path: Path, run: Path
) -> None:
    s3 = wattbench("report", "s3://bucket/runs/x", "--out", tmp_path / "out", code=2)
    assert s3.stderr.count("\n") == 1
    assert s3.stderr.endswith(" is not installed; pip install 'wattbench[s3]'\n")
    added = wattbench("host", "add", "gpu-a", "--ssh", "me@localhost", code=2)
    measured = wattbench("measure", "one", "other", code=2)
    for done in (added, measured):
        assert done.stderr.endswith("is not installed; pip install 'wattbench[airflow]'\n")


def test_config_of_the_current_folder_is_used(wattbench: Command) -> None:
    here = Path(wattbench("--help").args[0]).parents[2] / "here"
    shutil.copytree(ROOT / "config", here / "config")
    shutil.copy(here / "config/hosts.example.yaml", here / "config/hosts.yaml")
    name = min((here / "config/experiments").glob("*.yaml")).stem
    assert "block" in wattbench("plan", name).stdout


def test_the_workload_is_in_the_wheel_once_and_runs_from_it(
    wattbench: Command, wheel: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (place,) = [name for name in archive.namelist() if name.endswith("/resnet50.py")]
    python = Path(wattbench("--help").args[0]).with_name("python")
    module = place.removesuffix("/resnet50.py").replace("/", ".")
    assert "--passes" in _run(python, "-m", module, "--help")
