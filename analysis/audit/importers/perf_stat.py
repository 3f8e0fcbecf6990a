"""Importer of ``perf stat -e power/energy-pkg/,… -x,`` logs, and of its plain output; one per run.

Fields of ``-x``: time (with ``-I``), socket and number of CPUs (with ``--per-socket``), value, unit, event,
run time of the counter in ns, share. See ``perf-stat(1)``, CSV FORMAT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Run
from wattbench.analysis.audit.treatments import Label, run_of
from wattbench.analysis.model.findings import Finding

PERF = "perf-stat"
_EVENT = rb"power/energy-(?:pkg|ram|cores|gpu|psys)/"
_DOMAINS = {
    "pkg": "package", "ram": "dram", "psys": "system", "cores": "pp0", "gpu": "pp1",
}  # fmt: skip
_NAME = re.compile(r"power/energy-(\w+)/")
_PLAIN = re.compile(r"^\s*(?P<value>[\d.,]+)\s+Joules\s+(?P<event>power/energy-\w+/)")
_ELAPSED = re.compile(r"^\s*(?P<value>[\d.,]+)\s+seconds time elapsed")
_STARTED = re.compile(r"^# started on (?P<date>.+)$")
_DATE = ("%a %b %d %H:%M:%S %Y",)


class PerfStat:
    """Logs of perf stat."""

    layout = "perf-stat"
    recognised_by = "`perf stat -e power/energy-pkg/ -x,` logs"
    rank = 15
    leads = frozenset({PERF})

    def claims(self, path: str, head: bytes) -> str | None:  # noqa: ARG002
        """Logs with RAPL's events and joules."""
        return PERF if re.search(_EVENT, head) and b"Joules" in head else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import one run per file; treatments come from the paths."""
        findings: list[Finding] = []
        labels, said = records.labels_of(files, PERF, context)
        runs = []
        for path, text in records.texts(files, PERF, findings):
            runs.append(_run(path, text, labels[path], findings))
        return records.campaign(self, context, runs, findings, said)


IMPORTER = PerfStat()


def _run(path: str, text: str, label: Label, findings: list[Finding]) -> Run:
    joules: dict[str, float] = {}
    inner: dict[str, float] = {}
    seconds = started_s = None
    longest_s: dict[str, float] = {}
    intervals_s = 0.0
    for line, row in enumerate(text.splitlines(), start=1):
        if match := _STARTED.match(row):
            started_s = records.unix_s(match["date"], _DATE)
        elif match := _ELAPSED.match(row):
            seconds = records.number(match["value"].replace(",", ""))
        elif (match := _PLAIN.match(row)) or _NAME.search(row):
            event, value, runtime_s, at_s = (
                (match["event"], records.number(match["value"].replace(",", "")), None, None)
                if match
                else _fields(row)
            )
            if value is None:
                findings.append(records.unread(path, f"line {line}: {event} was not counted", line))
                continue
            domain = _DOMAINS.get((_NAME.search(event) or [""])[1], "")
            into = inner if domain.startswith("pp") else joules
            if domain:
                into[domain] = into.get(domain, 0.0) + value
            if runtime_s is not None:
                longest_s[domain] = max(longest_s.get(domain, 0.0), runtime_s)
            intervals_s = max(intervals_s, at_s or 0.0)
        elif ",ns,duration_time" in row.replace(";", ","):
            nanoseconds = records.number(re.split(r"[,;]", row)[0])
            seconds = nanoseconds * 1e-9 if nanoseconds else seconds
    if "system" in joules:
        inner |= {d: j for d, j in joules.items() if d != "system"}
        joules = {"system": joules["system"]}
    seconds = seconds or intervals_s or max(longest_s.values(), default=None)
    return Run(
        path, 1, label, run_of(path), joules, seconds, started_s, uncounted=inner, whole_file=True
    )


def _fields(row: str) -> tuple[str, float | None, float | None, float | None]:
    """Event, value, run time and, with ``-I``, time of a line of ``-x``, whatever separates its fields."""
    separator = next((s for s in (";", ",", "|", "\t", "@", ":") if s in row), ",")
    cells = [cell.strip() for cell in row.split(separator)]
    place = next(i for i, cell in enumerate(cells) if _NAME.search(cell))
    value = records.number(cells[place - 2]) if place >= 2 else None
    runtime = records.number(cells[place + 1]) if len(cells) > place + 1 else None
    before = list(_numbers(cells[: max(0, place - 2)]))
    at_s = before[0] if before and "." in cells[0] else None
    return cells[place], value, None if runtime is None else runtime * 1e-9, at_s


def _numbers(cells: list[str]) -> Iterator[float]:
    for cell in cells:
        value = records.number(cell)
        if value is not None:
            yield value
