"""Kill what can be killed in mid-trial: every planned trial is measured once all the same."""

from __future__ import annotations

import os
import signal
import time

import pytest

from demo import bed as beds
from demo.timings import Timings
from tests.integration.conftest import Lab
from tests.integration.interventions import children
from wattbench.dag_runs import Run, Task
from wattbench.local.processes import service

pytestmark = pytest.mark.docker


def measuring(tasks: list[Task]) -> Task | None:
    """The trial whose measure task waits in the triggerer now."""
    return next(
        (t for t in tasks if t.task_id.endswith(".measure") and t.state == "deferred"), None
    )


def wait_for_window(lab: Lab, run: Run) -> Task:
    """Wait until the host itself has an attempt's container running."""
    task: Task = lab.wait_for(run, measuring)
    lab.wait_for(run, lambda _: lab.on_host(0, "docker ps -q --filter label=wattbench.run"))
    return task


def assert_measured_once(lab: Lab, run: Run) -> None:
    assert run.state == "success", lab.table(run)
    stored = lab.stored(run)
    records = stored.records("virtual-1")
    assert set(records) == {t.name for t in stored.plan("virtual-1")}
    assert all([r.row.status for r in attempts] == ["valid"] for attempts in records.values())


def test_killing_the_scheduler_in_mid_trial_loses_and_repeats_nothing(lab: Lab) -> None:
    run = lab.trigger("it-kill", seed="1", blocks=1)
    wait_for_window(lab, run)
    scheduler = service(lab.bed.checkout, "scheduler")
    pid = scheduler.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    beds.up(lab.bed.checkout, lambda _: None, Timings(time.time()))
    assert_measured_once(lab, lab.follow(run, within_s=900))


def test_killing_the_triggerer_in_mid_trial_loses_and_repeats_nothing(lab: Lab) -> None:
    """The window may be over before the next one is up; tests of the windows show that it attaches."""
    run = lab.trigger("it-kill", seed="2", blocks=1)
    wait_for_window(lab, run)
    (triggerer,) = children(lab, "triggerer")
    os.kill(triggerer, signal.SIGKILL)
    assert_measured_once(lab, lab.follow(run, within_s=900))


def test_a_host_that_reboots_in_mid_trial_is_measured_again(lab: Lab) -> None:
    import docker

    run = lab.trigger("it-kill", seed="3", blocks=1)
    wait_for_window(lab, run)
    docker.from_env().containers.get(lab.bed.hosts[0].container).restart(timeout=5)
    run = lab.follow(run, within_s=900)
    assert run.state == "success", lab.table(run)
    records = lab.stored(run).records("virtual-1")
    assert sorted(len(attempts) for attempts in records.values()) == [1, 2]
    assert all(attempts[-1].row.status == "valid" for attempts in records.values())
