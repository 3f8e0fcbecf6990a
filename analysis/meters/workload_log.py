"""The workload's event lines → what it reports of its work, and where its phases lie.

Lines that are not a JSON object with an ``event`` are other programs' output and are passed over; so
are fields of the wrong type. Phases are on the host's clocks. The window's remainder is the
``start`` phase (before the first event), ``stop`` (after the last one), and ``other``: time between
phases of more than a hundredth of the window in all, which is then shown so that the phases add up;
less than that is given to the phase before. Beside steps of a load it is always shown, since joules per
request are those of the step alone.

A load generator on another machine stamps by its own clock, and compares it with the host's on both sides of
its steps (event ``clock``): all its moments are moved to the host's clock here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.analysis.meters.clocks import CLOCK_STEP_S, Clock
from wattbench.analysis.model.records import Note, PassResult, Work

#: Version of the event lines (docs/workload-protocol.md) up to which they are read.
PROTOCOL = 1

#: Unclaimed time of this share of the window is shown as a phase of its own.
NOTABLE = 0.01

#: Phase in which the built-in program holds its model loaded without work.
IDLE = "idle"


#: One line as printed; its fields are checked where they are read.
Event = Mapping[str, object]


@dataclass(frozen=True)
class Span:
    """A phase on the wall clock, Unix seconds."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class LoadReport:
    """What a load generator reports of one step, the event ``load``; None: it does not.

    Attributes:
        phase: of the step, ``steady:c8``.
        concurrency: requests at any time.
        rate_per_s: arrivals per second.
        planned: requests of the plan.
        sent: requests that were sent.
        duration_s: from the step's begin to its last answer.
        cpu_s: CPU time of the generator in the step.
        cores: CPUs that it may use.
        late_p99_s: how late 99 of 100 requests were sent at most.
        late_max_s: how late any was.
    """

    phase: str
    concurrency: int | None
    rate_per_s: float | None
    planned: int | None
    sent: int | None
    duration_s: float | None
    cpu_s: float | None
    cores: float | None
    late_p99_s: float | None
    late_max_s: float | None


@dataclass(frozen=True)
class LoadClock:
    """The clock of a load generator on another machine.

    Attributes:
        ahead_s: how far the measured host's clock is ahead of it, the mean of all comparisons.
        doubt_s: what its moments may be off on the host's clock.
        relay_cpu_s: CPU time of what passes its requests on, between the first comparison and the last.
    """

    ahead_s: float
    doubt_s: float
    relay_cpu_s: float | None


@dataclass(frozen=True)
class WorkloadLog:
    """What the lines report.

    Attributes:
        work: device, versions, weights, results.
        spans: phases as marked, in order; one without an end ends with the last event.
        first_s: wall clock of the first event; None: no event.
        last_s: of the last event.
        notes: lines that could not be used, phases that never ended.
        loads: of a load generator, one report per step.
        clock: of a load generator on another machine; None: the moments are the host's own.
    """

    work: Work
    spans: tuple[Span, ...] = ()
    first_s: float | None = None
    last_s: float | None = None
    notes: tuple[Note, ...] = ()
    loads: tuple[LoadReport, ...] = ()
    clock: LoadClock | None = None

    def held(self) -> Span | None:
        """The phase in which the model was held loaded without work; None: it was not reported."""
        return next((s for s in self.spans if s.name == IDLE and s.end_s > s.start_s), None)

    def phases(self, start_s: float, end_s: float) -> tuple[Span, ...]:
        """The window's parts in order, without holes; no event: none.

        Args:
            start_s: of the window, wall clock.
            end_s: likewise.
        """
        if self.first_s is None or self.last_s is None or end_s <= start_s:
            return ()

        def inside(time_s: float) -> float:
            return min(max(time_s, start_s), end_s)

        first, last = inside(self.first_s), inside(self.last_s)
        marked = [Span(s.name, inside(s.start_s), inside(s.end_s)) for s in self.spans]
        parts = [Span("start", start_s, first)]
        gaps = _gaps(marked, first, last)
        unclaimed_s = sum(g.end_s - g.start_s for g in gaps)
        notable = bool(self.loads) or unclaimed_s > NOTABLE * (end_s - start_s)
        for span in sorted([*marked, *gaps], key=lambda s: (s.start_s, s.end_s)):
            if span.name == "other" and not notable:
                parts[-1] = Span(parts[-1].name, parts[-1].start_s, span.end_s)
            elif span.end_s > parts[-1].end_s or span.start_s >= parts[-1].end_s:
                parts.append(Span(span.name, max(span.start_s, parts[-1].end_s), span.end_s))
        parts.append(Span("stop", parts[-1].end_s, end_s))
        return tuple(parts)


def _gaps(marked: Sequence[Span], first: float, last: float) -> list[Span]:
    """Time between the first and the last event that no phase claims."""
    gaps, until = [], first
    for span in sorted(marked, key=lambda s: s.start_s):
        if span.start_s > until:
            gaps.append(Span("other", until, span.start_s))
        until = max(until, span.end_s)
    if last > until:
        gaps.append(Span("other", until, last))
    return gaps


def parse(data: bytes) -> WorkloadLog:
    """Read ``workload.jsonl`` or any output that holds such lines; never raises."""
    events: list[Event] = []
    notes: list[Note] = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            notes.append(Note("bad-row", "workload.jsonl: not JSON; passed over", number))
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str) and _time(event):
            events.append(event)
        else:
            notes.append(Note("bad-row", "workload.jsonl: no stamped event; passed over", number))
    if len(notes) > 20:
        notes = [*notes[:20], Note("bad-row", f"workload.jsonl: {len(notes) - 20} more such lines")]
    if not events:
        return WorkloadLog(Work(), notes=tuple(notes))
    return _log(events, notes)


def of_events(events: Sequence[Event]) -> WorkloadLog:
    """The log of stamped events; no event: an empty one."""
    known = [e for e in events if isinstance(e.get("event"), str) and _time(e) is not None]
    return _log(known, []) if known else WorkloadLog(Work())


def _log(events: Sequence[Event], notes: list[Note]) -> WorkloadLog:
    events, clock = _on_the_host_s_clock(events, notes)
    spans = _spans(events, notes)
    times = [_time(e) or 0.0 for e in events]
    loads = tuple(
        _load(e, phase) for e in events if e["event"] == "load" and (phase := _text(e.get("phase")))
    )
    return WorkloadLog(_work(events), spans, min(times), max(times), tuple(notes), loads, clock)


def _on_the_host_s_clock(
    events: Sequence[Event], notes: list[Note]
) -> tuple[Sequence[Event], LoadClock | None]:
    """Events with their moments on the host's clock, where the load generator compared its own with it."""
    compared = [
        (time_s, ahead_s, trip_s, _number(event.get("relay_cpu_s")))
        for event in events
        if event["event"] == "clock"
        and (time_s := _time(event)) is not None
        and (ahead_s := _number(event.get("ahead_s"))) is not None
        and (trip_s := _number(event.get("trip_s"))) is not None
    ]
    is_load = any(e["event"] == "start" and e.get("program") == "load" for e in events)
    if not compared or not is_load:
        return events, None
    clock = Clock.of([reading[:3] for reading in compared])
    if clock.step_s > CLOCK_STEP_S:
        text = f"the load host's clock moved by {clock.step_s:.3f} s against the host's"
        notes.append(Note("clock-step", text, fatal=True))
    moved = clock.there(np.array([_time(e) or 0.0 for e in events]))
    cpu_s = [s for *_, s in compared if s is not None]
    return (
        [{**event, "unix_s": float(at)} for event, at in zip(events, moved, strict=True)],
        LoadClock(
            float(clock.ahead_s.mean()),
            clock.doubt_s,
            cpu_s[-1] - cpu_s[0] if len(cpu_s) > 1 else None,
        ),
    )


def _load(event: Event, phase: str) -> LoadReport:
    def whole(key: str) -> int | None:
        number = _number(event.get(key))
        return None if number is None else int(number)

    return LoadReport(
        phase, whole("concurrency"), _number(event.get("rate_per_s")), whole("planned"), whole("sent"),
        *(_number(event.get(k)) for k in ("duration_s", "cpu_s", "cores", "late_p99_s", "late_max_s")),
    )  # fmt: skip


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _time(event: Event) -> float | None:
    return _number(event.get("unix_s"))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _integer(value: object) -> int:
    number = _number(value)
    return 0 if number is None else int(number)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _spans(events: Sequence[Event], notes: list[Note]) -> tuple[Span, ...]:
    opened: dict[str, float] = {}
    spans: list[Span] = []
    last = max(_time(e) or 0.0 for e in events)
    for event in events:
        name, time_s = _text(event.get("name")), _time(event) or 0.0
        if event["event"] != "phase" or not name:
            continue
        if event.get("edge") == "begin":
            opened[name] = time_s
        elif event.get("edge") == "end" and name in opened:
            begin = opened.pop(name)
            spans.append(Span(name, begin, max(begin, time_s)))
    for name, begin in opened.items():
        notes.append(Note("phase", f"phase {name} never ended; taken to the last event"))
        spans.append(Span(name, begin, last))
    return tuple(sorted(spans, key=lambda s: (s.start_s, s.end_s)))


def _work(events: Sequence[Event]) -> Work:
    def last(kind: str) -> Event:
        return next((e for e in reversed(events) if e["event"] == kind), {})

    start, device, weights = last("start"), last("device"), last("weights")
    versions = {k: v for k, v in last("versions").items() if k not in ("event", "unix_s", "mono_s")}
    inputs = {
        str(e.get("resolution")): sha256
        for e in events
        if e["event"] == "input" and (sha256 := _text(e.get("sha256"))) is not None
    }
    parameters = _number(weights.get("parameters"))
    results = tuple(_result(e) for e in events if e["event"] == "result")
    counted = [r for r in results if r.phase.partition(":")[0] != "warmup"]
    ended = any(e["event"] == "end" for e in events)
    return Work(
        program=_text(start.get("program")),
        framework=_text(start.get("framework")),
        precision=_text(start.get("precision")),
        device_requested=_text(device.get("requested")),
        device_actual=_text(device.get("actual")),
        device_name=_text(device.get("name")),
        weights_sha256=_text(weights.get("sha256")),
        parameters=None if parameters is None else int(parameters),
        inputs_sha256=inputs,
        results=results,
        versions=versions,
        errors=(*_newer(start), *(str(e.get("message")) for e in events if e["event"] == "error")),
        finished=ended if ended or start else None,
        unit=_text(start.get("unit")) or ("image" if any(r.images for r in counted) else None),
        units=sum(r.done for r in counted) or None,
        tokens_counted=_text(last("tokens").get("counted")),
    )


def _newer(start: Event) -> tuple[str, ...]:
    version = _number(start.get("protocol"))
    if version is None or version <= PROTOCOL:
        return ()
    return (
        f"it prints event lines of protocol {version:g}, this version reads up to {PROTOCOL}; upgrade "
        "wattbench",
    )


def _result(event: Event) -> PassResult:
    fingerprint = event.get("fingerprint")
    values = fingerprint if isinstance(fingerprint, list) else []
    iterations, batch = _integer(event.get("iterations")), _integer(event.get("batch")) or 1
    images, units = _number(event.get("images")), _number(event.get("units"))
    if images is None:
        images = 0.0 if units is not None else iterations * batch
    return PassResult(
        phase=str(event.get("phase") or f"steady:{event.get('resolution')}"),
        iterations=iterations,
        batch=batch,
        images=int(images),
        duration_s=_number(event.get("duration_s")) or 0.0,
        fingerprint=tuple(n for v in values if (n := _number(v)) is not None),
        units=units,
    )
