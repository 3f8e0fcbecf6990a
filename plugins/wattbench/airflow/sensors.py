"""The waits: for a free and fit host, for a warm one, for one's turn and a rested one.

Each begins on a worker and waits in the triggerer, see :mod:`wattbench.airflow.triggers`.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, timezone
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from wattbench.airflow.task_context import (
    load_run,
    log,
    on_host,
    one_clear_line,
    run_id_of,
    skip,
)
from wattbench.run.plan import PlannedTrial

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wattbench.run.stored_run import Run
    from wattbench.worker.ssh import Host

WEEK = timedelta(days=7)
#: How seldom a host is asked that a run of another controller has, s.
LONGEST_PAUSE_S = 900.0


class CheckHost(BaseSensorOperator):
    """Wait until no other run has the host, take its lease, read its facts, refuse an unfit host.

    Who has the host is read from the store: nothing touches a host that another run may be measuring on.
    """

    ui_color = "#dbe9f6"

    def __init__(self, *, host: str, **kwargs: Any) -> None:
        super().__init__(mode="reschedule", timeout=WEEK, **kwargs)
        self.host = host

    def execute(self, context: Context) -> str:
        """Take the lease and check; deferred while another run has the host."""
        return self._take(context)

    def try_again(self, context: Context, event: dict[str, Any]) -> str:
        """The host is free, or was a moment ago."""
        _raise_failure(event)
        return self._take(context)

    def _take(self, context: Context) -> str:
        from wattbench.airflow.connections import meter_readers
        from wattbench.steps import check_host
        from wattbench.steps.load_host import check_load_host, own_attempt

        def take(name: str, host: Host) -> str | None:
            return check_host.take_lease(run, host, name, anew=True)

        def take_and_check(host: Host) -> str | None:
            if refused := take(self.host, host):
                return refused
            if load_host and load_host > self.host and (refused := take_load_host()):
                return refused
            if load_host and (attempt := own_attempt(run, host)):
                return f"{attempt} is not over, and its load has the port"
            readers = meter_readers(self.host, run.host_config(self.host))
            check_host.check(run, host, self.host, readers)
            if load_host:
                on_host(
                    load_host,
                    lambda there: check_load_host(run, host, self.host, there, load_host),
                )
            return None

        def take_load_host() -> str | None:
            return on_host(load_host, functools.partial(take, load_host))

        with one_clear_line():
            run = load_run(context)
            if self.host not in run.experiment.hosts:
                skip(run.document["skipped_hosts"].get(self.host, "not part of this run"))
            if reason := check_host.leave_alone(run, self.host):
                skip(reason)
            load_host = run.experiment.load_host or ""
            for name in filter(None, (self.host, load_host)):
                self._defer_while_held(run, name)
            with check_host.kept_refusal(run, self.host):
                # By their names, so that two runs that need the same two hosts don't wait for each other.
                refused = take_load_host() if load_host and load_host < self.host else None
                refused = refused or on_host(self.host, take_and_check)
            if refused:
                self._ask_less_and_less(context, refused)
        return "fit"

    def _defer_while_held(self, run: Run, name: str) -> None:
        """Wait in the triggerer where another run of this store has a host."""
        from wattbench.airflow.triggers import FreeHost
        from wattbench.run import host_claims

        if other := host_claims.holder(run, name):
            until = datetime.fromtimestamp(other.expires_unix_s, UTC)
            log.info(
                "waiting for %s: it is held by %s, at the latest until %s unless it asks for more",
                name, other.run_id, f"{until:%Y-%m-%dT%H:%M:%SZ}",
            )  # fmt: skip
            waiting = FreeHost(run_id=run.run_id, host=name)
            self.defer(trigger=waiting, method_name="try_again", timeout=WEEK)

    def _ask_less_and_less(self, context: Context, refused: str) -> NoReturn:
        """Come back later: the holder is not in our store, so that only the host can say when it is free."""
        ti: Any = context["ti"]
        now = timezone.utcnow()
        waited_s = (now - (ti.get_first_reschedule_date(context) or now)).total_seconds()
        pause_s = min(max(waited_s / 2, 15.0), LONGEST_PAUSE_S)
        log.info("waiting for %s, asking again in %.0f s: %s", self.host, pause_s, refused)
        raise AirflowRescheduleException(now + timedelta(seconds=pause_s))  # type: ignore[no-untyped-call]


class WarmUp(BaseSensorOperator):
    """Load the host until it is warm, so that the first trial meets what the others meet."""

    ui_color = "#fbe3d0"

    def __init__(self, *, host: str, **kwargs: Any) -> None:
        super().__init__(timeout=WEEK, **kwargs)
        self.host = host

    def execute(self, context: Context) -> None:
        """Hand the warm-up over to the triggerer, which ends this task when the host is warm."""
        from wattbench.airflow.triggers import WarmHost

        with one_clear_line():
            if load_run(context).experiment.protocol.warm_up.seconds == 0:
                log.info("no warm-up asked for")
                return
        waiting = WarmHost(run_id=run_id_of(context), host=self.host)
        self.defer(trigger=waiting, method_name="fail", timeout=WEEK)

    def fail(self, context: Context, event: dict[str, Any]) -> None:
        """Fail for good."""
        del context
        _raise_failure(event)


class Rest(BaseSensorOperator):
    """Wait for this trial's turn, then until the host is quiet again.

    Airflow counts deferred tasks against ``max_active_tis_per_dagrun``: per host one trial waits.
    """

    template_fields = ("spec",)
    ui_color = "#e4f2e4"

    def __init__(self, *, host: str, group: str, spec: Any, **kwargs: Any) -> None:
        super().__init__(timeout=WEEK, **kwargs)
        self.host = host
        self.group = group
        self.spec = spec

    def execute(self, context: Context) -> None:
        """Hand the wait over to the triggerer, unless it is known that there is nothing to wait for."""
        from wattbench.airflow.triggers import RestedHost
        from wattbench.steps import early_stopping

        ti: Any = context["ti"]
        planned = PlannedTrial.from_dict(self.spec)
        with one_clear_line():
            run = load_run(context)
            if error := self.spec.get("unavailable"):
                reason = f"image {planned.image}: {error}"
                run.write_outcome(self.host, planned, "missing", reason)
                skip(reason)
            if stop := early_stopping.stop_known(run, self.host, planned):
                run.write_outcome(self.host, planned, stop.status, stop.reason)
                skip(stop.reason)
        waiting = RestedHost(
            run_id=run.run_id, host=self.host, group=self.group, spec=self.spec,
            dag_id=ti.dag_id, dag_run_id=ti.run_id, map_index=ti.map_index,
        )  # fmt: skip
        self.defer(trigger=waiting, method_name="come_back", timeout=WEEK)

    def come_back(self, context: Context, event: dict[str, Any]) -> None:
        """Fail for good, or leave the place to an earlier trial for a moment."""
        del context
        _raise_failure(event)
        raise AirflowRescheduleException(  # type: ignore[no-untyped-call]
            timezone.utcnow() + timedelta(seconds=2)
        )


def _raise_failure(event: dict[str, Any]) -> None:
    if "failed" in event:
        raise AirflowFailException(event["failed"])
