"""Importer of Zeus: the window log of ``ZeusMonitor``, and results of the ML.ENERGY benchmark.

A log has the columns ``start_time,window_name,elapsed_time,gpu0_energy,…`` in Unix seconds, seconds and
joules; a result is a JSON object with ``entire_benchmark_measurement`` or ``steady_state_measurement``.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Run
from wattbench.analysis.audit.treatments import Label, label_of, run_of
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.storage import documents

WINDOWS, RESULT = "zeus-windows", "ml-energy-result"
_ENERGY = re.compile(r"(gpu|cpu)(\d+)_energy")
_DRAM = re.compile(r"dram(\d+)_energy")
#: Where a result has its joules: the whole benchmark first, since it is what the window cost.
_MEASUREMENTS = ("entire_benchmark_measurement", "steady_state_measurement")


class Zeus:
    """Windows of ZeusMonitor and results of ML.ENERGY."""

    layout = "zeus"
    recognised_by = (
        "Zeus window logs (`start_time,window_name,elapsed_time,…`) and ML.ENERGY `results.json`"
    )
    rank = 30
    leads = frozenset({WINDOWS, RESULT})

    def claims(self, path: str, head: bytes) -> str | None:
        """Logs by header, results by their key."""
        if {"start_time", "window_name", "elapsed_time"} <= set(cells_of(head)):
            return WINDOWS
        is_result = path.endswith(".json") and any(m.encode() in head for m in _KEYS)
        return RESULT if is_result else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import windows; treatments are their names where a log has several, else come from the paths."""
        findings: list[Finding] = []
        runs: list[Run] = []
        labels, said = records.labels_of(files, WINDOWS, context)
        for path, text in records.texts(files, WINDOWS, findings):
            runs += _windows(path, text, labels[path], context)
        of_results, more = records.labels_of(files, RESULT, context)
        for path, text in records.texts(files, RESULT, findings):
            run = _result(path, text, of_results[path])
            if run is None:
                findings.append(records.unread(path, "no measurement with joules in it", 1))
            else:
                runs.append(run)
        return records.campaign(self, context, runs, findings, (*said, *more))


IMPORTER = Zeus()

_KEYS = (*_MEASUREMENTS, "steady_state_energy")


def _windows(path: str, text: str, label: Label, context: Context) -> Iterator[Run]:
    rows = list(csv.DictReader(io.StringIO(text)))
    names = _treatments([(row.get("window_name") or "").strip() for row in rows])
    several = len(set(names)) > 1
    for line, (row, name) in enumerate(zip(rows, names, strict=True), start=2):
        own = label_of(name) if several and name else label
        joules: dict[str, float] = {}
        for column, cell in row.items():
            value = records.number(cell)
            if value is None:
                continue
            if match := _ENERGY.fullmatch(str(column)):
                domain = f"gpu{match[2]}" if match[1] == "gpu" else "package"
                joules[domain] = joules.get(domain, 0.0) + value
            elif _DRAM.fullmatch(str(column)):
                joules["dram"] = joules.get("dram", 0.0) + value
        yield Run(
            path, line, Label(context.mapping.images.get(own.image, own.image), own.kind), None, joules,
            records.number(row.get("elapsed_time") or ""), records.number(row.get("start_time") or ""),
        )  # fmt: skip


def _treatments(names: Sequence[str]) -> list[str]:
    """Windows' names without the number of a loop; where names come back, a number in them is none."""
    if max(Counter(names).values(), default=1) > 1:
        return list(names)
    return [re.sub(r"[ _\-]*\d+$", "", name) for name in names]


def _result(path: str, text: str, label: Label) -> Run | None:
    try:
        document = documents.parse_json(text.encode(), path)
    except documents.DocumentError:
        return None
    if not isinstance(document, Mapping):
        return None
    for key in _MEASUREMENTS:
        measured = document.get(key)
        if isinstance(measured, Mapping) and isinstance(measured.get("gpu_energy"), Mapping):
            joules = {
                f"gpu{index}": value
                for index, cell in measured["gpu_energy"].items()
                if (value := records.number(cell)) is not None
            }
            cpu = measured.get("cpu_energy")
            if isinstance(cpu, Mapping):
                package_j = [v for c in cpu.values() if (v := records.number(c)) is not None]
                joules |= {"package": sum(package_j)} if package_j else {}
            seconds = records.number(measured.get("time"))
            return Run(path, 1, label, run_of(path), joules, seconds, whole_file=True)
    return None
