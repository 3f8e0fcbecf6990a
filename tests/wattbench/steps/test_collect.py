"""Collecting an attempt by the real agent into a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.live_chain import Here
from tests.support.stored_runs import experiment, prepared
from wattbench.run.plan import PlannedTrial
from wattbench.run.store_keys import trial_key
from wattbench.run.stored_run import Run
from wattbench.steps.trial import collect, next_attempt
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


def test_files_are_verified_stored_and_then_forgotten_on_the_host(
    store: Store, tmp_path: Path
) -> None:
    run, here = prepared(store, experiment()), Here(tmp_path / "spool")
    trial = run.plan(HOST)[0]
    folder = attempted(run, here, trial)
    record = collect(run, here, HOST, trial)  # type: ignore[arg-type]
    assert record is not None
    assert record.row.status == "failed"
    key = trial_key(run.run_id, HOST, trial.name, 1)
    assert store.get_json(f"{key}/attempt.json")["id"] == f"{run.run_id}/{HOST}/{trial.name}/1"
    assert not folder.exists()


def test_a_malformed_report_fails_its_attempt_and_the_host_keeps_the_files(
    store: Store, tmp_path: Path
) -> None:
    run, here = prepared(store, experiment()), Here(tmp_path / "spool")
    trial = run.plan(HOST)[0]
    folder = attempted(run, here, trial)
    report = json.loads((folder / "report.json").read_text())
    report["files"] = {"stderr.log": {"sha256": 5}, "stdout.log": "x"}
    (folder / "report.json").write_text(json.dumps(report))
    record = collect(run, here, HOST, trial)  # type: ignore[arg-type]
    assert record is not None
    assert record.row.status == "failed"
    assert str(record.row.reason).startswith(
        "malformed report: files.stderr.log.sha256: 5 is not text"
    )
    assert (folder / "stderr.log").exists()
    assert next_attempt(run, HOST, trial) == 2
    assert run.records(HOST)[trial.name][0].row.status == "failed"
