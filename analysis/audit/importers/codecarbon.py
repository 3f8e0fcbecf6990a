"""Importer of CodeCarbon's ``emissions.csv``: one row per run, or per task, kWh by part of the machine.

Memory is always a model there, the CPU one where no counter could be read, and the file does not say which:
its joules are taken for modelled. Before version 2 there is the sum of all parts only. Columns:
https://docs.codecarbon.io/output.html
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Run
from wattbench.analysis.audit.treatments import Label, label_of
from wattbench.analysis.model.findings import Finding

EMISSIONS = "codecarbon"
_KWH_J = 3.6e6
_DATES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S%z")
#: Columns of kWh by domain; memory's is a model.
_COLUMNS = {"package": "cpu_energy", "gpu": "gpu_energy"}
#: Columns by which a row is a copy of another; early versions have no ``run_id``.
_SAME = ("run_id", "timestamp", "energy_consumed")
#: Columns that name what was measured, the narrowest first.
_NAMES = ("task_name", "project_name")


class CodeCarbon:
    """Tables of CodeCarbon."""

    layout = "codecarbon"
    recognised_by = "CodeCarbon's `emissions.csv` (`cpu_energy`, `energy_consumed`, …)"
    rank = 30
    leads = frozenset({EMISSIONS})

    def claims(self, path: str, head: bytes) -> str | None:
        """Tables with CodeCarbon's columns."""
        wanted = {"duration", "emissions", "energy_consumed"}
        return EMISSIONS if path.endswith(".csv") and wanted <= set(cells_of(head)) else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import rows; treatments are names of tasks or projects that differ, else come from the paths."""
        findings: list[Finding] = []
        labels, said = records.labels_of(files, EMISSIONS, context)
        rows: list[tuple[str, int, dict[str, str]]] = []
        for path, text in records.texts(files, EMISSIONS, findings):
            reader = csv.DictReader(io.StringIO(text))
            rows += [(path, reader.line_num, row) for row in reader]
        factors = context.mapping.factors
        if factors is None:
            values = {c: {row.get(c) or "" for _, _, row in rows} for c in _NAMES}
            # A name that no other row has is a number that CodeCarbon drew.
            factors = [c for c in _NAMES if 1 < len(values[c]) < max(len(rows), 3)]
            if factors:
                named = "; ".join(f"{c}: {', '.join(sorted(values[c])[:8])}" for c in factors)
                said = (
                    f"treatments come from the column{'s' * (len(factors) > 1)} {named}; "
                    "`factors: [column]` in a --mapping file overrides this",
                )
        runs = []
        seen: set[tuple[str, ...]] = set()
        for path, line, row in rows:
            same = tuple((row.get(c) or "") for c in _SAME)
            if all(same[1:]) and same in seen:
                findings.append(records.unread(path, f"line {line} is a copy of another row", line))
                continue
            seen.add(same)
            runs.append(_run(path, line, row, _label(row, factors, labels[path], context)))
        return records.campaign(self, context, runs, findings, said)


IMPORTER = CodeCarbon()


def _label(row: Mapping[str, str], factors: list[str], by_path: Label, context: Context) -> Label:
    if not factors:
        return by_path
    named = label_of(" / ".join((row.get(f) or "").strip() for f in factors))
    return Label(context.mapping.images.get(named.image, named.image), named.kind)


def _run(path: str, line: int, row: Mapping[str, str], label: Label) -> Run:
    parts = {d: records.number(row.get(c) or "") for d, c in _COLUMNS.items()}
    joules = {d: _KWH_J * kwh for d, kwh in parts.items() if kwh}
    whole = records.number(row.get("energy_consumed") or "")
    if "cpu_energy" not in row and whole:
        joules = {"system": _KWH_J * whole}
    memory = records.number(row.get("ram_energy") or "")
    seconds = records.number(row.get("duration") or "")
    ended_s = records.unix_s(row.get("timestamp") or "", _DATES)
    started_s = ended_s - seconds if ended_s is not None and seconds else None
    return Run(
        path, line, label, None, joules, seconds, started_s,
        uncounted={"dram": _KWH_J * memory} if memory else {},
        source="modelled",
    )  # fmt: skip
