"""Meters on the network: joules against a load of exact energy, and what must not pass for a reading."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wall_meter import Device, Load, raw_lines
from wattbench.analysis.meters.reading import Edge, Reading
from wattbench.analysis.meters.remote import remote_reading
from wattbench.analysis.meters.window import Split, split

START = 1.8e9
BUSY = Load.window(START, START + 60.0, 50.0, 250.0)
TRUTH_J = 250.0 * 60.0


def every(interval_s: float, first_s: float = -4.3, last_s: float = 70.0) -> list[float]:
    """Moments of readings, s; relative to the window's start."""
    return list(START + np.arange(first_s, last_s, interval_s))


def window(reading: Reading, end_s: float = 60.0) -> Split:
    (curve,) = reading.curves
    return split(curve, [START, START + end_s])


def read(device: Device, moments: list[float] | None = None, **how: Any) -> Reading:
    return remote_reading("http", raw_lines(device, moments or every(1.0), **how))


def fatal(reading: Reading) -> list[str]:
    return [n.message for n in reading.notes if n.fatal]


@pytest.mark.parametrize("quantities", [["energy"], ["power"], ["power", "energy"]])
@pytest.mark.parametrize("lag_s", [0.0, 3.0])
@pytest.mark.parametrize("ahead_s", [0.0, -1.7, 2.5])
def test_joules_of_a_step_are_power_times_time_whatever_lag_and_clock(
    quantities: list[str], lag_s: float, ahead_s: float
) -> None:
    device = Device(BUSY, lag_s=lag_s, update_s=0.5)
    reading = read(
        device, quantities=quantities, ahead_s=ahead_s, lag_s=lag_s, lag_uncertainty_s=0.1 * lag_s
    )
    cut = window(reading)
    assert fatal(reading) == []
    assert abs(cut.total_j - TRUTH_J) <= cut.total_uncertainty_j
    # 1 s of readings at two edges, and of the lag its share of the step at both
    assert cut.total_uncertainty_j < 0.03 * TRUTH_J + 0.1 * lag_s * 2 * 200


def test_a_lag_that_is_not_declared_moves_the_joules_by_the_step_times_the_lag() -> None:
    late = window(read(Device(BUSY, lag_s=3.0), quantities=["energy"]))
    assert late.total_j - TRUTH_J == pytest.approx(-3.0 * 200.0, abs=250.0)
    assert abs(late.total_j - TRUTH_J) > late.total_uncertainty_j


def test_a_lag_of_unknown_size_is_in_the_uncertainty() -> None:
    for lag_s in (0.0, 1.5, 3.0):
        cut = window(
            read(Device(BUSY, lag_s=lag_s), quantities=["energy"], lag_s=1.5, lag_uncertainty_s=1.5)
        )
        assert abs(cut.total_j - TRUTH_J) <= cut.total_uncertainty_j
        assert cut.total_uncertainty_j > 1.5 * 200.0


def test_the_uncertainty_covers_the_truth_in_at_least_95_percent_of_windows() -> None:
    rng = np.random.default_rng(20)
    for quantity, digit_j in (
        ("energy", 1.0),
        ("energy", 100.0),
        ("energy", 3600.0),
        ("power", 1.0),
    ):
        covered = []
        for _ in range(25):
            length_s, idle_w = rng.uniform(20, 90), rng.uniform(20, 100)
            moments = np.cumsum([0.0, *rng.uniform(0.5, 20, size=9)])
            inside = [(START + t, rng.uniform(60, 400)) for t in moments if t < length_s]
            load = Load(((START - 1e3, idle_w), *inside, (START + length_s, idle_w)))
            lag_s, interval_s = rng.uniform(0, 3), rng.choice([0.5, 1.0, 2.0])
            device = Device(
                load, lag_s=lag_s * rng.uniform(0.7, 1.3), energy_digit_j=digit_j,
                update_s=interval_s * rng.choice([0.0, 0.3, 1.0, 2.0]), power_digit_w=1.0,
            )  # fmt: skip
            last_s = length_s + 1.3 * lag_s + 1.0 + 4 * interval_s
            reading = read(
                device, every(interval_s, -3 * interval_s - rng.uniform(0, interval_s), last_s),
                ahead_s=rng.uniform(-2, 2), interval_s=interval_s, lag_s=lag_s,
                lag_uncertainty_s=0.3 * lag_s, quantities=[quantity],
            )  # fmt: skip
            if not reading.curves:
                continue
            cut = window(reading, length_s)
            truth_j = load.between_j(START, START + length_s)
            covered.append(abs(cut.total_j - truth_j) <= cut.total_uncertainty_j)
        assert len(covered) > 20
        assert np.mean(covered) >= 0.95, (quantity, digit_j)


@settings(max_examples=40, deadline=None)
@given(
    idle_w=st.floats(5, 100), busy_w=st.floats(110, 1000), seconds=st.floats(10, 300),
    shift_s=st.floats(-0.5, 0.5), phase_s=st.floats(0, 1),
)  # fmt: skip
def test_a_clock_that_is_off_within_its_doubt_never_leaves_the_uncertainty(
    idle_w: float, busy_w: float, seconds: float, shift_s: float, phase_s: float
) -> None:
    load = Load.window(START, START + seconds, idle_w, busy_w)
    moments = every(1.0, -4.0 - phase_s, seconds + 5.0)
    reading = read(
        Device(load, lag_s=shift_s), moments, quantities=["energy"], trip_s=0.0,
        lag_uncertainty_s=0.5,
    )  # fmt: skip
    cut = window(reading, seconds)
    assert abs(cut.total_j - busy_w * seconds) <= cut.total_uncertainty_j


def test_the_counter_counts_where_it_is_finer_than_the_power_and_else_the_power() -> None:
    edges = [Edge(START), Edge(START + 60.0)]
    for digit_j, integrated in ((1.0, False), (3600.0, True)):
        data = raw_lines(Device(BUSY, energy_digit_j=digit_j, power_digit_w=0.1), every(1.0))
        (curve,) = remote_reading("http", data, edges).curves
        assert (curve.power_w is not None) is integrated


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("J", 1.0), ("mJ", 1e3), ("uJ", 1e6), ("Wh", 1 / 3600), ("kWh", 1 / 3.6e6), ("Wmin", 1 / 60)],
)
def test_a_counter_of_64_bits_keeps_its_joules_in_any_unit(unit: str, scale: float) -> None:
    begun = Decimal(2) ** 63
    lines = raw_lines(Device(BUSY), every(1.0), energy_unit=unit).splitlines()
    data = []
    for line in map(json.loads, lines):
        if "sample" in line:
            joules = BUSY.between_j(START - 100, line["sample"]["unix_s"])
            del line["sample"]["power"]
            line["sample"]["energy"] = f"{begun / 2 + Decimal(joules) * Decimal(scale):.9f}"
        data.append(json.dumps(line).encode())
    cut = window(remote_reading("http", b"\n".join(data) + b"\n"))
    assert abs(cut.total_j - TRUTH_J) <= cut.total_uncertainty_j < 0.05 * TRUTH_J


def test_a_counter_wraps_where_it_is_said_to_and_was_reset_anywhere_else() -> None:
    def with_counter(change: Any, **how: Any) -> Reading:
        lines = [json.loads(x) for x in raw_lines(Device(BUSY), every(1.0), **how).splitlines()]
        for line in lines:
            if "sample" in line:
                line["sample"].pop("power")
                line["sample"]["energy"] = str(change(int(line["sample"]["energy"])))
        return remote_reading("http", b"\n".join(json.dumps(x).encode() for x in lines) + b"\n")

    first = int(Device(BUSY).energy_j(START - 4.3))
    wraps = 10_000
    reading = with_counter(lambda joules: (joules - first) % wraps, wraps_at=wraps)
    assert reading.curves[0].wraps == 1
    cut = window(reading)
    assert abs(cut.total_j - TRUTH_J) <= cut.total_uncertainty_j
    (why,) = fatal(with_counter(lambda joules: (joules - first) % wraps))
    assert "reset" in why or "goes back" in why


def test_polls_that_fail_are_reported_and_a_gap_widens_the_uncertainty() -> None:
    whole = window(read(Device(BUSY), quantities=["power"]))
    moments = [t for t in every(1.0) if not 20 < t - START < 40]
    data = raw_lines(Device(BUSY), moments, quantities=["power"])
    error = {"error": {"meter": "plug", "unix_s": START + 30, "error": "http meter plug is gone"}}
    reading = remote_reading("http", data + json.dumps(error).encode() + b"\n")
    gap = window(reading)
    assert [n.message for n in reading.notes] == [
        "1 of 56 readings failed, the first: http meter plug is gone"
    ]
    assert abs(gap.total_j - TRUTH_J) <= gap.total_uncertainty_j
    assert gap.total_uncertainty_j > 2 * whole.total_uncertainty_j


def test_readings_that_end_before_the_window_are_fatal_at_the_edge() -> None:
    cut = window(read(Device(BUSY), every(1.0, -4.3, 50.0)))
    assert [n.kind for n in cut.notes if n.fatal] == ["edge"]


def test_a_value_that_stands_still_is_stale_where_the_meter_resolves_more() -> None:
    lines = [json.loads(x) for x in raw_lines(Device(BUSY), every(1.0)).splitlines()]
    for key, value, is_fatal in (
        ("power", "131.7", True), ("power", "130", False), ("energy", "123456", True),
    ):  # fmt: skip
        for line in lines:
            if "sample" in line:
                line["sample"] = {
                    k: v for k, v in line["sample"].items() if k not in ("power", "energy")
                } | {key: value}
        data = b"\n".join(json.dumps(x).encode() for x in lines) + b"\n"
        found = [n.fatal for n in remote_reading("http", data).notes if n.kind == "stale"]
        assert found == [is_fatal], (key, value)


def test_an_unknown_or_stepping_clock_is_fatal() -> None:
    lines = [json.loads(x) for x in raw_lines(Device(BUSY), every(1.0)).splitlines()]

    def reasons(change: Any) -> list[str]:
        changed = [change(json.loads(json.dumps(x))) for x in lines]
        data = b"\n".join(json.dumps(x).encode() for x in changed if x is not None) + b"\n"
        return fatal(remote_reading("http", data))

    def host_steps(line: Any) -> Any:
        if line.get("clock", {}).get("unix_s", 0) > START + 60:
            line["clock"]["ahead_s"] = 0.5
        return line

    def controller_steps(line: Any) -> Any:
        if line.get("sample", {}).get("unix_s", 0) > START + 30:
            line["sample"]["mono_s"] += 1.0
        return line

    assert reasons(lambda line: line) == []
    assert "not known" in reasons(lambda line: None if "clock" in line else line)[0]
    assert "the host's clock against the controller's moved by 0.500 s" in reasons(host_steps)[0]
    assert "the controller's clock moved by 1.000 s" in reasons(controller_steps)[0]


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[]\n{}\n", b'{"sample": {"meter": "plug", "unix_s": 1}}\n']
)
def test_a_file_without_readings_says_so_and_yields_no_curve(data: bytes) -> None:
    reading = remote_reading("http", data)
    assert reading.curves == ()
    assert fatal(reading) == ["http.jsonl has no readings of a meter"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.dictionaries(
                st.sampled_from(["settings", "clock", "sample", "error", "server"]),
                st.recursive(
                    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.integers(),
                    lambda inner: st.dictionaries(
                        st.sampled_from(
                            ["meter", "unix_s", "trip_s", "ahead_s", "power", "energy",
                             "power_unit", "energy_unit", "interval_s", "wraps_at", "mono_s"]
                        ),
                        inner,
                    ),
                    max_leaves=6,
                ),
                max_size=2,
            ).map(lambda line: json.dumps(line).encode()),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_no_file_makes_the_reader_fail(lines: list[bytes]) -> None:
    whole = raw_lines(Device(BUSY), every(4.0))
    remote_reading("http", whole + b"\n".join(lines))
