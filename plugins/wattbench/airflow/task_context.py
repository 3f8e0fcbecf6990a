"""What operators and sensors share: the run they belong to, the host, and how errors reach Airflow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model.errors import UserError
from wattbench.config.hosts import HostsConfig
from wattbench.config.loader import config_dir, load_hosts
from wattbench.errors import HostError, StoreError
from wattbench.run.run_id import make_run_id

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wattbench.run.stored_run import Run
    from wattbench.worker.ssh import Host

log = logging.getLogger("wattbench")

#: Causes that may pass by themselves: the task is tried again.
PASSING = frozenset({"unreachable", "timeout", "lost", "busy"})


@contextmanager
def one_clear_line() -> Iterator[None]:
    """Turn our errors into Airflow's: logged as one line, retried only where that can help."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    try:
        yield
    except UserError as error:
        log.error("%s", error)
        passing = isinstance(error, StoreError) or (
            isinstance(error, HostError) and error.code in PASSING
        )
        raise (AirflowException if passing else AirflowFailException)(str(error)) from None


def run_id_of(context: Context) -> str:
    """This DAG run's wattbench run id: the same in every task and retry."""
    dag_run = context["dag_run"]
    return make_run_id(dag_run.dag_id, dag_run.dag_id, dag_run.run_id, dag_run.run_after)


def load_run(context: Context) -> Run:
    """The run from the store."""
    from wattbench.airflow.connections import open_store
    from wattbench.run.stored_run import Run

    return Run.load(open_store(hosts_config()), run_id_of(context))


def hosts_config() -> HostsConfig:
    """hosts.yaml as it is now (connections may have moved since the run was prepared)."""
    return load_hosts(config_dir())


@contextmanager
def connected(name: str) -> Iterator[Host]:
    """One SSH connection to a host, the agent shipped."""
    from wattbench.airflow.connections import host_target
    from wattbench.worker.ssh import Host

    logging.getLogger("paramiko").setLevel(logging.WARNING)  # its handshakes fill the task's log
    with Host(host_target(name, hosts_config())) as host:
        host.ship()
        yield host


def skip(reason: str) -> None:
    """End this task as *skipped*, visibly."""
    from airflow.sdk.exceptions import AirflowSkipException

    log.info("skipped: %s", reason)
    raise AirflowSkipException(reason)


def error_of(context: Context, task_id: str) -> str | None:
    """The one line with which a task of the same trial failed."""
    ti: Any = context["ti"]
    found = ti.xcom_pull(task_ids=task_id, key="error", map_indexes=ti.map_index)
    return None if found is None else str(found)
