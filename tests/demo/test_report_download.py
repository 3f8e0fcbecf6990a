"""The demo's last line counts what the report says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from demo.campaign import count, stages, windows
from demo.timings import Timings, minutes
from wattbench.dag_runs import Task


def test_skipped_trials_are_not_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    rows = [("a", "valid"), ("a", "invalid"), ("a", "skipped"), ("b", "valid"), ("b", "missing")]
    file.write_text("host,status\n" + "".join(f"{host},{status}\n" for host, status in rows))
    assert count(file) == (2, 4, 2)


def test_the_last_line_has_minutes_and_seconds() -> None:
    assert minutes(190.4) == "3 min 10 s"
    assert minutes(59.9) == "1 min 0 s"
    assert minutes(3725) == "62 min 5 s"


def test_where_the_time_went_includes_what_came_before() -> None:
    now = [110.0]
    timings = Timings(100.0, clock=lambda: now[0])
    with timings.step("Docker"):
        now[0] = 112.5
    began = datetime.fromtimestamp(104, UTC)
    timings.add("run: warm-up", began, began + timedelta(seconds=1))
    assert timings.elapsed_s == 12.5
    assert timings.table().splitlines()[1:] == [
        "  setting up .venv                      10.0 s   from    0.0 s",
        "  run: warm-up                           1.0 s   from    4.0 s",
        "  Docker                                 2.5 s   from   10.0 s",
    ]


def test_a_stage_lasts_from_its_first_task_on_any_host_to_its_last() -> None:
    def task(task_id: str, began: int | None, ended: int | None) -> Task:
        at = [None if s is None else datetime.fromtimestamp(s, UTC) for s in (began, ended)]
        return Task(task_id, started=at[0], ended=at[1])

    tasks = [
        task("prepare", 0, 2), task("a.check", 2, 5), task("b.check", 3, 4),
        task("a.trial.measure", 8, 20), task("b.trial.rest", 7, 9), task("b.trial.collect", 21, None),
        task("analyze", 22, 30),
    ]  # fmt: skip
    spans = {name: (a.timestamp(), b.timestamp()) for name, a, b in stages(tasks)}
    assert spans == {
        "run: plan, checks of the hosts": (0, 5),
        "run: trials": (7, 20),
        "run: statistics and report": (22, 30),
    }


def test_the_share_of_steady_work_counts_windows_with_any(tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    file.write_text("duration_s,steady_s\n2.0,1.5\n4.0,3.0\n9.0,\n")
    assert windows(file).startswith("2 windows of 3.0 s on average, 75 % of it steady work; ")
    file.write_text("duration_s,steady_s\n")
    assert windows(file) == "no window with steady work"
