"""What operators and sensors share: the run they belong to, the host, and how errors reach Airflow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from wattbench.airflow import accepted
from wattbench.analysis.model.errors import UserError
from wattbench.config.hosts import HostsConfig
from wattbench.config.loader import config_dir, load_hosts
from wattbench.errors import ConfigError, HostError
from wattbench.run.run_id import make_run_id

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wattbench.run.stored_run import Run
    from wattbench.worker.ssh import Host

log = logging.getLogger("wattbench")

#: The first task of every run: it writes ``run.json``.
PREPARE = "prepare"

#: Causes that may pass by themselves: the host is asked again.
PASSING = frozenset(
    {"unreachable", "timeout", "lost", "busy", "disk-full", "docker", "docker-unreachable"}
)
_PAUSES_S = (5.0, 30.0)

T = TypeVar("T")


@contextmanager
def one_clear_line() -> Iterator[None]:
    """Turn our errors into Airflow's: logged as one line, and final.

    What may pass has been waited for where it happened, see :func:`on_host` and :func:`load_run`.
    Airflow's retries are for tasks that were killed.
    """
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield
    except UserError as error:
        log.error("%s", error)
        raise AirflowFailException(str(error)) from None


def run_id_of(context: Context) -> str:
    """This DAG run's wattbench run id: the same in every task and retry."""
    dag_run = context["dag_run"]
    return make_run_id(dag_run.dag_id, dag_run.dag_id, dag_run.run_id, dag_run.run_after)


def load_run(context: Context) -> Run:
    """The run from the store, which is waited for."""
    return stored_run(run_id_of(context))


def stored_run(run_id: str) -> Run:
    """A run by its wattbench id from the store, which is waited for."""
    from wattbench.airflow.connections import open_store
    from wattbench.run.stored_run import Run

    hosts = hosts_config()
    store = open_store(hosts, wait_s=hosts.store.wait_s, mendable=True)
    return Run.load(store, run_id)


def refuse_unprepared(context: Context) -> None:
    """End a task that runs whatever became of the others, if no run can be loaded.

    Raises:
        AirflowFailException: ``prepare`` has failed or was skipped.
    """
    from airflow.sdk.exceptions import AirflowFailException

    ti: Any = context["ti"]
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[PREPARE], run_ids=[ti.run_id])
    state = states.get(ti.run_id, {}).get(PREPARE)
    if state in ("failed", "upstream_failed", "skipped", "removed"):
        raise AirflowFailException(f"nothing was planned: task {PREPARE} is {state}, see its log")


def hosts_config() -> HostsConfig:
    """hosts.yaml as it is now (connections may have moved since the run was prepared).

    While it is refused, it is read as it was last accepted, so that runs go on.
    """
    try:
        return load_hosts(config_dir())
    except ConfigError as error:
        if (kept := accepted.recall_hosts()) is None:
            raise
        log.warning("%s; until then as it was last accepted", error)
        return kept


def new_connection(name: str) -> Host:
    """An SSH connection to a host, the agent shipped; whoever asks for it closes it."""
    from wattbench.airflow.connections import host_target
    from wattbench.worker.ssh import Host

    logging.getLogger("paramiko").setLevel(logging.WARNING)  # its handshakes fill the task's log
    host = Host(host_target(name, hosts_config()))
    try:
        host.connect()
        host.ship()
    except BaseException:
        host.close()
        raise
    return host


@contextmanager
def connected(name: str) -> Iterator[Host]:
    """One SSH connection to a host, the agent shipped."""
    with closing(new_connection(name)) as host:
        yield host


def on_host(
    name: str,
    work: Callable[[Host], T],
    *,
    connect: Callable[[str], AbstractContextManager[Host]] | None = None,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Do something on a host; transient errors are retried with growing pauses, and logged.

    Args:
        name: the host.
        work: may be repeated at any point.
        connect: gives a connection to the host by its name; None: a new one.
        sleep: waits between two tries, s; None: the thread's own.

    Raises:
        HostError: lasting, or it has not passed within the host's ``wait_s``.
    """
    since: float | None = None  # not its start: what has worked for an hour may fail for a minute
    pause_s = _PAUSES_S[0]
    while True:
        try:
            with (connect or connected)(name) as host:
                return work(host)
        except HostError as error:
            now = time.monotonic()
            since = now if since is None else since
            waited_s = now - since
            if error.code not in PASSING:
                raise
            longest_s = hosts_config().hosts[name].wait_s
            if waited_s + pause_s > longest_s:
                raise
            log.warning(
                "trying again in %.0f s (%.0f s of at most %.0f s so far): %s",
                pause_s, waited_s, longest_s, error,
            )  # fmt: skip
        (sleep or time.sleep)(pause_s)
        pause_s = min(2 * pause_s, _PAUSES_S[1])


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
