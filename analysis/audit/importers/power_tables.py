"""Importer of the tables that ``powerstat`` and ``turbostat`` print, one file per run.

Both give the mean power of each interval: powerstat in the column ``Watts``, turbostat in ``PkgWatt``,
``RAMWatt`` of the row that sums the machine up, or joules with ``--Joules``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

import numpy as np

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Course, FloatArray, Run
from wattbench.analysis.audit.treatments import Label, run_of
from wattbench.analysis.model.findings import Finding

TABLE = "power-table"
_POWERSTAT = re.compile(r"^\s*Time\s+User\s+Nice\s+Sys\s+Idle\b.*\bWatts\b")
_TURBOSTAT = re.compile(r"^(?=.*\b(?:PkgWatt|Pkg_J)\b)(?:\w|\t| |%|/|\.|\+|-)+$")
#: One of the headings' words: most files have none.
_SIGNS = (b"PkgWatt", b"Pkg_J", b" Watts")
_CLOCK = re.compile(r"^\d\d:\d\d:\d\d$")
_TOOK = re.compile(r"^(?P<seconds>\d+\.\d+) sec$")
_EVERY = re.compile(r"samples at (?P<seconds>[\d.]+) second interval")
#: Columns of turbostat: watts and joules of a domain.
_COLUMNS = {
    "PkgWatt": ("package", False), "RAMWatt": ("dram", False), "SysWatt": ("system", False),
    "Pkg_J": ("package", True), "RAM_J": ("dram", True), "Sys_J": ("system", True),
}  # fmt: skip
_DAY_S = 86_400.0


class PowerTables:
    """Output of powerstat and turbostat."""

    layout = "power-table"
    recognised_by = (
        "output of `powerstat` (column `Watts`) and `turbostat` (`PkgWatt`, `RAMWatt`, `Pkg_J`)"
    )
    rank = 15
    leads = frozenset({TABLE})

    def claims(self, path: str, head: bytes) -> str | None:  # noqa: ARG002
        """Texts with one of the headings."""
        if not any(sign in head for sign in _SIGNS):
            return None
        lines = head.decode("utf-8", "replace").splitlines()
        return TABLE if any(_POWERSTAT.match(s) or _TURBOSTAT.match(s) for s in lines) else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import one run per file; treatments come from the paths."""
        findings: list[Finding] = []
        labels, said = records.labels_of(files, TABLE, context)
        runs = []
        for path, text in records.texts(files, TABLE, findings):
            lines = text.splitlines()
            of_tool = _powerstat if any(map(_POWERSTAT.match, lines)) else _turbostat
            runs.append(of_tool(path, lines, labels[path]))
        return records.campaign(self, context, runs, findings, said)


IMPORTER = PowerTables()


def _powerstat(path: str, lines: list[str], label: Label) -> Run:
    """Rows of a clock time and, last, watts; without the day."""
    course = Course()
    every_s = 0.0
    days, before = 0, -1.0
    place = -1
    for line in lines:
        if match := _EVERY.search(line):
            every_s = float(match["seconds"])
        cells = line.split()
        if _POWERSTAT.match(line):
            place = cells.index("Watts")
        elif cells and _CLOCK.match(cells[0]) and 0 < place < len(cells):
            watts = records.number(cells[place])
            clock = datetime.strptime(cells[0], "%H:%M:%S")  # noqa: DTZ007 - a time of day
            second = clock.hour * 3600.0 + clock.minute * 60 + clock.second
            days += second < before
            before = second
            if watts is not None:
                course.add("package", days * _DAY_S + second, watts)
    run = course.run(path, label, run_of(path), lambda t: _lengths(t, every_s))
    # A time of day is not a date.
    return _undated(run)


def _turbostat(path: str, lines: list[str], label: Label) -> Run:
    """Rows that sum the machine up: ``-`` for core and CPU, or the only row of an interval."""
    header: list[str] = []
    course = Course()
    joules: dict[str, float] = {}
    seconds, dated, count = None, False, 0
    for line in lines:
        cells = line.split()
        if match := _TOOK.match(line.strip()):
            seconds = float(match["seconds"])
        elif _TURBOSTAT.match(line) and not any(map(records.number, cells)):
            header = cells
        elif header and len(cells) == len(header):
            row = dict(zip(header, cells, strict=True))
            if row.get("CPU", "-") != "-":
                continue
            time_s = records.number(row.get("Time_Of_Day_Seconds") or "")
            dated = dated or time_s is not None
            count += 1
            for column, (domain, is_energy) in _COLUMNS.items():
                value = records.number(row.get(column) or "")
                if value is None:
                    continue
                if is_energy:
                    joules[domain] = joules.get(domain, 0.0) + value
                else:
                    course.add(domain, time_s if time_s is not None else float(count), value)
    if joules:
        return Run(path, 1, label, run_of(path), _outer(joules), seconds, whole_file=True)
    each_s = seconds / count if seconds and count and not dated else 0.0
    run = course.run(path, label, run_of(path), lambda t: _lengths(t, each_s))
    if not dated and not each_s:
        why = (
            f"{path}: neither Time_Of_Day_Seconds nor the command's seconds: the time is not known"
        )
        return Run(path, 1, label, run_of(path), {}, None, whole_file=True, failure=why)
    return run if dated else _undated(run)


def _outer(joules: dict[str, float]) -> dict[str, float]:
    """Without the parts of a machine that is metered as a whole."""
    return {"system": joules["system"]} if "system" in joules else joules


def _lengths(time_s: FloatArray, every_s: float) -> FloatArray:
    """Seconds that each sample is the mean of: the step before it, of the first one the usual step."""
    if every_s:
        return np.full(time_s.size, every_s)
    steps = np.diff(time_s)
    usual = float(np.median(steps)) if steps.size else 0.0
    return np.concatenate([[usual], steps])


def _undated(run: Run) -> Run:
    return replace(run, started_s=None)
