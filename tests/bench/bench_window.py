"""What an attempt's joules are worth, and what of ours runs inside its window, on this machine.

``python tests/bench/bench_window.py SECONDS`` runs three attempts with a window of that length through the agent, its
supervisor and the stand-in meter, whose joules are known. It prints the largest error of the record's joules, beside
the record's own uncertainty (95 %); the CPU time of our processes (supervisor and wrapper) between 0.5 s after the
window's begin and its end; and their memory, shared pages counted once (PSS).
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from figures import Figure, show

from tests.support.live_chain import Case, Chain

#: Power of the stand-in: of the idle host alone, so that the true joules of a window are one number.
FLAT = "cpus:2,idle_w:40,core_w:0,dram_core_w:0"
ROUNDS = 3
CPU_LIMIT_PCT = 0.5
MEMORY_LIMIT_MIB = 30.0


class Ours:
    """CPU and memory of our processes inside one window."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.cpu_pct, self.pss_mib = math.nan, math.nan

    def look(self, folder: Path) -> None:
        """Wait for the window, and look twice; called while the attempt runs."""
        while not (folder / "command.json").exists():
            time.sleep(0.02)
        time.sleep(0.5)
        mine = [
            p for p in psutil.process_iter()
            if str(folder) in (line := " ".join(_command(p))) and ".pyz" in line and "energibridge" not in line
        ]  # fmt: skip
        assert mine, "none of our processes is there"
        before, began = _cpu_s(mine), time.monotonic()
        self.pss_mib = sum(p.memory_full_info().pss for p in mine) / 2**20
        time.sleep(max(0.5, self.window_s - 1.0))
        self.cpu_pct = 100 * (_cpu_s(mine) - before) / (time.monotonic() - began)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


def main() -> None:
    """Measure and print."""
    window_s = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    errors, bounds, looks = [], [], []
    with tempfile.TemporaryDirectory() as name:
        chain = Chain(Path(name) / "chain")
        for number in range(ROUNDS):
            ours = Ours(window_s)
            case = Case(
                fault=FLAT,
                says={"seconds": window_s},
                timeout_s=math.ceil(window_s) + 60,
                meddle=ours.look,
            )
            live = chain.run(f"window {number}", case)
            row = live.record.row
            if row.status != "valid" or row.energy_j is None:
                sys.exit(f"an attempt is {row.status}: {live.record.row.reason}")
            least, most = live.true_joules("package")
            true = (least + most) / 2 + sum(live.true_joules("dram")) / 2
            errors.append(100 * abs(row.energy_j - true) / true)
            bounds.append(100 * float(row.energy_uncertainty_j or 0) / true)
            looks.append(ours)
    size = f"window of {window_s:g} s"
    show(Figure("error of a window's joules", size, max(errors), "%", limit=max(bounds)))
    show(Figure("CPU of ours inside a window", size, max(o.cpu_pct for o in looks), "% of a core",
                limit=CPU_LIMIT_PCT))  # fmt: skip
    show(Figure("memory of the agent on a host", size, max(o.pss_mib for o in looks), "MiB",
                limit=MEMORY_LIMIT_MIB))  # fmt: skip


if __name__ == "__main__":
    main()
