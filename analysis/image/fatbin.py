"""Which GPU code a library holds, read from its fat binaries without running it.

``nvcc`` stores device code in containers: a header (magic, version, header size, payload size), then one
entry a target with its kind (PTX or machine code) and compute capability. Payloads may be compressed,
headers never are. The layout is that of CUDA's ``fatbinary.h``; it holds for CUDA 8 to 13.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_MAGIC = struct.pack("<I", 0xBA55ED50)
_CONTAINER = struct.Struct("<IHHQ")
#: Of an entry: kind, version, header size, payload size with padding, …, compute capability.
_ENTRY = struct.Struct("<HHIQ12xI")
_PTX, _MACHINE_CODE = 1, 2
#: Headers of entries are 64 bytes and a few options; anything else is not an entry.
_HEADERS = range(_ENTRY.size, 4096)
#: Compute capability × 10 of any GPU; other values in an entry are not targets.
_CAPABILITIES = range(10, 1000)


@dataclass(frozen=True)
class GpuCode:
    """Targets of device code: ``sm`` machine code, ``ptx`` what a driver compiles at load time.

    Numbers are compute capability × 10 (90 is ``sm_90``). Variants such as ``sm_90a`` count as their number.
    """

    sm: tuple[int, ...] = ()
    ptx: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sm or self.ptx)

    def __or__(self, other: GpuCode) -> GpuCode:
        return GpuCode(tuple(sorted({*self.sm, *other.sm})), tuple(sorted({*self.ptx, *other.ptx})))

    def names(self) -> list[str]:
        """As ``torch.cuda.get_arch_list()`` names them."""
        return [f"sm_{n}" for n in self.sm] + [f"compute_{n}" for n in self.ptx]

    def runs_on(self, capability: int) -> bool:
        """Whether machine code for this GPU is there: same major version, minor not newer.

        Source: CUDA C++ Programming Guide, "Binary Compatibility".
        """
        return any(n // 10 == capability // 10 and n <= capability for n in self.sm)

    def compiles_for(self, capability: int) -> bool:
        """Whether a driver can compile PTX for this GPU."""
        return any(n <= capability for n in self.ptx)


class Scanner:
    """Finds the targets in a library fed in pieces of any size; memory stays within one piece."""

    def __init__(self) -> None:
        self._rest = b""
        self._at = 0  # where the rest begins in the file
        self._next: int | None = None  # the next entry, inside a container
        self._end = 0  # of that container
        self._sm: set[int] = set()
        self._ptx: set[int] = set()

    @property
    def found(self) -> GpuCode:
        """What has been seen so far."""
        return GpuCode(tuple(sorted(self._sm)), tuple(sorted(self._ptx)))

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the file."""
        data, place = self._rest + piece, 0
        while True:
            after = self._entry(data) if self._next is not None else self._container(data, place)
            if after is None:
                return
            place = after

    def _keep(self, data: bytes, begin: int) -> None:
        begin = min(begin, len(data))
        self._rest = data[begin:]
        self._at += begin

    def _container(self, data: bytes, place: int) -> int | None:
        """Look for a container; the place to go on from, or None where more is needed."""
        place = data.find(_MAGIC, place)
        if place < 0:
            self._keep(data, max(0, len(data) - len(_MAGIC) + 1))
            return None
        if place + _CONTAINER.size > len(data):
            self._keep(data, place)
            return None
        _, version, header, size = _CONTAINER.unpack_from(data, place)
        if version == 1 and header == _CONTAINER.size and size:
            self._next = self._at + place + header
            self._end = self._next + size
        return place + len(_MAGIC)

    def _entry(self, data: bytes) -> int | None:
        """Read the entry at ``_next``; as :meth:`_container`."""
        assert self._next is not None
        place = self._next - self._at
        if place + _ENTRY.size > len(data):
            self._keep(data, place)
            return None
        kind, _, header, size, capability = _ENTRY.unpack_from(data, place)
        follows = self._next + header + size
        if header not in _HEADERS or follows > self._end:
            self._next = None  # the magic was a coincidence
            return place
        if capability not in _CAPABILITIES:
            pass
        elif kind == _PTX:
            self._ptx.add(capability)
        elif kind == _MACHINE_CODE:
            self._sm.add(capability)
        self._next = follows if follows + _ENTRY.size <= self._end else None
        return int(follows - self._at)
