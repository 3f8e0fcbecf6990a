"""The Airflow skin over the steps: each task is a few lines over a plain module."""

from __future__ import annotations

import functools
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from wattbench.airflow.task_context import (
    connected,
    error_of,
    hosts_config,
    load_run,
    log,
    on_host,
    one_clear_line,
    refuse_unprepared,
    run_id_of,
    skip,
)
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.model.run_document import PlannedTrialDocument
from wattbench.config.loader import config_dir, experiment_paths, load_experiment, load_hosts
from wattbench.config.trigger import Selection, select
from wattbench.errors import ConfigError
from wattbench.run.plan import PlannedTrial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from airflow.sdk import Context

    from wattbench.analysis.model.run_document import PullDocument, RunDocument
    from wattbench.run.stored_run import Run
    from wattbench.worker.ssh import Host


class MarkedTrial(PlannedTrialDocument, total=False):
    """A planned trial as its mapped tasks get it.

    Attributes:
        unavailable: why its image could not be brought.
        late: whether it is executed after its block.
    """

    unavailable: str
    late: bool


class Prepare(BaseOperator):
    """Apply the trigger form, resolve images to digests, draw and store the plan."""

    ui_color = "#eee3f3"

    def __init__(self, *, path: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    def execute(self, context: Context) -> str:
        """Write ``run.json``; returns the run id."""
        from wattbench.airflow.connections import open_store, registry_access
        from wattbench.steps.prepare import prepare

        with one_clear_line():
            hosts = load_hosts(config_dir())
            params = {k: context["params"].get(k) for k in Selection.model_fields}
            selection = Selection.model_validate(params)
            experiment, skipped_hosts, skipped_images = select(
                load_experiment(self.path, hosts), selection
            )
            dag_run = context["dag_run"]
            run = prepare(
                open_store(hosts, wait_s=hosts.store.wait_s),
                hosts,
                experiment,
                run_id=run_id_of(context),
                identity={
                    "dag_id": dag_run.dag_id,
                    "dag_run_id": dag_run.run_id,
                    "run_after": dag_run.run_after.astimezone(UTC).isoformat(),
                },
                skipped_hosts=skipped_hosts,
                skipped_images=skipped_images,
                registries=registry_access(hosts),
                folder=self.path.parent,
            )
        log.info("run %s", run.run_id)
        return run.run_id


class PullImage(BaseOperator):
    """Bring one image to one host, by digest; of a process, list its packages there."""

    template_fields = ("image",)
    ui_color = "#dbe9f6"

    def __init__(self, *, host: str, image: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.host = host
        self.image = image

    def execute(self, context: Context) -> None:
        """Pull with progress in the log; a failure leaves its reason beside the other images' pulls."""
        from wattbench.airflow.connections import meter_readers, registry_access
        from wattbench.history.quarantine import quarantine
        from wattbench.steps.load_host import load_host_of
        from wattbench.steps.pull_image import bring_process, pull_image

        with one_clear_line():
            run = load_run(context)
            if reason := quarantine(run, self.host):
                skip(f"{self.host} is in quarantine: {reason}")
            if reason := run.document["skipped_images"].get(self.image):
                skip(reason)
            if run.image_ref(self.image) is None:
                on_host(self.host, lambda host: bring_process(run, host, self.host, self.image))
            else:
                access = registry_access(hosts_config())
                readers = meter_readers(self.host, run.host_config(self.host))
                load = load_host_of(run, on_host)
                on_host(
                    self.host,
                    lambda host: pull_image(
                        run, host, self.host, self.image, access, readers, load
                    ),
                )


class PlanHost(BaseOperator):
    """Hand the host's stored plan to the trials, marked where an image is not there."""

    def __init__(self, *, host: str, check: str, **kwargs: Any) -> None:
        super().__init__(trigger_rule="all_done", **kwargs)
        self.host = host
        self.check = check

    def trials(self, run: Run) -> Sequence[PlannedTrial]:
        """Those that there is time for, in whole blocks; in quarantine only the control workload."""
        from wattbench.history.deadline import plan_out
        from wattbench.history.quarantine import quarantine, set_aside

        fitting = plan_out(run, self.host, datetime.now(UTC))
        return set_aside(run, self.host, fitting, quarantine(run, self.host))

    def specs(self, context: Context) -> tuple[Run, list[MarkedTrial]]:
        """The run and the marked trials; this task is skipped where the host's check has not passed."""
        if context["ti"].xcom_pull(task_ids=self.check) is None:
            skip(f"{self.check} has not passed")
        with one_clear_line():
            run = load_run(context)
            pulls = run.pulls(self.host)
            images = run.experiment.images
            return run, [_marked(t, t.image in images, pulls) for t in self.trials(run)]

    def execute(self, context: Context) -> list[MarkedTrial]:
        """The trials in planned order; fails where no two images can be compared."""
        from wattbench.steps.early_stopping import stop_without_images

        run, specs = self.specs(context)
        if not specs:
            skip("nothing is left to measure: see the lines above")
        unavailable = {s["image"]: s["unavailable"] for s in specs if "unavailable" in s}
        trials = [PlannedTrial.from_dict(s) for s in specs]
        with one_clear_line():
            stopped = stop_without_images(run, self.host, trials, unavailable)
        if stopped:
            raise AirflowFailException(f"{self.host}: {stopped}")
        if len(unavailable) == len({t.image for t in trials}):
            raise AirflowFailException(f"none of the images could be brought to {self.host}")
        for spec in specs:
            log.info("block %2d  %s%s", spec["block"], spec["label"],
                     f"  unavailable: {spec['unavailable']}" if "unavailable" in spec else "")  # fmt: skip
        return specs


def _marked(trial: PlannedTrial, of_image: bool, pulls: Mapping[str, PullDocument]) -> MarkedTrial:
    spec = cast("MarkedTrial", trial.to_dict())
    if of_image:
        pull: PullDocument = pulls.get(trial.image, {"error": "was not brought"})
        if error := pull.get("error"):
            spec["unavailable"] = error
    return spec


class Measure(BaseOperator):
    """Start the attempt detached on the host and wait for it in the triggerer; a retry re-attaches."""

    template_fields = ("spec",)
    ui_color = "#cfe8cf"

    def __init__(self, *, host: str, rest: str, spec: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.host = host
        self.rest = rest
        self.spec = spec

    def execute(self, context: Context) -> None:
        """Hand the attempt over to the triggerer, which ends this task when it is done."""
        from wattbench.airflow.triggers import MeasuredAttempt

        ti: Any = context["ti"]
        found = ti.xcom_pull(task_ids=self.rest, map_indexes=ti.map_index) or {}
        # Airflow 3.3 encodes what a trigger ends its task with once more than what a task returns.
        rest = dict(json.loads(found) if isinstance(found, str) else found)
        late = bool(rest.pop("late", False) or self.spec.get("late"))
        self.defer(
            trigger=MeasuredAttempt(
                run_id=run_id_of(context), host=self.host, spec=self.spec, rest=rest, late=late
            ),
            method_name="fail",
            timeout=self.execution_timeout,  # of itself it bounds the time on a worker only
        )

    def fail(self, context: Context, event: dict[str, Any]) -> None:
        """Fail for good, with the reason kept for ``collect``."""
        context["ti"].xcom_push(key="error", value=event["failed"])
        raise AirflowFailException(event["failed"])


class Collect(BaseOperator):
    """Bring the raw logs into the store, verified, and compute the attempt's record."""

    template_fields = ("spec",)
    ui_color = "#dbe9f6"

    def __init__(self, *, host: str, measure: str, spec: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.host = host
        self.measure = measure
        self.spec = spec

    def execute(self, context: Context) -> str:
        """One line about the trial; fails the task unless the trial is valid."""
        from wattbench.steps import trial

        planned = PlannedTrial.from_dict(self.spec)
        with one_clear_line():
            run = load_run(context)
            record = trial.collect_stored(run, self.host, planned) or on_host(
                self.host, lambda host: trial.collect(run, host, self.host, planned)
            )
            if record is None:
                reason = error_of(context, self.measure) or "the attempt was never started"
                run.write_outcome(self.host, planned, "missing", reason)
                raise AirflowFailException(reason)
        line = trial.describe(record)
        if record.row.status != "valid":
            raise AirflowFailException(line)
        log.info("%s", line)
        return line


class PlanAgain(PlanHost):
    """List the trials that another attempt may mend."""

    def trials(self, run: Run) -> Sequence[PlannedTrial]:
        """Those without an accepted attempt, shuffled, as far as there is time."""
        from wattbench.history.deadline import further_attempts
        from wattbench.steps.early_stopping import is_given_up

        if is_given_up(run, self.host):
            return ()
        return further_attempts(run, self.host, run.to_try_again(self.host), datetime.now(UTC))

    def execute(self, context: Context) -> list[MarkedTrial]:
        """The trials to try again, shuffled; skipped when there are none."""
        _, marked = self.specs(context)
        specs: list[MarkedTrial] = [{**s, "late": True} for s in marked if "unavailable" not in s]
        if not specs:
            skip("nothing to try again")
        return specs


class HostReport(BaseOperator):
    """Say in one table what became of the host's trials."""

    def __init__(self, *, host: str, **kwargs: Any) -> None:
        super().__init__(trigger_rule="all_done", **kwargs)
        self.host = host

    def execute(self, context: Context) -> None:
        """Print one line per trial."""
        from wattbench.steps.trial import describe

        refuse_unprepared(context)
        with one_clear_line():
            run = load_run(context)
            if self.host not in run.experiment.hosts:
                skip(run.document["skipped_hosts"].get(self.host, "not part of this run"))
            records, outcomes = run.records(self.host), run.outcomes(self.host)
        for planned in run.plan(self.host):
            attempts = records.get(planned.name, [])
            outcome = outcomes.get(planned.name)
            if attempts:
                line = describe(
                    next((r for r in attempts if r.row.status == "valid"), attempts[-1])
                )
            else:
                line = f"{outcome['status']}: {outcome['reason']}" if outcome else "never started"
            log.info("%-24s %s", planned.label, line)


class ReleaseHost(BaseOperator):
    """Give the host back, however the run ended: all that lies there is collected, nothing stays.

    So it is with the load host, once the measured one has ended what it loads.
    """

    def __init__(self, *, host: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.host = host

    def execute(self, context: Context) -> str:
        """What was found there, in one line; skipped where the run has never had the host."""
        from wattbench.run import host_claims

        with one_clear_line():
            run = load_run(context)
            load_host = run.experiment.load_host
            mine = self.host in run.experiment.hosts
            names = [self.host, *([load_host] if load_host and mine else [])]
            held = [name for name in names if host_claims.own_claim(run, name) is not None]
            if not held:
                skip(f"this run has nothing on {self.host}")
            brought, failed = 0, None
            for name in held:
                try:
                    brought += on_host(name, functools.partial(_close, run, name))
                except UserError as error:
                    failed = failed or error
            if failed is not None:
                raise failed
        line = f"{' and '.join(held)} {'is' if len(held) == 1 else 'are'} free"
        if brought:
            line += f"; {brought} attempts that still lay there were collected"
        log.info("%s", line)
        return line


def _close(run: Run, name: str, host: Host) -> int:
    from wattbench.steps.close_host import close_host

    return close_host(run, host, name)


class Analyze(BaseOperator):
    """Statistics across hosts, report and manifest."""

    ui_color = "#eee3f3"

    def execute(self, context: Context) -> dict[str, Any]:
        """The headline and where the report lies."""
        from wattbench.steps import analyze as analyze_module

        began = time.monotonic()
        with one_clear_line():
            made = analyze_module.analyze(load_run(context))
        log.info("%s", made["sentence"])
        log.info("report: %s (%.0f s)", made["report"], time.monotonic() - began)
        return made


class Verdict(BaseOperator):
    """Fail the DAG run unless every planned trial is accounted for, and the report is there.

    A run that a person has marked is failed too: Airflow skips the tasks that had not begun, teardowns apart,
    and the states of these alone would make the run a success.

    Args:
        analyze: the task that makes the report.
        last: name of the last task of each host's group that is not a teardown.
    """

    ui_color = "#f6dbdb"

    def __init__(self, *, analyze: str, last: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.analyze = analyze
        self.last = last

    def execute(self, context: Context) -> str:
        """``N/N trials valid``."""
        from wattbench.steps import verdict

        refuse_unprepared(context)
        with one_clear_line():
            run = load_run(context)
            account = verdict.account(run)
        sentence = account.sentence()
        unfinished = self._skipped(context, run.experiment.hosts)
        if unfinished:
            sentence += (
                f"; the run was marked by hand before {', '.join(unfinished)} had finished: its report holds "
                "what was measured, trigger it again for a whole one"
            )
        if unfinished or not account.is_complete:
            log.error("%s", sentence)
            raise AirflowFailException(sentence)
        if context["ti"].xcom_pull(task_ids=self.analyze) is None:
            raise AirflowFailException(
                f"{sentence}, but there is no report: see task {self.analyze}"
            )
        log.info("%s", sentence)
        return sentence

    def _skipped(self, context: Context, hosts: Sequence[str]) -> list[str]:
        """Hosts whose last task was never begun."""
        ids = {f"{host}.{self.last}": host for host in hosts}
        found = context["ti"].get_task_states(
            self.dag_id, task_ids=list(ids), run_ids=[context["run_id"]]
        )
        states = found.get(context["run_id"], {})
        return [host for task_id, host in ids.items() if states.get(task_id) == "skipped"]


class Notify(BaseOperator):
    """Tell people what is new, by the notifiers of hosts.yaml."""

    ui_color = "#f6ecd0"

    def execute(self, context: Context) -> None:
        """Send the events that ``analyze`` found, and that the run is incomplete if it is."""
        from wattbench.airflow.notifiers import link_of, send
        from wattbench.steps import run_events, verdict

        dag_run, run_id = context["dag_run"], run_id_of(context)
        events: list[run_events.Event] = []
        try:
            refuse_unprepared(context)
            run = load_run(context)
            events += run_events.read(run)
            account = verdict.account(run)
            lack = "" if account.is_complete else account.sentence()
        except (UserError, AirflowFailException) as error:
            lack = f"it could not be read: {error}"
        if lack:
            events.append(
                run_events.Event("run-incomplete", f"{dag_run.dag_id}: the run is incomplete", lack)
            )
        if not events:
            skip("no new events")
        with one_clear_line():
            trouble = send(
                events, hosts_config().notify, {**context}, run_id=run_id,
                link=link_of(dag_run.dag_id, dag_run.run_id),
            )  # fmt: skip
        if trouble:
            raise AirflowFailException("; ".join(trouble))


class KeepHouse(BaseOperator):
    """Report runs that hang; close those that are over, deleted or stranded."""

    def execute(self, context: Context) -> str:
        """What was done, in one line; fails where something has to wait for the next time."""
        from wattbench.airflow.connections import open_store
        from wattbench.airflow.notifiers import link_of, run_hangs, send
        from wattbench.steps import housekeeping
        from wattbench.steps.run_events import Event

        ti: Any = context["ti"]

        def going_on(dag_id: str, dag_run_id: str) -> bool:
            states = ["running", "queued"]
            return bool(ti.get_dr_count(dag_id, run_ids=[dag_run_id], states=states))

        def once(name: str, work: Callable[[Host], int]) -> int:
            if name not in hosts.hosts:
                raise ConfigError(
                    f"hosts.yaml has no host {name!r} any more; add it, or remove the claim"
                )
            with connected(name) as host:
                return work(host)

        def going_on_and_not_given_up(dag_id: str, dag_run_id: str) -> bool:
            return (dag_id, dag_run_id) not in given_up and going_on(dag_id, dag_run_id)

        with one_clear_line():
            hosts, now = hosts_config(), datetime.now(UTC)
            store = open_store(hosts)
            there = {path.stem for path in experiment_paths(config_dir())}
            stranded = housekeeping.newly_stranded(store, going_on, there, now)
            given_up = housekeeping.given_up(store, now)
            closed, trouble = housekeeping.close_abandoned(store, going_on_and_not_given_up, once)
            events = [
                (one, Event("run-incomplete", f"{one.dag_id}: the run was closed from outside", one.text))
                for one in closed
            ] + [
                (one, Event("run-hangs", f"{one.dag_id}: the run stands still", housekeeping.STRANDED))
                for one in stranded
            ]  # fmt: skip
            for one, event in events:
                trouble += send(
                    [event], hosts.notify, {**context}, run_id=one.run_id,
                    link=link_of(one.dag_id, one.dag_run_id),
                )  # fmt: skip
            late = housekeeping.hanging(store, going_on_and_not_given_up, now)
            for run in late:
                run_hangs(
                    {
                        "dag_run": {
                            "dag_id": run.dag_id,
                            "run_id": run.dag_run_id,
                            "queued_at": run.since,
                        }
                    }
                )
                housekeeping.note_notified(store, run, now)
        line = housekeeping.summary(closed, late, stranded)
        log.info("%s", line)
        if trouble:
            raise AirflowFailException("; ".join(trouble))
        return line


class ExpireRawLogs(BaseOperator):
    """Remove raw logs that are older, or more, than hosts.yaml keeps."""

    def execute(self, context: Context) -> str:
        """Leaves runs alone that go on; returns what was done in one line."""
        from wattbench.airflow.connections import open_store
        from wattbench.steps.retention import expire

        ti: Any = context["ti"]

        def is_over(document: RunDocument) -> bool:
            # Counted, since Airflow may have forgotten a run that is long over.
            going_on = ti.get_dr_count(
                document["dag_id"], run_ids=[document["dag_run_id"]], states=["running", "queued"]
            )
            return not going_on

        with one_clear_line():
            hosts = hosts_config()
            retention = hosts.store.retention
            if retention is None:
                raise AirflowFailException("hosts.yaml names no store.retention any more")
            done = expire(open_store(hosts), retention, is_over)
        log.info("%s", done)
        return done
