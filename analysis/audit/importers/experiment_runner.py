"""Importer of experiment-runner's folders: a ``run_table.csv`` with one row and one folder per run.

The table begins with ``__run_id`` (``run_3`` or ``run_3_repetition_1``) and ``__done`` (TODO, IN_PROGRESS,
DONE), then the factors whose values make up the treatment, then data columns that the experiment filled in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from wattbench.analysis.audit.campaign import Campaign, DerivedRow
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.factors import factors_of
from wattbench.analysis.audit.importers import (
    LOG,
    Context,
    Files,
    log_records,
    raw_logs,
    summary_tables,
)
from wattbench.analysis.audit.importers.reduce import Reduced
from wattbench.analysis.audit.importers.summary_tables import Source
from wattbench.analysis.audit.logs import Start
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Note, Record
from wattbench.analysis.model.trials import TrialRow

RUN_TABLE = "run-table"

IMPORTED = (
    "every run that is DONE and has a raw file: CPU package from the first row to the last, wraps not "
    "corrected, negative sums left out"
)

_ENERGY = re.compile(r".*(?:package|total|cpu)?_?(?:energy|joules?).*", re.IGNORECASE)
_PREFERRED = (re.compile("total", re.IGNORECASE), re.compile("package|^energy", re.IGNORECASE))


@dataclass
class _Import:
    """What was imported so far."""

    records: list[Record] = field(default_factory=list)
    rows: list[DerivedRow] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    sources: dict[tuple[str, str], list[Source]] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)


class ExperimentRunner:
    """Folders of experiment-runner."""

    layout = "experiment-runner"
    recognised_by = "`run_table.csv` with `__run_id` and `__done`, a folder per run"
    rank = 10
    leads = frozenset({RUN_TABLE})

    def claims(self, path: str, head: bytes) -> str | None:
        """Run tables."""
        name = path.rpartition("/")[2]
        is_table = name == "run_table.csv" or (
            name.endswith(".csv") and "__run_id" in cells_of(head)
        )
        return RUN_TABLE if is_table else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import all run tables of a folder."""
        done = _Import()
        raws = _one_run_per_file(raw_logs.reduce_all(files, context))
        raw_in, logs_in = _by_folder(raws), _by_folder(files.of(LOG))
        tables: dict[str, tuple[tuple[int, dict[str, str]], ...]] = {}
        for table in files.of(RUN_TABLE):
            lines = _lines(files, table, done.findings)
            copy = next((t for t, known in tables.items() if _cells(known) == _cells(lines)), None)
            if copy is not None and not any(_runs_of(table, lines, raw_in)):
                done.findings.append(_copied(table, copy, len(lines)))
            elif lines:
                tables[table] = lines
        for table, lines in tables.items():
            _read_table(files, context, table, lines, raws, raw_in, logs_in, done)
        done.findings += [
            _unread(p, "a raw file of no row of a run table", 1)
            for p in raws
            if p not in done.claimed
        ]
        if raws:
            records = tuple(log_records.placed(done.records))
        else:
            # Tables alone: rows are published numbers, not runs that went missing.
            records = tuple(summary_tables.as_record(context, row) for row in done.rows)
        traced = summary_tables.trace(
            done.rows, done.sources, context.mapping.key, whole=bool(raws)
        )
        return Campaign(
            name=context.name,
            layout=self.layout,
            records=records,
            derived=tuple(done.rows),
            summaries={
                r.subject: (r.log["naive_j"], r.row.duration_s)
                for r in records
                if r.row.status == "valid" and (r.log.get("naive_j") or 0) > 0
            },
            package_only=bool(raws),
            findings=(*done.findings, *traced.findings),
            support=traced.support,
            inferred=tuple(done.said),
            read_with=frozenset({"study"}),
            imported_rule=IMPORTED,
            repaired_rule=raw_logs.REPAIRED if raws else summary_tables.REPAIRED,
        )


def _one_run_per_file(runs: Sequence[Reduced]) -> dict[str, Reduced]:
    """Raw files by path; one that holds several runs shows no energy: a row does not say which is its own."""
    raws: dict[str, Reduced] = {}
    for run in runs:
        if run.path in raws:
            message = f"a second run begins at line {run.line}: a row of the table is one run"
            note = Note("repeated-header", message, run.line, fatal=True)
            raws[run.path] = Reduced(run.path, notes=(note,))
        else:
            raws[run.path] = run
    return raws


IMPORTER = ExperimentRunner()


def _lines(
    files: Files, table: str, findings: list[Finding]
) -> tuple[tuple[int, dict[str, str]], ...]:
    """Rows of a run table by line and column."""
    text, why = summary_tables.read_text(files.root / table)
    numbered, end = summary_tables.rows_of(text or "")
    if end:
        findings.append(_unread(table, end[1], end[0]))
    columns = [name.strip() for name in numbered[0][1]] if numbered else []
    lines = tuple((n, dict(zip(columns, cells, strict=False))) for n, cells in numbered[1:])
    if "__run_id" not in columns or not lines:
        findings.append(_unread(table, why or "no row with a __run_id", 1))
        return ()
    return lines


def _cells(lines: Sequence[tuple[int, Mapping[str, str]]]) -> list[Mapping[str, str]]:
    return [line for _, line in lines]


def _runs_of(
    table: str,
    lines: Sequence[tuple[int, Mapping[str, str]]],
    raw_in: Mapping[str, Sequence[str]],
) -> Iterable[bool]:
    """Whether each run of a table has raw files in its folder."""
    for _, line in lines:
        run_id = (line.get("__run_id") or "").strip()
        yield bool(raw_in.get(str(PurePosixPath(table).parent / run_id)))


def _copied(table: str, original: str, rows: int) -> Finding:
    return finding(
        "file-unread",
        Verdict.FOUND,
        "campaign",
        f"{table} is a copy of {original}: its {rows} rows are the same; counted once",
        severity=Severity.WARNING,
        action="Nothing to do if it is a copy.",
        file=table,
        line=1,
        copy_of=original,
    )


def _read_table(
    files: Files,
    context: Context,
    table: str,
    lines: Sequence[tuple[int, Mapping[str, str]]],
    raws: Mapping[str, Reduced],
    raw_in: Mapping[str, Sequence[str]],
    logs_in: Mapping[str, Sequence[str]],
    done: _Import,
) -> None:
    """Records and published rows of one run table."""
    mapping = context.mapping
    rows = [line for _, line in lines]
    columns = list(rows[0])
    factors = factors_of(columns, rows, mapping.factors, ("__run_id", "__done"))
    done.said += [f"{table}: {said}" for said in factors.said]
    energy, seconds = _results(columns, factors.names, mapping)
    for number, line in lines:
        run_id = (line.get("__run_id") or "").strip()
        if not run_id:
            done.findings.append(_unread(table, f"line {number} has no __run_id", number))
            continue
        image = " / ".join((line.get(f) or "").strip() for f in factors.names) or context.name
        image = mapping.images.get(image, image)
        folder = str(PurePosixPath(table).parent / run_id)
        mine = raw_in.get(folder, ())
        done.claimed.update(mine)
        starts, problems = raw_logs.starts_of(files.root, logs_in.get(folder, ()))
        # A run's log holds the workload's own output: without a meter's line it says nothing here.
        done.findings += [p for p in problems if "no start" not in p.message]
        raw = raws[mine[0]] if len(mine) == 1 else None
        done.sources.setdefault((mapping.key(image), "workload"), []).extend(
            raw_logs.sources_of(starts, [raws[p] for p in mine])
        )
        done.records.append(_record(context, image, table, number, line, starts, raw, len(mine)))
        joules = _number(line, energy)
        if joules is not None:
            unit_j = summary_tables.joules_per_unit(energy or "")
            done.rows.append(
                DerivedRow(
                    table, number, image, "workload", _run_number(run_id), joules * unit_j,
                    _seconds(line, seconds),
                    summary_tables.precision_of(line.get(energy or "") or "", unit_j),
                )
            )  # fmt: skip


def _by_folder(paths: Iterable[str]) -> defaultdict[str, list[str]]:
    """Files by the folder that they lie in."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[str(PurePosixPath(path).parent)].append(path)
    return folders


def _unread(path: str, message: str, line: int) -> Finding:
    return finding(
        "file-unread", Verdict.FOUND, "campaign", f"{path}: {message}", file=path, line=line
    )


def _results(
    columns: Sequence[str], factors: Sequence[str], mapping: CampaignMapping
) -> tuple[str | None, str | None]:
    """The table's own columns of joules and seconds."""
    data = [c for c in columns if c not in factors and not c.startswith("__")]
    joules = sorted(
        (c for c in data if _ENERGY.fullmatch(c)),
        key=lambda c: [not preferred.search(c) for preferred in _PREFERRED],
    )
    return (
        mapping.derived.energy_j or (joules[0] if joules else None),
        mapping.derived.duration_s
        or summary_tables.duration_of([c for c in data if c not in joules]),
    )


def _number(line: Mapping[str, str], column: str | None) -> float | None:
    return summary_tables.number(line.get(column or "") or "")


def _seconds(line: Mapping[str, str], column: str | None) -> float | None:
    value = _number(line, column)
    return None if value is None else value * summary_tables.seconds_per_unit(column or "")


def _run_number(run_id: str) -> int | None:
    numbers = re.findall(r"\d+", run_id)
    return int(numbers[-1]) if numbers else None


def _record(
    context: Context,
    image: str,
    table: str,
    number: int,
    line: Mapping[str, str],
    starts: Sequence[Start],
    raw: Reduced | None,
    raws: int,
) -> Record:
    run_id = (line.get("__run_id") or "").strip()
    run = _run_number(run_id)
    done = (line.get("__done") or "").strip().upper()
    at = f"{table}:{number}"
    if raw is None:
        reason = f"{at}: {run_id} is {done or 'not done'}"
        if done == "DONE":
            reason = f"{at}: {run_id} is DONE and has {raws} raw energibridge files instead of one"
        row = TrialRow(
            context.name,
            context.mapping.host,
            "workload",
            None,
            None,
            None,
            image,
            run=run,
            attempt=1,
            status="missing",
            reason=reason,
        )
        return Record(row, log={"file": table, "line": number})
    record = log_records.record_of(
        context, (image, "workload"), starts[-1] if starts else None, raw
    )
    record = replace(record, row=replace(record.row, run=run))
    if done != "DONE" and record.row.status == "valid":
        row = replace(record.row, status="failed", reason=f"{at}: {run_id} is {done or 'not done'}")
        return replace(record, row=row, state="failed")
    return record
