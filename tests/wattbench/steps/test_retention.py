"""Raw logs expire; what was computed from them stays, and the manifest lists what is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.analysis.storage.source import StoreSource
from wattbench.config.hosts import Retention
from wattbench.run import store_keys
from wattbench.steps.retention import RawLogs, by_run, expire, to_expire
from wattbench.storage.object_store import Store

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def run_id(age_days: float) -> str:
    return f"night-{NOW - timedelta(days=age_days):%Y%m%dT%H%M%SZ}-a1b2c3"


def logs(age_days: float, megabytes: float, *, finished: bool = True) -> RawLogs:
    due = NOW - timedelta(days=age_days)
    return RawLogs(run_id(age_days), due, ("f",), int(megabytes * 1e6), finished)


runs = st.lists(
    st.builds(logs, st.floats(0.01, 400), st.floats(0, 900), finished=st.booleans()), max_size=20
)


@given(runs, st.none() | st.floats(1, 300), st.none() | st.floats(0.05, 3))
def test_the_oldest_go_first_and_only_as_many_as_must(
    found: list[RawLogs], days: float | None, max_gb: float | None
) -> None:
    if days is None and max_gb is None:
        return
    chosen = [one for one, _ in to_expire(found, Retention(days=days, max_gb=max_gb), NOW)]
    assert all(one.finished for one in chosen)
    gone = set(map(id, chosen))
    stay = [one for one in found if id(one) not in gone]
    finished = [one for one in stay if one.finished]
    if days is not None:
        assert all(NOW - one.due <= timedelta(days=days) for one in finished)
    if max_gb is not None and finished:
        assert sum(one.bytes for one in stay) <= max_gb * 1e9
    if finished and chosen:
        assert max(one.due for one in chosen) <= min(one.due for one in finished)
    # Nothing goes without need: give the last one back, and a limit is broken.
    if chosen:
        last = chosen[-1]
        too_old = days is not None and NOW - last.due > timedelta(days=days)
        too_much = max_gb is not None and sum(o.bytes for o in [*stay, last]) > max_gb * 1e9
        assert too_old or too_much


def a_run(store: Store, name: str, *, manifest: bool = True) -> str:
    """A run of one attempt and a report."""
    folder = store_keys.run_key(name)
    attempt = f"{folder}/hosts/h/trials/001-a/1"
    store.put_json(f"{folder}/run.json", {"run_id": name, "dag_id": "night", "dag_run_id": name})
    store.put_json(f"{folder}/hosts/h/host.json", {})
    store.put_gzip(f"{attempt}/energibridge.csv.gz", b"Delta,Time\n" * 500)
    store.put(f"{attempt}/stdout.log", b"hello\n")
    store.put_json(f"{attempt}/trial.json", {"a": 1})
    store.put_json(f"{attempt}/attempt.json", {"b": 1})
    store.put(f"{folder}/trials.parquet", b"rows")
    store.put(f"{folder}/report/index.html", b"<p>")
    if manifest:
        store.write_manifest(folder)
    return folder


def names(store: Store, folder: str) -> set[str]:
    return {o.key.removeprefix(folder + "/") for o in store.list(folder + "/")}


RAW = {"hosts/h/trials/001-a/1/energibridge.csv.gz", "hosts/h/trials/001-a/1/stdout.log"}


def always(_: dict[str, Any]) -> bool:
    return True


def test_raw_logs_go_and_all_else_stays(store: Store) -> None:
    old, young = a_run(store, run_id(100)), a_run(store, run_id(2))
    before = names(store, old)
    said = expire(store, Retention(days=90), always, NOW)
    assert said.startswith("2 raw files of 1 runs removed")
    assert names(store, old) == before - RAW
    assert names(store, young) == before
    manifest = store.get_json(f"{old}/manifest.json")
    assert {o["key"] for o in manifest["expired"]} == RAW
    assert all(o["reason"] == "older than 90 days" and o["sha256"] for o in manifest["expired"])
    assert manifest["generation"] == 2
    assert store.verify_manifest(old) == ()
    assert StoreSource(store, old, verify=True).lost() == ()
    assert expire(store, Retention(days=90), always, NOW).startswith("0 raw files")


def test_a_run_that_goes_on_keeps_its_logs(store: Store) -> None:
    unfinished, anew = a_run(store, run_id(300), manifest=False), a_run(store, run_id(200))
    expire(store, Retention(days=90), lambda document: document["run_id"] != run_id(200), NOW)
    assert names(store, unfinished) >= RAW
    assert names(store, anew) >= RAW


def test_a_removal_that_broke_off_is_finished_by_the_next_one(store: Store) -> None:
    folder = a_run(store, run_id(100))
    lost = "hosts/h/trials/001-a/1/stdout.log"
    data = store.get(f"{folder}/{lost}")
    expire(store, Retention(days=90), always, NOW)
    store.put(f"{folder}/{lost}", data)  # as if it had not been removed yet
    assert store.verify_manifest(folder) == ()
    expire(store, Retention(days=90), always, NOW)
    assert lost not in names(store, folder)


def test_a_later_manifest_still_lists_what_has_expired(store: Store) -> None:
    folder = a_run(store, run_id(100))
    expire(store, Retention(days=90), always, NOW)
    store.write_manifest(folder)
    manifest = store.get_json(f"{folder}/manifest.json")
    assert {o["key"] for o in manifest["expired"]} == RAW
    assert not RAW & {o["key"] for o in manifest["objects"]}


def test_only_raw_files_of_attempts_are_counted(store: Store) -> None:
    a_run(store, run_id(3))
    (found,) = by_run(store.list("runs/"))
    assert set(found.files) == RAW
    assert found.due == NOW - timedelta(days=3)


def test_what_is_no_run_of_ours_is_left_alone(store: Store) -> None:
    theirs = a_run(store, "backup-of-2025")
    ours = a_run(store, run_id(100))
    expire(store, Retention(days=1), always, NOW)
    assert {o.key.removeprefix(f"{theirs}/") for o in store.list(theirs)} >= RAW
    assert not {o.key.removeprefix(f"{ours}/") for o in store.list(ours)} & RAW


def test_a_retention_without_a_limit_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="neither days nor max_gb"):
        Retention()
