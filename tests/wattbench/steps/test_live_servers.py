"""Servers through the controller's own steps, on this machine's Docker: stored, proven, measured, judged."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.live_chain import STAND_IN, Here, Shelf, judged, quiet_platform
from tests.support.local_docker import base_image, containers, docker, networks
from tests.support.servers import SERVER
from wattbench.analysis.model.records import Record
from wattbench.config.hosts import HostConfig, HostsConfig
from wattbench.config.loader import read_experiment
from wattbench.errors import HostError
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run
from wattbench.steps.load_host import LoadHost, load_host_of
from wattbench.steps.prepare import prepare
from wattbench.steps.prove_workload import prove
from wattbench.steps.trial import await_end, begin, bring
from wattbench.worker.agent import limits
from wattbench.worker.agent.processes import processes_of
from wattbench.worker.attempt_spec import expectation

pytestmark = [pytest.mark.docker]

METER = {"kind": "modelled", "interval_ms": 100, "command": [str(STAND_IN)]}
HOSTS = HostsConfig.model_validate(
    {
        "store": {"bucket": "wattbench"},
        "hosts": {
            "h1": {"ssh_conn_id": "x", "meter": METER, "address": "127.0.0.1"},
            "load-1": {"ssh_conn_id": "y"},
        },
    }
)


class Memory(Shelf):
    def check(self) -> None: ...


@pytest.fixture(scope="module")
def ref(registry: Any) -> Iterator[str]:
    """The base image in a registry, and by its digest on this machine."""
    name = f"{registry.address}/servers/base:v1"
    docker("tag", base_image(), name)
    docker("push", name)
    yield name
    docker("rmi", name)


class Bench:
    """One host with its agent, and an experiment with a server."""

    def __init__(self, folder: Path, ref: str) -> None:
        self.folder, self.ref, self.host = folder, ref, Here(folder / "spool")
        self.other = Here(folder / "load-spool")
        self.host.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
        (folder / "server.py").write_text(SERVER)
        lines = [json.dumps({"path": "/predict", "json": {"x": n}}) for n in range(50)]
        (folder / "requests.jsonl").write_text("\n".join(lines))

    def run(self, load: dict[str, Any] | None = None, **does: Any) -> Run:
        path = self.folder / "servers.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "hosts": ["h1"],
                    "workload": {
                        "serve": {
                            "command": ["python3", "/bench/server.py", json.dumps(does)],
                            "port": 8000, "ready": {"http": "/health", "timeout_s": 20},
                        },
                        "files": {"/bench/server.py": "server.py"},
                        "load": {
                            "requests": "requests.jsonl", "expect": {"json": "$.label"}, "warmup": 4,
                            "steps": [{"concurrency": 2, "requests": 60}, {"rate_per_s": 30, "seconds": 2}],
                            **(load or {}),
                        },
                    },
                    "images": {"a": {"ref": self.ref}},
                    "reference": "a",
                    "protocol": {"timeout_s": 60, "idle_baseline": None},
                }
            )
        )  # fmt: skip
        store: Any = Memory()
        return prepare(
            store, HOSTS, read_experiment(path), run_id="run-1",
            identity={"dag_id": "servers", "dag_run_id": "1", "run_after": "2026-01-01T00:00:00+00:00"},
            skipped_hosts={}, skipped_images={}, registries={}, folder=self.folder,
        )  # fmt: skip

    def load_host(self, run: Run) -> LoadHost | None:
        """Another spool of this machine as the host that the load comes from."""
        return load_host_of(run, lambda _, work: work(self.other))

    def prove(self, run: Run) -> None:
        host: Any = self.host
        prove(run, host, "h1", "a", self.load_host(run))

    def record(self, run: Run, while_it_runs: Callable[[], None] = lambda: None) -> Record:
        """One trial, begun and waited for, brought into the store, evaluated as ``collect`` does it."""
        trial = PlannedTrial(1, 1, "workload", "a")
        host: Any = self.host
        begun = begin(run, host, "h1", trial, {"rested_s": 1.0}, load=self.load_host(run))
        while_it_runs()
        await_end(run, host, "h1", begun)
        answer = self.host.call("status", {"id": f"run-1/h1/{trial.name}/1"})
        key = store_keys.trial_key("run-1", "h1", trial.name, 1)
        raw = bring(run, host, answer["report"], answer["path"], key)
        config = HostConfig.model_validate(run.document["hosts"]["h1"]["config"])
        expected = expectation(run.experiment, config, trial)
        return judged(answer["report"], raw, expected, trial, "h1")[0]


@pytest.fixture
def bench(tmp_path: Path, ref: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("WATTBENCH_METER_CONFIG", "/nonexistent")
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(quiet_platform(tmp_path / "platform")))
    monkeypatch.setenv("WATTBENCH_METER_FAULT", "cpus:2,idle_w:40,core_w:0,dram_core_w:0")
    bench = Bench(tmp_path, ref)
    yield bench
    bench.host.call("cleanup", {"owner": "run-1"})
    bench.other.call("cleanup", {"owner": "run-1"})
    assert containers(tmp_path / "spool") == ""
    assert networks(tmp_path / "spool") == ""


def test_a_server_is_proven_measured_and_its_requests_are_stored(bench: Bench) -> None:
    run = bench.run()
    assert run.document["experiment"]["analysis"]["endpoint"] == "steady"
    bench.prove(run)
    assert bench.host.call("list", {})["attempts"] == []  # the probe leaves nothing
    record = bench.record(run)
    row = record.row
    assert row.status != "failed", row.reason
    assert row.unit == "request"
    names = [p.name for p in record.phases]
    assert [n for n in names if n != "other"] == [
        "start",
        "warmup",
        "steady:c2",
        "steady:r30",
        "stop",
    ]
    # 40 W of a machine that does nothing: a phase's joules are its seconds
    for phase in record.phases:
        if phase.name.startswith("steady") and phase.duration_s > 0.5:
            assert phase.energy_j == pytest.approx(40 * phase.duration_s, rel=0.1)
    stored = run.store.get(store_keys.trial_key("run-1", "h1", "001-a", 1, "requests.csv.gz"))
    lines = stored.decode().splitlines()
    assert row.units == sum(line.split(",")[6] == "200" for line in lines) - 4
    # the seed is the run's: the planned arrivals are those of every other trial
    from wattbench.workloads.load.plan import Step

    offsets = Step("r30", rate_per_s=30.0, seconds=2.0).offsets_s(run.seed)
    times = [float(line.split(",")[2]) for line in lines if line.startswith("r30,")]
    gaps = [b - offsets[0] for b in offsets]
    assert sorted(t - min(times) for t in times) == pytest.approx(gaps, abs=1e-4)


@pytest.mark.parametrize(
    ("load", "does", "said"),
    [
        ({}, {"lies": True}, "Connection refused (GET /health had been answered with success)"),
        ({}, {"redirects": True}, "it was answered 302 to /elsewhere instead of 200"),
        ({"expect": {"json": "$.score"}}, {}, "the answer has no 'score'"),
        ({}, {"port": "none"}, "the server ended with 1: "),
    ],
    ids=["lies", "redirects", "other answers", "does not start"],
)
def test_a_server_that_can_t_be_measured_is_refused_before_its_first_trial(
    bench: Bench, load: dict[str, Any], does: dict[str, Any], said: str
) -> None:
    with pytest.raises(HostError) as error:
        bench.prove(bench.run(load, **does))
    assert error.value.code == "workload"
    text = str(error.value)
    assert text.startswith("images.a: its server failed: the workload ended with 1: ")
    assert said in text
    assert text.endswith("; try it with docker run on the host (docs/servers.md)")
    assert "\n" not in text


def test_a_server_that_dies_in_mid_step_fails_its_trial_with_the_reason(bench: Bench) -> None:
    record = bench.record(bench.run(dies_after=30))
    assert record.row.status == "failed"
    assert record.row.reason is not None
    assert "the server ended with 3: MemoryError: no more (phase steady:c2)" in record.row.reason
    assert record.row.energy_j is None


# ── a load from another host ────────────────────────────────────────────────────────────────────────


def elsewhere(bench: Bench, load: dict[str, Any] | None = None, **does: Any) -> tuple[Run, int]:
    """A run whose load comes from another host, as its check has left it, and the port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    run = bench.run({"from": {"host": "load-1", "port": port}, **(load or {})}, **does)
    run.write_host_document("h1", {"load": {"host": "load-1", "address": "127.0.0.1"}})
    return run, port


def assert_closed(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_load_from_another_host_is_proven_measured_and_stored_alike(bench: Bench) -> None:
    run, port = elsewhere(bench)
    bench.prove(run)
    assert bench.host.call("list", {})["attempts"] == []
    record = bench.record(run)
    row = record.row
    assert row.status != "failed", row.reason
    assert [p.name for p in record.phases if p.name != "other"] == [
        "start", "warmup", "steady:c2", "steady:r30", "stop",
    ]  # fmt: skip
    for phase in record.phases:
        if phase.name.startswith("steady") and phase.duration_s > 0.5:
            assert phase.energy_j == pytest.approx(40 * phase.duration_s, rel=0.1)
    clock = record.timing["load_clock"]
    assert clock["doubt_s"] is not None
    assert clock["ahead_s"] == pytest.approx(0, abs=clock["doubt_s"])  # one machine, one clock
    assert clock["relay_cpu_s"] is not None
    assert clock["relay_cpu_s"] > 0
    stored = run.store.get(store_keys.trial_key("run-1", "h1", "001-a", 1, "requests.csv.gz"))
    assert (
        row.units == sum(line.split(",")[6] == "200" for line in stored.decode().splitlines()) - 4
    )
    assert all(step.cpu_s and step.late_p99_s is not None for step in record.steps)
    (loaded,) = bench.other.call("list", {})["attempts"]  # the probe's is gone
    assert (loaded["id"], loaded["outcome"]) == ("run-1/load-1/001-a/1", "done")
    assert_closed(port)


LONG = {"steps": [{"rate_per_s": 20, "seconds": 50}]}


def until_loaded(bench: Bench) -> Path:
    """The attempt's folder, once its step is under way."""
    folder = bench.host.spool / "trials/run-1/001-a/1"
    log, deadline = folder / "stdout.log", time.monotonic() + 60
    while "steady:" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, "the load did not begin"
        bench.host.call("wait", {"id": "run-1/h1/001-a/1", "timeout_s": 0.2})
    return folder


def test_a_load_host_that_loses_its_generator_fails_the_attempt_by_name(bench: Bench) -> None:
    run, port = elsewhere(bench, LONG)

    def kill() -> None:
        until_loaded(bench)
        folder = str(bench.other.spool / "trials/run-1/001-a/1")
        for pid in processes_of(None, folder):
            if b"load.json" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    record = bench.record(run, kill)
    assert record.row.status == "failed"
    assert record.row.reason is not None
    assert "the load generator of load-1 is gone: its connection from 127.0.0.1 was lost: " in (
        record.row.reason
    )
    assert "(phase steady:r20)" in record.row.reason
    assert record.row.energy_j is None
    assert_closed(port)


def test_a_server_that_dies_ends_the_load_on_the_other_host(bench: Bench) -> None:
    run, port = elsewhere(bench, LONG, dies_after=30)
    record = bench.record(run)
    assert record.row.reason is not None
    assert "the server ended with 3: MemoryError: no more (phase steady:r20)" in record.row.reason
    ended = bench.other.wait("run-1/load-1/001-a/1", 20)
    assert ended["over"]
    assert "the server ended with 3" in ended["report"]["message"]
    assert_closed(port)


@pytest.mark.parametrize("how", ["cleanup", "supervisor killed"])
def test_an_attempt_that_is_ended_closes_the_port_and_ends_the_load(bench: Bench, how: str) -> None:
    run, port = elsewhere(bench, LONG)

    def end() -> None:
        folder = until_loaded(bench)
        if how == "cleanup":
            bench.host.call("cleanup", {"owner": "run-1"})
            return
        known = json.loads((folder / "supervisor.json").read_text())
        os.kill(known["supervisor"]["pid"], signal.SIGKILL)

    record = bench.record(run, end)
    assert record.row.status == "failed"
    assert_closed(port)
    assert bench.other.wait("run-1/load-1/001-a/1", 20)["over"]
    assert processes_of(None, str(bench.other.spool / "trials/run-1/001-a/1")) == []


def test_a_load_that_never_comes_fails_the_attempt_by_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, port = elsewhere(bench)
    monkeypatch.setattr(LoadHost, "ask", lambda *_: None)
    record = bench.record(run)
    assert record.row.reason is not None
    assert (
        f"no load generator of load-1 connected to 127.0.0.1 port {port} within "
        f"{limits.LOAD_CONNECT_S:g} s" in record.row.reason
    )
