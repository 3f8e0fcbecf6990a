"""The end of a run on its host: a real agent and supervisor in a spool, a real object store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import STAND_IN, Here
from tests.support.stored_runs import experiment, prepared
from wattbench.cli import host_release
from wattbench.config.hosts import HostConfig
from wattbench.errors import HostError
from wattbench.run import host_claims, store_keys
from wattbench.run.stored_run import Run
from wattbench.steps import housekeeping, trial
from wattbench.steps.check_host import take_lease
from wattbench.steps.close_host import close_host
from wattbench.storage.object_store import Store

pytestmark = pytest.mark.slow

HOST = "lab-a"
#: Longer than any of these tests: whatever ends it, it is not its own end.
LONG_S = 600


@dataclass
class Place:
    """A run and its host, which is a spool here."""

    run: Run
    host: Any

    def start(self, index: int, seconds: float) -> str:
        """Start a planned trial's attempt; its id."""
        planned = self.run.plan(HOST)[index]
        identity = store_keys.attempt_id(self.run.run_id, HOST, planned.name, 1)
        self.host.call("start", {
            "id": identity, "run": self.run.run_id, "host": HOST, "trial": planned.name, "attempt": 1,
            "owner": self.run.run_id, "kind": planned.kind, "runtime": "process",
            "command": ["sleep", str(seconds)], "timeout_s": 2 * LONG_S, "lead_s": 0, "min_free_bytes": 0,
            "meter": {"kind": "modelled", "command": [str(STAND_IN)], "interval_ms": 100},
        })  # fmt: skip
        return identity

    def until_at_work(self, identity: str) -> None:
        """Wait until an attempt's workload has been started."""
        record = self.host.spool / "trials" / identity.replace(f"/{HOST}/", "/") / "command.json"
        deadline = time.monotonic() + 60
        while not record.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def lease(self) -> dict[str, Any]:
        return dict(self.host.call("lease", {"action": "show"}))

    def lying(self) -> list[str]:
        return [one["id"] for one in self.host.call("list", {})["attempts"]]


@pytest.fixture
def place(store: Store, tmp_path: Path) -> Iterator[Place]:
    made = Place(prepared(store, experiment()), Here(tmp_path / "spool"))
    config = HostConfig.model_validate(
        {
            "ssh_conn_id": "a",
            "meter": {"kind": "modelled", "command": str(STAND_IN), "interval_ms": 100},
        }
    )
    made.run.document["hosts"][HOST] = {"config": config.model_dump(mode="json")}
    store.put_json(store_keys.run_json_key(made.run.run_id), made.run.document)
    yield made
    made.host.call("cleanup", {"owner": made.run.run_id})


def over(place: Place, identity: str) -> None:
    assert place.host.call("wait", {"id": identity, "timeout_s": 60})["over"]


# ── claims ──────────────────────────────────────────────────────────────────────────────────────


def other_run(place: Place) -> Run:
    return prepared(place.run.store, experiment(), "other")


def test_who_waits_learns_from_the_store_who_has_the_host(place: Place) -> None:
    other = other_run(place)
    assert host_claims.holder(other, HOST) is None
    assert take_lease(place.run, place.host, HOST) is None
    found = host_claims.holder(other, HOST)
    assert found is not None
    assert found.run_id == place.run.run_id
    assert host_claims.holder(place.run, HOST) is None  # one's own is no reason to wait


def test_an_expired_claim_keeps_no_run_from_asking_the_host(place: Place) -> None:
    host_claims.claim(place.run, HOST, lasts_s=-1)
    assert host_claims.holder(other_run(place), HOST) is None


def test_a_refused_run_leaves_no_claim_behind(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    other = other_run(place)
    refused = take_lease(other, place.host, HOST)
    assert refused is not None
    assert place.run.run_id in refused
    assert [c.run_id for c in host_claims.claims(place.run.store)] == [place.run.run_id]


def test_a_run_that_is_being_ended_takes_no_lease_anew(place: Place) -> None:
    """Its tasks live on for seconds after a person has marked it failed."""
    take_lease(place.run, place.host, HOST)
    host_claims.begin_closing(place.run, HOST)
    with pytest.raises(HostError, match="is being ended there") as caught:
        take_lease(place.run, place.host, HOST)
    assert caught.value.code == "ended"
    assert not place.lease()["held"]


def test_one_that_was_cleared_begins_anew(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    host_claims.begin_closing(place.run, HOST)
    assert take_lease(place.run, place.host, HOST, anew=True) is None
    assert take_lease(place.run, place.host, HOST) is None
    assert place.lease()["owner"] == place.run.run_id


# ── closing a host ──────────────────────────────────────────────────────────────────────────────


def test_what_lies_there_is_collected_what_runs_is_ended_and_the_host_is_free(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    done = place.start(0, 0.2)
    over(place, done)
    running = place.start(1, LONG_S)
    place.until_at_work(running)
    assert close_host(place.run, place.host, HOST) == 2
    names = [t.name for t in place.run.plan(HOST)]
    records = place.run.records(HOST)
    assert {n: [r.state for r in rs] for n, rs in records.items()} == {
        names[0]: ["done"], names[1]: ["killed"],
    }  # fmt: skip
    for identity in (done, running):
        _, _, name, number = identity.split("/")
        key = store_keys.trial_key(place.run.run_id, HOST, name, int(number), "energibridge.csv.gz")
        assert place.run.store.exists(key)
    assert place.lying() == []
    assert not place.lease()["held"]
    assert host_claims.claims(place.run.store) == []


def test_closing_may_be_repeated_from_wherever_it_was_killed(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    over(place, place.start(0, 0.2))
    planned = place.run.plan(HOST)[0]
    trial.collect(place.run, place.host, HOST, planned)
    over(place, place.start(1, 0.2))
    close_host(place.run, place.host, HOST)
    host_claims.claim(place.run, HOST)  # killed before it could remove it
    assert close_host(place.run, place.host, HOST) == 0
    assert host_claims.claims(place.run.store) == []
    assert {len(rs) for rs in place.run.records(HOST).values()} == {1}


def test_a_host_that_another_run_has_by_now_is_left_alone(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    over(place, place.start(0, 0.2))
    host_claims.claim(other_run(place), HOST)
    with pytest.raises(HostError, match="collected later") as caught:
        close_host(place.run, place.host, HOST)
    assert caught.value.code == "leased"
    assert len(place.lying()) == 1
    assert host_claims.own_claim(place.run, HOST) is not None


def test_an_attempt_that_still_runs_is_waited_for_by_collect(place: Place) -> None:
    """Its `measure` was killed or marked; an attempt is longer than any number of retries."""
    take_lease(place.run, place.host, HOST)
    place.start(0, 3)
    waiting: Any = Waiting(place.host)
    record = trial.collect(place.run, waiting, HOST, place.run.plan(HOST)[0])
    assert record is not None
    assert record.state == "done"
    assert waiting.waited == 1


class Waiting:
    """The host of these tests with the connection's own wait, which here is one call."""

    def __init__(self, host: Here) -> None:
        self.host, self.waited = host, 0

    def wait(self, attempt_id: str, timeout_s: float) -> dict[str, Any]:
        self.waited += 1
        return self.host.call("wait", {"id": attempt_id, "timeout_s": timeout_s}, timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)


# ── from outside ────────────────────────────────────────────────────────────────────────────────


def gone(_dag_id: str, _dag_run_id: str) -> bool:
    return False


def going_on(_dag_id: str, _dag_run_id: str) -> bool:
    return True


def test_a_run_that_is_gone_is_collected_reported_and_its_host_freed(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    over(place, place.start(0, 0.2))
    place.start(1, LONG_S)
    closed, trouble = housekeeping.close_abandoned(
        place.run.store, gone, lambda _, work: work(place.host)
    )
    assert trouble == []
    assert [one.run_id for one in closed] == [place.run.run_id]
    assert "8 trials valid" in closed[0].text
    assert place.lying() == []
    assert not place.lease()["held"]
    assert host_claims.claims(place.run.store) == []
    assert host_claims.open_runs(place.run.store) == []
    assert place.run.store.exists(store_keys.report_key(place.run.run_id, "index.html"))
    again = housekeeping.close_abandoned(place.run.store, gone, lambda _, work: work(place.host))
    assert again == ([], [])


def test_a_run_that_goes_on_is_left_alone(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    place.start(0, LONG_S)
    found = housekeeping.close_abandoned(
        place.run.store, going_on, lambda _, work: work(place.host)
    )
    assert found == ([], [])
    assert place.lease()["active"]


def test_a_run_whose_file_was_removed_is_reported_once_and_closed_when_it_stays_away(
    place: Place,
) -> None:
    store = place.run.store
    (one,) = host_claims.open_runs(store)
    first = datetime(2026, 11, 27, 2, tzinfo=UTC)

    def look(*experiments: str) -> list[str]:
        found = housekeeping.newly_stranded(store, going_on, experiments, first)
        return [run.run_id for run in found]

    assert look(one.dag_id) == []
    assert look("another") == [one.run_id]
    assert look("another") == []
    later = first + timedelta(seconds=housekeeping.MISSING_S)
    assert housekeeping.given_up(store, later - timedelta(seconds=1)) == set()
    assert housekeeping.given_up(store, later) == {(one.dag_id, one.dag_run_id)}
    assert look(one.dag_id) == []  # put back
    assert housekeeping.given_up(store, later) == set()


def test_a_host_that_is_away_is_reported_and_tried_again(place: Place) -> None:
    take_lease(place.run, place.host, HOST)

    def away(_name: str, _work: object) -> int:
        raise HostError("lab-a: not reachable", code="unreachable")

    closed, trouble = housekeeping.close_abandoned(place.run.store, gone, away)
    assert closed == []
    assert trouble == [f"{place.run.run_id} on lab-a: lab-a: not reachable"]
    closed, trouble = housekeeping.close_abandoned(
        place.run.store, gone, lambda _, work: work(place.host)
    )
    assert (len(closed), trouble) == (1, [])


def test_a_run_hangs_from_its_limit_on_and_is_reported_once(place: Place) -> None:
    store = place.run.store
    (one,) = host_claims.open_runs(store)
    since = datetime.fromisoformat(one.since)
    limit = timedelta(hours=place.run.experiment.alert_after_h)
    assert housekeeping.hanging(store, going_on, since + limit - timedelta(seconds=1)) == []
    late = since + limit + timedelta(seconds=1)
    assert housekeeping.hanging(store, gone, late) == []
    assert housekeeping.hanging(store, going_on, late) == [one]
    housekeeping.note_notified(store, one, datetime.now(UTC))
    assert housekeeping.hanging(store, going_on, late) == []


# ── by hand ─────────────────────────────────────────────────────────────────────────────────────


def test_claims_are_let_go_by_hand_and_still_say_where_something_lies(place: Place) -> None:
    take_lease(place.run, place.host, HOST)
    other = other_run(place)
    assert host_release.expire_claims(place.run.store, HOST) == 1
    assert host_claims.holder(other, HOST) is None
    assert [c.run_id for c in host_claims.claims(place.run.store)] == [place.run.run_id]
    assert host_release.expire_claims(place.run.store, HOST) == 0


def test_a_claim_as_stored_is_the_claim(place: Place) -> None:
    host_claims.claim(place.run, HOST)
    (one,) = host_claims.claims(place.run.store, HOST)
    changed = replace(one, closing=True)
    host_claims.put(place.run.store, changed)
    assert host_claims.own_claim(place.run, HOST) == changed


# ── the host that a load comes from ─────────────────────────────────────────────────────────────


def test_a_load_host_is_closed_without_a_plan_and_keeps_nothing(
    place: Place, tmp_path: Path
) -> None:
    other: Any = Here(tmp_path / "load-spool")
    assert take_lease(place.run, other, "load-1", anew=True) is None
    identity = store_keys.attempt_id(place.run.run_id, "load-1", "001-a", 1)
    other.call("start", {
        "id": identity, "run": place.run.run_id, "host": "load-1", "trial": "001-a", "attempt": 1,
        "owner": place.run.run_id, "kind": "load", "runtime": "none", "command": ["sleep", str(LONG_S)],
        "timeout_s": 2 * LONG_S, "lead_s": 0, "meter": {"kind": "powercap"},
    })  # fmt: skip
    assert close_host(place.run, other, "load-1") == 0
    assert other.call("list", {})["attempts"] == []
    assert other.call("lease", {"action": "show"})["held"] is False
    assert host_claims.own_claim(place.run, "load-1") is None


def test_a_load_host_of_a_run_that_is_gone_is_closed_by_housekeeping(
    place: Place, tmp_path: Path
) -> None:
    other: Any = Here(tmp_path / "load-spool")
    assert take_lease(place.run, other, "load-1", anew=True) is None
    hosts = {"load-1": other, HOST: place.host}
    _, trouble = housekeeping.close_abandoned(
        place.run.store, lambda *_: False, lambda name, work: work(hosts[name])
    )
    assert trouble == []
    assert host_claims.claims(place.run.store) == []
    assert other.call("lease", {"action": "show"})["held"] is False
