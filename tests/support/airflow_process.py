"""Code in a real Airflow process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def airflow_env(folder: Path) -> dict[str, str]:
    return os.environ | {
        "AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False", "PYTHONPATH": f"{REPO}:{REPO / 'plugins'}",
    }  # fmt: skip


def in_airflow(code: str, folder: Path, **env: str) -> str:
    """What it printed on stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=airflow_env(folder) | env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
