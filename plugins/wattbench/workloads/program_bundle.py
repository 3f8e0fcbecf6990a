"""Programs of ours as they are shipped: one zip application each, built in memory from its sources.

The same sources give the same bytes, so that the SHA-256 of the built-in workload says what every image of
a run computes, and that of the load generator what every server was asked.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "program"
_MAIN = b"import sys\n\nfrom workload.cli import main\n\nsys.exit(main())\n"
#: zip's earliest date.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """The zip application and its SHA-256 (hexadecimal)."""

    content: bytes
    sha256: str


@functools.cache
def bundle() -> Bundle:
    """The workload of this installation."""
    files = {
        f"workload/{path.relative_to(FOLDER).as_posix()}": path.read_bytes()
        for path in FOLDER.rglob("*.py")
        if path.name != "__main__.py"
    }
    return _zipped(files | {"__main__.py": _MAIN})


_LOAD_MAIN = (
    b"import sys\n\nfrom wattbench.workloads.load.cli import main\n\nsys.exit(main(sys.argv[1:]))\n"
)


@functools.cache
def load_bundle() -> Bundle:
    """The load generator of this installation, with h11 and its licence."""
    files = {
        f"wattbench/workloads/load/{path.name}": path.read_bytes()
        for path in (Path(__file__).parent / "load").glob("*.py")
    }
    files |= {"wattbench/__init__.py": b"", "wattbench/workloads/__init__.py": b""}
    distribution = importlib.metadata.distribution("h11")
    for file in distribution.files or ():
        own = file.parts[0] == "h11" and file.suffix == ".py" and "tests" not in file.parts
        if own or file.name.startswith("LICENSE"):
            name = file.as_posix() if own else f"h11/{file.name}"
            files[name] = Path(str(distribution.locate_file(file))).read_bytes()
    return _zipped(files | {"__main__.py": _LOAD_MAIN})


def _zipped(files: Mapping[str, bytes]) -> Bundle:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name])
    content = buffer.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest())
