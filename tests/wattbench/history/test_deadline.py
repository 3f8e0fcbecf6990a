"""The time budget: deadlines on people's clocks, whole blocks, before the first trial and during the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stored_runs import DUE, experiment, measured, prepared
from wattbench.analysis.model.trials import TrialRow
from wattbench.config.experiment import IdleBaseline, Protocol, Rest
from wattbench.history import deadline
from wattbench.history.durations import Pace, least_pace, pace_of
from wattbench.history.host_history import remember, work_of
from wattbench.run.plan import make_plan
from wattbench.run.stored_run import Run
from wattbench.steps import early_stopping
from wattbench.storage.object_store import Store

ZONES = ["UTC", "Europe/Amsterdam", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]


@given(
    st.times().map(lambda t: t.strftime("%H:%M")),
    st.sampled_from(ZONES),
    st.integers(-3_000_000, 4_000_000).map(lambda minutes: DUE + timedelta(minutes=minutes)),
)
def test_the_deadline_is_the_next_such_time_on_the_wall(
    finish_by: str, zone: str, due: datetime
) -> None:
    limit = deadline.deadline(finish_by, zone, due)
    assert due < limit <= due + timedelta(hours=25)
    shown = limit.astimezone(ZoneInfo(zone))
    before = (shown - timedelta(hours=2)).utcoffset()
    # Only where clocks are put forward over it does the wall show another time.
    assert shown.strftime("%H:%M") == finish_by or shown.utcoffset() != before


@pytest.mark.parametrize(
    ("finish_by", "zone", "due", "limit"),
    [
        ("06:00", "UTC", "2026-03-14T01:00:00+00:00", "2026-03-14T06:00:00+00:00"),
        ("06:00", "UTC", "2026-03-14T06:00:00+00:00", "2026-03-15T06:00:00+00:00"),
        ("06:00", "Europe/Amsterdam", "2026-01-14T01:00:00+00:00", "2026-01-14T05:00:00+00:00"),
        # the night in which summer time begins, and the one in which it ends
        ("06:00", "Europe/Amsterdam", "2026-03-28T23:00:00+00:00", "2026-03-29T04:00:00+00:00"),
        ("06:00", "Europe/Amsterdam", "2026-10-24T22:00:00+00:00", "2026-10-25T05:00:00+00:00"),
    ],
)
def test_deadlines_of_some_nights(finish_by: str, zone: str, due: str, limit: str) -> None:
    found = deadline.deadline(finish_by, zone, datetime.fromisoformat(due))
    assert found == datetime.fromisoformat(limit)


@given(
    st.integers(1, 12),
    st.dictionaries(st.sampled_from(["workload/a", "workload/b", "idle/a"]), st.floats(0, 900)),
    st.floats(0, 600),
    st.floats(-100, 40_000),
)
def test_blocks_that_fit_fit_and_one_more_would_not(
    blocks: int, windows: Mapping[str, float], gap_s: float, left_s: float
) -> None:
    protocol = Protocol(blocks=blocks, idle_baseline=IdleBaseline(every_blocks=2))
    by_block = deadline.blocks_of(make_plan(["a", "b"], protocol, "h", "1"))
    pace = Pace(windows, gap_s)
    n = deadline.blocks_that_fit(by_block, pace, left_s)
    taken = [pace.all_s(t) for t in by_block.values()]
    assert 0 <= n <= blocks
    assert n == 0 or sum(taken[:n]) <= left_s + 1e-6
    assert n == blocks or sum(taken[: n + 1]) > left_s - 1e-6


def test_a_pace_has_windows_and_what_lies_between_them() -> None:
    def row(image: str, minute: float, seconds: float) -> TrialRow:
        at = (DUE + timedelta(minutes=minute)).isoformat()
        return TrialRow("r", "h", "workload", 1, None, 1, image, started_at=at, duration_s=seconds)

    rows = [row("a", 0, 60), row("b", 3, 120), row("a", 7, 80), row("b", 10, 120)]
    pace = pace_of(rows)
    assert pace is not None
    assert pace.windows_s == {"workload/a": 80, "workload/b": 120}
    assert pace.gap_s == pytest.approx(120)  # of 120, 120 and 100 s
    assert pace_of(rows[:1]) is None


def test_without_any_trial_only_rest_and_idling_are_known() -> None:
    protocol = Protocol(rest=Rest(min_s=60), idle_baseline=IdleBaseline(seconds=180))
    block = deadline.blocks_of(make_plan(["a", "b"], protocol, "h", "1"))[1]
    assert least_pace(protocol).all_s(block) == 4 * 60 + 2 * 180


# ── in the store ────────────────────────────────────────────────────────────────────────────────


def a_night(store: Store, day: int, finish_by: str | None) -> Run:
    return prepared(store, experiment(finish_by=finish_by), due=DUE.replace(day=day))


def measure_all(run: Run, start: datetime, blocks: int = 4) -> datetime:
    """Each window 100 s, 20 s between them: a block of two images takes 4 min."""
    for trial in run.plan("lab-a"):
        if trial.block <= blocks:
            start = measured(run, trial, start, 100) + timedelta(seconds=20)
    return start


def test_what_does_not_fit_by_earlier_runs_is_planned_out_in_whole_blocks(store: Store) -> None:
    first = a_night(store, 13, None)
    measure_all(first, DUE.replace(day=13))
    remember(first)
    run = a_night(store, 14, "06:00")
    assert run.deadline == DUE.replace(hour=6)
    kept = deadline.plan_out(run, "lab-a", DUE.replace(hour=5, minute=51))  # 9 min for 4-min blocks
    assert {t.block for t in kept} == {1, 2}
    assert len(kept) == 4
    outcomes = run.outcomes("lab-a")
    assert set(outcomes) == {t.name for t in run.plan("lab-a") if t.block > 2}
    assert all(
        o["status"] == "skipped" and f"2 of 4 blocks fit before 06:00 UTC: a block takes 4 min (by {first.run_id})"
        in o["reason"] for o in outcomes.values()
    )  # fmt: skip
    # A repeated task has the same plan, however late it is.
    assert deadline.plan_out(run, "lab-a", DUE.replace(hour=7)) == kept


def test_without_a_deadline_nothing_is_planned_out(store: Store) -> None:
    run = a_night(store, 14, None)
    assert deadline.plan_out(run, "lab-a", DUE.replace(year=2030)) == run.plan("lab-a")
    assert run.outcomes("lab-a") == {}


def test_other_work_says_nothing_about_this_one(store: Store) -> None:
    first = prepared(
        store, experiment(workload={"passes": [{"resolution": 64, "iterations": 9}]}),
        due=DUE.replace(day=13),
    )  # fmt: skip
    measure_all(first, DUE.replace(day=13))
    remember(first)
    run = a_night(store, 14, "06:00")
    kept = deadline.plan_out(
        run, "lab-a", DUE.replace(hour=5, minute=59)
    )  # rests of 10 s are known
    assert {t.block for t in kept} == {1, 2, 3}


def test_a_block_that_can_not_be_finished_is_skipped_whole_and_later_ones_too(store: Store) -> None:
    run = a_night(store, 14, "01:10")
    plan = run.plan("lab-a")
    measure_all(run, DUE, blocks=2)
    # By its own trials a block takes 4 min; 8 min are over when the third one is due.
    assert deadline.reason_to_stop(run, "lab-a", 3, DUE + timedelta(minutes=5)) is None
    why = deadline.reason_to_stop(run, "lab-a", 3, DUE + timedelta(minutes=8))
    assert why == ("block 3 can't be finished before 01:10 UTC: it takes 4 min, 2 min are left")
    # Long after the deadline, as by now: decided at the block's first trial, then read.
    third = [t for t in plan if t.block == 3]
    stops = [early_stopping.stop_before(run, "lab-a", t) for t in third]
    assert stops[0] is not None
    assert "block 3 can't be finished" in stops[0].reason
    assert stops[0].status == "skipped"
    fourth = next(t for t in plan if t.block == 4)
    assert {*stops, early_stopping.stop_before(run, "lab-a", fourth)} == {stops[0]}


def test_a_block_that_has_begun_is_finished(store: Store) -> None:
    far = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    run = prepared(store, experiment(finish_by=far), due=datetime.now(UTC))
    first, second = (t for t in run.plan("lab-a") if t.block == 1)
    assert early_stopping.stop_before(run, "lab-a", first) is None
    late = Run(store, run.document | {"deadline": DUE.isoformat()})
    assert early_stopping.stop_before(late, "lab-a", second) is None


def test_further_attempts_are_made_as_long_as_there_is_time(store: Store) -> None:
    run = a_night(store, 14, "06:00")
    end = measure_all(run, DUE.replace(hour=5), blocks=2)
    again = run.plan("lab-a")[:3]
    assert deadline.further_attempts(run, "lab-a", again, end) == again
    assert (
        deadline.further_attempts(run, "lab-a", again, DUE.replace(hour=5, minute=55)) == again[:2]
    )
    assert deadline.further_attempts(run, "lab-a", again, DUE.replace(hour=6)) == ()


def test_work_of_earlier_versions_is_still_known_and_loaded_idle_is_other_work() -> None:
    plain, loaded = (
        experiment(protocol={"idle_baseline": {"seconds": 90, "state": state}})
        for state in ("container", "loaded")
    )
    parts = [plain.workload, plain.protocol.idle_baseline, None, plain.protocol.rest]
    dumps: list[Any] = [p.model_dump(mode="json") if p else None for p in parts]
    del dumps[1]["state"]  # a key that they did not have
    text = json.dumps([plain.device, *dumps], sort_keys=True)
    assert work_of(plain) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert work_of(loaded) != work_of(plain)
