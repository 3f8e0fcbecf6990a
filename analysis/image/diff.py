"""Two images side by side: only what differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from wattbench.analysis.image import sections as content
from wattbench.analysis.image.provenance import Image
from wattbench.analysis.model.escaping import one_line
from wattbench.analysis.presentation.formatting import shortened, size
from wattbench.analysis.presentation.table import Grid

_ABSENT = "–"


@dataclass(frozen=True)
class Difference:
    """Differences of image B from image A, one section per subject; nothing where they agree."""

    a: str
    b: str
    sections: tuple[Grid, ...]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.a} against {self.b}"


def compare(a: Image, b: Image) -> Difference:
    """Base, sizes, layers, packages, PyTorch, libraries, environment, labels."""
    made = (
        _pairs("The images", dict(content.facts(a)), dict(content.facts(b))),
        _sizes(a, b),
        _layers(a, b),
        _pairs("PyTorch", _torch(a), _torch(b)),
        _packages(a, b),
        _pairs("Libraries that matter, size", _libraries(a), _libraries(b)),
        _pairs("Environment variables", a.env, b.env),
        _pairs("Labels", a.labels, b.labels),
    )
    return Difference(one_line(a.name), one_line(b.name), tuple(one for one in made if one.rows))


def _pairs(title: str, a: Mapping[str, str], b: Mapping[str, str]) -> Grid:
    names = list(dict.fromkeys([*a, *b]))
    rows = tuple(
        (
            shortened(name, 60),
            shortened(a.get(name, _ABSENT), 60),
            shortened(b.get(name, _ABSENT), 60),
        )
        for name in names
        if a.get(name) != b.get(name)
    )
    return Grid.of(title, ("what", "A", "B"), rows)


def _sizes(a: Image, b: Image) -> Grid:
    rows = [
        ("unpacked", a.size_bytes, b.size_bytes),
        ("hidden by later layers", a.waste.hidden, b.waste.hidden),
        ("left behind", a.waste.left_behind, b.waste.left_behind),
    ]
    if a.packed_bytes is not None and b.packed_bytes is not None:
        rows.insert(1, ("compressed", a.packed_bytes, b.packed_bytes))
    changed = tuple((name, size(x), size(y), _change(x, y)) for name, x, y in rows if x != y)
    return Grid.of("Sizes", ("what", "A", "B", "B−A"), changed, "A B B−A")


def _change(x: int, y: int) -> str:
    sign = "+" if y >= x else "−"
    share = f" ({sign}{abs(y - x) / x * 100:.1f} %)" if x else ""
    return f"{sign}{size(abs(y - x))}{share}"


def _layers(a: Image, b: Image) -> Grid:
    """Layers that only one has; those in common come first and are counted in a row."""
    shared = {one.diff_id for one in a.layers} & {one.diff_id for one in b.layers}
    rows = [
        (side, str(one.number), size(one.size_bytes), shortened(one.command, 76))
        for side, image in (("A", a), ("B", b))
        for one in image.layers
        if one.diff_id not in shared
    ]
    if rows and shared:
        common = sum(one.size_bytes for one in a.layers if one.diff_id in shared)
        rows.insert(0, ("A, B", str(len(shared)), size(common), "layers in common"))
    return Grid.of("Layers", ("in", "#", "size", "command"), tuple(rows), "# size")


def _packages(a: Image, b: Image) -> Grid:
    before, after = _versions(a), _versions(b)
    rows = []
    for key in sorted({*before, *after}):
        x, y = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if x != y:
            what = "added" if x == _ABSENT else "removed" if y == _ABSENT else "changed"
            rows.append((what, key[0], key[1], x, y))
    rows.sort()
    return Grid.of("Packages", ("change", "by", "package", "A", "B"), tuple(rows))


def _versions(image: Image) -> dict[tuple[str, str], str]:
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for one in image.inventory.packages:
        found[one.manager, one.name.lower().replace("_", "-")].add(one.version)
    return {key: ", ".join(sorted(versions)) for key, versions in found.items()}


def _torch(image: Image) -> dict[str, str]:
    values: dict[str, str] = {}
    for place, one in enumerate(image.inventory.torches, start=1):
        mark = f" ({place})" if len(image.inventory.torches) > 1 else ""
        values |= {
            f"version{mark}": one.version or "?",
            f"CUDA{mark}": one.cuda or "none",
            f"debug{mark}": str(one.debug),
            f"commit{mark}": one.git or "?",
            f"libtorch{mark}": one.linkage,
            f"MKL linked in{mark}": str(one.mkl),
            f"GPU code{mark}": " ".join(one.gpu.names()) if one.gpu else "none",
            f"libraries{mark}": size(sum(library.size for library in one.libraries)),
            f"at{mark}": one.path.removesuffix("/version.py"),
        }
    return values


def _libraries(image: Image) -> dict[str, str]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for one in image.inventory.libraries:
        found[f"{one.group} {one.family}"].append(one.size)
    return {name: " + ".join(size(n) for n in sorted(found[name])) for name in sorted(found)}
