"""Versions of what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy

import wattbench
from wattbench.run import versions


def code_of(folder: Path) -> str:
    """The hash as another interpreter has it that finds wattbench in a folder."""
    argv = [sys.executable, "-c", "from wattbench.run.versions import code; print(code())"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.check_output(argv, env=environment, text=True, cwd=folder).strip()


def test_the_code_is_the_same_with_and_without_links_until_a_module_differs(tmp_path: Path) -> None:
    package = Path(wattbench.__file__).parent
    whole = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "wattbench", ignore=whole)  # a wheel has no links
    assert not (tmp_path / "wattbench/analysis").is_symlink()
    assert code_of(tmp_path) == versions.code()
    (tmp_path / "wattbench/images/workload.py").write_text("data\n")
    assert code_of(tmp_path) == versions.code()
    with (tmp_path / "wattbench/analysis/model/errors.py").open("a") as file:
        file.write("# changed\n")
    assert code_of(tmp_path) != versions.code()


def test_a_package_that_is_absent_has_no_version() -> None:
    assert versions.installed("numpy", "no-such-package") == {"numpy": numpy.__version__}
