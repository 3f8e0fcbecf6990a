"""Servers through the DAG, on a virtual host: loaded alike, recorded request by request, refused with a reason."""

from __future__ import annotations

import csv
import gzip
import json
import math
from typing import Any

import pytest

from tests.integration.conftest import Lab
from tests.support.servers import SERVER
from wattbench.dag_runs import Run
from wattbench.run import store_keys

pytestmark = pytest.mark.docker

LOAD: dict[str, Any] = {
    "requests": "requests.jsonl",
    "steps": [{"concurrency": 2, "requests": 60}, {"rate_per_s": 20, "seconds": 8}],
    "warmup": 4,
    "expect": {"json": "$.label"},
    "slo": {"p99_ms": 500},
}


def server(ref: str, **does: Any) -> dict[str, Any]:
    command = ["python3", "/bench/server.py", json.dumps(does)]
    return {"ref": ref, "env": {"PYTHONPATH": ""}, "command": command}


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    folder, ref = lab.config / "experiments", lab.image("pip-numpy")
    (folder / "server.py").write_text(SERVER)
    lines = [json.dumps({"path": "/predict", "json": {"n": n}}) for n in range(30)]
    (folder / "requests.jsonl").write_text("\n".join(lines))
    lab.write_experiment(
        "it-servers",
        hosts=[lab.bed.hosts[0].name],
        workload={
            "serve": {"port": 8000, "ready": {"http": "/health", "timeout_s": 20}},
            "files": {"/bench/server.py": "server.py"},
            "load": LOAD,
        },
        protocol={
            "blocks": 1, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120,
            "rest": {"min_s": 0.5, "max_s": 5}, "idle_baseline": None, "attempts": 1,
        },
        reference="fast",
        images={
            "fast": server(ref),
            "slow": server(ref, delay_s=0.1),
            "stalls": server(ref, stalls_at=100),
            "dies": server(ref, dies_after=30),
            "lies": server(ref, lies=True),
            "never": server(ref, ready_after_s=600),
        },
    )  # fmt: skip
    return lab.follow(lab.trigger("it-servers"), within_s=900)


def requests(lab: Lab, run: Run, image: str, step: str) -> list[dict[str, float]]:
    """Planned time and latency of a step's requests, by number, s."""
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    trial = next(t for t in stored.plan(host) if t.image == image)
    key = store_keys.trial_key(run.run_id, host, trial.name, 1, "requests.csv.gz")
    rows = csv.DictReader(gzip.decompress(lab.store.get(key)).decode().splitlines())
    found = [
        {
            "number": int(row["number"]),
            "planned_s": float(row["intended_unix_s"]),
            "latency_s": float(row["done_unix_s"]) - float(row["intended_unix_s"]),
        }
        for row in rows
        if row["step"] == step and not row["error"]
    ]
    return sorted(found, key=lambda r: r["number"])


def p99_s(rows: list[dict[str, float]]) -> float:
    ordered = sorted(r["latency_s"] for r in rows)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


def test_servers_are_loaded_alike_and_each_request_is_in_the_store(lab: Lab, run: Run) -> None:
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    rows = {r[-1].row.image: r[-1].row for r in stored.records(host).values()}
    for image in ("fast", "slow", "stalls"):
        assert rows[image].status != "failed", rows[image].reason
        assert rows[image].unit == "request"
    fast, slow = (requests(lab, run, image, "r20") for image in ("fast", "slow"))
    assert len(fast) == len(slow) > 100
    offsets = [[r["planned_s"] - rows[0]["planned_s"] for r in rows] for rows in (fast, slow)]
    assert offsets[0] == pytest.approx(offsets[1], abs=1e-4)
    assert min(r["latency_s"] for r in slow) >= 0.1


def test_a_stall_is_in_the_99th_percentile(lab: Lab, run: Run) -> None:
    assert p99_s(requests(lab, run, "stalls", "r20")) >= 1.5
    assert p99_s(requests(lab, run, "fast", "r20")) < 1.5


def test_a_server_that_dies_fails_its_trial_with_the_reason(lab: Lab, run: Run) -> None:
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    reasons = [
        str(r.row.reason)
        for rs in stored.records(host).values()
        for r in rs
        if r.row.image == "dies"
    ]
    assert reasons
    assert all(
        "the server ended with 3: MemoryError: no more (phase steady:c2)" in r for r in reasons
    )


def test_servers_that_can_t_be_measured_are_refused_before_their_first_trial(
    lab: Lab, run: Run
) -> None:
    stored = lab.stored(run)
    (host,) = stored.experiment.hosts
    pulls = stored.pulls(host)
    assert "Connection refused (GET /health had been answered with success)" in str(
        pulls["lies"]["error"]
    )
    assert "the server was not ready after 20 s: GET /health on port 8000" in str(
        pulls["never"]["error"]
    )


def test_nothing_of_a_server_is_left_on_its_host(lab: Lab, run: Run) -> None:
    assert run.over
    ours = "--filter label=wattbench.spool --format '{{.Name}}'"
    assert lab.on_host(0, f"docker network ls {ours}") == ""
    assert lab.on_host(0, f"docker ps -aq {ours.split(' --format')[0]}") == ""
