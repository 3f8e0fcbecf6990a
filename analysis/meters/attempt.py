"""One attempt's raw files and the agent's report → its :class:`~analysis.records.Record`.

The window is ``command.started … command.ended``, told by the wrapper inside the meter on the clock
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

from wattbench.analysis.meters import output_lines, workload_log
from wattbench.analysis.meters.curves import Curve
from wattbench.analysis.meters.nvml import nvml_reading
from wattbench.analysis.meters.rapl import powercap_reading
from wattbench.analysis.meters.reading import Edge, Reading, energibridge_reading
from wattbench.analysis.meters.window import Split, domain_of, split
from wattbench.analysis.meters.workload_log import Span, WorkloadLog
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.records import Domain, Note, Phase, Record, Work
from wattbench.analysis.model.trials import TrialRow

#: A change of wall clock against monotonic clock above this is a step, not slewing, s.
CLOCK_STEP_S = 0.1

#: Rows are stamped to the ms, between the agent's own stamps on the same clock; more is not theirs, s.
FOREIGN_CLOCK_S = 0.01


@dataclass(frozen=True)
class RawAttempt:
    """The bytes of one attempt; None or empty: there is no such file."""

    report: Mapping[str, Any]
    energibridge_csv: bytes | None = None
    powercap_csv: bytes | None = None
    nvml_csv: bytes | None = None
    workload_jsonl: bytes | None = None
    output_log: bytes | None = None


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


def evaluate(raw: RawAttempt, *, expected: Mapping[str, Any], plan_row: TrialRow) -> Record:
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
    report = raw.report
    command = _mapping(report.get("command"))
    window = _window(command)
    log = _work_of(raw, expected)
    kind = str(expected.get("meter") or _mapping(_mapping(report.get("spec")).get("meter")).get("kind")
               or "energibridge")  # fmt: skip
    readings, notes = _readings(raw, kind)
    main = readings.get(kind, Reading(kind))
    spans = log.phases(window.start_s, window.end_s) if window else ()
    energy = _energy(readings, kind, window, spans, expected, report) if window else _Energy()
    timing, clock_notes = _timing(report, command, window, energy.counted)
    clock_notes += _foreign_clock(main, energy.counted, report)
    notes = [*notes, *_weighed(readings, energy.counted), *energy.notes, *clock_notes, *log.notes]
    phases = _phases(spans, window, energy, log.work) if window else ()
    row = _row(plan_row, report, kind, window, energy, log.work, phases)
    sampling = None
    if window:
        sampling = main.sampling(window.start_s, window.end_s)
        row = replace(row, samples=sampling.in_window)
    status, reason = _status(report, command, window, energy, notes)
    return Record(
        row=replace(row, status=status, reason=reason, wraps=sum(c.wraps for c in main.curves)),
        domains=energy.domains,
        phases=phases,
        work=log.work,
        sampling=sampling,
        notes=tuple(notes),
        state=str(report.get("state") or "lost"),
        container=_mapping(report.get("container")) or None,
        edges=_mapping(report.get("edges")),
        series=_series(readings, energy.counted, window),
        timing=timing,
        rest=_mapping(report.get("rest")),
        expected=dict(expected),
        meter=_mapping(report.get("meter")),
    )


def _work_of(raw: RawAttempt, expected: Mapping[str, Any]) -> WorkloadLog:
    """What the workload reports; of a program of the user's, what its output shows."""
    if raw.output_log is not None or expected.get("reports_itself") is False:
        return output_lines.read(raw.output_log or b"", expected)
    log = workload_log.parse(raw.workload_jsonl or b"")
    unit = _mapping(expected.get("unit")).get("name")
    return log if unit is None else replace(log, work=replace(log.work, unit=str(unit)))


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if np.isfinite(value) else None


def _window(command: Mapping[str, Any]) -> _Window | None:
    """The window, None unless both edges were marked in order."""
    started, ended = _mapping(command.get("started")), _mapping(command.get("ended"))
    start, end = _number(started.get("unix_s")), _number(ended.get("unix_s"))
    if start is None or end is None or end <= start:
        return None
    first, last = _number(started.get("mono_s")), _number(ended.get("mono_s"))
    known = first is not None and last is not None and last > first
    duration = last - first if known and last is not None and first is not None else end - start
    return _Window(start, end, duration)


def _readings(raw: RawAttempt, kind: str) -> tuple[dict[str, Reading], list[Note]]:
    """Every meter's reading by its name, of the files that are there."""
    edges = _mapping(raw.report.get("edges"))
    command = _mapping(raw.report.get("command"))
    marks = [
        e
        for e in (Edge.of(_mapping(command.get(k))) for k in ("started", "ended"))
        if e is not None
    ]
    zones = _mapping(_mapping(edges.get("after")).get("powercap")) | _mapping(
        _mapping(edges.get("before")).get("powercap")
    )
    name = kind if kind in ("energibridge", "modelled") else "energibridge"
    readings: dict[str, Reading] = {}
    notes: list[Note] = []
    if raw.energibridge_csv or kind == name:
        try:
            readings[name] = energibridge_reading(raw.energibridge_csv or b"", name)
        except InputError as error:
            notes.append(Note("no-energy", str(error), fatal=kind == name))
    if raw.powercap_csv or any(m.powercap_uj for m in marks):
        readings["powercap"] = powercap_reading(raw.powercap_csv or b"", zones, marks)
    if raw.nvml_csv or any(m.nvml_mj for m in marks):
        readings["nvml"] = nvml_reading(raw.nvml_csv or b"", marks)
    return readings, notes


def _given_gpus(
    readings: Mapping[str, Reading], expected: Mapping[str, Any], report: Mapping[str, Any]
) -> tuple[set[str], list[Note]]:
    """Domains of the GPUs that the trial was given; the host's others don't count."""
    seen = {c.domain for r in readings.values() for c in r.curves if c.domain.startswith("gpu")}
    asked = expected.get("gpus")
    if asked is None:
        asked = _mapping(report.get("spec")).get("gpus")
    if asked is None:
        return seen, []
    if not asked:
        return set(), []
    if "nvml" in readings and readings["nvml"].curves:
        return {c.domain for c in readings["nvml"].curves}, []
    listed = _mapping(_mapping(report.get("edges")).get("before")).get("nvml")
    by_name = {
        str(gpu.get(key)): f"gpu{gpu.get('index')}"
        for gpu in (listed if isinstance(listed, list) else [])
        if isinstance(gpu, Mapping)
        for key in ("uuid", "index")
    }
    found = {by_name.get(str(g), f"gpu{g}" if str(g).isdecimal() else "") for g in asked} - {""}
    if len(found) == len(asked):
        return found, []
    if len(seen) == len(asked):
        return seen, []
    text = (
        f"which of {', '.join(sorted(seen)) or 'no GPU columns'} the trial was given is not known"
    )
    return seen, [Note("gpu-unmapped", text, fatal=bool(seen))]


def _choose(readings: Mapping[str, Reading], kind: str, gpus: Iterable[str]) -> tuple[Curve, ...]:
    """The curves that count: the configured meter's package and DRAM, and the given GPUs.

    A modelled total holds modelled parts only; where the meter knows the whole machine only
    (Apple), that is counted.
    """
    main = readings.get(kind)
    chosen: list[Curve | None] = []
    if main is not None:
        chosen = [main.curve("package"), main.curve("dram")]
        if chosen[0] is None:
            chosen.append(main.curve("system") or main.curve("cpu"))
    order = [kind, "nvml", "energibridge"] if kind == "modelled" else ["nvml", kind, "energibridge"]
    for gpu in sorted(gpus):
        curves = [c for m in order if m in readings and (c := readings[m].curve(gpu)) is not None]
        counters = [c for c in curves if c.power_w is None]
        if kind == "modelled":
            counters = []
        chosen += [*counters, *curves][:1]
    return tuple(c for c in chosen if c is not None)


def _energy(
    readings: Mapping[str, Reading],
    kind: str,
    window: _Window,
    spans: Sequence[Span],
    expected: Mapping[str, Any],
    report: Mapping[str, Any],
) -> _Energy:
    """Every curve cut at the window's and the phases' edges."""
    gpus, gpu_notes = _given_gpus(readings, expected, report)
    counted = _choose(readings, kind, gpus)
    for gpu in sorted(gpus - {c.domain for c in counted}):
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
            cut = split(curve, bounds)
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
    report: Mapping[str, Any],
    command: Mapping[str, Any],
    window: _Window | None,
    counted: Sequence[Curve],
) -> tuple[dict[str, Any], list[Note]]:
    started, ended = _mapping(command.get("started")), _mapping(command.get("ended"))
    clock, boot = _mapping(report.get("clock")), _mapping(report.get("boot"))
    offsets = [_number(clock.get(f"unix_minus_mono_{k}")) for k in ("before", "after")]
    if window:
        offsets = [
            *offsets[:1],
            *(
                unix - mono
                for mark in (started, ended)
                if (unix := _number(mark.get("unix_s"))) is not None
                and (mono := _number(mark.get("mono_s"))) is not None
            ),
            *offsets[1:],
        ]
    known = [o for o in offsets if o is not None]
    step = max(known) - min(known) if len(known) > 1 else None
    notes = []
    if step is not None and step > CLOCK_STEP_S:
        # Counters are right at rows whatever the clock does; integrated power is not.
        integrated = [c.domain for c in counted if c.power_w is not None]
        text = f"the wall clock moved by {step:.3f} s against the monotonic clock"
        notes.append(Note("clock-step", text, fatal=bool(integrated)))
    calls = report.get("connections")
    times = [
        _number(call.get("unix_s"))
        for call in (calls if isinstance(calls, list) else [])
        if isinstance(call, Mapping)
    ]
    inside = None
    if window and isinstance(calls, list):
        inside = sum(1 for t in times if t is not None and window.start_s < t < window.end_s)
    timing = {
        "started_unix_s": window.start_s if window else _number(started.get("unix_s")),
        "ended_unix_s": window.end_s if window else _number(ended.get("unix_s")),
        "clock_step_s": step,
        "connections_in_window": inside,
        "boot_changed": boot["before"] != boot["after"]
        if boot.get("before") is not None and boot.get("after") is not None
        else None,
    }
    return timing, notes


def _foreign_clock(
    main: Reading, counted: Sequence[Curve], report: Mapping[str, Any]
) -> list[Note]:
    """Rows stamped before or after the meter ran: its ``Time`` can't be laid over the window."""
    if main.meter not in ("energibridge", "modelled") or not main.time_s.size or not counted:
        return []  # our own samplers read the agent's clock, and go on for a moment longer
    edges = _mapping(report.get("edges"))
    before, after = (_number(_mapping(edges.get(k)).get("unix_s")) for k in ("before", "after"))
    first, last = float(main.time_s[0]), float(main.time_s[-1])
    early = before - first if before is not None else 0.0
    late = last - after if after is not None else 0.0
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
    report: Mapping[str, Any],
    kind: str,
    window: _Window | None,
    energy: _Energy,
    work: Work,
    phases: Sequence[Phase],
) -> TrialRow:
    images = sum(r.images for r in work.results if r.phase.partition(":")[0] != "warmup") or None
    row = replace(
        plan_row,
        energy_source="modelled" if kind == "modelled" else "measured",
        images_inferred=images,
        unit=work.unit if work.units else None,
        units=work.units,
        rest_s=_number(_mapping(report.get("rest")).get("rested_s")),
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
    return replace(
        row,
        energy_j=total,
        energy_uncertainty_j=sum(p.total_uncertainty_j for p in energy.parts),
        energy_scope=_scope(energy.counted),
        package_j=_of(energy, "package"),
        dram_j=_of(energy, "dram"),
        gpu_j=_of(energy, "gpu"),
        j_per_image=total / images if images else None,
        j_per_unit=total / work.units if work.units else None,
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
    report: Mapping[str, Any],
    command: Mapping[str, Any],
    window: _Window | None,
    energy: _Energy,
    notes: Sequence[Note],
) -> tuple[str, str | None]:
    """Status and its reason, by the first of these that holds."""
    state, code = report.get("state"), report.get("rc", command.get("rc"))
    message = str(report.get("message") or "").strip()
    if state != "done":
        return "failed", f"{state or 'no report'}: {message or 'the agent gave no reason'}"
    if code != 0:
        return "failed", f"exit code {code}: {message or 'see stderr.log'}"
    if window is None:
        return "failed", "the window's edges were not marked"
    fatal = next((n.message for n in notes if n.fatal), None)
    if not energy.counted:
        return "failed", f"no energy: {fatal or 'the meter read no domain that counts'}"
    return ("invalid", fatal) if fatal else ("valid", None)
