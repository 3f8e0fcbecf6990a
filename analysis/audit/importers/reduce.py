"""Many raw EnergiBridge logs → one :class:`Reduced` each: first to last row, nothing trimmed.

A campaign may hold tens of thousands of small files. Those without any oddity and with one header are
parsed together and reduced by array operations; every other file goes one by one through
:mod:`analysis.energibridge`, whose notes then travel with it. Both ways end in the same arithmetic.
Samples are dropped as soon as they are reduced, so memory depends on the number of files and not on their
size.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.csv

from wattbench.analysis.audit.processes import below, chunks, readers
from wattbench.analysis.meters import counters, energibridge
from wattbench.analysis.meters.energibridge import Kind
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.records import Note
from wattbench.analysis.storage.encodings import as_utf8

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Bytes that are parsed together, at most.
BATCH_BYTES = 8 * 1024 * 1024

#: What columns of numbers are parsed to.
_NUMBERS = frozenset({pyarrow.int64(), pyarrow.float64()})

#: Units in a header in which the tool itself writes nothing.
_OTHER_UNIT = re.compile(rb"\((?!J\)|mWatts\)|Watts\)|V\)|MHZ\))[^()]*\)")

#: Domains that lie inside others: a column of theirs that can't be used voids nothing.
_INNER = re.compile(r"pp\d|core\d+|cpu")

#: A file may lack this share of a column's cells before the column is left out.
_GAPS = 0.5

#: Milliseconds since 1970 of 2000 and 2100: a Time that lies between these in another unit is in that one.
_LEAST_MS, _MOST_MS = 9.4e11, 4.1e12
_TIME_UNITS = ((1e-3, "seconds"), (1e3, "microseconds"), (1e6, "nanoseconds"))

_NUMERIC = b"0123456789.+-eE"

#: Column groups whose course is kept: name in ``Record.series`` → (quantity, column prefix).
_GAUGES: dict[str, tuple[str, str]] = {
    "CPU_USAGE": ("usage", "CPU_USAGE_"),
    "CPU_FREQUENCY": ("frequency", "CPU_FREQUENCY_"),
    "GPU_USAGE": ("usage", "GPU"),
    "GPU_POWER": ("power", "GPU"),
    "GPU_MEMORY_USED": ("memory", "GPU"),
    "USED_MEMORY": ("memory", "USED_MEMORY"),
    "TOTAL_MEMORY": ("memory", "TOTAL_MEMORY"),
    "USED_SWAP": ("memory", "USED_SWAP"),
}


class Energy(NamedTuple):
    """Joules of one domain.

    Attributes:
        name: domain, as :func:`analysis.energibridge.spec_of` names it.
        column: the file's column.
        joules: first to last row, wraps corrected; None: can't be shown.
        naive_j: last minus first value, wraps not corrected.
        summary_j: last but one minus first value: what the tool's summary line adds up.
        wraps: wraps corrected.
        span_j: the counter's range, where it wrapped.
        wrap_lines: lines of the first row after each wrap.
        cumulative: counter (True) or integrated power (False).
        start_j: a counter's first value.
    """

    name: str
    column: str
    joules: float | None
    naive_j: float | None
    summary_j: float | None
    wraps: int = 0
    span_j: float | None = None
    wrap_lines: tuple[int, ...] = ()
    cumulative: bool = True
    start_j: float | None = None


@dataclass(frozen=True)
class Reduced:
    """One raw log. Times are Unix seconds, energies J.

    Attributes:
        path: as given.
        line: of the run's header in the file, or of its first sample where it was appended without one;
            1 but for runs appended to another's.
        rows: rows kept.
        first_s: ``Time`` of the first row.
        last_s: ``Time`` of the last row.
        interval_s: the usual step.
        largest_gap_s: the longest step.
        last_delta_s: ``Delta`` of the last row: about 0 after a fresh last sample, about one interval
            in a log that ended early.
        energies: by domain, in the file's order.
        series: ``{column or group: {mean, min, max, first, last}}``, of used swap also ``max_line``.
        constant: columns that never change.
        notes: what the reader met.
    """

    path: str
    rows: int = 0
    first_s: float | None = None
    last_s: float | None = None
    interval_s: float | None = None
    largest_gap_s: float | None = None
    last_delta_s: float | None = None
    energies: tuple[Energy, ...] = ()
    series: Mapping[str, Mapping[str, float]] | None = None
    constant: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    line: int = 1

    @property
    def place(self) -> str:
        """The path, with the line of a run that was appended."""
        return self.path if self.line == 1 else f"{self.path}:{self.line}"

    @property
    def duration_s(self) -> float | None:
        """First to last row, s."""
        if self.first_s is None or self.last_s is None:
            return None
        return round(self.last_s - self.first_s, 6)

    @property
    def fatal(self) -> Note | None:
        """The first note that says that energy can't be shown."""
        return next((n for n in self.notes if n.fatal), None)

    def energy(self, name: str) -> Energy | None:
        """The energy of one domain."""
        return next((e for e in self.energies if e.name == name), None)


@dataclass(frozen=True, eq=False)
class Counts:
    """Joules of one domain in each of some logs; the values are those of :class:`Energy`, NaN for None.

    Attributes:
        wrapped: place of a log whose counter wrapped → range of the counter, lines after the wraps.
    """

    name: str
    column: str
    cumulative: bool
    joules: FloatArray
    naive_j: FloatArray
    summary_j: FloatArray
    start_j: FloatArray
    wraps: IntArray
    wrapped: Mapping[int, tuple[float | None, tuple[int, ...]]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Energy]:
        # Lists hold Python's own numbers, which arrays would make one by one.
        values = (self.joules, self.naive_j, self.summary_j, self.start_j)
        each = zip(*(map(_finite, v.tolist()) for v in values), self.wraps.tolist(), strict=True)
        for i, (joules, naive, summary, start, wraps) in enumerate(each):
            span, lines = self.wrapped.get(i, (None, ()))
            yield Energy(
                self.name, self.column, joules, naive, summary, wraps, span, lines,
                self.cumulative, start,
            )  # fmt: skip


def scan(
    paths: Sequence[str | Path],
    *,
    root: str = "",
    limit: int = energibridge.SIZE_LIMIT,
    renames: Mapping[str, str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Reduced]:
    """Reduce files, in their order; each run of a file that holds several.

    Args:
        paths: the files.
        root: the folder that relative paths start from.
        limit: bytes of a file beyond which it is not read (a note says so).
        renames: columns of other names: as found → EnergiBridge's name.
        progress: called with the number of files done.
    """
    files = [str(p) for p in paths]
    parts = chunks(files)
    with readers(root, files, limit) as run:
        done = 0
        reduce = partial(_reduce_files, root, limit, renames)
        for chunk, results in zip(parts, run(reduce, parts), strict=True):
            yield from results
            done += len(chunk)
            progress(done)


def _reduce_files(
    root: str, limit: int, renames: Mapping[str, str] | None, paths: Sequence[str]
) -> list[Reduced]:
    """Reduce some files, in their order; plain ones of one header together."""
    done: dict[str, list[Reduced]] = {}
    plain: dict[bytes, list[_Plain]] = {}
    waiting = 0

    def parse() -> None:
        for head, files in plain.items():
            for one in _reduce_plain(head, files):
                done.setdefault(one.path, []).append(one)
        plain.clear()

    for path in paths:
        data = _bytes(below(root, path), limit)
        if isinstance(data, Note):
            done[path] = [Reduced(path, notes=(data,))]
            continue
        head = data[: data.find(b"\n") + 1]
        if renames:
            data = _renamed(head, renames) + b"\n" + data[len(head) :]
            head = data[: data.find(b"\n") + 1]
        rows = _plain_rows(head, data)
        if rows:
            plain.setdefault(head, []).append(_Plain(path, data, rows))
            waiting += len(data)
        else:
            done[path] = reduce_runs(path, data)
        if waiting > BATCH_BYTES:
            parse()
            waiting = 0
    parse()
    return [one for path in paths for one in done[path]]


class _Plain(NamedTuple):
    """A file in which nothing but numbers follows the header."""

    path: str
    data: bytes
    rows: int


def _bytes(path: str, limit: int) -> bytes | Note:
    try:
        # Tens of thousands of small files: a buffered reader would cost more than the read.
        handle = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            data = os.read(handle, size + 1) if size <= limit else b""
            while 0 < len(data) < size <= limit:  # a very large file comes in parts
                more = os.read(handle, size - len(data))
                if not more:
                    break
                data += more
        finally:
            os.close(handle)
    except OSError as error:
        return Note("unreadable", f"can't be read: {error.strerror}", fatal=True)
    if size <= limit and path.endswith(".gz"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            return Note("unreadable", f"can't be unpacked: {error}", fatal=True)
        size = len(data)
    if size > limit:
        return Note("too-large", f"over {limit / 1e6:.0f} MB; not read", fatal=True)
    return as_utf8(data)


def _renamed(head: bytes, renames: Mapping[str, str]) -> bytes:
    cells = head.decode("utf-8", "replace").strip().split(",")
    return ",".join(renames.get(cell.strip().strip('"'), cell) for cell in cells).encode()


def _plain_rows(head: bytes, data: bytes) -> int:
    """Rows of a file that the batch parser reads as :mod:`analysis.energibridge` would; 0: it would not."""
    if not head.startswith(b"Delta,Time,") or b"\r" in head:
        return 0
    if _OTHER_UNIT.search(head):
        return 0
    line = b"," * head.count(b",") + b"\n"
    left = data.translate(None, _NUMERIC)
    title = head.translate(None, _NUMERIC)
    rows = (len(left) - len(title)) // len(line)
    return rows if rows > 2 and left == title + line * rows else 0


def _reduce_plain(head: bytes, files: Sequence[_Plain]) -> Iterator[Reduced]:
    """Reduce files of one header: those without an oddity together."""
    names = [cell.strip() for cell in head.decode("utf-8", "replace").split(",")]
    columns = None
    if len(set(names)) == len(names):
        columns = _parse(names, b"".join([memoryview(f.data)[len(head) :] for f in files]))
    counts = np.array([f.rows for f in files])
    regular = np.zeros(len(files), bool) if columns is None else _regular(columns, counts)
    for file in itertools.compress(files, ~regular):
        yield from reduce_runs(file.path, file.data)
    if columns is not None and regular.any():
        kept = np.repeat(regular, counts)
        if not kept.all():
            columns = {name: values[kept] for name, values in columns.items()}
        paths = [f.path for f in itertools.compress(files, regular)]
        unknown = [n for n in names[2:] if energibridge.spec_of(n).quantity == "unknown"]
        notes = tuple(map(energibridge.unknown_column, unknown))
        for one in _reduce(paths, columns, counts[regular]):
            yield _usable(replace(one, notes=(*notes, *one.notes)) if notes else one)


def _parse(names: list[str], body: bytes) -> dict[str, FloatArray] | None:
    """Columns of a body, in file units; None if a cell is not a finite number."""
    try:
        # Types are left to be found: whole numbers are read twice as fast as floating ones.
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(body),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, column_names=names, block_size=len(body) + 1
            ),
            convert_options=pyarrow.csv.ConvertOptions(null_values=[]),
        )
    except pyarrow.ArrowInvalid:
        return None
    if not _NUMBERS.issuperset(table.schema.types):
        return None
    # Through DLPack: pyarrow's own way to numpy imports pandas.
    columns = {
        name: np.from_dlpack(column.combine_chunks())
        for name, column in zip(names, table.columns, strict=True)
    }
    if not all(v.dtype == np.int64 or np.isfinite(v).all() for v in columns.values()):
        return None
    return {name: v.astype(np.float64, copy=False) for name, v in columns.items()}


def _steps(values: FloatArray, starts: IntArray) -> FloatArray:
    """Differences between neighbours; 0 where a file begins, so that reductions ignore it."""
    steps = np.diff(values, prepend=values[0])
    steps[starts] = 0.0
    return steps


def _regular(columns: Mapping[str, FloatArray], counts: IntArray) -> BoolArray:
    """Which files have an even clock: no step back, no gap, Delta and Time agree, no repeated row."""
    ends = np.cumsum(counts)
    starts = ends - counts
    steps = _steps(columns["Time"], starts)
    longest = np.maximum.reduceat(steps, starts)
    usual = (columns["Time"][ends - 1] - columns["Time"][starts + 1]) / np.maximum(counts - 2, 1)
    apart = np.zeros_like(steps)
    # Delta of row k covers the step to row k + 1; the first step follows at once and is left out.
    apart[1:] = np.abs(steps[1:] - columns["Delta"][:-1])
    apart[starts] = 0.0
    apart[starts + 1] = 0.0
    still = (steps == 0).astype(np.int64)
    # A Delta of 0 is a run's first row: of a second run where it stands further down.
    firsts = (columns["Delta"] == 0).astype(np.int64)
    firsts[starts] = firsts[ends - 1] = 0
    even: BoolArray = (
        (np.minimum.reduceat(steps, starts) >= 0)
        & (longest <= 1.5 * usual)
        & (columns["Time"][starts] >= 0)
        # In seconds it may be a date of this century: looked at one by one.
        & (
            (columns["Time"][starts] < 1e-3 * _LEAST_MS)
            | (columns["Time"][starts] >= 1e-3 * _MOST_MS)
        )
        & (columns["Time"][ends - 1] < 1e3 * energibridge.LAST_S)
        & (np.maximum.reduceat(apart, starts) <= np.maximum(100.0, 0.25 * usual))
        & (np.add.reduceat(still, starts) <= 2)
        & (np.add.reduceat(firsts, starts) == 0)
    )
    return even


def reduce_runs(path: str, data: bytes) -> list[Reduced]:
    """Reduce each run of a file; lines are those of the file."""
    runs = []
    for line, skipped, text in _runs(data):
        one = reduce_one(path, text)
        runs.append(_moved(one, line, skipped) if skipped else one)
    return runs


#: The beginning of a header; that of a run that was appended may follow a cut line on the same line.
_HEADER = re.compile(rb'"?Delta"?[,;\t|]"?Time"?[,;\t|\r\n]')


def _runs(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The log of each run in a file: its line, lines of the file before its own, its text.

    A run begins at a header, or at a first sample: ``Delta`` is 0, the next row follows at once, and the
    row before is more than an interval ago. A ``Time`` that goes back is a fault, not another run.
    """
    heads = [match.start() for match in _HEADER.finditer(data)] if data.count(b"Delta") > 1 else []
    cuts = [0, *(start for start in heads if start > 0), len(data)]
    line = 1
    for start, end in itertools.pairwise(cuts):
        text = data[start:end]
        head, _, body = text.partition(b"\n")
        rows = body.split(b"\n")
        firsts = _first_samples(rows) if head.startswith(b"Delta,Time,") else []
        bounds = [0, *firsts, len(rows)]
        for first, last in itertools.pairwise(bounds):
            part = b"\n".join([head, *rows[first:last]])
            ended = b"\n" * (last < len(rows))
            yield (line + first + 1 if first else line), line + first - 1, part + ended
        line += text.count(b"\n")


def _first_samples(rows: Sequence[bytes]) -> list[int]:
    """Rows, but for the first, that a run begins with."""
    candidates = [i for i, row in enumerate(rows) if i > 1 and row.startswith(b"0,")]
    if not candidates:
        return []
    time_ms = [_time_ms(row) for row in rows]
    steps = np.diff(np.array(time_ms))
    usual = float(np.nanmedian(steps[steps > 1.0])) if np.any(steps > 1.0) else math.nan
    return [
        i
        for i in candidates
        if i < len(steps) and 0.0 <= steps[i] <= 2.0 and steps[i - 1] > 1.5 * usual
    ]


def _time_ms(row: bytes) -> float:
    try:
        return float(row.split(b",", 2)[1])
    except (IndexError, ValueError):
        return math.nan


def _moved(one: Reduced, line: int, by: int) -> Reduced:
    """A run's log with the lines of the file that it was appended to."""

    def moved(notes: Sequence[Note]) -> tuple[Note, ...]:
        return tuple(n if n.line is None else replace(n, line=n.line + by) for n in notes)

    return replace(
        one,
        line=line,
        notes=moved(one.notes),
        energies=tuple(
            e._replace(wrap_lines=tuple(at + by for at in e.wrap_lines)) for e in one.energies
        ),
    )


def reduce_one(path: str, data: bytes) -> Reduced:
    """Reduce one file of any quality, with the notes of its reader."""
    data, tidied = _tidied(data)
    try:
        samples = energibridge.read(data)
    except InputError as error:
        return Reduced(path, notes=(Note("unreadable", str(error), fatal=True),))
    if samples.rows == 0:
        return Reduced(path, notes=samples.notes)
    columns = {"Time": samples.time_s * 1e3}
    if samples.delta_s is not None:
        columns["Delta"] = samples.delta_s * 1e3
    notes = [*tidied, *samples.notes]
    for name, column in samples.columns.items():
        values = column.values / column.spec.factor
        finite = np.isfinite(values)
        if not finite.all():
            line = int(samples.lines[~finite][0])
            sampled = column.kind in (Kind.CUMULATIVE, Kind.POWER)
            if not sampled or finite.mean() < _GAPS or not (finite[0] and finite[-1]):
                notes.append(Note("bad-cell", f"{name} {_gap(finite)}; left out", line, name))
                continue
            notes.append(Note("bad-cell", f"{name} has gaps; bridged", line, name))
            values = np.interp(columns["Time"], columns["Time"][finite], values[finite])
        columns[name] = values
    # Absurd values give no number, not a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        one = _reduce([path], columns, np.array([samples.rows]), samples.lines)[0]
    return _usable(replace(one, interval_s=samples.interval_s, notes=(*notes, *one.notes)))


def _gap(finite: BoolArray) -> str:
    """What is wrong with a column that lacks numbers."""
    if not finite.any():
        return "holds no number"
    return (
        "has gaps"
        if finite[0] and finite[-1]
        else f"{'ends' if finite[0] else 'begins'} with a gap"
    )


def _tidied(data: bytes) -> tuple[bytes, list[Note]]:
    """A log as the tool writes it: decimal points, commas between cells, milliseconds, last line ended."""
    if not data.strip():
        return data, []
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    head, _, body = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    notes: list[Note] = []
    separator = next((s for s in (b";", b"\t") if s in head and b"," not in head), None)
    if separator and b"," in body:
        if b'"' in body:
            body = body.replace(b'"', b"")
        head, body = (
            head.replace(separator, b","),
            body.replace(b",", b".").replace(separator, b","),
        )
    body = _ended(head, body)
    names = [cell.strip().strip(b'"') for cell in head.split(b",")]
    if body and b"Time" in names:
        place = names.index(b"Time")
        cells = body[: body.find(b"\n")].split(b",")
        if place < len(cells) and (found := _time_unit(cells[place])):
            divisor, unit = found
            notes.append(Note("time-unit", f"Time is in {unit}", 2, "Time"))
            places = [place, *([names.index(b"Delta")] if b"Delta" in names else [])]
            body = b"".join(
                _scaled(line, places, divisor) for line in body.splitlines(keepends=True)
            )
    return head + b"\n" + body, notes


def _ended(head: bytes, body: bytes) -> bytes:
    """The body with its last line ended where that line is whole: all cells, the last as wide as before."""
    if not body or body.endswith(b"\n"):
        return body
    *before, last = body.split(b"\n")
    cells = last.split(b",")
    if len(cells) != head.count(b",") + 1 or not before or not cells[-1]:
        return body
    above = before[-1].split(b",")[-1]
    whole = len(cells[-1].partition(b".")[0]) == len(above.partition(b".")[0])
    # Counters hold multiples of their unit: what is cut off inside the digits is none.
    cut = head.rstrip().endswith(b"(J)") and _on_grid(above) and not _on_grid(cells[-1])
    return body + b"\n" if whole and not cut else body


def _on_grid(cell: bytes) -> bool:
    """Whether a cell is a multiple of the finest unit that counters have."""
    try:
        return (float(cell) * 2.0 ** max(counters.UNIT_EXPONENTS)).is_integer()
    except (ValueError, OverflowError):
        return False


def _time_unit(cell: bytes) -> tuple[float, str] | None:
    """What a Time is divided by to be milliseconds, and its unit; None for milliseconds."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return next((u for u in _TIME_UNITS if _LEAST_MS <= value / u[0] < _MOST_MS), None)


def _scaled(line: bytes, places: Sequence[int], divisor: float) -> bytes:
    cells = line.rstrip(b"\n").split(b",")
    for place in places:
        if place < len(cells):
            with contextlib.suppress(ValueError):
                cells[place] = b"%.3f" % (float(cells[place]) / divisor)
    return b",".join(cells) + b"\n" * line.endswith(b"\n")


def _usable(one: Reduced) -> Reduced:
    """Without the columns that can't be used beside a sound one: they void nothing.

    Per-core counters of some systems jump between cores; a GPU without a power sensor reads 0.
    """
    notes = list(one.notes)
    gone: set[str] = set()
    sound = any(e.joules is not None and not _INNER.fullmatch(e.name) for e in one.energies)
    package = one.energy("package")
    for energy in one.energies:
        inner = _INNER.fullmatch(energy.name) or (
            package is not None and package.joules is not None
        )
        if energy.joules is None and inner and sound:
            message = next((n.message for n in notes if n.column == energy.column and n.fatal), "")
            notes = [n for n in notes if n.column != energy.column or n.kind == "unknown-column"]
            notes.append(
                Note("unusable-column", f"left out, it can't be used ({message})", 1, energy.column)
            )
            gone.add(energy.column)
        elif not energy.cumulative and energy.joules == 0.0 and energy.name.startswith("gpu"):
            busy = (one.series or {}).get("GPU_USAGE", {}).get("max", 0.0)
            notes.append(
                Note(
                    "no-power",
                    f"the power of {energy.name} reads 0 mW in every row, utilisation up to {busy:.0f} %: "
                    "GPU power is not measured, its joules are not in the total",
                    2,
                    energy.column,
                )
            )
            gone.add(energy.column)
    if not gone:
        return one
    kept = tuple(e for e in one.energies if e.column not in gone)
    series = dict(one.series or {})
    if not any(not e.cumulative and e.name.startswith("gpu") for e in kept):
        series.pop("GPU_POWER", None)
    return replace(one, energies=kept, series=series, notes=tuple(notes))


def _reduce(
    paths: list[str],
    columns: Mapping[str, FloatArray],
    counts: IntArray,
    lines: IntArray | None = None,
) -> list[Reduced]:
    """Reduce files that lie one after the other in ``columns`` (file units)."""
    ends = np.cumsum(counts)
    starts = ends - counts
    time_s = columns["Time"] * 1e-3
    steps = _steps(time_s, starts)
    first, last = time_s[starts], time_s[ends - 1]
    second = time_s[np.minimum(starts + 1, ends - 1)]
    delta = columns.get("Delta")
    notes: dict[int, list[Note]] = {}
    energies: list[Counts] = []
    still: dict[str, BoolArray] = {}
    for name, values in columns.items():
        if name in ("Delta", "Time"):
            continue
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        still[name] = (low == high) & (counts > 2)
        spec = energibridge.spec_of(name)
        if spec.domain is None or spec.kind not in (Kind.CUMULATIVE, Kind.POWER):
            continue
        if spec.kind is Kind.POWER:
            watts = values * spec.factor
            middle = np.concatenate([[0.0], (watts[1:] + watts[:-1]) / 2])
            joules = np.add.reduceat(middle * steps, starts)
            none = np.full(len(paths), np.nan)
            no_wraps = np.zeros(len(paths), dtype=np.int64)
            # The tool's summary line adds up each row's power times the step before it.
            added = np.add.reduceat(watts * steps, starts)
            summary = added if spec.domain == "system" else none
            energies.append(Counts(spec.domain, name, False, joules, none, summary, none, no_wraps))
        else:
            energies.append(_reduce_counter(name, values, time_s, starts, ends, lines, notes))
    intervals = np.where(counts > 2, (last - second) / np.maximum(counts - 2, 1), np.nan)
    gaps = np.maximum.reduceat(steps, starts)
    deltas = np.full(len(paths), np.nan) if delta is None else delta[ends - 1] * 1e-3
    by_file = list(zip(*energies, strict=True)) or [()] * len(paths)
    series = _series(_courses(columns, starts, ends, lines), counts)
    constant = [
        tuple(itertools.compress(still, mine))
        for mine in zip(*(v.tolist() for v in still.values()), strict=True)
    ] or [()] * len(paths)
    met = (tuple(notes.get(i, ())) for i in range(len(paths)))
    fields = zip(
        paths, counts.tolist(), first.tolist(), last.tolist(), map(_finite, intervals.tolist()),
        gaps.tolist(), map(_finite, deltas.tolist()), by_file, series, constant, met, strict=True,
    )  # fmt: skip
    return [Reduced(*mine) for mine in fields]


def _series(
    courses: Mapping[str, Mapping[str, FloatArray]], counts: IntArray
) -> list[dict[str, dict[str, float]]]:
    """Courses of the gauges of each file."""
    series: list[dict[str, dict[str, float]]] = [{} for _ in counts]
    for name, course in courses.items():
        each = zip(*(values.tolist() for values in course.values()), strict=True)
        for mine, rows, values in zip(series, counts.tolist(), each, strict=True):
            summary = dict(zip(course, values, strict=True))
            # A usage sensor that stands still at an end of its scale is dead.
            if not (name == "CPU_USAGE" and rows > 2 and _is_dead(summary)):
                mine[name] = summary
    return series


def _is_dead(course: Mapping[str, float]) -> bool:
    return course["min"] == course["max"] and course["max"] in (0.0, 100.0)


def _reduce_counter(
    name: str,
    values: FloatArray,
    time_s: FloatArray,
    starts: IntArray,
    ends: IntArray,
    lines: IntArray | None,
    notes: dict[int, list[Note]],
) -> Counts:
    """Energies of one cumulative column, falls resolved; adds to the files' notes."""
    spec = energibridge.spec_of(name)
    domain = spec.domain or name
    if spec.factor != 1.0:
        values = values * spec.factor
    falls = np.minimum.reduceat(_steps(values, starts), starts) < 0
    naive = values[ends - 1] - values[starts]
    joules = naive.copy()
    wraps = np.zeros(len(starts), dtype=np.int64)
    wrapped: dict[int, tuple[float | None, tuple[int, ...]]] = {}
    for i in np.flatnonzero(falls).tolist():
        mine = slice(starts[i], ends[i])
        at_line = lines[mine] if lines is not None else np.arange(2, ends[i] - starts[i] + 2)
        whole = counters.unwrap(values[mine], time_s=time_s[mine])
        joules[i] = np.nan if whole.resets else whole.values_j[-1]
        wraps[i] = whole.wraps
        after = [n.line for n in whole.notes if n.kind == "wrap" and n.line is not None]
        wrapped[i] = whole.span_j, tuple(int(at_line[line]) for line in after)
        others = [
            replace(n, line=None if n.line is None else int(at_line[n.line]), column=name)
            for n in whole.notes
            if n.kind != "wrap"
        ]
        if others:
            notes.setdefault(i, []).extend(others)
    summary = values[np.maximum(ends - 2, starts)] - values[starts]
    return Counts(domain, name, True, joules, naive, summary, values[starts], wraps, wrapped)


def _courses(
    columns: Mapping[str, FloatArray], starts: IntArray, ends: IntArray, lines: IntArray | None
) -> dict[str, dict[str, FloatArray]]:
    """Courses of the gauges, in :class:`energibridge.Spec` units, averaged over a group's members."""
    courses: dict[str, dict[str, FloatArray]] = {}
    for group, (quantity, prefix) in _GAUGES.items():
        members = [
            values * spec.factor
            for name, values in columns.items()
            if name.startswith(prefix)
            and (spec := energibridge.spec_of(name)).quantity == quantity
            and not (group == "GPU_MEMORY_USED" and spec.kind is Kind.CONSTANT)
        ]
        if not members:
            continue
        values = members[0] if len(members) == 1 else np.mean(members, axis=0)
        first, highest = values[starts], values
        if group == "CPU_USAGE":
            # The first reading spans a millisecond: each core reads as idle or busy in it: no information.
            extreme = np.all([(m[starts] == 0) | (m[starts] == 100) for m in members], axis=0)
            first = np.where(extreme, np.nan, first)
        elif group == "GPU_USAGE":
            highest = np.max(members, axis=0)  # of several GPUs one may do all the work
        courses[group] = {
            "mean": np.add.reduceat(values, starts) / (ends - starts),
            "min": np.minimum.reduceat(values, starts),
            "max": np.maximum.reduceat(highest, starts),
            "first": first,
            "last": values[ends - 1],
        }
        if group == "USED_SWAP":
            courses[group]["max_line"] = _lines_of_maxima(values, starts, ends, lines)
    return courses


def _lines_of_maxima(
    values: FloatArray, starts: IntArray, ends: IntArray, lines: IntArray | None
) -> FloatArray:
    """The line on which each file first reaches its highest value; of one without, its first sample's."""
    highest = np.repeat(np.maximum.reduceat(values, starts), ends - starts)
    at = np.append(np.flatnonzero(values == highest), len(values))
    first = at[np.searchsorted(at, starts)]
    first = np.where(first < ends, first, starts)
    own = first - starts + 2 if lines is None else lines[first]
    return own.astype(np.float64)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
