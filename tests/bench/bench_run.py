"""Where the time goes between windows and in the demo, from what the test bed has stored.

``python tests/bench/bench_run.py`` reads the runs in ``var/demo/store`` and the stages of the last ``make demo``; it starts
nothing. Where there are none it says so. A gap is the time from a window's end to the next one's begin on the same host,
without the rest that the plan asks for.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from figures import Figure, show

DEMO = ROOT / "var" / "demo"
GAP_LIMIT_S = 3.0


def gaps_s(run: Path) -> list[float]:
    """Seconds between windows of a stored run, less the rest asked for."""
    document = json.loads((run / "run.json").read_text(encoding="utf-8"))
    rest_s = float(document["experiment"]["protocol"]["rest"]["min_s"])
    found = []
    for host in sorted((run / "hosts").iterdir()):
        records = [json.loads(p.read_text(encoding="utf-8"))["timing"]
                   for p in host.glob("trials/*/*/trial.json")]  # fmt: skip
        windows = sorted(
            (t["started_unix_s"], t["ended_unix_s"]) for t in records if t.get("ended_unix_s")
        )
        found += [b[0] - a[1] - rest_s for a, b in itertools.pairwise(windows)]
    return found


def stored_gaps() -> Iterator[Figure]:
    """The median gap of each of the three runs with the most windows."""
    runs = sorted(DEMO.glob("store/**/runs/*/run.json"))
    measured = sorted(
        ((run.parent, gaps) for run in runs if (gaps := gaps_s(run.parent))),
        key=lambda pair: len(pair[1]),
    )
    for run, gaps in measured[-3:]:
        yield Figure(
            "gap between windows beyond the rest asked for, median", f"{len(gaps)} gaps of {run.name}",
            statistics.median(gaps), "s", limit=GAP_LIMIT_S,
        )  # fmt: skip


def stages() -> Iterator[Figure]:
    """Stages of the last demo; some of them overlap."""
    file = DEMO / "timings.json"
    if file.exists():
        for name, _, took_s in json.loads(file.read_text(encoding="utf-8")):
            yield Figure(f"make demo: {name}", "two hosts", took_s, "s")


def main() -> None:
    """Print what is there."""
    found = [*stored_gaps(), *stages()]
    for figure in found:
        show(figure)
    if not found:
        print("no run and no demo of the test bed is stored here: make demo", flush=True)


if __name__ == "__main__":
    main()
