"""Deadline (`finish_by`): number of whole blocks that a host can finish before it.

``finish_by`` is a time of day in the experiment's ``time_zone``. A run's deadline is the first such moment
after the run was due. What does not fit is left out in whole blocks, twice: before the first trial by
what trials are known to take (:func:`plan_out`), and before each block by what they took so far
(:func:`reason_to_stop`). A block that has begun is finished. Further attempts that do not fit are not made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import groupby
from typing import TypedDict
from zoneinfo import ZoneInfo

from wattbench.history.durations import Pace, least_pace, pace_of
from wattbench.history.host_history import recall, work_of
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run

log = logging.getLogger(__name__)


class BudgetDocument(TypedDict):
    """What ``budget.json`` of a host says: the blocks that fit before the deadline, and why.

    Attributes:
        deadline: ISO 8601.
        blocks: that fit.
        of: all blocks of the plan.
        block_s: expected duration of the first block.
        source: where that is known from.
        reason: a sentence of all this.
    """

    deadline: str
    blocks: int
    of: int
    block_s: float
    source: str
    reason: str


def deadline(finish_by: str, zone: str, due: datetime) -> datetime:
    """The first ``finish_by`` after ``due`` on the clocks of a time zone, UTC.

    Where clocks are put forward over it, it is as much later as they are put forward.
    """
    clock, place = time.fromisoformat(finish_by), ZoneInfo(zone)
    day = due.astimezone(place).date()
    while True:
        moment = datetime.combine(day, clock, place).astimezone(UTC)
        if moment > due:
            return moment
        day += timedelta(days=1)


def blocks_of(trials: Sequence[PlannedTrial]) -> dict[int, tuple[PlannedTrial, ...]]:
    """Trials by their block, in order."""
    return {n: tuple(t) for n, t in groupby(trials, key=lambda t: t.block)}


def blocks_that_fit(blocks: Mapping[int, Sequence[PlannedTrial]], pace: Pace, left_s: float) -> int:
    """How many of the first blocks can be finished in the time that is left."""
    for fitting, trials in enumerate(blocks.values()):
        left_s -= pace.all_s(trials)
        if left_s < 0:
            return fitting
    return len(blocks)


# ── a run ───────────────────────────────────────────────────────────────────────────────────────


def expected_pace(run: Run, host: str) -> tuple[Pace, str]:
    """How long trials will take on a host, and where that is known from."""
    pace, source = least_pace(run.experiment.protocol), "the protocol: at least"
    dag_id, work = str(run.document["dag_id"]), work_of(run.experiment)
    for past in recall(run.store, host, experiment=dag_id, limit=5):
        if past.pace is not None and past.work == work and past.run_id != run.run_id:
            pace, source = past.pace.over(pace), past.run_id
    own = pace_of([r.row for attempts in run.records(host).values() for r in attempts])
    return (pace, source) if own is None else (own.over(pace), "this run's own trials")


def plan_out(run: Run, host: str, now: datetime) -> tuple[PlannedTrial, ...]:
    """The host's trials that are expected to fit; the others become ``skipped``, with the reason.

    Decided once a run and host, before its first trial, and kept in the store.
    """
    plan, limit = run.plan(host), run.deadline
    if limit is None:
        return plan
    key = store_keys.host_key(run.run_id, host, "budget.json")
    if not run.store.exists(key):
        run.store.put_json(key, _budget(run, host, limit, now))
    decision: BudgetDocument = run.store.get_json(key)
    log.info("%s", decision["reason"])
    fitting = tuple(t for t in plan if t.block <= decision["blocks"])
    for trial in plan[len(fitting) :]:
        run.write_outcome(host, trial, "skipped", f"planned out: {decision['reason']}")
    return fitting


def _budget(run: Run, host: str, limit: datetime, now: datetime) -> BudgetDocument:
    blocks = blocks_of(run.plan(host))
    pace, source = expected_pace(run, host)
    warm_ups = 2 if run.experiment.device == "cuda" else 1
    left_s = (limit - now).total_seconds() - warm_ups * run.experiment.protocol.warm_up.seconds
    fitting = blocks_that_fit(blocks, pace, left_s)
    return {
        "deadline": limit.isoformat(),
        "blocks": fitting,
        "of": len(blocks),
        "block_s": pace.all_s(blocks[1]),
        "source": source,
        "reason": f"{fitting} of {len(blocks)} blocks fit before {_clock(run, limit)}: a block takes "
        f"{_minutes(pace.all_s(blocks[1]))} (by {source}), {_minutes(left_s)} are left",
    }


def reason_to_stop(run: Run, host: str, block: int, now: datetime) -> str | None:
    """Why a block is not begun any more; None if it can be finished, or nothing limits it."""
    limit = run.deadline
    if limit is None:
        return None
    pace, _ = expected_pace(run, host)
    need_s = pace.all_s(blocks_of(run.plan(host))[block])
    left_s = (limit - now).total_seconds()
    if need_s <= left_s:
        return None
    return (
        f"block {block} can't be finished before {_clock(run, limit)}: it takes {_minutes(need_s)}, "
        f"{_minutes(left_s)} are left"
    )


def further_attempts(
    run: Run, host: str, trials: Sequence[PlannedTrial], now: datetime
) -> tuple[PlannedTrial, ...]:
    """The first of these trials that can be tried again before the deadline."""
    limit = run.deadline
    if limit is None or not trials:
        return tuple(trials)
    pace, _ = expected_pace(run, host)
    fitting = blocks_that_fit(
        {n: [t] for n, t in enumerate(trials)}, pace, (limit - now).total_seconds()
    )
    for trial in trials[fitting:]:
        log.warning("%s is not tried again: no time before %s", trial.label, _clock(run, limit))
    return tuple(trials[:fitting])


def _clock(run: Run, limit: datetime) -> str:
    zone = run.experiment.time_zone
    return f"{limit.astimezone(ZoneInfo(zone)):%H:%M} {zone}"


def _minutes(seconds: float) -> str:
    if seconds < 0:
        return "no time"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
