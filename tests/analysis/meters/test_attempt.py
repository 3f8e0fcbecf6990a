"""From raw files to the record of an attempt, on a machine whose true energy is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.simulated_rapl import START_S, Level, Machine, Meter
from tests.support.wall_meter import Device, Load, raw_lines
from wattbench.analysis.checks import check_trial
from wattbench.analysis.meters.attempt import RawAttempt, evaluate
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow

LEVELS = [
    Level("start", 1.0, 20.0),
    Level("import", 1.5, 30.0),
    Level("load", 0.8, 45.0),
    Level("warmup", 1.0, 90.0),
    Level("steady:256", 6.0, 100.0),
    Level("stop", 0.7, 15.0),
]
MACHINE = Machine(LEVELS, 11)
GPU = Machine([Level(e.name, e.seconds, 2 * e.watts) for e in LEVELS], 12, idle_w=20.0)
EDGES = [float(e) for e in MACHINE.edges_s]
WINDOW = (EDGES[0] + 0.04, EDGES[-1] - 0.01)
MONO = 1000.0 - START_S
ROW = TrialRow(
    run_id="r", host="h", kind="workload", block=1, position=None, planned_position=3,
    image="torch", attempt=1,
)  # fmt: skip
EXPECTED = {"device": "cpu", "gpus": [], "meter": "energibridge", "interval_ms": 200}


def stamped(event: str, unix_s: float, **fields: Any) -> str:
    return json.dumps({"event": event, "unix_s": unix_s, "mono_s": unix_s + MONO, **fields})


def workload() -> bytes:
    lines = [stamped("start", EDGES[1], program="resnet50", framework="torch", precision="fp32")]
    lines.append(stamped("device", EDGES[1], requested="cpu", actual="cpu"))
    for level, begin, end in zip(LEVELS[1:5], EDGES[1:5], EDGES[2:6], strict=True):
        lines.append(stamped("phase", begin, name=level.name, edge="begin"))
        lines.append(stamped("phase", end, name=level.name, edge="end"))
    lines.append(
        stamped(
            "result", EDGES[5], phase="steady:256", iterations=50, batch=2, images=100, duration_s=6
        )
    )
    lines.append(stamped("end", EDGES[5], images=100))
    return ("\n".join(lines) + "\n").encode()


def zone_uj(time_s: float, share: float = 1.0) -> int:
    return int(float(MACHINE.energy_j(time_s)) * share * 1e6) + 77


def marks(time_s: float, **more: Any) -> dict[str, Any]:
    return {"unix_s": time_s, "mono_s": time_s + MONO, **more}


def report(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "schema": 1,
        "id": "r/h/003-torch/1",
        "spec": {"gpus": [], "meter": {"kind": "energibridge", "interval_ms": 200}},
        "state": "done",
        "message": "",
        "rc": 0,
        "command": {"started": marks(WINDOW[0]), "ended": marks(WINDOW[1]), "rc": 0},
        "container": {"oom_killed": False},
        "meter": {"rc": 0},
        "edges": {"before": {}, "after": {}},
        "connections": [{"verb": "wait", "unix_s": WINDOW[0] - 3}],
        "clock": {"unix_minus_mono_before": -MONO, "unix_minus_mono_after": -MONO + 0.0004},
        "boot": {"before": "a", "after": "a"},
        "rest": {"rested_s": 61.5},
    }
    return whole | changes


def attempt(
    *, gpu: bool = False, log: bytes | None = None, expected: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Record:  # fmt: skip
    data = Meter(start_j=262_144 - 300.0).log(MACHINE, 4, GPU if gpu else None)
    files = {"energibridge.csv": data if log is None else log, "workload.jsonl": workload()}
    raw = RawAttempt(report(**changes), files)
    return evaluate(raw, expected=EXPECTED | dict(expected or {}), plan_row=ROW)


def true_j(start_s: float, end_s: float, share: float = 1.0) -> float:
    return float(np.diff(MACHINE.energy_j([start_s, end_s]))[0]) * share


def test_the_rows_energy_is_the_machines() -> None:
    row = attempt().row
    assert (row.status, row.reason) == ("valid", None)
    assert row.energy_scope == "package+dram"
    assert row.energy_source == "measured"
    assert row.energy_uncertainty_j is not None
    assert row.energy_j == pytest.approx(true_j(*WINDOW, 1.1), abs=row.energy_uncertainty_j)
    assert row.package_j == pytest.approx(true_j(*WINDOW), rel=0.005)
    assert row.dram_j == pytest.approx(true_j(*WINDOW, 0.1), rel=0.005)
    assert row.gpu_j is None
    assert row.wraps == 1
    assert row.duration_s == pytest.approx(WINDOW[1] - WINDOW[0])
    assert row.started_at == "2025-06-15T15:06:40.290Z"
    assert (row.images_inferred, row.device, row.rest_s) == (100, "cpu", 61.5)
    assert row.j_per_image == pytest.approx(row.energy_j / 100)
    assert row.samples == pytest.approx(55, abs=1)


def test_the_phases_split_the_window() -> None:
    record = attempt()
    assert [p.name for p in record.phases] == [level.name for level in LEVELS]
    bounds = [WINDOW[0], *EDGES[1:6], WINDOW[1]]
    for phase, start, end in zip(record.phases, bounds[:-1], bounds[1:], strict=True):
        assert phase.energy_uncertainty_j is not None
        assert phase.energy_j == pytest.approx(
            true_j(start, end, 1.1), abs=phase.energy_uncertainty_j
        )
        assert phase.duration_s == pytest.approx(end - start, abs=1e-6)
    assert sum(p.energy_j or 0 for p in record.phases) == pytest.approx(record.row.energy_j)
    steady = record.phases[4]
    assert steady.mean_w == pytest.approx(110.0, rel=0.05)
    assert steady.images_inferred == 100
    assert record.row.steady_j == steady.energy_j
    assert record.row.startup_s == pytest.approx(EDGES[4] - WINDOW[0])
    assert record.row.startup_j == pytest.approx(true_j(WINDOW[0], EDGES[4], 1.1), rel=0.02)
    assert record.row.steady_j_per_image == pytest.approx(true_j(*EDGES[4:6], 1.1) / 100, rel=0.02)


def test_cores_are_kept_but_never_counted() -> None:
    domains = {d.name: d for d in attempt().domains}
    assert domains["pp0"].counted is False
    assert domains["package"].counted
    assert domains["dram"].counted
    assert domains["pp0"].energy_j == pytest.approx(0.6 * domains["package"].energy_j, rel=0.01)


def test_a_record_survives_its_json() -> None:
    record = attempt(gpu=True)
    again = Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False)))
    assert again.row == record.row
    assert again.domains == record.domains
    assert again.phases == record.phases
    assert again.notes == record.notes


def test_a_gpu_that_was_not_given_does_not_count() -> None:
    record = attempt(gpu=True)
    assert record.row.gpu_j is None
    assert {d.name: d.counted for d in record.domains}["gpu0"] is False


def nvml_csv(counters: bool) -> bytes:
    lines = ["unix_s,mono_s,gpu0_energy_mj,gpu0_power_mw,gpu0_util_pct"]
    for time in np.arange(EDGES[0] - 0.2, EDGES[-1] + 1.0, 0.5):
        energy = int(float(GPU.energy_j(time)) * 1000) + 5 if counters else ""
        lines.append(f"{time:.6f},1.0,{energy},{int(float(GPU.power_w(time)) * 1000)},50")
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize(
    ("counters", "meter"), [(True, "nvml"), (False, "nvml"), (None, "energibridge")]
)
def test_a_given_gpu_counts_by_the_best_that_read_it(counters: bool | None, meter: str) -> None:
    data = Meter().log(MACHINE, 4, GPU)
    files = {"energibridge.csv": data, "workload.jsonl": workload()}
    files |= {} if counters is None else {"nvml.csv": nvml_csv(counters)}
    raw = RawAttempt(report(), files)
    record = evaluate(raw, expected=EXPECTED | {"gpus": ["GPU-abc"]}, plan_row=ROW)
    truth = float(np.diff(GPU.energy_j(WINDOW))[0])
    assert [d.meter for d in record.domains if d.counted and d.name == "gpu0"] == [meter]
    assert record.row.energy_scope == "package+dram+gpu"
    (gpu,) = (d for d in record.domains if d.counted and d.name == "gpu0")
    assert gpu.energy_j == pytest.approx(truth, abs=gpu.uncertainty_j)
    assert gpu.energy_j == pytest.approx(truth, rel=0.03)
    assert record.row.gpu_j == gpu.energy_j


def test_of_two_cards_the_given_one_is_found_by_its_uuid() -> None:
    lines = Meter().log(MACHINE, 4, GPU).decode().splitlines()
    both = [lines[0].replace("GPU0_USAGE", "GPU0_USAGE,GPU1_POWER (mWatts)")]
    cells = [row.split(",") for row in lines[1:]]
    both += [",".join([*row[:6], "15000", *row[6:]]) for row in cells]
    edges = {"before": {"nvml": [{"index": 1, "uuid": "GPU-b"}, {"index": 0, "uuid": "GPU-a"}]}}
    log = ("\n".join(both) + "\n").encode()
    record = attempt(log=log, expected={"gpus": ["GPU-b"]}, edges=edges)
    assert record.row.gpu_j == pytest.approx(15.0 * (WINDOW[1] - WINDOW[0]), rel=1e-6)
    unknown = attempt(log=log, expected={"gpus": ["GPU-c"]})
    assert unknown.row.status == "invalid"
    assert any(n.kind == "gpu-unmapped" for n in unknown.notes)


ZONES = {
    "intel-rapl:0": {"name": "package-0", "max_energy_range_uj": 262_143_328_850},
    "intel-rapl:0:0": {"name": "dram", "max_energy_range_uj": 65_712_999_613},
}


@pytest.mark.parametrize("kind", ["energibridge", "powercap"])
def test_the_configured_meter_counts_and_the_other_stands_beside(kind: str) -> None:
    def zones(time_s: float) -> dict[str, int]:
        return {"intel-rapl:0": zone_uj(time_s), "intel-rapl:0:0": zone_uj(time_s, 0.1)}

    lines = ["unix_s,mono_s,intel-rapl:0,intel-rapl:0:0"]
    lines += [
        ",".join([f"{time:.6f}", "1.0", *map(str, zones(time).values())])
        for time in np.arange(EDGES[0] - 0.2, EDGES[-1] + 1.0, 2.0)
    ]
    command = {
        "started": marks(WINDOW[0], powercap_uj=zones(WINDOW[0])),
        "ended": marks(WINDOW[1], powercap_uj=zones(WINDOW[1])),
        "rc": 0,
    }
    raw = RawAttempt(
        report(command=command, edges={"before": {"powercap": ZONES}, "after": {}}),
        ({"energibridge.csv": Meter().log(MACHINE, 4)} if kind == "energibridge" else {})
        | {"powercap.csv": ("\n".join(lines) + "\n").encode(), "workload.jsonl": workload()},
    )
    record = evaluate(raw, expected=EXPECTED | {"meter": kind}, plan_row=ROW)
    assert record.row.status == "valid"
    assert {d.meter for d in record.domains if d.counted} == {kind}
    by_meter = {d.meter: d.energy_j for d in record.domains if d.name == "package"}
    # The kernel's counters were read at the very edges.
    assert by_meter["powercap"] == pytest.approx(true_j(*WINDOW), abs=0.001)
    if kind == "energibridge":
        assert by_meter["energibridge"] == pytest.approx(by_meter["powercap"], rel=0.005)


def test_a_modelled_meter_makes_modelled_rows() -> None:
    record = attempt(expected={"meter": "modelled"})
    assert record.row.energy_source == "modelled"
    assert {d.meter for d in record.domains} == {"modelled"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "timeout", "message": "stopped after 60 s"}, "timeout: stopped after 60 s"),
        ({"rc": 137}, "exit code 137: see stderr.log"),
        ({"command": {"started": marks(WINDOW[0]), "ended": None}}, "edges were not marked"),
        ({"command": None}, "edges were not marked"),
        ({"log": b""}, "no energy: 0 bytes, no header"),
        ({"log": b"Delta,Time,CPU_USAGE_0\n0,1,2\n1,2,3\n"}, "no energy or power column"),
    ],
)
def test_what_did_not_end_well_or_left_no_energy_failed(
    changes: dict[str, Any], reason: str
) -> None:
    row = attempt(**changes).row
    assert row.status == "failed"
    assert row.reason is not None
    assert reason in row.reason


@pytest.mark.parametrize(
    "changes",
    [{"state": "timeout"}, {"rc": 1}, {"connections": 7}],
    ids=["timeout", "exit", "report"],
)
def test_a_failed_attempt_has_no_joules(changes: dict[str, Any]) -> None:
    record = attempt(**changes)
    assert record.row.status == "failed"
    energies = [k for k, v in vars(record.row).items() if v is not None and "_j" in k]
    assert energies == []
    assert (record.row.energy_source, record.row.energy_scope) == (None, None)
    assert {p.energy_j for p in record.phases} <= {None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"connections": 7}, "connections: 7 is not a list"),
        ({"edges": []}, "edges: [] is not an object"),
        ({"command": {"started": {"unix_s": "soon"}}}, "command.started.unix_s: 'soon' is not a number"),
        ({"state": 3}, "state: 3 is not text"),
        ({"schema": 2}, "schema 2, this version reads up to 1"),
    ],
)  # fmt: skip
def test_a_malformed_report_fails_its_attempt_and_names_the_field(
    changes: dict[str, Any], says: str
) -> None:
    row = attempt(**changes).row
    assert (row.status, row.reason) == ("failed", f"malformed report: {says}")


def test_what_the_workload_printed_is_in_the_record_and_cut_output_is_found() -> None:
    from wattbench.analysis import checks

    output = {
        "stdout_bytes": 9_000_000,
        "stderr_bytes": 1_000_000,
        "kept_bytes": 4_194_304,
        "cut": True,
    }
    record = attempt(output=output)
    again = Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False)))
    (finding,) = [f for f in checks.check_trial(again) if f.code == "output-flood"]
    assert (finding.verdict, finding.severity) == ("found", "warning")
    assert finding.message == "the workload printed 10.0 MB, 4.2 MB of it are kept"


def test_a_log_that_stops_inside_the_window_is_invalid() -> None:
    lines = Meter().log(MACHINE, 4).splitlines(keepends=True)
    record = attempt(log=b"".join(lines[: len(lines) // 2]))
    assert record.row.status == "invalid"
    assert record.row.reason is not None
    assert "no row after an edge" in record.row.reason


def test_a_fault_of_a_column_that_does_not_count_is_noted_but_not_fatal() -> None:
    lines = Meter().log(MACHINE, 4).decode().splitlines()
    at = lines[0].split(",").index("PP0_ENERGY (J)")
    broken = lines[:20]
    for row in lines[20:]:
        cells = row.split(",")
        cells[at] = "1.5"
        broken.append(",".join(cells))
    record = attempt(log=("\n".join(broken) + "\n").encode())
    assert record.row.status == "valid"


def test_times_calls_and_boots_are_reported() -> None:
    timing = attempt(
        connections=[{"verb": "wait", "unix_s": WINDOW[0] + 1}, {"verb": "status", "unix_s": 1.0}],
        clock={"unix_minus_mono_before": -MONO, "unix_minus_mono_after": -MONO + 2.0},
        boot={"before": "a", "after": "b"},
    ).timing
    assert timing["connections_in_window"] == 1
    assert timing["clock_step_s"] == pytest.approx(2.0)
    assert timing["boot_changed"] is True
    quiet = attempt().timing
    assert (quiet["connections_in_window"], quiet["boot_changed"]) == (0, False)


def test_power_and_gauges_are_summarised_over_the_window() -> None:
    series = attempt().series
    assert series["package_w"]["max"] > 90 > series["package_w"]["mean"] > 50
    assert series["CPU_USAGE_0"]["mean"] == 12.5


@settings(max_examples=60)
@given(st.data())
def test_damaged_files_and_reports_never_raise(data: st.DataObject) -> None:
    log = Meter().log(MACHINE, 4)
    at = data.draw(st.integers(0, len(log)))
    junk = data.draw(st.binary(max_size=30))
    whole = report()
    spoiled = data.draw(st.sampled_from(sorted(whole)))
    whole[spoiled] = data.draw(
        st.none() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({"started": {}})
    )
    files = dict.fromkeys(("powercap.csv", "nvml.csv"), junk)
    files |= {"energibridge.csv": log[:at] + junk, "workload.jsonl": workload()[:at] + junk}
    raw = RawAttempt(whole, files)
    record = evaluate(raw, expected=EXPECTED, plan_row=ROW)
    assert record.row.status in ("valid", "invalid", "failed")
    assert record.row.status == "valid" or record.row.reason
    json.dumps(record.to_dict(), allow_nan=False)


def with_a_plug(gain: float, *, primary: bool, **settings: Any) -> Record:
    """The same attempt with a plug at the wall that shows so much of the package's power."""
    load = Load(tuple((edge, level.watts) for edge, level in zip(EDGES, LEVELS, strict=False)))
    load = Load(((START_S - 1e6, 10.0), *load.steps, (EDGES[-1], 10.0)))
    moments = list(np.arange(WINDOW[0] - 4.0, WINDOW[1] + 4.0, 0.25))
    common = {"interval_s": 0.25, "averaged_s": 0.0, "primary": primary, **settings}
    plug = raw_lines(Device(load, gain=gain), moments, quantities=["energy"], **common)
    named = [
        {"name": "energibridge", "kind": "energibridge", "domain": None, "primary": not primary},
        {"name": "plug", "kind": "http", "domain": "wall", "primary": primary},
    ]
    expected = EXPECTED | {"meter": "http" if primary else "energibridge", "meters": named}
    files = {
        "energibridge.csv": Meter(start_j=262_144 - 300.0).log(MACHINE, 4, None),
        "workload.jsonl": workload(), "http.jsonl": plug,
    }  # fmt: skip
    return evaluate(RawAttempt(report(), files), expected=expected, plan_row=ROW)


@pytest.mark.parametrize("primary", [True, False])
def test_a_plug_beside_the_packages_counter_is_a_domain_and_columns_of_its_own(
    primary: bool,
) -> None:
    record = with_a_plug(1.5, primary=primary)
    alone = attempt().row
    row = record.row
    assert (row.status, row.reason) == ("valid", None)
    (wall,) = [d for d in record.domains if d.name == "wall"]
    assert (wall.meter, wall.counted, wall.energy_j) == ("plug", primary, row.wall_j)
    assert row.wall_uncertainty_j == wall.uncertainty_j
    assert row.energy_scope == ("wall" if primary else "package+dram")
    assert row.energy_j == (row.wall_j if primary else alone.energy_j)
    assert {d.name for d in record.domains} >= {"package", "dram", "wall"}
    assert not [
        f for f in check_trial(record) if f.code == "meter-disagree" and f.verdict == "found"
    ]


def test_a_plug_that_reads_below_the_package_is_found() -> None:
    for primary in (True, False):
        found = [f for f in check_trial(with_a_plug(0.6, primary=primary)) if f.verdict == "found"]
        assert "meter-disagree" in [f.code for f in found]


def test_a_primary_meter_without_readings_fails_the_trial_and_a_cross_check_does_not() -> None:
    for primary, status in ((True, "failed"), (False, "valid")):
        named = [
            {
                "name": "energibridge",
                "kind": "energibridge",
                "domain": None,
                "primary": not primary,
            },
            {"name": "plug", "kind": "http", "domain": "wall", "primary": primary},
        ]
        kind = "http" if primary else "energibridge"
        record = attempt(expected={"meter": kind, "meters": named})
        assert record.row.status == status, record.row.reason
        assert any("http.jsonl has no readings" in n.message for n in record.notes)


def test_a_declared_domain_alone_counts_of_its_meter() -> None:
    named = [{"name": "energibridge", "kind": "energibridge", "domain": "dram", "primary": True}]
    assert attempt(expected={"meters": named}).row.energy_scope == "dram"


# ── idle with the framework loaded ──────────────────────────────────────────────────────────────


def idle_log(device: str | None = "cpu") -> bytes:
    """The program holds its model in the time that the machine's level ``steady:256`` lasts."""
    lines = [stamped("start", EDGES[1], program="resnet50")]
    if device:
        lines.append(stamped("device", EDGES[1], requested=device, actual=device))
    for name, begin, end in (("load", EDGES[1], EDGES[4]), ("idle", EDGES[4], EDGES[5])):
        lines.append(stamped("phase", begin, name=name, edge="begin"))
        lines.append(stamped("phase", end, name=name, edge="end"))
    return "\n".join([*lines, stamped("end", EDGES[5], images=0)]).encode()


def idle_attempt(log: bytes, state: str = "loaded", **expected: Any) -> Record:
    data = Meter(start_j=262_144 - 300.0).log(MACHINE, 4, None)
    raw = RawAttempt(report(), {"energibridge.csv": data, "workload.jsonl": log})
    wanted: Any = EXPECTED | {"kind": "idle", "idle_state": state, "passes": []} | expected
    return evaluate(raw, expected=wanted, plan_row=replace(ROW, kind="idle"))


def test_joules_of_a_loaded_idle_trial_are_those_after_loading() -> None:
    row = idle_attempt(idle_log()).row
    assert (row.status, row.reason, row.idle_state) == ("valid", None, "loaded")
    assert row.duration_s == pytest.approx(6.0)
    assert row.energy_uncertainty_j is not None
    assert row.energy_j == pytest.approx(true_j(*EDGES[4:6], 1.1), abs=row.energy_uncertainty_j)
    assert row.samples == pytest.approx(30, abs=1)
    assert not [
        f.code for f in check_trial(idle_attempt(idle_log())) if f.code == "device-mismatch"
    ]


def test_the_window_of_another_idle_trial_is_not_cut() -> None:
    row = idle_attempt(idle_log(), "container").row
    assert row.idle_state == "container"
    assert row.duration_s == pytest.approx(WINDOW[1] - WINDOW[0])


@pytest.mark.parametrize(
    ("device", "said"),
    [("cpu", "cuda was asked for, the model was loaded on cpu"), (None, "on an unknown device")],
)
def test_a_model_that_was_loaded_on_another_device_makes_its_idle_trial_invalid(
    device: str | None, said: str
) -> None:
    row = idle_attempt(idle_log(device), device="cuda").row
    assert row.status == "invalid"
    assert said in (row.reason or "")


@pytest.mark.parametrize(
    "log", [b"", workload(), idle_log().rpartition(b"\n")[0].rpartition(b"\n")[0]]
)
def test_without_the_phase_idle_a_loaded_idle_trial_has_failed(log: bytes) -> None:
    row = idle_attempt(log).row
    assert (row.status, row.energy_j, row.duration_s) == ("failed", None, None)
    assert "held its model loaded (phase idle)" in (row.reason or "")
