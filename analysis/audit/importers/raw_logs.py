"""Importer of raw EnergiBridge logs, with text logs and tables beside them.

The treatment comes from folders, at any depth, or from file names
(:mod:`wattbench.analysis.audit.treatments`); the run's number comes from the file. The output of all runs
may be one text log per folder, or one per run with the raw log's name.
"""

from __future__ import annotations

import functools
import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import numpy as np

from wattbench.analysis.audit import logs, treatments
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.importers import LOG, RAW, Context, Files, summary_tables
from wattbench.analysis.audit.importers.log_matching import pair_by_name
from wattbench.analysis.audit.importers.log_records import (
    Owner,
    failed,
    lacks_closing,
    placed,
    record_of,
)
from wattbench.analysis.audit.importers.reduce import Reduced, scan
from wattbench.analysis.audit.logs import LINE_LIMIT, Start
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.audit.scopes import LEAST_SHARE, package_share
from wattbench.analysis.audit.treatments import Label
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Note, Record
from wattbench.analysis.storage.encodings import SAMPLE_BYTES, as_utf8, is_utf16

#: ``Run,Energy (J),Time (sec)`` tables of one folder.
MEASUREMENTS = "measurements"

_RAW_NAME = re.compile(r"energy_results_.*\.csv(?:\.gz)?")
_MEASUREMENTS_NAME = re.compile(r"energy_measurements_.*\.csv")


#: A log is read up to this size; a 10 GB one is named, not read.
_LOG_LIMIT = 512 * 1024 * 1024

#: A file ended early if it is shorter than this share of its treatment's median, where half of the
#: durations lie within a share of it.
_SHORT = 0.8
_ALIKE = 0.05

#: Files of a treatment from which on they show how its logs usually end.
_FEWEST_FOR_HABIT = 3

IMPORTED = (
    "every start with a summary line that its log does not call failed, with that line's joules (CPU package "
    "only, last interval left out, wraps not corrected) and seconds"
)
IMPORTED_WITHOUT_LOGS = (
    "there are no logs: every raw file, last minus first value of {what} where "
    "that is positive, wraps not corrected"
)
REPAIRED = (
    "every raw file without a fault of its own, first row to last, wraps corrected, "
    "seconds from the first row to the last"
)


class RawLogs:
    """Raw EnergiBridge logs."""

    layout = "study"
    recognised_by = (
        "raw EnergiBridge CSVs (`Delta,Time,…`), folders or files named after treatments"
    )
    rank = 20
    leads = frozenset({RAW, LOG, MEASUREMENTS})

    def claims(self, path: str, head: bytes) -> str | None:
        """Raw logs by header or name, text logs by the words of a meter, a workload or Docker."""
        name = path.rpartition("/")[2]
        if name.endswith((".txt", ".log", ".out")):
            named = name.startswith("energy_logs_") and name.endswith((".txt", ".log"))
            return LOG if named or logs.SIGNS.search(head) else None
        if _MEASUREMENTS_NAME.fullmatch(name):
            return MEASUREMENTS
        if _RAW_NAME.fullmatch(name):
            return RAW
        if not name.endswith((".csv", ".csv.gz", ".tsv")):
            return None
        cells = cells_of(head)
        if {"Delta", "Time"} <= set(cells):
            return RAW
        # What is left of a log where logs lie, or can't be unpacked, is a run that failed.
        words = sum(bool(re.match(r"[A-Za-z_]{3,}", cell)) for cell in cells)
        if path.endswith(".gz"):
            return RAW if not words else None
        return RAW if PurePosixPath(path).parent.name == "results" and words < 2 else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import the campaign."""
        mapping, root = context.mapping, files.root
        findings: list[Finding] = []
        raws, copies = without_copies(reduce_all(files, context))
        findings += copies
        findings += appended(raws)
        by_path: defaultdict[str, list[Reduced]] = defaultdict(list)
        for log in raws:
            by_path[log.path].append(log)
        owners, said = _owners(files, list(by_path), mapping)
        mapped = mapping.raw is not None and mapping.raw.image is not None
        ends = _Ends.of(raws, owners)
        records: list[Record] = []
        summaries: dict[str, tuple[float | None, float | None]] = {}
        sources: dict[Owner, list[summary_tables.Source]] = {}
        for unit in _units(files.of(LOG), list(by_path), owners):
            starts, problems = starts_of(root, unit.logs)
            findings += problems
            mine = [raw for p in unit.raws for raw in by_path[p]]
            digests: dict[Owner, str | None] = {}
            for start, raw in pair_by_name(starts, mine):
                owner = owners[raw.path] if raw else unit.owner_of(start, owners)
                digests[owner] = (start.digest if start else None) or digests.get(owner)
                record = record_of(
                    context, owner, start, raw, digests[owner], closes=ends.close(owner)
                )
                records.append(record)
                sources.setdefault((mapping.key(owner[0]), owner[1]), []).extend(
                    sources_of([start] if start else [], [raw] if raw else [])
                )
                refused = start is not None and start.refusal and not start.complete
                if start is not None and start.summary_j is not None and not refused:
                    summaries[record.subject] = (start.summary_j, start.summary_s)
                if start is not None and raw is not None:
                    findings += _summary_lost(record, start, raw)
        summaries |= _measurements(files, records, findings)
        records = _cut_short(placed(records))
        findings += ends.findings()
        findings += _unusable(raws)
        package_only = bool(files.of(LOG) or summaries) and any(r.energy("package") for r in raws)
        imported = IMPORTED
        if not files.of(LOG) and not summaries:
            package_only = package_share(records) >= LEAST_SHARE
            what: Literal["naive_j", "naive_total_j"] = (
                "naive_j" if package_only else "naive_total_j"
            )
            imported = IMPORTED_WITHOUT_LOGS.format(
                what="the CPU package's counter" if package_only else "all counters"
            )
            summaries = {
                r.subject: (joules, r.row.duration_s)
                for r in records
                if (joules := r.log.get(what) or 0) > 0 and r.row.status == "valid"
            }
        rows, problems, inferred = summary_tables.read_all(files, context)
        findings += problems
        traced = summary_tables.trace(rows, sources, mapping.key, whole=bool(raws or files.of(LOG)))
        findings += traced.findings
        return Campaign(
            name=context.name,
            layout=self.layout,
            records=tuple(records),
            derived=tuple(rows),
            support=traced.support,
            summaries=summaries,
            package_only=package_only,
            findings=tuple(findings),
            inferred=(*said, *inferred, *(() if mapped else _numbered_twice(records))),
            read_with=frozenset({"derived"}),
            imported_rule=imported,
            repaired_rule=REPAIRED,
        )


IMPORTER = RawLogs()


def _numbered_twice(records: Sequence[Record]) -> Iterator[str]:
    """What is said of a treatment of which several files have one run number: it may be several."""
    numbered: defaultdict[tuple[Owner, int | None], list[str]] = defaultdict(list)
    for r in records:
        if r.row.raw:
            numbered[(r.row.image, r.row.kind), r.row.run].append(r.row.raw)
    twice: defaultdict[str, list[list[str]]] = defaultdict(list)
    for ((image, _), _), paths in numbered.items():
        if len(paths) > 1:
            twice[image].append(paths)
    for image, groups in twice.items():
        yield (
            f"{sum(map(len, groups))} files of {image} have one run number with another, such as "
            f"{groups[0][0]} and {groups[0][1]}; if they are of several treatments, a pattern "
            "`raw: {image: …}` in a --mapping file distinguishes them"
        )


# ----------------------------------------------------------------------------- whose a file is


def _owners(
    files: Files, raws: Sequence[str], mapping: CampaignMapping
) -> tuple[dict[str, Owner], tuple[str, ...]]:
    """Path of a raw file, or of a text log without any, → image and kind; and what was inferred."""
    folders = {treatments.folder_of(p) for p in raws}
    stems = {treatments.stem_of(p) for p in raws}
    alone = [
        p
        for p in (*files.of(LOG), *files.of(MEASUREMENTS))
        if treatments.folder_of(p) not in folders and treatments.stem_of(p) not in stems
    ]
    labels, said = treatments.owners([*raws, *alone], files.root, mapping)
    return _one_name(labels, mapping), said


def _one_name(owners: Mapping[str, Label], mapping: CampaignMapping) -> dict[str, Owner]:
    """An image that is named with a suffix under load and without it when idle is one image."""
    work = {label.image for label in owners.values() if label.kind == "workload"}
    idle = {label.image for label in owners.values() if label.kind == "idle"} - work
    same = {
        image: names[0]
        for image in idle
        if len(names := [w for w in sorted(work) if mapping.key(w) == mapping.key(image)]) == 1
    }
    return {p: (same.get(o.image, o.image), o.kind) for p, o in owners.items()}


@dataclass(frozen=True)
class _Unit:
    """Text logs, and the raw files that their starts may belong to."""

    logs: tuple[str, ...]
    raws: tuple[str, ...]
    owners: tuple[Owner, ...]

    def owner_of(self, start: Start | None, owners: Mapping[str, Owner]) -> Owner:
        """The treatment of a start without a raw file: its log's, where the log has only one."""
        assert start is not None  # of a pair one of the two is there
        if start.file in owners:
            return owners[start.file]
        named = _TOKEN.split(start.ref or "")[-1:]
        return next((o for o in self.owners if o[0] in named), self.owners[0])


_TOKEN = re.compile(r"[:/]")


def _units(
    texts: Sequence[str], raws: Sequence[str], owners: Mapping[str, Owner]
) -> Iterator[_Unit]:
    """Treatments with their logs; those of which a log may hold starts in common are one unit."""
    in_folder: defaultdict[str, dict[Owner, None]] = defaultdict(dict)
    of_stem: defaultdict[str, dict[Owner, None]] = defaultdict(dict)
    for path in raws:
        in_folder[treatments.folder_of(path)][owners[path]] = None
        of_stem[treatments.stem_of(path)][owners[path]] = None
    group: dict[Owner, Owner] = {}

    def first(owner: Owner) -> Owner:
        while group.setdefault(owner, owner) != owner:
            owner = group[owner]
        return owner

    for path in raws:
        first(owners[path])
    owner_of_log: dict[str, Owner] = {}
    for path in texts:
        stems = {
            o: None
            for o in of_stem[treatments.stem_of(path)]
            if o in in_folder[treatments.folder_of(path)]
        }
        known = {owners[path]: None} if path in owners else {}
        mine = list(
            stems
            or known
            or in_folder[treatments.folder_of(path)]
            or of_stem[treatments.stem_of(path)]
        )
        for other in mine[1:]:
            group[first(other)] = first(mine[0])
        owner_of_log[path] = mine[0]
        first(mine[0])
    units: dict[Owner, tuple[list[str], list[str], dict[Owner, None]]] = {}
    for owner in group:
        units.setdefault(first(owner), ([], [], {}))[2][owner] = None
    for path in texts:
        units[first(owner_of_log[path])][0].append(path)
    for path in raws:
        units[first(owners[path])][1].append(path)
    for texts_of, raws_of, whose in units.values():
        yield _Unit(tuple(texts_of), tuple(raws_of), tuple(whose))


def without_copies(raws: Sequence[Reduced]) -> tuple[list[Reduced], list[Finding]]:
    """Raw files that hold the same samples, once; the others are named."""
    same: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for raw in raws:
        if raw.rows > 2 and raw.energies:
            joules = tuple((e.name, e.start_j, e.joules) for e in raw.energies)
            same[raw.rows, raw.first_s, raw.last_s, joules].append(raw.place)
    copies: dict[str, str] = {}
    for paths in same.values():
        original, *others = sorted(paths, key=lambda p: (_is_backup(p), p.count("/"), len(p)))
        copies |= dict.fromkeys(others, original)
    if not copies:
        return list(raws), []
    first = next(iter(copies))
    return [r for r in raws if r.place not in copies], [
        copies_found(copies, f"{len(copies)} raw files are copies: they hold the samples of others, "
                     f"such as {first} those of {copies[first]}")
    ]  # fmt: skip


def appended(raws: Sequence[Reduced]) -> list[Finding]:
    """The finding that names files that hold several runs, which count apart."""
    later = [raw for raw in raws if raw.line > 1]
    if not later:
        return []
    files = dict.fromkeys(raw.path for raw in later)
    places = ", ".join(raw.place for raw in later[:5]) + (" …" if len(later) > 5 else "")
    return [
        finding(
            "file-unread",
            Verdict.FOUND,
            "campaign",
            f"{len(files)} raw files hold {len(files) + len(later)} runs one after the other; each counts "
            f"apart, from a header or from a first sample (Delta 0) on: {places}",
            severity=Severity.INFO,
            action="Nothing to do if these are runs of one treatment; else give each its own file.",
            file=later[0].path,
            line=later[0].line,
            runs=[raw.place for raw in later[:1000]],
        )
    ]


def copies_found(copies: Mapping[str, str], message: str) -> Finding:
    """The finding that names copies, which count once."""
    return finding(
        "file-unread",
        Verdict.FOUND,
        "campaign",
        f"{message}; each measurement counts once",
        severity=Severity.WARNING,
        action="Nothing to do if they are backups; else ask where their own measurements are.",
        file=next(iter(copies)),
        line=1,
        copies=dict(itertools.islice(copies.items(), 1000)),
    )


def _is_backup(path: str) -> bool:
    return bool(re.search(r"backup|bak\b|copy|copies|old\b|archive", path, re.IGNORECASE))


# ----------------------------------------------------------------------------- how logs usually end


@dataclass(frozen=True)
class _Ends:
    """Whether the logs of each treatment end with a closing sample, as the tool's habit is."""

    without: Mapping[Owner, Sequence[Reduced]]
    by_owner: Mapping[Owner, bool]
    usual: bool

    @classmethod
    def of(cls, raws: Iterable[Reduced], owners: Mapping[str, Owner]) -> _Ends:
        lacking: defaultdict[Owner, list[Reduced]] = defaultdict(list)
        known: Counter[Owner] = Counter()
        for raw in raws:
            lacks = lacks_closing(raw)
            known[owners[raw.path]] += lacks is not None
            if lacks:
                lacking[owners[raw.path]].append(raw)
        n = sum(map(len, lacking.values()))
        usual = 2 * n < known.total() or n < 2
        by_owner = {
            owner: (2 * len(lacking[owner]) < count) if count >= _FEWEST_FOR_HABIT else usual
            for owner, count in known.items()
        }
        return cls(lacking, by_owner, usual)

    def close(self, owner: Owner) -> bool:
        """Whether a log of this treatment without a closing sample is suspicious."""
        return self.by_owner.get(owner, self.usual)

    def findings(self) -> Iterator[Finding]:
        """One for the campaign where logs end without a closing sample by habit."""
        open_ended = [r for o, raws in self.without.items() if not self.close(o) for r in raws]
        if open_ended:
            first = open_ended[0]
            yield finding(
                "sampling-coarse",
                Verdict.FOUND,
                "campaign",
                f"{len(open_ended)} logs end without a closing sample, as EnergiBridge writes them up to "
                f"0.0.4 or with --max-execution: the end of each window is known to one interval of "
                f"{first.interval_s:.3g} s, and work may have been cut off",
                file=first.path,
                line=first.line + first.rows,
                logs=len(open_ended),
            )


def starts_of(root: Path, paths: Sequence[str]) -> tuple[list[Start], list[Finding]]:
    """Starts of some logs, one log after the other, and what could not be read."""
    starts: list[Start] = []
    findings: list[Finding] = []
    for path in paths:
        problem = None
        try:
            size = (root / path).stat().st_size
            if size > _LOG_LIMIT:
                problem = f"{size / 1e9:.1f} GB is more than a text log has; not read"
            else:
                with (root / path).open("rb") as file:
                    text: IO[bytes] = file
                    if is_utf16(file.peek(SAMPLE_BYTES)):
                        text = io.BytesIO(as_utf8(file.read()))
                    pieces = iter(functools.partial(text.readline, LINE_LIMIT), b"")
                    mine = logs.parse(path, logs.lines_of(pieces))
                if not mine:
                    problem = "no start of a workload or a meter in it"
                starts += mine
        except OSError as error:
            problem = f"can't be read: {error.strerror}"
        if problem:
            findings.append(
                finding(
                    "file-unread",
                    Verdict.FOUND,
                    "campaign",
                    f"{path}: {problem}",
                    file=path,
                    line=1,
                )
            )
    return starts, findings


def reduce_all(files: Files, context: Context) -> list[Reduced]:
    """Runs of the raw files, reduced."""
    paths = files.of(RAW)
    results = scan(
        paths,
        root=str(files.root),
        limit=context.limit,
        renames=context.mapping.columns,
        progress=lambda n: context.progress(f"{n} of {len(paths)} raw files"),
    )
    return list(results)


def sources_of(starts: Sequence[Start], raws: Sequence[Reduced]) -> Iterator[summary_tables.Source]:
    """What may stand behind a derived row: summary lines first, then raw files in every reading."""
    for start in starts:
        if start.summary_j is not None:
            yield summary_tables.Source(
                start.summary_j, start.summary_s, start.file, start.summary_line
            )
    for raw in raws:
        package = raw.energy("package")
        if package is not None:
            for joules in {package.joules, package.naive_j, package.summary_j} - {None}:
                yield summary_tables.Source(
                    float(joules or 0.0), None, raw.path, None, package.joules
                )


def _summary_lost(record: Record, start: Start, raw: Reduced) -> Iterator[Finding]:
    """A run whose summary line is missing because a wrap made its sum negative."""
    package = raw.energy("package")
    if start.summary_j is not None or package is None or not package.wraps:
        return
    if (package.summary_j or 0.0) > 0 or start.panic or start.refusal:
        return
    yield finding(
        "counter-wrap",
        Verdict.FOUND,
        record.subject,
        f"{start.file}:{start.line}: no summary line of this run, since the package counter wrapped and "
        f"the tool's sum of {package.summary_j:.0f} J is negative; tables made from summary lines leave "
        f"it out. The samples give {package.joules:.0f} J",
        severity=Severity.WARNING,
        file=start.file,
        line=start.line,
        raw=raw.path,
        sum_j=package.summary_j,
        package_j=package.joules,
    )


def _unusable(raws: Iterable[Reduced]) -> Iterator[Finding]:
    """Columns left out of sound files, and GPUs whose power is not measured; one finding per column."""
    by_column: defaultdict[tuple[str, str], list[tuple[Reduced, Note]]] = defaultdict(list)
    for raw in raws:
        for note in raw.notes:
            if note.kind in ("unusable-column", "no-power"):
                by_column[note.kind, note.column or ""].append((raw, note))
    for (kind, column), mine in sorted(by_column.items()):
        raw, note = mine[0]
        silent = kind == "no-power"
        yield finding(
            "meter-scope" if silent else "file-unread",
            Verdict.FOUND,
            "campaign",
            f"{column}, {len(mine)} files: {note.message}",
            severity=Severity.WARNING if silent else Severity.INFO,
            action="" if silent else "Do not read this column as energy.",
            file=raw.path,
            line=note.line or 1,
            column=column,
            files=len(mine),
        )


def _measurements(
    files: Files,
    records: Sequence[Record],
    findings: list[Finding],
) -> dict[str, tuple[float | None, float | None]]:
    """Joules of ``energy_measurements_*.csv`` for runs that no log line covers."""
    summaries: dict[str, tuple[float | None, float | None]] = {}
    logged = {treatments.folder_of(p) for p in files.of(LOG)}
    by_folder: defaultdict[str, dict[int | None, str]] = defaultdict(dict)
    for r in records:
        if r.row.raw:
            by_folder[treatments.folder_of(r.row.raw)][r.row.run] = r.subject
    for path in files.of(MEASUREMENTS):
        folder = treatments.folder_of(path)
        rows, problems, _ = summary_tables.read(files.root, path)
        # A header alone is what the study's own script left behind: nothing to import.
        findings += [p for p in problems if "header and no rows" not in p.message]
        by_run = by_folder[folder]
        for row in rows:
            if row.run in by_run and folder not in logged:
                summaries[by_run[row.run]] = (row.energy_j, row.duration_s)
        lone = [row for row in rows if row.run not in by_run]
        if lone:
            findings.append(
                finding(
                    "file-unread",
                    Verdict.FOUND,
                    "campaign",
                    f"{path}: {len(lone)} of {len(rows)} rows are of runs without a raw file",
                    file=path,
                    line=lone[0].line,
                    runs=[row.run for row in lone[:100]],
                )
            )
    return summaries


def _cut_short(records: Sequence[Record]) -> list[Record]:
    """Files far shorter than their treatment's others, which all take the same time.

    Where durations vary, a short one may be a short answer; where logs end with a closing sample, the
    command ended by itself, which work that always takes the same time does not do early.
    """
    usual: dict[Owner, float] = {}
    groups: defaultdict[Owner, list[float]] = defaultdict(list)
    for r in records:
        if r.row.duration_s:
            groups[r.row.image, r.row.kind].append(r.row.duration_s)
    for owner, values in groups.items():
        low, middle, high = np.percentile(values, [25, 50, 75])
        if len(values) > 2 and high - low <= _ALIKE * middle:
            usual[owner] = float(middle)
    out = []
    for r in records:
        middle_s = usual.get((r.row.image, r.row.kind))
        seconds = r.row.duration_s
        short = middle_s is not None and seconds is not None and seconds < _SHORT * middle_s
        if short and r.row.status == "valid" and not r.log.get("complete"):
            r = failed(r, f"{seconds:.0f} s, the others take {middle_s:.0f} s: it ended early")
        out.append(r)
    return out
