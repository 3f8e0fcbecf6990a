"""`make setup` where no package can be fetched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # makes a virtual environment


def test_without_a_way_to_the_packages_the_last_line_has_the_next_action(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    for name in ("demo/venv.sh", "requirements.txt", "requirements-torch.txt", "pyproject.toml"):
        shutil.copy(REPO / name, tmp_path / name)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nothing listens there
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
        env |= {
            "PYTHON": sys.executable, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index,
            "PIP_RETRIES": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_DEFAULT_INDEX": index,
        }  # fmt: skip
        done = subprocess.run(
            [tmp_path / "demo/venv.sh"], env=env, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("setup: the packages could not be fetched")
    assert "PIP_INDEX_URL" in last
    assert not (tmp_path / ".venv/.ready").exists()
