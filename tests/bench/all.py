"""All benchmarks one after the other, and what they came to in one table.

``python tests/bench/all.py`` (``make bench``) takes some minutes; ``--small`` shows in one that they run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Bench:
    """One script.

    Attributes:
        name: the file's, without ``bench_`` and ``.py``.
        arguments: of a full run.
        small: of a quick one.
        results: what goes into the table: the pattern of a line of its output, and how it is told.
    """

    name: str
    arguments: tuple[str, ...]
    small: tuple[str, ...]
    results: tuple[tuple[str, str], ...]


_RATES = r"noise alone +as in the study +(30) +(\S+) +(\S+) +(\S+) +(\S+) .*"
BENCHES = (
    Bench(
        "reader",
        ("400",),
        ("40",),
        (
            (
                r"(pandas\.read_csv|read and energy) +(\d+) files/s +(\S+) MB/s.*",
                r"\1: \2 files/s, \3 MB/s",
            ),
        ),
    ),
    Bench("audit", ("1000",), ("5",), ((r"audit: (.*)", r"\1"),)),
    Bench("history", ("--nights", "60"), ("--nights", "8"), ((r"(compared .*)", r"\1"),)),
    Bench("dags", ("20", "10"), ("2", "1"), ((r"dags: (.*)", r"\1; aim: under 1 s for 20 x 10"),)),
    Bench(
        "statistics",
        ("--campaigns", "2000"),
        ("--campaigns", "50"),
        (
            (
                _RATES,
                r"five images, \1 blocks: joint coverage \2, false less/more \4, false equivalent \5",
            ),
            (r"  30 blocks  (.*)", r"one pair, 30 blocks: coverage \1"),
        ),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What one script came to: exit code, wall and CPU seconds, its chosen lines."""

    bench: Bench
    arguments: tuple[str, ...]
    code: int
    wall_s: float
    cpu_s: float
    results: tuple[str, ...]


def execute(bench: Bench, *, small: bool) -> Outcome:
    """Run one script, showing its output as it comes."""
    arguments = bench.small if small else bench.arguments
    print(f"── bench_{bench.name}.py {' '.join(arguments)}", flush=True)
    begin, before = time.perf_counter(), os.times()
    lines = []
    with subprocess.Popen(
        [sys.executable, str(HERE / f"bench_{bench.name}.py"), *arguments],
        stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        for line in child.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    after = os.times()
    cpu_s = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    results = tuple(
        found.expand(told)
        for line in lines
        for pattern, told in bench.results
        if (found := re.fullmatch(pattern, line))
    )
    return Outcome(bench, arguments, child.returncode, time.perf_counter() - begin, cpu_s, results)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """One line a result."""
    rows = [f"{'benchmark':<30}{'wall s':>8}{'CPU s':>8}  result"]
    for done in outcomes:
        name = f"{done.bench.name} {' '.join(done.arguments)}"
        told = done.results or ("no result",)
        if done.code:
            told = (f"failed with exit code {done.code}",)
        rows.append(f"{name:<30}{done.wall_s:>8.1f}{done.cpu_s:>8.1f}  {told[0]}")
        rows += [f"{'':<48}{line}" for line in told[1:]]
    return rows


def main() -> int:
    """Run, print, and fail where a script failed or showed no result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="little work, figures of no use")
    parser.add_argument("only", nargs="*", help=", ".join(b.name for b in BENCHES))
    args = parser.parse_args()
    if unknown := set(args.only) - {b.name for b in BENCHES}:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    chosen = [b for b in BENCHES if not args.only or b.name in args.only]
    outcomes = [execute(b, small=args.small) for b in chosen]
    print("\n" + "\n".join(table(outcomes)))
    return int(any(done.code or not done.results for done in outcomes))


if __name__ == "__main__":
    sys.exit(main())
