"""Records of raw EnergiBridge logs, of starts in text logs, and of pairs of both."""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from wattbench.analysis.audit import treatments
from wattbench.analysis.audit.importers import Context
from wattbench.analysis.audit.importers.reduce import Reduced
from wattbench.analysis.audit.logs import Start
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.meters import energibridge
from wattbench.analysis.meters.curves import POWER_AVERAGE_S, SAMPLE_S
from wattbench.analysis.meters.energibridge import LAST_S, NO_ENERGY
from wattbench.analysis.model.records import Domain, LogFacts, Note, Record, Sampling, Work
from wattbench.analysis.model.trials import TrialRow, changed

#: Image and kind.
Owner = tuple[str, str]

#: Domains whose joules add up to a trial's total: all others lie inside these.
_COUNTED = re.compile(r"package|dram|gpu\d+|system")


_NO_WORK = Work()


#: Names of images built for CUDA.
_CUDA_NAME = re.compile(r"cuda|nvcr|nvidia|\bgpu\b|rocm", re.IGNORECASE)


#: Names of treatments in which a GPU has nothing to do.
_WITHOUT_GPU = re.compile(
    r"(?:^|[ _\-/])(?:control|idle|baseline|sleep|noop|empty|nothing|unloaded|cpu"
    r"|(?:no|without)[ _\-]?(?:gpu|load|work|workload|op))(?:[ _\-/]|$)",
    re.IGNORECASE,
)


@functools.cache
def _lacks_gpu(image: str) -> bool:
    """Whether a treatment is one in which a GPU has nothing to do, by its name."""
    return _WITHOUT_GPU.search(image) is not None


def lacks_closing(raw: Reduced) -> bool | None:
    """Whether the last row is not the sample that the meter takes after the command; None: unknown."""
    if raw.interval_s is None or raw.last_delta_s is None or raw.rows <= 2:
        return None
    return raw.last_delta_s >= 0.5 * raw.interval_s


def run_of(path: str, mapping: CampaignMapping) -> int | None:
    """The run number in a file's path."""
    if mapping.raw and mapping.raw.run:
        match = re.search(mapping.raw.run, path)
        return int(match.group(1)) if match and match.group(1).isdigit() else None
    return treatments.run_of(path)


def record_of(
    context: Context,
    owner: Owner,
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
        digest: of the image, where a pull reports it.
        closes: whether a log without a closing sample is suspicious.
    """
    (image, kind), mapping = owner, context.mapping
    log = _log_facts(start, image, mapping)
    if _lacks_gpu(image):
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
        # The number in the name is the first run's; others get free ones.
        run=run_of(raw.path, mapping) if raw.line == 1 else None,
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
        raw=raw.place,
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
        return "no energy can be computed from the file" if raw.energies else _no_energy(raw)
    if start is not None and start.panic:
        return f"the meter panicked: {start.panic}"
    if start is not None and start.refusal and not start.complete:
        return start.refusal[1]
    if closes and lacks_closing(raw):
        return f"the file ends early, after {raw.duration_s:.0f} s: its last row is not a closing sample"
    cut = next((n for n in raw.notes if n.kind == "partial-row"), None)
    if cut is not None:
        return f"the file ends inside line {cut.line}: the meter was killed"
    if start is not None and start.complete is False:
        done = sum(p.seconds is not None for p in start.passes)
        return f"the workload printed {done} of {max(len(start.sizes), len(start.passes))} passes as done"
    return None


def _no_energy(raw: Reduced) -> str:
    """Why a file without usable energy has none: its column has gaps, or there is no such column."""
    left_out = (
        n.message
        for n in reversed(raw.notes)
        if n.kind == "bad-cell" and n.column and energibridge.spec_of(n.column).domain
    )
    return next(left_out, NO_ENERGY)


def _failed_line(start: Start, problem: str) -> int | None:
    """The line of the text log that says why a start failed."""
    if start.refusal and start.refusal[1] == problem:
        return start.refusal[0]
    return start.panic_line


def _naive_total_j(raw: Reduced) -> float | None:
    """Joules of all counted domains without correction of wraps."""
    values = [e.naive_j if e.cumulative else e.joules for e in raw.energies if is_counted(e.name)]
    summed = [v for v in values if v is not None]
    return sum(summed) if summed else None


def _without_file(start: Start) -> tuple[str, str]:
    """Status and reason of a start that is in the log alone."""
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


def _log_facts(start: Start | None, image: str, mapping: CampaignMapping) -> LogFacts:
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
        "ref": start.ref,
        "pull_lines": start.pull,
        "layers_downloaded": start.layers_downloaded,
        "banners": start.banners,
        "banner_lines": start.banner_lines,
        "device": start.device,
        "device_line": start.device_line,
        "cuda_image": cuda,
        "sizes": start.sizes,
        "wording": start.wording,
        "complete": start.complete,
        "worked_s": start.worked_s or None,
        "panic_line": start.panic_line,
        "after_panic": start.after_panic,
        "summary_j": start.summary_j,
        "summary_line": start.summary_line,
    }


def _inferred(start: Start | None, mapping: CampaignMapping) -> int | None:
    """Inferences done, where the mapping has the number per pass."""
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
    """``started_at``; None for a time that is not a date."""
    if not 0 <= unix_s < LAST_S:
        return None
    return (
        datetime.fromtimestamp(unix_s, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def placed(records: Sequence[Record]) -> list[Record]:
    """Positions in the order of the files' own times."""
    names = ("image", "kind", "run", "raw", "started_at", "position")
    rows: dict[str, list[Any]] = {n: [getattr(r.row, n) for r in records] for n in names}
    number(rows)
    return [
        changed(r, row=changed(r.row, position=position, run=run))
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
    """The record of a run that is not a usable measurement."""
    return replace(record, row=replace(record.row, status="failed", reason=reason), state="failed")
