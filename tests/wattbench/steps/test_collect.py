"""Collecting an attempt by the real agent into a real store."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import Here
from tests.support.s3_server import Server
from tests.support.stored_runs import experiment, prepared
from wattbench.run.plan import PlannedTrial
from wattbench.run.store_keys import run_key, trial_key
from wattbench.run.stored_run import Run
from wattbench.steps.analyze import _raw_files_as_put
from wattbench.steps.trial import (
    Begun,
    bring_early,
    collect,
    collect_stored,
    forget_collected,
    next_attempt,
)
from wattbench.storage.object_store import Store
from wattbench.worker.attempt_spec import attempt_spec

HOST = "lab-a"


def attempted(run: Run, here: Any, trial: PlannedTrial) -> Path:
    """An attempt whose meter is not there, which a host reports like any other; its folder."""
    here.call("lease", {"action": "take", "owner": run.run_id, "ttl_s": 600})
    spec = attempt_spec(
        run.experiment, run.host_config(HOST), run_id=run.run_id, host_name=HOST, trial=trial,
        attempt=next_attempt(run, HOST, trial), ref=None, files={}, rest={},
    )  # fmt: skip
    here.call("start", spec)
    answer = here.call("wait", {"id": spec["id"], "timeout_s": 60}, 90)
    assert answer["over"]
    return Path(answer["path"])


@pytest.fixture
def planned(store: Store, tmp_path: Path) -> tuple[Run, Any, PlannedTrial]:
    """A run, its host and the first trial."""
    run = prepared(store, experiment())
    return run, Here(tmp_path / "spool"), run.plan(HOST)[0]


def test_files_are_verified_stored_and_then_forgotten_on_the_host(
    store: Store, planned: tuple[Run, Any, PlannedTrial]
) -> None:
    run, here, trial = planned
    folder = attempted(run, here, trial)
    record = collect(run, here, HOST, trial)
    assert record is not None
    assert record.row.status == "failed"
    key = trial_key(run.run_id, HOST, trial.name, 1)
    assert store.get_json(f"{key}/attempt.json")["id"] == f"{run.run_id}/{HOST}/{trial.name}/1"
    assert not folder.exists()


def test_what_the_store_damages_before_the_manifest_is_written_is_found_by_it(
    store: Store, server: Server, planned: tuple[Run, Any, PlannedTrial]
) -> None:
    run, here, trial = planned
    attempted(run, here, trial)
    collect(run, here, HOST, trial)
    key = f"{trial_key(run.run_id, HOST, trial.name, 1)}/stderr.log"
    (server.folder / "wattbench" / store.target.prefix / key).write_bytes(b"another text")
    store.write_manifest(run_key(run.run_id), _raw_files_as_put(run))
    (problem,) = store.verify_manifest(run_key(run.run_id))
    assert problem.startswith(key)


def test_a_malformed_report_fails_its_attempt_and_the_host_keeps_the_files(
    planned: tuple[Run, Any, PlannedTrial],
) -> None:
    run, here, trial = planned
    folder = attempted(run, here, trial)
    report = json.loads((folder / "report.json").read_text())
    report["files"] = {"stderr.log": {"sha256": 5}, "stdout.log": "x"}
    (folder / "report.json").write_text(json.dumps(report))
    record = collect(run, here, HOST, trial)
    assert record is not None
    assert record.row.status == "failed"
    assert str(record.row.reason).startswith(
        "malformed report: files.stderr.log.sha256: 5 is not text"
    )
    assert (folder / "stderr.log").exists()
    assert next_attempt(run, HOST, trial) == 2
    assert run.records(HOST)[trial.name][0].row.status == "failed"


def brought(run: Run, here: Any, trial: PlannedTrial) -> Path:
    """An attempt whose raw logs are in the store and not collected yet; its folder on the host."""
    folder = attempted(run, here, trial)
    identity = f"{run.run_id}/{HOST}/{trial.name}/1"
    report = here.call("status", {"id": identity})["report"]
    bring_early(run, here, HOST, trial, Begun(identity, 1, str(folder)), report)
    return folder


def test_what_was_brought_early_is_collected_without_the_host_which_then_forgets_it(
    store: Store, planned: tuple[Run, Any, PlannedTrial], tmp_path: Path
) -> None:
    run, here, trial = planned
    assert collect_stored(run, HOST, trial) is None
    folder = brought(run, here, trial)
    assert not forget_collected(run, here, HOST, trial, 1)
    early = collect_stored(run, HOST, trial)
    assert early is not None
    assert [r.row for r in run.records(HOST)[trial.name]] == [early.row]
    assert folder.exists()
    assert forget_collected(run, here, HOST, trial, 1)
    assert not folder.exists()
    other = prepared(store, experiment(), "other")
    attempted(other, Here(tmp_path / "elsewhere"), trial)
    there: Any = Here(tmp_path / "elsewhere")
    late = collect(other, there, HOST, trial)
    assert late is not None
    assert (late.row.status, late.row.reason) == (early.row.status, early.row.reason)


@pytest.mark.parametrize(
    "damage",
    [b"something else", gzip.compress(b"something else", mtime=0), None],
    ids=["no gzip", "another file", "gone"],
)
def test_a_copy_that_is_not_what_the_host_had_is_collected_from_the_host(
    store: Store, planned: tuple[Run, Any, PlannedTrial], damage: bytes | None
) -> None:
    run, here, trial = planned
    brought(run, here, trial)
    key = trial_key(run.run_id, HOST, trial.name, 1)
    report = store.get_json(f"{key}/attempt.json")
    raw = b"Time,PACKAGE_ENERGY (J)\n"
    store.put_gzip(f"{key}/energibridge.csv.gz", raw)
    files = report["files"] | {"energibridge.csv": {"sha256": hashlib.sha256(raw).hexdigest()}}
    store.put_json(f"{key}/attempt.json", report | {"files": files})
    for name in ("energibridge.csv.gz", "stderr.log"):
        before = store.get(f"{key}/{name}")
        if damage is None:
            store.remove(f"{key}/{name}")
        else:
            store.put(f"{key}/{name}", damage)
        assert collect_stored(run, HOST, trial) is None
        if name.endswith(".gz"):
            store.put(f"{key}/{name}", before)
    assert collect(run, here, HOST, trial) is not None
    assert store.get(f"{key}/stderr.log") == before


def test_a_malformed_report_that_was_brought_early_stays_on_the_host(
    store: Store, planned: tuple[Run, Any, PlannedTrial]
) -> None:
    run, here, trial = planned
    folder = brought(run, here, trial)
    key = trial_key(run.run_id, HOST, trial.name, 1)
    report = store.get_json(f"{key}/attempt.json")
    store.put_json(f"{key}/attempt.json", report | {"files": {"stderr.log": {"sha256": 5}}})
    assert collect_stored(run, HOST, trial) is not None
    assert forget_collected(run, here, HOST, trial, 1)
    assert folder.exists()
