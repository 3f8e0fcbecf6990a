"""However a run ends: every trial accounted for, a report, raw logs in the store, the host free, the right colour.

All of it through Airflow's REST API and command line under the real scheduler, as the UI does it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Lab
from tests.integration.interventions import (
    active,
    assert_closed,
    at_work,
    children,
    clear_run,
    clear_task,
    delete,
    pause,
    set_state,
    set_task_state,
)
from wattbench.dag_runs import Run, Task
from wattbench.local.processes import service
from wattbench.run import host_claims, store_keys

pytestmark = pytest.mark.docker

HOUSEKEEPING = "wattbench-housekeeping"
#: Long enough to be met in its middle, also where Airflow takes 20 s to end a task of a marked run.
IDLE_S = 60
#: An image, two idle windows, an image: whichever idle window is met, a trial comes after it.
SEED = 2


@pytest.fixture(scope="module", autouse=True)
def experiments(lab: Lab) -> None:
    lab.write_experiment(
        "it-ends", hosts=["virtual-1"], seed=SEED, images={"pip-numpy": {"ref": lab.image("pip-numpy")}},
        protocol={
            "blocks": 2, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120,
            "rest": {"min_s": 0.5, "max_s": 5},
            "idle_baseline": {"seconds": IDLE_S, "every_blocks": 1, "per": "host"},
        },
    )  # fmt: skip


# ── where a run is ──────────────────────────────────────────────────────────────────────────────


def wait_for_idle_window(lab: Lab, run: Run) -> str:
    """Wait until an idle window is open, between a trial that is over and one that is not begun."""

    def found(tasks: list[Task]) -> str | None:
        over = [t for t in tasks if t.task_id.endswith("trial.collect") and t.state == "success"]
        attempt = active(lab) if over else None
        return attempt if attempt and "-idle/" in attempt else None

    attempt = str(lab.wait_for(run, found, within_s=400))
    assert attempt.split("/")[2] != lab.stored(run).plan("virtual-1")[-1].name
    return attempt


@pytest.mark.parametrize(("state", "attempt_is"), [("failed", "failed"), ("success", "valid")])
def test_a_run_that_is_marked_in_mid_window_ends_red_with_its_books_closed(
    lab: Lab, state: str, attempt_is: str
) -> None:
    """Marked failed, the window is ended; marked success, `measure` counts as done and is collected."""
    run = lab.trigger("it-ends")
    attempt = wait_for_idle_window(lab, run)
    set_state(lab, run, state)
    run = lab.follow(run)
    assert run.state == "failed", lab.table(run)
    assert_closed(lab, run)
    stored = lab.stored(run)
    _, _, name, number = attempt.split("/")
    ended = stored.records("virtual-1")[name][-1]
    assert (ended.row.attempt, ended.row.status) == (int(number), attempt_is)
    assert lab.store.exists(
        store_keys.trial_key(stored.run_id, "virtual-1", name, int(number), "energibridge.csv.gz")
    )
    valid = [n for n, r in stored.records("virtual-1").items() if r[-1].row.status == "valid"]
    assert valid
    said = lab.log(run, "verdict")
    assert f"{len(valid)}/4 trials valid" in said
    assert "virtual-1 is free" in lab.log(run, "virtual-1.release")


@pytest.mark.faults
def test_a_deleted_run_is_closed_from_outside(lab: Lab) -> None:
    run = lab.trigger("it-ends")
    attempt = wait_for_idle_window(lab, run)
    delete(lab, run)
    upkeep = lab.follow(lab.trigger(HOUSEKEEPING))
    assert upkeep.state == "success", lab.log(upkeep, "keep_house")
    assert f"{run.run_id} closed from outside" in lab.log(upkeep, "keep_house")
    assert_closed(lab, run)
    name = attempt.split("/")[2]
    assert lab.stored(run).records("virtual-1")[name][-1].row.status == "failed"


@pytest.mark.faults
def test_a_paused_run_goes_on_where_it_was(lab: Lab) -> None:
    run = lab.trigger("it-ends")
    wait_for_idle_window(lab, run)
    pause(lab, "it-ends", True)
    try:
        lab.wait_for(
            run, lambda _: active(lab) is None
        )  # the window ends as if nothing had happened
    finally:
        pause(lab, "it-ends", False)
    run = lab.follow(run)
    assert run.state == "success", lab.table(run)
    assert_closed(lab, run)
    attempts = lab.stored(run).records("virtual-1")
    assert {len(records) for records in attempts.values()} == {1}


@pytest.mark.faults
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_trial_that_is_marked_in_mid_window_is_collected_all_the_same(
    lab: Lab, state: str
) -> None:
    run = lab.trigger("it-ends")
    attempt = wait_for_idle_window(lab, run)
    task = lab.wait_for(
        run,
        lambda tasks: next(
            (t for t in tasks if t.task_id.endswith("trial.measure") and t.state == "deferred"),
            None,
        ),
    )
    set_task_state(lab, run, task, state)
    run = lab.follow(run)
    assert run.state == "success", lab.table(run)
    assert_closed(lab, run)
    records = lab.stored(run).records("virtual-1")[attempt.split("/")[2]]
    assert [r.row.status for r in records] == ["valid"]


@pytest.mark.faults
def test_a_run_that_is_cleared_in_mid_window_measures_all_in_the_end(lab: Lab) -> None:
    run = lab.trigger("it-ends")
    wait_for_idle_window(lab, run)
    clear_run(lab, run)
    run = lab.follow(run)
    assert run.state == "success", lab.table(run)
    assert_closed(lab, run)
    assert all(r[-1].row.status == "valid" for r in lab.stored(run).records("virtual-1").values())


@pytest.fixture(scope="module")
def finished(lab: Lab) -> Run:
    """Two trials, no idle window: what is measured again comes before another trial."""
    lab.write_experiment(
        "it-again", hosts=["virtual-1"], images={"pip-numpy": {"ref": lab.image("pip-numpy")}}
    )
    run = lab.follow(lab.trigger("it-again"))
    assert run.state == "success", lab.table(run)
    return run


def test_a_trial_is_cleared_over_rest_and_measured_again(lab: Lab, finished: Run) -> None:
    """Alone, without what comes after it: what closes the run comes along."""
    cleared = clear_task(lab, finished, "virtual-1.trial.measure", 0)
    assert {"virtual-1.release", "analyze"} <= set(cleared)
    run = lab.follow(finished)
    assert run.state == "success", lab.table(run)
    assert_closed(lab, run)
    stored = lab.stored(run)
    first = stored.plan("virtual-1")[0]
    rows = [r.row for r in stored.records("virtual-1")[first.name]]
    assert [(row.attempt, row.status, row.late) for row in rows] == [
        (1, "valid", False), (2, "valid", True),
    ]  # fmt: skip


@pytest.mark.faults
def test_a_trial_is_cleared_by_the_command_line_and_measured_again(lab: Lab) -> None:
    """`airflow tasks clear` takes all runs of a DAG, so this one has a single run of a single trial."""
    lab.write_experiment(
        "it-cleared", hosts=["virtual-1"], images={"pip-numpy": {"ref": lab.image("pip-numpy")}}
    )
    first = lab.follow(lab.trigger("it-cleared", blocks=1))
    assert first.state == "success", lab.table(first)
    environment = {}
    for line in (lab.bed.checkout.demo / "airflow.env").read_text().splitlines()[1:]:
        key, _, value = line.partition("=")
        environment[key] = shlex.split(value)[0]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("airflow")), "tasks", "clear", "it-cleared", "--yes", "--downstream",
         "--task-regex", "virtual-1.trial.measure"],  # Airflow 3 takes a part of the id
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = lab.follow(first)
    assert run.state == "success", lab.table(run)
    assert_closed(lab, run)
    (records,) = lab.stored(run).records("virtual-1").values()
    assert [(r.row.attempt, r.row.status, r.row.late) for r in records] == [
        (1, "valid", False), (2, "valid", True),
    ]  # fmt: skip


@pytest.mark.faults
def test_a_host_that_turns_out_unfit_is_given_back(lab: Lab) -> None:
    lab.add_hosts(
        {"blind": {"ssh_conn_id": "it_blind", "spool": "/var/spool/wattbench/blind",
                   "meter": {"kind": "modelled", "command": "/usr/local/bin/absent-meter"}}},
        {"it_blind": lab.connection(1)},
    )  # fmt: skip
    lab.write_experiment("it-blind", hosts=["blind"])
    run = lab.follow(lab.trigger("it-blind", blocks=1))
    assert run.state == "failed", lab.table(run)
    assert "absent-meter" in lab.log(run, "blind.check")
    assert lab.state(run, "blind.release") == "success"
    assert lab.on_host(1, "cat /var/spool/wattbench/blind/lease.json 2>/dev/null || true") == ""
    assert host_claims.claims(lab.store) == []


@pytest.mark.faults
def test_who_waits_for_a_host_does_not_touch_it(lab: Lab) -> None:
    first = lab.trigger("it-ends")
    wait_for_idle_window(lab, first)
    second = lab.trigger("it-second", seed="1")
    waiting = lambda _: lab.log(second, "virtual-1.check").count("waiting for virtual-1") >= 2  # noqa: E731
    logins = lambda: lab.in_container(0, "grep", "-c", "Accepted publickey", "/var/log/sshd.log")  # noqa: E731
    # The host's own account of who came in, read past its sshd while one window is open.
    lab.wait_for(
        second, lambda tasks: any(t.task_id == "virtual-1.check" and t.state for t in tasks)
    )
    attempt, before = active(lab), int(logins())
    lab.wait_for(second, waiting)
    if active(lab) == attempt:  # else trials of the first run itself came in
        assert int(logins()) - before <= 1  # our own look at the lease
    set_state(lab, second, "failed")
    assert f"held by {first.run_id}" in lab.log(second, "virtual-1.check")
    assert lab.follow(first).state == "success"
    lab.follow(second)


@pytest.mark.faults
def test_a_scheduler_that_lives_but_schedules_nothing_is_started_again(lab: Lab) -> None:
    run = lab.trigger("it-ends")
    wait_for_idle_window(lab, run)
    watchdog = service(lab.bed.checkout, "scheduler")
    before = children(lab, "scheduler")
    (scheduler,) = before
    os.kill(scheduler, signal.SIGSTOP)
    lab.wait_for(run, lambda _: children(lab, "scheduler") - before, within_s=240)
    run = lab.follow(run, within_s=900)
    assert run.state == "success", lab.table(run)
    assert "lives but has been unhealthy" in watchdog.log.read_text(errors="replace")
    attempts = lab.stored(run).records("virtual-1")
    assert {len(records) for records in attempts.values()} == {1}


@pytest.mark.faults
def test_a_run_that_is_not_over_in_time_is_reported_once(lab: Lab) -> None:
    lab.write_experiment(
        "it-hangs", hosts=["virtual-1"], alert_after_h=0.001,
        images={"pip-numpy": {"ref": lab.image("pip-numpy")}},
    )  # fmt: skip
    run = lab.trigger("it-hangs")
    lab.wait_for(run, lambda tasks: at_work(tasks, ".trial.measure"))
    upkeep = lab.follow(lab.trigger(HOUSEKEEPING))
    assert "run-hangs: it-hangs: the run is not over" in lab.log(upkeep, "keep_house")
    again = lab.follow(lab.trigger(HOUSEKEEPING))
    assert "run-hangs" not in lab.log(again, "keep_house")
    set_state(lab, run, "failed")
    lab.follow(run)
