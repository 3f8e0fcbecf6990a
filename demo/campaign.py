"""Run of the demo: triggered, followed and fetched as a user would."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from demo import airflow, planted_fault, settings
from demo.bed import Bed
from demo.screen import Screen
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import written_beside
from wattbench.cli.airflow_api import Client, reasons
from wattbench.dag_runs import Run, Task
from wattbench.errors import StoreError
from wattbench.progress import HostProgress, describe, percent, pull_name, whole
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.storage.object_store import Store

_POLL_S = 2.0  # more often would only load the two cores that the trials run on

#: Stage of a run → its tasks, by the part of their ids that names the step.
_STAGES = {
    "run: plan, checks of the hosts": ("prepare", "check"),
    "run: images brought and proven": ("pull", "plan"),
    "run: warm-up": ("warm_up",),
    "run: trials": ("trial",),
    "run: further attempts": ("plan_again", "again"),
    "run: hosts released": ("host_report", "release"),
    "run: statistics and report": ("analyze", "verdict", "notify"),
}

Plan = Mapping[str, Sequence[PlannedTrial]]


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run_id: wattbench's name of it.
        succeeded: whether Airflow calls it a success.
        reasons: why not, one line per failed task.
        valid: trials that count.
        wanted: planned trials without those skipped on purpose.
        hosts: hosts with a planned trial.
        report: the report's page on this machine; None if the run made none.
        stages: name, begin and end of each.
    """

    run_id: str
    succeeded: bool
    reasons: tuple[str, ...]
    valid: int
    wanted: int
    hosts: int
    report: Path | None
    stages: tuple[tuple[str, datetime, datetime], ...]


def run(bed: Bed, experiment: str, say: Callable[[str], None], out: Path) -> Outcome:
    """Triggers an experiment's DAG, or follows the run that is going on, until its end.

    Args:
        bed: the test bed, up.
        experiment: its name.
        say: receives progress lines.
        out: folder for the report; replaced as a whole.

    Raises:
        UserError: Airflow has no such DAG, or stops answering.
    """
    client = airflow.connect(bed.airflow)
    client.wait_for_dag(experiment, within_s=90)
    going_on = client.running(experiment)
    current = going_on or client.trigger(experiment)
    run_id = current.run_id
    verb = "following the run that is going on" if going_on else "triggered"
    say(f"{verb}: {run_id}")
    say(f"in Airflow: {bed.airflow.url}/dags/{current.dag_id}/runs/{current.id}")
    store = open_store(bed)

    def planned(plan: Plan) -> None:
        if experiment == settings.EXPERIMENT and not going_on:
            host = bed.hosts[-1]
            fault = planted_fault.plant(bed.checkout, host, run_id, plan[host.name], say)
            say(
                f"planted on purpose, to be caught: other work on {fault.host} beside {fault.trial}"
            )

    names = [host.name for host in bed.hosts]
    current = follow(client, current, store, names, Screen(), planned)
    tasks = client.tasks(current)
    why = () if current.state == "success" else tuple(reasons(client, current, tasks))
    page = fetch_report(store, run_id, out)
    valid, wanted, hosts = count(out / "trials.csv") if page else (0, 0, 0)
    succeeded = current.state == "success"
    return Outcome(run_id, succeeded, why, valid, wanted, hosts, page, stages(tasks))


def follow(
    client: Client,
    run: Run,
    store: Store,
    hosts: list[str],
    screen: Screen,
    planned: Callable[[Plan], None],
) -> Run:
    """Shows where the run stands until it is over.

    Args:
        client: of the run's Airflow.
        run: which one.
        store: its store.
        hosts: names of the hosts to show.
        screen: where to.
        planned: called once, when the plan is there.
    """
    plan: dict[str, list[str]] = {}
    while True:
        run = client.run(run)
        tasks = client.tasks(run)
        if not plan and any(t.task_id == "prepare" and t.state == "success" for t in tasks):
            read = _plan(store, run.run_id)
            plan = {host: [trial.label for trial in trials] for host, trials in read.items()}
            if plan:
                planned(read)
        now = datetime.now(UTC)
        pulls = {host: _pulls(client, run, host, tasks) for host in hosts}
        shown = [describe(host, tasks, plan.get(host, []), pulls[host], now) for host in hosts]
        stage = whole(tasks)
        screen.show([*shown, *([HostProgress("run      ", stage)] if stage else [])])
        if run.over:
            return run
        time.sleep(_POLL_S)


def fetch_report(store: Store, run_id: str, out: Path) -> Path | None:
    """Copies a run's report from the store, checked against its manifest.

    Returns:
        Its page; None if the run has none.

    Raises:
        UserError: an object differs from the manifest.
    """
    key = store_keys.report_key(run_id)
    if not store.exists(f"{key}/{store_keys.MANIFEST}"):
        return None
    wrong = store.verify_manifest(key)
    if wrong:
        raise UserError(f"report of {run_id}: {wrong[0]}; run analyze again")
    with written_beside(out) as staging:
        store.download_dir(key, staging)
        shutil.rmtree(out, ignore_errors=True)
    return out / "index.html"


def count(trials: Path) -> tuple[int, int, int]:
    """Valid trials, planned ones without the skipped, and hosts, of a report's trials.csv."""
    with trials.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] != "skipped"]
    valid = sum(row["status"] == "valid" for row in rows)
    return valid, len(rows), len({row["host"] for row in rows})


def windows(trials: Path) -> str:
    """How long the windows of a report's trials.csv are, and how much of them is steady work."""
    with trials.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["steady_s"] and row["duration_s"]]
    if not rows:
        return "no window with steady work"
    lengths = [float(row["duration_s"]) for row in rows]
    share_pct = 100 * sum(float(row["steady_s"]) for row in rows) / sum(lengths)
    return (
        f"{len(rows)} windows of {fmean(lengths):.1f} s on average, {share_pct:.0f} % of it steady work; "
        "between windows hosts rest, raw logs are collected, Airflow starts tasks"
    )


def open_store(bed: Bed) -> Store:
    """The object store as wattbench reads it."""
    return Store(bed.store.target())


def stages(tasks: Sequence[Task]) -> tuple[tuple[str, datetime, datetime], ...]:
    """Name, begin and end of the run's stages over all hosts; those without an ended task are left out."""
    found = []
    for stage, steps in _STAGES.items():
        spans = [
            (task.started, task.ended)
            for task in tasks
            if _step(task) in steps and task.started and task.ended
        ]
        if spans:
            found.append(
                (stage, min(began for began, _ in spans), max(ended for _, ended in spans))
            )
    return tuple(found)


def _step(task: Task) -> str:
    """The step that a task belongs to: `virtual-1.trial.rest` is one of `trial`."""
    words = task.task_id.split(".")
    return words[1] if len(words) > 1 else words[0]


def _plan(store: Store, run_id: str) -> dict[str, list[PlannedTrial]]:
    try:
        document = store.get_json(store_keys.run_json_key(run_id))
    except StoreError:
        return {}  # the trials are numbered without their names until it can be read
    return {
        host: [PlannedTrial.from_dict(trial) for trial in trials]
        for host, trials in document["plan"].items()
    }


def _pulls(client: Client, run: Run, host: str, tasks: list[Task]) -> dict[str, int]:
    found = {}
    for task in tasks:
        if task.task_id == f"{host}.pull" and task.state == "running":
            share = percent([line.event for line in client.log(run, task)])
            if share is not None:
                found[pull_name(task)] = share
    return found
