"""A load from another host, through the DAG: virtual-1 is measured, virtual-2 asks, nothing is left on either."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from tests.integration.conftest import Lab
from tests.integration.interventions import at_work
from tests.integration.test_servers import requests, server
from tests.support.servers import SERVER
from wattbench.analysis.model.trials import TrialRow
from wattbench.dag_runs import Run, Task
from wattbench.run import host_claims, store_keys
from wattbench.workloads.program_bundle import load_bundle

pytestmark = pytest.mark.docker

#: Power of the modelled host when its CPUs cost nothing: joules of a step are its seconds.
SWITCHES = {"idle_w": 8.0, "core_w": 0.0, "dram_idle_w": 0.8, "dram_core_w": 0.0}
POWER_W = 8.8
PORT = 18000
PROTOCOL = {
    "blocks": 1, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120,
    "rest": {"min_s": 0.5, "max_s": 5}, "idle_baseline": None, "attempts": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def even_power(lab: Lab) -> Iterator[None]:
    """The measured host's meter shows the same power whatever its CPUs do."""
    path = "/etc/wattbench-meter.json"
    lab.in_container(0, "sh", "-c", f"echo '{json.dumps(SWITCHES)}' > {path}")
    yield
    lab.in_container(0, "rm", path)


def write(lab: Lab, name: str, steps: list[dict[str, Any]], **slower: dict[str, Any]) -> None:
    """One fast server and the slower ones, loaded by virtual-2."""
    folder, ref = lab.config / "experiments", lab.image("pip-numpy")
    (folder / "server.py").write_text(SERVER)
    lines = [json.dumps({"path": "/predict", "json": {"n": n}}) for n in range(30)]
    (folder / "requests.jsonl").write_text("\n".join(lines))
    lab.write_experiment(
        name,
        hosts=[lab.bed.hosts[0].name],
        protocol=PROTOCOL,
        workload={
            "serve": {"port": 8000, "ready": {"http": "/health", "timeout_s": 20}},
            "files": {"/bench/server.py": "server.py"},
            "load": {
                "requests": "requests.jsonl", "steps": steps, "warmup": 4,
                "expect": {"json": "$.label"}, "slo": {"p99_ms": 500},
                "from": {"host": lab.bed.hosts[1].name, "port": PORT},
            },
        },
        reference="fast",
        images={"fast": server(ref)} | {name: server(ref, **does) for name, does in slower.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(lab: Lab, even_power: None) -> Run:
    steps = [{"concurrency": 2, "requests": 60}, {"rate_per_s": 20, "seconds": 8}]
    write(lab, "it-load-host", steps, slow={"delay_s": 0.1})
    return lab.follow(lab.trigger("it-load-host"), within_s=600)


def assert_nothing_left(lab: Lab, run: Run) -> None:
    assert lab.on_host(0, "docker network ls --filter label=wattbench.spool -q") == ""
    assert lab.on_host(0, "docker ps -aq --filter label=wattbench.spool") == ""
    for index in (0, 1):
        left = f"ls /var/spool/wattbench/trials/{run.run_id}; cat /var/spool/wattbench/lease.json"
        assert lab.on_host(index, f"({left}) 2>/dev/null || true") == ""
        assert lab.on_host(index, "pgrep -f 'load[.]json' || true") == ""
    assert host_claims.claims(lab.store) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((lab.bed.hosts[0].address, PORT), 5)


def wait_for_load(lab: Lab, run: Run) -> str:
    """The load generator's process, once its step is under way."""

    def loading(tasks: list[Task]) -> str | None:
        if at_work(tasks, "trial.measure") is None:
            return None
        spool = f"/var/spool/wattbench/trials/{run.run_id}"
        begun = lab.in_container(
            0, "sh", "-c", f"grep -l steady: {spool}/0*/1/stdout.log 2>/dev/null || true"
        )
        return lab.on_host(1, "pgrep -f 'load[.]json' || true") if begun else None

    return str(lab.wait_for(run, loading, within_s=300).split()[0])


def seconds(lab: Lab, run: Run, row: TrialRow, step: str) -> float:
    """Length of a step by the load host's own monotonic clock."""
    stored = lab.stored(run)
    trial = next(t for t in stored.plan(row.host) if t.image == row.image)
    key = store_keys.trial_key(run.run_id, row.host, trial.name, row.attempt or 0, "workload.jsonl")
    events = [json.loads(line) for line in lab.store.get(key).splitlines()]
    begin, end = (
        e["mono_s"] for e in events if e["event"] == "phase" and e["name"] == f"steady:{step}"
    )
    return float(end - begin)


def test_joules_per_request_of_a_load_from_another_host_are_the_truth(lab: Lab, run: Run) -> None:
    """Whatever else the machine below does: a generator that it keeps from its CPU is a finding."""
    stored = lab.stored(run)
    host, other = (one.name for one in lab.bed.hosts[:2])
    records = [record for found in stored.records(host).values() for record in found]
    assert {record.row.image for record in records} == {"fast", "slow"}
    truth_j: dict[tuple[str, str], float] = {}
    for record in records:
        assert record.row.status != "failed", record.row.reason
        clock = record.timing["load_clock"]
        assert clock["doubt_s"] is not None
        assert clock["ahead_s"] == pytest.approx(0, abs=clock["doubt_s"])  # one machine, one clock
        assert [step.name for step in record.steps] == ["c2", "r20"]
        for step in record.steps:
            joules = POWER_W * seconds(lab, run, record.row, step.name)
            assert step.energy_j == pytest.approx(joules, abs=step.energy_uncertainty_j)
            if record.row.status == "valid":
                truth_j[record.row.image, step.name] = joules / step.succeeded
    table = lab.store.get(store_keys.report_key(run.run_id, "tables", "steps.csv"))
    for row in pd.read_csv(io.BytesIO(table)).itertuples():
        truth = truth_j[str(row.image), str(row.step)]
        assert row.j_per_request == pytest.approx(truth, abs=row.j_per_request_uncertainty)
    fast, slow = (requests(lab, run, image, "r20") for image in ("fast", "slow"))
    offsets = [[r["planned_s"] - rows[0]["planned_s"] for r in rows] for rows in (fast, slow)]
    assert offsets[0] == pytest.approx(offsets[1], abs=1e-4)
    assert min(r["latency_s"] for r in slow) >= 0.1
    load = stored.document["hosts"][host]["load"]
    assert (load["host"], load["ports"]) == (other, [PORT])
    assert load["address"] == lab.bed.hosts[0].address
    assert load["peer"] == lab.bed.hosts[1].address
    assert load["generator_sha256"] == load_bundle().sha256
    page = lab.store.get(store_keys.report_key(run.run_id, "index.html")).decode()
    assert f"from {other} (not measured)" in page


def test_nothing_of_the_load_is_left_on_either_host(lab: Lab, run: Run) -> None:
    assert run.over
    assert_nothing_left(lab, run)


def test_a_generator_that_is_killed_in_mid_step_fails_its_attempt_and_another_is_made(
    lab: Lab, even_power: None
) -> None:
    write(lab, "it-load-killed", [{"rate_per_s": 20, "seconds": 25}])
    run = lab.trigger("it-load-killed")
    host, other = (one.name for one in lab.bed.hosts[:2])

    pid = wait_for_load(lab, run)
    lab.in_container(1, "kill", "-KILL", pid)
    run = lab.follow(run, within_s=600)
    stored = lab.stored(run)
    failed = [
        record.row
        for records in stored.records(host).values()
        for record in records
        if record.row.status == "failed"
    ]
    assert [row.attempt for row in failed] == [1]
    assert f"the load generator of {other} is gone: its connection from " in str(failed[0].reason)
    assert "(phase steady:r20)" in str(failed[0].reason)
    again = stored.records(host)[
        next(t for t in stored.plan(host) if t.image == failed[0].image).name
    ]
    assert [record.row.attempt for record in again] == [1, 2]
    assert again[1].row.status != "failed", again[1].row.reason
    assert_nothing_left(lab, run)
