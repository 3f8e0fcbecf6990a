"""Across hosts, against statsmodels, metafor's example, closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from wattbench.analysis.model.trials import TrialRow, to_frame
from wattbench.analysis.stats.across_hosts import common_effect, hartung_knapp, welch_df
from wattbench.analysis.stats.conclude import conclude
from wattbench.analysis.stats.results import HOSTS_LIKE_THESE, THESE_HOSTS, PairVerdict, Settings

# metafor's dat.bcg (Colditz et al. 1994): vaccinated cases and others, controls' cases and others.
BCG = np.array(
    [[4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209], [62, 13536, 248, 12619],
     [33, 5036, 47, 5761], [180, 1361, 372, 1079], [8, 2537, 10, 619], [505, 87886, 499, 87892],
     [29, 7470, 45, 7232], [17, 1699, 65, 1600], [186, 50448, 141, 27197], [5, 2493, 3, 2338],
     [27, 16886, 29, 17825]]
)  # fmt: skip


def campaign(
    effects: dict[str, dict[str, float]],
    blocks: int = 12,
    cv: float = 0.8,
    seed: int = 8,
    **row: object,
):
    """A run: joules by host and image are level · (1 + effect), with noise."""
    rows = []
    rng = np.random.default_rng(seed)
    for level, (host, images) in enumerate(effects.items(), start=1):
        position = 0
        for block in range(1, blocks + 1):
            for image, effect in images.items():
                position += 1
                joules = 1000 * level * (1 + effect / 100) * math.exp(rng.normal(0, cv / 100))
                rows.append(
                    TrialRow(
                        "r", host, "workload", block, position, position, image,
                        attempt=1, status="valid", energy_j=joules, energy_scope="package",
                        **({"energy_source": "measured", "late": False} | row),
                    )
                )  # fmt: skip
    return to_frame(rows)


def same(hosts: int, **images: float) -> dict[str, dict[str, float]]:
    return {f"h{k}": dict(images) for k in range(hosts)}


# Combining --------------------------------------------------------------------------------------


def bcg() -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d = BCG.T
    y = np.log(a / (a + b)) - np.log(c / (c + d))
    return y, 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def test_between_host_variance_is_paule_and_mandels() -> None:
    # metafor: rma(measure = "RR", …, data = dat.bcg, method = "PM"): tau^2 = 0.3181
    found = hartung_knapp(*bcg())
    assert found is not None
    assert found.tau**2 == pytest.approx(0.3181, abs=5e-5)


def test_hartung_knapp_is_that_of_statsmodels() -> None:
    y, v = bcg()
    found = hartung_knapp(y, v)
    expected = combine_effects(y, v, method_re="pm")
    assert found is not None
    assert found.shift.estimate == pytest.approx(expected.mean_effect_re, abs=1e-5)
    assert found.shift.se == pytest.approx(expected.sd_eff_w_re_hksj, abs=1e-5)
    assert found.shift.df == len(y) - 1
    assert found.i2_pct == pytest.approx(100 * expected.i2)


def test_hartung_knapp_of_equal_precisions_is_students_interval_of_the_hosts() -> None:
    y = np.array([-0.02, -0.05, -0.01, -0.04])
    found = hartung_knapp(y, np.full(4, 1e-5))
    assert found is not None
    expected = stats.t.interval(0.95, 3, y.mean(), stats.sem(y))
    assert found.shift.interval(0.95) == pytest.approx(expected)


def test_hosts_that_agree_better_than_their_noise_have_no_variance_between_them() -> None:
    found = hartung_knapp([0.01, 0.0101, 0.0099], [1e-4, 1e-4, 1e-4])
    assert found is not None
    assert (found.tau, found.i2_pct) == (0.0, 0.0)


def test_two_hosts_with_equal_blocks_give_welchs_interval_of_their_mean() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 9), rng.normal(0, 3, 9)
    found = common_effect(
        [x.mean(), y.mean()], [x.var(ddof=1) / 9, y.var(ddof=1) / 9], [8, 8], [9, 9]
    )
    # The mean of two hosts is half the difference of x and −y: Welch's two-sample interval, halved.
    welch = stats.ttest_ind(x, -y, equal_var=False)
    low, high = welch.confidence_interval(0.95)
    assert found is not None
    assert found.df == pytest.approx(float(welch.df))
    assert found.interval(0.95) == pytest.approx((low / 2, high / 2))


def test_welchs_degrees_of_freedom_of_equal_parts_add_up() -> None:
    assert welch_df([2.0, 2.0, 2.0], [5, 5, 5]) == pytest.approx(15)


def test_hosts_without_any_variance_have_no_common_interval() -> None:
    assert common_effect([0.1, 0.1], [0.0, 0.0], [3, 3], [4, 4]) is None
    assert hartung_knapp([0.1, 0.2], [0.0, 1.0]) is None
    assert hartung_knapp([0.1], [1.0]) is None


# What a run says --------------------------------------------------------------------------------


def test_joules_are_never_pooled_only_ratios() -> None:
    found = conclude(campaign(same(2, a=0, b=-10)), Settings(reference="a"))
    pair = found.across.pairs[0].these_hosts
    assert pair.verdict is PairVerdict.LESS
    assert pair.estimate_pct == pytest.approx(-10, abs=0.5)
    assert pair.delta is None
    assert [e.weight for e in found.across.pairs[0].hosts] == [0.5, 0.5]


def test_fewer_than_five_hosts_lead_as_these_hosts_with_the_others_beside() -> None:
    found = conclude(campaign(same(4, a=0, b=-10)), Settings(reference="a")).across
    assert found.label == THESE_HOSTS
    (pair,) = found.pairs
    assert pair.leading is pair.these_hosts
    assert pair.hosts_like_these is not None


def test_five_hosts_lead_as_hosts_like_these() -> None:
    found = conclude(campaign(same(5, a=0, b=-10)), Settings(reference="a"))
    assert found.across.label == HOSTS_LIKE_THESE
    (pair,) = found.across.pairs
    assert pair.leading is pair.hosts_like_these
    assert "5 hosts, for hosts like these" in found.headline.conditions


def test_one_host_has_nothing_to_combine() -> None:
    found = conclude(campaign(same(1, a=0, b=-10)), Settings()).across
    assert found.pairs == ()
    assert found.reason == "one host with valid trials: nothing to combine"


def test_one_block_a_host_has_nothing_to_combine() -> None:
    found = conclude(campaign(same(2, a=0, b=-10), blocks=1), Settings()).across
    assert found.reason is not None
    assert "at least two blocks" in found.reason


def test_an_image_missing_on_one_host_is_said_and_the_rest_computed() -> None:
    effects = {"h1": {"a": 0.0, "b": -5.0, "c": 4.0}, "h2": {"a": 0.0, "b": -5.0}}
    found = conclude(campaign(effects), Settings(reference="a"))
    by_pair = {(p.these_hosts.a, p.these_hosts.b): p.these_hosts for p in found.across.pairs}
    assert by_pair["b", "a"].verdict is PairVerdict.LESS
    assert by_pair["c", "a"].individual is None
    assert by_pair["c", "a"].reason == "measured with at least two blocks on one host only"
    assert "not compared: c (" in found.headline.conditions


def test_kendalls_w_is_one_for_equal_rankings_and_has_no_p_below_four_images() -> None:
    three = conclude(campaign(same(3, a=0, b=-10, c=10)), Settings()).across.agreement
    assert three is not None
    assert (three.w, three.p) == (pytest.approx(1), None)
    assert three.reason == "no p below 4 images"


def test_kendalls_w_of_four_images_has_an_exact_p() -> None:
    four = conclude(campaign(same(3, a=0, b=-10, c=10, d=20)), Settings()).across.agreement
    assert four is not None
    # Three identical rankings of four images: (1/4!)² of all pairs of further rankings.
    assert (four.w, four.p_method) == (pytest.approx(1), "exact")
    assert four.p == pytest.approx(1 / 24**2)


def test_opposite_rankings_have_no_agreement() -> None:
    effects = {"h1": {"a": 0.0, "b": 10.0, "c": 20.0}, "h2": {"a": 20.0, "b": 10.0, "c": 0.0}}
    found = conclude(campaign(effects), Settings(reference="a"))
    assert found.across.agreement is not None
    assert found.across.agreement.w == pytest.approx(0)
    assert found.across.best_by_host == {"h1": "a", "h2": "c"}
    assert any("depends on the host" in n for n in found.notes)


def test_interaction_is_welchs_test_of_the_hosts_log_ratios() -> None:
    effects = {"h1": {"a": 0.0, "b": -5.0}, "h2": {"a": 0.0, "b": 5.0}}
    frame = campaign(effects)
    (found,) = conclude(frame, Settings(reference="a")).across.interactions
    assert found.found
    assert found.low_pct == pytest.approx(-5, abs=1)
    assert found.high_pct == pytest.approx(5, abs=1)
    groups = []
    for _, host in frame.groupby("host"):
        logs = np.log(host.pivot_table(index="block", columns="image", values="energy_j"))
        groups.append((logs["b"] - logs["a"]).to_numpy())
    # Two groups: Welch's F is the square of his t.
    expected = stats.ttest_ind(*groups, equal_var=False).pvalue
    assert found.p == pytest.approx(float(expected), rel=1e-6)


def test_hosts_that_agree_show_no_interaction() -> None:
    (found,) = conclude(campaign(same(3, a=0, b=-5), seed=1), Settings()).across.interactions
    assert not found.found
    assert found.p_adjusted is not None


def test_three_blocks_on_two_hosts_decide_only_large_effects() -> None:
    found = conclude(campaign(same(2, a=0, b=-90, c=0.3), blocks=3), Settings(reference="a"))
    by_pair = {(p.these_hosts.a, p.these_hosts.b): p.these_hosts for p in found.across.pairs}
    assert by_pair["b", "a"].verdict is PairVerdict.LESS
    small = by_pair["c", "a"]
    assert (small.verdict, small.reason) == (PairVerdict.UNDECIDED, "too few blocks (3 a host)")
