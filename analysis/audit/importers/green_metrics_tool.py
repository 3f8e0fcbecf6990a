"""Importer of exports of the Green Metrics Tool: one file per run, energy as a sum of small parts.

JSON as its interface gives it (``data``: rows of detail, time in µs, metric, value, unit), or a CSV with
these columns. Energy metrics hold the joules of each interval.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Run
from wattbench.analysis.audit.treatments import run_of
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.storage import documents

EXPORT = "green-metrics-tool"
_METRIC = re.compile(rb"_energy_(?:rapl|ac|dc|nvidia|nvml|igpu|powermetrics|xgboost|sdia)")
_COLUMNS = ("detail_name", "time", "metric", "value", "unit")
_JOULES = {"uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0, "kJ": 1e3, "nJ": 1e-9}
#: What a metric meters: name → domain. Models of the tool are none of them.
_DOMAINS = (
    (re.compile(r"psu_energy_(?:ac|dc)_(?!xgboost|sdia)\w+"), "system"),
    (re.compile(r"cpu_energy_rapl\w*"), "package"),
    (re.compile(r"memory_energy_rapl\w*"), "dram"),
    (re.compile(r"gpu_energy_\w+"), "gpu"),
)
_MODEL = re.compile(r"psu_energy_\w*(?:xgboost|sdia)\w*")

_Sample = tuple[str, float, str, float, str]


class GreenMetricsTool:
    """Exports of the Green Metrics Tool."""

    layout = "green-metrics-tool"
    recognised_by = (
        "exports of the Green Metrics Tool (JSON or CSV of `cpu_energy_rapl_…`, `psu_energy_ac_…`)"
    )
    rank = 30
    leads = frozenset({EXPORT})

    def claims(self, path: str, head: bytes) -> str | None:
        """Rows of the tool's metrics."""
        if path.endswith(".json"):
            return EXPORT if _METRIC.search(head) else None
        if not path.endswith(".csv"):
            return None
        return EXPORT if {"time", "metric", "value", "unit"} <= set(cells_of(head)) else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import one run per file; treatments come from the paths."""
        findings: list[Finding] = []
        labels, said = records.labels_of(files, EXPORT, context)
        runs = []
        for path, text in records.texts(files, EXPORT, findings):
            samples = list(_json(path, text) if path.endswith(".json") else _csv(text))
            run = _run(samples)
            if run is None:
                findings.append(records.unread(path, "no energy metric in it", 1))
                continue
            joules, seconds, started_s, source = run
            runs.append(
                Run(path, 1, labels[path], run_of(path), joules, seconds, started_s,
                    source=source, whole_file=True)
            )  # fmt: skip
        return records.campaign(self, context, runs, findings, said)


IMPORTER = GreenMetricsTool()


def _json(path: str, text: str) -> Iterator[_Sample]:
    try:
        document = documents.parse_json(text.encode(), path)
    except documents.DocumentError:
        return
    rows = document.get("data") if isinstance(document, Mapping) else document
    for row in rows if isinstance(rows, Sequence) else ():
        if isinstance(row, Mapping):
            row = [row.get(c) for c in _COLUMNS]
        if isinstance(row, Sequence) and not isinstance(row, str) and len(row) >= len(_COLUMNS):
            yield from _sample([str(cell) for cell in row[: len(_COLUMNS)]])


def _csv(text: str) -> Iterator[_Sample]:
    for row in csv.DictReader(io.StringIO(text)):
        yield from _sample([row.get(c) or "" for c in _COLUMNS])


def _sample(cells: Sequence[str]) -> Iterator[_Sample]:
    detail, time, metric, value, unit = cells
    time_us, energy = records.number(time), records.number(value)
    if time_us is not None and energy is not None and unit in _JOULES:
        yield detail, time_us * 1e-6, metric, energy * _JOULES[unit], unit


def _run(
    samples: Sequence[_Sample],
) -> tuple[dict[str, float], float | None, float | None, str] | None:
    """Joules by domain, seconds, start, and whether a model gave them."""
    joules: dict[str, float] = {}
    modelled: dict[str, float] = {}
    times: list[float] = []
    for _, time_s, metric, energy_j, _ in samples:
        domain = next((d for pattern, d in _DOMAINS if pattern.fullmatch(metric)), None)
        into = joules if domain else modelled if _MODEL.fullmatch(metric) else None
        if into is not None:
            into[domain or "system"] = into.get(domain or "system", 0.0) + energy_j
            times.append(time_s)
    if "system" in joules:
        # A wall meter covers the parts.
        joules = {"system": joules["system"]}
    domains = joules or modelled
    if not domains:
        return None
    return domains, max(times) - min(times), min(times), "measured" if joules else "modelled"
