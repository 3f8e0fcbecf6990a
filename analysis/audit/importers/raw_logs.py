"""Importer of raw EnergiBridge logs, with text logs and tables beside them.

Folders, at any depth, or names of files tell the treatment (:mod:`wattbench.analysis.audit.treatments`);
the run's number comes from the file. The output of all runs may be one text log per folder, or one per run
with the raw log's name.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wattbench.analysis.audit import logs, treatments
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.discover import cells_of
from wattbench.analysis.audit.importers import LOG, RAW, Context, Files, summary_tables
from wattbench.analysis.audit.importers.log_matching import pair_by_name
from wattbench.analysis.audit.importers.reduce import Reduced, scan
from wattbench.analysis.audit.logs import LINE_LIMIT, Start
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.audit.scopes import LEAST_SHARE, package_share
from wattbench.analysis.audit.treatments import Label
from wattbench.analysis.meters.curves import POWER_AVERAGE_S, SAMPLE_S
from wattbench.analysis.meters.energibridge import LAST_S, NO_ENERGY
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Domain, Note, Record, Sampling, Work
from wattbench.analysis.model.trials import TrialRow

#: ``Run,Energy (J),Time (sec)`` tables of one folder.
MEASUREMENTS = "measurements"

_RAW_NAME = re.compile(r"energy_results_.*\.csv(?:\.gz)?")
_MEASUREMENTS_NAME = re.compile(r"energy_measurements_.*\.csv")

#: Domains whose joules add up to a trial's total: all others lie inside these.
_COUNTED = re.compile(r"package|dram|gpu\d+|system")

_NO_WORK = Work()

#: Names of images built for CUDA.
_CUDA_NAME = re.compile(r"cuda|nvcr|nvidia|\bgpu\b|rocm", re.IGNORECASE)

#: Names of treatments in which a GPU has nothing to do.
_WITHOUT_GPU = re.compile(
    r"(?:^|[ _\-/])(?:control|idle|baseline|sleep|noop|empty|nothing|cpu|no[ _\-]?gpu)(?:[ _\-/]|$)",
    re.IGNORECASE,
)

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

_Owner = tuple[str, str]


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
        owners, said = _owners(files, list(raws), mapping)
        ends = _Ends.of(raws.values(), owners)
        records: list[Record] = []
        summaries: dict[str, tuple[float | None, float | None]] = {}
        sources: dict[_Owner, list[summary_tables.Source]] = {}
        for unit in _units(files.of(LOG), list(raws), owners):
            starts, problems = starts_of(root, unit.logs)
            findings += problems
            mine = [raws[p] for p in unit.raws]
            digests: dict[_Owner, str | None] = {}
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
        findings += _unusable(raws.values())
        package_only = bool(files.of(LOG) or summaries) and any(
            r.energy("package") for r in raws.values()
        )
        imported = IMPORTED
        if not files.of(LOG) and not summaries:
            package_only = package_share(records) >= LEAST_SHARE
            what = "naive_j" if package_only else "naive_total_j"
            imported = IMPORTED_WITHOUT_LOGS.format(
                what="the CPU package's counter" if package_only else "all counters"
            )
            summaries = {
                r.subject: (r.log[what], r.row.duration_s)
                for r in records
                if (r.log.get(what) or 0) > 0 and r.row.status == "valid"
            }
        rows, problems = summary_tables.read_all(files, context)
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
            inferred=said,
            read_with=frozenset({"derived"}),
            imported_rule=imported,
            repaired_rule=REPAIRED,
        )


IMPORTER = RawLogs()


# ----------------------------------------------------------------------------- whose a file is


def _owners(
    files: Files, raws: Sequence[str], mapping: CampaignMapping
) -> tuple[dict[str, _Owner], tuple[str, ...]]:
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


def _one_name(owners: Mapping[str, Label], mapping: CampaignMapping) -> dict[str, _Owner]:
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
    owners: tuple[_Owner, ...]

    def owner_of(self, start: Start | None, owners: Mapping[str, _Owner]) -> _Owner:
        """The treatment of a start without a raw file: its log's, where the log has only one."""
        assert start is not None  # of a pair one of the two is there
        if start.file in owners:
            return owners[start.file]
        named = _TOKEN.split(start.ref or "")[-1:]
        return next((o for o in self.owners if o[0] in named), self.owners[0])


_TOKEN = re.compile(r"[:/]")


def _units(
    texts: Sequence[str], raws: Sequence[str], owners: Mapping[str, _Owner]
) -> Iterator[_Unit]:
    """Treatments with their logs; those of which a log may hold starts in common are one unit."""
    in_folder: defaultdict[str, dict[_Owner, None]] = defaultdict(dict)
    of_stem: defaultdict[str, dict[_Owner, None]] = defaultdict(dict)
    for path in raws:
        in_folder[treatments.folder_of(path)][owners[path]] = None
        of_stem[treatments.stem_of(path)][owners[path]] = None
    group: dict[_Owner, _Owner] = {}

    def first(owner: _Owner) -> _Owner:
        while group.setdefault(owner, owner) != owner:
            owner = group[owner]
        return owner

    for path in raws:
        first(owners[path])
    owner_of_log: dict[str, _Owner] = {}
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
    units: dict[_Owner, tuple[list[str], list[str], dict[_Owner, None]]] = {}
    for owner in group:
        units.setdefault(first(owner), ([], [], {}))[2][owner] = None
    for path in texts:
        units[first(owner_of_log[path])][0].append(path)
    for path in raws:
        units[first(owners[path])][1].append(path)
    for texts_of, raws_of, whose in units.values():
        yield _Unit(tuple(texts_of), tuple(raws_of), tuple(whose))


def without_copies(raws: Mapping[str, Reduced]) -> tuple[dict[str, Reduced], list[Finding]]:
    """Raw files that hold the same samples, once; the others are named."""
    same: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for path, raw in raws.items():
        if raw.rows > 2 and raw.energies:
            joules = tuple((e.name, e.start_j, e.joules) for e in raw.energies)
            same[raw.rows, raw.first_s, raw.last_s, joules].append(path)
    copies: dict[str, str] = {}
    for paths in same.values():
        original, *others = sorted(paths, key=lambda p: (_is_backup(p), p.count("/"), len(p)))
        copies |= dict.fromkeys(others, original)
    if not copies:
        return dict(raws), []
    first = next(iter(copies))
    return {p: r for p, r in raws.items() if p not in copies}, [
        copies_found(copies, f"{len(copies)} raw files are copies: they hold the samples of others, "
                     f"such as {first} those of {copies[first]}")
    ]  # fmt: skip


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


def lacks_closing(raw: Reduced) -> bool | None:
    """Whether the last row is not the sample that the meter takes after the command; None: unknown."""
    if raw.interval_s is None or raw.last_delta_s is None or raw.rows <= 2:
        return None
    return raw.last_delta_s >= 0.5 * raw.interval_s


@dataclass(frozen=True)
class _Ends:
    """Whether the logs of each treatment end with a closing sample, as the tool's habit is."""

    without: Mapping[_Owner, Sequence[Reduced]]
    by_owner: Mapping[_Owner, bool]
    usual: bool

    @classmethod
    def of(cls, raws: Iterable[Reduced], owners: Mapping[str, _Owner]) -> _Ends:
        lacking: defaultdict[_Owner, list[Reduced]] = defaultdict(list)
        known: Counter[_Owner] = Counter()
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

    def close(self, owner: _Owner) -> bool:
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
                line=first.rows + 1,
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
                    numbered = logs.lines_of(
                        iter(functools.partial(file.readline, LINE_LIMIT), b"")
                    )
                    mine = logs.parse(path, numbered)
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


def run_of(path: str, mapping: CampaignMapping) -> int | None:
    """The run number in a file's path."""
    if mapping.raw and mapping.raw.run:
        match = re.search(mapping.raw.run, path)
        return int(match.group(1)) if match and match.group(1).isdigit() else None
    return treatments.run_of(path)


def reduce_all(files: Files, context: Context) -> dict[str, Reduced]:
    """Raw files by relative path, reduced."""
    paths = files.of(RAW)
    results = scan(
        paths,
        root=str(files.root),
        limit=context.limit,
        renames=context.mapping.columns,
        progress=lambda n: context.progress(f"{n} of {len(paths)} raw files"),
    )
    return {r.path: r for r in results}


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


def record_of(
    context: Context,
    owner: _Owner,
    start: Start | None,
    raw: Reduced | None,
    digest: str | None = None,
    *,
    closes: bool = True,
) -> Record:
    """One raw file, one start, or both.

    Args:
        context: of the import.
        owner: image and kind.
        start: of a text log.
        raw: a raw file, reduced.
        digest: of the image, where a pull told it.
        closes: whether a log without a closing sample is suspicious.
    """
    (image, kind), mapping = owner, context.mapping
    log = _log_facts(start, image, mapping)
    if _WITHOUT_GPU.search(image):
        log["without_gpu"] = True
    known: dict[str, Any] = {
        "run_id": context.name,
        "host": mapping.host,
        "kind": kind,
        "block": None,
        "position": None,
        "planned_position": None,
        "image": image,
        "digest": digest,
        "attempt": 1,
    }
    inferred = None
    if start is not None:
        inferred = _inferred(start, mapping)
        known |= {
            "device": start.device,
            "images_inferred": inferred,
            "unit": None if inferred is None else "image",
            "units": inferred,
            "steady_s": start.worked_s or None,
        }
    if raw is None:
        assert start is not None  # a pair has one of the two
        status, reason = _without_file(start)
        row = TrialRow(**known, status=status, reason=reason)
        return Record(row, state="failed" if start.panic else "done", log=log)
    package = raw.energy("package")
    domains = _domains(raw)
    counted = [d for d in domains if d.counted]
    joules = sum(d.energy_j for d in counted) if counted and raw.fatal is None else None
    if package is not None:
        log["naive_j"] = package.naive_j
        log["aligned_j"] = package.summary_j if start and start.summary_j else None
    log["naive_total_j"] = _naive_total_j(raw)
    log["constant"] = raw.constant
    problem = _failure(start, raw, joules, closes=closes)
    if problem and start is not None and (line := _failed_line(start, problem)):
        log["failed_line"] = line
    row = TrialRow(
        **known,
        run=run_of(raw.path, mapping),
        status="failed" if problem else "valid",
        reason=problem,
        started_at=None if raw.first_s is None else iso(raw.first_s),
        duration_s=raw.duration_s,
        energy_j=joules,
        energy_scope=scope_of(tuple(d.name for d in counted)),
        energy_source="measured" if joules is not None else None,
        package_j=_sum(counted, "package") if raw.fatal is None else None,
        dram_j=_sum(counted, "dram"),
        gpu_j=_sum(counted, "gpu"),
        samples=raw.rows,
        wraps=sum(e.wraps for e in raw.energies),
        j_per_image=joules / inferred if joules is not None and inferred else None,
        j_per_unit=joules / inferred if joules is not None and inferred else None,
        energy_uncertainty_j=sum(d.uncertainty_j for d in counted) if joules is not None else None,
        raw=raw.path,
    )
    wraps = tuple(
        Note("wrap", f"{e.column} wrapped at {e.span_j:.0f} J", line, e.column)
        for e in raw.energies
        for line in e.wrap_lines
    )
    return Record(
        row,
        domains=domains,
        work=Work(device_actual=start.device) if start else _NO_WORK,
        sampling=Sampling(raw.interval_s, raw.rows, raw.rows, raw.largest_gap_s),
        notes=(*raw.notes, *wraps),
        state="failed" if problem else "done",
        series=raw.series or {},
        log=log,
    )


def _failure(
    start: Start | None, raw: Reduced, joules: float | None, *, closes: bool
) -> str | None:
    """Why a file is not a usable measurement."""
    if raw.fatal is not None:
        return raw.fatal.message
    if joules is None:
        return "no energy can be computed from the file" if raw.energies else NO_ENERGY
    if start is not None and start.panic:
        return f"the meter panicked: {start.panic}"
    if start is not None and start.refusal and not start.complete:
        return start.refusal[1]
    if closes and lacks_closing(raw):
        return (
            f"the file ends early, after {raw.duration_s:.0f} s: its last row is no closing sample"
        )
    cut = next((n for n in raw.notes if n.kind == "partial-row"), None)
    if cut is not None:
        return f"the file ends inside line {cut.line}: the meter was killed"
    if start is not None and start.complete is False:
        done = sum(p.seconds is not None for p in start.passes)
        return f"the workload printed {done} of {max(len(start.sizes), len(start.passes))} passes as done"
    return None


def _failed_line(start: Start, problem: str) -> int | None:
    """The line of the text log that says why a start failed."""
    if start.refusal and start.refusal[1] == problem:
        return start.refusal[0]
    return start.panic_line


def _naive_total_j(raw: Reduced) -> float | None:
    """Joules of all counted domains as somebody computes them who overlooks wraps."""
    values = [e.naive_j if e.cumulative else e.joules for e in raw.energies if is_counted(e.name)]
    told = [v for v in values if v is not None]
    return sum(told) if told else None


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


def _without_file(start: Start) -> tuple[str, str]:
    """Status and reason of a start that only the log knows."""
    at = f"{start.file}:{start.line}"
    if start.panic:
        return "failed", f"{at}: the meter panicked, no raw file: {start.panic}"
    if start.refusal and not start.complete:
        return "failed", f"{at}: {start.refusal[1]}"
    if start.complete is False:
        return "failed", f"{at}: the workload did not finish, no raw file"
    if start.summary_j is not None:
        return "missing", f"{at}: no raw file of this start is left, only its summary line"
    return "missing", f"{at}: neither raw file nor summary line of this start is left"


def _log_facts(start: Start | None, image: str, mapping: CampaignMapping) -> dict[str, Any]:
    if start is None:
        return {}
    cuda = (
        any(mapping.key(c) == mapping.key(image) for c in mapping.cuda_images)
        if mapping.cuda_images is not None
        else bool(_CUDA_NAME.search(image) or any("CUDA" in b for b in start.banners))
    )
    return {
        "file": start.file,
        "line": start.line,
        "last_line": start.last_line,
        "ref": start.ref,
        "pull_lines": start.pull,
        "layers_downloaded": start.layers_downloaded,
        "banners": start.banners,
        "banner_line": start.banner_line,
        "no_driver_line": start.no_driver_line,
        "device": start.device,
        "device_line": start.device_line,
        "cuda_image": cuda,
        "sizes": start.sizes,
        "wording": start.wording,
        "complete": start.complete,
        "worked_s": start.worked_s or None,
        "panic": start.panic,
        "panic_line": start.panic_line,
        "after_panic": start.after_panic,
        "errors": start.errors,
        "summary_j": start.summary_j,
        "summary_line": start.summary_line,
    }


def _inferred(start: Start | None, mapping: CampaignMapping) -> int | None:
    """Inferences done, where the mapping tells how many a pass has."""
    if start is None or not mapping.iterations or not start.passes:
        return None
    done = [p.size for p in start.passes if p.seconds is not None]
    if any(size not in mapping.iterations for size in done):
        return None
    return sum(mapping.iterations[size] for size in done if size is not None) or None


@functools.cache
def is_counted(name: str) -> bool:
    """Whether a domain's joules add to the total."""
    return _COUNTED.fullmatch(name) is not None


def _domains(raw: Reduced) -> tuple[Domain, ...]:
    """Each domain's joules with what the row times leave open."""
    seconds = raw.duration_s
    domains = []
    for energy in raw.energies:
        joules = energy.joules
        if joules is None:
            continue
        if energy.cumulative:
            # Each edge's counter is read up to some ms after its Time.
            doubt = 2 * SAMPLE_S * joules / seconds if seconds else 0.0
        else:
            course = (raw.series or {}).get("GPU_POWER") or {"max": 0.0, "min": 0.0}
            # Each edge lies anywhere in an interval, and a GPU's power may be the mean of some time.
            lag_s = POWER_AVERAGE_S if energy.name.startswith("gpu") else 0.0
            doubt = ((raw.interval_s or 0.0) / 2 + lag_s) * (course["max"] - course["min"])
        # A counter that stands at 0 is a domain that this CPU does not have, not one that used nothing.
        absent = energy.start_j == 0.0 == joules
        counted = is_counted(energy.name) and not absent
        domains.append(
            Domain(
                energy.name, "energibridge", joules, doubt, energy.wraps, (energy.column,), counted
            )
        )
    return tuple(domains)


def _sum(domains: Sequence[Domain], prefix: str) -> float | None:
    mine = [d.energy_j for d in domains if d.name.startswith(prefix)]
    return sum(mine) if mine else None


@functools.cache
def scope_of(names: tuple[str, ...]) -> str | None:
    """``energy_scope`` of domains that were added."""
    kinds = {re.sub(r"\d+$", "", name) for name in names}
    return "+".join(n for n in ("system", "package", "dram", "gpu") if n in kinds) or None


def iso(unix_s: float) -> str | None:
    """``started_at``; None for a time that is no date."""
    if not 0 <= unix_s < LAST_S:
        return None
    return (
        datetime.fromtimestamp(unix_s, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
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
        rows, problems = summary_tables.read(files.root, path)
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


def placed(records: Sequence[Record]) -> list[Record]:
    """Positions in the order of the files' own times."""
    names = ("image", "kind", "run", "raw", "started_at", "position")
    rows: dict[str, list[Any]] = {n: [getattr(r.row, n) for r in records] for n in names}
    number(rows)
    return [
        replace(r, row=replace(r.row, position=position, run=run))
        for r, position, run in zip(records, rows["position"], rows["run"], strict=True)
    ]


def number(rows: dict[str, list[Any]]) -> None:
    """Set positions in the order of the files' own times, and runs where the name has no number."""
    starts, raws = rows["started_at"], rows["raw"]
    rows["position"] = [None] * len(starts)
    timed = sorted((i for i, start in enumerate(starts) if start), key=starts.__getitem__)
    for place, i in enumerate(timed, start=1):
        rows["position"][i] = place
    # A file without a number in its name gets the next free one: an empty run means "known from a log".
    keys = list(zip(rows["image"], rows["kind"], strict=True))
    taken = set(zip(keys, rows["run"], strict=True))
    free: defaultdict[tuple[str, str], Iterator[int]] = defaultdict(itertools.count)
    rows["run"] = list(rows["run"])
    for i, (key, run) in enumerate(zip(keys, rows["run"], strict=True)):
        if raws[i] and run is None:
            rows["run"][i] = next(n for n in free[key] if (key, n) not in taken)


def failed(record: Record, reason: str) -> Record:
    """The record of a run that is no usable measurement."""
    return replace(record, row=replace(record.row, status="failed", reason=reason), state="failed")


def _cut_short(records: Sequence[Record]) -> list[Record]:
    """Files far shorter than their treatment's others, which all take the same time.

    Where durations vary, a short one may be a short answer; where logs end with a closing sample, the
    command ended by itself, which work that always takes the same time does not do early.
    """
    usual: dict[_Owner, float] = {}
    groups: defaultdict[_Owner, list[float]] = defaultdict(list)
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
