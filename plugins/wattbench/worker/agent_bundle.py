"""Agent bundle: the agent as one zip application (``.pyz``), built in memory from its sources.

The same sources give the same bytes, so that the file's name, its SHA-256, says what it does. Inside
it the modules have the import path that they have here. Meters of other distributions (entry points
of the group :data:`GROUP`, each naming one module) travel with it.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from wattbench.worker.agent import meters
from wattbench.zip_application import Bundle, zipped

log = logging.getLogger(__name__)

GROUP = "wattbench.agent_meters"
_PACKAGE = "wattbench/worker/agent"
_MAIN = """\
import sys

from wattbench.worker.agent.cli import main

sys.exit(main(sys.argv[1:]))
"""


@functools.cache
def bundle() -> Bundle:
    """The agent of this installation, with the meters of other distributions."""
    modules = foreign_meters()
    sources = {
        name: Path(str(module.__file__)).read_text("utf-8") for name, module in modules.items()
    }
    return build(sources)


def build(foreign: Mapping[str, str]) -> Bundle:
    """Zip the agent's sources.

    Args:
        foreign: sources of other distributions' meter modules, by module name.
    """
    root = Path(meters.__file__).parents[1]
    files = {
        f"{_PACKAGE}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in root.rglob("*.py")
    }
    files |= {"wattbench/__init__.py": b"", "wattbench/worker/__init__.py": b""}
    files["__main__.py"] = _MAIN.encode()
    for name, source in foreign.items():
        files[f"{_PACKAGE}/meters/{name}.py"] = source.encode()
    files[f"{_PACKAGE}/meters/extra.py"] = f"MODULES = {tuple(sorted(foreign))!r}\n".encode()
    return zipped(files)


@functools.cache
def foreign_meters() -> dict[str, ModuleType]:
    """Meter modules of other distributions by name; one that can't be used is a warning that names it."""
    found: dict[str, ModuleType] = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP)):
        try:
            module = entry.load()
            why = _misfit(entry.name, module)
        except Exception as error:  # noqa: BLE001 - third-party code must not break a command
            why = f"{type(error).__name__}: {error}"
        if why is not None:
            log.warning("meter %s = %s is left out: %s", entry.name, entry.value, why)
            continue
        found[entry.name] = module
    return found


def _misfit(name: str, module: ModuleType) -> str | None:
    """Why a module can't travel with the agent."""
    if not name.isidentifier() or name in (*meters.MODULES, "extra", "nvml_library"):
        return "its name is not free for a module"
    ast.parse(Path(str(module.__file__)).read_text("utf-8"), feature_version=(3, 9))
    for meter in module.METERS:
        if not issubclass(meter, meters.Meter) or not meter.kind or not meter.files:
            return f"{meter!r} is not a Meter with kind and files"
        if meter.kind in meters.kinds():
            return f"meter kind {meter.kind!r} is known already"
    return None


def meter_kinds() -> dict[str, type[meters.Meter]]:
    """Every meter that this installation's agent has, by kind."""
    foreign = (meter for module in foreign_meters().values() for meter in module.METERS)
    return meters.kinds() | {meter.kind: meter for meter in foreign}


def raw_files() -> tuple[str, ...]:
    """Names of all meters' raw files."""
    return tuple(dict.fromkeys(name for meter in meter_kinds().values() for name in meter.files))
