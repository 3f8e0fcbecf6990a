"""A configuration of one host and one experiment, and a server in the place of Airflow's REST API."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.airflow_server import FakeAirflow
from tests.support.s3_server import KEY, SECRET, Server
from wattbench.local.controller import Controller, default_path
from wattbench.local.state_folder import StateFolder

HOSTS = """\
store: {conn_id: wattbench_store, bucket: wattbench}   # where logs go
hosts:
  # the old one
  cpu-a:
    ssh_conn_id: wattbench_cpu_a
    meter: {kind: powercap}
# the end
registries: {}
"""
EXPERIMENT = """\
seed: 7
hosts: [cpu-a]
workload: {passes: [{resolution: 64, iterations: 2}]}
images: {one: {ref: 'example.org/one:1'}, two: {ref: 'example.org/two:1'}}
reference: one
protocol: {blocks: 2, idle_baseline: null, rest: {min_s: 10}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    (folder / "experiments").mkdir(parents=True)
    (folder / "hosts.yaml").write_text(HOSTS)
    (folder / "experiments" / "small.yaml").write_text(EXPERIMENT)
    monkeypatch.setenv("WATTBENCH_CONFIG", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("URL", "USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"WATTBENCH_AIRFLOW_{name}", raising=False)
    return folder


@pytest.fixture
def airflow(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    fake = FakeAirflow()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("WATTBENCH_AIRFLOW_URL", fake.url)
    monkeypatch.setenv("WATTBENCH_AIRFLOW_USER", "ann")
    monkeypatch.setenv("WATTBENCH_AIRFLOW_PASSWORD", "secret")
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


@pytest.fixture
def own(
    airflow: FakeAirflow, config: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> Controller:
    """An embedded controller that is up: its Airflow is the server above, its store a real one.

    Its processes are this one, so none of them must be stopped.
    """
    for name in ("URL", "USER", "PASSWORD"):
        monkeypatch.delenv(f"WATTBENCH_AIRFLOW_{name}")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    state = StateFolder(default_path())
    state.folder("run")
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for name in Controller(state).down():
        (state.path / "run" / f"{name}.pid").write_text(f"{os.getpid()} {started} {boot} x\n")
    ports = {"airflow-api": airflow.server.server_address[1], "store": server.port}
    (state.path / "ports.json").write_text(json.dumps(ports))
    keys = {"store_key": KEY, "store_secret": SECRET}
    (state.path / "credentials.json").write_text(json.dumps(keys))
    (state.path / "versions.json").write_text("{}")
    state.folder("dags").joinpath("wattbench_dags.py").touch()
    config.rename(state.path / "config")
    return Controller(state)
