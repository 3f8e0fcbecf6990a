"""The real bed: two virtual hosts, a registry, an object store and Airflow, brought up once a session."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from demo import airflow, campaign, docker_engine, hosts, network, settings
from demo import bed as beds
from demo.bed import Bed
from demo.checkout import here
from demo.timings import Timings
from wattbench.cli.airflow_api import Client
from wattbench.dag_runs import Run, Task
from wattbench.local.connections import connection_id
from wattbench.run.stored_run import Run as StoredRun
from wattbench.storage.object_store import Store

CONTROL_ROUNDS = 2_000


#: One of several processes of `make faults` that share a bed: the number of the host that is its first.
LANE = os.environ.get("WATTBENCH_TEST_LANE")


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    checkout = here()
    if LANE is not None:  # whoever started the lanes has brought the bed up and holds its lock
        client = docker_engine.ensure(checkout, lambda _: None)
        shared = beds.describe(checkout, network.ensure(client, checkout))
        first = int(LANE)
        yield replace(shared, hosts=[*shared.hosts[first:], *shared.hosts[:first]])
        return
    with checkout.lock("tests"):
        yield beds.up(checkout, lambda text: print(text, file=sys.stderr), Timings(time.time()))


@dataclass
class Lab:
    """What tests do with the bed: write experiments, trigger, wait for states, look at hosts."""

    bed: Bed
    client: Client
    store: Store

    @property
    def config(self) -> Path:
        return settings.folder(self.bed.checkout)

    def image(self, name: str) -> str:
        return f"{self.bed.registry.pull}/wattbench/{name}:demo"

    def trigger(self, dag_id: str, **conf: Any) -> Run:
        self.client.wait_for_dag(dag_id, within_s=120)
        return self.client.trigger(dag_id, conf)

    def follow(self, run: Run, within_s: float = 600) -> Run:
        deadline = time.monotonic() + within_s
        while not (run := self.client.run(run)).over:
            assert time.monotonic() < deadline, self.table(run)
            time.sleep(1)
        return run

    def wait_for(
        self,
        run: Run,
        seen: Callable[[list[Task]], Any],
        within_s: float = 180,
        every_s: float = 0.5,
    ) -> Any:
        deadline = time.monotonic() + within_s
        while not (found := seen(self.client.tasks(run))):
            assert time.monotonic() < deadline, self.table(run)
            assert not self.client.run(run).over, self.table(run)
            time.sleep(every_s)
        return found

    def table(self, run: Run) -> str:
        lines = [
            f"{t.task_id} {t.map_index} {t.state} try {t.try_number}"
            for t in self.client.tasks(run)
        ]
        return f"{run.dag_id} is {run.state}:\n" + "\n".join(lines)

    def state(self, run: Run, task_id: str) -> str | None:
        return next(t.state for t in self.client.tasks(run) if t.task_id == task_id)

    def log(self, run: Run, task_id: str, map_index: int = -1) -> str:
        task = next(
            t for t in self.client.tasks(run) if (t.task_id, t.map_index) == (task_id, map_index)
        )
        return "\n".join(line.event for line in self.client.log(run, task))

    def stored(self, run: Run) -> StoredRun:
        return StoredRun.load(self.store, run.run_id)

    def on_host(self, index: int, command: str) -> str:
        code, said = hosts.run(self.bed.hosts[index], command)
        assert code == 0, said
        return said

    def in_container(self, index: int, *argv: str) -> str:
        """As root inside a worker, past its sshd: what breaks and mends it."""
        container = docker.from_env().containers.get(self.bed.hosts[index].container)
        code, output = container.exec_run(list(argv))
        assert code == 0, output.decode()
        return output.decode()

    def write_experiment(self, name: str, **changes: Any) -> None:
        base = {
            "hosts": [h.name for h in self.bed.hosts],
            "device": "cpu",
            "workload": {"framework": "numpy", "passes": [{"resolution": 64, "iterations": 4}]},
            "images": {
                "pip-numpy": {"ref": self.image("pip-numpy")},
                "one-thread": {"ref": self.image("pip-numpy"), "env": {"OPENBLAS_NUM_THREADS": "1"}},
            },
            "reference": "pip-numpy",
            "protocol": {
                "blocks": 2, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120,
                "rest": {"min_s": 0.5, "max_s": 5}, "idle_baseline": None,
            },
        } | changes  # fmt: skip
        (self.config / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(base))
        airflow.parse_again(self.bed.checkout)

    def add_hosts(self, added: dict[str, Any], connections: dict[str, Any]) -> None:
        path = self.config / "hosts.yaml"
        document = yaml.safe_load(path.read_text())
        document["hosts"] |= added
        path.write_text(yaml.safe_dump(document))
        path = self.bed.checkout.demo / "connections.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | connections))

    def connection(self, index: int) -> dict[str, Any]:
        known = json.loads((self.bed.checkout.demo / "connections.json").read_text())
        return dict(known[connection_id(self.bed.hosts[index].name)])


@pytest.fixture(scope="session")
def lab(bed: Bed) -> Iterator[Lab]:
    made = Lab(bed, airflow.connect(bed.airflow), campaign.open_store(bed))
    if LANE is not None:
        yield made
        return
    made.write_experiment(
        "it-campaign", protocol={
            "blocks": 3, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120, "rest": {"min_s": 0.5, "max_s": 5},
            "idle_baseline": {"seconds": 2, "every_blocks": 3, "per": "image"},
        },
    )  # fmt: skip
    made.write_experiment(
        "it-kill", workload={"framework": "numpy", "passes": [{"resolution": 256, "iterations": 40}]}, hosts=[bed.hosts[0].name],
    )  # fmt: skip
    made.write_experiment(
        "it-second", hosts=[bed.hosts[0].name],
        protocol={
            "blocks": 2, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120, "rest": {"min_s": 0.5, "max_s": 5},
            "idle_baseline": None, "control": {"rounds": CONTROL_ROUNDS},
        },
    )  # fmt: skip
    yield made
    for path in (made.config / "experiments").glob("it-*.yaml"):
        path.unlink()
    for path in (made.config / "hosts.yaml", bed.checkout.demo / "connections.json"):
        path.unlink()  # with the hosts that tests have added
    settings.write(bed.checkout, bed.hosts, bed.store, bed.registry, lambda _: None)
