"""Importer of ``nvidia-smi --query-gpu=timestamp,index,power.draw,… --format=csv -l`` logs, one per run.

Without ``nounits`` cells end with a unit, which the header repeats. Each loop writes a row per GPU; without
a column that identifies it, the rows of a loop are distinguished by their order, which is always the same.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.cells import cells_of
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Course

SMI = "nvidia-smi"
_POWER = re.compile(r"power\.draw(?:\.(?:average|instant))?(?: \[(?P<unit>m?W)\])?")
_USAGE = re.compile(r"utilization\.gpu(?: \[%\])?")
#: Columns that identify a GPU; names of models don't.
_IDENTITY = (
    "index", "gpu_index", "uuid", "gpu_uuid", "pci.bus_id", "gpu_bus_id", "serial", "gpu_serial", "pci.bus",
)  # fmt: skip
#: Rows of a loop follow each other within this share of a loop.
_SAME_LOOP = 0.2
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
        return records.of_courses(self, SMI, files, context, _course, "no time or no power")


IMPORTER = NvidiaSmi()


@dataclass(frozen=True)
class _Sample:
    gpu: str | None
    time_s: float
    watts: float
    usage_pct: float | None


def _course(text: str) -> tuple[Course, list[int]]:
    course, bad = Course(), []
    samples: list[_Sample] = []
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    header: list[str] = []
    for cells in rows:
        if not cells:
            continue
        if not header or cells == header:
            header = cells
            continue
        sample = _sample(header, cells)
        if sample is None:
            bad.append(rows.line_num)
        else:
            samples.append(sample)
    gpus = [s.gpu for s in samples]
    if None in gpus:
        by_order = _by_order([s.time_s for s in samples])
        if by_order is None:
            course.failure = "rows of several GPUs, and no column index or uuid says whose they are"
            return course, bad
        gpus = list(by_order)
    names = {
        gpu: f"gpu{gpu if str(gpu).isdecimal() else n}" for n, gpu in enumerate(dict.fromkeys(gpus))
    }
    for gpu, sample in zip(gpus, samples, strict=True):
        course.add(names[gpu], sample.time_s, sample.watts)
        if sample.usage_pct is not None:
            course.usage.setdefault(names[gpu], []).append(sample.usage_pct)
    return course, bad


def _sample(header: Sequence[str], cells: Sequence[str]) -> _Sample | None:
    row = dict(zip(header, cells, strict=False))
    power = next((c for c in header if _POWER.fullmatch(c)), "")
    usage = next((c for c in header if _USAGE.fullmatch(c)), "")
    time_s = records.unix_s(row.get("timestamp") or "", _DATES)
    cell = row.get(power) or ""
    watts = records.number(cell)
    if time_s is None or watts is None:
        return None
    milli = cell.endswith("mW") or (_POWER.fullmatch(power) or {"unit": None})["unit"] == "mW"
    gpu = next((row[c].strip() for c in _IDENTITY if row.get(c)), None)
    busy = records.number(row.get(usage) or "")
    return _Sample(gpu, time_s, watts * 1e-3 if milli else watts, busy)


def _by_order(times_s: Sequence[float]) -> list[str] | None:
    """The place of each row in its loop; None where loops differ in their numbers of rows."""
    steps = np.diff(times_s)
    if not steps.size:
        return ["0"] * len(times_s)
    first = np.concatenate([[True], steps > _SAME_LOOP * np.quantile(steps, 0.9)])
    begins = np.flatnonzero(first)
    sizes = np.diff(begins, append=len(times_s))
    # The last loop may be cut.
    if len(set(sizes[:-1].tolist())) > 1 or sizes[-1] > sizes[0]:
        return None
    return [str(i - begin) for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True)
            for i in range(begin, begin + size)]  # fmt: skip
