"""Importer of published summary tables: one row per run with joules and seconds, and what supports them.

The file's name is the treatment, or, in a table in long form, its factor columns are.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath

import numpy as np

from wattbench.analysis.audit.campaign import Campaign, DerivedRow
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.factors import factors_of
from wattbench.analysis.audit.importers import TABLE, Context, Files
from wattbench.analysis.audit.mapping import DerivedFiles
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.meters import counters
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow
from wattbench.analysis.storage.encodings import as_utf8

#: Read as rows of cells, a file needs up to a hundred times its size.
_SIZE_LIMIT = 8 * 1024 * 1024

#: Joules and seconds within which a derived row is the same as a log line. Where the printed digits of a
#: row's joules are known, these decide: runs of a treatment may be thousandths of a joule apart.
SAME_J = 0.01
SAME_S = 0.05
_LEAST_J = 1e-6
_MOST_DIGITS = 30

#: A row within these is named as the nearest.
_NEAREST = 3

#: A mean power this many times the table's median, or less than its inverse, is impossible.
_MOST_TIMES = 3.0

#: A negative row is corrected by the counter's range that brings it this near the table's median.
_NEAR_MEDIAN = 0.5


_ENERGY_COLUMN = re.compile(
    r".*(?:joules?|[(\[](?:k|m|µ|u)?(?:J|Wh)[)\]]|energy.*_(?:k|m|u)?(?:j|wh)\b).*",
    re.IGNORECASE,
)
_RUN_COLUMN = re.compile(
    r"run|#|no\.?|iteration|repetition|trial|run[_ ](?:id|no|number)", re.IGNORECASE
)
_TIME_COLUMN = re.compile(r".*(?:time|duration|elapsed).*", re.IGNORECASE)
#: Columns of moments; and of lengths, however they are called beside.
_MOMENT = re.compile(r"stamp|date|start|begin|\bend|_end|stop|time[_ ]?of", re.IGNORECASE)
_LENGTH = re.compile(r"duration|elapsed|execution|run[_ ]?time|wall", re.IGNORECASE)
#: Of several columns of joules, those of the whole, and of a unit of work.
_TOTAL = re.compile(r"total|overall|\bsum|_sum|consumed", re.IGNORECASE)
_PER_UNIT = re.compile(r"(?:\b|_)per(?:\b|_)|/", re.IGNORECASE)
_PARTS = (
    re.compile(r"gpu", re.IGNORECASE),
    re.compile(r"cpu|pkg|package|processor", re.IGNORECASE),
    re.compile(r"ram\b|ram_|memory", re.IGNORECASE),
)

#: Units in the name of a column → joules.
_JOULES = {
    "j": 1.0,
    "kj": 1e3,
    "mj": 1e-3,
    "uj": 1e-6,
    "µj": 1e-6,
    "wh": 3600.0,
    "kwh": 3.6e6,
    "mwh": 3.6,
}
_UNIT = re.compile(r"(?:[(\[]|_|\b)([kmuµ]?(?:j|wh))[)\]]?$", re.IGNORECASE)
_MEGA = 1e9
#: Units in the name of a column → seconds.
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "milliseconds": 1e-3,
    "min": 60.0, "mins": 60.0, "minutes": 60.0, "h": 3600.0, "hours": 3600.0,
}  # fmt: skip
_TIME_UNIT = re.compile(r"(?:[(\[]|_|\b)([a-zµ]+)[)\]]?$", re.IGNORECASE)
#: Seconds from which on a value is a date, not a length.
_LONGEST_S = 1e8

#: Separators of cells, the likeliest first.
_SEPARATORS = ",;\t|"
_DECIMAL_COMMA = re.compile(r"\s*[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d+(?:[eE][+-]?\d+)?\s*")

IMPORTED = "published rows are all there is: nothing is imported"
REPAIRED = "every published row without a fault of its own, as it stands there"


class SummaryTables:
    """Published tables alone."""

    layout = "derived"
    recognised_by = (
        "summary CSVs: a row per run with a column of joules, for example `Run`, "
        "`Energy Consumption (Joules)`, `Execution Time (Seconds)`"
    )
    rank = 90
    leads = frozenset({TABLE})

    def claims(self, path: str, head: bytes) -> str | None:
        """CSVs with a column of energy and one that numbers runs or names a treatment."""
        name = path.rpartition("/")[2]
        if not name.endswith(".csv"):
            return None
        if name.endswith("_output.csv"):
            return TABLE
        cells = cells_of(head)
        energy = [c for c in cells if _ENERGY_COLUMN.fullmatch(c)]
        others = [c for c in cells if c not in energy and not _TIME_COLUMN.fullmatch(c)]
        return TABLE if energy and len(cells) > 1 and others else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import rows; none of them is taken for a measurement."""
        rows, findings, said = read_all(files, context)
        findings += trace(rows, {}, context.mapping.key, whole=False).findings
        return Campaign(
            name=context.name,
            layout=self.layout,
            records=tuple(as_record(context, row) for row in rows),
            derived=tuple(rows),
            findings=tuple(findings),
            inferred=said,
            package_only=True,
            imported_rule=IMPORTED,
            repaired_rule=REPAIRED,
        )


IMPORTER = SummaryTables()


def read_all(
    files: Files, context: Context
) -> tuple[list[DerivedRow], list[Finding], tuple[str, ...]]:
    """Rows of all tables, and what was inferred; a table whose rows all stand in another one is a copy."""
    tables: dict[str, list[DerivedRow]] = {}
    findings: list[Finding] = []
    said: list[str] = []
    for path in files.of(TABLE):
        tables[path], problems, inferred = read(files.root, path, context.mapping)
        findings += problems
        said += inferred
    kept, copies = without_copied_tables(tables)
    return [row for rows in kept.values() for row in rows], [*findings, *copies], tuple(said)


def without_copied_tables(
    tables: Mapping[str, list[DerivedRow]],
) -> tuple[dict[str, list[DerivedRow]], list[Finding]]:
    """Tables without those whose rows all stand in another one; these are named."""
    values = {
        path: Counter((r.image, r.kind, r.energy_j, r.duration_s) for r in rows)
        for path, rows in tables.items()
    }
    holders: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for path, counts in values.items():
        for row_key in counts:
            holders[row_key].append(path)
    copies: dict[str, str] = {}
    for path in sorted(tables, key=lambda p: (len(tables[p]), -p.count("/"), -len(p))):
        if not tables[path]:
            continue
        first = next(iter(values[path]))
        original = next(
            (
                other
                for other in holders[first]
                if other != path and other not in copies and values[path] <= values[other]
            ),
            None,
        )
        if original is not None:
            copies[path] = original
    found = [
        finding(
            "file-unread",
            Verdict.FOUND,
            "campaign",
            f"{path} is a copy: each of its {len(tables[path])} rows stands in {original}; counted once",
            severity=Severity.WARNING,
            action="Nothing to do if it is a copy; else publish its own rows.",
            file=path,
            line=1,
            copy_of=original,
        )
        for path, original in copies.items()
    ]
    return {p: rows for p, rows in tables.items() if p not in copies}, found


def as_record(context: Context, row: DerivedRow) -> Record:
    """A published row that is all there is of a run: shown, and not taken for a measurement."""
    return Record(
        TrialRow(
            run_id=context.name,
            host=context.mapping.host,
            kind=row.kind,
            block=None,
            position=None,
            planned_position=None,
            image=row.image,
            run=row.run,
            attempt=1,
            status="missing",
            reason=f"{row.file}:{row.line} is all there is of this run: no raw file, no log",
            duration_s=row.duration_s,
            energy_j=row.energy_j,
        ),
        log={"file": row.file, "line": row.line, "derived": True},
    )


@dataclass(frozen=True)
class Source:
    """What may stand behind a published row: a summary line, or one reading of a raw file (no line).

    Attributes:
        energy_j: read without regard to wraps; may be negative.
        duration_s: of a summary line.
        file: of the log or the raw file.
        line: of a log.
        true_j: joules of the raw file, wraps corrected.
    """

    energy_j: float
    duration_s: float | None
    file: str
    line: int | None
    true_j: float | None = None

    @property
    def place(self) -> str:
        """``file:line`` of a log, else the raw file."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Traced:
    """What was found of published rows.

    Attributes:
        support: file and line of a row → file and line of its source.
        findings: rows without one, and runs without a row.
    """

    support: Mapping[tuple[str, int], tuple[str, int | None]]
    findings: tuple[Finding, ...]


def read_text(path: Path) -> tuple[str | None, str]:
    """A small text file, whatever its line ends and bytes; None and why if it can't be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        return None, f"can't be read: {error.strerror}"
    if len(data) > _SIZE_LIMIT:
        return None, f"over {_SIZE_LIMIT // 1024**2} MiB; a summary table is small"
    data = as_utf8(data)
    if b"\0" in data:
        return None, "binary data"
    return data.decode("utf-8-sig", "replace"), ""


def rows_of(text: str) -> tuple[list[tuple[int, list[str]]], tuple[int, str] | None]:
    """A CSV's rows by line, blank ones left out; line and reason where it ends to be one.

    Whatever separates its cells; where that is no comma, decimal commas become points.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    header = text.lstrip().partition("\n")[0]
    separator = max(_SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, c) for c in reader if any(cell.strip() for cell in c))
    except csv.Error as error:
        return rows, (reader.line_num, f"no CSV from line {reader.line_num} on: {error}")
    if separator != ",":
        rows = [(line, [_with_point(cell) for cell in cells]) for line, cells in rows]
    return rows, None


def _with_point(cell: str) -> str:
    is_number = _DECIMAL_COMMA.fullmatch(cell)
    return cell.replace(".", "").replace(",", ".") if is_number else cell


def read(
    root: Path,
    relative: str,
    mapping: CampaignMapping = CampaignMapping(),  # noqa: B008 - frozen
) -> tuple[list[DerivedRow], list[Finding], tuple[str, ...]]:
    """Rows of one table, and what was inferred; a line that is not a row becomes a finding that names it."""
    names = mapping.derived
    image = PurePosixPath(relative).name.removesuffix(".csv").removesuffix("_output")
    kind = "idle" if image.endswith("_idle") else "workload"
    image = image.removesuffix("_idle")
    subject = f"image {image}"

    def unread(message: str, line: int) -> Finding:
        return finding(
            "file-unread",
            Verdict.FOUND,
            subject,
            f"{relative}: {message}",
            file=relative,
            line=line,
        )

    text, why = read_text(root / relative)
    if text is None:
        return [], [unread(why, 1)], ()
    numbered, end = rows_of(text)
    rows: list[DerivedRow] = []
    findings: list[Finding] = [unread(end[1], end[0])] if end else []
    lacking: list[int] = []
    columns: _Columns | None = None
    factors: Sequence[str] = ()
    said: tuple[str, ...] = ()
    header: list[str] = []
    for line, cells in numbered:
        if columns is None:
            header = [c.strip() for c in cells]
            columns = _columns(header, names)
            if not columns.energy:
                return [], [unread("no column of joules in its header", line)], ()
            factors, said = _factors(header, columns, [c for _, c in numbered[1:]], mapping)
            said = tuple(f"{relative}: {one}" for one in said)
            if columns.unused:
                findings.append(_unused(relative, line, header, columns))
            continue
        label = " / ".join(
            cells[header.index(f)].strip() for f in factors if header.index(f) < len(cells)
        )
        energy_j, precision_j = columns.joules_of(header, cells)
        if energy_j is None:
            lacking.append(line)
            continue
        run = number(_cell(cells, columns.run))
        rows.append(
            DerivedRow(
                relative, line, label or image, kind, None if run is None else int(run),
                energy_j, columns.seconds_of(header, cells), precision_j,
            )
        )  # fmt: skip
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        shown = next(",".join(cells)[:80] for line, cells in numbered if line == lacking[0])
        findings.append(unread(f"line {lacking[0]}{more}: no joules in {shown!r}", lacking[0]))
    if columns is None and not findings:
        findings.append(unread("empty", 1))
    elif not rows and not findings:
        findings.append(unread("a header and no rows", 1))
    return rows, findings, said


@dataclass(frozen=True)
class _Columns:
    """Places of a table's columns.

    Attributes:
        energy: of the joules, which are added up.
        duration: of the seconds.
        run: of the run's number.
        unused: of joules beside these.
    """

    energy: tuple[int, ...]
    duration: int | None
    run: int | None
    unused: tuple[int, ...]

    def joules_of(
        self, header: Sequence[str], cells: Sequence[str]
    ) -> tuple[float | None, float | None]:
        """A row's joules, and what the last printed digit of them is worth; None where a part lacks."""
        units = [joules_per_unit(header[i]) for i in self.energy]
        own = [_cell(cells, i) for i in self.energy]
        values = [number(cell) for cell in own]
        digits = [precision_of(cell, unit) for cell, unit in zip(own, units, strict=True)]
        joules = [v * unit for v, unit in zip(values, units, strict=True) if v is not None]
        if len(joules) < len(values):
            return None, None
        return sum(joules), max((d for d in digits if d is not None), default=None)

    def seconds_of(self, header: Sequence[str], cells: Sequence[str]) -> float | None:
        """A row's seconds; None where they are not given, or are a moment."""
        value = number(_cell(cells, self.duration))
        if self.duration is None or value is None:
            return None
        seconds = value * seconds_per_unit(header[self.duration])
        return seconds if abs(seconds) < _LONGEST_S else None


def _cell(cells: Sequence[str], place: int | None) -> str:
    return cells[place] if place is not None and place < len(cells) else ""


def _columns(header: Sequence[str], names: DerivedFiles) -> _Columns:
    def named(name: str | None) -> int | None:
        found = (i for i, c in enumerate(header) if name and c.lower() == name.lower())
        return next(found, None)

    energy = [i for i, c in enumerate(header) if _ENERGY_COLUMN.fullmatch(c)]
    chosen = named(names.energy_j)
    if chosen is not None or names.energy_j:
        used, energy = [] if chosen is None else [chosen], []
    else:
        used = _whole(header, energy)
    timed = [header[i] for i in range(len(header)) if i not in energy]
    duration = names.duration_s or duration_of(timed)
    return _Columns(
        tuple(used), named(duration), named(names.run or "run"),
        tuple(i for i in energy if i not in used),
    )  # fmt: skip


def _whole(header: Sequence[str], energy: Sequence[int]) -> list[int]:
    """The columns that give a run's joules: the total, else parts of different kinds, else the first."""
    energy = [i for i in energy if not _PER_UNIT.search(header[i])] or list(energy)
    if totals := [i for i in energy if _TOTAL.search(header[i])]:
        return totals[:1]
    kinds = [next((k for k, p in enumerate(_PARTS) if p.search(header[i])), -1) for i in energy]
    if -1 not in kinds and len(set(kinds)) == len(kinds):
        return list(energy)
    return list(energy[:1])


def _unused(path: str, line: int, header: Sequence[str], columns: _Columns) -> Finding:
    used, left = ([header[i] for i in places] for places in (columns.energy, columns.unused))
    return finding(
        "file-unread",
        Verdict.FOUND,
        "campaign",
        f"{path}: joules are those of {' + '.join(used)}; {', '.join(left)} "
        f"{'is' if len(left) == 1 else 'are'} not counted",
        severity=Severity.INFO,
        action="Name another column with `derived: {energy_j: …}` in a --mapping file if it is wrong.",
        file=path,
        line=line,
        columns=left,
    )


def duration_of(columns: Sequence[str]) -> str | None:
    """The column of a run's length; moments, such as time stamps, are none."""
    timed = [c for c in columns if _TIME_COLUMN.fullmatch(c)]
    lengths = [c for c in timed if _LENGTH.search(c)]
    return next(iter(lengths or [c for c in timed if not _MOMENT.search(c)]), None)


def seconds_per_unit(column: str) -> float:
    """Seconds of one unit of a column, by what its name ends with; 1 where it names none."""
    match = _TIME_UNIT.search(column.strip())
    return _SECONDS.get(match.group(1).lower(), 1.0) if match else 1.0


def joules_per_unit(column: str) -> float:
    """Joules of one unit of a column, by what its name ends with; 1 where it names none."""
    match = _UNIT.search(column.strip())
    if match is None:
        return 1.0
    unit = match.group(1)
    return _JOULES[unit.lower()] * (_MEGA if unit.startswith("M") else 1.0)


def precision_of(cell: str, unit_j: float) -> float | None:
    """Joules that the last printed digit of a cell is worth; None where it is not a plain number."""
    try:
        exponent = Decimal(cell.strip()).as_tuple().exponent
    except InvalidOperation:
        return None
    if not isinstance(exponent, int) or abs(exponent) > _MOST_DIGITS:
        return None
    return max(_LEAST_J, unit_j * 10.0**exponent)


def _factors(
    header: Sequence[str],
    columns: _Columns,
    rows: Sequence[Sequence[str]],
    mapping: CampaignMapping,
) -> tuple[Sequence[str], tuple[str, ...]]:
    """Columns that name the treatment of a table in long form; none of a table of one treatment.

    And what was inferred.
    """
    records = [dict(zip(header, row, strict=False)) for row in rows]
    places = (*columns.energy, *columns.unused, columns.duration, columns.run)
    ignored = [header[i] for i in places if i is not None]
    ignored += [c for c in header if _RUN_COLUMN.fullmatch(c)]
    inferred = factors_of(header, records, mapping.factors, ignored)
    found = tuple(f for f in inferred.names if len({row.get(f) for row in records}) > 1)
    distinct = {tuple(row.get(f) for f in found) for row in records}
    if not 1 < len(distinct) < len(records):
        return (), inferred.said
    if mapping.factors is not None:
        return found, ()
    columns_of = "column" if len(found) == 1 else "columns"
    return found, (
        f"treatments come from the {columns_of} {', '.join(found)}; "
        "`factors: […]` in a --mapping file overrides this",
        *inferred.said,
    )


def number(cell: str) -> float | None:
    """A cell's number; None where it is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def trace(
    rows: Sequence[DerivedRow],
    sources: Mapping[tuple[str, str], Sequence[Source]],
    key: Callable[[str], str],
    whole: bool,
) -> Traced:
    """Which rows a log line or a raw file supports.

    Args:
        rows: of all tables.
        sources: (image key, kind) → summary lines and readings of raw files.
        key: the name under which load and published data of an image are joined.
        whole: whether the campaign's raw data are there at all.
    """
    findings: list[Finding] = []
    unjudged: list[DerivedRow] = []
    support: dict[tuple[str, int], tuple[str, int | None]] = {}
    everything = _Known.of(
        (s, f"{name} ({kind})") for (name, kind), mine in sources.items() for s in mine
    )
    for (image, kind), mine in _by_table(rows).items():
        known = _Known.of((s, "") for s in sources.get((key(image), kind), ()))
        judge = _Table(mine, known, everything)
        problems: list[tuple[DerivedRow, str]] = []
        unsupported: list[DerivedRow] = []
        for row in mine:
            source, problem = judge.source_of(row)
            if source is not None:
                support[row.file, row.line] = (source.file, source.line)
            if problem:
                problems.append((row, problem))
            elif source is None:
                (unsupported if known.sources else unjudged).append(row)
        if len(unsupported) * 2 > len(mine):
            # Most rows have no file: the campaign is a cut, which accuses no single row.
            findings.append(_cut(mine, unsupported, len(known.sources)))
        else:
            no_source = "no summary line and no raw file has these joules and seconds"
            problems += [(row, no_source) for row in unsupported]
        findings += [_untraceable(row, problem, known) for row, problem in problems]
    if unjudged:
        why = (
            "raw files and logs of "
            + ", ".join(sorted({f"{r.image} ({r.kind})" for r in unjudged}))
            if whole
            else "raw files and logs"
        )
        findings.append(
            finding(
                "row-untraceable", Verdict.UNDECIDABLE, "campaign",
                f"{len(unjudged)} derived rows can't be traced: {why} are not there",
                files=sorted({r.file for r in unjudged}),
            )
        )  # fmt: skip
    elif rows and not findings:
        findings.append(
            finding(
                "row-untraceable", Verdict.NOT_FOUND, "campaign",
                f"each of {len(rows)} derived rows has its log line or raw file",
            )
        )  # fmt: skip
    return Traced(support, (*findings, *_dropped(rows, sources, key)))


@dataclass(frozen=True)
class _Known:
    """Sources in order of joules."""

    sources: tuple[Source, ...]
    whose: tuple[str, ...]
    joules: np.ndarray

    @classmethod
    def of(cls, labelled: Iterable[tuple[Source, str]]) -> _Known:
        ordered = sorted(labelled, key=lambda t: (t[0].energy_j, t[0].line is None, t[0].file))
        sources = tuple(s for s, _ in ordered)
        return cls(sources, tuple(w for _, w in ordered), np.array([s.energy_j for s in sources]))

    def at(self, energy_j: float, tolerance_j: float) -> range:
        """Places of the sources with these joules."""
        low, high = np.searchsorted(self.joules, [energy_j - tolerance_j, energy_j + tolerance_j])
        return range(int(low), int(high))

    def nearest(self, energy_j: float, count: int = _NEAREST) -> list[Source]:
        """The sources of the nearest joules."""
        order = np.argsort(np.abs(self.joules - energy_j), kind="stable")[:count]
        return [self.sources[i] for i in order.tolist()]


class _Table:
    """One published table, held against what may stand behind its rows."""

    def __init__(self, rows: Sequence[DerivedRow], known: _Known, everything: _Known) -> None:
        self.known, self.everything = known, everything
        self.off_grid = _off_grid(rows)
        self.used: set[Source] = set()
        positive = [r.energy_j for r in rows if r.energy_j and r.energy_j > 0]
        self.median_j = float(np.median(positive)) if positive else None
        powers = [r.energy_j / r.duration_s for r in rows if r.energy_j and r.duration_s]
        self.median_w = float(np.median(powers)) if len(powers) > 3 else None

    def source_of(self, row: DerivedRow) -> tuple[Source | None, str | None]:
        """A row's source, and what is wrong with the row; neither: nothing is known."""
        energy_j = row.energy_j or 0.0
        matches = self._matches(row)
        if energy_j <= 0:
            return next(iter(matches), None), self._negative(energy_j, matches)
        if matches:
            return self._own(matches)
        if flipped := [self.known.sources[i] for i in self.known.at(-energy_j, _tolerance_j(row))]:
            return flipped[0], (
                f"it is the absolute value of the run's own negative sum ({flipped[0].place}), which comes "
                f"from a counter that wrapped{_truth(flipped[0])}"
            )
        if elsewhere := self._elsewhere(row):
            return None, elsewhere
        if row.line in self.off_grid:
            return None, (
                f"its joules are not a multiple of the counter's unit of {self.off_grid[row.line]:.3g} J, "
                "as the others are: no single reading gives it"
            )
        if self.median_w and row.duration_s:
            ratio = energy_j / row.duration_s / self.median_w
            if not 1 / _MOST_TIMES < ratio < _MOST_TIMES:
                return None, (
                    f"its mean power of {energy_j / row.duration_s:.4g} W is impossible beside the others' "
                    f"{self.median_w:.4g} W{self._turned(energy_j)}"
                )
        return None, None

    def _matches(self, row: DerivedRow) -> list[Source]:
        """Sources with the row's joules and seconds, log lines first, then the nearest."""
        energy_j = row.energy_j or 0.0
        same = [
            s
            for i in self.known.at(energy_j, _tolerance_j(row))
            if _same_time((s := self.known.sources[i]).duration_s, row.duration_s)
        ]
        return sorted(same, key=lambda s: (s.line is None, abs(s.energy_j - energy_j)))

    def _own(self, matches: Sequence[Source]) -> tuple[Source, str | None]:
        # A raw file is another reading of a run that has a log line, not another run.
        runs = [s for s in matches if s.line is not None] or list(matches)
        free = next((s for s in runs if s not in self.used), None)
        if free is None:
            return runs[0], f"stands for the same run as a row before it ({runs[0].place})"
        self.used.add(free)
        return free, None

    def _negative(self, energy_j: float, matches: Sequence[Source]) -> str:
        text = (
            "a run can't use negative joules: the counter wrapped and the value was not corrected"
        )
        if energy_j == 0:
            return "a run can't use 0 J: the meter gave no energy"
        if matches and matches[0].true_j is not None:
            return text + _truth(matches[0])
        span_j = self._span_j(energy_j)
        if span_j is None:
            return text
        return f"{text}; with the counter's range of {span_j:.0f} J it is {energy_j + span_j:.8g} J"

    def _turned(self, energy_j: float) -> str:
        """What a value that is too large is, where it is a negative sum without its sign."""
        span_j = self._span_j(-energy_j)
        if span_j is None:
            return ""
        return (
            "; it is the absolute value of a negative sum: the counter wrapped, with its range of "
            f"{span_j:.0f} J it is {span_j - energy_j:.8g} J"
        )

    def _span_j(self, negative_j: float) -> float | None:
        """The counter's range with which a negative sum is near the others; None: with none."""
        spans = (2.0 ** (counters.COUNTER_BITS - e) for e in counters.UNIT_EXPONENTS)
        median_j = self.median_j
        return next(
            (s for s in spans if median_j and abs((negative_j + s) / median_j - 1) < _NEAR_MEDIAN),
            None,
        )

    def _elsewhere(self, row: DerivedRow) -> str | None:
        """A source of another treatment, or one whose leading digits were changed."""
        energy_j = row.energy_j or 0.0
        known = self.everything
        for i in known.at(energy_j, _tolerance_j(row)):
            if known.sources[i] not in self.known.sources and _same_time(
                known.sources[i].duration_s, row.duration_s
            ):
                return f"it is a run of {known.whose[i]}: {known.sources[i].place}"
        apart = known.joules - energy_j
        hundreds = np.rint(apart / 100)
        edited = np.flatnonzero((np.abs(apart - 100 * hundreds) < 1e-6) & (hundreds != 0))
        for i in edited.tolist():
            source = known.sources[i]
            decimals = abs(energy_j * 100 - round(energy_j * 100)) > 1e-6
            timed = source.duration_s is not None and row.duration_s is not None
            if decimals and (not timed or _same_time(source.duration_s, row.duration_s)):
                return (
                    f"all but its leading digits are those of {source.place}, {source.energy_j:.10g} J: "
                    "the row was edited"
                )
        return None


def _tolerance_j(row: DerivedRow) -> float:
    return SAME_J if row.precision_j is None else row.precision_j


def _truth(source: Source) -> str:
    return "" if source.true_j is None else f"; the samples give {source.true_j:.8g} J"


def _same_time(sourced: float | None, published: float | None) -> bool:
    """Whether seconds agree, or one of them is not known."""
    if sourced is None or published is None:
        return True
    return abs(sourced - published) <= max(SAME_S, 0.001 * sourced)


def _cut(rows: Sequence[DerivedRow], unsupported: Sequence[DerivedRow], sources: int) -> Finding:
    """The finding of a table of which most runs' files are not there."""
    first = unsupported[0]
    return finding(
        "row-untraceable",
        Verdict.FOUND,
        f"image {first.image}",
        f"{first.file}: {len(unsupported)} of {len(rows)} rows have no summary line and no raw file here "
        f"({sources} readings are there): the folder holds a part of the campaign",
        severity=Severity.WARNING,
        file=first.file,
        line=first.line,
        lines=[r.line for r in unsupported[:1000]],
    )


def _by_table(rows: Iterable[DerivedRow]) -> dict[tuple[str, str], list[DerivedRow]]:
    tables: defaultdict[tuple[str, str], list[DerivedRow]] = defaultdict(list)
    for row in rows:
        tables[row.image, row.kind].append(row)
    return dict(tables)


def _off_grid(rows: Sequence[DerivedRow]) -> dict[int, float]:
    """Rows whose joules are not a multiple of the counter's unit although nearly all others are."""
    values = np.array([r.energy_j or 0.0 for r in rows])
    if len(values) < 10:
        return {}
    for exponent in counters.UNIT_EXPONENTS:
        counts = values * 2.0**exponent
        on_grid = np.abs(counts - np.rint(counts)) < 1e-3
        if on_grid.mean() >= 0.8:
            return {rows[i].line: 2.0**-exponent for i in np.flatnonzero(~on_grid).tolist()}
    return {}


def _untraceable(row: DerivedRow, problem: str, known: _Known) -> Finding:
    energy_j = row.energy_j or 0.0
    return finding(
        "row-untraceable",
        Verdict.FOUND,
        f"image {row.image}",
        f"{row.file}:{row.line}: {energy_j:.8g} J"
        + (f" in {row.duration_s:.7g} s" if row.duration_s is not None else "")
        + f": {problem}",
        file=row.file,
        line=row.line,
        run=row.run,
        energy_j=row.energy_j,
        duration_s=row.duration_s,
        nearest=[asdict(s) for s in known.nearest(energy_j)],
    )


def _dropped(
    rows: Sequence[DerivedRow],
    sources: Mapping[tuple[str, str], Sequence[Source]],
    key: Callable[[str], str],
) -> list[Finding]:
    """Summary lines that the published tables leave out."""
    findings = []
    for (image, kind), mine in _by_table(rows).items():
        values = np.array([r.energy_j or 0.0 for r in mine])
        lines = [s for s in sources.get((key(image), kind), ()) if s.line is not None]
        same_j = np.array([_tolerance_j(r) for r in mine])
        left = [s for s in lines if not (np.abs(values - s.energy_j) <= same_j).any()]
        if left:
            findings.append(
                finding(
                    "trial-missing",
                    Verdict.FOUND,
                    f"image {image}",
                    f"{mine[0].file} leaves out {len(left)} of {len(lines)} runs that have a summary line",
                    severity=Severity.WARNING,
                    file=mine[0].file,
                    line=1,
                    lines=[asdict(s) for s in left[:100]],
                )
            )
    return findings
