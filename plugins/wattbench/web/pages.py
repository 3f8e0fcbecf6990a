"""What each page shows: Airflow's state and the store's documents put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.model.facts_document import FactsDocument
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import config_dir, load_hosts
from wattbench.dag_runs import RUN_GOING_ON
from wattbench.progress import HostProgress, describe, hosts_of, whole
from wattbench.report_summary import Answer, trends
from wattbench.run.run_id import parse_run_id
from wattbench.steps.check_host import unknown_on
from wattbench.web import rows, state, stored
from wattbench.web.rows import (
    STATES,
    Comparison,
    ExperimentLine,
    Filter,
    HostLine,
    Hosts,
    Known,
    Overview,
    RunLine,
    RunList,
    Scheduled,
    Trend,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Runs on a page, and runs that a comparison looks back on.
PAGE = 25
#: No filter.
ALL = Filter()


def experiment_of(run_id: str) -> str | None:
    """The experiment of a run id; None if it is not one."""
    parts = parse_run_id(run_id)
    return None if parts is None else parts.experiment


class Pages:
    """The pages' content for one request.

    Args:
        session: of Airflow's database.
        allowed: the experiments that the user may see.
    """

    def __init__(self, session: Session, allowed: Collection[str]) -> None:
        self._session = session
        self._allowed = sorted(allowed)

    @property
    def experiments(self) -> list[str]:
        """The experiments that the user may see."""
        return self._allowed

    # ── runs ────────────────────────────────────────────────────────────────────────────────────

    def runs(self, chosen: Filter = ALL, before: int | None = None) -> RunList:
        """A page of runs, newest first; a silent store leaves Airflow's part."""
        known = state.runs(
            self._session,
            [e for e in self._allowed if chosen.experiment in ("", e)],
            PAGE + 1,
            before,
            states=[chosen.state] if chosen.state else (),
            host=chosen.host,
        )
        lines, trouble = [], ""
        for one in known[:PAGE]:
            line = RunLine(one)
            if not trouble:
                try:
                    line = replace(line, answer=stored.answer_of(one))
                except UserError as error:
                    trouble = str(error)
            if not one.run.over:
                line = replace(line, progress=self.progress(one))
            lines.append(line)
        choices = {"experiment": self._allowed, "state": STATES, "host": _host_names()}
        older = known[PAGE - 1].number if len(known) > PAGE else None
        return RunList(tuple(lines), older, trouble, chosen, choices)

    def run(self, run_id: str) -> Known | None:
        """A run by wattbench's id."""
        return state.run(self._session, experiment_of(run_id) or "", run_id)

    def run_of(self, dag_id: str, dag_run_id: str) -> Known | None:
        """A run by Airflow's ids."""
        return state.run_of(self._session, dag_id, dag_run_id)

    def answer(self, known: Known) -> Answer | None:
        """What the report of a run says; None while it has none.

        Raises:
            UserError: the store does not answer.
        """
        return stored.answer_of(known)

    def progress(self, known: Known) -> tuple[HostProgress, ...]:
        """Where each host stands, and the run as a whole."""
        found = state.tasks(self._session, known.run)
        run_id, now = known.run.run_id, datetime.now(UTC)
        plan = stored.plan_of(run_id)
        lines = []
        for host in hosts_of(found):
            trials = plan.get(host, [])
            line = describe(host, found, [trial.label for trial in trials], {}, now)
            if line.last_failed is not None and line.last_failed < len(trials):
                reason = stored.reason_of(run_id, host, trials[line.last_failed])
                line = replace(line, why=reason)
            elif line.stopped:
                line = replace(line, why=_refusal(run_id, host))
            lines.append(line)
        doing = whole(found)
        return (*lines, *([HostProgress("run", doing)] if doing else []))

    # ── experiments ─────────────────────────────────────────────────────────────────────────────

    def overview(self) -> Overview:
        """What needs a person, and what each experiment's last run says."""
        lines, trouble = self.lines(), ""
        hosts: tuple[HostLine, ...] = ()
        try:
            hosts = self.hosts().lines
        except UserError as error:
            trouble = str(error)
        trouble = trouble or next((line.trouble for line in lines if line.trouble), "")
        return Overview(rows.attention(lines, hosts, datetime.now(UTC)), lines, trouble)

    def lines(self) -> tuple[ExperimentLine, ...]:
        """Every experiment, with its newest runs; a silent store leaves Airflow's part."""
        found = state.scheduled(self._session, self._allowed)
        return tuple(
            self._line(one) for one in found if not one.gone or self._newest(one, over=True)
        )

    def _line(self, one: Scheduled) -> ExperimentLine:
        line = ExperimentLine(one)
        if (going := self._newest(one, over=False)) is not None:
            line = replace(line, going=RunLine(going, progress=self.progress(going)))
        if (last := self._newest(one, over=True)) is None:
            return line
        line = replace(line, last=RunLine(last))
        try:
            line = replace(
                line, last=RunLine(last, stored.answer_of(last)), news=stored.news_of(last)
            )
            if last.run.state == "failed":
                line = replace(line, lacks=rows.lacks_of(stored.findings_of(last)))
        except UserError as error:
            line = replace(line, trouble=str(error))
        return line

    def _newest(self, one: Scheduled, *, over: bool) -> Known | None:
        states = [s for s in STATES if (s not in RUN_GOING_ON) == over]
        return next(iter(state.runs(self._session, [one.name], 1, states=states)), None)

    # ── hosts, and host beside host ─────────────────────────────────────────────────────────────

    def hosts(self) -> Hosts:
        """Every host of hosts.yaml.

        Raises:
            UserError: hosts.yaml or the store can't be read.
        """
        doing: dict[str, str] = {}
        for known in state.runs(self._session, self._allowed, PAGE, states=RUN_GOING_ON):
            for line in self.progress(known):
                doing[line.host] = f"{known.run.run_id}: {line.stage}"
        lines = tuple(
            self._host(name, config, doing.get(name, ""))
            for name, config in load_hosts(config_dir()).hosts.items()
        )
        facts = [(line.name, line.document.get("facts", FactsDocument())) for line in lines]
        return Hosts(lines, unknown_on(facts))

    def _host(self, name: str, config: HostConfig, doing: str) -> HostLine:
        line = HostLine(name, config.meter.kind, stored.standing(name, config), doing=doing)
        checked = state.last_checked(self._session, self._allowed, name)
        if checked is None:
            return line
        return replace(
            line,
            checked=checked,
            document=stored.host_document(checked.known.run.run_id, name),
            findings=rows.about_host(stored.findings_of(checked.known), name),
        )

    def compare(self) -> list[Comparison]:
        """Each experiment's newest answer and its trends; experiments without a report are left out.

        Raises:
            UserError: the store does not answer.
        """
        found = []
        for experiment, answers in self._answers():
            newest, answer = answers[0]
            course = trends([(known.run.run_id, one) for known, one in reversed(answers)])
            found.append(Comparison(experiment, newest.run.run_id, answer, course))
        return found

    def trends(self) -> list[Trend]:
        """Each experiment's course over its nights, and where its level changed.

        Raises:
            UserError: the store does not answer.
        """
        found = []
        for experiment, answers in self._answers():
            newest = answers[0][0]
            course = trends([(known.run.run_id, one) for known, one in reversed(answers)])
            nights = stored.nights_of(newest)
            lines = rows.trend_lines(course, (nights or {}).get("changes", ()))
            found.append(Trend(experiment, newest.run.run_id, len(answers), lines, nights))
        return found

    def _answers(self) -> Iterable[tuple[str, list[tuple[Known, Answer]]]]:
        """Each experiment with the answers of its newest runs, newest first."""
        for experiment in self._allowed:
            answers = [
                (known, one)
                for known in state.runs(self._session, [experiment], PAGE)
                if (one := stored.answer_of(known)) is not None
            ]
            if answers:
                yield experiment, answers


def _host_names() -> list[str]:
    """The hosts of hosts.yaml; none while it can't be read."""
    try:
        return list(load_hosts(config_dir()).hosts)
    except UserError:
        return []


def _refusal(run_id: str, host: str) -> str:
    """Why a run's check of a host failed; empty: not known."""
    try:
        return stored.host_document(run_id, host).get("reason", "")
    except UserError:
        return ""
