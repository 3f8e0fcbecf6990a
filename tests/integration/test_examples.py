"""The examples that run on a CPU, for real: images built from their Dockerfiles, through the DAG, to the curve in the report."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator

import pandas as pd
import pytest

from demo import settings, workloads
from tests.integration.conftest import Lab
from wattbench.dag_runs import Run
from wattbench.run import store_keys

pytestmark = pytest.mark.docker

EXAMPLES = ("embeddings", "small-llm")


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Iterator[dict[str, Run]]:
    """One block of each, as `python -m demo run NAME` does it, one after the other: they share a host."""
    bed = lab.bed
    for name in EXAMPLES:
        settings.add_example(bed.checkout, name, bed.registry, print)
        workloads.ensure_variants(bed.checkout, name, bed.registry, print)
    yield {name: lab.follow(lab.trigger(name, blocks=1), within_s=600) for name in EXAMPLES}
    for name in EXAMPLES:
        for path in (lab.config / "experiments").glob(f"{name}.*"):
            path.unlink()


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def table(lab: Lab, run: Run, name: str) -> pd.DataFrame:
    data = lab.store.get(store_keys.report_key(run.run_id, "tables", f"{name}.csv"))
    return pd.read_csv(io.BytesIO(data))


def requests(lab: Lab, run: Run, image: str) -> list[dict[str, str]]:
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    trial = next(t for t in stored.plan(host) if t.image == image)
    key = store_keys.trial_key(run.run_id, host, trial.name, 1, "requests.csv.gz")
    return list(csv.DictReader(gzip.decompress(lab.store.get(key)).decode().splitlines()))


def test_every_trial_is_measured_and_the_report_has_the_curve(
    lab: Lab, runs: dict[str, Run], example: str
) -> None:
    run = runs[example]
    assert run.state == "success", lab.table(run)
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    rows = {r[-1].row.image: r[-1].row for r in stored.records(host).values()}
    assert set(rows) == set(stored.experiment.images)
    steps = table(lab, run, "steps")
    for image, row in rows.items():
        assert row.status != "failed", row.reason
        assert image in set(steps["image"]), row.reason
    assert (steps["error_pct"] == 0).all()
    assert (steps[f"j_per_{row.unit}"] > 0).all()
    page = lab.store.get(store_keys.report_key(run.run_id, "index.html")).decode()
    assert f"figures/energy-latency-{host}.svg" in page


def test_both_embedding_servers_name_the_same_topic_for_every_text(
    lab: Lab, runs: dict[str, Run]
) -> None:
    answers = {
        image: {(r["step"], r["number"]): r["answer"] for r in requests(lab, runs["embeddings"], image)}
        for image in ("torch", "onnx")
    }  # fmt: skip
    assert answers["torch"] == answers["onnx"]
    assert len(set(answers["torch"].values())) > 1


def test_the_language_model_streams_tokens_that_its_server_counts(
    lab: Lab, runs: dict[str, Run]
) -> None:
    for image in ("one-slot", "four-slots"):
        for row in requests(lab, runs["small-llm"], image):
            assert row["tokens_out"] == "12"
            assert int(row["tokens_in"]) > 10
            first, done = float(row["first_byte_unix_s"]), float(row["done_unix_s"])
            assert float(row["sent_unix_s"]) < first < done
