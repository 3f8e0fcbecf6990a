"""Load on servers: when a generator is saturated, and what makes the work of servers unequal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from wattbench.analysis.checks import apply, check_campaign, check_trial
from wattbench.analysis.checks.load import overload
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import LoadStep, PassResult, Quantiles, Record, Work
from wattbench.analysis.model.trials import TrialRow

STEP = LoadStep(
    "r20", rate_per_s=20.0, planned=4, sent=4, succeeded=4, duration_s=10.0,
    latency_s=Quantiles(0.02, 0.03, 0.1, 0.2), cpu_s=0.5, cores=1, late_p50_s=0.0002,
    late_p99_s=0.002, late_max_s=0.4, answers="".join(f"{n:08x}" for n in range(1, 5)),
)  # fmt: skip
ASKED = [{"name": "r20", "rate_per_s": 20.0, "seconds": 0.2}]


def trial(number: int, image: str, step: LoadStep = STEP, **expected: Any) -> Record:
    row = TrialRow(
        run_id="r", host="h", kind="workload", block=number, position=number, planned_position=number,
        image=image, attempt=1, status="valid", energy_j=10.0, unit="request", units=4.0,
    )  # fmt: skip
    asked = {"workload": "serve", "steps": ASKED, "answers_compared": True} | expected
    result = PassResult(f"steady:{step.name}", 0, 1, 0, 10.0, units=float(step.succeeded))
    return Record(
        row, work=Work(unit="request", units=4.0, results=(result,)), expected=asked, steps=(step,)
    )


def found(record: Record, code: str) -> Finding:
    return next(f for f in check_trial(record) if f.code == code)


def unequal(records: Sequence[Record]) -> dict[str, str]:
    """Subject → message of every trial of unequal work."""
    return {
        f.subject: f.message
        for record in apply(records)
        for f in record.findings
        if f.code == "unequal-work" and f.verdict == "found"
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"cpu_s": 7.9}, None),
        ({"cpu_s": 8.0}, "it used 80 % of its CPU time"),
        ({"cpu_s": 15.0, "cores": 2}, None),
        ({"late_p99_s": 0.0101}, "1 % of the requests were sent 10.1 ms or more late, 10.0 ms are allowed"),
        # finer than a timer: not held against it
        ({"late_p99_s": 0.0009, "latency_s": Quantiles(0.001, 0.001, 0.002, 0.002)}, None),
        ({"late_p50_s": 0.051}, "half of the requests were sent 51.0 ms or more late, at an interval of 50.0 ms"),
        # one late request is not a generator that can't keep up
        ({"late_max_s": 9.0}, None),
    ],
)  # fmt: skip
def test_a_generator_is_saturated_beyond_its_bounds_only(
    change: dict[str, Any], why: str | None
) -> None:
    assert overload(replace(STEP, **change)) == ((why,) if why else ())


def test_a_saturated_step_is_an_error_only_where_no_other_step_is_left() -> None:
    busy = replace(STEP, cpu_s=9.9)
    alone = trial(1, "a", busy)
    assert found(alone, "load-saturated").severity == "error"
    both = replace(alone, steps=(busy, replace(STEP, name="c4", rate_per_s=None)))
    assert found(both, "load-saturated").severity == "warning"


def test_a_generator_that_reports_no_cpu_time_is_undecidable() -> None:
    assert (
        found(trial(1, "a", replace(STEP, cpu_s=None)), "load-saturated").verdict == "undecidable"
    )


def test_requests_that_were_not_sent_and_units_that_were_not_served_are_unequal_work() -> None:
    assert found(trial(1, "a"), "unequal-work").verdict == "not-found"
    short = found(trial(1, "a", replace(STEP, sent=3)), "unequal-work")
    assert short.message == "step r20: 3 of 4 planned requests were sent"
    dropped = replace(trial(1, "a"), steps=(replace(STEP, succeeded=3),))
    assert found(dropped, "unequal-work").message == (
        "step r20: the generator reports 4 requests, requests.csv has 3"
    )
    absent = replace(trial(1, "a"), steps=())
    assert found(absent, "unequal-work").message == "step r20 was not run"


def test_the_answer_of_most_trials_decides_request_by_request() -> None:
    wrong = replace(STEP, answers=STEP.answers[:8] + "deadbeef" + STEP.answers[16:])
    missing = replace(STEP, answers=" " * 8 + STEP.answers[8:])
    records = [trial(1, "a"), trial(2, "b", missing), trial(3, "a"), trial(4, "b", wrong)]
    assert unequal(records) == {
        "trial h/004-b/1": "step r20: the answers to 1 of 4 requests differ from those of most trials, "
        "request 2 first"
    }


def test_answers_that_are_not_compared_leave_equal_work_undecidable() -> None:
    records = [
        trial(n, "a", replace(STEP, answers=""), answers_compared=False) for n in range(1, 4)
    ]
    (whole,) = [
        f for f in check_campaign(records) if f.code == "unequal-work" and f.subject == "run"
    ]
    assert whole.verdict == "undecidable"
    assert "set workload.load.expect.json" in whole.message


def test_tokens_that_are_counted_in_two_ways_are_not_compared() -> None:
    records = [trial(n, "ab"[n % 2]) for n in range(1, 6)]
    records = [replace(r, work=replace(r.work, unit="token", results=())) for r in records]
    records[0] = replace(records[0], work=replace(records[0].work, tokens_counted="chunks"))
    assert unequal(records) == {
        "trial h/001-b/1": "ways of counting tokens differ from those of 4 other trials"
    }


def test_images_that_were_given_other_loads_are_not_held_against_each_other() -> None:
    other = [{"name": "r20", "rate_per_s": 20.0, "seconds": 0.4}]
    more = replace(STEP, planned=8, sent=8, succeeded=8)
    records = [trial(n, "a") for n in range(1, 4)]
    records += [trial(n, "b", more, steps=other) for n in range(4, 6)]
    assert unequal(records) == {}


def test_errors_are_named_beyond_those_that_the_slo_allows() -> None:
    failing = replace(STEP, planned=400, sent=400, succeeded=399, failed={"timeout": 1})
    assert found(trial(1, "a", failing), "requests-failed").message == (
        "step r20: 0.25 % of 400 requests failed (timeout 1), 0 % are allowed"
    )
    allowed = trial(1, "a", failing, slo={"p99_ms": 200.0, "max_error_pct": 0.3})
    assert found(allowed, "requests-failed").verdict == "not-found"
