"""Records of trials that other meters than EnergiBridge measured: a row of a table, or a course of power."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wattbench.analysis.audit import treatments
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.importers import Context, Files, Importer
from wattbench.analysis.audit.treatments import Label
from wattbench.analysis.meters.energibridge import LAST_S
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Domain, LogFacts, Record, Sampling
from wattbench.analysis.model.trials import TrialRow
from wattbench.analysis.storage import safe_files
from wattbench.analysis.storage.encodings import as_utf8

FloatArray = npt.NDArray[np.float64]

#: Bytes of one text file that is read.
TEXT_LIMIT = 64 * 1024 * 1024

IMPORTED = "every run that the meter wrote, with its joules over all that it metered"
REPAIRED = "every run without a fault of its own, over the domains that all runs have"

#: Domains whose joules add up to a trial's total.
_COUNTED = ("system", "package", "dram", "gpu")


@dataclass(frozen=True)
class Run:
    """One measured run.

    Attributes:
        file: relative to the campaign.
        line: where it stands in the file.
        label: its treatment.
        run: its number.
        joules: domain → joules.
        duration_s: of the run.
        started_s: Unix seconds.
        uncounted: domains that are shown and not added: they lie inside others, or are a model's.
        source: ``measured`` or ``modelled``.
        sampling: of a course of power.
        series: course summaries, such as ``GPU_USAGE``.
        doubt_j: half-width of the joules, J.
        whole_file: whether the file holds this run only.
        failure: why it is not a usable measurement.
    """

    file: str
    line: int
    label: Label
    run: int | None
    joules: Mapping[str, float]
    duration_s: float | None
    started_s: float | None = None
    uncounted: Mapping[str, float] = field(default_factory=dict)
    source: str = "measured"
    sampling: Sampling | None = None
    series: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    doubt_j: float | None = None
    whole_file: bool = False
    failure: str | None = None


def text_of(root: Path, path: str) -> str:
    """A text file.

    Raises:
        OSError: it can't be read.
        UnsafeFileError: it is over :data:`TEXT_LIMIT`, or is not a regular file of the folder.
    """
    data = safe_files.read_inside(root, path, limit=TEXT_LIMIT)
    return as_utf8(data).decode("utf-8-sig", "replace")


def texts(files: Files, role: str, findings: list[Finding]) -> Iterator[tuple[str, str]]:
    """Path and text of each file of a role; one that can't be read becomes a finding."""
    for path in files.of(role):
        try:
            yield path, text_of(files.root, path)
        except (OSError, safe_files.UnsafeFileError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            findings.append(unread(path, f"can't be read: {why}", 1))


def unread(path: str, message: str, line: int) -> Finding:
    """The finding of a file, or a line, that can't be used."""
    return finding(
        "file-unread", Verdict.FOUND, "campaign", f"{path}: {message}", file=path, line=line
    )


def unread_lines(path: str, lines: Sequence[int], what: str) -> list[Finding]:
    """One finding of all lines of a file that can't be used; none of no line.

    Args:
        path: the file.
        lines: of the file.
        what: why, after ``line 7: ``.
    """
    if not lines:
        return []
    more = f" and {len(lines) - 1} more, up to {lines[-1]}" if len(lines) > 1 else ""
    return [
        finding(
            "file-unread",
            Verdict.FOUND,
            "campaign",
            f"{path}: line {lines[0]}{more}: {what}",
            file=path,
            line=lines[0],
            lines=list(lines[:1000]),
        )
    ]


def labels_of(
    files: Files, role: str, context: Context
) -> tuple[dict[str, Label], tuple[str, ...]]:
    """The treatment of each file of a role by its path, and what was inferred."""
    return treatments.owners(files.of(role), files.root, context.mapping)


def number(cell: object) -> float | None:
    """A cell's finite number, with or without a unit after it; None where it has none."""
    try:
        value = float(str(cell).split()[0]) if str(cell).strip() else None
    except ValueError:
        return None
    return value if value is not None and np.isfinite(value) else None


def unix_s(text: str, formats: Sequence[str]) -> float | None:
    """Unix seconds of a date in one of some formats, taken for UTC where it names no zone."""
    for form in formats:
        try:
            moment = datetime.strptime(text.strip(), form)  # noqa: DTZ007 - the zone is set below
        except ValueError:
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def integrate(time_s: FloatArray, watts: FloatArray) -> float:
    """Joules of a course of power, by trapezoids."""
    return float(np.sum((watts[1:] + watts[:-1]) / 2 * np.diff(time_s)))


def sampled(time_s: FloatArray) -> Sampling:
    """How densely a course was sampled."""
    steps = np.diff(time_s)
    usual = float(np.median(steps)) if steps.size else None
    longest = float(steps.max()) if steps.size else None
    return Sampling(usual, time_s.size, time_s.size, longest)


def course(values: FloatArray) -> dict[str, float]:
    """Summary of a gauge over a run."""
    return {
        "mean": float(values.mean()), "min": float(values.min()), "max": float(values.max()),
        "first": float(values[0]), "last": float(values[-1]),
    }  # fmt: skip


@dataclass
class Course:
    """Power of a run's domains over time, as it is read line by line.

    Attributes:
        watts: domain → (Unix seconds, W) of each sample.
        usage: GPU → its utilisations, %.
        failure: why it gives no joules.
    """

    watts: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    usage: dict[str, list[float]] = field(default_factory=dict)
    failure: str | None = None

    def add(self, domain: str, time_s: float, watts: float) -> None:
        """Add a sample."""
        self.watts.setdefault(domain, []).append((time_s, watts))

    def run(
        self,
        path: str,
        label: Label,
        number_of: int | None,
        interval_of: Callable[[FloatArray], FloatArray] | None = None,
    ) -> Run:
        """The run of a file of samples: trapezoids between the first and the last.

        Args:
            path: the file.
            label: its treatment.
            number_of: its run number.
            interval_of: lengths of the intervals that the samples are means of, s, where they are
                no momentary values.
        """
        joules: dict[str, float] = {}
        series: dict[str, Mapping[str, float]] = {}
        doubt_j, first_s, last_s, sampling = 0.0, np.inf, -np.inf, None
        for domain, samples in self.watts.items():
            table = np.array(sorted(samples))
            time_s, watts = table[:, 0], table[:, 1]
            if interval_of is not None:
                lengths = interval_of(time_s)
                joules[domain] = float(np.sum(watts * lengths))
                first_s = min(first_s, float(time_s[0] - lengths[0]))
                doubt_j += float(lengths[0] * np.ptp(watts)) / 2
            elif len(table) > 1:
                joules[domain] = integrate(time_s, watts)
                first_s = min(first_s, float(time_s[0]))
                doubt_j += float(np.median(np.diff(time_s)) * np.ptp(watts)) / 2
            last_s = max(last_s, float(time_s[-1]))
            sampling = sampling or sampled(time_s)
            if domain.startswith("gpu"):
                series[f"{domain}_power"] = course(watts)
        for gpu, values in self.usage.items():
            series[f"{gpu}_usage"] = course(np.array(values))
        why = self.failure or "fewer than two samples of power"
        return Run(
            path, 1, label, number_of, joules, last_s - first_s if joules else None,
            float(first_s) if joules else None, sampling=sampling, series=series, doubt_j=doubt_j,
            whole_file=True, failure=None if joules else f"{path}: {why}",
        )  # fmt: skip


def campaign(
    importer: Importer,
    context: Context,
    runs: Iterable[Run],
    findings: Sequence[Finding],
    said: Sequence[str] = (),
) -> Campaign:
    """A campaign of measured runs."""
    records = tuple(_placed([_record(importer, context, run) for run in runs]))
    return Campaign(
        name=context.name,
        layout=importer.layout,
        records=records,
        summaries={
            r.subject: (r.row.energy_j, r.row.duration_s)
            for r in records
            if r.row.status == "valid"
        },
        findings=tuple(findings),
        inferred=tuple(said),
        imported_rule=IMPORTED,
        repaired_rule=REPAIRED,
    )


def _record(importer: Importer, context: Context, run: Run) -> Record:
    def domain(name: str, joules: float, counted: bool) -> Domain:
        share = joules / total if total and counted else 0.0
        doubt = (run.doubt_j or 0.0) * share
        return Domain(name, importer.layout, joules, doubt, sources=(run.file,), counted=counted)

    total = sum(run.joules.values())
    domains = [domain(n, j, True) for n, j in sorted(run.joules.items())]
    domains += [domain(n, j, False) for n, j in sorted(run.uncounted.items())]
    kinds = {d.name.rstrip("0123456789") for d in domains if d.counted}
    failure = run.failure
    if failure is None and total <= 0:
        failure = (
            f"{run.file}:{run.line}: no joules" if not run.joules else f"its energy is {total:g} J"
        )
    row = TrialRow(
        run_id=context.name,
        host=context.mapping.host,
        kind=run.label.kind,
        block=None,
        position=None,
        planned_position=None,
        image=run.label.image,
        run=run.run,
        attempt=1,
        status="failed" if failure else "valid",
        reason=failure,
        started_at=_iso(run.started_s),
        duration_s=run.duration_s,
        energy_j=total if run.joules else None,
        energy_scope="+".join(n for n in _COUNTED if n in kinds) or None,
        energy_source=run.source if run.joules else None,
        package_j=_sum(run.joules, "package"),
        dram_j=_sum(run.joules, "dram"),
        gpu_j=_sum(run.joules, "gpu"),
        samples=run.sampling.rows if run.sampling else None,
        energy_uncertainty_j=run.doubt_j,
        raw=run.file if run.whole_file else None,
    )
    log: LogFacts = {} if run.whole_file else {"file": run.file, "line": run.line}
    return Record(
        row,
        domains=tuple(domains),
        sampling=run.sampling,
        state="failed" if failure else "done",
        series=run.series,
        log=log,
    )


def _sum(joules: Mapping[str, float], prefix: str) -> float | None:
    mine = [j for name, j in joules.items() if name.startswith(prefix)]
    return sum(mine) if mine else None


def _iso(started_s: float | None) -> str | None:
    if started_s is None or not 0 <= started_s < LAST_S:
        return None
    text = datetime.fromtimestamp(started_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _placed(records: Sequence[Record]) -> Iterator[Record]:
    """Positions in order of time, and numbers where a run has none."""
    timed = sorted(
        (i for i, r in enumerate(records) if r.row.started_at),
        key=lambda i: records[i].row.started_at or "",
    )
    position = {i: place for place, i in enumerate(timed, start=1)}
    counters: dict[tuple[str, str], itertools.count[int]] = {}
    for i, record in enumerate(records):
        row = record.row
        run = row.run
        if run is None:
            run = next(counters.setdefault((row.image, row.kind), itertools.count()))
        yield replace(record, row=replace(row, run=run, position=position.get(i)))


def of_courses(
    importer: Importer,
    role: str,
    files: Files,
    context: Context,
    read: Callable[[str], tuple[Course, list[int]]],
    bad_line: str,
) -> Campaign:
    """A campaign with one run per file, whose treatment its path gives.

    Args:
        importer: the importer of the files.
        role: role of the files.
        files: the campaign's files.
        context: name, mapping and limits.
        read: text of a file → its course and the lines that are not readings.
        bad_line: what such a line is, after ``line 7: ``.
    """
    findings: list[Finding] = []
    labels, said = labels_of(files, role, context)
    runs = []
    for path, text in texts(files, role, findings):
        course, bad = read(text)
        findings += unread_lines(path, bad, bad_line)
        runs.append(course.run(path, labels[path], treatments.run_of(path)))
    return campaign(importer, context, runs, findings, said)
