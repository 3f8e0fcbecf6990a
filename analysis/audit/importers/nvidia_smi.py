"""Importer of ``nvidia-smi --query-gpu=timestamp,index,power.draw,… --format=csv -l`` logs, one per run.

Without ``nounits`` cells end with a unit, which the header repeats.
"""

from __future__ import annotations

import csv
import io
import re

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Course

SMI = "nvidia-smi"
_POWER = re.compile(r"power\.draw(?:\.(?:average|instant))?(?: \[(?P<unit>m?W)\])?")
_USAGE = re.compile(r"utilization\.gpu(?: \[%\])?")
_DATES = ("%Y/%m/%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S")


class NvidiaSmi:
    """Logs of nvidia-smi."""

    layout = "nvidia-smi"
    recognised_by = "`nvidia-smi --query-gpu=timestamp,power.draw,… --format=csv -l` logs"
    rank = 30
    leads = frozenset({SMI})

    def claims(self, path: str, head: bytes) -> str | None:  # noqa: ARG002
        """CSVs whose header has a time and a power."""
        cells = cells_of(head)
        return SMI if "timestamp" in cells and any(map(_POWER.fullmatch, cells)) else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import one run per file; treatments come from the paths."""
        return records.of_courses(self, SMI, files, context, _course, "has no time or no power")


IMPORTER = NvidiaSmi()


def _course(text: str) -> tuple[Course, list[int]]:
    course, bad = Course(), []
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    header: list[str] = []
    for cells in rows:
        if not cells:
            continue
        if not header or cells == header:
            header = cells
            continue
        row = dict(zip(header, cells, strict=False))
        power = next((c for c in header if _POWER.fullmatch(c)), "")
        usage = next((c for c in header if _USAGE.fullmatch(c)), "")
        time_s = records.unix_s(row.get("timestamp") or "", _DATES)
        cell = row.get(power) or ""
        watts = records.number(cell)
        if time_s is None or watts is None:
            bad.append(rows.line_num)
            continue
        milli = cell.endswith("mW") or (_POWER.fullmatch(power) or {"unit": None})["unit"] == "mW"
        gpu = f"gpu{(row.get('index') or row.get('gpu_index') or '0').strip()}"
        course.add(gpu, time_s, watts * 1e-3 if milli else watts)
        busy = records.number(row.get(usage) or "")
        if busy is not None:
            course.usage.setdefault(gpu, []).append(busy)
    return course, bad
