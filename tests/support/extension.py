"""A distribution that is installed by lying on the path: one module and its entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]


def install(folder: Path, group: str, module: str, source: str, names: str = "") -> None:
    """Write a module into a folder, and the metadata that declares it.

    Args:
        folder: on the path.
        group: of the entry point.
        module: name of the module, of its distribution and of the entry point.
        source: of the module.
        names: the object of the module that the entry point names; empty: the module.
    """
    (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[{group}]\n{module} = {module}{names and f':{names}'}\n"
    )


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own that finds the folder's distributions."""
    path = os.pathsep.join([str(folder), str(REPO), str(REPO / "plugins")])
    return subprocess.run(
        [sys.executable, *argv],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
