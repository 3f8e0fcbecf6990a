"""Published summary tables: a row a run with joules and seconds, and what they can be traced to."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from wattbench.analysis.audit.campaign import DerivedRow
from wattbench.analysis.audit.mapping import DerivedFiles, key_of
from wattbench.analysis.meters import counters
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, finding

#: Read as rows of cells, a file needs up to a hundred times its size.
_SIZE_LIMIT = 8 * 1024 * 1024

#: Joules and seconds within which a derived row is the same as a log line.
SAME_J = 0.01
SAME_S = 0.05

#: A row within these is named as the nearest.
_NEAREST = 3


@dataclass(frozen=True)
class Source:
    """What may stand behind a derived row: a summary line, or one reading of a raw file (no line)."""

    energy_j: float
    duration_s: float | None
    file: str
    line: int | None


def read_text(path: Path) -> tuple[str | None, str]:
    """A small text file, whatever its line ends and bytes; None and why if it can't be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        return None, f"can't be read: {error.strerror}"
    if len(data) > _SIZE_LIMIT:
        return None, f"over {_SIZE_LIMIT // 1024**2} MiB; a summary table is small"
    if b"\0" in data:
        return None, "binary data"
    return data.decode("utf-8-sig", "replace"), ""


def rows_of(text: str) -> tuple[list[tuple[int, list[str]]], tuple[int, str] | None]:
    """A CSV's rows by line, blank ones left out; line and reason where it ends to be one."""
    reader = csv.reader(io.StringIO(text.replace("\r\n", "\n").replace("\r", "\n")))
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, c) for c in reader if any(cell.strip() for cell in c))
    except csv.Error as error:
        return rows, (reader.line_num, f"no CSV from line {reader.line_num} on: {error}")
    return rows, None


def read(
    root: Path,
    relative: PurePosixPath,
    names: DerivedFiles = DerivedFiles(),  # noqa: B008 - frozen
) -> tuple[list[DerivedRow], list[Finding]]:
    """Rows of one table; what is no row becomes a finding that names the line."""
    image = relative.name.removesuffix(".csv").removesuffix("_output")
    kind = "idle" if image.endswith("_idle") else "workload"
    image = image.removesuffix("_idle")
    subject = f"image {image}"

    def unread(message: str, line: int) -> Finding:
        return finding(
            "file-unread",
            Verdict.FOUND,
            subject,
            f"{relative}: {message}",
            file=str(relative),
            line=line,
        )

    text, why = read_text(root / relative)
    if text is None:
        return [], [unread(why, 1)]
    told, end = rows_of(text)
    rows: list[DerivedRow] = []
    findings: list[Finding] = [unread(end[1], end[0])] if end else []
    columns: dict[str, int] | None = None
    for line, cells in told:
        if columns is None:
            columns = _columns([c.strip() for c in cells], names)
            if "energy_j" not in columns:
                return [], [unread("no column of joules in its header", line)]
            continue
        values = {what: number(cells[i]) if i < len(cells) else None for what, i in columns.items()}
        if values["energy_j"] is None:
            findings.append(unread(f"line {line} holds no joules: {','.join(cells)[:80]!r}", line))
            continue
        run = values.get("run")
        rows.append(
            DerivedRow(
                str(relative), line, image, kind, None if run is None else int(run),
                values["energy_j"], values.get("duration_s"),
            )
        )  # fmt: skip
    if columns is None and not findings:
        findings.append(unread("empty", 1))
    elif not rows and not findings:
        findings.append(unread("a header and no rows", 1))
    return rows, findings


def _columns(header: Sequence[str], names: DerivedFiles) -> dict[str, int]:
    patterns = {
        "run": re.compile(re.escape(names.run) if names.run else r"run", re.IGNORECASE),
        "energy_j": re.compile(
            re.escape(names.energy_j) if names.energy_j else r".*(?:joules|energy.*\(j\)).*",
            re.IGNORECASE,
        ),
        "duration_s": re.compile(
            re.escape(names.duration_s) if names.duration_s else r".*(?:time|duration).*",
            re.IGNORECASE,
        ),
    }
    return {
        what: index
        for what, pattern in patterns.items()
        if (index := next((i for i, name in enumerate(header) if pattern.fullmatch(name)), None))
        is not None
    }


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
    whole: bool,
) -> list[Finding]:
    """Which rows a log line or a raw file supports.

    Args:
        rows: of all tables.
        sources: (image key, kind) → (joules, seconds, file, line) of summary lines and raw files.
        whole: whether the campaign's raw data are there at all.
    """
    findings: list[Finding] = []
    unjudged: list[DerivedRow] = []
    untraceable = 0
    for (image, kind), mine in _by_table(rows).items():
        off_grid = _off_grid(mine)
        known = sorted(
            sources.get((key_of(image), kind), ()), key=lambda s: (s.energy_j, s.line is None)
        )
        used: set[Source] = set()
        joules = np.array([s.energy_j for s in known])
        for row in mine:
            matches = _match(row, known, joules)
            problem = _problem(row, matches, used, off_grid, bool(known))
            if problem:
                untraceable += 1
                findings.append(_untraceable(row, problem, known, joules))
            elif not matches:
                unjudged.append(row)
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
    elif rows and not untraceable:
        findings.append(
            finding(
                "row-untraceable", Verdict.NOT_FOUND, "campaign",
                f"each of {len(rows)} derived rows has its log line or raw file",
            )
        )  # fmt: skip
    return findings + _dropped(rows, sources)


def _by_table(rows: Iterable[DerivedRow]) -> dict[tuple[str, str], list[DerivedRow]]:
    tables: defaultdict[tuple[str, str], list[DerivedRow]] = defaultdict(list)
    for row in rows:
        tables[row.image, row.kind].append(row)
    return dict(tables)


def _off_grid(rows: Sequence[DerivedRow]) -> dict[int, float]:
    """Rows whose joules are no multiple of the counter's unit although nearly all others are."""
    values = np.array([r.energy_j or 0.0 for r in rows])
    if len(values) < 10:
        return {}
    for exponent in counters.UNIT_EXPONENTS:
        counts = values * 2.0**exponent
        on_grid = np.abs(counts - np.rint(counts)) < 1e-3
        if on_grid.mean() >= 0.8:
            return {rows[i].line: 2.0**-exponent for i in np.flatnonzero(~on_grid).tolist()}
    return {}


def _match(row: DerivedRow, known: Sequence[Source], joules: np.ndarray) -> list[Source]:
    """Sources with the row's joules and seconds, log lines first, then the nearest."""
    same = []
    for i in np.flatnonzero(np.abs(joules - (row.energy_j or 0.0)) <= SAME_J).tolist():
        seconds = known[i].duration_s
        if (
            seconds is None
            or row.duration_s is None
            or abs(seconds - row.duration_s) <= max(SAME_S, 0.001 * seconds)
        ):
            same.append(known[i])
    return sorted(same, key=lambda s: (s.line is None, abs(s.energy_j - (row.energy_j or 0.0))))


def _problem(
    row: DerivedRow,
    matches: Sequence[Source],
    used: set[Source],
    off_grid: Mapping[int, float],
    sourced: bool,
) -> str | None:
    """Why a row can't be traced; None: it can, or there is nothing to trace it to."""
    if matches:
        # A raw file is another reading of a run that has a log line, not another run.
        runs = [s for s in matches if s.line is not None] or matches
        free = next((s for s in runs if s not in used), None)
        if free is None:
            return f"stands for the same run as a row before it ({runs[0].file}:{runs[0].line})"
        used.add(free)
        return None
    if sourced:
        return "no summary line and no raw file has these joules and seconds"
    if row.line in off_grid:
        return (
            f"its joules are no multiple of the counter's unit of {off_grid[row.line]:.3g} J, "
            "as the others are: no single reading gives it"
        )
    return None


def _untraceable(
    row: DerivedRow,
    problem: str,
    known: Sequence[Source],
    joules: np.ndarray,
) -> Finding:
    nearest = np.argsort(np.abs(joules - (row.energy_j or 0.0)), kind="stable")[:_NEAREST].tolist()
    return finding(
        "row-untraceable",
        Verdict.FOUND,
        f"image {row.image}",
        f"{row.file}:{row.line}: {row.energy_j:.8g} J"
        + (f" in {row.duration_s:.7g} s" if row.duration_s is not None else "")
        + f": {problem}",
        file=row.file,
        line=row.line,
        run=row.run,
        energy_j=row.energy_j,
        duration_s=row.duration_s,
        nearest=[asdict(known[i]) for i in nearest],
    )


def _dropped(
    rows: Sequence[DerivedRow],
    sources: Mapping[tuple[str, str], Sequence[Source]],
) -> list[Finding]:
    """Summary lines that the published tables leave out."""
    findings = []
    for (image, kind), mine in _by_table(rows).items():
        values = np.array([r.energy_j or 0.0 for r in mine])
        lines = [s for s in sources.get((key_of(image), kind), ()) if s.line is not None]
        left = [s for s in lines if not (np.abs(values - s.energy_j) <= SAME_J).any()]
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
