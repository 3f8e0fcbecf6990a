"""DAG runs and task instances, as Airflow reports them, and what their states mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from wattbench.run.run_id import make_run_id

#: The tag of every wattbench DAG.
TAG = "wattbench"
#: The tag of a DAG in the place of an experiment whose file is refused.
REFUSED_TAG = "refused"
#: States of a DAG run that is not over.
RUN_GOING_ON = ("queued", "running")
#: States in which a task instance will not run again by itself.
TASK_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
#: States in which a task instance runs or is about to; in all others it waits for something.
TASK_ACTIVE = frozenset(
    {"running", "queued", "scheduled", "restarting", "up_for_retry", "deferred"}
)


@dataclass(frozen=True)
class Run:
    """One run of a DAG.

    Attributes:
        dag_id: whose run.
        id: Airflow's id of it.
        run_after: when it was due; wattbench's run id is made from it.
        state: queued, running, success or failed.
    """

    dag_id: str
    id: str
    run_after: datetime
    state: str

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in RUN_GOING_ON

    @property
    def run_id(self) -> str:
        """The name that wattbench gives it: its folder in the store."""
        return make_run_id(self.dag_id, self.dag_id, self.id, self.run_after)


@dataclass(frozen=True)
class Task:
    """One task instance.

    Attributes:
        task_id: with its group: `virtual-1.trial.rest`.
        map_index: its place among the mapped ones, -1 if it is not mapped.
        label: its readable name, `03 · pip-torch`; empty before it has started.
        state: Airflow's word for it; None before it is scheduled.
        started: when it started.
        ended: when it ended.
        try_number: from 1 once it has started.
    """

    task_id: str
    map_index: int = -1
    label: str = ""
    state: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    try_number: int = 0

    @property
    def name(self) -> str:
        """As a person names it: `virtual-1.trial.rest[3]`."""
        return self.task_id + (f"[{self.map_index}]" if self.map_index >= 0 else "")
