"""Programs of ours as they are shipped: one zip application each, built in memory from its sources.

The same sources give the same bytes, so that the SHA-256 of the built-in workload says what every image of
a run computes, and that of the load generator what every server was asked.
"""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path

from wattbench.zip_application import Bundle, zipped

FOLDER = Path(__file__).parent / "program"
_MAIN = b"import sys\n\nfrom workload.cli import main\n\nsys.exit(main())\n"


@functools.cache
def bundle() -> Bundle:
    """The workload of this installation."""
    files = {
        f"workload/{path.relative_to(FOLDER).as_posix()}": path.read_bytes()
        for path in FOLDER.rglob("*.py")
        if path.name != "__main__.py"
    }
    return zipped(files | {"__main__.py": _MAIN})


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
    return zipped(files | {"__main__.py": _LOAD_MAIN})
