"""How fast raw CSVs are audited, against a plain ``pandas.read_csv`` loop over the same files.

``python tests/bench/bench_audit.py [MEGABYTES]`` (default 1000) makes that much of files of about 18 kB in a
temporary folder, prints wall and CPU seconds of both, their ratios, and the audit's peak memory. The audit's
times, the mean of one audit before the loop and one after, are those of the whole command, start of the
interpreter and imports with it; that Python's bytecode is there, as in every installation, is seen to by a
small audit before. The plain loop's begin after its imports.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

sys.path.insert(0, str(Path(__file__).parent))

from figures import Figure, show

ROOT = Path(__file__).parents[2]
COLUMNS = (
    "Delta,Time,CPU_FREQUENCY_0,CPU_FREQUENCY_1,CPU_FREQUENCY_2,CPU_FREQUENCY_3,CPU_USAGE_0,CPU_USAGE_1,CPU_USAGE_2,"
    "CPU_USAGE_3,DRAM_ENERGY (J),GPU0_MEMORY_TOTAL,GPU0_MEMORY_USED,GPU0_POWER (mWatts),GPU0_TEMPERATURE,GPU0_USAGE,"
    "PACKAGE_ENERGY (J),PP0_ENERGY (J),PP1_ENERGY (J),TOTAL_MEMORY,TOTAL_SWAP,USED_MEMORY,USED_SWAP"
)


#: Joules of the counters before they wrap.
SPAN_J = 2.0**18

#: Seconds that the interpreter, imports and the report's figures may take beside the files.
START_S = 20.0

#: Seconds between two looks at the audit's processes.
LOOK_S = 0.5


def campaign(folder: Path, megabytes: float) -> int:
    """Files of 82 rows of 10 s in six folders, images in turn, counters that wrap; returns their number."""
    draw = random.Random(1)
    unit, size, count = 2.0**-14, 0, 0
    package, now = 1000.0, 1_700_000_000_000
    while size < megabytes * 1_000_000:
        image = folder / f"image{count % 6}" / "results"
        image.mkdir(parents=True, exist_ok=True)
        lines = [COLUMNS]
        for row in range(82):
            package += 0.4 if row == 1 else draw.gauss(468.0, 2.0)
            # Shares of the package: memory and cores, on counters of their own.
            counters = [package * share // unit * unit % SPAN_J for share in (0.1, 1.0, 0.7)]
            dram, cpu, cores = counters
            busy = 5 if row < 2 else 90
            usage = ",".join(f"{busy + (row * k) % 10 + 0.1234567890123 * k}" for k in range(1, 5))
            lines.append(
                f"{0 if row == 0 else 22 if row == 81 else 9999},{now + 10_000 * max(row - 1, 0)},800,800,800,800,{usage},"
                f"{dram},4096,390,{19_285 + row % 3 * 241},35,0,{cpu},{cores},0,"
                f"16720330752,4294963200,{1_087_000_000 + 4096 * row},1192226816"
            )
        text = "\n".join(lines) + "\n"
        (image / f"energy_results_image{count % 6}_{count // 6}.csv").write_text(text)
        size += len(text)
        count += 1
        now += 1_000_000
    return count


@dataclass(frozen=True)
class Cost:
    """Seconds of a run, and the most memory of all its processes together, MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def plain(folder: Path) -> Cost:
    """The loop that it is compared with."""
    begin, before = time.perf_counter(), time.process_time()
    for path in folder.rglob("*.csv"):
        pd.read_csv(path)
    return Cost(time.perf_counter() - begin, time.process_time() - before, 0.0)


def audit(folder: Path, out: Path, bytecode: Path) -> Cost:
    """The command, watched with the processes that it starts."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    command = [sys.executable, "-m", "analysis", "audit", str(folder), "--out", str(out)]
    cpu: dict[int, float] = {}
    peak = 0
    with psutil.Popen(
        command, cwd=ROOT, env=kept | {"PYTHONPYCACHEPREFIX": str(bytecode)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as top:  # fmt: skip
        while top.poll() is None:
            memory = 0
            for process in (top, *top.children(recursive=True)):
                try:
                    times = process.cpu_times()
                    # What processes share is counted once.
                    memory += process.memory_full_info().pss
                except psutil.Error:  # it ended meanwhile
                    continue
                cpu[process.pid] = times.user + times.system
            peak = max(peak, memory)
            with contextlib.suppress(psutil.TimeoutExpired):
                top.wait(LOOK_S)
        wall_s = time.perf_counter() - begin
        if top.returncode not in (0, 1):
            sys.exit(f"the audit failed with exit code {top.returncode}")
    return Cost(wall_s, sum(cpu.values()), peak / 1e6)


def main() -> None:
    """Measure and print."""
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1000.0
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        campaign(here / "first", 1)
        audit(here / "first", here / "out", here / "bytecode")
        files = campaign(here / "campaign", megabytes)
        # One before and one after: a shared machine's pace changes from minute to minute.
        first = audit(here / "campaign", here / "out", here / "bytecode")
        loop = plain(here / "campaign")
        last = audit(here / "campaign", here / "out", here / "bytecode")
        ours = Cost(
            (first.wall_s + last.wall_s) / 2,
            (first.cpu_s + last.cpu_s) / 2,
            max(first.peak_mb, last.peak_mb),
        )
    size = f"{megabytes:.0f} MB in {files} files"
    show(
        Figure(
            "audit, start and imports included",
            size,
            ours.wall_s,
            "s",
            plain=loop.wall_s,
            plain_is="pandas.read_csv",
        )
    )
    show(
        Figure(
            "audit, start and imports included",
            size,
            ours.cpu_s,
            "s of CPU",
            limit=START_S + 3 * loop.cpu_s,
            plain=loop.cpu_s,
            plain_is="pandas.read_csv",
        )
    )
    show(Figure("audit, memory of all processes", size, ours.peak_mb, "MB", limit=2000))  # fmt: skip


if __name__ == "__main__":
    main()
