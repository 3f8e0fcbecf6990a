"""Runs as tidy rows: each run's ``trials.parquet``, or what stands for it, read in parallel."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.escaping import cell
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.run_document import LastingDocument, read_lasting
from wattbench.analysis.model.trials import COLUMNS, from_records, without_apostrophes
from wattbench.analysis.runs.assemble import assemble
from wattbench.analysis.runs.load import load
from wattbench.analysis.runs.parquet import PARQUET_FACTS, parquet_bytes
from wattbench.analysis.storage.locations import Place
from wattbench.analysis.storage.source import MissingError, Source

#: Runs fetched at the same time; a store answers many small requests in parallel.
_PARALLEL = 16

#: What the comparison needs of a trial, with its type.
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("host", "kind", "image", "digest", "status")]
    + [(name, pa.string()) for name in ("energy_scope", "energy_source", "started_at")]
    + [(name, pa.int64()) for name in ("block", "images_inferred")]
    + [(name, pa.float64()) for name in ("energy_j", "package_j", "dram_j", "gpu_j")]
)
_NEEDED = ("host", "kind", "image", "status", "energy_j")
_TEXTS = [f.name for f in _SCHEMA if f.type == pa.string() and f.name != "started_at"]

_STAMP = re.compile(r"\d{8}T\d{6}Z")

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class StoredRun:
    """One run as read.

    Attributes:
        place: where it is.
        run_id: its name.
        when: when it was due, else when its first trial began; None where neither is known.
        facts: what was run and on what; empty: the file does not have them.
        table: the columns that the comparison needs.
        parquet: the file, for the rows in full.
    """

    place: str
    run_id: str
    when: datetime | None
    facts: LastingDocument
    table: pa.Table
    parquet: bytes

    @property
    def night(self) -> str:
        """Its day (UTC), else its name."""
        return self.when.strftime("%Y-%m-%d") if self.when else self.run_id

    def frame(self) -> pd.DataFrame:
        """All columns, in the schema of :mod:`analysis.trials`."""
        return from_records(self.whole().to_pylist())

    def whole(self) -> pa.Table:
        """All rows in full.

        Raises:
            InputError: a column that the comparison does not need is damaged.
        """
        try:
            return pq.read_table(io.BytesIO(self.parquet))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(self.place, error) from error


def read(
    places: Sequence[Place], progress: Progress
) -> tuple[tuple[StoredRun, ...], tuple[Finding, ...]]:
    """Read runs, in the order given.

    A run that was found in a folder and can't be read is a finding; one that was named is an error.

    Raises:
        InputError: a named run, or every run, can't be read; or one run lies in two places.
    """
    runs: list[StoredRun] = []
    notes: list[Finding] = []
    first: InputError | None = None
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for done, (place, outcome) in enumerate(
            zip(places, pool.map(_read, places), strict=True), start=1
        ):
            if isinstance(outcome, StoredRun):
                runs.append(outcome)
            elif place.named:
                raise outcome
            else:
                first = first or outcome
                notes.append(_unread(place, outcome))
            progress(f"{done} of {len(places)} runs read")
    if not runs:
        raise first or InputError("no run to compare; name at least one")
    seen: dict[str, str] = {}
    for run in runs:
        if seen.setdefault(run.run_id, run.place) != run.place:
            raise InputError(
                f"{run.place} and {seen[run.run_id]} are both run {run.run_id}; name one of them"
            )
    return tuple(runs), tuple(notes)


def _unread(place: Place, error: InputError) -> Finding:
    return finding(
        "file-unread", Verdict.FOUND, "run", f"{place.name} is left out: {error}", file=place.name
    )


def _read(place: Place) -> StoredRun | InputError:
    try:
        return read_run(place.source)
    except InputError as error:
        return error


def read_run(source: Source) -> StoredRun:
    """Read one run.

    Its ``trials.parquet``; where there is none, its records; else the ``trials.csv`` of an audit
    or report.

    Raises:
        InputError: there is none of them, or it can't be used.
    """
    data = _parquet(source)
    try:
        whole = pq.ParquetFile(io.BytesIO(data))
        names = set(whole.schema_arrow.names)
        lacking = [c for c in _NEEDED if c not in names]
        if lacking:
            raise InputError(
                f"{source.place}/trials.parquet has no column {lacking[0]}; it is not a table of trials"
            )
        read_columns = [c for c in ("run_id", *_SCHEMA.names) if c in names]
        table = whole.read(columns=read_columns)
        facts = _facts(whole.schema_arrow.metadata, f"{source.place}/trials.parquet")
        narrow = pa.table([_column(table, field) for field in _SCHEMA], schema=_SCHEMA)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(source.place, error) from error
    run_id = facts.get("run_id") or _run_id(table) or source.place.rstrip("/").rsplit("/", 1)[-1]
    return StoredRun(
        source.place, str(run_id), _when(facts, narrow, str(run_id)), facts, narrow, data
    )


def _damaged(place: str, error: Exception) -> InputError:
    return InputError(
        f"{place}/trials.parquet can't be read ({' '.join(str(error).split())[:120]}); "
        "let the run's analyze task write it again"
    )


def _parquet(source: Source) -> bytes:
    for name in ("trials.parquet", "report/trials.parquet"):
        try:
            return source.read(name)
        except MissingError:
            continue
    try:
        source.read("run.json")
    except MissingError:
        return _from_csv(source)
    return parquet_bytes(assemble(load(source)))


def _from_csv(source: Source) -> bytes:
    for name in ("trials.csv", "report/trials.csv"):
        try:
            text = source.read(name)
        except MissingError:
            continue
        try:
            frame = without_apostrophes(
                from_records(
                    {str(k): v for k, v in row.items()}
                    for row in pd.read_csv(io.BytesIO(text)).to_dict("records")
                )
            )
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{source.place}/{name} is not a table of trials "
                f"({' '.join(str(error).split())[:120]}); write it again"
            ) from error
        buffer = io.BytesIO()
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()
    raise InputError(
        f"{source.place}: holds no trials.parquet, run.json or trials.csv; name a run's folder"
    )


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), field.type)])
    return pc.cast(table[field.name], field.type)


def _facts(metadata: Mapping[bytes, bytes] | None, place: str) -> LastingDocument:
    text = (metadata or {}).get(PARQUET_FACTS)
    return read_lasting(json.loads(text), place) if text else {}


def _run_id(table: pa.Table) -> str | None:
    if "run_id" not in table.column_names:
        return None
    return next((str(v) for v in pc.unique(table["run_id"]).to_pylist() if v), None)


def _when(facts: LastingDocument, table: pa.Table, run_id: str) -> datetime | None:
    stamp = _STAMP.search(run_id)
    texts = [
        facts.get("run_after"),
        stamp and datetime.strptime(stamp[0], "%Y%m%dT%H%M%S%z").isoformat(),
        pc.min(table["started_at"]).as_py(),
    ]
    for text in texts:
        if not text:
            continue
        try:
            time = datetime.fromisoformat(str(text))
        except ValueError:
            continue
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def together(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """The rows of all runs; ``run`` is the run's place in the sequence, texts are categories."""
    tables = [
        run.table.drop_columns(["started_at"]).append_column(
            "run", pa.array([i] * run.table.num_rows, pa.int32())
        )
        for i, run in enumerate(runs)
    ]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas(categories=_TEXTS)
    if frame["host"].isna().any():
        frame["host"] = (
            frame["host"].cat.add_categories([""])
            if "" not in set(frame["host"].cat.categories)
            else frame["host"]
        )
        frame["host"] = frame["host"].fillna("")
    return frame


def write_csv(runs: Sequence[StoredRun], path: str) -> int:
    """All rows in full as one ``trials.csv``, a run at a time; returns how many."""
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    options = pa_csv.WriteOptions(quoting_style="needed")
    rows = 0
    with pa_csv.CSVWriter(path, schema, write_options=options) as out:
        for table in _in_full(runs):
            columns = [
                _cells(table[name])
                if name in table.column_names
                else pa.nulls(len(table), pa.string())
                for name in COLUMNS
            ]
            out.write_table(pa.table(columns, schema=schema))
            rows += len(table)
    return rows


def _cells(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells of CSV; texts as :func:`wattbench.analysis.model.escaping.cell` makes them."""
    texts = pc.cast(column, pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return texts
    return pa.chunked_array([pa.array(map(cell, texts.to_pylist()), pa.string())])


def _in_full(runs: Sequence[StoredRun]) -> Iterator[pa.Table]:
    for run in runs:
        yield run.whole()
