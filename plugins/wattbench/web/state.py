"""What Airflow knows of wattbench's runs, from its database (the api-server's own)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.models.dag import DagTag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import Select, select

from wattbench.dag_runs import TAG, Run, Task

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Known:
    """A run and when it was at work."""

    run: Run
    started: datetime | None
    ended: datetime | None


def experiments(session: Session) -> list[str]:
    """The ids of wattbench's DAGs, old ones too."""
    return sorted(session.scalars(select(DagTag.dag_id).where(DagTag.name == TAG).distinct()))


def runs(
    session: Session, dag_ids: Collection[str], limit: int, before: datetime | None = None
) -> list[Known]:
    """The newest runs, newest first.

    Args:
        session: of Airflow's database.
        dag_ids: whose.
        limit: largest number returned.
        before: only runs that were due earlier.
    """
    query = _columns().where(DagRun.dag_id.in_(dag_ids))
    if before is not None:
        query = query.where(DagRun.run_after < before)
    rows = session.execute(query.order_by(DagRun.run_after.desc()).limit(limit)).all()
    return [_known(row) for row in rows]


def run(session: Session, dag_id: str, run_id: str) -> Known | None:
    """The run of that wattbench id."""
    rows = session.execute(_columns().where(DagRun.dag_id == dag_id)).all()
    return next((known for known in map(_known, rows) if known.run.run_id == run_id), None)


def run_of(session: Session, dag_id: str, dag_run_id: str) -> Known | None:
    """The run of those Airflow ids."""
    query = _columns().where(DagRun.dag_id == dag_id, DagRun.run_id == dag_run_id)
    row = session.execute(query).first()
    return None if row is None else _known(row)


def tasks(session: Session, of: Run) -> list[Task]:
    """All task instances of a run."""
    columns: tuple[Any, ...] = (
        TaskInstance.task_id, TaskInstance.map_index, TaskInstance.rendered_map_index,
        TaskInstance.state, TaskInstance.start_date, TaskInstance.end_date, TaskInstance.try_number,
    )  # fmt: skip
    rows = session.execute(
        select(*columns).where(TaskInstance.dag_id == of.dag_id, TaskInstance.run_id == of.id)
    ).all()
    return [
        Task(task_id, index, label or "", state, started, ended, tries)
        for task_id, index, label, state, started, ended, tries in rows
    ]


def last_checked(session: Session, dag_ids: Collection[str], host: str) -> Known | None:
    """The newest run whose `check` of a host has passed or found it unfit."""
    query = (
        _columns()
        .join(
            TaskInstance,
            (TaskInstance.dag_id == DagRun.dag_id) & (TaskInstance.run_id == DagRun.run_id),
        )
        .where(
            DagRun.dag_id.in_(dag_ids),
            TaskInstance.task_id == f"{host}.check",
            TaskInstance.state.in_(("success", "failed")),
        )
        .order_by(DagRun.run_after.desc())
        .limit(1)
    )
    row = session.execute(query).first()
    return None if row is None else _known(row)


def _columns() -> Select[tuple[object, ...]]:
    return select(
        DagRun.dag_id, DagRun.run_id, DagRun.run_after, DagRun.state, DagRun.start_date,
        DagRun.end_date,
    )  # fmt: skip


def _known(row: Sequence[object]) -> Known:
    dag_id, run_id, run_after, state, started, ended = row
    assert isinstance(run_after, datetime)
    return Known(
        Run(str(dag_id), str(run_id), run_after, str(getattr(state, "value", state))),
        started if isinstance(started, datetime) else None,
        ended if isinstance(ended, datetime) else None,
    )
