"""The waits: for a free and fit host, for a warm one, for one's turn and a rested one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue, timezone
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from wattbench.airflow.task_context import load_run, log, on_host, one_clear_line, skip
from wattbench.airflow.trial_order import Turn, is_late, turn
from wattbench.run.plan import PlannedTrial
from wattbench.steps.warm_up import Reading, Warmth, judge, keep

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wattbench.run.stored_run import Run
    from wattbench.worker.ssh import Host

WEEK_S = 7 * 86400
#: How seldom a host is asked that a run of another controller has, s.
LONGEST_PAUSE_S = 900.0


class CheckHost(BaseSensorOperator):
    """Wait until no other run has the host, take its lease, read its facts, refuse an unfit host.

    Who has the host is read from the store: nothing touches a host that another run may be measuring on.
    """

    ui_color = "#dbe9f6"

    def __init__(self, *, host: str, **kwargs: Any) -> None:
        super().__init__(mode="reschedule", poke_interval=15, timeout=WEEK_S, **kwargs)
        self.host = host

    def poke(self, context: Context) -> PokeReturnValue:
        """Take the lease and check; False while another run has the host."""
        from wattbench.airflow.connections import meter_readers
        from wattbench.run import host_claims
        from wattbench.steps import check_host

        def take_and_check(host: Host) -> str | None:
            if refused := check_host.take_lease(run, host, self.host, anew=True):
                return refused
            readers = meter_readers(self.host, run.host_config(self.host))
            check_host.check(run, host, self.host, readers)
            return None

        with one_clear_line():
            run = load_run(context)
            if self.host not in run.experiment.hosts:
                skip(run.document["skipped_hosts"].get(self.host, "not part of this run"))
            if reason := check_host.leave_alone(run, self.host):
                skip(reason)
            if other := host_claims.holder(run, self.host):
                until = datetime.fromtimestamp(other.expires_unix_s, UTC)
                log.info(
                    "waiting for %s: it is held by %s, at the latest until %s unless it asks for more",
                    self.host, other.run_id, f"{until:%Y-%m-%dT%H:%M:%SZ}",
                )  # fmt: skip
                return PokeReturnValue(is_done=False)
            with check_host.kept_refusal(run, self.host):
                refused = on_host(self.host, take_and_check)
            if refused:
                self._ask_less_and_less(context, refused)
        return PokeReturnValue(is_done=True, xcom_value="fit")

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
            found = on_host(self.host, lambda host: self._look(run, host))
            if not found.over:
                return False
            keep(run, self.host, found)
        return True

    def _look(self, run: Run, host: Host) -> Warmth:
        wanted = run.experiment.protocol.warm_up
        call = {"owner": run.run_id, "action": "start", "seconds": wanted.limit_s}
        status = host.call("warm", call)
        self._readings.append(
            Reading(float(status["elapsed_s"]), status["temperature_c"], status["power_w"])
        )
        found = judge(self._readings, wanted)
        log.info("warming %s: %.0f s; %s", self.host, found.elapsed_s, found.why)
        if found.over:
            host.call("warm", {"owner": run.run_id, "action": "stop"})
        return found


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
        self._late: bool | None = None  # known once it has its turn
        self._run: Run | None = None  # read while it waits, so that its turn begins at once

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """True, with the host's readings, once the trial may start."""
        from wattbench.run import host_claims
        from wattbench.steps import early_stopping, trial

        ti: Any = context["ti"]
        with one_clear_line():
            run = self._run = self._run or load_run(context)
        states = self._states(ti, all_of_group=self._late is None)
        self._refuse_if_ended(states, ti.map_index)
        if self._late is None:
            decision = turn(states, self.group, ti.map_index)
            if decision is Turn.WAIT:
                return False
            if decision is Turn.GIVE_WAY:
                log.info("an earlier trial has not begun yet: giving way to it")
                raise AirflowRescheduleException(  # type: ignore[no-untyped-call]
                    timezone.utcnow() + timedelta(seconds=2)
                )
            self._late = is_late(states, self.group, ti.map_index)
        with one_clear_line():
            planned = PlannedTrial.from_dict(self.spec)
            if error := self.spec.get("unavailable"):
                reason = f"image {planned.image}: {error}"
                run.write_outcome(self.host, planned, "missing", reason)
                skip(reason)
            if stop := early_stopping.stop_before(run, self.host, planned):
                run.write_outcome(self.host, planned, stop.status, stop.reason)
                skip(stop.reason)
            if other := host_claims.holder(run, self.host):
                log.info("waiting for %s: it is held by %s", self.host, other.run_id)
                self.poke_interval = 15
                return False
            look = on_host(self.host, lambda host: trial.is_rested(run, host, self.host))
        if not look.ready:
            self.poke_interval = look.look_again_s
            return False
        return PokeReturnValue(is_done=True, xcom_value=look.readings | {"late": self._late})

    def _states(self, ti: Any, *, all_of_group: bool) -> dict[str, str | None]:
        """What Airflow says of all tasks of the group, or of this one."""
        tasks = ("rest", "measure", "collect") if all_of_group else ("rest",)
        found = ti.get_task_states(
            dag_id=ti.dag_id, task_ids=[f"{self.group}.{t}" for t in tasks], run_ids=[ti.run_id],
            map_index=None if all_of_group else ti.map_index,
        )  # fmt: skip
        return dict(found.get(ti.run_id, {}))

    def _refuse_if_ended(self, states: Mapping[str, str | None], index: int) -> None:
        """Start nothing in a run that has just been ended: its tasks live on for some seconds.

        Raises:
            AirflowFailException: another process has changed this task's state.
        """
        state = states.get(f"{self.group}.rest_{index}")
        if state != "running":
            raise AirflowFailException(f"this task was set to {state} from outside")
