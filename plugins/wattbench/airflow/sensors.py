"""The waits: for a free and fit host, for a warm one, for one's turn and a rested one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue, timezone
from airflow.sdk.exceptions import AirflowRescheduleException

from wattbench.airflow.task_context import connected, load_run, log, one_clear_line, skip
from wattbench.airflow.trial_order import Turn, turn
from wattbench.run.plan import PlannedTrial
from wattbench.steps.warm_up import Reading, judge, keep

if TYPE_CHECKING:
    from airflow.sdk import Context

WEEK_S = 7 * 86400


class CheckHost(BaseSensorOperator):
    """Wait for the host's lease, then read its facts and refuse an unfit host."""

    ui_color = "#dbe9f6"

    def __init__(self, *, host: str, **kwargs: Any) -> None:
        super().__init__(mode="reschedule", poke_interval=15, timeout=WEEK_S, **kwargs)
        self.host = host

    def poke(self, context: Context) -> PokeReturnValue:
        """Take the lease and check; False while another run has the host."""
        from wattbench.steps import check_host

        with one_clear_line():
            run = load_run(context)
            if self.host not in run.experiment.hosts:
                skip(run.document["skipped_hosts"].get(self.host, "not part of this run"))
            if reason := check_host.leave_alone(run, self.host):
                skip(reason)
            with connected(self.host) as host:
                if holder := check_host.take_lease(run, host):
                    log.info("waiting for %s: %s", self.host, holder)
                    return PokeReturnValue(is_done=False)
                check_host.check(run, host, self.host)
        return PokeReturnValue(is_done=True, xcom_value="fit")


class WarmUp(BaseSensorOperator):
    """Load the host until it is warm, so that the first trial meets what the others meet."""

    ui_color = "#fbe3d0"

    def __init__(self, *, host: str, seconds: float, **kwargs: Any) -> None:
        super().__init__(poke_interval=min(5.0, max(1.0, seconds / 10)), timeout=WEEK_S, **kwargs)
        self.host = host
        self._readings: list[Reading] = []

    def poke(self, context: Context) -> bool:
        """Start the load where it does not run yet; True when the host is warm, or its time is over."""
        with one_clear_line():
            run = load_run(context)
            wanted = run.experiment.protocol.warm_up
            if wanted.seconds == 0:
                log.info("no warm-up asked for")
                return True
            call = {"owner": run.run_id, "action": "start", "seconds": wanted.limit_s}
            with connected(self.host) as host:
                status = host.call("warm", call)
                self._readings.append(
                    Reading(float(status["elapsed_s"]), status["temperature_c"], status["power_w"])
                )
                found = judge(self._readings, wanted)
                log.info("warming %s: %.0f s; %s", self.host, found.elapsed_s, found.why)
                if not found.over:
                    return False
                host.call("warm", {"owner": run.run_id, "action": "stop"})
            keep(run, self.host, found)
        return True


class Rest(BaseSensorOperator):
    """Wait for this trial's turn, then until the host is quiet again.

    While another trial is in its window only Airflow is asked, never the host.
    """

    template_fields = ("spec",)
    ui_color = "#e4f2e4"

    def __init__(self, *, host: str, group: str, spec: Any, **kwargs: Any) -> None:
        super().__init__(poke_interval=1, timeout=WEEK_S, **kwargs)
        self.host = host
        self.group = group
        self.spec = spec
        self._has_turn = False

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """True, with the host's readings, once the trial may start."""
        from wattbench.steps import early_stopping, trial

        ti: Any = context["ti"]
        if not self._has_turn:
            states = ti.get_task_states(
                dag_id=ti.dag_id,
                task_ids=[f"{self.group}.{t}" for t in ("rest", "measure", "collect")],
                run_ids=[ti.run_id],
            ).get(ti.run_id, {})
            decision = turn(states, self.group, ti.map_index)
            if decision is Turn.WAIT:
                return False
            if decision is Turn.GIVE_WAY:
                log.info("an earlier trial has not begun yet: giving way to it")
                raise AirflowRescheduleException(  # type: ignore[no-untyped-call]
                    timezone.utcnow() + timedelta(seconds=2)
                )
            self._has_turn = True
        with one_clear_line():
            run = load_run(context)
            planned = PlannedTrial.from_dict(self.spec)
            if reason := self.spec.get("unavailable"):
                run.write_outcome(self.host, planned, "missing", reason)
                skip(reason)
            if reason := early_stopping.reason_to_skip(run, self.host, planned):
                run.write_outcome(self.host, planned, "skipped", reason)
                skip(reason)
            with connected(self.host) as host:
                look = trial.is_rested(run, host, self.host)
        if not look.ready:
            self.poke_interval = look.look_again_s
            return False
        return PokeReturnValue(is_done=True, xcom_value=look.readings)
