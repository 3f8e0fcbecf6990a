"""Is compiled Python there, and does it fit its source? What lacks it is compiled anew at each start.

A container's file system is thrown away, so what its first start compiles is compiled again by every one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wattbench.analysis.image.layers import Entry, Kind
from wattbench.analysis.image.overlay import Overlay

_ROOT = re.compile(r"(?P<root>(.*/)?(site|dist)-packages)/")
_STDLIB = re.compile(r"(?P<root>(.*/)?lib/python(?P<minor>3\.\d+))/(?!(site|dist)-packages/)")
#: Parts of packages that a workload doesn't import.
_NOT_IMPORTED = re.compile(r"(.*/)?(tests?|idlelib|lib2to3|ensurepip|_bundled|templates)/")
_SOURCE = struct.Struct("<4xIII")


@dataclass(frozen=True)
class Compiled:
    """Python files below one root.

    Attributes:
        root: where: the standard library, a folder of packages, or the application.
        files: modules, tests left out.
        size: their bytes.
        missing: of these files, without bytecode for the image's Python.
        missing_size: their bytes.
        stale: with bytecode that doesn't fit: made from a file of another time or size.
        stale_size: their bytes.
    """

    root: str
    files: int
    size: int
    missing: int
    missing_size: int
    stale: int
    stale_size: int

    @property
    def share_pct(self) -> float:
        """Of the bytes, what each start that imports it compiles, %."""
        return 100 * (self.missing_size + self.stale_size) / self.size if self.size else 0.0


def examine(overlay: Overlay, minors: Iterable[str], more: Iterable[str]) -> tuple[Compiled, ...]:
    """The state of all roots that hold Python files.

    Args:
        overlay: the image's files.
        minors: Pythons in the image, ``3.11``; none: nothing is known, and nothing is returned.
        more: further roots: of ``PYTHONPATH``, and the application's folder.
    """
    tags = {f"cpython-{minor.replace('.', '')}" for minor in minors}
    if not tags:
        return ()
    extra = sorted({path.strip("/") for path in more if path.strip("/")}, key=len, reverse=True)
    counts: dict[str, list[int]] = {}
    for path, entry in overlay.files.items():
        if not path.endswith(".py") or entry.kind is not Kind.FILE or not entry.size:
            continue
        root = _root(path, extra)
        if root is None or _NOT_IMPORTED.match(path[len(root) + 1 :]):
            continue
        count = counts.setdefault(root, [0] * 6)
        count[0] += 1
        count[1] += entry.size
        state = _state(path, entry, overlay.files, _tags_of(root, tags))
        if state is not None:
            count[state] += 1
            count[state + 1] += entry.size
    return tuple(Compiled(root, *count) for root, count in sorted(counts.items()))


def _root(path: str, extra: Iterable[str]) -> str | None:
    for root in extra:
        if path.startswith(root + "/"):
            return root
    found = _ROOT.match(path) or _STDLIB.match(path)
    return found["root"] if found else None


def _tags_of(root: str, tags: set[str]) -> set[str]:
    """A root below ``lib/python3.11`` is of that Python; others may be of any."""
    found = re.search(r"lib/python(3\.\d+)", root)
    return {f"cpython-{found[1].replace('.', '')}"} if found else tags


def _state(path: str, source: Entry, files: Mapping[str, Entry], tags: set[str]) -> int | None:
    """Index of the count for a file that is compiled at each start: 2 missing, 4 stale; None is fine."""
    folder, _, name = path.rpartition("/")
    where = f"{folder}/__pycache__/" if folder else "__pycache__/"
    there = [files.get(f"{where}{name[:-3]}.{tag}.pyc") for tag in tags]
    compiled = [one for one in there if one is not None and one.kind is Kind.FILE]
    if not compiled:
        return 2
    return None if any(_fits(one, source) for one in compiled) else 4


def _fits(compiled: Entry, source: Entry) -> bool:
    """PEP 552: flags 0 means checked by the source's time and size; otherwise by hash, or not at all."""
    if compiled.head is None or len(compiled.head) < _SOURCE.size:
        return False
    flags, mtime, size = _SOURCE.unpack(compiled.head)
    return bool(flags) or (mtime == source.mtime and size == source.size & 0xFFFFFFFF)
