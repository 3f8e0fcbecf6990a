"""All benchmarks one after the other, each in three sizes; docs/performance.md holds what they came to.

``python tests/bench/all.py`` (``make bench``) takes some minutes; ``NAME …`` runs some alone, and the page says "not run" of the
others. ``--small`` shows in a minute that they run and writes no page. Interrupted, the page has what was done by then. Exit code 1:
a script failed, or a figure is over its limit.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from figures import Figure, read

from tests.support.machine import commit, machine
from wattbench.analysis.storage.atomic import write_atomically

PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Bench:
    """One script.

    Attributes:
        name: the file's, without ``bench_`` and ``.py``.
        sizes: arguments of the full runs, three sizes of the task.
        small: of a quick one.
        results: lines of its output that go to the page beside figures: a pattern, and how it is shown.
    """

    name: str
    sizes: tuple[tuple[str, ...], ...]
    small: tuple[str, ...]
    results: tuple[tuple[str, str], ...] = ()


_RATES = r"noise alone +as in the study +(30) +(\S+) +(\S+) +(\S+) +(\S+) .*"
BENCHES = (
    Bench("window", (("5",), ("15",), ("60",)), ("2",)),
    Bench("run", ((),), ()),
    Bench("reader", (("50",), ("200",), ("400",)), ("40",)),
    Bench("audit", (("10",), ("50",), ("200",)), ("5",)),
    Bench(
        "history",
        (("--nights", "15"), ("--nights", "60"), ("--nights", "120")),
        ("--nights", "8"),
    ),
    Bench(
        "hosts",
        (
            ("2", "4"),
            ("10", "2", "--window", "40"),
            ("30", "1", "--window", "120"),
            ("10", "3", "--window", "1"),
        ),
        ("1", "1"),
    ),
    Bench("dags", (("2", "1"), ("20", "10"), ("40", "20")), ("2", "1")),
    Bench(
        "statistics",
        (("--campaigns", "2000"),),
        ("--campaigns", "50"),
        (
            (
                _RATES,
                r"Five images, \1 blocks: joint coverage \2, false less/more \4, false equivalent \5",
            ),
            (r"  30 blocks  (.*)", r"One pair, 30 blocks: coverage \1"),
        ),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What one run of a script came to."""

    bench: Bench
    arguments: tuple[str, ...]
    code: int
    wall_s: float
    figures: tuple[Figure, ...]
    results: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether the script failed, or lacks what it should print."""
        return bool(self.code) or len(self.results) < len(self.bench.results)


def execute(bench: Bench, arguments: tuple[str, ...]) -> Outcome:
    """Run one script, showing its output as it comes."""
    print(f"── bench_{bench.name}.py {' '.join(arguments)}", flush=True)
    begin, lines = time.perf_counter(), []
    with subprocess.Popen(
        [sys.executable, str(HERE / f"bench_{bench.name}.py"), *arguments],
        stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        for line in child.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    results = tuple(
        found.expand(template)
        for line in lines
        for pattern, template in bench.results
        if (found := re.fullmatch(pattern, line))
    )
    figures = tuple(figure for line in lines if (figure := read(line)))
    return Outcome(
        bench, arguments, child.returncode, time.perf_counter() - begin, figures, results
    )


_HEAD = """\
# Performance

What wattbench costs and how right it is, as `make bench` measured it and wrote it down: {when} UTC on {machine}, commit
{commit}, load {load} before and {after} after. *Plain* is a sequential script that does the bare minimum on the same data in the
same run; on a busy machine the ratio says more than the seconds. A limit marked **over** was exceeded.

| what | size | figure | limit | plain | ratio |
| --- | --- | --- | --- | --- | --- |
"""


def page(outcomes: Sequence[Outcome], head: str) -> str:
    """The page: a row per figure, then the other results."""
    lines = [head]
    for done in outcomes:
        if done.failed:
            problem = f"failed with exit code {done.code}" if done.code else "printed no result"
            lines.append(
                f"| bench_{done.bench.name} | {' '.join(done.arguments)} | **{problem}** | | | |\n"
            )
        lines += [f"| {' | '.join(figure.cells())} |\n" for figure in done.figures]
        if not done.failed and not done.figures and not done.results:
            lines.append(f"| bench_{done.bench.name} | – | there is nothing to measure | | | |\n")
    ran = {done.bench.name for done in outcomes}
    lines += [f"| bench_{b.name} | – | not run | | | |\n" for b in BENCHES if b.name not in ran]
    rest = [line for done in outcomes for line in done.results]
    lines += ["\n## Error rates of the statistics, simulated\n\n"] if rest else []
    return "".join([*lines, *(f"* {line}\n" for line in rest)])


def runs(chosen: Sequence[Bench], *, small: bool) -> Iterator[Outcome]:
    """Every script in every size, until it is interrupted."""
    try:
        for bench in chosen:
            for arguments in [bench.small] if small else bench.sizes:
                yield execute(bench, arguments)
    except KeyboardInterrupt:
        print("interrupted", flush=True)


def main() -> int:
    """Run, print, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="little work, figures of no use")
    parser.add_argument("only", nargs="*", help=", ".join(b.name for b in BENCHES))
    args = parser.parse_args()
    if unknown := set(args.only) - {b.name for b in BENCHES}:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    chosen = [b for b in BENCHES if not args.only or b.name in args.only]
    load = os.getloadavg()[0]
    outcomes = list(runs(chosen, small=args.small))
    head = _HEAD.format(
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), machine=machine(), commit=commit(),
        load=f"{load:.1f}", after=f"{os.getloadavg()[0]:.1f}",
    )  # fmt: skip
    text = page(outcomes, head)
    print("\n" + text)
    if not args.small:
        write_atomically(PAGE, text)
        print(f"bench: {PAGE.relative_to(ROOT)} written")
    over = any(figure.over for done in outcomes for figure in done.figures) and not args.small
    return int(over or any(done.failed for done in outcomes))


if __name__ == "__main__":
    sys.exit(main())
