"""Housekeeping of runs from outside: those that hang are reported, those that are gone are closed.

A run closes itself by its last tasks. Where these could not do it (a run deleted in Airflow, a host that was
away at the end), it is done here, as soon as the host is free.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wattbench.analysis.model.errors import UserError
from wattbench.errors import HostError
from wattbench.run import host_claims
from wattbench.run.host_claims import Claim, OpenRun
from wattbench.run.stored_run import Run
from wattbench.steps import verdict
from wattbench.steps.analyze import analyze
from wattbench.steps.close_host import close_host
from wattbench.storage.object_store import ObjectMissingError

if TYPE_CHECKING:
    from wattbench.storage.object_store import Store
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)

#: A report that can't be written so often is given up.
TRIES = 3
#: How long the file of a running experiment may be missing before its run is closed, s.
MISSING_S = 600
#: What people read about such a run.
STRANDED = (
    "The experiment's file is missing, so that Airflow executes nothing of the run. Put the file back, and "
    f"the run goes on; after {MISSING_S // 60} min its hosts are given back and its report is written."
)
#: Whether Airflow still has a run going on, by its ids there.
GoingOn = Callable[[str, str], bool]
#: Does something on a host, by its name.
OnHost = Callable[[str, "Callable[[Host], int]"], int]


@dataclass(frozen=True)
class Closed:
    """A run that was closed from outside.

    Attributes:
        run_id: which.
        dag_id: its DAG in Airflow.
        dag_run_id: its id in Airflow.
        text: what is known of it now.
    """

    run_id: str
    dag_id: str
    dag_run_id: str
    text: str


def hanging(store: Store, going_on: GoingOn, now: datetime) -> list[OpenRun]:
    """Runs that should have been over by now, each once."""
    found = []
    for one in host_claims.open_runs(store):
        if one.told_at is not None or not going_on(one.dag_id, one.dag_run_id):
            continue
        try:
            limit_s = 3600 * Run.load(store, one.run_id).experiment.alert_after_h
        except ObjectMissingError:
            continue  # `prepare` is at it
        if one.age_s(now) > limit_s:
            found.append(one)
    return found


def note_notified(store: Store, one: OpenRun, now: datetime) -> None:
    """Remember that people were notified."""
    host_claims.open_run(store, replace(one, told_at=now.isoformat(timespec="seconds")))


def newly_stranded(
    store: Store, going_on: GoingOn, experiments: Container[str], now: datetime
) -> list[OpenRun]:
    """Runs whose experiment's file has been removed, so that Airflow executes nothing of them; each once.

    Args:
        experiments: names of the files that are there.
    """
    found = []
    for one in host_claims.open_runs(store):
        if not going_on(one.dag_id, one.dag_run_id):
            continue
        is_there = one.dag_id in experiments
        if is_there and one.stranded_at is not None:
            host_claims.open_run(store, replace(one, stranded_at=None))
        if not is_there and one.stranded_at is None:
            found.append(replace(one, stranded_at=now.isoformat(timespec="seconds")))
            host_claims.open_run(store, found[-1])
    return found


def given_up(store: Store, now: datetime) -> frozenset[tuple[str, str]]:
    """Airflow's ids of the runs whose experiment's file has been missing for too long."""
    return frozenset(
        (one.dag_id, one.dag_run_id)
        for one in host_claims.open_runs(store)
        if one.stranded_at is not None
        and (now - datetime.fromisoformat(one.stranded_at)).total_seconds() >= MISSING_S
    )


def close_abandoned(
    store: Store, going_on: GoingOn, on_host: OnHost
) -> tuple[list[Closed], list[str]]:
    """Close all runs that are over in Airflow, or gone, and have not closed themselves.

    Returns:
        Those that are closed now, and one line a thing that could not be done yet.
    """
    claims = [c for c in host_claims.claims(store) if not going_on(c.dag_id, c.dag_run_id)]
    trouble: list[str] = []
    touched = {c.run_id for c in claims if _close(store, c, on_host, trouble)}
    pending = {c.run_id for c in claims} - touched
    known = {one.run_id: one for one in host_claims.open_runs(store)}
    for claim in claims:  # closed after its report: the report is made again
        known.setdefault(
            claim.run_id,
            OpenRun(claim.run_id, claim.dag_id, claim.dag_run_id, datetime.now(UTC).isoformat()),
        )
    closed = []
    for one in known.values():
        if going_on(one.dag_id, one.dag_run_id) or one.run_id in pending:
            continue
        if (text := _report(store, one, trouble)) is not None:
            closed.append(Closed(one.run_id, one.dag_id, one.dag_run_id, text))
    return closed, trouble


def _close(store: Store, claim: Claim, on_host: OnHost, trouble: list[str]) -> bool:
    """Whether nothing of the run is on the host any more."""
    try:
        run = Run.load(store, claim.run_id)
        on_host(claim.host, lambda host: close_host(run, host, claim.host))
    except UserError as error:
        if isinstance(error, HostError) and error.code == "leased":
            log.info("%s", error)
        else:
            trouble.append(f"{claim.run_id} on {claim.host}: {error}")
        return False
    log.info("%s on %s: closed from outside", claim.run_id, claim.host)
    return True


def _report(store: Store, one: OpenRun, trouble: list[str]) -> str | None:
    """Analyse a run and remove its record; what is known of it then, None if it is not known yet."""
    try:
        run = Run.load(store, one.run_id)
        analyze(run)
        account = verdict.account(run)
    except ObjectMissingError:
        host_claims.close_run(store, one.run_id)
        return "it was over before it was planned"
    except UserError as error:
        trouble.append(f"{one.run_id}: {error}")
        if one.failures + 1 < TRIES:
            host_claims.open_run(store, replace(one, failures=one.failures + 1))
            return None
        host_claims.close_run(store, one.run_id)
        return f"its report could not be written: {error}"
    return account.sentence()


def summary(
    closed: Iterable[Closed], hanging: Iterable[OpenRun], stranded: Iterable[OpenRun]
) -> str:
    """What was done, in one line."""
    done = [f"{one.run_id} closed from outside: {one.text}" for one in closed]
    done += [f"{run.run_id} is reported as hanging" for run in hanging]
    done += [f"{run.run_id} is reported as stranded" for run in stranded]
    return "; ".join(done) or "nothing to do"
