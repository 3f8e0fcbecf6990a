"""What people read while a run goes on: recorded task states → one line a host."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from demo.screen import Screen
from wattbench.cli.airflow_api import LogLine, last_error
from wattbench.dag_runs import Task
from wattbench.progress import HostProgress, describe, percent, spoken

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
PLAN = ["01 · pip-torch", "02 · apt-torch (idle)", "03 · apt-torch", "04 · pip-torch"]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def task(
    name: str, state: str | None, index: int = -1, begin: float | None = None,
    end: float | None = None, label: str = "",
) -> Task:  # fmt: skip
    return Task(
        f"virtual-1.{name}", index, label, state,
        None if begin is None else at(begin), None if end is None else at(end), 1,
    )  # fmt: skip


def trial(index: int, begin: float, end: float) -> list[Task]:
    return [
        task("trial.rest", "success", index, begin, begin + 1),
        task("trial.measure", "success", index, begin + 1, end - 1),
        task("trial.collect", "success", index, end - 1, end),
    ]


def line(tasks: list[Task], now: float = 0, pulls: dict[str, int] | None = None) -> str:
    return str(describe("virtual-1", tasks, PLAN, pulls or {}, at(now)))


READY = [task("check", "success"), task("pull", "success", 0), task("pull", "success", 1)]


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([task("check", None)], "virtual-1  waiting"),
        ([task("check", "running")], "virtual-1  checking"),
        ([task("check", "success"), task("pull", None, 0)], "virtual-1  checked"),
        ([*READY, task("warm_up", "running")], "virtual-1  warming up"),
        (
            [task("check", "failed"), task("pull", "upstream_failed", 0)],
            "virtual-1  failed at check · its log in Airflow says why",
        ),
    ],
    ids=["waiting", "checking", "checked", "warming up", "failed check"],
)
def test_before_the_first_trial(tasks: list[Task], expected: str) -> None:
    assert line(tasks) == expected


def test_pulling_says_which_image_and_how_far() -> None:
    tasks = [
        task("check", "success"),
        task("pull", "success", 0, label="pip-torch"),
        task("pull", "running", 1, label="apt-torch"),
    ]
    expected = "virtual-1  pulling images, 1 of 2 are there · apt-torch 43 %"
    assert line(tasks, pulls={"apt-torch": 43}) == expected


def test_the_trial_under_way_is_named_with_its_image_and_step() -> None:
    tasks = [*READY, task("trial.rest", "running", 0, begin=10)]
    tasks += [task("trial.measure", None, 0), task("trial.collect", None, 0)]
    assert line(tasks, now=17) == "virtual-1  trial 1 of 4: pip-torch · resting 7 s"


def test_a_later_trial_that_waits_for_its_turn_is_not_the_one_under_way() -> None:
    tasks = [
        *trial(0, 0, 10),
        task("trial.rest", "success", 1, 10, 11),
        task("trial.measure", "running", 1, begin=11),
        task("trial.rest", "running", 2, begin=11),
    ]
    assert line(tasks, now=15).startswith(
        "virtual-1  trial 2 of 4: apt-torch (idle) · measuring 4 s"
    )


def test_the_wait_for_its_turn_is_no_rest() -> None:
    tasks = [*trial(0, 0, 10), task("trial.rest", "running", 1, begin=1)]
    assert line(tasks, now=13).endswith("apt-torch (idle) · resting 3 s, about 27 s left")


def test_between_two_tasks_the_next_one_is_named() -> None:
    tasks = [task("trial.rest", "success", 0, 0, 2), task("trial.measure", "scheduled", 0)]
    assert line([*READY, *tasks], now=3) == "virtual-1  trial 1 of 4: pip-torch · measuring"


def test_a_task_that_is_tried_again_says_so() -> None:
    again = Task("virtual-1.trial.collect", 0, "", "up_for_retry", at(5), at(6), 2)
    tasks = [task("trial.rest", "success", 0, 0, 2), task("trial.measure", "success", 0, 2, 5)]
    expected = "virtual-1  trial 1 of 4: pip-torch · collecting (try 2)"
    assert line([*tasks, again], now=7) == expected


def test_the_time_left_follows_what_trials_of_the_same_image_took() -> None:
    # Done: pip-torch in 10 s, idle in 20 s, apt-torch in 60 s. Left: pip-torch once more.
    tasks = [*trial(0, 0, 10), *trial(1, 10, 30), *trial(2, 30, 90)]
    tasks.append(task("trial.rest", "running", 3, begin=90))
    assert line(tasks, now=92).endswith("pip-torch · resting 2 s, about 8 s left")
    assert line(tasks, now=95).endswith("about 5 s left")
    assert line(tasks, now=200).endswith("about 0 s left")  # longer than usual: not less than none


def test_the_time_left_of_images_not_seen_yet_is_the_mean_of_all() -> None:
    tasks = [*trial(0, 0, 10), *trial(1, 10, 30), task("trial.rest", "running", 2, begin=30)]
    # apt-torch unseen: the mean of 10 and 20; pip-torch: 10.
    assert line(tasks, now=30).endswith("about 25 s left")


def test_trials_that_end_invalid_are_counted_while_the_run_goes_on() -> None:
    tasks = [*trial(0, 0, 10), *trial(1, 10, 20)]
    for index in (0, 1):  # collected, and found invalid
        tasks[3 * index + 2] = task("trial.collect", "failed", index, 9, 10)
    tasks.append(task("trial.rest", "skipped", 2, 20, 20))
    tasks.append(task("trial.collect", "skipped", 2, 20, 20))
    tasks.append(task("trial.rest", "running", 3, begin=20))
    found = describe("virtual-1", tasks, PLAN, {}, at(21))
    assert (found.done, found.failed, found.last_failed, found.total) == (3, 2, 1, 4)
    assert "2 of 3 not valid" in str(found)


def test_further_attempts_are_called_so() -> None:
    tasks = [*trial(0, 0, 10), *trial(1, 10, 20), *trial(2, 20, 30), *trial(3, 30, 40)]
    tasks.append(task("again.rest", "success", 0, 41, 42))
    tasks.append(task("again.measure", "running", 0, 42, label="03 · apt-torch"))
    tasks.append(task("again.collect", None, 0))
    expected = "virtual-1  further attempt 1 of 1: apt-torch · measuring 3 s"
    assert line(tasks, now=45) == expected


def test_the_end_counts_failures() -> None:
    tasks = [*READY, *trial(0, 0, 10), *trial(1, 10, 20)]
    tasks.append(task("trial.collect", "failed", 2, 20, 30))
    tasks += [task("host_report", "success"), task("release", "success")]
    failed = "virtual-1  done: 3 trials, 1 of them failed"
    assert line(tasks) == f"{failed}, 0 mended by a further attempt"
    tasks.append(task("again.rest", "success", 0, 31, 32))
    tasks.append(task("again.collect", "success", 0, 39, 40))
    assert line(tasks) == f"{failed}, 1 mended by a further attempt"


def test_a_host_that_was_given_up_is_reported() -> None:
    tasks = [task("check", "failed"), task("host_report", "success"), task("release", "success")]
    assert "stopped before its first trial" in line(tasks)


def test_other_hosts_tasks_are_not_counted() -> None:
    tasks = [task("check", "running"), Task("virtual-10.check", state="success")]
    assert line(tasks) == "virtual-1  checking"


def test_percent_is_the_last_one_said() -> None:
    log = [
        "12.0 of 48.0 MB (25 %), 4.0 MB/s",
        "36.0 of 48.0 MB (75 %), 4.0 MB/s, 3 s left",
        "1 of 3 layers unpacked",
    ]
    assert percent(log) == 75
    assert percent([]) is None


def test_the_reason_is_the_exceptions_own_message() -> None:
    log = [
        LogLine("starting", level="info"),
        LogLine(
            "Task failed with exception",
            level="error",
            errors=(("HostError", "gpu-a: refused\nsecond line"),),
        ),
        LogLine("cleaning up", level="info"),
    ]
    assert last_error(log) == "gpu-a: refused"
    assert last_error([LogLine("out of memory", level="error")]) == "out of memory"
    assert last_error([LogLine("fine", level="info")]) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_block_is_redrawn_in_place() -> None:
    out = Terminal()
    screen = Screen(out)
    screen.show([HostProgress("a", "checking"), HostProgress("b", "waiting")])
    screen.show([HostProgress("a", "warming up"), HostProgress("b", "checking")])
    assert out.getvalue() == (
        "\x1b[J  a  checking\n  b  waiting\n\x1b[2A\x1b[J  a  warming up\n  b  checking\n"
    )


def test_off_a_terminal_only_news_become_lines() -> None:
    out, now = io.StringIO(), [0.0]
    screen = Screen(out, quiet_s=15, clock=lambda: now[0])
    for second, host in (
        (0, HostProgress("a", "pulling", "1 %")),
        (5, HostProgress("a", "pulling", "20 %")),
        (10, HostProgress("a", "pulling", "40 %")),
        (16, HostProgress("a", "pulling", "60 %")),
        (40, HostProgress("a", "pulling", "60 %")),
        (41, HostProgress("a", "warming up")),
    ):
        now[0] = second
        screen.show([host])
    assert out.getvalue().splitlines() == [
        "  a  pulling · 1 %", "  a  pulling · 60 %", "  a  warming up",
    ]  # fmt: skip


def test_a_duration_reads_as_a_person_says_it() -> None:
    assert [spoken(45), spoken(190), spoken(7500)] == ["45 s", "3 min 10 s", "2 h 5 min"]
