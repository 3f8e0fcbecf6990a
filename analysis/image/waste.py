"""Bytes of an image that do nothing: hidden by later layers, or left behind by package managers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from wattbench.analysis.image.layers import Entry, Kind
from wattbench.analysis.image.overlay import Overlay

#: What is left behind → pattern of its paths. The first that fits names a file.
_LEFT_BEHIND: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("apt package lists", r"var/lib/apt/lists/"),
        ("apt archives", r"var/cache/apt/"),
        ("apk cache", r"var/cache/apk/"),
        ("dnf cache", r"var/cache/(dnf|yum|libdnf5)/"),
        ("pip cache", r"(.*/)?\.cache/pip/"),
        ("uv cache", r"(.*/)?\.cache/uv/"),
        ("conda packages", r"(.*/)?(conda|(mini|ana)conda\d?|mambaforge|miniforge\d?|micromamba)/pkgs/"),
        ("npm cache", r"(.*/)?\.npm/_cacache/"),
        ("other caches", r"(root|home/[^/]+)/\.cache/"),
        ("temporary files", r"(var/)?tmp/"),
        ("logs", r"var/log/"),
    )
)  # fmt: skip
_BYTECODE = re.compile(
    r"(?P<folder>.*?)(/?)__pycache__/(?P<stem>[^/]+)\.(?P<tag>cpython-\d+)[^/]*\.pyc$"
)
_UNUSED_BYTECODE = "unused bytecode"


@dataclass(frozen=True)
class LeftBehind:
    """Files of one kind that a container sees and never needs.

    Attributes:
        kind: which.
        files: how many.
        size: their bytes.
        layers: indices of the layers that store them.
        largest: path of the largest.
    """

    kind: str
    files: int
    size: int
    layers: tuple[int, ...]
    largest: str


@dataclass(frozen=True)
class Waste:
    """All waste of an image, in bytes of file content.

    Attributes:
        stored: content of all layers.
        hidden: stored but not seen by a container.
        left_behind: seen and never needed.
    """

    stored: int
    hidden: int
    left_behind: int

    @property
    def total(self) -> int:
        """Hidden and left behind."""
        return self.hidden + self.left_behind

    @property
    def share_pct(self) -> float:
        """Of what is stored, %."""
        return 100 * self.total / self.stored if self.stored else 0.0


def left_behind(overlay: Overlay, tags: set[str]) -> tuple[LeftBehind, ...]:
    """What package managers and builds left in view, the largest kind first.

    A file with several names counts only if all of them are such places: conda and uv link from their caches.

    Args:
        overlay: the image's files.
        tags: bytecode tags of the Pythons in the image (``cpython-311``); empty when not known.
    """
    kinds: dict[int, set[str | None]] = defaultdict(set)
    names: dict[int, tuple[str, Entry]] = {}
    for path, entry in overlay.files.items():
        if entry.kind is Kind.FILE and entry.size:
            kinds[id(entry)].add(_kind(path, overlay.files, tags))
            names[id(entry)] = (path, entry)
    files: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for key, found_kinds in kinds.items():
        if None not in found_kinds:
            files[min(kind for kind in found_kinds if kind)].append(names[key])
    found = [
        LeftBehind(
            kind,
            len(group),
            sum(entry.size for _, entry in group),
            tuple(sorted({entry.layer for _, entry in group})),
            max(group, key=lambda one: (one[1].size, one[0]))[0],
        )
        for kind, group in files.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.size, one.kind)))


def _kind(path: str, files: Mapping[str, Entry], tags: set[str]) -> str | None:
    for name, pattern in _LEFT_BEHIND:
        if pattern.match(path):
            return name
    if path.endswith(".pyc") and (found := _BYTECODE.match(path)):
        folder = found["folder"]
        source = f"{folder}/{found['stem']}.py" if folder else f"{found['stem']}.py"
        if source not in files or (tags and found["tag"] not in tags):
            return _UNUSED_BYTECODE
    return None
