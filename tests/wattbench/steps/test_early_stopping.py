"""A host where nothing can be compared stops, and what is left out counts as missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stored_runs import DUE, experiment, measured, prepared
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow
from wattbench.errors import ConfigError
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run
from wattbench.steps import early_stopping, verdict
from wattbench.storage.object_store import Store

HOST = "lab-a"
WHY = "the work ran on cpu instead of cuda"


def a_run(store: Store, **protocol: Any) -> Run:
    settings = experiment().model_dump(mode="json")["protocol"] | protocol
    return prepared(store, experiment(protocol=settings))


def invalid(run: Run, trial: PlannedTrial, code: str = "device-mismatch") -> None:
    """Put an attempt's record into the store that a check took out of the statistics."""
    found = Finding(code, Verdict.FOUND, Severity.ERROR, f"trial {trial.name}", WHY)
    row = TrialRow(
        run_id=run.run_id, host=HOST, kind=trial.kind, block=trial.block, position=None,
        planned_position=trial.planned_position, image=trial.image, attempt=1, status="invalid",
        reason=WHY,
    )  # fmt: skip
    key = store_keys.trial_key(run.run_id, HOST, trial.name, 1, "trial.json")
    run.store.put_json(key, Record(row=row, findings=(found,)).to_dict())


def block(run: Run, number: int) -> list[PlannedTrial]:
    return [trial for trial in run.plan(HOST) if trial.block == number]


def test_a_first_block_invalid_for_good_stops_the_host_and_fails_the_run(store: Store) -> None:
    run = a_run(store)
    for trial in block(run, 1):
        assert early_stopping.stop_before(run, HOST, trial) is None
        invalid(run, trial)
    rest = [trial for trial in run.plan(HOST) if trial.block > 1]
    for trial in rest:  # as the `rest` sensor of each trial does
        stop = early_stopping.stop_before(run, HOST, trial)
        assert stop is not None
        assert WHY in stop.reason
        assert "protocol.stop_without_comparison: false" in stop.reason
        run.write_outcome(HOST, trial, stop.status, stop.reason)
    assert early_stopping.is_given_up(run, HOST)  # nothing is tried again
    account = verdict.account(run)
    assert not account.is_complete
    assert (account.valid, account.skipped, len(account.lost)) == (0, 0, account.planned)
    assert f"{HOST}/{rest[0].name} and {len(rest) - 1} more: stopped after the first block" in (
        account.sentence()
    )


def test_records_are_needed_where_they_may_stop_the_host_and_until_it_is_decided(
    store: Store,
) -> None:
    run = a_run(store)
    firsts = [block(run, number)[0] for number in (1, 2, 3)]
    needed = [early_stopping.needs_records(run, HOST, trial) for trial in firsts]
    assert needed == [False, True, False]
    for trial in block(run, 1):
        invalid(run, trial)
    assert early_stopping.stop_known(run, HOST, firsts[1]) is None
    decision = early_stopping.stop_before(run, HOST, firsts[1])
    assert decision is not None
    assert early_stopping.stop_known(run, HOST, firsts[1]) == decision
    assert not early_stopping.needs_records(run, HOST, firsts[1])
    rule = {"min": 10, "max": 12, "precision_pct": 5.0}
    settings = experiment().model_dump(mode="json")["protocol"] | {"blocks": rule}
    precise = prepared(store, experiment(protocol=settings), "precise")
    assert early_stopping.needs_records(precise, HOST, block(precise, 11)[0])
    assert not early_stopping.needs_records(precise, HOST, block(precise, 10)[0])


def test_one_image_that_is_left_compares_with_nothing_two_do(store: Store) -> None:
    run = a_run(store)
    first, second = block(run, 1)
    measured(run, first, DUE, 100)
    invalid(run, second)
    stop = early_stopping.stop_before(run, HOST, block(run, 2)[0])
    assert stop is not None
    assert f"{first.image} alone compares with nothing ({second.image}: {WHY})" in stop.reason


def test_a_reason_that_may_pass_does_not_stop_the_host(store: Store) -> None:
    run = a_run(store)
    for trial in block(run, 1):
        invalid(run, trial, code="host-busy")
    assert early_stopping.stop_before(run, HOST, block(run, 2)[0]) is None


def test_an_image_that_is_invalid_later_does_not_stop_the_host(store: Store) -> None:
    run = a_run(store)
    for trial in block(run, 1):
        measured(run, trial, DUE, 100)
    assert early_stopping.stop_before(run, HOST, block(run, 2)[0]) is None
    for trial in block(run, 2):
        invalid(run, trial)
    assert early_stopping.stop_before(run, HOST, block(run, 3)[0]) is None


def test_the_experiment_may_say_to_go_on(store: Store) -> None:
    run = a_run(store, stop_without_comparison=False)
    for trial in block(run, 1):
        invalid(run, trial)
    assert early_stopping.stop_before(run, HOST, block(run, 2)[0]) is None
    assert early_stopping.stop_without_images(run, HOST, run.plan(HOST), {"b": "gone"}) is None
    assert run.outcomes(HOST) == {}


def test_a_lone_reference_is_not_measured(store: Store) -> None:
    run = a_run(store)
    plan = run.plan(HOST)
    reason = early_stopping.stop_without_images(run, HOST, plan, {"b": "the registry has no b"})
    assert (
        reason == "a alone compares with nothing (b: the registry has no b); nothing was measured"
    )
    assert {o["status"] for o in run.outcomes(HOST).values()} == {"missing"}
    assert early_stopping.is_given_up(run, HOST)
    assert verdict.account(run).sentence() == (
        f"0/{len(plan)} trials valid; not accounted for: {HOST}/{plan[0].name} and "
        f"{len(plan) - 1} more: {reason}"
    )


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_reference_that_alone_has_a_registry_is_not_even_planned(
    store: Store, goes_on: bool
) -> None:
    images = {name: {"runtime": "process", "command": ["python3"]} for name in ("a",)}
    nowhere = {"b": {"ref": "127.0.0.1:9/wattbench/b:1"}}
    settings = {"blocks": 2, "idle_baseline": None, "stop_without_comparison": not goes_on}
    what = experiment(images=images | nowhere, protocol=settings)
    if goes_on:
        assert {t.image for t in prepared(store, what).plan(HOST)} == {"a"}
        return
    with pytest.raises(ConfigError, match=r"a alone compares with nothing \(b: .*127\.0\.0\.1:9"):
        prepared(store, what)


def test_all_images_there_stop_nothing(store: Store) -> None:
    run = a_run(store)
    assert early_stopping.stop_without_images(run, HOST, run.plan(HOST), {}) is None
    assert not early_stopping.is_given_up(run, HOST)


@pytest.mark.parametrize("planned", [1, 2, 5])
@given(data=st.data())
def test_something_is_left_to_compare_exactly_if_two_images_are_or_all_of_one(
    planned: int, data: st.DataObject
) -> None:
    images = [f"image-{n}" for n in range(planned)]
    lost = data.draw(st.sets(st.sampled_from(images)))
    why = early_stopping.nothing_to_compare(images, dict.fromkeys(lost, WHY))
    assert (why is None) == (planned - len(lost) >= min(2, planned))
    if why is not None:
        assert all(image in why for image in images)
