"""Importer of folders of raw EnergiBridge logs: one folder an image, text logs and tables beside them.

``IMAGE/results/…_RUN.csv`` or ``IMAGE/…_RUN.csv``; the image's name comes from the folder, ``_idle`` at its
end makes an idle run of it, the run number from the file.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from wattbench.analysis.audit import logs
from wattbench.analysis.audit.campaign import Campaign, DerivedRow
from wattbench.analysis.audit.discover import Found
from wattbench.analysis.audit.importers import summary_tables
from wattbench.analysis.audit.importers.log_matching import pair
from wattbench.analysis.audit.importers.reduce import Reduced, scan
from wattbench.analysis.audit.logs import LINE_LIMIT, Start
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.meters.curves import POWER_AVERAGE_S, SAMPLE_S
from wattbench.analysis.meters.energibridge import LAST_S, NO_ENERGY
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Domain, Note, Record, Sampling, Work
from wattbench.analysis.model.trials import TrialRow

#: The run's number in a file's name, where no mapping tells.
_RUN = re.compile(r"(\d+)(?:\.csv)?(?:\.gz)?$")

#: Domains whose joules add up to a trial's total: all others lie inside these.
_COUNTED = re.compile(r"package|dram|gpu\d+|system")

_NO_WORK = Work()

#: Names of images built for CUDA.
_CUDA_NAME = re.compile(r"cuda|nvcr|nvidia|\bgpu\b|rocm", re.IGNORECASE)

#: A log is read up to this size; a 10 GB one is named, not read.
_LOG_LIMIT = 512 * 1024 * 1024

#: An idle or workload file shorter than this share of its group's median ended early.
_SHORT = 0.8

IMPORTED = (
    "every start with a summary line, with that line's joules (CPU package only, last interval left "
    "out, wraps not corrected) and seconds"
)
IMPORTED_WITHOUT_LOGS = (
    "there are no logs: every raw file, last minus first value of the CPU package's counter where "
    "that is positive, wraps not corrected"
)
REPAIRED = (
    "every raw file without a fault of its own, CPU package from the first row to the last, wraps corrected, "
    "seconds from the first row to the last"
)


def read(
    root: Path,
    name: str,
    found: Found,
    mapping: CampaignMapping,
    progress: Callable[[str], None],
    limit: int,
) -> Campaign:
    """Import a folder.

    Args:
        root: the campaign.
        name: its name in ``run_id``.
        found: its files.
        mapping: the user's.
        progress: is told in words how far it is.
        limit: bytes of a raw file beyond which it is not read.
    """
    findings: list[Finding] = []
    groups = groups_of(root, found, mapping)
    raws = reduce_all(root, found.raw, progress, limit, mapping)
    records: list[Record] = []
    summaries: dict[str, tuple[float | None, float | None]] = {}
    sources: dict[tuple[str, str], list[summary_tables.Source]] = {}
    for (image, kind), folder in groups.items():
        starts, problems = starts_of(root, [p for p in found.logs if _belongs(p, folder)])
        findings += problems
        mine = [raws[p] for p in folder["raw"]]
        sources.setdefault((key_of(image), kind), []).extend(sources_of(starts, mine))
        digest = None
        for start, raw in pair(starts, mine):
            digest = (start.digest if start else None) or digest
            record = record_of(name, image, kind, start, raw, mapping, digest)
            records.append(record)
            if start is not None and start.summary_j is not None:
                summaries[record.subject] = (start.summary_j, start.summary_s)
        summaries |= _measurements(root, found, folder, records, findings)
    records = _cut_short(placed(records))
    imported = IMPORTED
    if not found.logs and not summaries:
        imported = IMPORTED_WITHOUT_LOGS
        summaries = {
            r.subject: (r.log["naive_j"], r.row.duration_s)
            for r in records
            if (r.log.get("naive_j") or 0) > 0
        }
    rows: list[DerivedRow] = []
    for path in found.derived:
        more, problems = summary_tables.read(root, path, mapping.derived)
        rows += more
        findings += problems
    findings += summary_tables.trace(rows, sources, whole=bool(found.raw or found.logs))
    if not found.raw and not found.logs:
        records = [_of_derived(name, row, mapping) for row in rows]
    return Campaign(
        name=name,
        layout="study" if found.raw or found.logs else "derived",
        records=tuple(records),
        derived=tuple(rows),
        summaries=summaries,
        findings=tuple(findings),
        imported_rule=imported,
        repaired_rule=REPAIRED,
    )


def _of_derived(name: str, row: DerivedRow, mapping: CampaignMapping) -> Record:
    """A published row that is all there is of a run: shown, and not taken for a measurement."""
    return Record(
        TrialRow(
            run_id=name,
            host=mapping.host,
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


def groups_of(
    root: Path, found: Found, mapping: CampaignMapping
) -> dict[tuple[str, str], dict[str, Any]]:
    """(image, kind) → its folders and raw files, in order of names."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    known: dict[str, dict[str, Any]] = {}
    others = map(str, (*found.logs, *found.measurements))
    for path, is_raw in (
        *zip(found.raw, itertools.repeat(True)),
        *zip(others, itertools.repeat(False)),
    ):
        # A folder's files are of one image, unless the mapping looks at their names.
        where = path if mapping.raw else path.rpartition("/")[0]
        if where not in known:
            folder = _folder_of(PurePosixPath(path))
            owner = _image_of(root, path, folder, mapping)
            known[where] = groups.setdefault(owner, {"folders": set(), "raw": []})
            known[where]["folders"].add(folder)
        if is_raw:
            known[where]["raw"].append(path)
    return groups


def _image_of(
    root: Path, path: str, folder: PurePosixPath, mapping: CampaignMapping
) -> tuple[str, str]:
    label = (
        folder.name
        or (root.resolve().parent if root.resolve().name == "results" else root.resolve()).name
    )
    idle = label.endswith("_idle")
    if mapping.raw and mapping.raw.image and (match := re.search(mapping.raw.image, path)):
        label = match.group(1)
    if mapping.raw and mapping.raw.idle:
        idle = re.search(mapping.raw.idle, path) is not None
    image = label.removesuffix("_idle")
    return mapping.images.get(image, image), "idle" if idle else "workload"


def _belongs(path: PurePosixPath, group: Mapping[str, Any]) -> bool:
    return _folder_of(path) in group["folders"]


def _folder_of(path: PurePosixPath) -> PurePosixPath:
    """The folder that is named after a file's image."""
    return path.parent.parent if path.parent.name == "results" else path.parent


def run_of(path: str, mapping: CampaignMapping) -> int | None:
    """The run number in a file's name."""
    named = mapping.raw and mapping.raw.run
    match = re.search(named, path) if named else _RUN.search(path)
    return int(match.group(1)) if match and match.group(1).isdigit() else None


def reduce_all(
    root: Path,
    paths: Sequence[str],
    progress: Callable[[str], None],
    limit: int,
    mapping: CampaignMapping,
) -> dict[str, Reduced]:
    """Raw files by relative path, reduced."""
    total = len(paths)
    results = scan(
        paths,
        root=str(root),
        limit=limit,
        renames=mapping.columns,
        progress=lambda n: progress(f"{n} of {total} raw files"),
    )
    return {r.path: r for r in results}


def starts_of(root: Path, paths: Sequence[PurePosixPath]) -> tuple[list[Start], list[Finding]]:
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
                    mine = logs.parse(str(path), numbered)
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
                    file=str(path),
                    line=1,
                )
            )
    return starts, findings


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
                yield summary_tables.Source(float(joules or 0.0), None, raw.path, None)


def record_of(
    name: str,
    image: str,
    kind: str,
    start: Start | None,
    raw: Reduced | None,
    mapping: CampaignMapping,
    digest: str | None,
) -> Record:
    """One raw file, one start, or both."""
    log = _log_facts(start, image, mapping)
    known: dict[str, Any] = {
        "run_id": name,
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
    log["constant"] = raw.constant
    problem = _failure(start, raw, joules)
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


def _failure(start: Start | None, raw: Reduced, joules: float | None) -> str | None:
    """Why a file is no usable measurement."""
    if raw.fatal is not None:
        return raw.fatal.message
    if joules is None:
        return "no energy can be computed from the file" if raw.energies else NO_ENERGY
    if start is not None and start.panic:
        return f"the meter panicked: {start.panic}"
    interval = raw.interval_s
    if (
        interval
        and raw.last_delta_s is not None
        and raw.rows > 2
        and raw.last_delta_s >= 0.5 * interval
    ):
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


def _without_file(start: Start) -> tuple[str, str]:
    """Status and reason of a start that only the log knows."""
    at = f"{start.file}:{start.line}"
    if start.panic:
        return "failed", f"{at}: the meter panicked, no raw file: {start.panic}"
    if start.errors and not start.passes:
        return "failed", f"{at}: {start.errors[0][1]}"
    if start.complete is False:
        return "failed", f"{at}: the workload did not finish, no raw file"
    if start.summary_j is not None:
        return "missing", f"{at}: no raw file of this start is left, only its summary line"
    return "missing", f"{at}: neither raw file nor summary line of this start is left"


def _log_facts(start: Start | None, image: str, mapping: CampaignMapping) -> dict[str, Any]:
    if start is None:
        return {}
    cuda = (
        any(key_of(c) == key_of(image) for c in mapping.cuda_images)
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
    root: Path,
    found: Found,
    folder: Mapping[str, Any],
    records: Sequence[Record],
    findings: list[Finding],
) -> dict[str, tuple[float | None, float | None]]:
    """Joules of ``energy_measurements_*.csv`` for runs that no log line covers."""
    summaries: dict[str, tuple[float | None, float | None]] = {}
    logged = any(_belongs(p, folder) for p in found.logs)
    for path in found.measurements:
        if not _belongs(path, folder):
            continue
        rows, problems = summary_tables.read(root, path)
        # A header alone is what the study's own script left behind: nothing to import.
        findings += [p for p in problems if "header and no rows" not in p.message]
        by_run = {
            r.row.run: r.subject
            for r in records
            if r.row.raw and _belongs(PurePosixPath(r.row.raw), folder)
        }
        for row in rows:
            if row.run in by_run and not logged:
                summaries[by_run[row.run]] = (row.energy_j, row.duration_s)
        lone = [row for row in rows if row.run not in by_run]
        if lone:
            findings.append(
                finding(
                    "file-unread",
                    Verdict.FOUND,
                    "campaign",
                    f"{path}: {len(lone)} of {len(rows)} rows are of runs without a raw file",
                    file=str(path),
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


def usual_durations(
    told: Iterable[tuple[tuple[str, str], float | None]],
) -> dict[tuple[str, str], float]:
    """The median duration of each image and kind of which there are enough, s."""
    groups: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for key, seconds in told:
        if seconds:
            groups[key].append(seconds)
    return {k: sorted(values)[len(values) // 2] for k, values in groups.items() if len(values) > 2}


def ended_early(seconds: float | None, usual: float | None) -> str | None:
    """What is said of a run far shorter than the others of its group."""
    if seconds is None or usual is None or seconds >= _SHORT * usual:
        return None
    return f"{seconds:.0f} s, the others take {usual:.0f} s: it ended early"


def _cut_short(records: Sequence[Record]) -> list[Record]:
    """Files far shorter than their group, with nothing that shows that the work was done."""
    usual = usual_durations(((r.row.image, r.row.kind), r.row.duration_s) for r in records)
    out = []
    for r in records:
        reason = ended_early(r.row.duration_s, usual.get((r.row.image, r.row.kind)))
        judged = r.row.status == "valid" and not r.log.get("complete")
        out.append(failed(r, reason) if judged and reason else r)
    return out
