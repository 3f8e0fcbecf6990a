"""Test bed: its parts, the order in which they start, and which start side by side."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from demo import (
    airflow,
    base_image,
    docker_engine,
    hosts,
    network,
    registry,
    settings,
    workloads,
)
from demo.base_image import Bases
from demo.checkout import Checkout
from demo.hosts import VirtualHost
from demo.network import Network
from demo.registry import Registry
from demo.timings import Timings
from wattbench.dag_runs import Run
from wattbench.local import airflow_services, credentials, object_store
from wattbench.local.airflow_services import Airflow
from wattbench.local.object_store import ObjectStore
from wattbench.local.processes import service

Say = Callable[[str], None]
#: For Airflow's database and logs, the store, and what is built; images lie in Docker's folder.
MIN_FREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Bed:
    """Everything of a checkout's test bed and how to reach it."""

    checkout: Checkout
    network: Network
    registry: Registry
    store: ObjectStore
    hosts: list[VirtualHost]
    airflow: Airflow

    def environment(self) -> dict[str, str]:
        """What `wattbench` needs to reach this bed."""
        return {
            "WATTBENCH_CONFIG": str(settings.folder(self.checkout)),
            "WATTBENCH_AIRFLOW_URL": self.airflow.url,
            "WATTBENCH_AIRFLOW_USER": self.airflow.user,
            "WATTBENCH_AIRFLOW_PASSWORD": self.airflow.password,
            # `host check` and `host release` log in as Airflow does
            **{k: v for k, v in self.airflow.settings.items() if "__SECRETS__" in k},
            "AIRFLOW_HOME": str(self.airflow.home),
        }

    def guide(self) -> str:
        """How a person reaches each part, one line each."""
        demo = self.checkout.demo.relative_to(self.checkout.root)
        lines = [
            f"Airflow        {self.airflow.url}  user {self.airflow.user}, password in "
            f"{demo}/airflow_passwords.json",
            f"Airflow's CLI  set -a; . {demo}/airflow.env; set +a; .venv/bin/airflow dags list",
            f"object store   {self.store.endpoint}  keys in {demo}/credentials.json, "
            f"bucket {object_store.BUCKET}",
            f"registry       push to {self.registry.push}, pull from {self.registry.pull}",
            *(
                f"{host.name}      ssh -F {demo}/ssh/config {host.name}  "
                f"({host.address}, core {host.core}, container {host.container})"
                for host in self.hosts
            ),
        ]
        return "\n".join(lines)


def describe(checkout: Checkout, net: Network) -> Bed:
    """All addresses, ports, keys and passwords, chosen where there are none yet; starts nothing."""
    secrets = credentials.ensure(checkout)
    return Bed(
        checkout,
        net,
        registry.describe(checkout, net),
        object_store.describe(checkout, secrets),
        hosts.describe(checkout, net),
        airflow.describe(checkout, secrets, settings.folder(checkout)),
    )


def up(checkout: Checkout, say: Say, timings: Timings) -> Bed:
    """Brings everything up; what is up already stays as it is.

    Raises:
        UserError: something can't be had; one line that says what and what to do.
    """
    checkout.require_room(MIN_FREE_BYTES)
    with timings.step("Docker"):
        client = docker_engine.ensure(checkout, say)
        net = network.ensure(client, checkout)
    bed = describe(checkout, net)
    settings.write(checkout, bed.hosts, bed.store, bed.registry, say)
    run = running(bed)
    if run:
        say(f"a run is going on ({run.id}): hosts and images stay as they are")
    with ThreadPoolExecutor() as pool:
        services = [
            pool.submit(_airflow, bed, say, timings),
            pool.submit(_store_and_registry, bed, say, timings),
        ]
        with timings.step("base image"):
            bases = base_image.ensure(client, checkout, say)
        services.append(pool.submit(_hosts, bed, bases, bool(run), say, timings))
        services[1].result()  # images need the registry
        if not run:
            workloads.ensure(checkout, bases, bed.registry, say, timings)
        for part in services:
            part.result()
    with timings.step("Airflow ready"):
        airflow_services.wait_until_ready(checkout, bed.airflow)
    return bed


def running(bed: Bed) -> Run | None:
    """The demo's active run; None where Airflow does not answer."""
    if service(bed.checkout, "api-server").pid() is None:
        return None
    return airflow.connect(bed.airflow).running(settings.EXPERIMENT)


def _airflow(bed: Bed, say: Say, timings: Timings) -> None:
    with timings.step("Airflow's database and processes"):
        say(f"Airflow at {bed.airflow.url}")
        airflow_services.ensure(bed.checkout, bed.airflow, credentials.ensure(bed.checkout))


def _store_and_registry(bed: Bed, say: Say, timings: Timings) -> None:
    with timings.step("object store"):
        object_store.ensure(bed.checkout, bed.store)
    with timings.step("registry"):
        registry.ensure(bed.checkout, bed.registry, say)


def _hosts(bed: Bed, bases: Bases, keep: bool, say: Say, timings: Timings) -> None:
    client = docker_engine.ensure(bed.checkout, say)  # a client is not for use by several threads
    with timings.step("worker host image"):
        image_id = None if keep else hosts.build_image(client, bed.checkout, bases)
    with timings.step("worker hosts"):
        for host in bed.hosts:
            say(f"worker host {host.name}: {host.address}, core {host.core}")
            hosts.ensure(client, bed.checkout, bed.network, host, image_id, bed.registry.pull)
