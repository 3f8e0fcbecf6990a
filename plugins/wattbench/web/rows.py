"""Rows of the pages: stored documents and Airflow's states turned into what a person reads. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from wattbench.analysis.model import host_facts
from wattbench.analysis.model.facts_document import FactsDocument, ProblemDocument
from wattbench.analysis.model.run_document import HostDocument
from wattbench.dag_runs import RUN_GOING_ON, Run
from wattbench.history.quarantine import Standing
from wattbench.progress import HostProgress
from wattbench.report_summary import Answer, Point
from wattbench.web.documents import (
    FindingDocument,
    LevelChangeDocument,
    NewsDocument,
    NightsDocument,
)

#: Findings about a host that its problems and its quarantine status show already.
_TOLD_APART = frozenset({"host-unsteady", "host-setup"})
#: A run that its schedule has not started so long after it was due has been forgotten.
OVERDUE = timedelta(hours=1)
#: States that runs are filtered by.
STATES = (*RUN_GOING_ON, "success", "failed")
#: Reasons of an incomplete run that the start page names.
_REASONS = 2


@dataclass(frozen=True)
class Known:
    """A run and when it was at work; ``number`` is its place in Airflow's table."""

    run: Run
    started: datetime | None
    ended: datetime | None
    number: int = 0


@dataclass(frozen=True)
class Checked:
    """The last check of a host: the run that made it, and whether the host passed."""

    known: Known
    passed: bool


@dataclass(frozen=True)
class Scheduled:
    """An experiment as Airflow has it.

    Attributes:
        name: of its file, and of its DAG.
        description: of the experiment.
        schedule: in words; empty: runs start by the trigger only.
        cron: the same as it is written, where that differs.
        next_due: when the schedule starts the next run.
        paused: the schedule starts nothing.
        gone: its file is not there any more.
        refusal: why its file is refused; empty: it is not.
    """

    name: str
    description: str = ""
    schedule: str = ""
    cron: str = ""
    next_due: datetime | None = None
    paused: bool = False
    gone: bool = False
    refusal: str = ""


@dataclass(frozen=True)
class Filter:
    """Which runs are listed; empty: all of them."""

    experiment: str = ""
    state: str = ""
    host: str = ""

    @property
    def query(self) -> dict[str, str]:
        """What of it is set, for a link."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class RunLine:
    """One run in a list.

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
    """The list of runs.

    Attributes:
        lines: newest first.
        older: the number of the run after which the next page goes on; None: there is none.
        trouble: of the store.
        chosen: the filter.
        choices: name of a filter → its values.
    """

    lines: tuple[RunLine, ...]
    older: int | None
    trouble: str = ""
    chosen: Filter = Filter()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether a run of the list goes on."""
        return any(not line.known.run.over for line in self.lines)


@dataclass(frozen=True)
class ExperimentLine:
    """One experiment: its schedule, what runs, and what its last run says.

    Attributes:
        scheduled: as Airflow has it.
        going: the run that goes on; None: none does.
        last: the newest run that is over; None: there is none.
        news: what was new in it.
        lacks: why it is incomplete.
        trouble: why the store's part is missing.
    """

    scheduled: Scheduled
    going: RunLine | None = None
    last: RunLine | None = None
    news: NewsDocument = field(default_factory=lambda: NewsDocument())
    lacks: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Attention:
    """Something that a person has to look at.

    Attributes:
        word: of its kind: invalid, stopped, refused, failed, overdue, regression or quarantine.
        subject: the experiment, run or host.
        text: what is wrong.
        page: where to look, a path of ours.
    """

    word: str
    subject: str
    text: str
    page: str


@dataclass(frozen=True)
class Overview:
    """The start page: what needs a person, and each experiment's last answer."""

    attention: tuple[Attention, ...]
    experiments: tuple[ExperimentLine, ...]
    trouble: str = ""

    @property
    def is_live(self) -> bool:
        """Whether a run goes on."""
        return any(line.going is not None for line in self.experiments)


@dataclass(frozen=True)
class HostLine:
    """One host: its configuration, and what its last check found.

    Attributes:
        name: in hosts.yaml.
        meter: kind of its meter.
        standing: how it stands by its control workload over runs.
        checked: its last check.
        document: what that check left.
        findings: that the report of that run has about the host.
        doing: what a run does there at this moment.
    """

    name: str
    meter: str
    standing: Standing
    checked: Checked | None = None
    document: HostDocument = field(default_factory=lambda: HostDocument())
    findings: tuple[FindingDocument, ...] = ()
    doing: str = ""

    @property
    def state(self) -> Literal["quarantine", "unknown", "refused", "soft", "fine"]:
        """How it stands, in the words of the style sheet."""
        if self.standing.quarantined:
            return "quarantine"
        if self.checked is None:
            return "unknown"
        if not self.checked.passed:
            return "refused"
        return "soft" if self.problems else "fine"

    @property
    def word(self) -> str:
        """The same for people."""
        words = {
            "quarantine": "in quarantine", "unknown": "never checked", "soft": "fit, with problems"
        }  # fmt: skip
        return words.get(self.state, self.state)

    @property
    def problems(self) -> tuple[ProblemDocument, ...]:
        """What its check found, hard problems first; quarantine is shown apart."""
        found = [p for p in self.document.get("problems", ()) if p["code"] != "host-unsteady"]
        return tuple(sorted(found, key=lambda p: p["severity"] != "hard"))

    @property
    def refusal(self) -> str:
        """Why its check failed, where no hard problem says so already."""
        hard = any(p["severity"] == "hard" for p in self.problems)
        if self.state != "refused" or hard:
            return ""
        return self.document.get("reason") or f"the log of the task {self.name}.check says why"

    @property
    def facts(self) -> dict[str, str]:
        """What is known of the machine, for people."""
        facts = host_facts.shown(self.document.get("facts", FactsDocument()))
        offset_s = self.document.get("clock_offset_s")
        if offset_s is not None:
            facts["clock"] = host_facts.clock(offset_s)
        return facts


@dataclass(frozen=True)
class Hosts:
    """All hosts, and what could not be read: text → the hosts, so that it is said once."""

    lines: tuple[HostLine, ...]
    unknown: Mapping[str, list[str]]


@dataclass(frozen=True)
class Comparison:
    """One experiment's newest answer, host beside host, and how it came about over runs."""

    experiment: str
    run_id: str
    answer: Answer
    trends: Mapping[tuple[str, str], Sequence[Point]]


@dataclass(frozen=True)
class TrendLine:
    """One image on one host over an experiment's nights.

    Attributes:
        host: where; empty: the runs name no host.
        image: which.
        points: its effects against the reference, oldest first.
        changes: changes of its level, newest first.
    """

    host: str
    image: str
    points: tuple[Point, ...] = ()
    changes: tuple[LevelChangeDocument, ...] = ()


@dataclass(frozen=True)
class Trend:
    """An experiment over its nights.

    Attributes:
        experiment: which.
        run_id: the newest run with a report.
        runs: reports that the courses are drawn from.
        lines: an image on a host each, those whose level changed first.
        nights: what comparing all nights gave; None: they are too few for changes of level.
    """

    experiment: str
    run_id: str
    runs: int
    lines: tuple[TrendLine, ...]
    nights: NightsDocument | None = None


def trend_lines(
    courses: Mapping[tuple[str, str], Sequence[Point]], changes: Iterable[LevelChangeDocument]
) -> tuple[TrendLine, ...]:
    """Courses and changes of level of the same host and image in one row."""
    by_place: dict[tuple[str, str], list[LevelChangeDocument]] = {}
    for change in changes:
        image = change["image"] if change["of"] == "ratio" else f"{change['image']} (joules)"
        by_place.setdefault((change["host"] or "", image), []).append(change)
    lines = [
        TrendLine(
            host, image, tuple(courses.get((host, image), ())),
            tuple(sorted(by_place.get((host, image), ()), key=lambda c: c["first_night"], reverse=True)),
        )
        for host, image in sorted({*courses, *by_place})
    ]  # fmt: skip
    return tuple(sorted(lines, key=lambda line: not line.changes))


def about_host(findings: Iterable[FindingDocument], host: str) -> tuple[FindingDocument, ...]:
    """What a report found about a host and its check does not say."""
    return tuple(
        f for f in findings
        if f.get("subject") == f"host {host}" and f.get("verdict") == "found"
        and f.get("code") not in _TOLD_APART
    )  # fmt: skip


def lacks_of(findings: Iterable[FindingDocument]) -> tuple[str, ...]:
    """Why a run is incomplete: its errors, the same one once."""
    found: dict[str, list[str]] = {}
    for f in findings:
        if f.get("verdict") == "found" and f.get("severity") == "error":
            subject = f.get("subject", "")
            if subject.startswith("trial "):  # HOST/NNN-IMAGE/ATTEMPT
                subject = subject.removeprefix("trial ").rpartition("/")[0]
            found.setdefault(f.get("message", ""), []).append(subject)
    return tuple(
        f"{subjects[0]}{f' and {len(subjects) - 1} more' if len(subjects) > 1 else ''}: {message}"
        for message, subjects in sorted(found.items(), key=lambda item: -len(item[1]))
    )


# ── what needs a person ─────────────────────────────────────────────────────────────────────────


def attention(
    experiments: Iterable[ExperimentLine], hosts: Iterable[HostLine], now: datetime
) -> tuple[Attention, ...]:
    """What a person has to look at, the most urgent first."""
    hosts = list(hosts)
    refused = {host.name for host in hosts if host.state == "refused"}
    found = [
        *(one for line in experiments for one in _of_experiment(line, refused, now)),
        *(one for host in hosts for one in _of_host(host)),
    ]
    urgency = ("invalid", "stopped", "refused", "failed", "overdue", "regression", "quarantine")
    return tuple(sorted(found, key=lambda one: urgency.index(one.word)))


def _of_experiment(
    line: ExperimentLine, refused: Collection[str], now: datetime
) -> Iterable[Attention]:
    name, last = line.scheduled.name, line.last
    if line.scheduled.refusal:
        yield Attention("refused", name, line.scheduled.refusal, "/experiments")
    if line.going is not None:
        page = f"/runs/{line.going.run_id}"
        for at in line.going.progress:
            if at.failed:
                why = f": {at.why}" if at.why else ""
                text = f"{at.failed} of {at.done} trials on {at.host} are not valid{why}"
                yield Attention("invalid", line.going.run_id, text, page)
            elif at.stopped and at.host not in refused:  # a refused host has a row of its own
                text = f"{at.host} {at.stage}{f': {at.why}' if at.why else ''}"
                yield Attention("stopped", line.going.run_id, text, page)
    if last is not None and last.known.run.state == "failed":
        yield Attention("failed", last.run_id, _incomplete(line, last), f"/runs/{last.run_id}")
    due = line.scheduled.next_due
    waits = line.going is None and not line.scheduled.paused and not line.scheduled.gone
    if waits and due is not None and now - due > OVERDUE:
        text = (
            f"was due {due:%Y-%m-%d %H:%M} UTC and has not started; is Airflow's scheduler running?"
        )
        yield Attention("overdue", name, text, "/experiments")
    for message in line.news.get("regressions", {}).values():
        yield Attention("regression", name, message, f"/trends#{name}")


def _incomplete(line: ExperimentLine, last: RunLine) -> str:
    if last.answer is None:
        return "ended without a report" if not line.trouble else "is incomplete"
    text = f"{last.answer.valid} of {last.answer.wanted} trials are valid"
    more = len(line.lacks) - _REASONS
    reasons = "; ".join(line.lacks[:_REASONS]) + (f"; and {more} more" if more > 0 else "")
    return f"{text}: {reasons}" if reasons else text


def _of_host(host: HostLine) -> Iterable[Attention]:
    if host.state == "quarantine":
        yield Attention("quarantine", host.name, host.standing.reason, f"/hosts#{host.name}")
    if host.state == "refused":
        hard = "; ".join(p["message"] for p in host.problems if p["severity"] == "hard")
        yield Attention("refused", host.name, host.refusal or hard, f"/hosts#{host.name}")
