"""Progress of a run per host, from Airflow's task states."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import fmean

from wattbench.dag_runs import TASK_ACTIVE, TASK_OVER, Task

_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s*%")
#: The tasks of a trial in their order, and what each does, for people.
_STEPS = {"rest": "resting", "measure": "measuring", "collect": "collecting"}
Own = Mapping[str, Mapping[int, Task]]


@dataclass(frozen=True)
class HostProgress:
    """Where one host stands.

    Attributes:
        host: its name.
        stage: what it is at; a new stage is news.
        detail: what changes within the stage: percent, seconds, time left.
        done: trials that are over.
        total: planned trials; 0 before there is a plan.
        left_s: estimated time left, from the trials that are over, s; None: unknown.
        failed: trials that are over without a valid attempt; those left out on purpose are not among them.
        last_failed: the newest of them, its place in the plan from 0.
        stopped: nothing is measured there: a task before the first trial has failed.
        why: the reason of the newest trial that is not valid, or why it was stopped; filled in from the
            store where that can be read.
    """

    host: str
    stage: str
    detail: str = ""
    done: int = field(default=0, compare=False)
    total: int = field(default=0, compare=False)
    left_s: float | None = field(default=None, compare=False)
    failed: int = field(default=0, compare=False)
    last_failed: int | None = field(default=None, compare=False)
    stopped: bool = field(default=False, compare=False)
    why: str = field(default="", compare=False)

    def __str__(self) -> str:
        """One line."""
        return f"{self.host}  {self.stage}{f' · {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class _Trial:
    """A trial as Airflow sees it.

    Attributes:
        index: its place, from 0.
        steps: its tasks by name, in their order.
        turn: when the trial before it was over; its own `rest` may have waited for that.
    """

    index: int
    steps: Mapping[str, Task]
    turn: datetime | None

    @property
    def over(self) -> bool:
        return "collect" in self.steps and self.steps["collect"].state in TASK_OVER

    @property
    def failed(self) -> bool:
        return self.over and self.steps["collect"].state not in {"success", "skipped"}

    @property
    def step(self) -> Task:
        """The task that is at work, or else the one that is next."""
        return next(task for task in self.steps.values() if task.state not in TASK_OVER)

    @property
    def label(self) -> str:
        """Its readable name, once one of its tasks has started."""
        return next((task.label for task in self.steps.values() if task.label), "")

    @property
    def begun(self) -> bool:
        return any(task.state in TASK_ACTIVE | {"success"} for task in self.steps.values())

    @property
    def seconds(self) -> float | None:
        """From its turn to its release; None before that."""
        begin, end = self.since(self.steps.get("rest")), self.end
        return None if begin is None or end is None else (end - begin).total_seconds()

    @property
    def end(self) -> datetime | None:
        return self.steps["collect"].ended if "collect" in self.steps else None

    def since(self, task: Task | None) -> datetime | None:
        """When a task began with its own work."""
        if task is None or task.started is None:
            return None
        return max(task.started, self.turn) if self.turn else task.started


def describe(
    host: str,
    tasks: Sequence[Task],
    plan: Sequence[str],
    pulls: Mapping[str, int],
    now: datetime,
) -> HostProgress:
    """Where a host stands.

    Args:
        host: its name, the first part of its tasks' ids.
        tasks: all task instances of the run.
        plan: the readable names of the host's trials in order; empty before there is a plan.
        pulls: percent by the readable name of a running pull task.
        now: the time that running tasks are measured against.
    """
    own: dict[str, dict[int, Task]] = {}
    for task in tasks:
        if task.task_id.startswith(f"{host}."):
            own.setdefault(task.task_id.removeprefix(f"{host}."), {})[task.map_index] = task
    trials = _trials(own, "trial")
    failed = [trial.index for trial in trials if trial.failed]
    return replace(
        _stage(host, own, plan, pulls, now),
        done=sum(trial.over for trial in trials),
        total=max(len(plan), len(trials)),
        failed=len(failed),
        last_failed=failed[-1] if failed else None,
    )


def _stage(
    host: str, own: Own, plan: Sequence[str], pulls: Mapping[str, int], now: datetime
) -> HostProgress:
    groups = sorted({name.rpartition(".")[0] for name in own if name.endswith(".rest")})
    for group in groups:  # further attempts (`again`) sort before `trial`, and come after it
        trials = _trials(own, group)
        current = next((trial for trial in trials if trial.begun and not trial.over), None)
        if current is not None:
            return _at_trial(host, group, current, trials, plan, now)
    if _over(own, "release") or _over(own, "host_report"):
        return _at_end(host, own)
    if _active(own, "host_report") or _active(own, "release"):
        return HostProgress(host, "writing the host report")
    trials = _trials(own, "trial")
    done = sum(trial.over for trial in trials)
    if done:
        return HostProgress(host, f"{done} of {max(len(plan), len(trials))} trials done")
    return _before_trials(host, own, pulls)


def _before_trials(host: str, own: Own, pulls: Mapping[str, int]) -> HostProgress:
    if _active(own, "warm_up"):
        return HostProgress(host, "warming up")
    images = own.get("pull", {})
    loading = [task for task in images.values() if task.state in TASK_ACTIVE]
    if loading:
        names = [pull_name(task) for task in loading]
        seen = [f"{name} {pulls[name]} %" for name in names if name in pulls]
        here = sum(task.state == "success" for task in images.values())
        return HostProgress(
            host, f"pulling images, {here} of {len(images)} are there", ", ".join(seen)
        )
    for name, mapped in own.items():
        if any(task.state == "failed" for task in mapped.values()):
            return HostProgress(
                host, f"failed at {name}", "its log in Airflow says why", stopped=True
            )
    if _active(own, "check"):
        return HostProgress(host, "checking")
    return HostProgress(host, "checked" if _over(own, "check") else "waiting")


def _at_trial(
    host: str,
    group: str,
    current: _Trial,
    trials: Sequence[_Trial],
    plan: Sequence[str],
    now: datetime,
) -> HostProgress:
    further = group != "trial"
    names = [] if further else list(plan)
    total = max(len(names), len(trials))
    step = current.step
    name = names[current.index] if current.index < len(names) else current.label
    doing = _STEPS[step.task_id.rpartition(".")[2]]
    kind = "further attempt" if further else "trial"
    stage = f"{kind} {current.index + 1} of {total}: {_image(name)}"
    since = current.since(step)
    if since is not None and step.state in ("running", "deferred"):
        doing += f" {spoken(max(0.0, (now - since).total_seconds()))}"
    if step.try_number > 1:
        doing += f" (try {step.try_number})"
    detail = [doing]
    failed, done = sum(trial.failed for trial in trials), sum(trial.over for trial in trials)
    if failed:
        detail.append(f"{failed} of {done} not valid")
    left = None if further else _left_s(trials, current, names, now)
    if left is not None:
        detail.append(f"about {spoken(left)} left")
    return HostProgress(host, stage, ", ".join(detail), left_s=left)


def _at_end(host: str, own: Own) -> HostProgress:
    trials = _trials(own, "trial")
    if not any(trial.over for trial in trials):
        return HostProgress(
            host, "stopped before its first trial", "its log in Airflow says why", stopped=True
        )
    failed = sum(trial.failed for trial in trials)
    again = [
        trial
        for group in {name.rpartition(".")[0] for name in own if name.startswith("again")}
        for trial in _trials(own, group)
    ]
    text = f"done: {len(trials)} trials"
    if failed:
        text += f", {failed} of them failed"
        text += f", {sum(not trial.failed for trial in again)} mended by a further attempt"
    return HostProgress(host, text)


def _left_s(
    trials: Sequence[_Trial], current: _Trial, names: Sequence[str], now: datetime
) -> float | None:
    """Seconds until the last trial is over, by what those of the same image took."""
    took: dict[str, list[float]] = {}
    for trial in trials:
        if trial.over and trial.seconds is not None and trial.index < len(names):
            took.setdefault(_image(names[trial.index]), []).append(trial.seconds)
    if not took:
        return None
    typical = fmean(seconds for each in took.values() for seconds in each)
    expected = {
        index: fmean(took.get(_image(name), [typical]))
        for index, name in enumerate(names)
        if index >= current.index and not (index < len(trials) and trials[index].over)
    }
    begun = current.since(current.steps.get("rest"))
    if begun is not None and current.index in expected:
        passed_s = max(0.0, (now - begun).total_seconds())
        expected[current.index] = max(0.0, expected[current.index] - passed_s)
    return sum(expected.values())


def _trials(own: Own, group: str) -> list[_Trial]:
    prefix = f"{group}."
    indices = {
        index
        for name, mapped in own.items()
        if name.startswith(prefix)
        for index in mapped
        if index >= 0
    }
    trials: list[_Trial] = []
    for index in sorted(indices):
        steps = {
            step: own[prefix + step][index]
            for step in _STEPS
            if index in own.get(prefix + step, {})
        }
        trials.append(_Trial(index, steps, trials[-1].end if trials else None))
    return trials


def _image(name: str) -> str:
    """`03 · pip-torch (idle)` → `pip-torch (idle)`."""
    return name.rpartition(" · ")[2]


def _active(own: Own, name: str) -> bool:
    return any(task.state in TASK_ACTIVE for task in own.get(name, {}).values())


def _over(own: Own, name: str) -> bool:
    mapped = own.get(name, {})
    return bool(mapped) and all(task.state in TASK_OVER for task in mapped.values())


def hosts_of(tasks: Sequence[Task]) -> list[str]:
    """The hosts of a run, by their task groups."""
    return sorted({t.task_id.split(".")[0] for t in tasks if t.task_id.endswith(".host_report")})


def whole(tasks: Sequence[Task]) -> str:
    """What the run as a whole is at, before and after its hosts; empty in between."""
    words = {
        "prepare": "resolving images, drawing the plan",
        "analyze": "analysing, writing the report",
        "verdict": "counting trials",
    }
    return next(
        (words[t.task_id] for t in tasks if t.task_id in words and t.state in TASK_ACTIVE), ""
    )


def spoken(seconds: float) -> str:
    """A duration as a person says it: `45 s`, `3 min 10 s`, `2 h 5 min`."""
    whole_s = round(seconds)
    if whole_s < 60:
        return f"{whole_s} s"
    if whole_s < 3600:
        return f"{whole_s // 60} min {whole_s % 60} s"
    return f"{whole_s // 3600} h {whole_s % 3600 // 60} min"


def pull_name(task: Task) -> str:
    """What a pull task pulls, for people."""
    return task.label or f"image {task.map_index + 1}"


def percent(log: Sequence[str]) -> int | None:
    """The last percentage in a task's log."""
    for line in reversed(log):
        found = _PERCENT.findall(line)
        if found:
            return int(found[-1])
    return None
