"""Mutual exclusion of trials on a host, decided from Airflow's task states without asking the host.

Airflow has no concurrency limit for a mapped task group. The ``rest`` sensor of each trial therefore waits
until every earlier trial is over and no other one is in its window. The lease on the host stays the last
guard; this is what keeps it from ever being needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from wattbench.dag_runs import TASK_ACTIVE, TASK_OVER


class Turn(StrEnum):
    """What a trial's sensor does next."""

    GO = "go"
    WAIT = "wait"
    GIVE_WAY = "give way"


def turn(states: Mapping[str, str | None], group: str, index: int) -> Turn:
    """Decide for trial ``index`` of a mapped group.

    Args:
        states: ``{group.task_index: state}`` of the group's ``rest``, ``measure`` and ``collect``.
        group: the group's id, for example ``gpu-a.trial``.
        index: this trial's map index.

    Returns:
        GO: all earlier trials are over and no other task is measuring. WAIT: one is.
        GIVE_WAY: an earlier trial has not begun and can't, because this sensor occupies its place
        (after a retry, say); leave the place and come back.
    """
    trials = _by_trial(states, group)
    for other, tasks in sorted(trials.items()):
        busy = any(tasks.get(t) in TASK_ACTIVE for t in ("measure", "collect"))
        if other != index and busy:
            return Turn.WAIT
        if other < index and tasks.get("collect") not in TASK_OVER:
            # Between two tasks of one trial the scheduler has not yet marked the next one.
            begun = tasks.get("rest") in TASK_OVER
            return Turn.WAIT if begun else Turn.GIVE_WAY
    return Turn.GO


def is_late(states: Mapping[str, str | None], group: str, index: int) -> bool:
    """Whether a trial is executed after later ones: it was cleared, or its place was lost."""
    return any(
        other > index and tasks.get("collect") in TASK_OVER and tasks.get("rest") == "success"
        for other, tasks in _by_trial(states, group).items()
    )


def _by_trial(states: Mapping[str, str | None], group: str) -> dict[int, dict[str, str | None]]:
    trials: dict[int, dict[str, str | None]] = {}
    for key, state in states.items():
        task, _, number = key.removeprefix(f"{group}.").rpartition("_")
        if not number.isdigit():  # not expanded yet: the scheduler does so task by task
            continue
        trials.setdefault(int(number), {})[task] = state
    return trials
