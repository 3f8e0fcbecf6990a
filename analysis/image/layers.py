"""One layer of an image, read from its tar stream in one pass."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from wattbench.analysis.image import kept_files
from wattbench.analysis.image.fatbin import GpuCode, Scanner
from wattbench.analysis.image.streams import PIECE, DamagedError, Readable
from wattbench.analysis.image.tar_stream import Content, Member, members
from wattbench.analysis.model.errors import InputError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
#: What is kept of all layers: entries (about 400 bytes each), and bytes of names and of files looked into.
#: The largest published images of machine learning hold 400,000 files.
_ENTRIES: Final = 1_500_000
_KEPT_BYTES: Final = 192 << 20


class Kind(StrEnum):
    """What a path of a layer is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    LINK = "link"  # a hard link to something that is not in the same layer
    OTHER = "other"


@dataclass(slots=True, eq=False)
class Entry:
    """One stored thing. Hard links of a layer share one entry, so that its bytes count once.

    Attributes:
        kind: what it is.
        layer: index of the layer that stores it.
        size: bytes of content.
        crc: CRC-32 of the content; with the size it shows whether two files are the same.
        mtime: whole seconds.
        mode: permission bits.
        target: of a link.
        head: the beginning of the content, of the few files that are looked into.
        gpu: device code in it, of a library with CUDA kernels.
        mkl: whether Intel's MKL is linked into it, of a library that may have it.
    """

    kind: Kind
    layer: int
    size: int = 0
    crc: int = 0
    mtime: int = 0
    mode: int = 0
    target: str = ""
    head: bytes | None = None
    gpu: GpuCode | None = None
    mkl: bool = False


@dataclass
class Layer:
    """What one layer stores.

    Attributes:
        index: from 0, the base first.
        diff_id: ``sha256:…`` of the uncompressed tar, as computed.
        entries: path (without a leading slash) → entry; the last of a name counts.
        whiteouts: paths that it deletes from the layers below.
        opaque: directories whose content below it hides.
        replaced: entries that the layer itself stores again further on.
        size_bytes: content of all its files, as Docker counts.
        packed_bytes: size of its blob where that is compressed, else None.
        compression: ``gzip``, ``zstd``, … or None.
    """

    index: int
    diff_id: str = ""
    entries: dict[str, Entry] = field(default_factory=dict)
    whiteouts: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    replaced: list[tuple[str, Entry]] = field(default_factory=list)
    size_bytes: int = 0
    packed_bytes: int | None = None
    compression: str | None = None

    def renumber(self, index: int) -> None:
        """Take a place in the image; layers stream by in any order."""
        self.index = index
        for entry in (*self.entries.values(), *(one for _, one in self.replaced)):
            entry.layer = index

    def copy(self) -> Layer:
        """Another storing of the same, for a layer that an image uses twice."""
        twins: dict[int, Entry] = {}

        def twin(entry: Entry) -> Entry:
            return twins.setdefault(id(entry), replace(entry))

        return replace(
            self,
            entries={path: twin(entry) for path, entry in self.entries.items()},
            replaced=[(path, twin(entry)) for path, entry in self.replaced],
        )


class Budget:
    """Limit on what an audit keeps in memory of all layers of an archive together."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._entries = self._bytes = 0

    def take(self, entries: int, kept_bytes: int) -> None:
        """Account for what is about to be kept.

        Raises:
            InputError: an image of this size can't be audited.
        """
        self._entries += entries
        self._bytes += kept_bytes
        if self._entries > _ENTRIES:
            raise InputError(f"{self._place}: over {_ENTRIES:,} files in its layers; not audited")
        if self._bytes > _KEPT_BYTES:
            raise InputError(
                f"{self._place}: file names and package lists of over {_KEPT_BYTES >> 20} MiB; "
                "not audited"
            )


class _Hashed:
    """A stream that is hashed as it is read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        self._hash.update(piece)
        return piece

    def finish(self) -> str:
        """Read to the end; the digest of everything."""
        while self.read(PIECE):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def clean(name: str) -> str:
    """A path without ``.``, ``..``, doubled and leading slashes.

    Raises:
        DamagedError: it leads out of the image.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise DamagedError(f"a path that leaves the image: {name[:80]!r}")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def read(stream: Readable, budget: Budget | None = None) -> Layer:
    """Read a layer.

    Args:
        stream: the uncompressed tar.
        budget: what may be kept in memory.

    Raises:
        DamagedError: no tar, or cut.
        InputError: more in it than can be audited.
    """
    layer, budget = Layer(0), budget or Budget("the layer")
    hashed = _Hashed(stream)
    for member, content in members(hashed):
        _take(layer, member, content, budget)
    layer.diff_id = hashed.finish()
    return layer


def _take(layer: Layer, member: Member, content: Content, budget: Budget) -> None:
    path = clean(member.name)
    budget.take(1, 2 * len(path) + len(member.target))
    folder, _, name = path.rpartition("/")
    if name == _OPAQUE:
        layer.opaque.add(folder)
        return
    if name.startswith(_WHITEOUT):
        hidden = name.removeprefix(_WHITEOUT)
        if not hidden.startswith(_WHITEOUT):  # .wh..wh.plnk and the like are aufs's own
            layer.whiteouts.add(f"{folder}/{hidden}" if folder else hidden)
        return
    if not path:
        return
    entry = _entry(layer, member, content, path, budget)
    before = layer.entries.pop(path, None)
    if before is not None and before.kind is Kind.FILE and before is not entry:
        layer.replaced.append((path, before))
    layer.entries[path] = entry


def _entry(layer: Layer, member: Member, content: Content, path: str, budget: Budget) -> Entry:
    entry = Entry(Kind.OTHER, 0, mtime=member.mtime, mode=member.mode)
    if member.is_file:
        layer.size_bytes += member.size
        entry.kind, entry.size = Kind.FILE, member.size
        _file(entry, content, path, sparse=member.sparse)
        budget.take(0, len(entry.head or b""))
    elif member.is_directory:
        entry.kind = Kind.DIRECTORY
    elif member.is_symlink:
        entry.kind, entry.target = Kind.SYMLINK, member.target
    elif member.is_hard_link:
        target = clean(member.target)
        if target in layer.entries:
            return layer.entries[target]
        entry.kind, entry.target = Kind.LINK, target
    return entry


def _file(entry: Entry, content: Content, path: str, *, sparse: bool) -> None:
    """The checksum, and what is looked for in a file of this name.

    A sparse file's stored parts are summed up and not looked into: its holes may be of any size.
    """
    limit = 0 if sparse else kept_files.kept_bytes(path)
    scanner = Scanner() if kept_files.has_gpu_code(path) else None
    seek_mkl = kept_files.may_have_mkl(path)
    head, tail, crc = bytearray(), b"", 0
    while piece := content.read(PIECE):
        crc = zlib.crc32(piece, crc)
        if len(head) < limit:
            head += piece[: limit - len(head)]
        if scanner is not None:
            scanner.feed(piece)
        if seek_mkl and not entry.mkl:
            entry.mkl = kept_files.MKL_MARK in tail + piece
            tail = piece[-len(kept_files.MKL_MARK) :]
    entry.crc = crc
    entry.head = bytes(head) if limit else None
    entry.gpu = scanner.found if scanner is not None else None
