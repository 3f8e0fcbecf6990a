"""What each page shows: Airflow's state and the store's reports put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model import host_facts
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.model.facts_document import FactsDocument, ProblemDocument
from wattbench.analysis.model.run_document import (
    HostDocument,
    PlannedTrialDocument,
    read_run,
    readable_host,
)
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import config_dir, load_hosts
from wattbench.history.quarantine import Standing, standing_of
from wattbench.progress import HostProgress, describe, hosts_of, whole
from wattbench.report_summary import Answer, Point, answer, trends
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.run_id import parse_run_id
from wattbench.steps.check_host import untold
from wattbench.storage.object_store import ObjectMissingError, Store
from wattbench.web import state
from wattbench.web.state import Known

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Runs on a page, and runs that a comparison looks back on.
PAGE = 25
#: A page waits for the store no longer than a person does.
_WAITS_S = (0.5,)
#: Age after which a host's runs are read again, s.
_STANDING_S = 60.0
#: Findings about a host that its problems and its quarantine status show already.
_TOLD_APART = frozenset({"host-unsteady", "host-setup"})


def experiment_of(run_id: str) -> str | None:
    """The experiment of a run id; None if it is not one."""
    parts = parse_run_id(run_id)
    return None if parts is None else parts.experiment


@dataclass(frozen=True)
class RunLine:
    """One run in the list.

    Attributes:
        known: the run.
        answer: its report's; None without one.
        progress: where its hosts stand while it goes on.
    """

    known: Known
    answer: Answer | None = None
    progress: tuple[HostProgress, ...] = ()

    @property
    def run_id(self) -> str:
        """Of the run."""
        return self.known.run.run_id


@dataclass(frozen=True)
class RunList:
    """The list of runs; `older`: from where the next page goes on; `trouble`: of the store."""

    lines: tuple[RunLine, ...]
    older: datetime | None
    trouble: str = ""


@dataclass(frozen=True)
class HostLine:
    """One host: its configuration, and what its last check found.

    Attributes:
        name: in hosts.yaml.
        meter: kind of its meter.
        checked: the run that last checked it.
        problems: that this check found, as the agent reports them.
        facts: `{what: value}` for people.
        findings: that the report of that run has about the host.
        doing: what a run does there at this moment.
        standing: how it stands by its control workload over runs.
    """

    name: str
    meter: str
    standing: Standing
    checked: Known | None = None
    problems: tuple[ProblemDocument, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] = ()
    doing: str = ""

    @property
    def word(self) -> str:
        """fine, soft, hard, or unknown if it was never checked."""
        if self.checked is None or not self.facts:
            return "unknown"
        severities = {str(p.get("severity")) for p in self.problems}
        return next((s for s in ("hard", "soft") if s in severities), "fine")


@dataclass(frozen=True)
class Comparison:
    """One experiment's newest answer, host beside host, and how it came about over runs."""

    experiment: str
    run_id: str
    answer: Answer
    trends: Mapping[tuple[str, str], Sequence[Point]]


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

    def runs(self, before: datetime | None = None) -> RunList:
        """A page of runs, newest first; a silent store leaves Airflow's part."""
        known = state.runs(self._session, self._allowed, PAGE + 1, before)
        lines, trouble = [], ""
        for one in known[:PAGE]:
            line = RunLine(one)
            if not trouble:
                try:
                    line = replace(line, answer=self.answer(one))
                except UserError as error:
                    trouble = str(error)
            if not one.run.over:
                line = replace(line, progress=self.progress(one))
            lines.append(line)
        older = known[PAGE - 1].run.run_after if len(known) > PAGE else None
        return RunList(tuple(lines), older, trouble)

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
        return _cached_answer(known) if known.run.over else None

    def progress(self, known: Known) -> tuple[HostProgress, ...]:
        """Where each host stands, and the run as a whole."""
        found = state.tasks(self._session, known.run)
        plan = _plan(known.run.run_id)
        now = datetime.now(UTC)
        lines = [describe(host, found, plan.get(host, []), {}, now) for host in hosts_of(found)]
        doing = whole(found)
        return (*lines, *([HostProgress("run", doing)] if doing else []))

    # ── hosts, and host beside host ─────────────────────────────────────────────────────────────

    def hosts(self) -> list[HostLine]:
        """Every host of hosts.yaml.

        Raises:
            UserError: hosts.yaml or the store can't be read.
        """
        doing: dict[str, str] = {}
        for known in state.runs(self._session, self._allowed, PAGE):
            if not known.run.over:
                for line in self.progress(known):
                    doing[line.host] = f"{known.run.run_id}: {line.stage}"
        return [
            self._host(name, config, doing.get(name, ""))
            for name, config in load_hosts(config_dir()).hosts.items()
        ]

    def _host(self, name: str, config: HostConfig, doing: str) -> HostLine:
        line = HostLine(name, config.meter.kind, _standing(name, config), doing=doing)
        checked = state.last_checked(self._session, self._allowed, name)
        if checked is None:
            return line
        run_id = checked.run.run_id
        document, _ = readable_host(_json(store_keys.host_json_key(run_id, name)))
        findings = _json(store_keys.report_key(run_id, "findings.json")) or []
        return replace(
            line,
            checked=checked,
            problems=tuple(
                p for p in document.get("problems", ()) if p["code"] != "host-unsteady"
            ),
            facts=facts(document),
            findings=tuple(
                f for f in findings
                if f.get("subject") == f"host {name}" and f.get("verdict") == "found"
                and f.get("code") not in _TOLD_APART
            ),
        )  # fmt: skip

    def compare(self) -> list[Comparison]:
        """Each experiment's newest answer and its trends; experiments without a report are left out.

        Raises:
            UserError: the store does not answer.
        """
        found = []
        for experiment in self._allowed:
            answers = [
                (known.run.run_id, one)
                for known in state.runs(self._session, [experiment], PAGE)
                if (one := self.answer(known)) is not None
            ]
            if answers:
                newest = answers[0]
                found.append(Comparison(experiment, *newest, trends(answers[::-1])))
        return found


def report_file(run_id: str, path: str) -> bytes:
    """A file of a run's report.

    Raises:
        InputError: the path is not made of names: it can't leave the report's folder.
        ObjectMissingError: there is no such file.
    """
    key = store_keys.report_key(run_id, *path.split("/"))  # refused before anything is opened
    return open_store().get(key)


def facts(document: HostDocument) -> dict[str, str]:
    """What a host's `host.json` says of the machine, for people; only what is known."""
    known = document.get("facts", FactsDocument())
    offset_s = document.get("clock_offset_s")
    facts = host_facts.shown(known)
    if messages := untold(known):
        facts["unknown"] = "; ".join(messages)
    if offset_s is not None:
        facts["clock"] = host_facts.clock(offset_s)
    return facts


# ── the store ───────────────────────────────────────────────────────────────────────────────────

_local = threading.local()
_answers: dict[tuple[str, str], Answer] = {}
_standings: dict[tuple[str, float | None], tuple[float, Standing]] = {}


def open_store() -> Store:
    """This thread's store, as hosts.yaml and its connection have it now."""
    from wattbench.airflow.connections import open_store as fresh

    target = fresh(load_hosts(config_dir())).target
    store: Store | None = getattr(_local, "store", None)
    if store is None or store.target != target:
        store = _local.store = Store(target, waits_s=_WAITS_S)
    return store


def _json(key: str) -> Any:
    """A JSON document of the store; None if there is none."""
    try:
        return open_store().get_json(key)
    except ObjectMissingError:
        return None


def _cached_answer(known: Known) -> Answer | None:
    # A run that goes on after its end (a cleared task) ends anew, and gets a new report.
    key = (known.run.run_id, str(known.ended))
    if key not in _answers:
        summary = _json(store_keys.report_key(known.run.run_id, "summary.json"))
        if summary is None:
            return None
        if len(_answers) > 1000:
            _answers.clear()
        _answers[key] = answer(summary)
    return _answers[key]


def _standing(name: str, config: HostConfig) -> Standing:
    key, now = (name, config.unsteady_pct), time.monotonic()
    if key not in _standings or now - _standings[key][0] > _STANDING_S:
        _standings[key] = (now, standing_of(open_store(), name, config))
    return _standings[key][1]


def _plan(run_id: str) -> dict[str, list[str]]:
    """The readable names of the trials that each host was handed, in order."""
    try:
        key = store_keys.run_json_key(run_id)
        document, _ = read_run(_json(key) or {"run_id": run_id, "plan": {}}, key)
        return {
            host: [trial.label for trial in _handed(run_id, host, trials)]
            for host, trials in document["plan"].items()
        }
    except UserError:
        return {}  # the trials are numbered without their names until it can be read


def _handed(run_id: str, host: str, trials: Sequence[PlannedTrialDocument]) -> list[PlannedTrial]:
    """The planned trials without blocks that did not fit, in quarantine the control workload's."""
    planned = [PlannedTrial.from_dict(trial) for trial in trials]
    budget = _json(store_keys.host_key(run_id, host, "budget.json"))
    checked = _json(store_keys.host_json_key(run_id, host)) or {}
    if budget is not None:
        planned = [trial for trial in planned if trial.block <= budget["blocks"]]
    if checked.get("quarantine") is not None:
        planned = [trial for trial in planned if trial.kind == "control"]
    return planned
