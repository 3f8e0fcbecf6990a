"""Files a second: our reader and a plain ``pandas.read_csv`` loop, on logs of 18 kB.

Run as a script: ``python tests/bench/bench_reader.py [FILES]``. Times are CPU seconds of one process, the best of
several rounds, so that a busy machine changes them little.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

# Run by its path, the repository root is not on the path yet.
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from figures import Figure, show

from wattbench.analysis.meters.curves import curves
from wattbench.analysis.meters.energibridge import read
from wattbench.analysis.meters.window import split

COLUMNS = (
    "CPU_FREQUENCY_0,CPU_FREQUENCY_1,CPU_FREQUENCY_2,CPU_FREQUENCY_3,CPU_USAGE_0,CPU_USAGE_1,CPU_USAGE_2,"
    "CPU_USAGE_3,DRAM_ENERGY (J),GPU0_MEMORY_TOTAL,GPU0_MEMORY_USED,GPU0_POWER (mWatts),GPU0_TEMPERATURE,"
    "GPU0_USAGE,PACKAGE_ENERGY (J),PP0_ENERGY (J),PP1_ENERGY (J),TOTAL_MEMORY,TOTAL_SWAP,USED_MEMORY,USED_SWAP"
)  # fmt: skip


def synthetic_log(seed: int, rows: int = 83) -> bytes:
    """A log of four CPUs and a GPU at one row every 10 s, about 18 kB, counters with wraps."""
    random = np.random.default_rng(seed)
    start = 1_740_000_000_000 + 1_000_000 * seed

    def counter(watts: float) -> np.ndarray:
        joules = np.cumsum(random.normal(watts, 0.05 * watts, rows) * 10.0) + random.uniform(
            0, 262_144
        )
        return np.mod(np.floor(joules * 2**14), 2**32) / 2**14

    dram, package, cores = counter(2.5), counter(47.0), counter(36.0)
    usage = random.uniform(0, 100, (rows, 4)).astype(np.float32).astype(float)
    lines = [f"Delta,Time,{COLUMNS}"]
    for i in range(rows):
        used = ",".join(repr(float(u)) for u in usage[i])
        memory = f"16720330752,4294963200,{1_100_000_000 + 4096 * i},{1_190_000_000 + 4096 * i}"
        lines.append(
            f"{9999 if i else 0},{start + 10_000 * max(i - 1, 0)},800,800,800,800,{used},"
            f"{float(dram[i])!r},4096,390,{19526 + i},35,0,{float(package[i])!r},{float(cores[i])!r},0,{memory}"
        )
    return ("\n".join(lines) + "\n").encode()


def seconds_a_file(
    work: Callable[[list[bytes]], None], files: list[bytes], rounds: int = 5
) -> float:
    """CPU seconds a file, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work(files)
        best = min(best, time.process_time() - start)
    return best / len(files)


def with_pandas(files: list[bytes]) -> None:
    """The plain loop."""
    for data in files:
        pd.read_csv(io.BytesIO(data))


def one_by_one(files: list[bytes]) -> None:
    """Our reader, file by file."""
    for data in files:
        read(data)


def with_energy(files: list[bytes]) -> None:
    """Our reader, and each domain's joules with their uncertainty from first row to last."""
    for data in files:
        for curve in curves(read(data)):
            split(curve, [curve.time_s[0], curve.time_s[-1]])


def measure(count: int = 400) -> dict[str, float]:
    """Files a second by way of reading."""
    files = [synthetic_log(seed) for seed in range(count)]
    ways = {
        "pandas.read_csv": with_pandas,
        "read": one_by_one,
        "read and energy": with_energy,
    }
    return {name: 1.0 / seconds_a_file(work, files) for name, work in ways.items()}


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    speeds = measure(count)
    plain = speeds["pandas.read_csv"]
    size = f"{count} logs of {len(synthetic_log(0)) / 1e3:.0f} kB"
    for name, limit in (("read", 1.0), ("read and energy", 5.0)):
        show(
            Figure(
                f"raw log: {name}", size, 1e3 / speeds[name], "ms of CPU a log",
                limit=limit * 1e3 / plain, plain=1e3 / plain, plain_is="pandas.read_csv",
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
