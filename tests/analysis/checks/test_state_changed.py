"""The platform's state between the trials of a run: boots, kernel, governor, driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from wattbench.analysis import checks
from wattbench.analysis.meters.attempt import RawAttempt, evaluate
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow

START_S = 1_750_000_000.0
BOOT = "2f0c6e1e-7a35-4f6d-9d0e-0f0f7c1e2a3b/37"
AGAIN = "9b1d4c55-02ab-4f4e-8a6b-5d7e9c0a1b2c/41"


def attempt(position: int, *, boot: str | None = BOOT, **edge: Any) -> Record:
    """An attempt as the agent reports it; ``edge`` is read before the window."""
    start = START_S + 100 * position
    marks = {
        name: {"unix_s": at, "mono_s": at - START_S, "powercap_uj": {"intel-rapl:0": 1e6 * at}}
        for name, at in (("started", start), ("ended", start + 60))
    }
    report = {
        "schema": 1, "state": "done", "rc": 0, "command": {**marks, "rc": 0},
        "boot": {"before": boot, "after": boot}, "edges": {"before": edge, "after": {}},
    }  # fmt: skip
    row = TrialRow(
        run_id="r", host="lab-a", kind="workload", block=1, position=position,
        planned_position=position, image="a", attempt=1,
    )  # fmt: skip
    return evaluate(RawAttempt(report), expected={"meter": "powercap"}, plan_row=row)


def state_changed(records: Sequence[Record], facts: Mapping[str, Any] | None = None) -> Finding:
    document = {"run_id": "r", "plan": {}, "hosts": {"lab-a": {"facts": facts or {}}}}
    whole = checks.check_campaign(records, checks.Facts.of_run(document))
    (finding,) = [f for f in whole if f.code == "state-changed"]
    return finding


def test_a_reboot_between_two_trials_is_found() -> None:
    found = state_changed([attempt(1), attempt(2), attempt(3, boot=AGAIN), attempt(4, boot=AGAIN)])
    assert (found.verdict, found.subject) == ("found", "host lab-a")
    assert found.message == "the host was booted again before trial lab-a/003-a/1"


def test_a_reboot_between_the_hosts_check_and_the_first_trial_is_found() -> None:
    records = [attempt(i, boot=AGAIN) for i in (1, 2)]
    found = state_changed(records, {"host": {"boot": BOOT, "kernel": "6.1.0-28-amd64"}})
    assert found.verdict == "found"
    assert state_changed(records, {"host": {"boot": AGAIN}}).verdict == "not-found"


@pytest.mark.parametrize(
    ("before", "after", "facts"),
    [
        ({"kernel": "6.1"}, {"kernel": "6.8"}, {"host": {"kernel": "6.1"}}),
        ({"governor": "performance"}, {"governor": "powersave"}, {"cpu": {"governor": "performance"}}),
        ({"nvml": [{"index": 0, "driver": "550"}]}, {"nvml": [{"index": 0, "driver": "580"}]},
         {"gpu": [{"driver": "550"}]}),
    ],
    ids=["kernel", "governor", "driver"],
)  # fmt: skip
def test_another_kernel_governor_or_driver_is_found(
    before: dict[str, Any], after: dict[str, Any], facts: dict[str, Any]
) -> None:
    changed = [attempt(1, boot=None, **before), attempt(2, boot=None, **after)]
    assert state_changed(changed).verdict == "found"
    same = [attempt(i, boot=None, **before) for i in (1, 2)]
    assert state_changed(same).verdict == "not-found"
    assert state_changed([attempt(1, boot=None, **after)], facts).verdict == "found"


@pytest.mark.parametrize("facts", [{}, {"host": {"kernel": "6.1.0-28-amd64"}}])
def test_without_two_readings_of_one_thing_it_is_undecidable(facts: dict[str, Any]) -> None:
    assert state_changed([attempt(i, boot=None) for i in (1, 2, 3)], facts).verdict == "undecidable"
