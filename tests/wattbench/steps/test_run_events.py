"""What a run notifies people of: once, and only what changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.support.stored_runs import DUE, experiment, measured, prepared
from wattbench.history import quarantine
from wattbench.run.stored_run import Run
from wattbench.steps import analyze, run_events
from wattbench.storage.object_store import Store

PROTOCOL = {
    "blocks": 6, "rest": {"min_s": 10, "max_s": 20}, "idle_baseline": None, "control": {"rounds": 500},
}  # fmt: skip


def test_a_verdict_that_changed_is_reported_with_what_it_was() -> None:
    before = {"lab-a/b": "less", "lab-a/c": "undecided"}
    after = {"lab-a/b": "more", "lab-a/c": "undecided", "lab-a/new": "less"}
    (event,) = run_events.changed_verdicts("night", before, after, "a uses least")
    assert (event.kind, event.text) == ("verdict-changed", "a uses least")
    assert event.title == "night: lab-a/b: less → more"
    assert run_events.changed_verdicts("night", before, before, "") == []
    assert run_events.changed_verdicts("night", {}, after, "") == []  # a first run changes nothing


def test_a_regression_is_reported_on_the_first_night_only() -> None:
    (event,) = run_events.new_regressions("night", {"h/a": "old"}, {"h/a": "old", "h/b": "b rose"})
    assert (event.title, event.text) == ("night: regression of h/b", "b rose")
    assert run_events.new_regressions("night", {"h/b": "b rose"}, {"h/b": "b rose by more"}) == []


@pytest.mark.parametrize(
    ("before", "now", "title"),
    [
        (None, True, "h is in quarantine"),
        ("it scatters", False, "h is out of quarantine"),
        (None, False, None),
        ("it scatters", True, None),
    ],
)
def test_quarantine_is_reported_when_it_begins_and_ends(
    before: str | None, now: bool, title: str | None
) -> None:
    events = run_events.quarantine_moves("h", before, quarantine.Standing(now, "why", ()))
    assert [e.title for e in events] == ([title] if title else [])


def a_night(store: Store, day: int, factor: float) -> Run:
    """b needs `factor` as much as a, in noise of 0.2 %."""
    rng = np.random.default_rng(day)
    run = prepared(store, experiment(protocol=PROTOCOL), due=DUE + timedelta(days=day))
    start = DUE + timedelta(days=day)
    level: dict[str, float] = {"a": 100.0, "b": 100.0 * factor, "control": 50.0}
    for trial in run.plan("lab-a"):
        joules = level[trial.image] * float(np.exp(rng.normal(0, 0.002)))
        start = measured(run, trial, start, 60, joules) + timedelta(seconds=20)
    return run


def kinds(run: Run) -> list[tuple[str, str]]:
    return [(e.kind, e.title) for e in run_events.read(run)]


@pytest.mark.slow  # eleven nights with their reports
def test_nights_report_a_changed_verdict_and_a_regression_once(store: Store) -> None:
    sent: dict[int, list[tuple[str, str]]] = {}
    first: Any = None
    for day in range(11):
        run = a_night(store, day, 0.95 if day < 7 else 1.04)
        assert run_events.read(run) == ()
        if day == 9:  # an earlier night is gone by then: nothing is lost but that night
            assert store.expire(f"runs/{first.run_id}", ["trials.parquet"], "by hand") > 0
        analyze.analyze(run)
        sent[day] = kinds(run)
        first = run if day == 0 else first
    assert all(sent[day] == [] for day in range(7))
    assert ("verdict-changed", "night: lab-a/b: less → more") in sent[7]
    # A rise of 9 % in nights of 0.1 % is reported on its first night.
    assert ("regression", "night: regression of lab-a/b") in sent[7]
    events: list[Any] = [e for day in range(7, 11) for e in sent[day]]
    assert events.count(("regression", "night: regression of lab-a/b")) == 1
    assert len([e for e in events if e[0] == "verdict-changed"]) == 1
    assert run.store.verify_manifest(f"runs/{run.run_id}") == ()
    assert "news.json" in {o["key"] for o in store.get_json(f"runs/{run.run_id}/manifest.json")["objects"]}  # fmt: skip


def test_nights_in_quarantine_alone_are_no_trouble(store: Store) -> None:
    """Six runs of the control workload and of nothing else: there is nothing to compare."""
    for day in range(6):
        run = prepared(store, experiment(protocol=PROTOCOL), due=DUE + timedelta(days=day))
        control = [t for t in run.plan("lab-a") if t.kind == "control"]
        for n, trial in enumerate(control):
            measured(run, trial, DUE + timedelta(days=day, minutes=n), 30, 50.0 + n)
        analyze.analyze(run)
    assert run_events.read(run) == ()
