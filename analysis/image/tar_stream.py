"""Tar archives read as they stream by; no length is believed before its bytes are there.

The standard library's ``tarfile`` recurses once per extended header, keeps headers of any size in memory
and counts up to any declared size. Here headers are held to the limits that Go's ``archive/tar`` (which
Docker and containerd use) and Linux set: what those would refuse to unpack is refused.

Formats: v7, ustar, GNU (long names, sparse files) and PAX.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from wattbench.analysis.image.streams import PIECE, Buffered, DamagedError, Readable

BLOCK: Final = 512
#: Go's archive/tar: maxSpecialFileSize.
_EXTENDED_BYTES: Final = 1 << 20
#: Linux: PATH_MAX and NAME_MAX.
_PATH_BYTES: Final = 4096
_NAME_BYTES: Final = 255
#: The largest file of ext4, bytes.
_FILE_BYTES: Final = 1 << 44

_REGULAR: Final = frozenset(b"0\07S")
_LINK, _SYMLINK, _DIRECTORY = ord("1"), ord("2"), ord("5")
_WITHOUT_DATA: Final = frozenset(b"123456")
_GNU_NAME, _GNU_TARGET, _GNU_SPARSE = ord("L"), ord("K"), ord("S")
_PAX, _PAX_SOLARIS, _PAX_GLOBAL = ord("x"), ord("X"), ord("g")
_SECONDS: Final = re.compile(r"(-?\d{1,18})(\.\d*)?", re.ASCII)
_DIGITS: Final = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    Attributes:
        name: as stored; bytes that are not UTF-8 as surrogates.
        type: the type byte.
        size: bytes of the file, holes of a sparse file included.
        mtime: whole seconds.
        mode: permission bits.
        target: of a link.
        sparse: whether only parts of the file are stored.
    """

    name: str
    type: int
    size: int
    mtime: int
    mode: int
    target: str
    sparse: bool

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.type in _REGULAR and not self.is_directory

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory; before ustar a slash at the end was all that said so."""
        return self.type == _DIRECTORY or (self.type == 0 and self.name.endswith("/"))

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.type == _SYMLINK

    @property
    def is_hard_link(self) -> bool:
        """Whether it is another name of an earlier member."""
        return self.type == _LINK


class Content:
    """The stored bytes of one member."""

    def __init__(self, stream: Buffered, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; none at the end.

        Raises:
            DamagedError: the archive ends early.
        """
        wanted = self.left if size < 0 else min(size, self.left)
        piece = self._stream.read(min(wanted, PIECE)) if wanted else b""
        if wanted and not piece:
            raise DamagedError("unexpected end of data")
        self.left -= len(piece)
        return piece

    def skip(self) -> None:
        """Pass over what is left."""
        while self.read(PIECE):
            pass


def looks_like_tar(head: bytes) -> bool:
    """Whether the first 512 bytes are a header with a right checksum, or the mark of an empty archive."""
    if len(head) < BLOCK:
        return False
    return not any(head) or _checksum_fits(head)


def _checksum_fits(block: bytes) -> bool:
    try:
        stored = _number(block[148:156])
    except DamagedError:
        return False
    plain = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if stored == plain:
        return True
    # Some old programs summed signed characters.
    high = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
    return stored == plain - 256 * high


def members(stream: Readable) -> Iterator[tuple[Member, Content]]:
    """Members in order; the content of one may be read until the next is asked for.

    Raises:
        DamagedError: no tar archive, cut, or with a header beyond the limits.
    """
    source = Buffered(stream)
    extended: dict[str, str] = {}
    while True:
        block = source.exactly(BLOCK)
        if not any(block) and len(block) in (0, BLOCK):
            return
        if len(block) < BLOCK or not _checksum_fits(block):
            raise DamagedError("a header is cut or its checksum is wrong")
        kind, stored = block[156], _number(block[124:136])
        if stored < 0:
            raise DamagedError("a member of negative size")
        if kind in (_GNU_NAME, _GNU_TARGET, _PAX, _PAX_SOLARIS, _PAX_GLOBAL):
            data = _extended_header(source, stored)
            if kind in (_PAX, _PAX_SOLARIS):
                extended |= _records(data)
            elif kind != _PAX_GLOBAL:  # containers ignore global ones, as Go does
                key = "path" if kind == _GNU_NAME else "linkpath"
                extended[key] = _text(data)
            continue
        member, stored = _member(source, block, stored, extended)
        extended = {}
        content = Content(source, stored)
        yield member, content
        content.skip()
        Content(source, -stored % BLOCK).skip()


def _extended_header(source: Buffered, size: int) -> bytes:
    if size > _EXTENDED_BYTES:
        raise DamagedError(f"an extended header of {size:,} bytes; at most 1 MiB is allowed")
    data = source.exactly(size + -size % BLOCK)
    if len(data) < size:
        raise DamagedError("unexpected end of data")
    return data[:size]


def _member(
    source: Buffered, block: bytes, stored: int, extended: Mapping[str, str]
) -> tuple[Member, int]:
    """The member of a header, and how many bytes of it are stored."""
    kind = block[156]
    sparse = kind == _GNU_SPARSE or any(key.startswith("GNU.sparse.") for key in extended)
    stored = _whole(extended, "size", stored)
    size = stored
    if kind == _GNU_SPARSE:
        size = _number(block[483:495])
        more = block[482]
        while more:
            follows = source.exactly(BLOCK)
            if len(follows) < BLOCK:
                raise DamagedError("unexpected end of data")
            more = follows[504]
    elif sparse:
        size = _whole(extended, "GNU.sparse.size", size)
        size = _whole(extended, "GNU.sparse.realsize", size)
    name = extended.get("GNU.sparse.name") or extended.get("path") or _name(block)
    if kind in _WITHOUT_DATA or (kind == 0 and name.endswith("/")):
        size = stored = 0
    target = extended.get("linkpath") or _text(block[157:257])
    _check_path(name)
    if kind == _LINK:
        _check_path(target)
    elif kind == _SYMLINK and len(target.encode(errors="surrogateescape")) > _PATH_BYTES:
        raise DamagedError(f"a symbolic link to a path of over {_PATH_BYTES} bytes")
    if not 0 <= size <= _FILE_BYTES:
        raise DamagedError(f"{name[:80]!r} of {size:,} bytes; no file system holds that")
    mtime = extended.get("mtime")
    seconds = _number(block[136:148])
    if mtime is not None:
        if (match := _SECONDS.fullmatch(mtime)) is None:
            raise DamagedError(f"{name[:80]!r} has the time {mtime[:40]!r}")
        seconds = int(match[1])
    mode = _number(block[100:108])
    return Member(name, kind, size, seconds & 0xFFFFFFFF, mode & 0o7777, target, sparse), stored


def _check_path(name: str) -> None:
    """Refuse what no Linux file system takes; deep paths would also take quadratic time."""
    raw = name.encode(errors="surrogateescape")
    if len(raw) > _PATH_BYTES:
        raise DamagedError(f"a path of {len(raw):,} bytes; Linux takes {_PATH_BYTES}")
    if max(map(len, raw.split(b"/"))) > _NAME_BYTES:
        raise DamagedError(f"a file name of over {_NAME_BYTES} bytes: {name[:80]!r}")


def _name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """An octal number, or a binary one where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        return value - (1 << 8 * len(field) - 1) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise DamagedError("a header with a number that is none")
    return int(digits, 8)


def _whole(extended: Mapping[str, str], key: str, usual: int) -> int:
    value = extended.get(key)
    if value is None:
        return usual
    if not _DIGITS.fullmatch(value):
        raise DamagedError(f"an extended header with {key}={value[:40]!r}")
    return int(value)


def _records(data: bytes) -> dict[str, str]:
    """PAX records, a length, a blank, ``KEY=VALUE`` and a line feed each; the last of a key counts."""
    found: dict[str, str] = {}
    place = 0
    while place < len(data):
        blank = data.find(b" ", place, place + 8)
        digits = data[place:blank] if blank > 0 else b""
        end = place + int(digits) if digits.isdigit() else 0
        record = data[blank + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or record[-1:] != b"\n" or end > len(data):
            raise DamagedError("an extended header that is not a list of records")
        if key in _USED and b"\0" in value:
            raise DamagedError(f"an extended header with a zero byte in {key.decode()}")
        if key in _USED or key.startswith(b"GNU.sparse."):
            found[key.decode(errors="replace")] = value.decode("utf-8", "surrogateescape")
        place = end
    return found


_USED: Final = frozenset({b"path", b"linkpath", b"size", b"mtime", b"GNU.sparse.name"})
