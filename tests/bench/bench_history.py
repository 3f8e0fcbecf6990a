"""A simulated year of nights: how fast it is compared, in how much memory, and what is found.

``python tests/bench/bench_history.py`` writes 365 runs of 10 hosts with 150 trials each (547,500),
with one planted regression, compares them by the command line in a process of its own, and prints
time, peak memory and what was named. ``--rates N`` also prints, over N simulated years without any
change, how often something was named, and after how many nights changes of several sizes are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from figures import Figure, show

from wattbench.analysis.model.trials import COLUMNS, TrialRow, to_frame
from wattbench.analysis.runs.parquet import PARQUET_FACTS
from wattbench.analysis.trends.level_changes import follow

#: Seconds that the interpreter, imports and the page may take beside the nights.
START_S = 20.0
BEGIN = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
SCHEMA = pa.Table.from_pandas(
    to_frame([TrialRow("r", "h", "workload", 1, 1, 1, "i")]), preserve_index=False
).schema.remove_metadata()


@dataclass(frozen=True)
class Year:
    """What is simulated.

    Attributes:
        hosts: how many.
        nights: how many runs.
        images: names; the first is the reference.
        blocks: of every run; each holds every image, and one control trial where ``control``.
        control: whether there is a control workload.
        trial_pct: SD of a trial.
        night_pct: SD of an image's level from night to night.
        room_pct: amplitude of the season, common to all of a host, control included.
        rise_pct: the planted regression.
        rise_host: number of its host.
        rise_night: number of its first night.
        seed: of everything.
    """

    hosts: int = 10
    nights: int = 365
    images: tuple[str, ...] = ("torch", "torch-slim", "onnx", "distro")
    blocks: int = 30
    control: bool = True
    trial_pct: float = 1.2
    night_pct: float = 0.25
    room_pct: float = 1.5
    rise_pct: float = 2.0
    rise_host: int = 7
    rise_night: int = 200
    rise_image: str = "torch-slim"
    seed: int = 1

    def run_id(self, night: int) -> str:
        """Of a night, from 0."""
        when = BEGIN + timedelta(days=night)
        mark = hashlib.sha256(f"{self.seed}/{night}".encode()).hexdigest()[:6]
        return f"nightly-{when:%Y%m%dT%H%M%SZ}-{mark}"

    def host(self, number: int) -> str:
        """Its name."""
        return f"host-{number:02d}"


def digest(text: str) -> str:
    """A digest that depends on the text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def facts(year: Year, night: int) -> dict[str, object]:
    """A run's lasting facts; the planted regression comes with another digest."""
    risen = night >= year.rise_night
    return {
        "schema": 1,
        "run_id": year.run_id(night),
        "dag_id": "nightly",
        "run_after": (BEGIN + timedelta(days=night)).isoformat(),
        "reference": year.images[0],
        "digests": {i: digest(i) for i in year.images},
        "hosts": {
            year.host(h): {
                "kernel": "6.1.0-28-amd64" if night < 120 or h != 3 else "6.1.0-31-amd64",
                "docker": "27.3.1",
                "governor": "performance",
                "driver": "575.57" if risen and h == year.rise_host else "570.86",
                "meter": "energibridge 0.0.7",
            }
            for h in range(year.hosts)
        },
        "versions": {"wattbench": "0.1.0", "python": "3.11.2"},
    }


def table(year: Year, night: int, rng: np.random.Generator) -> pa.Table:
    """One run's trials."""
    names = [*year.images, *(["control"] if year.control else [])]
    per_block, size = len(names), len(names) * year.blocks
    base = np.log(900.0 + 150.0 * np.arange(per_block))
    season = year.room_pct / 100 * np.sin(2 * np.pi * night / 365)
    columns: dict[str, list[np.ndarray]] = {}
    order = np.argsort(rng.random((year.hosts, year.blocks, per_block)), axis=2).reshape(
        year.hosts, -1
    )
    for host in range(year.hosts):
        level = base + season + 0.2 * host + year.night_pct / 100 * rng.normal(size=per_block)
        if host == year.rise_host and night >= year.rise_night:
            level[names.index(year.rise_image)] += np.log1p(year.rise_pct / 100)
        which = order[host]
        joules = np.exp(level[which] + year.trial_pct / 100 * rng.normal(size=size))
        control = which == per_block - 1 if year.control else np.zeros(size, bool)
        position = np.arange(1, size + 1)
        begin = (BEGIN + timedelta(days=night)).replace(tzinfo=None)
        started = np.datetime64(begin, "ms") + (position * 95_000).astype("timedelta64[ms]")
        values = {
            "run_id": np.full(size, year.run_id(night)),
            "host": np.full(size, year.host(host)),
            "kind": np.where(control, "control", "workload"),
            "block": np.repeat(np.arange(1, year.blocks + 1), per_block),
            "position": position,
            "planned_position": position,
            "image": np.array(names)[which],
            "digest": np.array([digest(n) if n != "control" else "" for n in names])[which],
            "attempt": np.ones(size, int),
            "status": np.where(rng.random(size) < 0.005, "failed", "valid"),
            "started_at": np.char.add(np.datetime_as_string(started, "ms"), "Z"),
            "duration_s": joules / 55.0,
            "energy_j": joules,
            "energy_scope": np.full(size, "package+dram"),
            "energy_source": np.full(size, "measured"),
            "package_j": 0.9 * joules,
            "dram_j": 0.1 * joules,
            "samples": np.full(size, 90),
            "wraps": np.zeros(size, int),
            "images_inferred": np.where(control, 0, 400),
            "j_per_image": joules / 400,
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    merged = {name: np.concatenate(parts) for name, parts in columns.items()}
    arrays = []
    for field in SCHEMA:
        if field.name not in merged:
            arrays.append(pa.nulls(year.hosts * size, field.type))
            continue
        values = merged[field.name]
        empty = values == "" if values.dtype.kind == "U" else None
        arrays.append(
            pa.array(values.tolist() if empty is not None else values, mask=empty).cast(field.type)
        )
    return pa.table(arrays, schema=SCHEMA)


def write(folder: Path, year: Year, nights: Sequence[int] | None = None) -> Path:
    """Write the runs below ``folder/runs``; returns that folder."""
    for night in nights if nights is not None else range(year.nights):
        rng = np.random.default_rng([year.seed, night])
        document = json.dumps(facts(year, night)).encode()
        data = table(year, night, rng).replace_schema_metadata({PARQUET_FACTS: document})
        assert tuple(data.column_names) == COLUMNS
        target = folder / "runs" / year.run_id(night)
        target.mkdir(parents=True, exist_ok=True)
        pq.write_table(data, target / "trials.parquet", compression="zstd")
    return folder / "runs"


def main() -> None:
    """Print time, memory and what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--keep", type=Path, help="keep runs and pages in this folder")
    parser.add_argument("--rates", type=int, default=0, metavar="N", help="simulate N steady years")
    args = parser.parse_args()
    year = Year(nights=args.nights, rise_night=min(200, args.nights * 200 // 365))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        runs = write(folder, year)
        trials = sum(pq.read_metadata(p).num_rows for p in runs.glob("*/trials.parquet"))
        done = subprocess.run(
            [sys.executable, "-m", "analysis", "compare", str(runs), "--out", str(folder / "out")],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.process_time()
        for path in runs.glob("*/trials.parquet"):
            pd.read_parquet(path).groupby(["host", "image"])["energy_j"].mean()
        plain = time.process_time() - begin
        peak = used.ru_maxrss / 2**20
        print(done.stdout, done.stderr[-2000:], sep="")
        found = json.loads((folder / "out" / "findings.json").read_text())
        page = (folder / "out" / "index.html").stat().st_size / 1e6
        levels = pd.read_csv(folder / "out" / "tables" / "levels.csv")
    alerts = [f for f in found if f["verdict"] == "found" and f["code"] == "regression"]
    size = f"{trials:,} trials of {year.nights} nights"
    show(
        Figure(
            "compare nights, start and imports included",
            size,
            used.ru_utime + used.ru_stime,
            "s of CPU",
            limit=START_S + 0.2 * year.nights,
            plain=plain,
            plain_is="pandas: read, mean per night and image",
        )
    )
    show(Figure("compare nights, memory", size, 1024 * peak, "MiB", limit=2048))  # fmt: skip
    print(f"page {page:.2f} MB, exit {done.returncode}")
    planted = f"{year.rise_pct:g} % on {year.host(year.rise_host)}, {year.rise_image}, {year.run_id(year.rise_night)}"
    print(f"planted: {planted}")
    for f in alerts:
        e = f["evidence"]
        print(f"named:   {e['change_pct']:.2f} % on {e['host']}, {e['image']}, {e['first_run']}")
    print(f"first comparison that names it: {_first_named(levels, year)}")
    if args.rates:
        for line in rates(args.rates):
            print(line)


def _first_named(levels: pd.DataFrame, year: Year) -> str:
    """Which nightly comparison, from the planted night on, names it first, and which confirms it."""
    mine = levels[
        (levels["host"] == year.host(year.rise_host)) & (levels["image"] == year.rise_image)
    ]
    series = mine["log_ratio"].to_numpy(float)
    alarms = []
    for after in range(1, min(31, year.nights - year.rise_night + 1)):
        found = follow(series[: year.rise_night + after], year.hosts * len(year.images)).changes
        alarms.append([c.settled for c in found if abs(c.index - year.rise_night) <= 2])
    first = next((i for i, t in enumerate(alarms, start=1) if t), None)
    sure = next((i for i, t in enumerate(alarms, start=1) if any(t)), None)
    sd = 100 * follow(series, 1).sd  # type: ignore[operator]
    return f"after {first} night(s), confirmed after {sure} (a night's SD is {sd:.2f} %)"


def rates(years: int, nights: int = 365, series: int = 40) -> Iterator[str]:
    """False alarms of steady years, and how soon changes are named, on noise of one SD a night."""
    rng = np.random.default_rng(20260101)
    wrong = [0, 0]
    for _ in range(years):
        courses = [follow(rng.normal(size=nights), series) for _ in range(series)]
        wrong[0] += any(c.settled for k in courses for c in k.changes)
        wrong[1] += any(not c.settled for k in courses for c in k.changes)
    yield (
        f"{years} steady years of {series} series: a change named in {wrong[0]}, "
        f"an unconfirmed alert on the last night in {wrong[1]}"
    )
    yield "change in SDs of a night | named on its first night | within 3 | within 7 | right night"
    for size in (2, 3, 4, 6, 8):
        first: list[int | None] = []
        right = 0
        for _ in range(200):
            x = rng.normal(size=120)
            x[100:] += size
            named = None
            for end in range(101, 121):
                found = [c for c in follow(x[:end], series).changes if c.index >= 97]
                if found:
                    named = end - 100
                    break
            first.append(named)
            right += any(c.index == 100 for c in follow(x, series).changes)
        shares = [sum(f is not None and f <= k for f in first) / 2 for k in (1, 3, 7)]
        cells = " | ".join(f"{s:.0f} %" for s in shares)
        yield f"{size} | {cells} | {right / 2:.0f} %"


if __name__ == "__main__":
    main()
