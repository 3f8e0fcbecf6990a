"""What is fuzzed: a parser, its seeds, and how a seed is damaged.

The only outcomes allowed are success and :class:`~wattbench.analysis.model.errors.UserError`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz.mutate import damaged, damaged_json
from tests.support.image_tarballs import (
    PYTHON_START,
    docker_parts,
    members,
    python_base,
    torch_layer,
)

SEEDS = Path(__file__).with_name("seeds")

Damage = Callable[[bytes, random.Random], bytes]


class Target(NamedTuple):
    """One parser.

    Attributes:
        seeds: names of files in ``seeds/``, or what makes a seed.
        damage: changes a seed.
        parse: reads the bytes; may use the empty folder given.
    """

    seeds: tuple[str | Callable[[], bytes], ...]
    damage: Damage
    parse: Callable[[bytes, Path], object]

    def input(self, number: int) -> bytes:
        """The input of a number; the same one always."""
        rng = random.Random(number)
        seed = rng.choice(self.seeds)
        data = (SEEDS / seed).read_bytes() if isinstance(seed, str) else seed()
        return self.damage(data, rng)


def _energibridge(data: bytes, folder: Path) -> None:
    from wattbench.analysis.audit.importers.reduce import reduce_one
    from wattbench.analysis.meters.readers.energibridge import energibridge_reading
    from wattbench.analysis.model.errors import UserError

    reduce_one("x.csv", data)
    with contextlib.suppress(UserError):
        energibridge_reading(data)


def _nvml(data: bytes, folder: Path) -> object:
    from wattbench.analysis.meters.readers.nvml import nvml_reading

    return nvml_reading(data)


def _powercap(data: bytes, folder: Path) -> object:
    from wattbench.analysis.meters.readers.powercap import powercap_reading

    zones = {
        "intel-rapl:0": {"name": "package-0", "energy_uj": 1, "max_energy_range_uj": 262143328850}
    }
    return powercap_reading(data, zones)


def _hwmon(data: bytes, folder: Path) -> object:
    from wattbench.analysis.meters.readers.hwmon import hwmon_reading

    return hwmon_reading(data)


def _carbon_table(data: bytes, folder: Path) -> object:
    from wattbench.analysis.stats.costs import CarbonTable

    with contextlib.suppress(ValueError):  # which the config makes one line of
        return CarbonTable.of_csv(data.decode("utf-8", "replace"), "grid.csv")
    return None


def _attempt(data: bytes, folder: Path) -> object:
    """The agent's report, beside sound raw files."""
    from wattbench.analysis.meters.attempt import RawAttempt, evaluate
    from wattbench.analysis.model.records import Record
    from wattbench.analysis.model.trials import TrialRow
    from wattbench.analysis.storage.documents import parse_json

    report = parse_json(data, "attempt.json")
    files = {n: (SEEDS / n).read_bytes() for n in ("energibridge.csv", "workload.jsonl")}
    row = TrialRow("run", "lab", "workload", 1, None, 1, "image", attempt=1)
    record = evaluate(
        RawAttempt(report if isinstance(report, dict) else {}, files),
        expected={"meter": "energibridge", "passes": []},
        plan_row=row,
    )
    return Record.from_dict(json.loads(json.dumps(record.to_dict())))


def _requests(data: bytes, folder: Path) -> None:
    from wattbench.analysis.meters import load_steps, requests_log
    from wattbench.analysis.model.records import Phase

    found = requests_log.read({requests_log.FILE: data})
    expected = {"answers_compared": True, "slo": {"p99_ms": 50.0}}
    load_steps.steps_of(found, [], [Phase("steady:c4", 0.0, 1.0)], expected)


def _workload(data: bytes, folder: Path) -> object:
    from wattbench.analysis.meters import workload_log

    log = workload_log.parse(data)
    return log.phases(0.0, 1e10)


def _mapping(data: bytes, folder: Path) -> object:
    from wattbench.analysis.audit import mapping

    (folder / "mapping.yaml").write_bytes(data)
    return mapping.load(folder / "mapping.yaml")


def _run_table(data: bytes, folder: Path) -> object:
    from wattbench.analysis.audit import importers
    from wattbench.analysis.audit.discover import discover
    from wattbench.analysis.audit.importers import experiment_runner
    from wattbench.analysis.audit.mapping import Mapping

    (folder / "run_0").mkdir()
    (folder / "run_0" / "energibridge.csv").write_bytes((SEEDS / "energibridge.csv").read_bytes())
    (folder / "run_table.csv").write_bytes(data)
    found = discover(folder, importers.installed(), Mapping())
    context = importers.Context("x", Mapping(), lambda _: None, 1 << 20)
    return experiment_runner.IMPORTER.read(found, context)


def _image(data: bytes, folder: Path) -> None:
    from wattbench.analysis.image import archive, checks, render
    from wattbench.analysis.image.provenance import describe

    path = folder / "image.tar"
    path.write_bytes(data)
    image = describe(archive.read(str(path)))
    findings = checks.run(image, checks.Wants(), {})
    render.as_text(image, findings)
    render.write(image, findings, folder / "out")


@functools.cache
def _saved() -> bytes:
    return members(
        docker_parts([python_base(), torch_layer(cuda="12.4", library=b"x" * 900)], **PYTHON_START)
    )


def _damaged_tar(data: bytes, rng: random.Random) -> bytes:
    """Damage with the headers' checksums put right, so that it gets past them; at times in gzip."""
    import gzip

    changed = bytearray(damaged(data, rng) if rng.random() < 0.5 else data)
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.8 and len(changed) > 1024:
            block = rng.randrange(len(changed) // 512) * 512
            changed[block + rng.randrange(512)] = rng.randrange(256)
            total = (
                sum(changed[block : block + 148]) + sum(changed[block + 156 : block + 512]) + 256
            )
            changed[block + 148 : block + 156] = f"{total:06o}\0 ".encode()
    return gzip.compress(bytes(changed), 1, mtime=0) if rng.random() < 0.2 else bytes(changed)


def _image_document(data: bytes, folder: Path) -> None:
    """A changed config or manifest in an image that is sound otherwise."""
    parts = docker_parts([python_base()], **PYTHON_START)
    manifest = json.loads(parts["manifest.json"])
    document = json.loads(data)
    parts["config.json"] = json.dumps(
        document.get("config") if isinstance(document, dict) else document
    ).encode()
    config = json.loads(parts["config.json"])
    if isinstance(config, dict) and isinstance(config.get("rootfs"), dict):
        name = manifest[0]["Config"]
        config["rootfs"] |= (
            {"diff_ids": json.loads(parts[name])["rootfs"]["diff_ids"]}
            if document.get("right", True)
            else {}
        )
        parts["config.json"] = json.dumps(config).encode()
    parts["manifest.json"] = json.dumps(
        document.get("manifest") if isinstance(document, dict) else document
    ).encode()
    _image(members(parts), folder)


@functools.cache
def _image_documents() -> bytes:
    parts = docker_parts([python_base()], **PYTHON_START)
    manifest = json.loads(parts["manifest.json"])
    config = json.loads(parts[manifest[0]["Config"]])
    manifest[0]["Config"] = "config.json"
    return json.dumps({"manifest": manifest, "config": config}).encode()


def _trials(name: str) -> Callable[[bytes, Path], object]:
    def parse(data: bytes, folder: Path) -> object:
        from wattbench.analysis.storage.source import open_source
        from wattbench.analysis.trends import read

        (folder / name).write_bytes(data)
        stored = read.read_run(open_source(folder))
        return stored.frame(), read.together([stored])

    return parse


@functools.cache
def _parquet() -> bytes:
    import pyarrow.parquet as pq
    from pyarrow import csv

    table = csv.read_csv(SEEDS / "trials.csv")
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"wattbench": b'{"run_id": "r"}'}), buffer)
    return buffer.getvalue()


def _run(folder: Path, run: bytes, trial: bytes) -> Any:
    """A run of one trial, from its documents to its rows and findings."""
    from wattbench.analysis.runs import assemble, load
    from wattbench.analysis.storage.source import open_source

    key = "hosts/lab/trials/001-pytorch/1/trial.json"
    (folder / key).parent.mkdir(parents=True)
    (folder / key).write_bytes(trial)
    (folder / "run.json").write_bytes(run)
    data = assemble.assemble(load.load(open_source(folder)))
    return data, data.settings, [data.facts(host) for host in data.hosts]


def _trial_document(data: bytes, folder: Path) -> Any:
    return _run(folder, (SEEDS / "run.json").read_bytes(), data)


def _run_document(data: bytes, folder: Path) -> Any:
    return _run(folder, data, (SEEDS / "trial.json").read_bytes())


TARGETS: dict[str, Target] = {
    "energibridge": Target(("energibridge.csv", "energibridge_gpu.csv"), damaged, _energibridge),
    "nvml": Target(("nvml.csv",), damaged, _nvml),
    "powercap": Target(("powercap.csv",), damaged, _powercap),
    "hwmon": Target(("hwmon.csv",), damaged, _hwmon),
    "carbon-table": Target(("grid.csv",), damaged, _carbon_table),
    "attempt": Target(("attempt.json",), damaged_json, _attempt),
    "requests": Target(("requests.csv",), damaged, _requests),
    "workload": Target(("workload.jsonl",), damaged, _workload),
    "mapping": Target(("mapping.yaml",), damaged, _mapping),
    "run-table": Target(("run_table.csv",), damaged, _run_table),
    "image": Target((_saved,), _damaged_tar, _image),
    "image-document": Target((_image_documents,), damaged_json, _image_document),
    "trials-csv": Target(("trials.csv",), damaged, _trials("trials.csv")),
    "trials-parquet": Target((_parquet,), damaged, _trials("trials.parquet")),
    "trial-document": Target(("trial.json",), damaged_json, _trial_document),
    "run-document": Target(("run.json",), damaged_json, _run_document),
}
