"""A load from another host that does not go to its end: a person interferes, or the load host fails in mid-window."""

from __future__ import annotations

import time
from collections.abc import Callable

import docker
import pytest

from demo import hosts
from tests.integration.conftest import Lab
from tests.integration.interventions import (
    assert_closed,
    clear_run,
    clear_task,
    cut_link,
    delete,
    set_state,
    set_task_state,
)
from tests.integration.test_load_host import assert_nothing_left, wait_for_load, write
from wattbench.analysis.model.trials import TrialRow
from wattbench.dag_runs import Run

pytestmark = [pytest.mark.docker, pytest.mark.faults]

#: Long enough to be met in its middle; of the second it is also where Airflow takes a minute to end a marked run.
SECONDS = {"it-load-ends": 45, "it-load-ended": 100}
ENDS, ENDED = SECONDS
MEASURE = "virtual-1.trial.measure"
#: After this time without an answer both sides of the load's connection give it up, s.
LOST_S = 60


@pytest.fixture(scope="module", autouse=True)
def experiments(lab: Lab) -> None:
    for name, seconds in SECONDS.items():
        write(lab, name, [{"rate_per_s": 20, "seconds": seconds}])


def begun(lab: Lab, name: str = ENDS) -> Run:
    """A run whose only trial is in its window, its load under way."""
    run = lab.trigger(name)
    wait_for_load(lab, run)
    return run


def rows(lab: Lab, run: Run) -> list[TrialRow]:
    """The attempts of the run's only trial, once the run has left nothing on either host."""
    assert_closed(lab, run)
    assert_nothing_left(lab, run)
    stored = lab.stored(run)
    (planned,) = stored.plan("virtual-1")
    return [record.row for record in stored.records("virtual-1").get(planned.name, [])]


def failed_under(lab: Lab, fails: Callable[[Lab], None]) -> tuple[Run, list[TrialRow]]:
    """A run whose load host fails in mid-window, and the attempts of its trial."""
    run = begun(lab)
    fails(lab)
    run = lab.follow(run)
    return run, rows(lab, run)


def assert_honest(lab: Lab, run: Run, attempts: list[TrialRow]) -> None:
    """The last attempt was measured, and the run is green exactly if that is valid (a busy bed may judge otherwise)."""
    assert attempts[-1].status != "failed", attempts[-1].reason
    assert (run.state == "success") == (attempts[-1].status == "valid"), lab.table(run)
    assert f"{int(attempts[-1].status == 'valid')}/1 trials valid" in lab.log(run, "verdict")


# ── what a person does ──────────────────────────────────────────────────────────────────────────


def test_a_trial_that_is_cleared_under_load_is_measured_to_its_end(lab: Lab) -> None:
    """The same attempt: `measure` attaches to it, and the load host is not asked again."""
    run = begun(lab)
    clear_task(lab, run, MEASURE, 0)
    run = lab.follow(run)
    attempts = rows(lab, run)
    assert_honest(lab, run, attempts)
    assert attempts[0].status != "failed", attempts[0].reason


def test_a_run_that_is_cleared_under_load_is_measured_in_the_end(lab: Lab) -> None:
    run = begun(lab)
    clear_run(lab, run)
    run = lab.follow(run)
    assert_honest(lab, run, rows(lab, run))


def test_a_trial_that_is_marked_failed_under_load_is_collected_all_the_same(lab: Lab) -> None:
    run = begun(lab)
    task = lab.wait_for(
        run,
        lambda tasks: next((t for t in tasks if (t.task_id, t.state) == (MEASURE, "deferred")), None),
    )  # fmt: skip
    set_task_state(lab, run, task, "failed")
    run = lab.follow(run)
    assert_honest(lab, run, rows(lab, run))


def test_a_run_that_is_marked_failed_under_load_ends_red_with_its_books_closed(lab: Lab) -> None:
    run = begun(lab, ENDED)
    set_state(lab, run, "failed")
    run = lab.follow(run)
    assert run.state == "failed", lab.table(run)
    (row,) = rows(lab, run)
    assert (row.attempt, row.status) == (1, "failed")
    assert "0/1 trials valid" in lab.log(run, "verdict")
    assert "virtual-1 and virtual-2 are free" in lab.log(run, "virtual-1.release")


def test_a_run_that_is_deleted_under_load_is_closed_from_outside(lab: Lab) -> None:
    run = begun(lab, ENDED)
    delete(lab, run)
    upkeep = lab.follow(lab.trigger("wattbench-housekeeping"))
    assert f"{run.run_id} closed from outside" in lab.log(upkeep, "keep_house")
    (row,) = rows(lab, run)
    assert (row.attempt, row.status) == (1, "failed")


# ── what the load host does ─────────────────────────────────────────────────────────────────────


def kill(pattern: str) -> Callable[[Lab], None]:
    return lambda lab: print(lab.in_container(1, "pkill", "-KILL", "-f", pattern))


@pytest.mark.parametrize(
    "fails",
    [
        pytest.param(kill("[s]shd"), id="sshd killed"),
        pytest.param(kill("[.]pyz supervise"), id="supervisor killed"),
        pytest.param(lambda lab: cut_link(lab, 1, 5), id="link down for 5 s"),
    ],
)
def test_a_load_goes_on_without_what_it_does_not_need(
    lab: Lab, fails: Callable[[Lab], None]
) -> None:
    run, attempts = failed_under(lab, fails)
    assert_honest(lab, run, attempts)
    assert attempts[0].status != "failed", attempts[0].reason


def reboot(lab: Lab) -> None:
    """Without a word to anyone, as a power cut."""
    host = docker.from_env().containers.get(lab.bed.hosts[1].container)
    host.kill()
    time.sleep(5)
    host.start()
    hosts.wait_until_ready(lab.bed.hosts[1], within_s=90)


@pytest.mark.parametrize(
    "fails",
    [
        pytest.param(reboot, id="host without power for 5 s"),
        pytest.param(lambda lab: cut_link(lab, 1, LOST_S), id="link down for 60 s"),
    ],
)
def test_an_attempt_without_its_load_host_fails_by_name_and_another_is_made(
    lab: Lab, fails: Callable[[Lab], None]
) -> None:
    run, attempts = failed_under(lab, fails)
    assert (attempts[0].status, len(attempts)) == ("failed", 2)
    assert "the load generator of virtual-2 is gone: its connection from " in str(
        attempts[0].reason
    )
    assert "(phase steady:r20)" in str(attempts[0].reason)
    assert_honest(lab, run, attempts)
