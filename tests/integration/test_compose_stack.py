"""docker-compose.airflow.yml started for real: the demo's experiment, every service restarted in the middle of it."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from demo import settings
from demo.bed import Bed
from deploy.stack import Stack
from tests.integration.conftest import Lab
from tests.integration.interventions import at_work
from tests.integration.local_stack import LocalStack, prepare
from tests.integration.test_web_in_airflow import (
    assert_every_route_asks_who_is_there,
    open_in_chromium,
)
from wattbench.cli.airflow_api import Connection
from wattbench.dag_runs import Run, Task
from wattbench.local import packages
from wattbench.local.connections import connection_id
from wattbench.run import store_keys

pytestmark = pytest.mark.docker

#: Together where they don't need each other.
IMAGES = ["pip-numpy", "pip-numpy-leftovers"]
RESTARTS = (("store", "dag-processor", "triggerer"), ("api-server",), ("postgres",), ("scheduler",))


@pytest.fixture(scope="module")
def local(bed: Bed) -> Iterator[LocalStack]:
    packages.require({"docker-compose": "docker-compose"}, print)
    made = prepare(bed)
    # what an interrupted session has left
    made.stack.compose("down", "--volumes", "--timeout", "3")
    try:
        up = made.deploy("up")
        assert up.returncode == 0, up.stderr
        yield made
    finally:
        made.stack.compose("down", "--volumes", "--timeout", "3")


@dataclass(frozen=True)
class Finished:
    """A run and when which service was started anew in it."""

    run: Run
    restarted: dict[str, datetime]


def started_at(stack: Stack, service: str) -> datetime:
    text = subprocess.check_output(
        ["docker", "inspect", "--format", "{{.State.StartedAt}}", str(stack.container(service))], text=True
    )  # fmt: skip
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", text.strip()))


def lab_of(local: LocalStack) -> Lab:
    return Lab(local.bed, local.client, local.store)


def measuring(tasks: list[Task]) -> bool:
    return at_work(tasks, ".measure") is not None


def trials(local: LocalStack, run: Run) -> list[dict[str, str]]:
    table = local.store.get(store_keys.report_key(run.run_id, "trials.csv")).decode()
    return list(csv.DictReader(io.StringIO(table)))


@pytest.fixture(scope="module")
def finished(local: LocalStack) -> Finished:
    host, client = local.bed.hosts[0], local.client
    conn_id = connection_id(host.name)
    known = settings.connections_of([host], local.bed.store)[conn_id]
    client.add_connection(
        conn_id, Connection(known["host"], known["login"], known["port"], known["extra"])
    )
    lab = lab_of(local)
    run = lab.trigger(settings.EXPERIMENT, hosts=[host.name], blocks=1, images=IMAGES)
    lab.wait_for(run, measuring, within_s=300)
    for services in RESTARTS:
        local.stack.compose("restart", *services)
        local.stack.wait_until_healthy()
        assert not client.run(run).over
    run = lab.follow(run)
    restarted = {s: started_at(local.stack, s) for services in RESTARTS for s in services}
    return Finished(run, restarted)


def test_the_demo_reaches_its_report_with_every_service_restarted_in_it(
    local: LocalStack, finished: Finished
) -> None:
    assert finished.run.state == "success", local.client.tasks(finished.run)
    assert len(finished.restarted) == 6
    assert min(finished.restarted.values()) > finished.run.run_after
    store, run_id = local.store, finished.run.run_id
    assert store.verify_manifest(store_keys.run_key(run_id)) == ()
    assert store.verify_manifest(store_keys.report_key(run_id)) == ()
    rows = trials(local, finished.run)
    assert {row["host"] for row in rows} == {local.bed.hosts[0].name}
    assert {row["status"] for row in rows} == {"valid"}
    assert {row["image"] for row in rows if row["kind"] == "workload"} == set(IMAGES)


def as_airflow_names_it(run: Run) -> dict[str, Any]:
    return {"dag_id": run.dag_id, "dag_run_id": run.id, "run_after": run.run_after.isoformat()}


def test_every_route_asks_who_is_there(local: LocalStack, finished: Finished) -> None:
    assert_every_route_asks_who_is_there(local.url, local.token, as_airflow_names_it(finished.run))


def test_who_may_only_look_sees_the_pages_too(local: LocalStack, finished: Finished) -> None:
    headers = {"Authorization": f"Bearer {local.token}"}
    viewer = {"username": "ann", "password": "ann-looks-around", "first_name": "Ann", "last_name": "B",
              "email": "ann@example.org", "roles": [{"name": "Viewer"}]}  # fmt: skip
    made = requests.post(f"{local.url}/auth/fab/v1/users", json=viewer, headers=headers, timeout=30)
    assert made.ok, made.text
    login = {"username": "ann", "password": "ann-looks-around"}
    token = requests.post(f"{local.url}/auth/token", json=login, timeout=30).json()["access_token"]
    page = requests.get(
        f"{local.url}/wattbench/runs/{finished.run.run_id}", cookies={"_token": token}, timeout=60
    )
    assert page.status_code == 200
    start = requests.post(
        f"{local.url}/api/v2/dags/demo/dagRuns", json={"logical_date": None, "conf": {}},
        headers={"Authorization": f"Bearer {token}"}, timeout=30,
    )  # fmt: skip
    assert start.status_code == 403


def logged_in(local: LocalStack) -> str:
    """The cookie of a person who has filled in the login form."""
    known = local.stack.variables
    with requests.Session() as browser:
        form = browser.get(f"{local.url}/auth/login/", timeout=60).text
        (csrf,) = set(re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', form))
        browser.post(
            f"{local.url}/auth/login/", timeout=60,
            data={"username": known["WATTBENCH_ADMIN"], "password": known["WATTBENCH_ADMIN_PASSWORD"],
                  "csrf_token": csrf},
        )  # fmt: skip
        return str(browser.cookies["_token"])


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_open_in_chromium_after_a_login(
    local: LocalStack, finished: Finished, tmp_path: Path, theme: str
) -> None:
    target = f"{local.url}/wattbench/runs/{finished.run.run_id}"
    done = open_in_chromium(target, logged_in(local), tmp_path, theme, "--dump-dom")
    assert f"<h1>{finished.run.run_id}</h1>" in done.stdout
    assert "Refused" not in done.stderr


def query(stack: Stack, sql: str) -> str:
    psql = ("psql", "--username=airflow", "--dbname=airflow", "--no-align", "--tuples-only")
    return stack.output("exec", "-T", "postgres", *psql, "--command", sql)


CONTENT = "select dag_id, run_id, state from dag_run; select conn_id, extra from connection; select username, password from ab_user order by id"


def test_a_backup_is_restored_into_a_new_deployment_and_over_nothing_else(
    local: LocalStack, finished: Finished, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    saved = local.deploy("backup", str(folder))
    assert saved.returncode == 0, saved.stderr
    over_itself = local.deploy("restore", str(folder))
    assert over_itself.returncode == 2
    assert re.search(r"deploy: the database holds \d+ tables already; ", over_itself.stderr)

    other = replace(local, env_file=tmp_path / "env")
    shutil.copy2(local.env_file, other.env_file)
    with other.env_file.open("a") as file:
        file.write(f"COMPOSE_PROJECT_NAME={local.bed.checkout.prefix}-restored\n")
    try:
        restored = other.deploy("restore", str(folder))
        assert restored.returncode == 0, restored.stderr
        assert query(other.stack, CONTENT) == query(local.stack, CONTENT) != ""
        run = store_keys.run_key(finished.run.run_id)
        assert other.store.verify_manifest(run) == ()
        assert other.store.list() == local.store.list()
    finally:
        other.stack.compose("down", "--volumes", "--timeout", "3")

    with other.env_file.open("a") as file:
        file.write("FERNET_KEY=another\n")
    strange = other.deploy("restore", str(folder))
    assert (strange.returncode, strange.stderr.count("\n")) == (2, 1)
    assert "has another FERNET_KEY" in strange.stderr
    (folder / "store.tar").write_bytes(b"")
    damaged = local.deploy("restore", str(folder))
    assert (damaged.returncode, damaged.stderr.count("\n")) == (2, 1)
    assert "store.tar is damaged" in damaged.stderr


def test_a_team_that_outgrows_one_controller_has_its_tasks_done_by_workers(
    local: LocalStack, finished: Finished
) -> None:
    with local.env_file.open("a") as file:
        file.write("WATTBENCH_EXECUTOR=CeleryExecutor\nCOMPOSE_PROFILES=celery\n")
    up = local.deploy("up")
    assert up.returncode == 0, up.stderr
    lab, host = lab_of(local), local.bed.hosts[0].name
    run = lab.trigger(settings.EXPERIMENT, hosts=[host], blocks=1, images=IMAGES[:1])
    lab.wait_for(run, measuring, within_s=300)
    local.stack.compose("restart", "--timeout", "5", "broker", "worker")
    run = lab.follow(run)
    assert run.state == "success", lab.table(run)
    assert {row["status"] for row in trials(local, run)} == {"valid"}
    names = query(
        local.stack, f"select distinct hostname from task_instance where run_id = '{run.id}'"
    )
    assert names.split() == [hostname(local.stack, "worker")]


def hostname(stack: Stack, service: str) -> str:
    return stack.output("exec", "-T", service, "hostname")
