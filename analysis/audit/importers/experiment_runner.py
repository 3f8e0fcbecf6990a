"""Importer of experiment-runner's folders: a ``run_table.csv`` with a row a run, a folder a run.

The table begins with ``__run_id`` (``run_3`` or ``run_3_repetition_1``) and ``__done`` (TODO, IN_PROGRESS,
DONE), then the factors whose values make up the treatment, then data columns that the experiment filled in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from wattbench.analysis.audit.campaign import Campaign, DerivedRow
from wattbench.analysis.audit.discover import Found
from wattbench.analysis.audit.importers import raw_logs, summary_tables
from wattbench.analysis.audit.importers.reduce import Reduced
from wattbench.analysis.audit.logs import Start
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow

IMPORTED = (
    "every run that is DONE and has a raw file: CPU package from the first row to the last, wraps not "
    "corrected, negative sums left out"
)

#: Names of columns that hold results and no factor.
_DATA = re.compile(
    r"energy|joule|power|watt|time|duration|usage|util|memory|temperature|cpu|avg_|_avg|mean",
    re.IGNORECASE,
)
_ENERGY = re.compile(r".*(?:package|total|cpu)?_?(?:energy|joules?).*", re.IGNORECASE)
_PREFERRED = re.compile(r"package|total|^energy", re.IGNORECASE)
_TIME = re.compile(r".*(?:time|duration).*", re.IGNORECASE)


def read(
    root: Path,
    name: str,
    found: Found,
    mapping: CampaignMapping,
    progress: Callable[[str], None],
    limit: int,
) -> Campaign:
    """Import all run tables of a folder; arguments as :func:`analysis.audit.study.read`."""
    records: list[Record] = []
    rows: list[DerivedRow] = []
    findings: list[Finding] = []
    sources: dict[tuple[str, str], list[summary_tables.Source]] = {}
    raws = raw_logs.reduce_all(root, found.raw, progress, limit, mapping)
    raw_in, logs_in = _by_folder(found.raw), _by_folder(map(str, found.logs))
    claimed: set[str] = set()
    for table in found.run_tables:
        text, why = summary_tables.read_text(root / table)
        told, end = summary_tables.rows_of(text or "")
        if end:
            findings.append(_unread(table, end[1], end[0]))
        columns = [name.strip() for name in told[0][1]] if told else []
        lines = {n: dict(zip(columns, cells, strict=False)) for n, cells in told[1:]}
        if "__run_id" not in columns or not lines:
            findings.append(_unread(table, why or "no row with a __run_id", 1))
            continue
        factors = _factors(columns, list(lines.values()), mapping)
        energy, seconds = _results(columns, factors, mapping)
        for number, line in lines.items():
            run_id = (line.get("__run_id") or "").strip()
            if not run_id:
                findings.append(_unread(table, f"line {number} has no __run_id", number))
                continue
            image = " / ".join((line.get(f) or "").strip() for f in factors) or name
            image = mapping.images.get(image, image)
            folder = str(table.parent / run_id)
            mine = raw_in[folder]
            claimed.update(mine)
            starts, problems = raw_logs.starts_of(root, [PurePosixPath(p) for p in logs_in[folder]])
            # A run's log holds the workload's own output: without a meter's line it says nothing here.
            findings += [p for p in problems if "no start" not in p.message]
            raw = raws[mine[0]] if len(mine) == 1 else None
            sources.setdefault((key_of(image), "workload"), []).extend(
                raw_logs.sources_of(starts, [raws[p] for p in mine])
            )
            records.append(
                _record(name, image, table, number, line, starts, raw, len(mine), mapping)
            )
            joules = _number(line, energy)
            if joules is not None:
                rows.append(
                    DerivedRow(
                        str(table),
                        number,
                        image,
                        "workload",
                        _run_number(run_id),
                        joules,
                        _number(line, seconds),
                    )
                )
    findings += [
        _unread(p, "a raw file of no row of a run table", 1) for p in found.raw if p not in claimed
    ]
    records = raw_logs.placed(records)
    return Campaign(
        name=name,
        layout="experiment-runner",
        records=tuple(records),
        derived=tuple(rows),
        summaries={
            r.subject: (r.log["naive_j"], r.row.duration_s)
            for r in records
            if r.row.status == "valid" and (r.log.get("naive_j") or 0) > 0
        },
        findings=(*findings, *summary_tables.trace(rows, sources, whole=bool(found.raw))),
        imported_rule=IMPORTED,
        repaired_rule=raw_logs.REPAIRED,
    )


def _by_folder(paths: Iterable[str]) -> defaultdict[str, list[str]]:
    """Files by the folder that they lie in."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[str(PurePosixPath(path).parent)].append(path)
    return folders


def _unread(path: PurePosixPath | str, message: str, line: int) -> Finding:
    return finding(
        "file-unread", Verdict.FOUND, "campaign", f"{path}: {message}", file=str(path), line=line
    )


def _factors(
    columns: Sequence[str], lines: Sequence[Mapping[str, str]], mapping: CampaignMapping
) -> list[str]:
    """Columns that make up the treatment: the mapping's, else those before the first result."""
    if mapping.factors is not None:
        return [f for f in mapping.factors if f in columns]
    factors = []
    for column in columns:
        if column in ("__run_id", "__done"):
            continue
        values = [(line.get(column) or "").strip() for line in lines]
        distinct = set(values)
        measured = all(re.fullmatch(r"-?\d+\.\d+(?:e[-+]?\d+)?", v) for v in distinct)
        if _DATA.search(column) or "" in distinct or (measured and len(distinct) > len(values) / 2):
            break
        factors.append(column)
    return factors


def _results(
    columns: Sequence[str], factors: Sequence[str], mapping: CampaignMapping
) -> tuple[str | None, str | None]:
    """The table's own columns of joules and seconds."""
    data = [c for c in columns if c not in factors and not c.startswith("__")]
    joules = sorted(
        (c for c in data if _ENERGY.fullmatch(c)), key=lambda c: not _PREFERRED.search(c)
    )
    seconds = [c for c in data if _TIME.fullmatch(c)]
    return (
        mapping.derived.energy_j or (joules[0] if joules else None),
        mapping.derived.duration_s or (seconds[0] if seconds else None),
    )


def _number(line: Mapping[str, str], column: str | None) -> float | None:
    return summary_tables.number(line.get(column or "") or "")


def _run_number(run_id: str) -> int | None:
    numbers = re.findall(r"\d+", run_id)
    return int(numbers[-1]) if numbers else None


def _record(
    name: str,
    image: str,
    table: PurePosixPath,
    number: int,
    line: Mapping[str, str],
    starts: Sequence[Start],
    raw: Reduced | None,
    raws: int,
    mapping: CampaignMapping,
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
            name,
            mapping.host,
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
        return Record(row, log={"file": str(table), "line": number})
    record = raw_logs.record_of(
        name, image, "workload", starts[-1] if starts else None, raw, mapping, None
    )
    record = replace(record, row=replace(record.row, run=run))
    if done != "DONE" and record.row.status == "valid":
        row = replace(record.row, status="failed", reason=f"{at}: {run_id} is {done or 'not done'}")
        return replace(record, row=row, state="failed")
    return record
