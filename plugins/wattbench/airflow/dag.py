"""An experiment as an Airflow DAG: one task group a host, one mapped group for its trials."""

from __future__ import annotations

import logging
import re
from collections.abc import Container
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import DAG, Param, TaskGroup, task_group
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowException

from wattbench.airflow import accepted
from wattbench.airflow.operators import (
    Analyze,
    Collect,
    ExpireRawLogs,
    HostReport,
    KeepHouse,
    Measure,
    Notify,
    PlanAgain,
    PlanHost,
    Prepare,
    PullImage,
    ReleaseHost,
    Verdict,
)
from wattbench.airflow.sensors import CheckHost, Rest, WarmUp
from wattbench.airflow.task_context import PREPARE
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostsConfig
from wattbench.config.loader import experiment_paths, load_experiment, load_hosts
from wattbench.config.yaml_document import place_of
from wattbench.dag_runs import REFUSED_TAG, TAG
from wattbench.errors import ConfigError

log = logging.getLogger(__name__)

START = datetime(2026, 1, 1, tzinfo=UTC)
#: For tasks that were killed, or that Airflow's own API was away for: some nine minutes in all.
RETRIES: dict[str, Any] = {
    "retries": 8,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=2),
}


def experiment_dags(folder: Path) -> dict[str, DAG]:
    """A DAG per file in ``experiments/``; one that is refused for any reason is a DAG that says why.

    A refused one keeps the tasks that it had when it was last accepted, for runs that go on.

    Returns:
        DAGs under names that no file can choose: a name that Airflow or Python uses would hide it.
    """
    found: dict[str, DAG] = {}
    for path in experiment_paths(folder):
        try:
            hosts = load_hosts(folder)
            experiment = load_experiment(path, hosts)
            made = build_dag(path, experiment, hosts)
            accepted.keep(path.stem, experiment, hosts)
        except ConfigError as error:
            log.error("%s", error)
            made = _kept_dag(path, error, found) or refused_dag(path.stem, error, found)
        except Exception as error:
            log.exception("%s", path)
            place = place_of(path)
            kind = type(error).__name__
            wrapped = ConfigError(f"{place}: {kind}: {error}; please report this, with the file")
            made = _kept_dag(path, wrapped, found) or refused_dag(path.stem, wrapped, found)
        found[f"experiment: {made.dag_id}"] = made
    return found


def build_dag(path: Path, experiment: Experiment, hosts: HostsConfig) -> DAG:
    """The DAG of one experiment; its id is the file's stem.

    Raises:
        ConfigError: Airflow refuses the schedule.
    """
    with DAG(
        dag_id=path.stem,
        description=experiment.description or f"energy of {len(experiment.images)} images",
        schedule=experiment.schedule,
        start_date=START.replace(tzinfo=ZoneInfo(experiment.time_zone)),  # the schedule's zone too
        catchup=False,
        max_active_runs=1,
        max_active_tasks=4 * len(experiment.hosts) + 8,
        tags=[TAG, "nightly" if experiment.schedule else "on demand"],
        doc_md=_doc(path.stem, experiment),
        default_args=RETRIES,
    ) as dag:
        prepare = Prepare(task_id=PREPARE, path=path)
        # Teardowns, since Airflow runs nothing else of a run that a person marks failed or success. The
        # verdict decides alone, and always: it has no setup whose fate could skip it.
        analyze = Analyze(task_id="analyze").as_teardown(setups=prepare)
        verdict = Verdict(task_id="verdict", analyze="analyze", last="host_report").as_teardown(
            on_failure_fail_dagrun=True
        )
        notify = Notify(task_id="notify", retries=1).as_teardown()
        analyze >> [verdict, notify]
        for host in experiment.hosts:
            _host_group(host, hosts, experiment, prepare, analyze, verdict)
    # Last, since every operator deep-copies the params that its DAG has when it is made.
    dag.params = ParamsDict(_params(experiment))
    try:
        dag.timetable.validate()
    except AirflowException as error:
        raise ConfigError(f"{place_of(path)}: schedule: {error}; correct it") from None
    return dag


def _kept_dag(path: Path, error: ConfigError, taken: Container[str]) -> DAG | None:
    """A refused experiment with the tasks that it had; ``prepare`` of a new run fails with the reason."""
    kept = accepted.recall(path.stem)
    if kept is None or f"experiment: {path.stem}" in taken:
        return None
    unscheduled = kept.experiment.model_copy(update={"schedule": None})
    try:
        dag = build_dag(path, unscheduled, kept.hosts)
    except Exception:
        log.exception("the last accepted version of %s", path)
        return None
    dag.tags = {TAG, REFUSED_TAG}
    dag.description, dag.doc_md = _refusal(error)
    return dag


def _refusal(error: ConfigError) -> tuple[str, str]:
    """Description and page of a refused experiment."""
    return str(error)[:200], f"**This experiment is refused.**\n\n{error}"


def refused_dag(name: str, error: ConfigError, taken: Container[str] = ()) -> DAG:
    """A DAG in the place of an experiment that can't be read: visible, and failing with the reason.

    Args:
        name: the file's stem; what Airflow allows in no id becomes ``-``.
        error: the reason.
        taken: names that :func:`experiment_dags` has given already.
    """
    from airflow.sdk import task

    dag_id = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:200] or "unnamed"
    while f"experiment: {dag_id}" in taken:
        dag_id += "-refused"
    description, page = _refusal(error)
    with DAG(
        dag_id=dag_id, start_date=START, schedule=None, tags=[TAG, REFUSED_TAG],
        description=description, doc_md=page,
    ) as dag:  # fmt: skip

        @task(task_id="refused", retries=0)
        def refuse(reason: str) -> None:
            from airflow.sdk.exceptions import AirflowFailException

            raise AirflowFailException(reason)

        refuse(str(error))
    return dag


def retention_dag() -> DAG:
    """Once a day, raw logs expire."""
    with DAG(
        dag_id="wattbench-retention", description="Raw logs expire by age and size; reports stay.",
        schedule="0 12 * * *", start_date=START, catchup=False, max_active_runs=1,
        is_paused_upon_creation=False, tags=["upkeep"], default_args=RETRIES,
    ) as dag:  # fmt: skip
        ExpireRawLogs(task_id="expire")
    return dag


def housekeeping_dag() -> DAG:
    """Every quarter of an hour, runs that hang or were left behind are looked for."""
    with DAG(
        dag_id="wattbench-housekeeping", description="Tells of runs that hang, closes those left behind.",
        schedule="*/15 * * * *", start_date=START, catchup=False, max_active_runs=1,
        is_paused_upon_creation=False, tags=["upkeep"],
    ) as dag:  # fmt: skip
        KeepHouse(task_id="keep_house", retries=0)
    return dag


def _meters(hosts: HostsConfig, name: str) -> str:
    return ", ".join(meter.name for meter in hosts.hosts[name].all_meters)


def _host_group(
    name: str,
    hosts: HostsConfig,
    experiment: Experiment,
    prepare: Prepare,
    analyze: Analyze,
    verdict: Verdict,
) -> None:
    protocol = experiment.protocol
    with TaskGroup(name, tooltip=f"{name}: {_meters(hosts, name)}"):
        check = CheckHost(task_id="check", host=name)
        pull = PullImage.partial(
            task_id="pull", host=name, map_index_template="{{ task.image }}",
            max_active_tis_per_dagrun=1,  # a host's pulls one by one: their joules stay apart
        ).expand(image=list(experiment.images))  # fmt: skip
        plan = PlanHost(task_id="plan", host=name, check=f"{name}.check")
        warm_up = WarmUp(task_id="warm_up", host=name)
        prepare >> check >> pull >> plan >> warm_up
        # No timeout for the run; a task outlives its trial's own, which the host enforces, and its waits.
        limit_s = protocol.timeout_s + hosts.store.wait_s + 900
        last: Any = _trials("trial", name, limit_s, plan, warm_up)
        # Of a run that a person ends, the report is skipped at once, and collecting may go on.
        release = ReleaseHost(task_id="release", host=name)
        last >> release
        for number in range(2, protocol.attempts + 1):
            suffix = "" if number == 2 else f"_{number}"
            again = PlanAgain(task_id=f"plan_again{suffix}", host=name, check=f"{name}.check")
            last >> again
            last = _trials(f"again{suffix}", name, limit_s, again, again)
            last >> release
        report = HostReport(task_id="host_report", host=name)
        # Not `check`'s: that one may fail with the lease taken.
        last >> report >> release.as_teardown(setups=prepare)
    # Beside teardowns that decide nothing, the report of a host would be a leaf that decides about the run.
    report >> [analyze, verdict]
    release >> analyze


def _trials(group: str, host: str, limit_s: float, plan: Any, after: Any) -> list[Any]:
    """A mapped group: rest → measure → collect for every trial of ``plan``; returns its last tasks."""
    made: list[Any] = []
    prefix = f"{host}.{group}"
    label = {"map_index_template": "{{ task.spec['label'] }}"}

    @task_group(group_id=group)
    def trials(spec: dict[str, Any]) -> None:
        rest = Rest(
            task_id="rest", host=host, group=prefix, spec=spec, max_active_tis_per_dagrun=1, **label
        )
        measure = Measure(
            task_id="measure", host=host, rest=f"{prefix}.rest", spec=spec,
            execution_timeout=timedelta(seconds=limit_s), **label,
        )  # fmt: skip
        collect = Collect(
            task_id="collect", host=host, measure=f"{prefix}.measure", spec=spec, **label
        )
        rest >> measure >> collect.as_teardown(setups=rest)
        # Also the measure: with nothing but a teardown behind it, a failed one would fail the run,
        # although a further attempt has mended it.
        made.extend((measure, collect))

    mapped = trials.expand(spec=plan.output)
    after >> mapped
    return made


def _params(experiment: Experiment) -> dict[str, Param]:
    blocks = experiment.protocol.blocks
    planned = blocks if isinstance(blocks, int) else f"{blocks.min} to {blocks.max}"
    return {
        "hosts": Param(
            list(experiment.hosts), type="array", title="Hosts", examples=list(experiment.hosts),
            description="Hosts to measure on; the others are skipped.",
        ),
        "images": Param(
            list(experiment.images), type="array", title="Images", examples=list(experiment.images),
            description=f"Images to compare; the reference {experiment.reference} must stay.",
        ),
        "blocks": Param(
            None, type=["null", "integer"], minimum=1, title="Blocks",
            description=f"Blocks to measure; empty: as the experiment says ({planned}).",
        ),
        "seed": Param(
            None, type=["null", "string"], title="Seed",
            description="Draws the order of trials; empty: the experiment's, else one of this run's own.",
        ),
        "finish_by": Param(
            None, type=["null", "string"], pattern="^(never|([01][0-9]|2[0-3]):[0-5][0-9])$",
            title="Finish by",
            description=f"Time of day ({experiment.time_zone}) by which measuring is over: blocks that "
            "do not fit are left out; never: no limit; "
            f"empty: as the experiment says ({experiment.finish_by or 'never'}).",
        ),
    }  # fmt: skip


def _doc(name: str, experiment: Experiment) -> str:
    rows = "\n".join(
        f"| {image} | `{spec.ref or ' '.join(spec.command or [])}` | "
        f"{' '.join(f'`{k}={v}`' for k, v in spec.env.items())} |"
        for image, spec in experiment.images.items()
    )
    return (
        f"## {name}\n{experiment.description}\n\n"
        f"| image | what runs | environment |\n| --- | --- | --- |\n{rows}\n\n"
        f"Reference: **{experiment.reference}**. Device: {experiment.device}. "
        f"Hosts: {', '.join(experiment.hosts)}.\n\nGreen means that every planned trial is accounted for."
    )
