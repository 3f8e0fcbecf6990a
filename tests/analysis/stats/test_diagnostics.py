"""Fitness and control: drift, steps, memory, outliers, quarantine, against scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.stats import control_chart, diagnostics
from wattbench.analysis.stats.results import Autocorrelation, Fitness, Steps, Trend


def noise(n: int, seed: int = 0, sd: float = 0.01) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, n)


def rows(values: list[float], image: str = "a") -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame(
        {"image": image, "joules": values, "window_j": values, "position": range(1, n + 1), "block": range(1, n + 1),
         "planned_position": range(1, n + 1), "attempt": 1}
    )  # fmt: skip


# Drift and steps --------------------------------------------------------------------------------


def test_trend_is_spearmans_rho_against_the_order() -> None:
    x = noise(30) + np.linspace(0, 0.03, 30)
    found = diagnostics.trend(x)
    expected = stats.spearmanr(np.arange(30), x)
    assert (found.rho, found.p) == (
        pytest.approx(expected.statistic),
        pytest.approx(expected.pvalue),
    )
    assert found.found
    assert found.change_pct == pytest.approx(3, abs=1.5)


def test_noise_alone_drifts_and_steps_at_the_nominal_rate_only() -> None:
    trends = sum(diagnostics.trend(noise(40, seed)).found for seed in range(200))
    stepped = sum(
        control_chart.step_p(noise(40, seed), np.random.default_rng(seed), 199) <= 0.05
        for seed in range(200)
    )
    # Binomial(200, 0.05): 10 ± 3 · 3.1
    assert trends <= 20
    assert stepped <= 20


def test_a_step_is_found_where_it_is() -> None:
    x = noise(40, 3, 0.005)
    x[25:] += 0.03
    found = diagnostics.steps(x, list(range(101, 141)))
    assert [s.position for s in found.steps] == [126]
    assert found.steps[0].change_pct == pytest.approx(3.05, abs=0.5)
    assert found.p is not None
    assert found.p <= 0.001


def test_two_steps_are_both_found() -> None:
    x = noise(60, 4, 0.004)
    x[20:] += 0.03
    x[40:] -= 0.05
    assert [c.index for c in control_chart.change_points(x)] == [20, 40]


def test_white_noise_has_change_points_in_under_one_series_of_twenty() -> None:
    alarms = sum(bool(control_chart.change_points(noise(50, seed))) for seed in range(200))
    assert alarms <= 10


def test_step_p_of_exchangeable_values_is_exact_by_enumeration() -> None:
    x = np.array([0.0, 0.1, 0.05, 1.0, 1.1, 1.05])
    # Only splits 3 | 3 are allowed: the gain is largest when the three low ones are on one side.
    found = control_chart.step_p(x, np.random.default_rng(0), 4000)
    assert found == pytest.approx(2 / math.comb(6, 3), abs=0.02)


@pytest.mark.parametrize("values", [np.zeros(20), np.full(20, 0.3)])
def test_values_that_never_vary_neither_drift_nor_step(values: np.ndarray) -> None:
    assert not diagnostics.trend(values).found
    assert diagnostics.steps(values, list(range(20))).steps == ()
    assert not diagnostics.autocorrelation(values * 0).found
    assert control_chart.change_points(values) == ()


def test_few_trials_are_undecidable_with_a_reason() -> None:
    for found in (
        diagnostics.trend(noise(5)),
        diagnostics.steps(noise(5), list(range(5))),
        diagnostics.autocorrelation(noise(5)),
    ):
        assert found.p is None
        assert found.reason == "5 trials; at least 8 are needed"


def test_autocorrelation_matches_the_textbook_coefficient() -> None:
    rng = np.random.default_rng(1)
    x = np.zeros(80)
    for i in range(1, 80):
        x[i] = 0.7 * x[i - 1] + rng.normal()
    x -= x.mean()
    found = diagnostics.autocorrelation(x)
    assert found.lag1 == pytest.approx(float((x[1:] * x[:-1]).sum() / (x**2).sum()))
    lags = np.arange(1, 11)
    r = np.array([(x[k:] * x[:-k]).sum() / (x**2).sum() for k in lags])
    q = 80 * 82 * (r**2 / (80 - lags)).sum()
    assert found.p == pytest.approx(float(stats.chi2.sf(q, 10)))
    assert found.found


# Outliers ---------------------------------------------------------------------------------------


def test_the_modified_z_is_iglewicz_and_hoaglins() -> None:
    x = np.array([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])  # their Table 1.1
    z = diagnostics.modified_z(x)
    median, mad = 2.45, 0.15 + 0.05
    assert np.median(np.abs(x - median)) == pytest.approx(mad, abs=0.06)
    assert z[8] == pytest.approx(0.6745 * (8.2 - median) / np.median(np.abs(x - median)), rel=1e-3)
    assert (np.abs(z) > 3.5).sum() == 2


def test_an_outlier_is_named_with_its_place() -> None:
    values = [100.0, 101.0, 99.5, 100.4, 99.8, 130.0, 100.2, 100.9, 99.2]
    (found,) = diagnostics.outliers(rows(values))
    assert (found.image, found.position, found.block, found.energy_j) == ("a", 6, 6, 130.0)
    assert list(np.flatnonzero(diagnostics.outlier_mask(rows(values)))) == [5]


def test_one_odd_value_among_equal_ones_is_an_outlier_and_equal_ones_are_none() -> None:
    assert [o.position for o in diagnostics.outliers(rows([5.0] * 9 + [6.0]))] == [10]
    assert diagnostics.outliers(rows([5.0] * 10)) == ()
    assert diagnostics.outliers(rows([5.0, 5.0, 9.0])) == ()


def test_shapiro_has_no_p_where_it_has_none() -> None:
    assert diagnostics.shapiro_p(np.array([1.0, 2.0])) is None
    assert diagnostics.shapiro_p(np.ones(10)) is None
    x = noise(20)
    assert diagnostics.shapiro_p(x) == pytest.approx(float(stats.shapiro(x).pvalue))


# Findings ---------------------------------------------------------------------------------------


def test_findings_say_trend_or_step_and_what_was_not_found() -> None:
    x = noise(40, 3, 0.005)
    x[25:] += 0.03
    judged = Fitness(
        diagnostics.trend(x),
        diagnostics.steps(x, list(range(1, 41))),
        diagnostics.autocorrelation(x),
    )
    found = diagnostics.findings("gpu-a", judged)
    assert [(f.code, f.verdict) for f in found] == [
        ("drift", Verdict.FOUND), ("drift", Verdict.FOUND), ("outlier", Verdict.NOT_FOUND),
        ("carry-over", Verdict.UNDECIDABLE),
    ]  # fmt: skip
    assert [f.evidence.get("kind") for f in found] == ["trend", "step", None, None]
    assert found[1].evidence["position"] == 26
    assert {f.subject for f in found} == {"host gpu-a"}


def test_what_cannot_be_judged_is_undecidable() -> None:
    unknown = Fitness(
        Trend(None, None, None, False, "why"), Steps((), None), Autocorrelation(None, None, False)
    )
    assert diagnostics.findings("", unknown)[0].verdict is Verdict.UNDECIDABLE
    assert diagnostics.findings("", unknown)[0].subject == "campaign"


# Control ----------------------------------------------------------------------------------------


def test_quarantine_uses_the_chi_square_bound() -> None:
    joules = [100.0, 103.0, 97.0, 102.0, 98.0, 101.0]
    found = control_chart.quarantine(joules, 1.0)
    sd = float(np.std(np.log(joules), ddof=1))
    assert found.sd_pct == pytest.approx(100 * sd)
    assert found.bound_pct == pytest.approx(100 * sd * math.sqrt(5 / stats.chi2.ppf(0.95, 5)))
    assert found.quarantined
    assert f"{found.bound_pct:.2f} %" in found.reason


def test_fewer_than_five_control_runs_quarantine_no_host() -> None:
    found = control_chart.quarantine([100, 150, 50, 200])
    assert not found.quarantined
    assert found.bound_pct is None
    assert "at least 5" in found.reason
    assert control_chart.quarantine([]).sd_pct is None


def test_a_healthy_host_is_hardly_ever_quarantined_where_a_plain_sd_would_often_do() -> None:
    rng = np.random.default_rng(0)
    series = np.exp(rng.normal(0, 0.009, (3000, 5)))
    out = np.mean([control_chart.quarantine(list(s)).quarantined for s in series])
    naive = np.mean(np.std(np.log(series), axis=1, ddof=1) > 0.01)
    assert out <= 0.05
    # P(χ²₄ > 4 / 0.81) = 0.29: "three times in ten"
    assert naive == pytest.approx(float(stats.chi2.sf(4 / 0.81, 4)), abs=0.03)


def test_a_host_leaves_quarantine_after_five_steady_runs_and_not_by_its_past() -> None:
    rng = np.random.default_rng(1)
    bad = list(np.exp(rng.normal(0, 0.06, 8)))
    good = list(np.exp(rng.normal(0, 0.004, 30)))
    inside = [control_chart.standing([*bad, *good[:n]]).quarantined for n in range(31)]
    assert inside[:5] == [True] * 5
    assert not any(inside[5:])
    # The rule over the latest runs alone would hold the bad ones against it for longer.
    assert control_chart.quarantine([*bad, *good[:9]][-control_chart.RECENT_RUNS :]).quarantined
    assert (
        "5 control runs since, and 5 in a row" in control_chart.standing([*bad, *good[:2]]).reason
    )


def test_an_unsteady_host_stays_in_quarantine_and_a_healthy_one_out_of_it() -> None:
    """Nights 60 to 90 of hosts three times as unsteady as allowed, and of healthy ones."""
    rng = np.random.default_rng(2)

    def share(sd: float) -> float:
        series = np.exp(rng.normal(0, sd, (60, 90)))
        ends = range(60, 91, 6)
        return float(
            np.mean([control_chart.standing(s[:n]).quarantined for s in series for n in ends])
        )

    # It is let out by chance where χ²₄ ≤ 4/9, once in 47 nights, and is back after a few.
    assert share(0.03) >= 0.85
    assert share(0.005) <= 0.02


def test_local_sd_is_blind_to_a_step() -> None:
    x = noise(400, 6)
    stepped = x + np.where(np.arange(400) >= 200, 0.5, 0)
    assert control_chart.local_sd(x) == pytest.approx(0.01, rel=0.12)
    assert control_chart.local_sd(stepped) == pytest.approx(control_chart.local_sd(x), rel=0.02)
