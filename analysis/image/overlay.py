"""Layers laid over each other: what a container sees, and what is stored but never seen.

Rules of the OCI image specification (layer.md): a layer's whiteouts act on the layers below it only, then its
own entries are laid over; a directory over a directory merges, everything else replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from wattbench.analysis.image.layers import Entry, Kind, Layer

_HOPS = 40  # as Linux follows
_STEPS = 10_000  # names looked up for one path, links included


class How(StrEnum):
    """Why stored bytes can't be seen."""

    OVERWRITTEN = "overwritten"
    COPIED = "copied unchanged"  # same content again: only owner, mode or time changed
    DELETED = "deleted"


@dataclass(frozen=True)
class Hidden:
    """A file that is stored but that no container sees.

    Attributes:
        path: without a leading slash.
        size: bytes.
        layer: index of the layer that stores it.
        by: index of the layer that hides it.
        how: overwritten, copied unchanged or deleted.
    """

    path: str
    size: int
    layer: int
    by: int
    how: How


@dataclass(slots=True, eq=False)
class Folder:
    """A directory of the tree that a container sees."""

    children: dict[str, Entry | Folder] = field(default_factory=dict)


Node = Entry | Folder


class Overlay:
    """The stack of layers, built from the base up."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.root = Folder()
        self._gone: dict[int, tuple[str, Entry, int, How]] = {}
        for layer in layers:
            self._apply(layer)
        #: path → entry of everything seen but directories
        self.files: dict[str, Entry] = dict(_walk(self.root, ""))
        seen = {id(entry) for entry in self.files.values()}
        self.hidden: tuple[Hidden, ...] = tuple(
            Hidden(path, entry.size, entry.layer, by, how)
            for key, (path, entry, by, how) in self._gone.items()
            if key not in seen
        )
        self._gone.clear()

    def _apply(self, layer: Layer) -> None:
        for path in sorted(layer.opaque):
            node = self.find(path) if path else self.root
            if isinstance(node, Folder):
                for name, child in list(node.children.items()):
                    self._lose(f"{path}/{name}" if path else name, child, layer.index, How.DELETED)
                node.children.clear()
        for path in sorted(layer.whiteouts):
            self._remove(path, layer.index)
        for path, entry in layer.replaced:
            self._lose(path, entry, layer.index, How.OVERWRITTEN)
        for path, entry in layer.entries.items():
            self._put(path, entry, layer.index)

    def find(self, path: str) -> Node | None:
        """What lies at a path; symbolic links are not followed."""
        node: Node | None = self.root
        for name in path.split("/"):
            if not isinstance(node, Folder):
                return None
            node = node.children.get(name)
        return node

    def resolve(self, path: str) -> tuple[str, Node] | None:
        """What a path leads to, links followed as inside a container.

        Returns:
            the real path without a leading slash, and what is there; None where nothing is.
        """
        ahead = path.split("/")[::-1]
        here: list[tuple[str, Node]] = []
        hops = steps = 0
        while ahead:
            name = ahead.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del here[-1:]
                continue
            parent = here[-1][1] if here else self.root
            node = parent.children.get(name) if isinstance(parent, Folder) else None
            steps += 1
            if node is None or steps > _STEPS:
                return None
            if isinstance(node, Entry) and node.kind is Kind.SYMLINK:
                hops += 1
                if hops > _HOPS:
                    return None
                if node.target.startswith("/"):
                    here.clear()
                ahead += node.target.split("/")[::-1]
                continue
            here.append((name, node))
        return "/".join(name for name, _ in here), here[-1][1] if here else self.root

    def _remove(self, path: str, by: int) -> None:
        parent, _, name = path.rpartition("/")
        folder = self.find(parent) if parent else self.root
        if isinstance(folder, Folder) and name in folder.children:
            self._lose(path, folder.children.pop(name), by, How.DELETED)

    def _put(self, path: str, entry: Entry, by: int) -> None:
        if entry.kind is Kind.LINK:
            target = self.find(entry.target)
            entry = target if isinstance(target, Entry) else entry
        folder = self.root
        *parents, name = path.split("/")
        for depth, part in enumerate(parents, start=1):
            child = folder.children.get(part)
            if not isinstance(child, Folder):
                if child is not None:
                    self._lose("/".join(parents[:depth]), child, by, How.OVERWRITTEN)
                child = folder.children[part] = Folder()
            folder = child
        before = folder.children.get(name)
        if entry.kind is Kind.DIRECTORY:
            if isinstance(before, Folder):
                return
            new: Node = Folder()
        else:
            new = entry
        if before is not None and before is not new:
            self._lose(path, before, by, _how(before, new))
        folder.children[name] = new

    def _lose(self, path: str, node: Node, by: int, how: How) -> None:
        if isinstance(node, Folder):
            for below, entry in _walk(node, path):
                self._lose(below, entry, by, how)
        elif node.kind is Kind.FILE:
            self._gone[id(node)] = (path, node, by, how)


def _how(before: Node, new: Node) -> How:
    same = (
        isinstance(before, Entry)
        and isinstance(new, Entry)
        and before.kind is Kind.FILE is new.kind
        and (before.size, before.crc) == (new.size, new.crc)
    )
    return How.COPIED if same else How.OVERWRITTEN


def _walk(folder: Folder, path: str) -> Iterator[tuple[str, Entry]]:
    """Everything below a folder but the folders; without recursion, for deep trees."""
    stack = [(path, folder)]
    while stack:
        at, node = stack.pop()
        for name, child in node.children.items():
            below = f"{at}/{name}" if at else name
            if isinstance(child, Folder):
                stack.append((below, child))
            else:
                yield below, child
