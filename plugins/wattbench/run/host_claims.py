"""Which hosts a run may hold, and which runs are not over yet: small records in the store.

A claim, ``leases/<host>/<run_id>.json``, is written before a run takes a host's lease, and removed by the
step that has left nothing of the run on the host. Whoever waits for a host reads it here, so that nothing
touches a host that is measuring; whatever a run leaves behind is found by it. The lease on the host stays the
last guard.

``open/<run_id>.json`` is there from ``prepare`` until the report has been written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wattbench.run import store_keys
from wattbench.storage.object_store import ObjectMissingError

if TYPE_CHECKING:
    from wattbench.run.stored_run import Run
    from wattbench.storage.object_store import Store

#: How long a claim keeps others from asking the host, s: as long as the lease that it stands for.
CLAIM_S = 4 * 3600


@dataclass(frozen=True)
class Claim:
    """One run's claim on one host.

    Attributes:
        host: which host.
        run_id: whose claim.
        dag_id: the run's DAG in Airflow.
        dag_run_id: the run's id in Airflow.
        expires_unix_s: from then on others may ask the host itself.
        closing: the run is being ended there: none of its tasks may take the lease anew.
    """

    host: str
    run_id: str
    dag_id: str
    dag_run_id: str
    expires_unix_s: float
    closing: bool = False

    def is_expired(self, now_unix_s: float) -> bool:
        """Whether others may ask the host itself."""
        return now_unix_s >= self.expires_unix_s


@dataclass(frozen=True)
class OpenRun:
    """A run that is not over.

    Attributes:
        run_id: wattbench's name of it.
        dag_id: its DAG in Airflow.
        dag_run_id: its id in Airflow.
        since: when it was prepared, the last time, ISO 8601.
        told_at: when people were notified that it hangs; None: not yet.
        failures: how often closing it from outside has failed.
        stranded_at: when its experiment's file was first missing, ISO 8601; None: it is there.
    """

    run_id: str
    dag_id: str
    dag_run_id: str
    since: str
    told_at: str | None = None
    failures: int = 0
    stranded_at: str | None = None

    def age_s(self, now: datetime) -> float:
        """Seconds since it was prepared."""
        return (now - datetime.fromisoformat(self.since)).total_seconds()


# ── claims ──────────────────────────────────────────────────────────────────────────────────────


def claim(run: Run, host: str, lasts_s: float = CLAIM_S) -> None:
    """Write or extend the run's claim on a host."""
    made = Claim(
        host,
        run.run_id,
        str(run.document["dag_id"]),
        str(run.document["dag_run_id"]),
        datetime.now(UTC).timestamp() + lasts_s,
    )
    put(run.store, made)


def put(store: Store, made: Claim) -> None:
    """Write a claim as it is."""
    store.put_json(store_keys.claim_key(made.host, made.run_id), asdict(made))


def own_claim(run: Run, host: str) -> Claim | None:
    """The run's claim on a host; None: nothing of the run can be on it."""
    return _read_claim(run.store, store_keys.claim_key(host, run.run_id))


def begin_closing(run: Run, host: str) -> None:
    """Forbid the run's own tasks, which may live on for seconds after it was ended, to take the lease."""
    if (found := own_claim(run, host)) is not None:
        put(run.store, replace(found, closing=True))


def drop(run: Run, host: str) -> None:
    """Remove the run's claim: nothing of the run is on the host any more."""
    run.store.remove(store_keys.claim_key(host, run.run_id))


def claims(store: Store, host: str | None = None) -> list[Claim]:
    """All claims, or those on one host."""
    listed = store.list(f"{store_keys.claim_key(host)}/")
    found = [_read_claim(store, one.key) for one in listed if one.key.endswith(".json")]
    return [one for one in found if one is not None]


def holder(run: Run, host: str) -> Claim | None:
    """Another run's claim on a host that has not expired; None: the host may be asked."""
    now = datetime.now(UTC).timestamp()
    others = (c for c in claims(run.store, host) if c.run_id != run.run_id)
    return next((c for c in others if not c.is_expired(now)), None)


def _read_claim(store: Store, key: str) -> Claim | None:
    try:
        return Claim(**store.get_json(key))
    except ObjectMissingError:  # removed since it was listed
        return None


# ── open runs ───────────────────────────────────────────────────────────────────────────────────


def open_run(store: Store, found: OpenRun) -> None:
    """Write a run's record."""
    store.put_json(store_keys.open_run_key(found.run_id), asdict(found))


def open_runs(store: Store) -> list[OpenRun]:
    """All runs that are not over."""
    found = []
    for listed in store.list(f"{store_keys.open_run_key()}/"):
        try:
            found.append(OpenRun(**store.get_json(listed.key)))
        except ObjectMissingError:
            continue
    return found


def close_run(store: Store, run_id: str) -> None:
    """Remove a run's record: its report is written."""
    store.remove(store_keys.open_run_key(run_id))
