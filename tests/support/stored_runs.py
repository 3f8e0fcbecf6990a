"""Runs in a real store without hosts: planned by the controller's own code, their records stated by a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostsConfig
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.run_id import make_run_id
from wattbench.run.stored_run import Run
from wattbench.steps.prepare import prepare
from wattbench.storage.object_store import Store

HOSTS = HostsConfig.model_validate(
    {"store": {"bucket": "wattbench"}, "hosts": {"lab-a": {"ssh_conn_id": "a"}}}
)
DUE = datetime(2026, 3, 14, 1, 0, tzinfo=UTC)


def experiment(**changes: Any) -> Experiment:
    """Two processes on one host, so that nothing has to be resolved or pulled."""
    return Experiment.model_validate(
        {
            "hosts": ["lab-a"],
            "workload": {"passes": [{"resolution": 64, "iterations": 2}]},
            "images": {
                name: {"runtime": "process", "command": ["python3", name]} for name in ("a", "b")
            },
            "reference": "a",
            "protocol": {
                "blocks": 4, "rest": {"min_s": 10, "max_s": 20}, "warm_up": {"seconds": 0},
                "idle_baseline": None,
            },
        }
        | changes
    )  # fmt: skip


def prepared(store: Store, what: Experiment, name: str = "night", due: datetime = DUE) -> Run:
    """A run as its first task leaves it."""
    return prepare(
        store, HOSTS, what,
        run_id=make_run_id(name, name, f"scheduled__{due.isoformat()}", due),
        identity={"dag_id": name, "dag_run_id": f"scheduled__{due.isoformat()}",
                  "run_after": due.isoformat()},
        skipped_hosts={}, skipped_images={}, registries={},
    )  # fmt: skip


def measured(
    run: Run,
    trial: PlannedTrial,
    started: datetime,
    seconds: float,
    joules: float = 100.0,
    host: str = "lab-a",
) -> datetime:
    """Put a valid trial's record into the store; returns when its window ended."""
    row = TrialRow(
        run_id=run.run_id, host=host, kind=trial.kind, block=trial.block, position=None,
        planned_position=trial.planned_position, image=trial.image, attempt=1, status="valid",
        started_at=started.isoformat(timespec="milliseconds"), duration_s=seconds,
        energy_j=joules, energy_scope="package", energy_source="measured",
    )  # fmt: skip
    key = store_keys.trial_key(run.run_id, host, trial.name, 1, "trial.json")
    run.store.put_json(key, Record(row=row).to_dict())
    return started + timedelta(seconds=seconds)
