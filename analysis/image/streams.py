"""Byte streams read in one pass: buffered, counted, decompressed; memory stays within a few pieces."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from backports import zstd

from wattbench.analysis.model.errors import InputError

PIECE: Final = 1 << 20
_FILL: Final = 1 << 16
#: Compressed bytes taken at a time: what follows a member of a gzip stream is copied for each member.
_TAKE: Final = 1 << 14
GZIP: Final = b"\x1f\x8b"
#: A zstd frame, and frames to skip: zstd:chunked and pzstd keep tables in them.
_ZSTD: Final = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)))
#: A compressed stream that expands more than this many times, beyond the first bytes, is refused …
_EXPANSION: Final = 200
_EXPANSION_FROM: Final = 1 << 30
#: … and so is one whose decompressor wants more memory than this, bytes.
_DICTIONARY: Final = 256 << 20
#: Of a zstd stream: the window of ``zstd --ultra -22``, 128 MiB.
_ZSTD_WINDOW_LOG: Final = 27


class Readable(Protocol):
    """All that is needed of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


class DamagedError(Exception):
    """A stream that is cut or does not follow its format; the message says where."""


class Buffered:
    """A stream with look-ahead."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0

    def peek(self, size: int) -> bytes:
        """The next bytes without taking them; fewer at the end."""
        parts, there = [self._data[self._at :]], len(self._data) - self._at
        while there < size and (piece := self._stream.read(_FILL)):
            parts.append(piece)
            there += len(piece)
        self._data, self._at = b"".join(parts), 0
        return self._data[:size]

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if self._at >= len(self._data):
            wanted = PIECE if size < 0 else size
            if wanted >= _FILL:
                return self._stream.read(wanted)
            self._data, self._at = self._stream.read(_FILL), 0
        end = len(self._data) if size < 0 else min(len(self._data), self._at + size)
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def unread(self, size: int) -> None:
        """Give back the end of what the last :meth:`read` of less than 64 KiB returned."""
        self._at -= size

    def exactly(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        piece = self.read(size)
        if len(piece) == size:
            return piece
        parts = [piece]
        size -= len(piece)
        while size and (piece := self.read(min(size, PIECE))):
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)


class _Zlib:
    """``zlib`` with the interface of ``bz2`` and ``lzma``."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _zstd() -> zstd.ZstdDecompressor:
    limits: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=limits)


_Decompressor = _Zlib | bz2.BZ2Decompressor | lzma.LZMADecompressor | zstd.ZstdDecompressor


class _Format(NamedTuple):
    """A compressed format: its name, how a member of it begins, how one is read."""

    name: str
    marks: tuple[bytes, ...]
    make: Callable[[], _Decompressor]


_FORMATS: Final = (
    _Format("gzip", (GZIP,), _Zlib),
    _Format("bzip2", (b"BZh",), bz2.BZ2Decompressor),
    _Format("xz", (b"\xfd7zXZ\x00",), lambda: lzma.LZMADecompressor(memlimit=_DICTIONARY)),
    _Format("zstd", _ZSTD, _zstd),
)


class Decompressed:
    """The content of a gzip, bzip2, xz or zstd stream, several members one after the other included."""

    def __init__(self, stream: Buffered, place: str) -> None:
        self._stream = stream
        self._place = place
        head = stream.peek(8)
        self._format = next(one for one in _FORMATS if head.startswith(one.marks))
        self._inner = self._format.make()
        self._packed = self._unpacked = 0
        self._over = False

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; none at the end.

        Raises:
            DamagedError: the stream is cut or damaged.
            InputError: it expands beyond any image's content.
        """
        wanted = PIECE if size < 0 else size
        while not self._over and wanted:
            data = b""
            if self._inner.needs_input and not self._inner.eof:
                data = self._stream.read(_TAKE)
                self._packed += len(data)
                if not data:
                    raise DamagedError("the compressed data end early")
            try:
                piece = self._inner.decompress(data, wanted)
            except (
                zlib.error,
                zstd.ZstdError,
                lzma.LZMAError,
                OSError,
                EOFError,
                ValueError,
            ) as error:
                raise DamagedError(f"the compressed data are damaged: {error}") from error
            if self._inner.eof:
                self._next_member()
            if piece:
                self._unpacked += len(piece)
                self._check_expansion()
                return piece
        return b""

    def _next_member(self) -> None:
        """What follows a member: another one, padding, or the end."""
        rest = self._inner.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._stream.read(_TAKE)):
                self._over = True
                return
            self._packed += len(rest)
        self._stream.unread(len(rest))
        self._packed -= len(rest)
        if not self._stream.peek(8).startswith(self._format.marks):
            raise DamagedError("other data follow the compressed data")
        self._inner = self._format.make()

    def _check_expansion(self) -> None:
        if self._unpacked > max(_EXPANSION_FROM, _EXPANSION * self._packed):
            raise InputError(
                f"{self._place}: unpacks to over {_EXPANSION} times its size "
                f"({self._unpacked / 1e9:.1f} GB so far), as no image's files do; not audited"
            )


def compression(head: bytes) -> str | None:
    """The name of the format that a stream of these first bytes has, if :class:`Decompressed` reads it."""
    return next((one.name for one in _FORMATS if head.startswith(one.marks)), None)
