"""Wattbench's runs in Airflow's database (the api-server's own)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.models.dag import DagModel, DagTag
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import Select, and_, exists, or_, select

from wattbench.dag_runs import REFUSED_TAG, TAG, Run, Task
from wattbench.web.rows import Checked, Known, Scheduled

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def experiments(session: Session) -> list[str]:
    """The ids of wattbench's DAGs, old ones too."""
    return sorted(session.scalars(select(DagTag.dag_id).where(DagTag.name == TAG).distinct()))


def scheduled(session: Session, dag_ids: Collection[str]) -> list[Scheduled]:
    """These experiments with their schedules, by name."""
    refused = set(
        session.scalars(
            select(DagTag.dag_id).where(DagTag.name == REFUSED_TAG, DagTag.dag_id.in_(dag_ids))
        )
    )
    columns: tuple[Any, ...] = (
        DagModel.dag_id, DagModel.description, DagModel.timetable_summary,
        DagModel.timetable_description, DagModel.next_dagrun_create_after, DagModel.is_paused,
        DagModel.is_stale,
    )  # fmt: skip
    rows = session.execute(
        select(*columns).where(DagModel.dag_id.in_(dag_ids)).order_by(DagModel.dag_id)
    ).all()
    return [
        Scheduled(
            name,
            description or "",
            *_schedule(summary, words),
            None if gone else due,
            bool(paused),
            bool(gone),
            _refusal(session, name) or description or "" if name in refused else "",
        )
        for name, description, summary, words, due, paused, gone in rows
    ]


def _schedule(summary: str | None, words: str | None) -> tuple[str, str]:
    """`At 01:30` and `30 1 * * *`; Airflow calls having none `None`."""
    if summary is None or summary == "None":
        return "", ""
    return (words, summary) if words and words != summary else (summary, "")


def _refusal(session: Session, dag_id: str) -> str:
    """The reason in the documentation of a refused experiment's DAG, without the line above it."""
    serialized = SerializedDagModel.get(dag_id, session=session)
    data = (serialized.data if serialized is not None else None) or {}
    doc = str(data.get("dag", {}).get("doc_md") or "")
    return " ".join(doc.rpartition("\n\n")[2].split())


def runs(
    session: Session,
    dag_ids: Collection[str],
    limit: int,
    before: int | None = None,
    *,
    states: Collection[str] = (),
    host: str = "",
) -> list[Known]:
    """The newest runs, newest first.

    Args:
        session: of Airflow's database.
        dag_ids: whose.
        limit: largest number returned.
        before: the number of a run; only those that come after it in this order.
        states: only runs in one of them; empty: all.
        host: only runs that this host takes part in; empty: all.
    """
    query = _columns().where(DagRun.dag_id.in_(dag_ids))
    if before is not None:
        due = select(DagRun.run_after).where(DagRun.id == before).scalar_subquery()
        same = and_(DagRun.run_after == due, DagRun.id < before)
        query = query.where(or_(DagRun.run_after < due, same))
    if states:
        query = query.where(DagRun.state.in_(states))
    if host:
        query = query.where(
            exists().where(
                TaskInstance.dag_id == DagRun.dag_id,
                TaskInstance.run_id == DagRun.run_id,
                TaskInstance.task_id == f"{host}.check",
                or_(TaskInstance.state.is_(None), TaskInstance.state != "skipped"),
            )
        )
    ordered = query.order_by(DagRun.run_after.desc(), DagRun.id.desc())
    return [_known(row) for row in session.execute(ordered.limit(limit)).all()]


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


def last_checked(session: Session, dag_ids: Collection[str], host: str) -> Checked | None:
    """The newest run whose `check` of a host has passed or has failed."""
    query = (
        _columns()
        .add_columns(TaskInstance.state)
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
    return None if row is None else Checked(_known(row[:-1]), str(row[-1]) == "success")


def _columns() -> Select[tuple[object, ...]]:
    return select(
        DagRun.dag_id, DagRun.run_id, DagRun.run_after, DagRun.state, DagRun.start_date,
        DagRun.end_date, DagRun.id,
    )  # fmt: skip


def _known(row: Sequence[object]) -> Known:
    dag_id, run_id, run_after, state, started, ended, number = row
    assert isinstance(run_after, datetime)
    assert isinstance(number, int)
    return Known(
        Run(str(dag_id), str(run_id), run_after, str(getattr(state, "value", state))),
        started if isinstance(started, datetime) else None,
        ended if isinstance(ended, datetime) else None,
        number,
    )
