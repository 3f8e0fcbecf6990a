"""The pages over Airflow's own database and a real store, without a scheduler and without hosts.

`python -m tests.support.web_pages OUT` in an Airflow process writes every page of one morning to a folder:
one experiment with nights and a regression, one that goes on with invalid trials, one that was stopped, one
that is refused; one host that is fit, one that was refused, one that was never checked.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import yaml

from tests.support.airflow_process import REPO, airflow_env
from tests.support.stored_runs import measured
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record, Work
from wattbench.analysis.model.trials import TrialRow
from wattbench.config.loader import config_dir, load_experiment, load_hosts
from wattbench.errors import HostError
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.run_id import make_run_id
from wattbench.run.stored_run import Run
from wattbench.steps import analyze, check_host, early_stopping
from wattbench.steps.prepare import prepare
from wattbench.storage.object_store import Store, StoreTarget

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

HOST = "lab-a"
#: Nights of the experiment `nightly`; the level of one image rises before the last two.
NIGHTS = 7
WHY = "the work ran on cpu instead of cuda"
NO_ROUTE = "lab-b: 10.0.0.7:22 can't be reached (no route to host); look at the host or its address"


def configuration(folder: Path) -> Path:
    """hosts.yaml and experiments/ of the morning."""
    (folder / "experiments").mkdir(parents=True)
    hosts = {
        "store": {"bucket": "wattbench"},
        "hosts": {name: {"ssh_conn_id": name} for name in (HOST, "lab-b", "lab-c")},
    }
    (folder / "hosts.yaml").write_text(yaml.safe_dump(hosts))
    plain: dict[str, Any] = {
        "description": "ResNet-50 from pip and from Debian, on one core", "hosts": [HOST],
        "workload": {"passes": [{"resolution": 64, "iterations": 2}]},
        "images": {
            name: {"runtime": "process", "command": ["python3", name]}
            for name in ("pip-torch", "apt-torch", "pip-torch-nocache")
        },
        "reference": "pip-torch",
        "protocol": {
            "blocks": 8, "rest": {"min_s": 10, "max_s": 20}, "idle_baseline": None,
            "control": {"rounds": 500},
        },
    }  # fmt: skip
    files: dict[str, dict[str, Any]] = {
        "nightly": plain | {"schedule": "30 1 * * *"},
        "gpu": plain | {"hosts": [HOST, "lab-b"], "description": "The same on CUDA"},
        "stopped": plain | {"description": "An image that falls back to the CPU"},
        "typo": plain | {"schedule": "30 25 * * *"},
    }
    for name, content in files.items():
        (folder / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def write_pages(folder: Path, target: StoreTarget) -> Path:
    """All pages of the morning as files.

    Args:
        folder: an empty one.
        target: an empty store.
    """
    env = airflow_env(folder / "airflow") | {
        "WATTBENCH_CONFIG": str(configuration(folder / "config")),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
        "AIRFLOW_CONN_WATTBENCH_STORE": f"aws://{target.access_key}:{target.secret_key}@/"
        f"?endpoint_url={quote(str(target.endpoint_url), safe='')}",
    }
    out = folder / "pages"
    out.mkdir()
    done = subprocess.run(  # pytest's own limit ends one that hangs
        [sys.executable, "-m", "tests.support.web_pages", str(out)], env=env, cwd=REPO,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


# ── in Airflow's process ────────────────────────────────────────────────────────────────────────


class Morning:
    """The morning in the database and in the store.

    Args:
        session: of Airflow's database, with its tables.
        store: an empty one.
        now: when it is.
    """

    def __init__(self, session: Session, store: Store, now: datetime) -> None:
        self.session, self.store, self.now = session, store, now
        self.hosts = load_hosts(config_dir())

    def prepared(self, experiment: str, due: datetime) -> Run:
        """A run as its first task leaves it."""
        path = config_dir() / "experiments" / f"{experiment}.yaml"
        dag_run_id = self.dag_run_id(due)
        return prepare(
            self.store, self.hosts, load_experiment(path, self.hosts),
            run_id=make_run_id(experiment, experiment, dag_run_id, due),
            identity={"dag_id": experiment, "dag_run_id": dag_run_id, "run_after": due.isoformat()},
            skipped_hosts={}, skipped_images={}, registries={},
        )  # fmt: skip

    @staticmethod
    def dag_run_id(due: datetime) -> str:
        """Airflow's id of a run of the schedule."""
        return f"scheduled__{due.isoformat()}"

    def dag_run(self, experiment: str, due: datetime, state: str, hours: float) -> None:
        """A run in Airflow's table; one that goes on has no end."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        made = DagRun(
            dag_id=experiment, run_id=self.dag_run_id(due), logical_date=due, run_after=due,
            run_type=DagRunType.SCHEDULED, triggered_by=DagRunTriggeredByType.TEST,
            state=state, start_date=due,
        )  # fmt: skip
        if state not in ("queued", "running"):
            made.end_date = due + timedelta(hours=hours)
        self.session.add(made)
        self.session.flush()

    def task(
        self, experiment: str, due: datetime, task_id: str, state: str | None, index: int = -1,
        begin: datetime | None = None, end: datetime | None = None, label: str = "",
    ) -> None:  # fmt: skip
        """A task instance in Airflow's table."""
        from airflow.models.taskinstance import TaskInstance, uuid7
        from sqlalchemy import insert

        values = {
            "id": uuid7(), "dag_id": experiment, "run_id": self.dag_run_id(due), "task_id": task_id,
            "map_index": index, "state": state, "start_date": begin, "end_date": end,
            "rendered_map_index": label or None, "try_number": 1, "max_tries": 0, "pool": "default_pool",
            "pool_slots": 1, "priority_weight": 1, "custom_operator_name": "", "hostname": "",
            "unixname": "", "queue": "default", "operator": "", "executor_config": {},
            "span_status": "not_started",
        }  # fmt: skip
        table = TaskInstance.__table__
        self.session.execute(
            insert(table).values({k: v for k, v in values.items() if k in table.c})
        )

    def host(self, run: Run, name: str = HOST) -> None:
        """What the check of a fit host leaves."""
        unknown = [
            {"code": "cpu-turbo", "severity": "unknown", "message": f"the {what} can't be read"}
            for what in ("CPU's turbo state", "DIMMs' speed")
        ]
        run.write_host_document(
            name,
            {
                "host": name, "clock_offset_s": 0.004, "quarantine": None,
                "facts": {
                    "host": {"hostname": name, "kernel": "6.12.9", "os": "Debian 13", "architecture": "x86_64"},
                    "cpu": {"model": "Xeon Gold 6338", "cores": 32}, "probes": unknown,
                },
                "problems": [
                    {"code": "governor", "severity": "soft", "message": "the CPU governor is powersave",
                     "action": "sudo cpupower frequency-set -g performance"},
                ],
            },
        )  # fmt: skip

    # ── experiments ─────────────────────────────────────────────────────────────────────────────

    def nightly(self) -> None:
        """Nights with their reports; one image rises by 6 % before the last two."""
        levels = {
            "pip-torch": 100.0,
            "apt-torch": 620.0,
            "pip-torch-nocache": 101.0,
            "control": 50.0,
        }
        for night in range(NIGHTS):
            rng = np.random.default_rng(night)
            due = self.due(NIGHTS - night)
            run = self.prepared("nightly", due)
            self.host(run)
            start = due
            for trial in run.plan(HOST):
                risen = trial.image == "pip-torch-nocache" and night >= NIGHTS - 2
                joules = levels[trial.image] * (1.06 if risen else 1.0)
                joules *= float(np.exp(rng.normal(0, 0.002)))
                start = measured(run, trial, start, 60, joules) + timedelta(seconds=20)
            analyze.analyze(run)
            self.dag_run("nightly", due, "success", hours=1)
            for task_id in ("check", "host_report"):
                self.task("nightly", due, f"{HOST}.{task_id}", "success")

    def stopped(self) -> None:
        """A run whose first block was invalid for good."""
        due = self.due(1)  # with the last of the nights
        run = self.prepared("stopped", due)
        self.host(run)
        for trial in run.plan(HOST):
            if stop := early_stopping.stop_before(run, HOST, trial):
                run.write_outcome(HOST, trial, stop.status, stop.reason)
            elif trial.kind == "workload":
                invalid(run, trial)
            else:
                measured(run, trial, due, 60, 50.0)
        analyze.analyze(run)
        self.dag_run("stopped", due, "failed", hours=0.2)
        self.task("stopped", due, f"{HOST}.check", "success")
        self.task("stopped", due, f"{HOST}.host_report", "success")

    def going(self) -> None:
        """A run that goes on: invalid trials on one host, the other one refused."""
        due = self.now - timedelta(minutes=21)
        run = self.prepared("gpu", due)
        self.host(run)
        try:
            with check_host.kept_refusal(run, "lab-b"):
                raise HostError(NO_ROUTE, code="unreachable")
        except HostError:
            pass
        self.dag_run("gpu", due, "running", hours=0)
        for host, state in ((HOST, "success"), ("lab-b", "failed")):
            self.task("gpu", due, f"{host}.check", state, begin=due, end=due)
            self.task("gpu", due, f"{host}.host_report", None if host == HOST else "success")
        for index, trial in enumerate(run.plan(HOST)):
            begin = due + timedelta(minutes=3 * index)
            end = begin + timedelta(minutes=3)
            over = end <= self.now
            states = ("success", "success", "failed") if over else ("running", None, None)
            for step, state in zip(("rest", "measure", "collect"), states, strict=True):
                self.task(
                    "gpu", due, f"{HOST}.trial.{step}", state, index, begin if state else None,
                    end if over else None, trial.label,
                )  # fmt: skip
            if not over:
                break
            invalid(run, trial)

    def due(self, days_ago: int) -> datetime:
        """01:30 of a day."""
        return (self.now - timedelta(days=days_ago)).replace(hour=1, minute=30, second=0)


def invalid(run: Run, trial: PlannedTrial) -> None:
    """Put an attempt's record into the store that a check took out of the statistics for good."""
    found = Finding(
        "device-mismatch", Verdict.FOUND, Severity.ERROR, f"trial {HOST}/{trial.name}/1", WHY
    )
    row = TrialRow(
        run_id=run.run_id, host=HOST, kind=trial.kind, block=trial.block, position=None,
        planned_position=trial.planned_position, image=trial.image, attempt=1, status="invalid",
        reason=WHY, started_at=run.document["run_after"], duration_s=60.0, energy_j=80.0,
        energy_scope="package", energy_source="measured",
    )  # fmt: skip
    work = Work(device_requested="cuda", device_actual="cpu", finished=True)
    key = store_keys.trial_key(run.run_id, HOST, trial.name, 1, "trial.json")
    run.store.put_json(key, Record(row=row, work=work, findings=(found,)).to_dict())


def fill() -> None:
    """Make Airflow's tables, parse dags/ into them, and let the morning come."""
    from airflow import settings
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from airflow.models.dagbundle import DagBundleModel

    from wattbench.web import stored

    import_all_models()
    assert settings.engine is not None
    assert settings.Session is not None
    Base.metadata.create_all(settings.engine)
    session = settings.Session()
    session.add(DagBundleModel(name="dags"))
    session.commit()
    sync_bag_to_db(DagBag(str(REPO / "dags")), "dags", None)
    morning = Morning(session, stored.open_store(), datetime.now(UTC).replace(microsecond=0))
    morning.nightly()
    morning.stopped()
    morning.going()
    session.commit()


def write(out: Path) -> None:
    """Write each page as its route answers."""
    from airflow import settings

    from wattbench.web import pages, render, rows, state, stored

    assert settings.Session is not None
    session, now = settings.Session(), datetime.now(UTC)
    found = pages.Pages(session, state.experiments(session))
    runs = found.runs()
    going = next(line.known for line in runs.lines if not line.known.run.over)
    ended = next(line.known for line in runs.lines if line.known.run.dag_id == "nightly")
    values: dict[str, tuple[str, dict[str, Any]]] = {
        "overview": ("overview", {"overview": found.overview(), "now": now}),
        "runs": ("runs", {"runs": runs, "first": True}),
        "runs-of-lab-b": ("runs", {"runs": found.runs(rows.Filter(host="lab-b")), "first": True}),
        "runs-failed": ("runs", {"runs": found.runs(rows.Filter(state="failed")), "first": True}),
        "experiments": ("experiments", {"lines": found.lines()}),
        "trends": ("trends", {"trends": found.trends()}),
        "compare": ("compare", {"comparisons": found.compare()}),
        "hosts": ("hosts", {"hosts": found.hosts()}),
        **{
            name: ("run", {"known": known, "run_id": known.run.run_id, "answer": found.answer(known),
                           "progress": found.progress(known)})
            for name, known in (("run-going", going), ("run-ended", ended))
        },
    }  # fmt: skip
    for name, (template, context) in values.items():
        text, _ = render.page(template, "/wattbench", **context)
        (out / f"{name}.html").write_text(text, encoding="utf-8")
    for name, folder in (("report", "report"), ("nights", "trends")):
        data = stored.file_of(ended.run.run_id, folder, "index.html")
        (out / f"{name}.html").write_bytes(data)
    pages.PAGE = 2
    before: int | None = None
    listed = []
    while True:
        part = found.runs(before=before)
        listed.append(" ".join(line.run_id for line in part.lines))
        if (before := part.older) is None:
            break
    (out / "pages.txt").write_text("\n".join(listed), encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fill()
    write(Path(sys.argv[1]))
