"""Courses, regressions, facts and places, against closed forms and simulations of known truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.stats.results import PairVerdict, Settings
from wattbench.analysis.storage import locations
from wattbench.analysis.trends import levels
from wattbench.analysis.trends.findings import regression
from wattbench.analysis.trends.level_changes import (
    ALPHA,
    ALPHA_TONIGHT,
    Change,
    follow,
    persistence,
)
from wattbench.analysis.trends.series import Track, by_host
from wattbench.analysis.trends.side_by_side import differences

SERIES = 40


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def ar1(n: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=n + 50)
    for i in range(1, len(x)):
        x[i] = rho * x[i - 1] + math.sqrt(1 - rho**2) * x[i]
    return x[50:]


# The course of one series -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_named_on_its_first_night_with_its_size(seed: int) -> None:
    x = noise(365, seed)
    x[200:] += 6.0
    (change,) = follow(x, SERIES).changes
    assert change.index == 200
    assert change.earliest <= 200 <= change.latest
    assert change.settled
    assert (change.before, change.after) == (200, 165)
    assert change.shift == pytest.approx(x[200:].mean() - x[:200].mean())


def test_the_interval_of_a_size_is_students_of_two_samples() -> None:
    x = noise(25, 3)
    x[12:] += 9.0
    (change,) = follow(x).changes
    expected = stats.ttest_ind(x[change.index :], x[: change.index]).confidence_interval(0.95)
    assert (change.lower, change.upper) == pytest.approx((expected.low, expected.high))


def test_intervals_of_sizes_cover_the_truth() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        x = rng.normal(size=60)
        x[30:] += 5.0
        change = next(c for c in follow(x).changes if abs(c.index - 30) <= 3)
        covered += change.lower <= 5.0 <= change.upper
    assert covered / 400 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)


def test_plausible_nights_hold_the_true_one() -> None:
    rng = np.random.default_rng(12)
    held = 0
    for _ in range(300):
        x = rng.normal(size=80)
        x[40:] += 2.5
        held += any(c.earliest <= 40 <= c.latest for c in follow(x).changes)
    assert held / 300 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.parametrize("n", [6, 9, 14, 30])
def test_steady_series_of_any_length_seldom_name_a_change(n: int) -> None:
    rng = np.random.default_rng(n)
    courses = [follow(rng.normal(size=n)) for _ in range(600)]
    settled = sum(any(c.settled for c in k.changes) for k in courses) / 600
    assert settled <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 600)
    tonight = sum(any(not c.settled for c in k.changes) for k in courses) / 600
    assert tonight <= ALPHA_TONIGHT + 3 * math.sqrt(ALPHA_TONIGHT / 600)


def test_a_steady_year_of_many_series_names_no_change() -> None:
    rng = np.random.default_rng(5)
    found = [follow(rng.normal(size=365), SERIES).changes for _ in range(SERIES)]
    assert not any(found)


def test_nights_that_resemble_their_neighbours_do_not_look_like_changes() -> None:
    rng = np.random.default_rng(6)
    wrong = sum(bool(follow(ar1(365, 0.4, rng), SERIES).changes) for _ in range(100))
    assert wrong <= 3


def test_persistence_is_estimated_despite_steps() -> None:
    rng = np.random.default_rng(7)
    estimates = []
    for _ in range(60):
        x = ar1(365, 0.5, rng)
        x[150:] += 8.0
        estimates.append(persistence(x) / (1 - 30 / 365))  # without its pull to 0
    assert np.mean(estimates) == pytest.approx(0.5, abs=0.08)


def test_a_large_step_is_reported_on_its_first_night_and_confirmed_on_its_third() -> None:
    x = noise(100, 1)
    x[80:] += 9.0
    assert not follow(x[:80], SERIES).changes
    for nights in (1, 2):
        (change,) = follow(x[: 80 + nights], SERIES).changes
        assert (change.index, change.settled, change.after) == (80, False, nights)
    (change,) = follow(x[:83], SERIES).changes
    assert (change.index, change.settled) == (80, True)


def test_a_bad_night_or_two_is_an_excursion_and_no_level() -> None:
    x = noise(60, 2)
    x[30:32] += 30.0
    course = follow(x, SERIES)
    assert not course.changes
    assert course.excursions == (30, 31)
    assert course.sd == pytest.approx(1.0, abs=0.3)


def test_too_few_nights_say_so() -> None:
    course = follow(np.array([0.0, 0.1, 5.0]))
    assert not course.changes
    assert course.reason == "3 nights; at least 6 are needed for a change of level"


def test_equal_values_have_no_change_and_a_clean_step_of_them_has_one() -> None:
    assert not follow(np.zeros(40)).changes
    (change,) = follow(np.repeat([0.0, 1.0], 20)).changes
    assert (change.index, change.shift) == (20, 1.0)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e3, 1e3, allow_nan=False), max_size=40),
    st.floats(0.1, 10), st.floats(-50, 50),
)  # fmt: skip
def test_courses_are_finite_and_follow_shift_and_scale(
    values: list[float], scale: float, shift: float
) -> None:
    x = np.round(np.array(values), 3)
    course = follow(x)
    moved = follow(x * 4.0)  # a power of two: exact
    assert [c.index for c in moved.changes] == [c.index for c in course.changes]
    assert len(course.levels) == len(x)
    assert np.isfinite(course.levels).all()
    assert all(0 < c.index < len(x) for c in course.changes)
    assert all(math.isfinite(v) for c in course.changes for v in (c.shift, c.lower, c.upper, c.p))
    assert all(c.lower <= c.shift <= c.upper for c in course.changes)


# Regressions ------------------------------------------------------------------------------------


def track_of(*shifts: float) -> Track:
    """A track whose levels move by these logs, ten nights each."""
    x = np.repeat(np.cumsum([0.0, *shifts]), 10)
    changes = tuple(
        Change(10 * (i + 1), 10 * (i + 1), 10 * (i + 1), s, s - 1e-3, s + 1e-3, 10, 10, 1e-6)
        for i, s in enumerate(shifts)
    )
    course = follow(x)
    course = type(course)(x, changes, x, 0.001)
    return Track("h", "i", tuple(range(len(x))), (None,) * len(x), course)


def test_a_rise_that_stands_is_a_regression() -> None:
    rise = regression(track_of(0.02), 1.0)
    assert rise is not None
    assert rise.now_pct == pytest.approx(100 * math.expm1(0.02))


@pytest.mark.parametrize(
    "shifts",
    [
        (0.02, -0.02),  # made good
        (0.02, -0.05),  # more than made good
        (0.005,),  # below the limit
        (-0.03,),  # an improvement
    ],
)
def test_what_does_not_stand_or_is_small_is_none(shifts: tuple[float, ...]) -> None:
    assert regression(track_of(*shifts), 1.0) is None


def test_a_lost_improvement_is_a_regression() -> None:
    rise = regression(track_of(-0.03, 0.03), 1.0)
    assert rise is not None
    assert rise.change.index == 20


def test_creeping_adds_up_and_the_largest_step_is_named() -> None:
    rise = regression(track_of(0.004, 0.006, 0.004), 1.0)
    assert rise is not None
    assert (rise.change.index, rise.steps) == (20, 3)


# Levels and baselines ---------------------------------------------------------------------------


def rows(
    joules: dict[str, list[float]], run: int = 0, host: str = "h", scope: str = "package"
) -> list[dict[str, object]]:
    return [
        {
            "run": run, "host": host, "kind": "control" if image == "control" else "workload",
            "image": image, "digest": f"d-{image}", "status": "valid", "energy_j": value,
            "energy_scope": scope, "energy_source": "measured", "package_j": value, "dram_j": 2.0,
            "gpu_j": np.nan, "block": block, "images_inferred": 10,
        }
        for image, values in joules.items()
        for block, value in enumerate(values, start=1)
    ]  # fmt: skip


def frame(*parts: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part])


def test_a_level_is_the_median_over_the_control_workloads_median() -> None:
    table = frame(rows({"a": [100, 120, 140], "b": [200, 200, 900], "control": [50, 60, 70]}))
    trials, baselines = levels.prepare(table, "a")
    assert [b.name for b in baselines] == ["control"]
    found = levels.of_runs(trials, baselines).set_index("image")["log_ratio"]
    assert found["a"] == pytest.approx(math.log(120 / 60))
    assert found["b"] == pytest.approx(math.log(200 / 60))


def test_without_control_the_reference_is_the_baseline_and_has_no_ratio() -> None:
    table = frame(rows({"a": [100, 120, 140], "b": [200, 240, 280]}))
    trials, baselines = levels.prepare(table, "a")
    found = levels.of_runs(trials, baselines).set_index("image")["log_ratio"]
    assert baselines[0].name == "a"
    assert pd.isna(found["a"])
    assert found["b"] == pytest.approx(math.log(2))


def test_joules_are_compared_over_common_domains_only() -> None:
    table = frame(
        rows({"a": [10.0], "b": [20.0]}, 0, scope="package"),
        rows({"a": [12.0], "b": [24.0]}, 1, scope="package+dram"),
    )
    table.loc[table["run"] == 1, "package_j"] -= 2.0
    trials, baselines = levels.prepare(table, "a")
    assert baselines[0].scope == "package"
    assert baselines[0].note == "compared over package only: not every run has dram"
    assert np.exp(trials["log"]).tolist() == pytest.approx([10, 20, 10, 22])


def test_runs_with_too_few_trials_of_an_image_are_left_out_and_say_so() -> None:
    parts = [rows({"a": [1.0] * 10, "b": [2.0] * 10}, run) for run in range(4)]
    parts.append(rows({"a": [1.0] * 10, "b": [3.0] * 2}, 4))
    trials, baselines = levels.prepare(frame(*parts), "a")
    found = levels.of_runs(trials, baselines)
    last = found[(found["run"] == 4) & (found["image"] == "b")].iloc[0]
    assert last["left_out"] == "too few trials"
    assert pd.isna(last["log_ratio"])


def test_a_host_without_control_and_reference_has_no_baseline() -> None:
    trials, baselines = levels.prepare(frame(rows({"b": [1.0, 2.0]})), "a")
    (host,) = by_host(levels.of_runs(trials, baselines), baselines, 1.0)
    assert baselines[0].reason == (
        "neither a control workload nor a valid trial of the reference a"
    )
    assert host.tracks == ()


def test_a_move_of_every_image_is_the_references_own() -> None:
    rng = np.random.default_rng(3)
    parts = []
    for run in range(40):
        level = {"a": 5.0 - (0.04 if run >= 20 else 0.0), "b": 5.1, "c": 5.3}
        parts.append(
            rows(
                {i: np.exp(v + 0.001 * rng.normal(size=5)).tolist() for i, v in level.items()}, run
            )
        )
    trials, baselines = levels.prepare(frame(*parts), "a")
    (host,) = by_host(levels.of_runs(trials, baselines), baselines, 1.0)
    (shared,) = host.shared
    assert shared.image == "a"
    assert shared.track.runs[shared.change.index] == 20
    assert shared.change.shift == pytest.approx(-0.04, abs=0.002)


def test_an_unsteady_control_workload_puts_its_host_in_quarantine() -> None:
    rng = np.random.default_rng(4)
    for sd, expected in ((0.005, False), (0.03, True)):
        parts = [
            rows({"a": [100.0], "control": [50 * math.exp(sd * rng.normal())]}, run)
            for run in range(20)
        ]
        trials, baselines = levels.prepare(frame(*parts), "a")
        (host,) = by_host(levels.of_runs(trials, baselines), baselines, 1.0)
        assert host.quarantine is not None
        assert host.quarantine.quarantined is expected


# Differences of two runs ------------------------------------------------------------------------


def two_runs(effect: float, blocks: int, seed: int, **more: object) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for run in (0, 1):
        block = 0.02 * rng.normal(size=blocks)
        level = {"a": 5.0, "b": 5.2 + effect * run}
        parts.append(
            rows(
                {
                    i: np.exp(v + block + 0.005 * rng.normal(size=blocks)).tolist()
                    for i, v in level.items()
                },
                run,
            )
        )
    return frame(*parts)


def test_a_difference_is_the_rank_sum_shift_of_the_blocks_ratios() -> None:
    table = two_runs(0.03, 12, 1)
    trials, baselines = levels.prepare(table, "a")
    (found,) = differences(trials, baselines, 2, "a", Settings(reference="a"))
    wide = np.log(table.pivot_table(index=["run", "block"], columns="image", values="energy_j"))
    ratio = wide["b"] - wide["a"]
    shifts = np.subtract.outer(ratio.loc[1].to_numpy(), ratio.loc[0].to_numpy())
    assert found.pair.estimate_pct == pytest.approx(100 * math.expm1(np.median(shifts)))
    expected = stats.mannwhitneyu(ratio.loc[1], ratio.loc[0], method="exact").pvalue
    assert found.pair.p == pytest.approx(expected)
    assert found.pair.verdict is PairVerdict.MORE


@pytest.mark.slow
def test_equal_runs_are_seldom_shown_to_differ() -> None:
    decided = 0
    for seed in range(200):
        trials, baselines = levels.prepare(two_runs(0.0, 10, seed), "a")
        (found,) = differences(trials, baselines, 2, "a", Settings(reference="a"))
        decided += found.pair.verdict in (PairVerdict.MORE, PairVerdict.LESS)
    assert decided / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_a_sparse_control_workload_is_compared_by_means() -> None:
    rng = np.random.default_rng(9)
    parts = []
    for run in (0, 1):
        values = {
            "a": np.exp(5 + 0.05 * run + 0.005 * rng.normal(size=12)).tolist(),
            "control": np.exp(4 + 0.005 * rng.normal(size=3)).tolist(),
        }
        parts.append(rows(values, run))
    trials, baselines = levels.prepare(frame(*parts), "a")
    (found,) = differences(trials, baselines, 2, "a", Settings(reference="a"))
    logs = {(r, i): g["log"] for (r, i), g in trials.groupby(["run", "image"])}
    expected = (
        logs[1, "a"].mean() - logs[1, "control"].mean()
        - logs[0, "a"].mean() + logs[0, "control"].mean()
    )  # fmt: skip
    assert "Welch" in found.pair.method
    assert found.pair.estimate_pct == pytest.approx(100 * math.expm1(expected))
    assert found.pair.verdict is PairVerdict.MORE


def test_two_blocks_are_too_few_and_say_so() -> None:
    trials, baselines = levels.prepare(two_runs(0.2, 2, 1), "a")
    (found,) = differences(trials, baselines, 2, "a", Settings(reference="a"))
    assert found.pair.verdict is PairVerdict.UNDECIDED
    assert found.pair.reason is not None
    assert found.pair.reason.startswith("too few blocks (2 a run")


# Places -----------------------------------------------------------------------------------------


def test_a_folder_of_runs_a_pattern_and_a_run_name_the_same_runs(tmp_path) -> None:
    for name in ("n-2", "n-1", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "no-run").mkdir()

    def names(*where: str) -> list[str]:
        return [p.name.rsplit("/", 1)[-1] for p in locations.find(where)]

    runs = str(tmp_path / "runs")
    assert names(runs) == ["n-1", "n-2", "other"]
    assert names(runs + "/n-*") == ["n-1", "n-2"]
    assert names(runs + "/n-2", runs) == ["n-2", "n-1", "other"]


@pytest.mark.parametrize("place", ["nothing-here", "runs/none-*", "s3://", "."])
def test_a_place_without_a_run_is_one_line(place: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(InputError) as caught:
        locations.find([place])
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)
