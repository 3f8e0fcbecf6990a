"""One attempt's raw files and the agent's report → its :class:`~analysis.records.Record`.

The window is ``command.started … command.ended``, marked by the wrapper inside the meter on the clock
of the meter's ``Time``; durations come from the monotonic clock. The configured meter is the one
that counts. What other meters read of the same domains stands beside it, for comparison. GPUs are
the exception: their own energy counter is better than any sampled power, and counts where it
exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from wattbench.analysis.meters import (
    load_steps,
    output_lines,
    registry,
    requests_log,
    workload_log,
)
from wattbench.analysis.meters.clocks import CLOCK_STEP_S
from wattbench.analysis.meters.curves import Curve
from wattbench.analysis.meters.reading import Edge, Reading
from wattbench.analysis.meters.window import Split, domain_of, split
from wattbench.analysis.meters.workload_log import Span, WorkloadLog
from wattbench.analysis.model.attempt_report import AttemptReport
from wattbench.analysis.model.devices import is_gpu
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.records import (
    Domain,
    Expected,
    ExpectedMeter,
    Note,
    Phase,
    Record,
    Timing,
    Work,
)
from wattbench.analysis.model.trials import WINDOW, TrialRow, per_unit

#: Domains that hold all GPUs.
HOLDS_GPUS = ("wall", "board", "gpu")

#: Rows are stamped to the ms, between the agent's own stamps on the same clock; more is not theirs, s.
FOREIGN_CLOCK_S = 0.01


#: What a failed attempt has none of, in its row and in its phases.
_NO_ENERGY: dict[str, Any] = dict.fromkeys(
    (
        "energy_j", "energy_uncertainty_j", "energy_scope", "energy_source", "package_j", "dram_j",
        "gpu_j", "j_per_image", "startup_j", "steady_j", "steady_j_per_image", "j_per_unit",
        "board_j", "wall_j", "wall_uncertainty_j",
    )
)  # fmt: skip
_NO_POWER: dict[str, Any] = dict.fromkeys(
    ("energy_j", "energy_uncertainty_j", "mean_w", "j_per_image", "j_per_unit")
)

#: State of idle trials whose window is the workload's phase ``idle``.
LOADED = "loaded"
#: The workload's own log, among the raw files.
WORKLOAD_LOG = "workload.jsonl"
#: Lines of a program of the user's with their times.
OUTPUT_LINES = "output.log"


@dataclass(frozen=True)
class RawAttempt:
    """What an attempt left: the agent's report, and the bytes of its raw files by name."""

    report: Mapping[str, object]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Window:
    start_s: float
    end_s: float
    duration_s: float


@dataclass(frozen=True)
class _Energy:
    """What the curves gave: domains, the counted ones' phases and total, and notes."""

    domains: tuple[Domain, ...] = ()
    counted: tuple[Curve, ...] = ()
    parts: tuple[Split, ...] = ()
    notes: tuple[Note, ...] = field(default=())


def evaluate(raw: RawAttempt, *, expected: Expected, plan_row: TrialRow) -> Record:
    """Compute an attempt's record; never raises for what the files hold.

    The row's status is ``failed`` where the attempt did not end well or left no energy, ``invalid``
    where its energy can't be shown to be right, else ``valid``; the checks have the last word.

    Args:
        raw: the attempt's files.
        expected: the plan's side: ``device``, ``passes``, ``gpus``, ``precision``, ``interval_ms``,
            ``meter``.
        plan_row: run, host, kind, block, planned position, image, digest, attempt and ``raw`` of
            the trial.
    """
    report = AttemptReport.of(raw.report)
    window = _window(report)
    log = _work_of(raw.files, expected)
    idle_notes: list[Note] = []
    if loaded := expected.get("idle_state") == LOADED:
        window, idle_notes = _held(window, log, expected)
    kind = str(expected.get("meter") or report.meter_kind or "energibridge")
    marks = (Edge.of(mark.readings) for mark in (report.started, report.ended))
    edges = registry.Edges(tuple(m for m in marks if m is not None), report.before, report.after)
    declared = expected.get("meters") or []
    beside = {str(m["kind"]) for m in declared} | ({report.meter_kind} if declared else set())
    readings, notes = registry.read_all(raw.files, edges, kind, {k for k in beside if k})
    main = readings.get(kind, Reading(kind))
    spans = log.phases(window.start_s, window.end_s) if window and not loaded else ()
    doubt_s = log.clock.doubt_s if log.clock else 0.0
    energy = _Energy()
    if window:
        energy = _energy(readings, kind, window, spans, expected, report, doubt_s)
    timing, clock_notes = _timing(report, window, energy.counted)
    if log.clock:
        timing["load_clock"] = {**vars(log.clock)}
    clock_notes += _foreign_clock(main, energy.counted, report)
    notes = [*notes, *_weighed(readings, energy.counted), *energy.notes, *clock_notes, *log.notes]
    requests, request_notes = _requests(raw.files, expected)
    notes += [*idle_notes, *request_notes]
    phases = _phases(spans, window, energy, log.work) if window else ()
    row = _row(plan_row, report, kind, window, energy, log.work, phases)
    row = per_unit(row, str(expected.get("endpoint") or WINDOW))
    sampling = None
    if window:
        sampling = main.sampling(window.start_s, window.end_s)
        row = replace(row, samples=sampling.in_window)
    status, reason = _status(report, window, energy, notes)
    if status == "failed":  # joules of work that did not take place as planned measure nothing
        row, phases = replace(row, **_NO_ENERGY), tuple(replace(p, **_NO_POWER) for p in phases)
    served = expected.get("workload") == "serve"
    return Record(
        row=replace(
            row,
            status=status,
            reason=reason,
            wraps=sum(c.wraps for c in main.curves),
            idle_state=expected.get("idle_state"),
        ),
        domains=energy.domains,
        phases=phases,
        work=log.work,
        sampling=sampling,
        notes=tuple(notes),
        state=report.state,
        container=report.container,
        edges={"before": report.before, "after": report.after},
        series=_series(readings, energy.counted, window),
        timing=timing,
        rest=report.rest,
        expected=expected,
        meter=report.meter,
        output=report.output,
        steps=load_steps.steps_of(requests, log.loads, phases, expected) if served else (),
    )


def _requests(
    files: Mapping[str, bytes], expected: Expected
) -> tuple[requests_log.Requests | None, list[Note]]:
    """Requests of the load on a server; a file that can't be used makes the attempt invalid."""
    if expected.get("workload") != "serve":
        return None, []
    try:
        found = requests_log.read(files)
    except InputError as error:
        return None, [Note("requests", str(error), fatal=True)]
    if found is None:
        return None, [Note("requests", f"there is no {requests_log.FILE}", fatal=True)]
    return found, []


def _work_of(files: Mapping[str, bytes], expected: Expected) -> WorkloadLog:
    """What the workload reports; of a program of the user's, what its output shows."""
    if OUTPUT_LINES in files or expected.get("reports_itself") is False:
        return output_lines.read(files.get(OUTPUT_LINES, b""), expected)
    log = workload_log.parse(files.get(WORKLOAD_LOG, b""))
    unit = expected.get("unit")
    return replace(log, work=replace(log.work, unit=unit["name"])) if unit else log


def _window(report: AttemptReport) -> _Window | None:
    """The window, None unless both edges were marked in order."""
    start, end = report.started.unix_s, report.ended.unix_s
    if start is None or end is None or end <= start:
        return None
    first, last = report.started.mono_s, report.ended.mono_s
    if first is not None and last is not None and last > first:
        return _Window(start, end, last - first)
    return _Window(start, end, end - start)


def _held(
    window: _Window | None, log: WorkloadLog, expected: Expected
) -> tuple[_Window | None, list[Note]]:
    """The part of an idle trial's window in which the model was loaded, and what speaks against it."""
    span = log.held()
    if window is None or span is None:
        text = "the workload did not report that it held its model loaded (phase idle)"
        return None, [] if window is None else [Note("idle", text, fatal=True)]
    start_s, end_s = max(span.start_s, window.start_s), min(span.end_s, window.end_s)
    wanted, actual = str(expected.get("device")), log.work.device_actual
    notes = []
    if actual is None or is_gpu(actual) != is_gpu(wanted):
        text = f"{wanted} was asked for, the model was loaded on {actual or 'an unknown device'}"
        notes.append(Note("idle", text, fatal=True))
    return _Window(start_s, end_s, end_s - start_s) if end_s > start_s else None, notes


def _given_gpus(
    readings: Mapping[str, Reading], expected: Expected, report: AttemptReport
) -> tuple[set[str], list[Note]]:
    """Domains of the GPUs that the trial was given; the host's others don't count."""
    domains = {c.domain for r in readings.values() for c in r.curves}
    seen = {name for name in domains if name.startswith("gpu")} - set(HOLDS_GPUS)
    planned = expected.get("gpus")
    asked = report.gpus if planned is None else planned
    if asked is None:
        return seen, []
    if not asked:
        return set(), []
    own = {k for k, m in registry.meters().items() if m.only_given and k in readings}
    if given := {c.domain for k in own for c in readings[k].curves}:
        return given, []
    devices = registry.devices({"before": report.before, "after": report.after}, {})
    by_name = {key: d.name for d in devices for key in (d.identity, d.name.removeprefix("gpu"))}
    found = {by_name.get(str(g), f"gpu{g}" if str(g).isdecimal() else "") for g in asked} - {""}
    if len(found) == len(asked):
        return found, []
    if len(seen) == len(asked):
        return seen, []
    text = (
        f"which of {', '.join(sorted(seen)) or 'no GPU columns'} the trial was given is not known"
    )
    return seen, [Note("gpu-unmapped", text, fatal=bool(seen))]


def _choose(
    readings: Mapping[str, Reading], kind: str, gpus: Iterable[str], primary: ExpectedMeter | None
) -> tuple[Curve, ...]:
    """The curves that count: the configured meter's package and DRAM, and the given GPUs.

    A modelled total holds modelled parts only; where the meter reads the whole machine only
    (Apple), that is counted. Where the primary meter has a domain of its own, only that counts of it; one
    that holds the GPUs is not added to them.
    """
    main = readings.get(kind)
    chosen: list[Curve | None] = []
    own = primary.get("domain") if primary is not None else None
    if main is not None and primary is not None and own is not None:
        named = ("board", "system") if own == "board" else (own,)
        mine = [c for c in main.curves if c.meter in (kind, primary["name"]) and c.time_s.size > 1]
        if own == "gpu" and not any(c.domain == own for c in mine):
            return tuple(c for c in mine if c.domain in set(gpus))
        chosen = [next((c for c in mine if c.domain in named), None)]
        if own in HOLDS_GPUS:
            return tuple(c for c in chosen if c is not None)
    elif main is not None:
        chosen = [main.curve("package"), main.curve("dram")]
        if chosen[0] is None:
            chosen.append(main.curve("system") or main.curve("cpu"))
    modelled = _is_modelled(kind)
    for gpu in sorted(gpus):
        of_gpu = (readings[m].curve(gpu) for m in registry.preferred(kind) if m in readings)
        curves = [c for c in of_gpu if c is not None]
        # A counter is better than sampled power; a model has none.
        counters = [] if modelled else [c for c in curves if c.power_w is None]
        chosen += [*counters, *curves][:1]
    return tuple(c for c in chosen if c is not None)


def _is_modelled(kind: str) -> bool:
    known = registry.meters()
    return kind in known and known[kind].modelled


def _energy(
    readings: Mapping[str, Reading],
    kind: str,
    window: _Window,
    spans: Sequence[Span],
    expected: Expected,
    report: AttemptReport,
    doubt_s: float,
) -> _Energy:
    """Every curve cut at the window's and the phases' edges; these may be off by ``doubt_s`` each."""
    gpus, gpu_notes = _given_gpus(readings, expected, report)
    primary = next((m for m in expected.get("meters") or () if m.get("primary")), None)
    counted = _choose(readings, kind, gpus, primary)
    within = any(c.domain in HOLDS_GPUS for c in counted)
    for gpu in () if within else sorted(gpus - {c.domain for c in counted}):
        text = f"{gpu} was given to the trial, no meter read it"
        gpu_notes.append(Note("missing-domain", text, fatal=True))
    bounds = [window.start_s, *(s.end_s for s in spans[:-1]), window.end_s]
    notes: list[Note] = list(gpu_notes)
    domains: list[Domain] = []
    parts: dict[int, Split] = {}
    for reading in readings.values():
        for curve in reading.curves:
            if curve.time_s.size < 2:
                continue
            cut = split(curve, bounds, doubt_s)
            counts = any(curve is c for c in counted)
            notes += [n if counts else replace(n, fatal=False) for n in cut.notes]
            domains.append(replace(domain_of(curve, cut), counted=counts))
            if counts:
                parts[id(curve)] = cut
    return _Energy(tuple(domains), counted, tuple(parts[id(c)] for c in counted), tuple(notes))


def _weighed(readings: Mapping[str, Reading], counted: Sequence[Curve]) -> list[Note]:
    """The readers' notes; none is fatal for a column or a meter that does not count."""
    columns = {source for curve in counted for source in curve.sources}
    meters = {curve.meter for curve in counted}
    notes = []
    for reading in readings.values():
        for note in reading.notes:
            whole_file = note.column in (None, "Time")
            matters = reading.meter in meters if whole_file else note.column in columns
            # With nothing counted at all, what kept the meter silent is the reason.
            notes.append(note if matters or not counted else replace(note, fatal=False))
    return notes


def _timing(
    report: AttemptReport, window: _Window | None, counted: Sequence[Curve]
) -> tuple[Timing, list[Note]]:
    marks = (report.started, report.ended) if window else ()
    inner = [m.unix_s - m.mono_s for m in marks if m.unix_s is not None and m.mono_s is not None]
    offsets = [report.offset_before_s, *inner, report.offset_after_s]
    known = [o for o in offsets if o is not None]
    step = max(known) - min(known) if len(known) > 1 else None
    notes = []
    if step is not None and step > CLOCK_STEP_S:
        # Counters are right at rows whatever the clock does; integrated power is not.
        integrated = [c.domain for c in counted if c.power_w is not None]
        text = f"the wall clock moved by {step:.3f} s against the monotonic clock"
        notes.append(Note("clock-step", text, fatal=bool(integrated)))
    inside = None
    if window and report.calls_unix_s is not None:
        inside = sum(1 for t in report.calls_unix_s if window.start_s < t < window.end_s)
    before, after = report.boot_before, report.boot_after
    timing: Timing = {
        "started_unix_s": window.start_s if window else report.started.unix_s,
        "ended_unix_s": window.end_s if window else report.ended.unix_s,
        "clock_step_s": step,
        "connections_in_window": inside,
        "boot": before,
        "boot_changed": None if before is None or after is None else before != after,
    }
    return timing, notes


def _foreign_clock(main: Reading, counted: Sequence[Curve], report: AttemptReport) -> list[Note]:
    """Rows stamped before or after the meter ran: its ``Time`` can't be laid over the window."""
    if not main.own_clock or not main.time_s.size or not counted:
        return []  # our own samplers read the agent's clock, and go on for a moment longer
    before, after = (Edge.of(edge) for edge in (report.before, report.after))
    first, last = float(main.time_s[0]), float(main.time_s[-1])
    early = before.unix_s - first if before is not None else 0.0
    late = last - after.unix_s if after is not None else 0.0
    off, which = max(
        (early, "first row lies {} s before it began"), (late, "last row lies {} s after it ended")
    )
    if off <= FOREIGN_CLOCK_S:
        return []
    text = f"the meter's {which.format(f'{off:.3f}')}: its clock is not the host's"
    return [Note("clock-step", text, fatal=True)]


def _phases(
    spans: Sequence[Span],
    window: _Window,
    energy: _Energy,
    work: Work,
) -> tuple[Phase, ...]:
    """The window's parts with the counted domains' joules; they sum to the window's."""
    phases = []
    for place, span in enumerate(spans):
        seconds = span.end_s - span.start_s
        joules = uncertainty = None
        if energy.parts:
            joules = float(sum(p.energy_j[place] for p in energy.parts))
            # An edge is off in the same way for all domains: half-widths add up.
            uncertainty = float(sum(p.uncertainty_j[place] for p in energy.parts))
        mine = [r for r in work.results if r.phase == span.name]
        images = sum(r.images for r in mine) or None
        units = sum(r.done for r in mine) or None
        if units is None and span.name == output_lines.STEADY:
            units = work.units
        phases.append(
            Phase(
                name=span.name,
                start_s=span.start_s - window.start_s,
                duration_s=seconds,
                energy_j=joules,
                energy_uncertainty_j=uncertainty,
                mean_w=joules / seconds if joules is not None and seconds > 0 else None,
                images_inferred=images,
                j_per_image=joules / images if joules is not None and images else None,
                units=units,
                j_per_unit=joules / units if joules is not None and units else None,
            )
        )
    return tuple(phases)


def _row(
    plan_row: TrialRow,
    report: AttemptReport,
    kind: str,
    window: _Window | None,
    energy: _Energy,
    work: Work,
    phases: Sequence[Phase],
) -> TrialRow:
    images = sum(r.images for r in work.results if r.phase.partition(":")[0] != "warmup") or None
    row = replace(
        plan_row,
        energy_source="modelled" if _is_modelled(kind) else "measured",
        images_inferred=images,
        unit=work.unit if work.units else None,
        units=work.units,
        rest_s=report.rested_s,
        device=work.device_actual,
    )
    if window is None:
        return row
    started = datetime.fromtimestamp(window.start_s, UTC).isoformat(timespec="milliseconds")
    row = replace(row, started_at=started.replace("+00:00", "Z"), duration_s=window.duration_s)
    steady = [p for p in phases if p.name.startswith("steady")]
    if steady:
        before = [p for p in phases if p.start_s < steady[0].start_s]
        row = replace(
            row,
            startup_s=sum(p.duration_s for p in before),
            steady_s=sum(p.duration_s for p in steady),
            startup_j=_total(before),
            steady_j=_total(steady),
        )
    if not energy.counted:
        return row
    total = sum(p.total_j for p in energy.parts)
    row = _with_outer(row, energy.domains)
    return replace(
        row,
        energy_j=total,
        energy_uncertainty_j=sum(p.total_uncertainty_j for p in energy.parts),
        energy_scope=_scope(energy.counted),
        package_j=_of(energy, "package"),
        dram_j=_of(energy, "dram"),
        gpu_j=_of(energy, "gpu"),
        j_per_image=total / images if images else None,
        steady_j_per_image=row.steady_j / images if images and row.steady_j is not None else None,
    )


def _total(phases: Sequence[Phase]) -> float | None:
    joules = [p.energy_j for p in phases if p.energy_j is not None]
    return float(sum(joules)) if len(joules) == len(phases) else None


def _kind_of(domain: str) -> str:
    return domain.rstrip("0123456789")


def _scope(counted: Sequence[Curve]) -> str:
    """``package+dram+gpu``: each kind of domain once, in that order."""
    return "+".join(dict.fromkeys(_kind_of(c.domain) for c in counted))


def _of(energy: _Energy, kind: str) -> float | None:
    found = [
        part.total_j
        for curve, part in zip(energy.counted, energy.parts, strict=True)
        if _kind_of(curve.domain) == kind
    ]
    return float(sum(found)) if found else None


def _with_outer(row: TrialRow, domains: Sequence[Domain]) -> TrialRow:
    """The row with the whole machine's joules, counted or not."""
    first = {d.name: d for d in reversed(domains)}
    board, wall = first.get("board") or first.get("system"), first.get("wall")
    if board is not None:
        row = replace(row, board_j=board.energy_j)
    if wall is not None:
        row = replace(row, wall_j=wall.energy_j, wall_uncertainty_j=wall.uncertainty_j)
    return row


def _series(
    readings: Mapping[str, Reading], counted: Sequence[Curve], window: _Window | None
) -> dict[str, Mapping[str, float]]:
    """Summaries of gauges, and of the counted domains' power as ``<domain>_w``, over the window."""
    if window is None:
        return {}
    found: dict[str, Mapping[str, float]] = {}
    for reading in readings.values():
        found |= reading.summaries(window.start_s, window.end_s)
    for curve in counted:
        watts = np.diff(curve.energy_j) / np.diff(curve.time_s)
        power = Reading(curve.meter, (), curve.time_s[1:], {f"{curve.domain}_w": watts})
        found |= power.summaries(window.start_s, window.end_s)
    return found


def _status(
    report: AttemptReport, window: _Window | None, energy: _Energy, notes: Sequence[Note]
) -> tuple[str, str | None]:
    """Status and its reason, by the first of these that holds."""
    if report.faults:
        more = f"; {len(report.faults) - 1} more" if len(report.faults) > 1 else ""
        return "failed", f"malformed report: {report.faults[0]}{more}"
    if report.state != "done":
        return "failed", f"{report.state}: {report.message or 'the agent gave no reason'}"
    if report.rc != 0:
        return "failed", f"exit code {report.rc}: {report.message or 'see stderr.log'}"
    if window is None:
        idle = next((n.message for n in notes if n.kind == "idle"), None)
        return "failed", idle or "the window's edges were not marked"
    fatal = next((n.message for n in notes if n.fatal), None)
    if not energy.counted:
        return "failed", f"no energy: {fatal or 'the meter read no domain that counts'}"
    return ("invalid", fatal) if fatal else ("valid", None)
