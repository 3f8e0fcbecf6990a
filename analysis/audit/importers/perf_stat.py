"""Importer of ``perf stat -e power/energy-pkg/,…`` logs: ``-x``, ``-j`` and plain output, runs appended.

Fields of ``-x``: time (with ``-I``), socket and number of CPUs (with ``--per-socket``), value, unit, event,
run time of the counter in ns, share. See ``perf-stat(1)``, CSV FORMAT and JSON FORMAT. Numbers have the
locale's decimal separator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Run
from wattbench.analysis.audit.treatments import Label, run_of
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.storage import documents

PERF = "perf-stat"
_EVENT = rb"power/energy-(?:pkg|ram|cores|gpu|psys)/"
_DOMAINS = {
    "pkg": "package", "ram": "dram", "psys": "system", "cores": "pp0", "gpu": "pp1",
}  # fmt: skip
_NAME = re.compile(r"power/energy-(\w+)/")
_PLAIN = re.compile(
    r"^\s*(?:(?P<at>\d+[.,]\d{9})\s+)?(?P<where>(?:S\d\S*|CPU\d+)(?:\s+\d+)?\s+)?"
    r"(?P<value>\d[\d.,'\u2019\u00a0\u202f]*)\s+Joules\s+(?P<event>power/energy-\w+/)"
)
_ELAPSED = re.compile(r"^\s*(?P<value>\d[\d.,]*)(?: \+- +[\d.,]+)? +seconds time elapsed")
_STARTED = re.compile(r"^# started on (?P<date>.+)$")
_STATS_FOR = re.compile(r"^\s*Performance counter stats for ")
_DATE = ("%a %b %d %H:%M:%S %Y",)
#: Joules with two decimals, and seconds with nine, whose decimal comma looks like a separator of ``-x,``.
_COMMAS = (
    (re.compile(r"(?<![\d.])(\d+),(\d\d),Joules"), r"\1.\2,Joules"),
    (re.compile(r"^(\s*\d+),(\d{9}),"), r"\1.\2,"),
)


class PerfStat:
    """Logs of perf stat."""

    layout = "perf-stat"
    recognised_by = "`perf stat -e power/energy-pkg/` logs: `-x,`, `-j` or plain"
    rank = 15
    leads = frozenset({PERF})

    def claims(self, path: str, head: bytes) -> str | None:  # noqa: ARG002
        """Logs with RAPL's events and joules."""
        return PERF if re.search(_EVENT, head) and b"Joules" in head else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import the runs of each file; treatments come from the paths."""
        findings: list[Finding] = []
        labels, said = records.labels_of(files, PERF, context)
        runs: list[Run] = []
        for path, text in records.texts(files, PERF, findings):
            parts = list(_parts(text))
            runs += [part.run(path, labels[path], alone=len(parts) == 1) for part in parts]
            uncounted = [line for part in parts for line in part.uncounted]
            findings += records.unread_lines(path, uncounted, "not counted by perf")
        return records.campaign(self, context, runs, findings, said)


IMPORTER = PerfStat()


@dataclass(frozen=True)
class _Reading:
    """One value of an event: where on the machine, its joules, the counter's run time, the time of ``-I``."""

    event: str
    where: str
    joules: float | None
    runtime_s: float | None = None
    at_s: float | None = None


@dataclass
class _Part:
    """What one start of perf wrote."""

    line: int
    started_s: float | None = None
    elapsed_s: float | None = None
    joules: dict[str, float] = field(default_factory=dict)
    inner: dict[str, float] = field(default_factory=dict)
    longest_s: float = 0.0
    last_s: float = 0.0
    seen: set[tuple[str, str]] = field(default_factory=set)
    uncounted: list[int] = field(default_factory=list)

    def repeats(self, reading: _Reading) -> bool:
        """Whether a reading is the next start's: the same counter again, and no interval of this one."""
        return reading.at_s is None and (reading.event, reading.where) in self.seen

    def add(self, reading: _Reading, line: int) -> None:
        """Add a reading."""
        self.seen.add((reading.event, reading.where))
        domain = _DOMAINS.get((_NAME.search(reading.event) or [""])[1], "")
        if reading.joules is None:
            self.uncounted.append(line)
        elif domain:
            into = self.inner if domain.startswith("pp") else self.joules
            into[domain] = into.get(domain, 0.0) + reading.joules
            self.longest_s = max(self.longest_s, reading.runtime_s or 0.0)
            self.last_s = max(self.last_s, reading.at_s or 0.0)

    def run(self, path: str, label: Label, *, alone: bool) -> Run:
        """The run; of one that stands alone in its file, the path gives its number."""
        inner, joules = dict(self.inner), dict(self.joules)
        if "system" in joules:
            # The platform's counter covers the others.
            inner |= {d: j for d, j in joules.items() if d != "system"}
            joules = {"system": joules["system"]}
        failure = None
        if not joules and self.uncounted:
            failure = f"{path}:{self.uncounted[0]}: its energy was not counted by perf"
        return Run(
            path, 1 if alone else self.line, label, run_of(path) if alone else None, joules,
            self.elapsed_s or self.last_s or self.longest_s or None, self.started_s,
            uncounted=inner, whole_file=alone, failure=failure,
        )  # fmt: skip


def _parts(text: str) -> Iterator[_Part]:
    """The runs of a file: each start of perf writes a heading, or begins with a counter that was there."""
    part = _Part(1)
    for line, row in enumerate(text.splitlines(), start=1):
        started = _STARTED.match(row)
        reading = None if started else _reading(row)
        if part.seen and (
            started or _STATS_FOR.match(row) or (reading is not None and part.repeats(reading))
        ):
            yield part
            part = _Part(line)
        if started:
            part.started_s = records.unix_s(started["date"], _DATE)
        elif reading is not None:
            part.add(reading, line)
        elif match := _ELAPSED.match(row):
            part.elapsed_s = _value(match["value"])
        elif ",ns,duration_time" in row.replace(";", ","):
            nanoseconds = records.number(re.split(r"[,;]", row)[0])
            part.elapsed_s = None if nanoseconds is None else nanoseconds * 1e-9
    yield part


def _reading(row: str) -> _Reading | None:
    """A line's reading in whichever form; None: it holds none."""
    if not _NAME.search(row) or _STATS_FOR.match(row) or row.startswith("#"):
        return None
    if match := _PLAIN.match(row):
        at = match["at"]
        where = " ".join((match["where"] or "").split())
        return _Reading(
            match["event"], where, _value(match["value"]), at_s=_value(at) if at else None
        )
    return _of_json(row) if row.lstrip().startswith("{") else _of_fields(row)


def _value(text: str) -> float | None:
    """A number with decimals in any locale: the last separator is the decimal one."""
    whole, _, decimals = re.sub(r"[,.](?=[^,.]*$)", "|", text).partition("|")
    return records.number(re.sub(r"\D", "", whole) + "." + (decimals or "0"))


def _of_json(row: str) -> _Reading | None:
    try:
        fields = documents.parse_json(row.encode(), "")
    except documents.DocumentError:
        return None
    if not isinstance(fields, Mapping):
        return None
    runtime = records.number(fields.get("event-runtime") or "")
    where = next((str(fields[k]) for k in ("socket", "cpu", "die") if k in fields), "")
    return _Reading(
        str(fields.get("event")), where, records.number(fields.get("counter-value") or ""),
        None if runtime is None else runtime * 1e-9, records.number(fields.get("interval") or ""),
    )  # fmt: skip


def _of_fields(row: str) -> _Reading:
    """The reading of a line of ``-x``, whatever separates its fields."""
    for pattern, with_point in _COMMAS:
        row = pattern.sub(with_point, row)
    separator = next((s for s in (";", ",", "|", "\t", "@", ":") if s in row), ",")
    cells = [cell.strip() for cell in row.split(separator)]
    if separator != ",":
        cells = [c.replace(",", ".") for c in cells]
    place = next((i for i, cell in enumerate(cells) if _NAME.search(cell)), 0)
    value = records.number(cells[place - 2]) if place >= 2 else None
    runtime = records.number(cells[place + 1]) if len(cells) > place + 1 else None
    before = cells[: max(0, place - 2)]
    at_s = records.number(before[0]) if before and "." in before[0] else None
    where = " ".join(before if at_s is None else before[1:])
    return _Reading(cells[place], where, value, None if runtime is None else runtime * 1e-9, at_s)
