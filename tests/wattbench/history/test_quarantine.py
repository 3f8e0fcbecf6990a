"""Quarantine: judged over runs in the store, acting on the next run, lifted by the control workload."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta

import numpy as np
import pytest

from tests.support.stored_runs import DUE, HOSTS, experiment, measured, prepared
from wattbench.config.hosts import HostConfig
from wattbench.errors import StoreError
from wattbench.history import host_history, quarantine
from wattbench.history.host_history import ControlLevel, Past, recall
from wattbench.run import store_keys
from wattbench.run.stored_run import Run
from wattbench.steps import analyze, check_host, verdict
from wattbench.storage.object_store import Store

HOST = HOSTS.hosts["lab-a"]
CONTROLLED = {
    "blocks": 2, "rest": {"min_s": 10, "max_s": 20}, "idle_baseline": None, "control": {"rounds": 500},
}  # fmt: skip
STEADY = [100.0, 100.3, 99.8, 100.1, 99.9, 100.2, 99.7]
UNSTEADY = [100.0, 93.0, 108.0, 95.0, 104.0, 91.0, 107.0]


def nights(joules: list[float], rounds: int = 500, source: str = "measured") -> list[Past]:
    return [
        Past(f"night-202601{day:02d}T010000Z-00000{day % 10}", "night", "w", None,
             ControlLevel(rounds, "package", source, j, 2))
        for day, j in enumerate(joules, 1)
    ]  # fmt: skip


def leave(store: Store, past: list[Past]) -> None:
    for one in past:
        store.put_json(store_keys.past_key("lab-a", one.run_id), asdict(one))


def test_a_malformed_history_names_its_object(store: Store) -> None:
    leave(store, nights(STEADY[:1]))
    (run_id,) = host_history.run_ids(store, ["lab-a"])
    key = store_keys.past_key("lab-a", run_id)
    store.put_json(key, store.get_json(key) | {"control": {"joules": "many"}})
    with pytest.raises(StoreError, match=rf"{run_id}\.json .*control\.rounds: Field required"):
        recall(store, "lab-a")


def test_a_host_whose_control_workload_scatters_is_in_quarantine() -> None:
    assert quarantine.judge(nights(UNSTEADY), 1.0).quarantined
    steady = quarantine.judge(nights(STEADY), 1.0)
    assert not steady.quarantined
    assert steady.course_pct[0] == pytest.approx(0.0)
    assert not quarantine.judge(nights(UNSTEADY), None).quarantined
    assert not quarantine.judge([], 1.0).quarantined


def test_runs_without_a_control_workload_release_no_host(store: Store) -> None:
    leave(store, nights(UNSTEADY))
    others = [
        Past(f"smoke-202602{day:02d}T{hour:02d}0000Z-{day:02d}00{hour:02d}", "smoke", "w")
        for day in range(1, 6)
        for hour in range(10)
    ]
    leave(store, others)
    assert len(others) > host_history.LOOK_BACK
    standing = quarantine.standing_of(store, "lab-a", HOST)
    assert standing.quarantined
    assert [joules for _, joules in standing.levels] == UNSTEADY


def test_joules_of_other_work_or_another_meter_are_not_compared() -> None:
    mixed = nights(STEADY) + nights([200.0], rounds=1000) + nights([50.0], source="modelled")
    assert [j for _, j in quarantine.judge(mixed, 1.0).levels] == [50.0]
    back = mixed + nights([100.4])
    assert [j for _, j in quarantine.judge(back, 1.0).levels] == [*STEADY, 100.4]
    assert not quarantine.judge(back, 1.0).quarantined


def test_runs_come_back_from_the_store_in_the_order_of_time_whatever_their_experiment(
    store: Store,
) -> None:
    ids = ["zebra-20260101T010000Z-aaaaaa", "ant-20260103T010000Z-aaaaaa", "ant-2-20260102T010000Z-aaaaaa"]  # fmt: skip
    leave(store, [Past(i, i.rsplit("-", 2)[0], "w") for i in ids])
    assert [p.run_id for p in recall(store, "lab-a")] == [ids[0], ids[2], ids[1]]
    assert [p.run_id for p in recall(store, "lab-a", experiment="ant")] == [ids[1]]
    assert [p.run_id for p in recall(store, "lab-a", limit=1)] == [ids[1]]
    assert recall(store, "lab-b") == ()


def controlled(store: Store, day: int = 14) -> Run:
    return prepared(store, experiment(protocol=CONTROLLED), due=DUE.replace(day=day))


def measure_control(run: Run, joules: list[float]) -> None:
    start = DUE
    for trial, j in zip((t for t in run.plan("lab-a") if t.kind == "control"), joules, strict=True):
        start = measured(run, trial, start, 30, j) + timedelta(seconds=20)


def put_in_quarantine(run: Run, reason: str) -> None:
    problem = quarantine.problem(quarantine.Standing(True, reason, ()))
    run.write_host_document(
        "lab-a", {"host": "lab-a", "facts": {}, "problems": [problem], "quarantine": reason}
    )


def test_in_quarantine_only_the_control_workload_is_measured(store: Store) -> None:
    run = controlled(store)
    plan = run.plan("lab-a")
    assert quarantine.set_aside(run, "lab-a", plan, None) == plan
    put_in_quarantine(run, "it scatters")
    kept = quarantine.set_aside(run, "lab-a", plan, quarantine.quarantine(run, "lab-a"))
    assert [t.kind for t in kept] == ["control", "control"]
    outcomes = run.outcomes("lab-a")
    assert set(outcomes) == {t.name for t in plan if t.kind == "workload"}
    assert {o["reason"] for o in outcomes.values()} == {"host in quarantine: it scatters"}


def test_a_run_in_quarantine_has_a_report_and_is_accounted_for(store: Store) -> None:
    run = controlled(store)
    put_in_quarantine(run, "it scatters")
    quarantine.set_aside(run, "lab-a", run.plan("lab-a"), "it scatters")
    measure_control(run, [100.0, 102.0])
    made = analyze.analyze(run)
    assert made["sentence"]
    account = verdict.account(run)
    assert account.is_complete
    assert account.sentence() == "2/2 trials valid, 4 skipped on purpose"
    findings = json.loads(store.get(store_keys.report_key(run.run_id, "findings.json")))
    unsteady = [f for f in findings if f["code"] == "host-unsteady"]
    assert [(f["verdict"], f["subject"]) for f in unsteady] == [("found", "host lab-a")]
    assert recall(store, "lab-a")[-1].control == ControlLevel(500, "package", "measured", 101.0, 2)


def test_a_host_in_quarantine_is_left_alone_where_nothing_could_lift_it(store: Store) -> None:
    leave(store, nights(UNSTEADY))
    assert check_host.leave_alone(controlled(store), "lab-a") is None
    run = prepared(store, experiment(), name="other")
    reason = check_host.leave_alone(run, "lab-a")
    assert reason is not None
    assert reason.startswith("lab-a is in quarantine: the control workload's SD over 5 runs is")
    assert set(run.outcomes("lab-a")) == {t.name for t in run.plan("lab-a")}
    account = verdict.account(run)
    assert not account.is_complete
    assert account.sentence().endswith("8 skipped on purpose: nothing was measured")


def test_a_host_comes_back_after_five_steady_nights_and_no_sooner(store: Store) -> None:
    leave(store, nights(UNSTEADY))
    said = []
    for day, joules in enumerate([100.0, 100.2, 99.9, 100.1, 99.8], 10):
        said.append(quarantine.standing_of(store, "lab-a", HOST).quarantined)
        run = controlled(store, day)
        measure_control(run, [joules, joules])
        host_history.remember(run)
    assert said == [True] * 5
    assert not quarantine.standing_of(store, "lab-a", HOST).quarantined
    # What was before is no longer held against it.
    run = controlled(store, 20)
    measure_control(run, [100.1, 100.1])
    host_history.remember(run)
    assert not quarantine.standing_of(store, "lab-a", HOST).quarantined


def test_the_limit_is_the_hosts_own(store: Store) -> None:
    rng = np.random.default_rng(3)
    leave(store, nights([float(j) for j in 100 * (1 + rng.normal(0, 0.02, 9))]))
    assert quarantine.standing_of(store, "lab-a", HOST).quarantined
    lenient = HostConfig(ssh_conn_id="a", unsteady_pct=5.0)
    assert not quarantine.standing_of(store, "lab-a", lenient).quarantined
