"""One layer of an image, read from its tar stream in one pass."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import IO, Protocol

from wattbench.analysis.image import kept_files
from wattbench.analysis.image.fatbin import GpuCode, Scanner

_PIECE = 1 << 20
#: A tar stream copies what is left of its buffer at each read: small, or many small files take long.
BUFFER = 1 << 16
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


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
        crc: CRC-32 of the content; with the size it tells whether two files are the same.
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
        compression: ``gzip``, … or None.
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


class Readable(Protocol):
    """All that a layer needs of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes; none at the end."""


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
        while self.read(_PIECE):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def clean(name: str) -> str:
    """A path without ``./``, doubled and leading slashes."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def read(stream: Readable, tick: Callable[[], None] = lambda: None) -> Layer:
    """Read a layer.

    Args:
        stream: the uncompressed tar.
        tick: called every so often.

    Raises:
        tarfile.ReadError: no tar, or cut.
    """
    layer = Layer(0)
    hashed = _Hashed(stream)
    # In stream mode a TarFile asks of its file nothing but read().
    with tarfile.open(fileobj=hashed, mode="r|", bufsize=BUFFER) as tar:  # type: ignore[call-overload]
        for member in tar:
            _take(layer, tar, member)
            forget(tar)
            tick()
    layer.diff_id = hashed.finish()
    return layer


def forget(tar: tarfile.TarFile) -> None:
    """Let go of the members read: a TarFile would remember every one of a 40-GB image."""
    tar.members = []  # type: ignore[attr-defined]


def _take(layer: Layer, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = clean(member.name)
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
    entry = _entry(layer, tar, member, path)
    before = layer.entries.pop(path, None)
    if before is not None and before.kind is Kind.FILE and before is not entry:
        layer.replaced.append((path, before))
    layer.entries[path] = entry


def _entry(layer: Layer, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Entry:
    entry = Entry(Kind.OTHER, 0, mtime=int(member.mtime) & 0xFFFFFFFF, mode=member.mode & 0o7777)
    if member.isreg():
        content = tar.extractfile(member)
        assert content is not None
        layer.size_bytes += member.size
        entry.kind, entry.size = Kind.FILE, member.size
        _file(entry, content, path)
    elif member.isdir():
        entry.kind = Kind.DIRECTORY
    elif member.issym():
        entry.kind, entry.target = Kind.SYMLINK, member.linkname
    elif member.islnk():
        target = clean(member.linkname)
        if target in layer.entries:
            return layer.entries[target]
        entry.kind, entry.target = Kind.LINK, target
    return entry


def _file(entry: Entry, content: IO[bytes], path: str) -> None:
    limit = kept_files.kept_bytes(path)
    scanner = Scanner() if kept_files.has_gpu_code(path) else None
    seek_mkl = kept_files.may_have_mkl(path)
    head, tail, crc, left = b"", b"", 0, entry.size
    while left:
        piece = content.read(min(_PIECE, left))
        if not piece:
            raise tarfile.ReadError("unexpected end of data")
        left -= len(piece)
        crc = zlib.crc32(piece, crc)
        if len(head) < limit:
            head += piece[: limit - len(head)]
        if scanner is not None:
            scanner.feed(piece)
        if seek_mkl and not entry.mkl:
            entry.mkl = kept_files.MKL_MARK in tail + piece
            tail = piece[-len(kept_files.MKL_MARK) :]
    entry.crc = crc
    entry.head = head if limit else None
    entry.gpu = scanner.found if scanner is not None else None
