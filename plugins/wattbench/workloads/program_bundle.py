"""The built-in workload as it is shipped: one zip application, built in memory from its sources.

The same sources give the same bytes, so its SHA-256 says what every image of a run computes.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
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
    files["__main__.py"] = _MAIN
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name])
    content = buffer.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest())
