"""Lines of a program's output, with the times at which they came → its work and its phases.

A program of the user's prints what it likes: patterns of the experiment find the number of units, the
value that shows equal work, and the line after which it is ready. Event lines are read as of any workload,
and get the time of their line where they carry none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wattbench.analysis.meters import workload_log
from wattbench.analysis.meters.workload_log import Event, Span, WorkloadLog
from wattbench.analysis.model.records import Expected

#: A pattern sees so much of a line.
LINE_CHARACTERS = 4096
#: The phase after the line that shows readiness.
STEADY = "steady:run"

_LINE = re.compile(rb"(\d+(?:\.\d+)?) [oe] ?(.*)")


@dataclass(frozen=True)
class Line:
    """A line of stdout or stderr.

    Attributes:
        number: from 1, over both streams.
        time_s: when it came, Unix seconds.
        text: without its end.
    """

    number: int
    time_s: float
    text: str


def lines_of(data: bytes) -> list[Line]:
    """Read ``output.log``: time, stream (``o`` or ``e``) and text per line; other lines are passed over."""
    found = []
    for number, raw in enumerate(data.splitlines(), start=1):
        match = _LINE.fullmatch(raw)
        if match:
            text = match[2].decode("utf-8", "replace")
            found.append(Line(number, float(match[1]), text))
    return found


def read(data: bytes, expected: Expected) -> WorkloadLog:
    """What a program's output shows.

    Args:
        data: ``output.log``.
        expected: the plan's side: ``unit``, ``same_work`` and ``ready``.
    """
    lines = lines_of(data)
    log = workload_log.of_events(_events(lines))
    problems: list[str] = []
    work = log.work
    if unit := expected.get("unit"):
        count = unit.get("count")
        units = work.units if count is None else float(count)
        if pattern := unit.get("pattern"):
            units = _number(_only(lines, pattern, "workload.unit.pattern", problems), problems)
        elif units is None:
            problems.append(
                f"no event line reports {unit['name']}s done (result with units); print them, or set "
                "workload.unit.pattern or count"
            )
        work = replace(work, unit=unit["name"], units=units)
    if same := expected.get("same_work"):
        value = _only(lines, same["pattern"], "workload.same_work.pattern", problems)
        if value is not None and same.get("tolerance") is not None and _as_number(value) is None:
            problems.append(
                f"workload.same_work: {value!r} is not a number, so it can't have a tolerance; correct the "
                "pattern, or remove tolerance"
            )
        work = replace(work, same_work=value)
    log = replace(log, work=replace(work, problems=tuple(problems)))
    return _phased(log, lines, expected.get("ready"))


def _events(lines: Sequence[Line]) -> list[Event]:
    """Event lines; of one without a time, the line's."""
    events: list[Event] = []
    for line in lines:
        if not line.text.lstrip().startswith("{"):
            continue
        try:
            event = json.loads(line.text)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append({"unix_s": line.time_s} | event)
    return events


def _only(lines: Sequence[Line], pattern: str, key: str, problems: list[str]) -> str | None:
    """The value of the one line that matches."""
    matches = [
        (line.number, found[1])
        for line in lines
        for found in re.finditer(pattern, line.text[:LINE_CHARACTERS])
    ]
    if len(matches) == 1 and matches[0][1]:
        return str(matches[0][1])
    if len(matches) == 1:
        problems.append(
            f"{key} {pattern!r} finds no value in line {matches[0][0]}: its group is empty; correct the "
            "pattern, or print the value"
        )
    elif not matches:
        last = repr(lines[-1].text[:80]) if lines else "nothing"
        problems.append(
            f"{key} {pattern!r} matches no line of the output, whose last is {last}; correct the pattern, "
            "or print the value"
        )
    else:
        where = ", ".join(str(number) for number, _ in matches[:2])
        problems.append(
            f"{key} {pattern!r} matches {len(matches)} times (lines {where}); make it match exactly once"
        )
    return None


def _number(text: str | None, problems: list[str]) -> float | None:
    value = None if text is None else _as_number(text)
    if text is not None and (value is None or value <= 0):
        problems.append(
            f"workload.unit.pattern finds {text!r}, which is not a number above 0; correct the pattern"
        )
        return None
    return value


def _as_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _phased(log: WorkloadLog, lines: Sequence[Line], ready: str | None) -> WorkloadLog:
    """The phases ``start`` and :data:`STEADY`, split by the first line that matches ``ready``."""
    if ready is None:
        return log
    first = next((x for x in lines if re.search(ready, x.text[:LINE_CHARACTERS])), None)
    if first is None:
        why = f"workload.ready.pattern {ready!r} matches no line of the output; correct the pattern"
        return replace(log, work=replace(log.work, errors=(*log.work.errors, why)))
    end = max(line.time_s for line in lines)
    return replace(log, spans=(Span(STEADY, first.time_s, end),), first_s=first.time_s, last_s=end)
