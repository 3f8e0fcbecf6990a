"""Raw EnergiBridge CSV bytes → :class:`Samples`: named columns, and what was wrong with the file.

Columns are found by name on every platform, never by position. Nothing here decides an energy: that
is :mod:`analysis.energy`. Faults of a file become notes with line numbers; a fault after which
energy can't be shown is a note with ``fatal``. Only a file that must not be read at all (its size)
is an ``InputError``.

What the tool writes: ``Delta`` and ``Time`` are whole milliseconds of the wall clock; ``…_ENERGY
(J)`` columns are cumulative with an arbitrary start and wrap; ``GPU<n>_POWER (mWatts)`` is
momentary; row 2 often repeats row 1's ``Time``; ``Time`` is taken just before a row's own sample,
but in row 1 just after it; ``Delta`` covers the interval after the sample; the last line of a
killed meter may be cut.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.records import Note

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Bytes of one file, unpacked. At 5 rows per second and 250 B per row this is more than two days.
SIZE_LIMIT = 256 * 1024 * 1024

#: A step between rows is a gap from this many usual intervals on.
GAP_FACTOR = 3.0

#: Unix seconds of the end of year 9999: later ones are no date.
LAST_S = 253_402_300_800.0

#: Of one kind of note, so many are kept one by one; the rest is counted in one more note.
NOTES_OF_A_KIND = 20


class Kind(StrEnum):
    """How a column's numbers behave."""

    CUMULATIVE = "cumulative"
    POWER = "power"
    GAUGE = "gauge"
    CONSTANT = "constant"


@dataclass(frozen=True)
class Spec:
    """What a column's name says.

    Attributes:
        name: as in the header.
        kind: how its numbers behave.
        quantity: ``energy``, ``power``, ``usage``, ``temperature``, ``memory``, ``frequency``,
            ``voltage``, ``state`` or ``unknown``.
        unit: unit of :attr:`Column.values`, after conversion: J, W, %, °C, B, MHz, V or empty.
        domain: ``package``, ``dram``, ``pp0``, ``pp1``, ``core<n>``, ``gpu<n>``, ``system``,
            ``cpu`` or None.
        factor: from the file's unit to ``unit``.
    """

    name: str
    kind: Kind
    quantity: str
    unit: str
    domain: str | None = None
    factor: float = 1.0


_MEBIBYTE = 1024.0 * 1024.0
_CUMULATIVE, _POWER, _GAUGE, _CONSTANT = Kind.CUMULATIVE, Kind.POWER, Kind.GAUGE, Kind.CONSTANT

#: Name pattern → kind, quantity, unit, domain template, factor. ``{}`` is the pattern's group.
_KNOWN: tuple[tuple[re.Pattern[str], Kind, str, str, str | None, float], ...] = tuple(
    (re.compile(pattern), kind, quantity, unit, domain, factor)
    for pattern, kind, quantity, unit, domain, factor in (
        (r"(?:PACKAGE|CPU)_ENERGY \(J\)", _CUMULATIVE, "energy", "J", "package", 1.0),
        (r"DRAM_ENERGY \(J\)", _CUMULATIVE, "energy", "J", "dram", 1.0),
        (r"PP([01])_ENERGY \(J\)", _CUMULATIVE, "energy", "J", "pp{}", 1.0),
        (r"CORE(\d+)_ENERGY \(J\)", _CUMULATIVE, "energy", "J", "core{}", 1.0),
        (r"GPU(\d+)_POWER \(mWatts\)", _POWER, "power", "W", "gpu{}", 1e-3),
        (r"SYSTEM_POWER \(Watts\)", _POWER, "power", "W", "system", 1.0),
        (r"CPU_POWER \(Watts\)", _POWER, "power", "W", "cpu", 1.0),
        (r"GPU(\d+)_USAGE", _GAUGE, "usage", "%", "gpu{}", 1.0),
        (r"GPU(\d+)_TEMPERATURE", _GAUGE, "temperature", "°C", "gpu{}", 1.0),
        (r"GPU(\d+)_MEMORY_USED", _GAUGE, "memory", "B", "gpu{}", _MEBIBYTE),
        (r"GPU(\d+)_MEMORY_TOTAL", _CONSTANT, "memory", "B", "gpu{}", _MEBIBYTE),
        (r"CPU_USAGE_(\d+)", _GAUGE, "usage", "%", None, 1.0),
        (r"CPU_TEMP_(\d+)", _GAUGE, "temperature", "°C", None, 1.0),
        # Read once, when the tool starts: says nothing about throttling.
        (r"CPU_FREQUENCY_(\d+)", _CONSTANT, "frequency", "MHz", None, 1.0),
        (r"CORE(\d+)_FREQ \(MHZ\)", _GAUGE, "frequency", "MHz", "core{}", 1.0),
        (r"CORE(\d+)_VOLT \(V\)", _GAUGE, "voltage", "V", "core{}", 1.0),
        (r"CORE(\d+)_PSTATE", _GAUGE, "state", "", "core{}", 1.0),
        (r"TOTAL_(?:MEMORY|SWAP)", _CONSTANT, "memory", "B", None, 1.0),
        (r"USED_(?:MEMORY|SWAP)", _GAUGE, "memory", "B", None, 1.0),
    )
)


#: Units that people convert columns to: as found → the tool's unit, factor from one to the other.
_UNITS = {
    "mJ": ("J", 1e-3), "uJ": ("J", 1e-6), "µJ": ("J", 1e-6), "kJ": ("J", 1e3), "Wh": ("J", 3600.0),
    "mWh": ("J", 3.6), "kWh": ("J", 3.6e6), "W": ("Watts", 1.0), "mW": ("Watts", 1e-3),
    "mWatts": ("Watts", 1e-3), "Watts": ("mWatts", 1e3),
}  # fmt: skip
_UNIT = re.compile(r"(?P<what>.*) ?\((?P<unit>[^()]+)\)")


@lru_cache(maxsize=4096)
def spec_of(name: str) -> Spec:
    """What a column's name says; an unknown name is a gauge of quantity ``unknown``."""
    known = _spec_of(name)
    match = _UNIT.fullmatch(name)
    if known.quantity != "unknown" or match is None or match["unit"] not in _UNITS:
        return known
    what = match["what"].rstrip()
    unit, factor = _UNITS[match["unit"]]
    spec = _spec_of(f"{what} ({unit})")
    if spec.quantity == "unknown" and unit == "Watts":
        spec, factor = _spec_of(f"{what} (mWatts)"), factor * 1e3
    return (
        known
        if spec.quantity == "unknown"
        else replace(spec, name=name, factor=spec.factor * factor)
    )


def _spec_of(name: str) -> Spec:
    for pattern, kind, quantity, unit, domain, factor in _KNOWN:
        if match := pattern.fullmatch(name):
            index = match.group(1) if pattern.groups else ""
            return Spec(name, kind, quantity, unit, domain and domain.format(index), factor)
    return Spec(name, Kind.GAUGE, "unknown", "")


class _Table:
    """The numeric body of a file: columns that decide energy at once, the others on demand."""

    def __init__(self, body: bytes, width: int, eager: dict[int, FloatArray]) -> None:
        self._body = body
        self._width = width
        self._eager = eager

    @classmethod
    def parse(cls, body: bytes, header: _Header) -> _Table:
        """Parse the eager columns; ValueError if a cell of theirs is no number."""
        values = np.loadtxt(
            io.BytesIO(body), delimiter=",", comments=None, usecols=header.eager, ndmin=2
        )
        width = len(header.names)
        return cls(body, width, {i: values[:, place] for place, i in enumerate(header.eager)})

    def repeats(self, row: int) -> bool:
        """Whether ``row`` and the one after it are equal in all eager columns."""
        return all(values[row] == values[row + 1] for values in self._eager.values())

    @cached_property
    def _rest(self) -> dict[int, FloatArray]:
        rest = [i for i in range(self._width) if i not in self._eager]
        try:
            values = np.loadtxt(
                io.BytesIO(self._body),
                delimiter=",",
                comments=None,
                usecols=rest,
                ndmin=2,
            )
        except ValueError:
            cells = self._body.replace(b"\n", b",").split(b",")[:-1]
            values = np.array([_number(c) for c in cells]).reshape(-1, self._width)[:, rest]
        return {index: values[:, place] for place, index in enumerate(rest)}

    def column(self, index: int) -> FloatArray:
        return self._eager[index] if index in self._eager else self._rest[index]


def _number(cell: bytes) -> float:
    """A cell's number, NaN where it is none."""
    return float(cell) if _NUMBER.fullmatch(cell) else float("nan")


@dataclass(frozen=True)
class Column:
    """One column: what its name says, and its values (NaN: a cell that is no number)."""

    spec: Spec
    _table: _Table = field(repr=False, compare=False)
    _index: int = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The header's name."""
        return self.spec.name

    @property
    def kind(self) -> Kind:
        """How the numbers behave."""
        return self.spec.kind

    @property
    def domain(self) -> str | None:
        """The part of the machine."""
        return self.spec.domain

    @cached_property
    def values(self) -> FloatArray:
        """Shape (rows,), in ``spec.unit``."""
        values = self._table.column(self._index)
        return values if self.spec.factor == 1.0 else values * self.spec.factor


@dataclass(frozen=True)
class Samples:
    """One file's rows.

    Attributes:
        time_s: wall clock of each row, Unix seconds, shape (rows,); not always increasing, see
            ``notes``.
        delta_s: the tool's own step after the row, s; None without the column.
        lines: line number of each row, the header is line 1.
        notes: what was met; ``fatal`` ones mean that energy can't be shown.
    """

    time_s: FloatArray
    delta_s: FloatArray | None
    lines: IntArray
    notes: tuple[Note, ...]
    _specs: tuple[tuple[int, Spec], ...] = field(default=(), repr=False)
    _table: _Table | None = field(default=None, repr=False, compare=False)

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """All columns but ``Delta`` and ``Time`` by name, in the file's order."""
        if self._table is None:
            return {}
        return {spec.name: Column(spec, self._table, index) for index, spec in self._specs}

    @property
    def rows(self) -> int:
        """Number of rows that were kept."""
        return int(self.time_s.size)

    @property
    def fatal(self) -> bool:
        """Whether a note says that energy can't be shown."""
        return any(note.fatal for note in self.notes)

    @cached_property
    def interval_s(self) -> float | None:
        """The usual step between rows, s: the median of those above zero."""
        return usual_interval(self.time_s)

    @cached_property
    def energy_columns(self) -> tuple[Column, ...]:
        """Cumulative energy and power columns of known domains."""
        if self._table is None:
            return ()
        return tuple(
            Column(spec, self._table, index)
            for index, spec in self._specs
            if spec.domain and spec.kind in (_CUMULATIVE, _POWER)
        )

    def find(self, quantity: str, domain: str | None = None) -> tuple[Column, ...]:
        """Columns of a quantity, of one domain or of any."""
        return tuple(
            c
            for c in self.columns.values()
            if c.spec.quantity == quantity and (domain is None or c.domain == domain)
        )


def usual_interval(time_s: FloatArray) -> float | None:
    """Median of the positive steps between rows, s; None below two distinct times.

    Steps under a tenth of the mean one are left out: the tool's second row follows its first at
    once.
    """
    steps = np.sort(time_s[1:] - time_s[:-1])
    steps = steps[np.searchsorted(steps, 0.0, "right") :]
    if not steps.size:
        return None
    first = int(np.searchsorted(steps, 0.1 * steps.mean()))
    return float(steps[(first + steps.size) // 2])


@dataclass(frozen=True, eq=False)
class _Header:
    separator: bytes
    names: tuple[str, ...]
    time: int | None
    delta: int | None
    eager: tuple[int, ...]
    columns: tuple[tuple[int, Spec], ...]
    notes: tuple[Note, ...]


_SEPARATORS = (b",", b";", b"\t", b"|")
_NUMBER = re.compile(rb"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
#: What numbers are made of: with it deleted, a sound body leaves its delimiters only.
_NUMERIC = b"0123456789.+-eE"


def _separator_of(line: bytes) -> bytes:
    """The separator, from the header itself: it stands between ``Delta`` and ``Time``."""
    if match := re.match(rb"\s*\"?Delta\"?(.{1,8}?)\"?Time\b", line):
        return match.group(1)
    return max(_SEPARATORS, key=lambda s: (b"Time" in line.split(s), line.count(s)))


#: What is said of a log of other columns only.
NO_ENERGY = "no energy or power column: no sensor was read"


def unknown_column(name: str) -> Note:
    """What is noted of an unknown column."""
    return Note("unknown-column", f"column {name!r} is not known; kept, not counted", 1, name)


@lru_cache(maxsize=256)
def _header_of(line: bytes, separator: bytes | None) -> _Header:
    separator = separator or _separator_of(line)
    names = tuple(
        cell.decode("utf-8", "replace").strip().strip('"') for cell in line.split(separator)
    )
    notes: list[Note] = []
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            notes.append(
                Note("repeated-column", f"column {name!r} stands twice; the first counts", 1, name)
            )
        else:
            seen[name] = index
    time, delta = seen.pop("Time", None), seen.pop("Delta", None)
    if time is None:
        text = line[:60].decode("ascii", "backslashreplace")
        notes = [
            Note("bad-header", f"no column Time, not an EnergiBridge log: {text!r}", 1, fatal=True)
        ]
        return _Header(separator, names, None, None, (), (), tuple(notes))
    if delta is None:
        notes.append(Note("missing-column", "no column Delta", 1, "Delta"))
    specs = [(index, spec_of(name)) for name, index in seen.items()]
    notes += [unknown_column(s.name) for _, s in specs if s.quantity == "unknown"]
    energy = [index for index, s in specs if s.kind in (_CUMULATIVE, _POWER)]
    if not energy:
        notes.append(Note("no-energy", NO_ENERGY, 1, fatal=True))
    eager = tuple(sorted([time, *([] if delta is None else [delta]), *energy]))
    return _Header(separator, names, time, delta, eager, tuple(specs), tuple(notes))


class _Notes:
    """Collects notes; of one kind only the first ones are kept one by one."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._counts: dict[str, int] = {}

    def add(self, kind: str, message: str, line: int | None = None, **more: Any) -> None:
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count <= NOTES_OF_A_KIND:
            self.notes.append(Note(kind, message, line, **more))

    def finish(self) -> tuple[Note, ...]:
        extra = [
            Note(kind, f"{count - NOTES_OF_A_KIND} more of this kind")
            for kind, count in self._counts.items()
            if count > NOTES_OF_A_KIND
        ]
        return (*self.notes, *extra)


def read(data: bytes, *, separator: str | None = None, limit: int = SIZE_LIMIT) -> Samples:
    """Read a log.

    Args:
        data: the file's bytes, of any quality.
        separator: between cells; None: taken from the header.
        limit: most bytes that are read.

    Returns:
        The rows and what was wrong; no rows where nothing could be read.

    Raises:
        InputError: more than ``limit`` bytes.
    """
    opened = _open(data, separator, limit)
    if isinstance(opened, Samples):
        return opened
    header, first, body = opened
    table = None
    if _sound_rows(body, header):
        try:
            table = _Table.parse(body, header)
        except ValueError:  # a cell such as 1.2.3: found by its line below
            table = None
    return _samples(header, first, body, table)


def _open(data: bytes, separator: str | None, limit: int) -> tuple[_Header, bytes, bytes] | Samples:
    """Header, its line, and the body with plain line ends and commas; or a file without them."""
    if len(data) > limit:
        raise InputError(
            f"an EnergiBridge log of {len(data)} bytes is over the limit of {limit}; "
            "cut it into windows"
        )
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = data.removeprefix(b"\xef\xbb\xbf")
    first, _, body = data.partition(b"\n")
    if not data.strip():
        return _nothing((Note("empty", f"{len(data)} bytes, no header", fatal=True),))
    header = _header_of(first[:100_000], separator.encode() if separator else None)
    if header.time is None:
        return _nothing(header.notes)
    if header.separator != b",":
        body = body.replace(header.separator, b",")
    return header, first, body


def _sound_rows(body: bytes, header: _Header) -> int:
    """Number of lines if each has the header's cells, made of what numbers are made of; else 0."""
    delimiters = body.translate(None, _NUMERIC)
    pattern = b"," * (len(header.names) - 1) + b"\n"
    rows = len(delimiters) // len(pattern)
    return rows if delimiters == pattern * rows else 0


def _samples(header: _Header, first: bytes, body: bytes, table: _Table | None) -> Samples:
    """The rows of a table, or, where there is none, of what can be saved of the body."""
    assert header.time is not None  # _open() saw to it
    notes = _Notes()
    if table is not None:
        lines = np.arange(2, table.column(header.time).size + 2)
    else:
        body, numbers = _mend(body, header, first, notes)
        if not body:
            notes.add("empty", "a header and no usable row", 1, fatal=True)
            return _nothing((*header.notes, *notes.finish()))
        lines = np.array(numbers)
        table = _Table.parse(body, header)
    table, lines = _without_repeats(table, lines, body, header, notes)
    time_s = table.column(header.time) * 1e-3
    delta_s = None if header.delta is None else table.column(header.delta) * 1e-3
    _look_at_clock(time_s, delta_s, lines, notes)
    return Samples(time_s, delta_s, lines, (*header.notes, *notes.finish()), header.columns, table)


def _nothing(notes: tuple[Note, ...]) -> Samples:
    return Samples(np.empty(0), None, np.empty(0, np.int64), notes)


@lru_cache(maxsize=64)
def _plain_row(width: int) -> re.Pattern[bytes]:
    """Matches a line of decimal numbers, the quick way through a file that is sound but for its end."""
    cell = rb"-?\d{1,30}(?:\.\d{1,30})?"
    return re.compile(cell + rb"(?:," + cell + rb"){%d}" % (width - 1))


def _mend(
    body: bytes, header: _Header, header_line: bytes, notes: _Notes
) -> tuple[bytes, list[int]]:
    """Lines that are rows, non-numbers as ``nan``, and their line numbers; notes on the others."""
    width = len(header.names)
    complete = body.endswith(b"\n")
    pieces = body.split(b"\n")
    if complete:
        pieces.pop()
    head = header_line.replace(header.separator, b",")
    plain = _plain_row(width)
    kept: list[bytes] = []
    numbers: list[int] = []
    for number, line in enumerate(pieces, start=2):
        cut = not complete and number == len(pieces) + 1
        if not cut and plain.fullmatch(line):
            kept.append(line + b"\n")
            numbers.append(number)
            continue
        if not line.strip():
            if not cut:
                notes.add("bad-row", "blank line", number)
            continue
        if line == head:
            notes.add(
                "repeated-header", "a second header: two logs in one file", number, fatal=True
            )
            continue
        cells = line.split(b",")
        if len(cells) != width:
            kind, what = ("partial-row", "cut last line") if cut else ("bad-row", "line")
            notes.add(
                kind, f"{what} of {len(cells)} cells, the header has {width}; left out", number
            )
            continue
        if cut:
            # The file ends inside or right after the last cell: it can't be decided whether it is
            # whole.
            notes.add(
                "partial-row", "no line end: the last cell may be cut and is left out", number
            )
            cells[-1] = b"nan"
        if (mended := _mend_cells(cells, header, number, notes)) is not None:
            kept.append(mended)
            numbers.append(number)
    return b"".join(kept), numbers


def _mend_cells(cells: list[bytes], header: _Header, number: int, notes: _Notes) -> bytes | None:
    for index, cell in enumerate(cells):
        if _NUMBER.fullmatch(cell) and np.isfinite(float(cell)):
            continue
        if index == header.time:
            notes.add("bad-row", "Time is no number; row left out", number, column="Time")
            return None
        if cell != b"nan":
            text = cell[:30].decode("ascii", "backslashreplace")
            notes.add("bad-cell", f"{text!r} is no number", number, column=header.names[index])
        cells[index] = b"nan"
    return b",".join(cells) + b"\n"


def _without_repeats(
    table: _Table, lines: IntArray, body: bytes, header: _Header, notes: _Notes
) -> tuple[_Table, IntArray]:
    """Drop lines that repeat the one before byte for byte. Equal times alone are normal."""
    assert header.time is not None  # _open() saw to it
    time = table.column(header.time)
    candidates = [int(i) for i in (time[1:] == time[:-1]).nonzero()[0] if table.repeats(int(i))]
    if not candidates:
        return table, lines
    text = body.split(b"\n")
    repeats = [i + 1 for i in candidates if text[i] == text[i + 1]]
    for index in repeats:
        notes.add("repeated-row", "repeats the line before; left out", int(lines[index]))
    gone = set(repeats)
    kept = b"".join(line + b"\n" for i, line in enumerate(text[:-1]) if i not in gone)
    return _Table.parse(kept, header), np.delete(lines, repeats)


def _look_at_clock(
    time_s: FloatArray, delta_s: FloatArray | None, lines: IntArray, notes: _Notes
) -> None:
    """Note times that are no date, steps of the wall clock and gaps between rows."""
    for index in ((time_s < 0) | (time_s >= LAST_S)).nonzero()[0][:1]:
        notes.add(
            "clock-step",
            f"Time of {1e3 * time_s[index]:.6g} ms is no date",
            int(lines[index]),
            column="Time",
            fatal=True,
        )
    steps = time_s[1:] - time_s[:-1]
    for index in (steps < 0).nonzero()[0]:
        notes.add(
            "clock-step",
            f"Time goes back by {-steps[index]:.3f} s: samples can't be placed",
            int(lines[index + 1]),
            column="Time",
            fatal=True,
        )
    interval = usual_interval(time_s)
    if interval is None or steps.size < 3:
        return
    for index in (steps > GAP_FACTOR * interval).nonzero()[0]:
        notes.add(
            "gap",
            f"{steps[index]:.3f} s without a row, usual are {interval:.3f} s",
            int(lines[index + 1]),
            column="Time",
        )
    if delta_s is None:
        return
    # Both are wall clock, but Delta ends when the row is written: a clock step between two rows
    # shows as
    # a difference of the two. Row 1 has no Delta and row 2 follows at once, so the first step is
    # left out.
    odd = np.abs(steps[1:] - delta_s[1:-1]) > max(0.1, 0.25 * interval)
    for index in (odd & (steps[1:] >= 0)).nonzero()[0] + 1:
        notes.add(
            "clock-step",
            f"Time advances by {steps[index]:.3f} s where Delta says {delta_s[index]:.3f} s",
            int(lines[index + 1]),
            column="Time",
        )
