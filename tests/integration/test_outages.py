"""What a run needs goes away for a while and comes back: it waits, says so, and loses no attempt."""

from __future__ import annotations

import json
import time

import pytest

from tests.integration.conftest import Lab
from tests.integration.interventions import AT_WORK, at_work, stopped
from wattbench.dag_runs import Run, Task

pytestmark = [pytest.mark.docker, pytest.mark.faults]


@pytest.fixture(scope="module", autouse=True)
def experiments(lab: Lab) -> None:
    lab.write_experiment(
        "it-outage", hosts=["virtual-1"], images={"pip-numpy": {"ref": lab.image("pip-numpy")}},
        protocol={
            "blocks": 2, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120,
            "rest": {"min_s": 0.5, "max_s": 5},
            "idle_baseline": {"seconds": 10, "every_blocks": 1, "per": "host"},
        },
    )  # fmt: skip


def assert_measured_once_and_in_time(lab: Lab, run: Run) -> None:
    assert run.state == "success", lab.table(run)
    rows = [[r.row for r in rs] for rs in lab.stored(run).records("virtual-1").values()]
    assert len(rows) == 4
    assert [[(row.attempt, row.status, row.late) for row in attempts] for attempts in rows] == [
        [(1, "valid", False)]
    ] * 4


def test_a_store_that_refuses_its_keys_for_a_while_is_waited_for(lab: Lab) -> None:
    path = lab.bed.checkout.demo / "connections.json"
    before = path.read_text()
    wrong = json.loads(before)
    wrong["wattbench_store"]["password"] = "revoked"
    run = lab.trigger("it-outage")
    lab.wait_for(run, lambda tasks: at_work(tasks, "trial.measure"))
    path.write_text(json.dumps(wrong))
    try:
        lab.wait_for(run, lambda tasks: any(waits(lab, run, task) for task in tasks), within_s=300)
    finally:
        path.write_text(before)  # read again by whoever waits
    assert_measured_once_and_in_time(lab, lab.follow(run))


def waits(lab: Lab, run: Run, task: Task) -> bool:
    if task.state not in AT_WORK or not task.task_id.startswith("virtual-1."):
        return False
    return "waiting for the store" in lab.log(run, task.task_id, task.map_index)


def test_docker_away_during_check_is_waited_for(lab: Lab) -> None:
    lab.in_container(
        0, "sh", "-c", "mkdir -p /run/hold; touch /run/hold/dockerd; kill -9 $(cat /run/docker.pid)"
    )
    try:
        run = lab.trigger("it-outage")
        lab.wait_for(
            run,
            lambda tasks: (
                at_work(tasks, "virtual-1.check")
                and "trying again in" in lab.log(run, "virtual-1.check")
            ),
        )
    finally:
        lab.in_container(0, "rm", "-f", "/run/hold/dockerd")
    assert_measured_once_and_in_time(lab, lab.follow(run))


def test_an_api_server_that_is_away_for_minutes_costs_no_attempt(lab: Lab) -> None:
    run = lab.trigger("it-outage")
    lab.wait_for(run, lambda tasks: at_work(tasks, "trial.measure"))
    with stopped(lab, "api-server"):
        time.sleep(120)  # there is no event for "long enough that every task has died"
    assert_measured_once_and_in_time(lab, lab.follow(run, within_s=900))
