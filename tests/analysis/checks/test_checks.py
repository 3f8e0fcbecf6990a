"""Every probe on records that have its fault, lack it, or can't decide."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.analysis import checks
from wattbench.analysis.checks import registry
from wattbench.analysis.checks.outcome import Found, Unknown, merged
from wattbench.analysis.model.finding_codes import CODES, Severity
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import (
    Domain,
    Output,
    PassResult,
    Record,
    Sampling,
    Work,
)
from wattbench.analysis.model.trials import TrialRow

START = datetime(2026, 3, 14, 22, tzinfo=UTC)
PASSES = [{"resolution": 256, "iterations": 400}]
GOOD_USAGE = {"mean": 95.0, "min": 80.0, "max": 99.0, "first": 80.0, "last": 90.0}


def live(position: int = 1, image: str = "a", **row: Any) -> Record:
    """A sound live trial."""
    fields: dict[str, Any] = {
        "run_id": "r", "host": "h", "kind": "workload", "block": 1, "position": position, "planned_position": position,
        "image": image, "digest": "sha256:" + "1" * 64, "attempt": 1, "status": "valid",
        "started_at": (START + timedelta(minutes=2 * position)).isoformat(timespec="milliseconds"),
        "duration_s": 60.0, "energy_j": 6000.0, "energy_scope": "package+dram+gpu", "energy_source": "measured",
        "package_j": 3000.0, "dram_j": 200.0, "gpu_j": 2800.0, "samples": 300, "wraps": 0, "startup_s": 1.0,
        "energy_uncertainty_j": 6.0, "images_inferred": 400, "j_per_image": 15.0, "late": False,
    }  # fmt: skip
    edge = {
        "throttle": {"core": 5}, "nvml": [{"index": 0, "throttle": 0}], "swap": {"pswpin": 1, "pswpout": 7}, "cpu_busy_ns": 0,
    }  # fmt: skip
    return Record(
        TrialRow(**(fields | row)),
        domains=(Domain("package", "energibridge", 3000.0, 3.0, counted=True), Domain("package", "powercap", 3010.0, 3.0)),
        work=Work(
            program="resnet50", precision="fp32", device_requested="cuda", device_actual="cuda:0",
            weights_sha256="w", inputs_sha256={"256": "i"}, finished=True,
            results=(PassResult("steady:256", 400, 1, 400, 50.0, (1.0, -2.0, 3.0)),),
        ),
        sampling=Sampling(0.2, 302, 300, 0.21),
        edges={"before": edge, "after": edge | {"cpu_busy_ns": 10**8}},
        series={"GPU0_USAGE": GOOD_USAGE, "GPU0_POWER (mWatts)": GOOD_USAGE},
        timing={"clock_step_s": 0.001, "connections_in_window": 0, "boot_changed": False},
        expected={"device": "cuda", "passes": PASSES, "precision": "fp32"},
        meter={"outlived": False, "rc": 0},
        container={"device_requests": [{}]},
        output=Output(5000, 5000, cut=False),
    )  # fmt: skip


def edges(record: Record, **after: Any) -> Record:
    return replace(record, edges={**record.edges, "after": {**record.edges["after"], **after}})


def by_code(findings: Sequence[Finding], code: str) -> list[Finding]:
    return [f for f in findings if f.code == code]


def verdicts(record: Record) -> dict[str, str]:
    return {f.code: str(f.verdict) for f in checks.check_trial(record)}


def test_a_sound_trial_has_nothing_found_and_nothing_undecidable():
    assert set(verdicts(live()).values()) == {"not-found"}
    (judged,) = checks.apply([live()])
    assert (judged.row.status, judged.row.reason) == ("valid", None)


EXAMPLES = {check.code: check.example for check in registry.trial_checks()}


@pytest.mark.parametrize("check", registry.trial_checks(), ids=lambda c: c.code)
def test_each_check_of_a_trial_finds_its_example_and_an_error_makes_it_invalid(check):
    faulty = check.example(live())
    found = by_code(checks.check_trial(faulty), check.code)
    assert [str(f.verdict) for f in found] == ["found"]
    assert found[0].message
    (judged,) = checks.apply([faulty])
    if check.code == "trial-missing":
        assert judged.row.status == "missing"
        return
    serious = CODES[check.code].severity == "error"
    assert (judged.row.status == "invalid") is serious
    assert (judged.row.reason or "").startswith(check.code if serious else "")
    assert check.code in (judged.row.findings or "")


def sound_run() -> checks.Campaign:
    """Twelve sound trials in the planned order."""
    images = "abbaababbaab"
    records = tuple(live(i, image) for i, image in enumerate(images, start=1))
    return checks.Campaign(records, checks.Facts.of_run({"run_id": "r", "plan": plan_of(images)}))


@pytest.mark.parametrize("check", registry.campaign_checks(), ids=lambda c: f"{c.code}: {c.fine}")
def test_each_check_of_a_campaign_finds_its_example_and_nothing_in_a_sound_run(check):
    assert not [o for o in check.probe(sound_run()) if isinstance(o, Found)]
    found = [o for o in check.probe(check.example(sound_run())) if isinstance(o, Found)]
    assert found
    assert all(f.message for f in found)


def test_every_code_has_a_check_or_is_reported_by_something_else():
    checked = {c.code for c in (*registry.trial_checks(), *registry.campaign_checks())}
    assert set(CODES) - checked == {
        "carry-over",
        "power-implausible",
        "regression",
        "row-untraceable",
    }


CAUSE = st.one_of(
    st.builds(Found, st.sampled_from("abc"), severity=st.none() | st.sampled_from(Severity)),
    st.builds(Unknown, st.sampled_from("xy")),
)


@given(st.lists(CAUSE, max_size=5), CAUSE, st.sampled_from(list(CODES)))
def test_one_more_cause_never_lowers_the_severity_nor_hides_what_was_found(causes, more, code):
    def rank(outcomes):
        outcome = merged(code, outcomes)
        if isinstance(outcome, Found):
            return list(Severity).index(outcome.severity or CODES[code].severity)
        return 10 if isinstance(outcome, Unknown) else 20

    for at in range(len(causes) + 1):
        assert rank([*causes[:at], more, *causes[at:]]) <= rank(causes)


@pytest.mark.parametrize("code", EXAMPLES)
def test_a_second_fault_never_hides_or_weakens_the_first(code):
    def worst(record):
        found = [f for f in checks.check_trial(record) if f.code == code and f.verdict == "found"]
        return min((list(Severity).index(f.severity) for f in found), default=10)

    alone = worst(EXAMPLES[code](live()))
    for other, example in EXAMPLES.items():
        if (code, other) == ("sampling-coarse", "meter-silent") or other == "trial-missing":
            continue  # what is absent can't be coarse: of it nothing else can be said
        assert worst(EXAMPLES[code](example(live()))) <= alone, other


def test_a_call_into_the_window_does_not_hide_the_work_of_others():
    busy = edges(live(), cpu_busy_ns=40 * 10**9)
    called = replace(busy, timing={**busy.timing, "connections_in_window": 1})
    (found,) = by_code(checks.check_trial(called), "host-busy")
    assert found.is_found_error
    assert found.message == (
        "other processes used 40.0 s of CPU in 60.0 s; 1 calls to the host inside the window"
    )
    assert found.evidence["foreign_cpu_s"] == pytest.approx(40.0)
    (alone,) = by_code(
        checks.check_trial(replace(live(), timing={"connections_in_window": 1})), "host-busy"
    )
    assert alone.severity == "warning"


@pytest.mark.parametrize(
    ("code", "blind"),
    [
        ("throttled", lambda r: replace(r, edges={}, series={})),
        ("gpu-idle", lambda r: replace(r, series={})),
        ("meter-disagree", lambda r: replace(r, domains=r.domains[:1])),
        ("host-busy", lambda r: replace(r, edges={}, series={})),
        ("memory-pressure", lambda r: replace(r, edges={}, series={})),
        ("startup-in-window", lambda r: replace(r, row=replace(r.row, startup_s=None))),
        ("sampling-coarse", lambda r: replace(r, edges={}, sampling=None)),
        ("container-orphaned", lambda r: replace(r, meter={})),
        ("pull-in-window", lambda r: replace(r, container=None, expected={})),
    ],
)  # fmt: skip
def test_what_the_data_cannot_decide_is_undecidable_and_never_fine(code, blind):
    assert verdicts(blind(live()))[code] == "undecidable"


def test_a_workload_that_does_not_name_its_device_is_not_believed():
    silent = replace(live(), work=replace(live().work, device_actual=None))
    assert verdicts(silent)["device-mismatch"] == "found"


def test_judging_again_gives_the_same():
    records = [EXAMPLES["throttled"](live(1)), live(2), EXAMPLES["counter-wrap"](live(3))]
    once = checks.apply(records)
    assert checks.apply(once) == once


@pytest.mark.parametrize("status", ["failed", "missing", "skipped"])
def test_what_is_not_a_measurement_stays_that(status):
    (judged,) = checks.apply([live(status=status, reason="x")])
    assert judged.row.status == status
    assert judged.row.reason == "x"


def test_the_odd_one_out_is_the_one_that_computed_something_else():
    records = [live(i, image="ab"[i % 2]) for i in range(1, 7)]
    odd = records[2].work.results[0]
    records[2] = replace(
        records[2],
        work=replace(records[2].work, results=(replace(odd, fingerprint=(1.0, -2.0, 3.05)),)),
    )
    judged = checks.apply(records)
    assert [r.row.status for r in judged] == ["valid"] * 2 + ["invalid"] + ["valid"] * 3
    loose = [
        replace(
            r, work=replace(r.work, precision="fp16"), expected={**r.expected, "precision": "fp16"}
        )
        for r in records
    ]
    assert {r.row.status for r in checks.apply(loose)} == {"valid"}


@pytest.mark.parametrize(
    "change",
    [{"weights_sha256": "other"}, {"inputs_sha256": {"256": "other"}}],
    ids=["weights", "inputs"],
)
def test_other_weights_or_inputs_are_unequal_work(change):
    records = [live(i) for i in range(1, 4)]
    records[1] = replace(records[1], work=replace(records[1].work, **change))
    assert [r.row.status for r in checks.apply(records)] == ["valid", "invalid", "valid"]


def plan_of(images: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    return {
        "h": [
            {"planned_position": i, "block": (i + 1) // 2, "kind": "workload", "image": image}
            for i, image in enumerate(images, start=1)
        ]
    }


def test_an_order_other_than_the_planned_one_is_found():
    images = "abbaabba"
    records = [live(i, image) for i, image in enumerate(images, start=1)]
    facts = checks.Facts.of_run({"run_id": "r", "plan": plan_of(images)})
    assert not [
        f
        for f in by_code(checks.check_campaign(records, facts), "order-not-randomised")
        if f.is_found_error
    ]
    swapped = [replace(r, row=replace(r.row, position=9 - (r.row.position or 0))) for r in records]
    (found,) = by_code(checks.check_campaign(swapped, facts), "order-not-randomised")
    assert found.is_found_error


def imported(image: str, at_s: float, run: int, joules: float = 6000.0, **row: Any) -> Record:
    return Record(
        TrialRow(
            "c", "", "workload", None, None, None, image, run=run, status="valid",
            started_at=(START + timedelta(seconds=at_s)).isoformat(timespec="milliseconds"), duration_s=60.0,
            energy_j=joules, package_j=joules, energy_scope="package+dram", energy_source="measured", samples=9,
            raw=f"{image}/{run}.csv", **row,
        ),
        sampling=Sampling(10.0, 9, 9),
    )  # fmt: skip


IMPORT = checks.Facts(imported=True, with_statistics=True)


def order_verdict(records: Sequence[Record]) -> str:
    (row,) = by_code(checks.check_campaign(records, IMPORT), "order-not-randomised")
    return str(row.verdict)


def test_images_measured_one_after_the_other_are_not_randomised_and_mixed_ones_are_fine():
    apart = [imported("abc"[i // 10], 100.0 * i, i % 10) for i in range(30)]
    assert order_verdict(apart) == "found"
    shuffled = random.Random(5).sample(range(30), 30)
    mixed = [imported("abc"[i // 10], 100.0 * place, i % 10) for place, i in enumerate(shuffled)]
    assert order_verdict(mixed) == "not-found"
    assert order_verdict(mixed[:1]) == "undecidable"


def test_a_random_order_is_rarely_called_not_random():
    draw = random.Random(11)
    alarms = 0
    for _ in range(200):
        images = draw.sample("abc" * 10, 30)
        records = [imported(image, 100.0 * place, place) for place, image in enumerate(images)]
        alarms += order_verdict(records) == "found"
    assert alarms <= 0.05 * 200 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_a_step_and_a_trend_are_found_and_noise_is_not():
    draw = random.Random(2)
    noise = [6000 + draw.gauss(0, 30) for _ in range(30)]

    def drift(joules: list[float]) -> set[str]:
        records = [imported("a", 100.0 * i, i, j) for i, j in enumerate(joules)]
        found = by_code(checks.check_campaign(records, IMPORT), "drift")
        return {f.evidence["kind"] for f in found if f.verdict == "found"}

    assert drift(noise) == set()
    assert "trend" in drift([j * (1 + 0.001 * i) for i, j in enumerate(noise)])
    assert "step" in drift([j * (1.03 if i >= 15 else 1.0) for i, j in enumerate(noise)])


def test_overlapping_windows_are_found():
    judged = checks.apply(
        [imported("a", 0, 0), imported("a", 30, 1), imported("a", 100, 2)], IMPORT
    )
    assert [r.row.status for r in judged] == ["valid", "invalid", "valid"]


def test_a_fault_of_all_trials_of_an_import_is_said_once_and_one_of_some_takes_these_out():
    cpu = [
        replace(
            imported("cuda", 100.0 * i, i),
            log={"file": "l", "line": 1, "device": "cpu", "cuda_image": True},
        )
        for i in range(4)
    ]
    judged, whole = checks.judge(cpu, IMPORT)
    assert {r.row.status for r in judged} == {"valid"}
    assert [f.subject for f in by_code(whole, "device-mismatch")] == ["campaign"]
    mixed = [replace(r, log={**r.log, "device": "cuda"}) if i else r for i, r in enumerate(cpu)]
    assert [r.row.status for r in checks.apply(mixed, IMPORT)] == [
        "invalid",
        "valid",
        "valid",
        "valid",
    ]


def test_a_change_of_digest_or_state_in_mid_campaign_is_found_where_it_begins():
    records = [
        imported("a", 100.0 * i, i, digest="sha256:" + ("1" if i < 3 else "2") * 64)
        for i in range(6)
    ]
    memory = {"mean": 1.0, "min": 1.0, "max": 1.0, "first": 1.0, "last": 1.0}
    records = [
        replace(r, series={"TOTAL_MEMORY": memory | {"first": 16e9 if i < 3 else 16e9 + 4096}})
        for i, r in enumerate(records)
    ]
    whole = checks.check_campaign(records, IMPORT)
    (changed,) = by_code(whole, "workload-changed")
    assert changed.evidence["file"] == "a/3.csv"
    (state,) = by_code(whole, "state-changed")
    assert [level["file"] for level in state.evidence["levels"]] == ["a/0.csv", "a/3.csv"]


def test_a_virtual_hosts_quota_throttles_and_alone_is_not_a_sign_of_heat():
    def quota(after: int) -> Record:
        record = replace(live(), series={})
        both = {"throttle": {"cpu_quota": 4}, "nvml": []}
        return edges(
            replace(record, edges={"before": record.edges["before"] | both, "after": record.edges["after"] | both}),
            throttle={"cpu_quota": after},
        )  # fmt: skip

    (found,) = by_code(checks.check_trial(quota(9)), "throttled")
    assert (str(found.verdict), found.message) == (
        "found",
        "the host's CPU quota held it back 5×",
    )
    (unknown,) = by_code(checks.check_trial(quota(4)), "throttled")
    assert str(unknown.verdict) == "undecidable"
    heated = edges(live(), throttle={"core": 6, "cpu_quota": 3})
    (both,) = by_code(checks.check_trial(heated), "throttled")
    assert both.message == "thermal throttling of the CPU: core 1×"


@pytest.mark.parametrize(
    ("whole_j", "verdict"), [(2500.0, "found"), (2990.0, "not-found"), (4000.0, "not-found")]
)
def test_the_whole_machine_reads_no_less_than_the_parts_inside_it(whole_j, verdict):
    """Package and DRAM of 3000 J: 2 % less may be the meters' own."""
    parts = (
        Domain("package", "energibridge", 2800.0, 3.0, counted=True),
        Domain("dram", "energibridge", 200.0, 1.0, counted=True),
    )
    board = Domain("system", "hwmon", whole_j, 5.0)
    (found,) = by_code(
        checks.check_trial(replace(live(), domains=(*parts, board))), "meter-disagree"
    )
    assert found.verdict == verdict
    if verdict == "found":
        assert found.message == (
            "hwmon reads 2500 J of the whole machine, package + dram inside it 3000 J"
        )


@pytest.mark.parametrize(
    ("wall_j", "board_j", "message"),
    [
        (3500.0, None, None),
        (2980.0, None, None),
        (2500.0, None, "plug reads 2500 J of the whole machine at the wall, package + dram inside it 3000 J"),
        (3500.0, 3300.0, None),
        (3100.0, 3300.0, "plug reads 3100 J of the whole machine at the wall, board inside it 3300 J"),
        (3500.0, 2700.0, "bmc reads 2700 J of the whole board, package + dram inside it 3000 J"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_primary", [True, False])
def test_the_wall_reads_no_less_than_what_lies_inside_whichever_is_counted(
    wall_j, board_j, message, is_primary
):
    domains = [
        Domain("package", "energibridge", 2800.0, 3.0, counted=not is_primary),
        Domain("dram", "energibridge", 200.0, 1.0, counted=not is_primary),
        Domain("wall", "plug", wall_j, 20.0, counted=is_primary),
    ]
    if board_j is not None:
        domains.append(Domain("board", "bmc", board_j, 20.0))
    found = by_code(checks.check_trial(replace(live(), domains=tuple(domains))), "meter-disagree")
    assert [f.message for f in found if f.verdict == "found"] == ([message] if message else [])
    # a difference that the uncertainty explains is none
    domains[2] = replace(domains[2], uncertainty_j=600.0)
    if board_j is None:
        unsure = by_code(
            checks.check_trial(replace(live(), domains=tuple(domains))), "meter-disagree"
        )
        assert not [f for f in unsure if f.verdict == "found"]


def test_a_meter_of_all_gpus_reads_no_less_than_the_gpus():
    apart = tuple(Domain(f"gpu{i}", "nvml", 900.0, 5.0, counted=True) for i in range(2))
    for joules, verdict in ((1900.0, "not-found"), (1200.0, "found")):
        domains = (*live().domains, *apart, Domain("gpu", "pdu", joules, 10.0))
        found = by_code(checks.check_trial(replace(live(), domains=domains)), "meter-disagree")
        assert [f.verdict for f in found] == [verdict]


def two_gpus(second: float) -> Record:
    """A trial with two counted GPUs, the second one at most so busy, %."""
    counted = (Domain(f"gpu{i}", "nvml", 900.0, 1.0, counted=True) for i in range(2))
    usage = {"GPU0_USAGE": GOOD_USAGE, "gpu1_util_pct": GOOD_USAGE | {"max": second}}
    return replace(live(), domains=(*live().domains, *counted), series=usage)


def test_an_idle_second_gpu_is_named_and_makes_the_trial_invalid():
    (found,) = by_code(checks.check_trial(two_gpus(2.0)), "gpu-idle")
    assert found.is_found_error
    assert found.message == "of the given GPUs gpu1 never exceeds 2 %"
    assert found.evidence["idle_gpus"] == {"gpu1": 2.0}
    assert checks.apply([two_gpus(2.0)])[0].row.status == "invalid"
    assert verdicts(two_gpus(60.0))["gpu-idle"] == "not-found"


def test_power_of_idle_gpus_is_stated_in_watts_whichever_meter_read_it():
    power = dict.fromkeys(("mean", "min", "max", "first", "last"), 61_500.0)
    idle = {"gpu0_util_pct": GOOD_USAGE | {"max": 0.0}, "gpu0_power_mw": power}
    (found,) = by_code(checks.check_trial(replace(live(), series=idle)), "gpu-idle")
    assert found.message == "GPU utilisation never exceeds 0 %, mean power 61.5 W"


def test_a_gpu_that_the_trial_was_not_given_may_be_idle():
    other = replace(two_gpus(2.0), domains=two_gpus(2.0).domains[:-1])
    assert verdicts(other)["gpu-idle"] == "not-found"


@pytest.mark.parametrize(
    ("mask", "severity", "said"),
    [
        (0x04, "warning", "the power limit held the clocks of gpu0 down"),
        (0x24, "error", "gpu0 reports slowed clocks: software thermal slowdown; the power limit"),
    ],
)
def test_a_power_cap_is_a_reason_to_throttle_and_alone_a_warning(mask, severity, said):
    capped = edges(live(), nvml=[{"index": 0, "throttle": mask}])
    (found,) = by_code(checks.check_trial(capped), "throttled")
    assert (found.severity, found.verdict) == (severity, "found")
    assert found.message.startswith(said)


def test_other_processes_on_a_given_gpu_invalidate_the_trial():
    record = live()
    gpu = {"throttle": 0, "uuid": "GPU-5f", "processes": 2}
    busy = replace(
        record, edges={**record.edges, "before": {**record.edges["before"], "nvml": [gpu]}}
    )
    (found,) = by_code(checks.check_trial(busy), "host-busy")
    assert found.is_found_error
    assert "2 other processes computed on GPU GPU-5f" in found.message
    assert checks.apply([busy])[0].row.status == "invalid"


def test_processes_that_stay_on_a_gpu_after_the_window_are_a_warning():
    after = edges(live(), nvml=[{"throttle": 0, "uuid": "GPU-5f", "processes": 1}])
    (found,) = by_code(checks.check_trial(after), "host-busy")
    assert (found.severity, found.message) == (
        "warning",
        "1 process on GPU gpu0 after the window",
    )


def test_every_code_that_is_checked_ends_in_some_verdict():
    whole = checks.check_campaign([imported("a", 100.0 * i, i) for i in range(3)], IMPORT)
    of_campaign = registry.campaign_checks()
    tables = {c.code for c in registry.trial_checks()} | {c.code for c in of_campaign if not c.live}
    assert {f.code for f in whole} == tables
    live = {f.code for f in checks.check_campaign([])}
    # A live run's drift and outliers are judged inside its blocks.
    judged_later = {c.code for c in of_campaign if c.statistical}
    assert live == tables - judged_later | {c.code for c in of_campaign if c.live}
    assert live <= set(CODES)


def test_soft_problems_of_a_hosts_check_stand_beside_its_numbers():
    def problem(code, severity="soft"):
        return {"code": code, "severity": severity, "message": f"{code} it is", "action": "mend it"}

    problems = [problem(c) for c in ("host-busy", "governor", "clock-skew", "host-unsteady")]
    host = {"problems": [*problems, problem("disk-full", "hard")]}
    facts = checks.Facts.of_run({"run_id": "r", "plan": {}, "hosts": {"lab-a": host}})
    found = {f.code: f for f in checks.check_campaign([], facts) if f.verdict == "found"}
    assert set(found) == {"host-busy", "host-setup", "clock-skew", "host-unsteady"}
    assert {f.subject for f in found.values()} == {"host lab-a"}
    assert (found["host-setup"].message, found["host-setup"].action) == (
        "governor it is",
        "mend it",
    )
    # Seen before the first trial, it invalidates none of them; a quarantine is no small thing.
    errors = {c for c, f in found.items() if f.is_found_error}
    assert errors == {"host-unsteady"}


def test_nothing_at_all_is_undecidable_and_not_fine():
    whole = checks.check_campaign([], IMPORT)
    assert {
        str(f.verdict) for f in whole if f.code in {c.code for c in registry.trial_checks()}
    } == {"undecidable"}


@pytest.mark.parametrize(
    ("watts", "severity"), [(187.342, "error"), (187.0, "warning"), (0.0, None)], ids=str
)
@pytest.mark.parametrize(
    ("column", "scale"), [("GPU0_POWER (mWatts)", 1.0), ("gpu0_power_mw", 1e3)]
)
def test_gpu_power_of_one_value_under_steady_work_is_a_stale_sensor(watts, severity, column, scale):
    power = dict.fromkeys(("mean", "min", "max", "first", "last"), watts * scale)
    frozen = replace(live(), series={"GPU0_USAGE": GOOD_USAGE, column: power}, edges=live().edges)
    (finding,) = by_code(checks.check_trial(frozen), "sensor-stale")
    assert (finding.severity if finding.verdict == "found" else None) == severity


def test_a_failed_trial_has_no_energy_and_its_meter_is_not_blamed():
    failed = live(status="failed", reason="exit code 1", energy_j=None, raw="a.csv")
    found = {f.code for f in checks.check_trial(failed) if f.verdict == "found"}
    assert found == {"trial-failed"}
    unread = replace(failed, domains=())
    assert "meter-silent" in {f.code for f in checks.check_trial(unread) if f.verdict == "found"}


@pytest.mark.parametrize(
    ("controller_s", "severity"),
    [(1.0, None), (6.0, "warning"), (20.0, "warning"), (40.0, "error")],
)
def test_a_controller_on_the_measured_host_is_not_a_stranger_but_is_reported(
    controller_s: float, severity: str | None
) -> None:
    found = by_code(
        checks.check_trial(edges(live(), controller_cpu_ns=controller_s * 1e9)), "host-busy"
    )
    (one,) = found
    assert one.verdict == ("found" if severity else "not-found")
    if severity:
        assert one.severity == severity
        assert f"the controller, which runs on this host, used {controller_s:.1f} s" in one.message
