"""Joules against simulated machines of known truth, closed forms and the published logs."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import joules as measured_joules
from tests.support.simulated_rapl import START_S, Level, Machine, Meter
from tests.support.study import SAMPLE
from wattbench.analysis.meters.counters import infer_unit, unwrap
from wattbench.analysis.meters.curves import Curve, add, curves, integrate_power
from wattbench.analysis.meters.energibridge import read
from wattbench.analysis.meters.window import split
from wattbench.worker.agent import limits


def curve_of(data: bytes, domain: str) -> Curve:
    return next(c for c in curves(read(data)) if c.domain == domain)


# ---------------------------------------------------------------------------------------- counters


@settings(max_examples=150)
@given(
    st.integers(14, 16),
    st.floats(0.0, 0.999),
    st.lists(st.floats(0.5, 250.0), min_size=20, max_size=60),
    st.floats(0.2, 30.0),
)
def test_a_walk_with_wraps_gives_the_true_energy(
    exponent: int, start: float, watts: list[float], interval_s: float
) -> None:
    unit = 2.0**-exponent
    span = unit * 2.0**32
    truth = np.concatenate([[0.0], np.cumsum(np.array(watts) * interval_s)])
    register = np.mod(np.floor((truth + start * span) / unit), 2.0**32) * unit
    whole = unwrap(register, span_j=span, time_s=np.arange(truth.size) * interval_s)
    # A jump in power beyond what the walk showed before would be refused, never miscounted.
    if not whole.resets:
        assert whole.values_j[-1] == pytest.approx(truth[-1], abs=2 * unit)
        assert whole.wraps == int((truth[-1] + start * span) // span)
    assert np.all(np.diff(whole.values_j) >= 0)


@pytest.mark.parametrize("exponent", [14, 15, 16])
def test_the_range_is_inferred_from_the_values_steps(exponent: int) -> None:
    meter = Meter(unit_j=2.0**-exponent, start_j=2.0 ** (32 - exponent) - 100.0)
    machine = Machine([Level("a", 6.0, 60.0)], exponent)
    curve = curve_of(meter.log(machine, 3), "package")
    assert curve.wraps == 1
    times = curve.time_s[[0, -1]] - curve.sample_s / 2
    assert curve.total_j == pytest.approx(np.diff(machine.energy_j(times))[0], rel=0.02)


def test_several_wraps_in_one_log_are_all_corrected() -> None:
    generator = np.random.default_rng(5)
    truth = np.cumsum(generator.uniform(300.0, 4000.0, size=200)) + 60_000.0
    register = np.mod(np.floor(truth * 2**16), 2**32) / 2**16
    whole = unwrap(register, time_s=np.arange(200) * 10.0)
    assert whole.wraps == int(truth[-1] // 65536) - int(truth[0] // 65536) > 3
    assert whole.span_j == 65536.0
    assert whole.values_j[-1] == pytest.approx(truth[-1] - truth[0], abs=1e-4)


@pytest.mark.parametrize("digits", [0, 1, 2])
def test_rounded_values_take_the_likeliest_range_and_say_so(digits: int) -> None:
    truth = 262_000.0 + 500.0 * np.arange(12)
    register = np.round(np.mod(truth, 262_144.0), digits)
    whole = unwrap(register, time_s=np.arange(12) * 10.0)
    assert whole.values_j[-1] == pytest.approx(5500.0, abs=0.2)
    assert whole.wraps == 1
    assert "likeliest" in whole.notes[0].message


@pytest.mark.parametrize("before", [1000.0, 90_000.0, 200_000.0])
def test_a_counter_that_starts_again_is_a_reset_not_a_wrap(before: float) -> None:
    values = np.concatenate([before + 10.0 * np.arange(10), 3.0 + 10.0 * np.arange(10)])
    whole = unwrap(values, span_j=2.0**18, time_s=np.arange(20) * 0.2)
    assert (whole.wraps, whole.resets) == (0, 1)
    assert [n.kind for n in whole.notes if n.fatal] == ["reset"]


def test_a_read_out_of_order_is_neither_wrap_nor_reset() -> None:
    values = np.array([10.0, 12.0, 14.0, 13.99, 16.0, 18.0])
    whole = unwrap(values, span_j=2.0**18, time_s=np.arange(6) * 0.2)
    assert (whole.wraps, whole.resets) == (0, 0)
    assert [n.kind for n in whole.notes] == ["backwards"]
    assert whole.values_j.tolist() == [0.0, 2.0, 4.0, 4.0, 6.0, 8.0]


def test_a_gap_that_may_hide_a_whole_turn_is_fatal() -> None:
    rows = ["Delta,Time,PACKAGE_ENERGY (J)"]
    times = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 4000]
    for time in times:
        value = int((1000.0 + 100.0 * time) * 2**14 + time) % 2**32 / 2**14
        rows.append(f"1000,{time * 1000},{value!r}")
    curve = curve_of(("\n".join(rows) + "\n").encode(), "package")
    assert any(n.kind == "gap" and n.fatal and n.line == 13 for n in curve.notes)


def test_the_unit_is_not_guessed_from_too_few_values() -> None:
    assert infer_unit(np.array([0.0, 1.0, 2.0])) is None
    assert infer_unit(np.arange(1, 30) / 2**14) == 2.0**-14
    assert infer_unit(np.arange(1, 30) / 10.0) is None


# ------------------------------------------------------------------------------------ rows, domains


@pytest.mark.parametrize("seed", range(5))
def test_from_row_to_row_the_error_is_below_a_thousandth(seed: int) -> None:
    machine = Machine([Level("a", 8.0, 25.0), Level("b", 6.0, 110.0)], seed)
    meter = Meter(start_j=262_144.0 - 200.0)
    times, moments, _ = meter.moments(machine, seed)
    data = read(meter.log(machine, seed))
    found = measured_joules.between_rows(data)
    truth = float(np.diff(machine.energy_j([moments[0], moments[-1]]))[0])
    assert found["package"] == (pytest.approx(truth, rel=1e-3), 1)
    assert found["dram"][0] == pytest.approx(truth * 0.1, rel=1e-3)
    # and between rows inside, whose stamps are a sample's length off
    curve = curve_of(meter.log(machine, seed), "package")
    first, last = 5, len(times) - 6
    inside = split(curve, [times[first], times[last]])
    truth = float(np.diff(machine.energy_j([times[first], times[last]]))[0])
    assert inside.total_j == pytest.approx(truth, rel=1e-3)


def test_domains_stay_apart_and_what_is_inside_the_package_is_never_added() -> None:
    machine = Machine([Level("a", 4.0, 50.0)], 2)
    samples = read(Meter().log(machine, 2))
    domains = measured_joules.in_window(samples, machine.begin_s + 0.1, machine.end_s - 0.1)
    by_name = {d.name: d.energy_j for d in domains}
    assert set(by_name) == {"package", "dram", "pp0"}
    assert by_name["pp0"] == pytest.approx(0.6 * by_name["package"], rel=0.01)
    assert by_name["dram"] == pytest.approx(0.1 * by_name["package"], rel=0.01)
    assert not any(d.counted for d in domains)


def test_curves_are_added_only_over_the_same_rows() -> None:
    one = Curve("package", "m", np.arange(3.0), np.array([0.0, 1.0, 2.0]), ("a",), 1)
    both = add("m", "package", [one, one])
    assert both is not None
    assert both.energy_j.tolist() == [0.0, 2.0, 4.0]
    assert (both.wraps, both.sources) == (2, ("a", "a"))
    other = Curve("package", "m", np.arange(3.0) + 1, np.array([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="same rows"):
        add("m", "package", [one, other])


def test_published_logs_give_the_joules_that_plain_arithmetic_gives() -> None:
    files = sorted(SAMPLE.glob("*/results/*.csv"))
    seen = 0
    for file in files:
        table = list(csv.reader(file.read_text().splitlines()))
        found = measured_joules.between_rows(read(file.read_bytes()))
        for domain, name in (("package", "PACKAGE"), ("dram", "DRAM"), ("pp0", "PP0")):
            at = table[0].index(f"{name}_ENERGY (J)")
            values = [float(row[at]) for row in table[1:]]
            joules, wraps = values[-1] - values[0], 0
            for earlier, later in itertools.pairwise(values):
                if later < earlier:
                    joules, wraps = joules + 262_144.0, wraps + 1
            assert found[domain] == (pytest.approx(joules, abs=1e-6), wraps), file.name
            seen += wraps
    assert seen > 0  # the cut holds wraps; without one the test would show little


# ------------------------------------------------------------------------------------------- edges


def coverage(
    seeds: range, interval_s: float, *, shortest: float, gpu: bool = False, noise: float = 0.03
) -> tuple[float, float, float]:
    """Share of windows and of phases whose truth lies in the interval; median relative half-width."""
    windows: list[bool] = []
    phases: list[bool] = []
    widths: list[float] = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        levels = [
            Level(
                f"p{i}",
                float(random.uniform(shortest, 12 * interval_s)),
                float(random.uniform(8, 150)),
                noise,
            )
            for i in range(random.integers(2, 6))
        ]
        machine = Machine(levels, seed)
        card = Machine(levels, seed + 1, idle_w=20.0) if gpu else None
        meter = Meter(
            interval_s=interval_s,
            start_j=float(random.uniform(0, 262_144)),
            sample_s=float(random.uniform(0.001, 0.02 if gpu else 0.005)),
        )
        curve = curve_of(meter.log(machine, seed, card), "gpu0" if gpu else "package")
        truth = card or machine
        bounds = truth.edges_s.copy()
        bounds[0] += random.uniform(0.02, 0.05) * min(1.0, levels[0].seconds)
        bounds[-1] -= random.uniform(0.0, 0.02) * min(1.0, levels[-1].seconds)
        parts = split(curve, bounds)
        assert not parts.notes
        true = np.diff(truth.energy_j(bounds))
        assert parts.energy_j.sum() == pytest.approx(parts.total_j)
        windows.append(abs(true.sum() - parts.total_j) <= parts.total_uncertainty_j)
        phases += list(np.abs(true - parts.energy_j) <= parts.uncertainty_j)
        widths.append(parts.total_uncertainty_j / parts.total_j)
    return float(np.mean(windows)), float(np.mean(phases)), float(np.median(widths))


@pytest.mark.parametrize(
    ("interval_s", "shortest", "gpu", "noise", "width"),
    [
        (0.2, 0.6, False, 0.03, 0.006),
        (0.2, 0.05, False, 0.03, 0.008),  # phases shorter than an interval
        (0.2, 0.6, False, 0.15, 0.02),  # a wild load
        (1.0, 3.0, False, 0.03, 0.008),
        # power that steps anywhere between samples, and may be the mean of a second for all we know
        (0.2, 0.6, True, 0.03, 0.16),
    ],
)
def test_half_widths_cover_the_truth_and_stay_useful(
    interval_s: float, shortest: float, gpu: bool, noise: float, width: float
) -> None:
    windows, phases, typical = coverage(
        range(120), interval_s, shortest=shortest, gpu=gpu, noise=noise
    )
    assert windows >= 0.95
    assert phases >= 0.95
    assert typical <= width


@pytest.mark.slow
@pytest.mark.parametrize("interval_s", [0.1, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("shortest", [0.05, 3.0])
@pytest.mark.parametrize("gpu", [False, True])
def test_half_widths_cover_the_truth_over_a_thousand_windows(
    interval_s: float, shortest: float, gpu: bool
) -> None:
    shortest = min(shortest, 3 * interval_s)
    windows, phases, _ = coverage(range(1000, 2000), interval_s, shortest=shortest, gpu=gpu)
    # 0.95 less two standard errors of a share over 1000 windows.
    assert windows >= 0.95 - 2 * (0.95 * 0.05 / 1000) ** 0.5
    assert phases >= 0.95


def short_window(kind: str, interval_s: float, seed: int) -> tuple[float, float, float]:
    """Truth, estimate and half-width (J) of one short window as the wrapper inside the meter makes it.

    The wrapper starts, the host waits some intervals, the workload runs, the host waits again. An idle
    trial is a container's start, a pause, and its end, whose edges no workload marks.
    """
    random = np.random.default_rng(seed)
    idle_w = float(random.uniform(5.0, 40.0))

    def level(name: str, shortest: float, longest: float, more_w: float) -> Level:
        watts = idle_w + float(random.uniform(0.3, 1.0)) * more_w
        return Level(name, float(random.uniform(shortest, longest)), watts)

    wait = Level("wait", limits.EDGE_INTERVALS * interval_s, idle_w)
    assert wait.seconds <= limits.EDGE_WAIT_S
    if kind == "idle":
        work = [
            level("start", 0.2, 0.6, 30.0),
            Level("idle", float(random.uniform(3.5, 6.0)), idle_w),
        ]
    else:
        work = [level("start", 0.3, 1.0, 20.0), level("steady", 3.0, 6.0, 120.0)]
    work.append(level("stop", 0.1, 0.5, 30.0))
    after = [level("counters", 0.001, 0.004, 15.0), wait, level("record", 0.02, 0.05, 15.0)]
    machine = Machine([level("wrapper", 0.08, 0.25, 20.0), wait, *work, *after], seed, idle_w)
    edges = machine.edges_s[2 : 3 + len(work)]
    bounds = edges[[0, -1]] if kind == "idle" else edges
    meter = Meter(
        interval_s, start_j=float(random.uniform(0, 262_144)),
        sample_s=float(random.uniform(0.001, 0.005)),
    )  # fmt: skip
    parts = split(curve_of(meter.log(machine, seed), "package"), bounds)
    assert not parts.notes
    truth = float(np.diff(machine.energy_j(bounds[[0, -1]]))[0])
    return truth, parts.total_j, parts.total_uncertainty_j


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval_s", "bias_pct", "width"),
    [
        (0.2, 0.05, 0.002),
        (0.5, 0.06, 0.0045),
        (1.0, 0.08, 0.0095),
        (2.0, 0.15, 0.014),
        (5.0, 0.2, 0.03),
    ],
)
@pytest.mark.parametrize("kind", ["idle", "work"])
def test_short_windows_have_no_bias_and_their_half_widths_cover_the_truth(
    kind: str, interval_s: float, bias_pct: float, width: float
) -> None:
    count = 600
    truth, found, half_j = np.array([short_window(kind, interval_s, s) for s in range(count)]).T
    assert abs(np.mean(found / truth - 1.0)) <= bias_pct / 100.0
    covered = np.mean(np.abs(found - truth) <= half_j)
    # Two standard errors of a share over 600 windows either side.
    assert (
        0.95 - 2.0 * (0.95 * 0.05 / count) ** 0.5
        <= covered
        <= 0.99 + 2.0 * (0.99 * 0.01 / count) ** 0.5
    )
    assert np.median(half_j / truth) <= width


def test_a_step_at_a_known_edge_is_placed_better_than_by_a_straight_line() -> None:
    # 10 W, then 100 W from 0.95 s on; rows every second: a straight line gives 92.5 J × 0.05.
    time = START_S + np.arange(8.0)
    energy = np.where(time - START_S <= 0.95, 10.0 * (time - START_S), 0.0)
    late = time - START_S > 0.95
    energy[late] = 9.5 + 100.0 * (time[late] - START_S - 0.95)
    # two rows before the edge, so that the idle side has a whole interval
    time = np.concatenate([[START_S - 2, START_S - 1], time])
    energy = np.concatenate([[-20.0, -10.0], energy]) + 20.0
    curve = Curve("package", "m", time, energy, sample_s=0.0)
    edge, end = START_S + 0.95, START_S + 6.5
    parts = split(curve, [edge, end])
    assert parts.total_j == pytest.approx(100.0 * (6.5 - 0.95), abs=0.05)


def test_parts_of_no_length_have_no_energy() -> None:
    curve = Curve("package", "m", START_S + np.arange(5.0), 10.0 * np.arange(5.0))
    parts = split(curve, [START_S + 1.3, START_S + 1.3, START_S + 2.6, START_S + 2.6])
    assert parts.energy_j.tolist() == pytest.approx([0.0, 13.0, 0.0])
    assert parts.uncertainty_j[0] == parts.uncertainty_j[2] == 0.0


def test_a_window_that_the_rows_do_not_cover_is_fatal() -> None:
    curve = Curve("package", "m", START_S + np.arange(5.0), 10.0 * np.arange(5.0))
    late = split(curve, [START_S + 1.0, START_S + 9.0])
    assert [(n.kind, n.fatal) for n in late.notes] == [("edge", True)]
    slightly = split(curve, [START_S + 1.0, START_S + 4.5])
    assert [(n.kind, n.fatal) for n in slightly.notes] == [("edge", False)]
    assert slightly.total_j == pytest.approx(35.0)
    assert slightly.total_uncertainty_j >= 5.0


@settings(max_examples=100)
@given(
    st.lists(st.floats(0.0, 500.0), min_size=2, max_size=30),
    st.lists(st.floats(-1.0, 12.0), min_size=2, max_size=8),
)
def test_parts_always_sum_to_the_whole_and_are_never_negative(
    watts: list[float], cuts: list[float]
) -> None:
    time = START_S + np.linspace(0.0, 10.0, len(watts) + 1)
    energy = np.concatenate([[0.0], np.cumsum(watts)])
    bounds = sorted(START_S + c for c in cuts)
    for power in (None, np.array([0.0, *watts])):
        if power is None:
            curve = Curve("package", "m", time, energy)
        else:
            integral, doubt = integrate_power(time, power)
            curve = Curve("gpu0", "m", time, integral, power_w=power, doubt_j=doubt)
        parts = split(curve, bounds)
        assert np.all(parts.energy_j >= 0.0)
        assert parts.energy_j.sum() == pytest.approx(parts.total_j)
        assert np.all(np.isfinite(parts.uncertainty_j))


# ------------------------------------------------------------------------------------------- power


def test_power_is_integrated_by_trapezoids_over_time() -> None:
    time = np.array([0.0, 1.0, 3.0, 4.0])
    energy, doubt = integrate_power(time, np.array([10.0, 20.0, 20.0, 0.0]))
    assert energy.tolist() == [0.0, 15.0, 55.0, 65.0]
    # Three steps of 10, 0 and 20 W: that the second is none may be chance.
    swing_w = (500 / 3) ** 0.5 * (1 + 2 / 3)
    assert doubt == pytest.approx(swing_w * np.array([1.0, 2.0, 1.0]) / 12**0.5)


def test_a_single_step_of_power_makes_its_neighbourhood_uncertain() -> None:
    _, doubt = integrate_power(np.arange(41.0), np.where(np.arange(41) > 20, 300.0, 50.0))
    assert doubt[20] == pytest.approx(250 / 12**0.5)
    assert (doubt > 0).nonzero()[0].tolist() == list(range(17, 25))


@pytest.mark.parametrize("window_s", [(0.8, 1.5), (2.0, 4.0)])
@pytest.mark.parametrize("period_s", [(0.4, 1.0), (1.0, 3.0)])
def test_half_widths_of_integrated_power_cover_a_swinging_load(
    window_s: tuple[float, float], period_s: tuple[float, float]
) -> None:
    covered = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        window, period, swing = (random.uniform(*r) for r in (window_s, period_s, (5, 60)))
        phase = random.uniform(0, 2 * np.pi)
        turn = 2 * np.pi / period
        true = 100 * window - swing / turn * (np.cos(turn * window + phase) - np.cos(phase))
        time = random.uniform(-0.2, 0.0) + 0.2 * np.arange(window // 0.2 + 3)
        watts = 100 + swing * np.sin(turn * time + phase)
        energy, doubt = integrate_power(time, watts)
        parts = split(Curve("gpu0", "m", time, energy, power_w=watts, doubt_j=doubt), [0.0, window])
        covered.append(abs(parts.total_j - true) <= parts.total_uncertainty_j)
    assert np.mean(covered) >= 0.95


def test_a_gap_makes_integrated_power_uncertain() -> None:
    power = 100.0 + 50.0 * np.sin(np.arange(101))
    dense = np.arange(101) * 0.2
    gappy = np.where(np.arange(101) > 50, dense + 5.0, dense)
    doubt = [float(np.sqrt(np.sum(integrate_power(t, power)[1] ** 2))) for t in (dense, gappy)]
    assert doubt[1] > doubt[0] + 100.0


def gpu_log(watts: list[int], usage: list[int]) -> bytes:
    rows = ["Delta,Time,GPU0_POWER (mWatts),GPU0_USAGE"]
    rows += [
        f"200,{200 * i},{w * 1000},{u}" for i, (w, u) in enumerate(zip(watts, usage, strict=True))
    ]
    return ("\n".join(rows) + "\n").encode()


def test_power_that_repeats_while_the_load_changes_is_stale() -> None:
    watts = [20] * 3 + [250] * 17
    curve = curve_of(gpu_log(watts, [0] * 3 + [98] * 7 + [0] * 10), "gpu0")
    assert [(n.kind, n.line, n.fatal) for n in curve.notes] == [("stale", 5, True)]


@pytest.mark.parametrize(
    ("watts", "usage"),
    [
        ([20] * 20, [0, 1] * 10),  # idle at a constant power
        ([20, 20, 250, 250] * 5, [0, 0, 98, 98] * 5),  # refreshed at its own pace
        ([250] * 20, [97, 99] * 10),  # at the power limit
    ],
)
def test_power_that_repeats_under_a_steady_load_is_not_stale(
    watts: list[int], usage: list[int]
) -> None:
    assert curve_of(gpu_log(watts, usage), "gpu0").notes == ()


@pytest.mark.parametrize(
    ("watts", "usage", "fatal"),
    [
        ([187.342] * 40, [97, 99] * 20, [True]),  # no GPU draws the same to the mW for 8 s
        ([187.0] * 40, [97, 99] * 20, [False]),  # a sensor of whole watts might show just that
        ([187.0] * 40 + [187.4] * 5, [97, 99] * 22 + [97], [True]),  # this one resolves more
        ([187.342] * 40, [3, 0] * 20, []),  # idle
        ([187.342 + 0.001 * (i % 2) for i in range(40)], [97, 99] * 20, []),
    ],
    ids=["frozen", "coarse", "not coarse", "idle", "live"],
)
def test_power_that_is_frozen_while_the_gpu_works_steadily_is_stale(
    watts: list[float], usage: list[int], fatal: list[bool]
) -> None:
    notes = curve_of(gpu_log(watts, usage), "gpu0").notes
    assert [n.fatal for n in notes if n.kind == "stale"] == fatal


@settings(max_examples=200)
@given(
    st.lists(st.floats(5.0, 400.0), min_size=3, max_size=3),
    st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=2),
    st.floats(0.0, 0.2),
)
@example([5.0, 400.0, 5.0], [0.0, 0.0], 1e-311)
def test_inner_edges_that_are_off_within_their_doubt_never_leave_the_uncertainty(
    watts: list[float], shares: list[float], doubt_s: float
) -> None:
    """Three phases of constant power whose inner edges another clock has marked."""
    marks = np.array([0.0, 5.0, 12.0, 20.0])
    time_s = np.arange(0.0, 20.01, 0.1)
    joules = np.interp(time_s, marks, np.concatenate([[0.0], np.cumsum(np.diff(marks) * watts)]))
    curve = Curve("package", "powercap", time_s, joules, sample_s=0.0, quantum_j=0.0)
    seen = marks + np.array([0.0, shares[0] * doubt_s, shares[1] * doubt_s, 0.0])
    found, plain = split(curve, seen.tolist(), doubt_s), split(curve, seen.tolist())
    truth = np.diff(marks) * watts
    assert np.all(np.abs(found.energy_j - truth) <= found.uncertainty_j + 1e-6)
    assert found.total_j == plain.total_j
    assert found.total_uncertainty_j == plain.total_uncertainty_j
    assert np.all(found.uncertainty_j >= plain.uncertainty_j)
