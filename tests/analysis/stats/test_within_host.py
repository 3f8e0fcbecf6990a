"""Within a host, against R's documentation, textbooks, scipy and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from wattbench.analysis.model.trials import TrialRow, to_frame
from wattbench.analysis.stats.endpoints import HostTrials, host_trials
from wattbench.analysis.stats.ranks import (
    RankShift,
    TShift,
    rank_sum_cdf,
    signed_rank_cdf,
    two_sided,
)
from wattbench.analysis.stats.results import PairVerdict, Settings, find_pair
from wattbench.analysis.stats.verdicts import adjust, to_log, to_pct
from wattbench.analysis.stats.within_host import (
    blocked_omnibus,
    cliffs_delta,
    compare,
    kruskal_wallis,
    omnibus,
    secondary,
)

NAN = math.nan
SETTINGS = Settings()

# Hollander & Wolfe 1973, p. 140, as R's ?friedman.test has it (times to round first base).
ROUNDING_TIMES = np.array(
    [5.40, 5.50, 5.55, 5.85, 5.70, 5.75, 5.20, 5.60, 5.50, 5.55, 5.50, 5.40, 5.90, 5.85, 5.70, 5.45,
     5.55, 5.60, 5.40, 5.40, 5.35, 5.45, 5.50, 5.35, 5.25, 5.15, 5.00, 5.85, 5.80, 5.70, 5.25, 5.20,
     5.10, 5.65, 5.55, 5.45, 5.60, 5.35, 5.45, 5.05, 5.00, 4.95, 5.50, 5.50, 5.40, 5.45, 5.55, 5.50,
     5.55, 5.55, 5.35, 5.45, 5.50, 5.55, 5.50, 5.45, 5.25, 5.65, 5.60, 5.40, 5.70, 5.65, 5.55, 6.30,
     6.30, 6.25]
).reshape(22, 3)  # fmt: skip

# Skillings & Mack 1981, assembly times; R: Ski.Mack of package Skillings.Mack gives 15.493 on 3 df.
ASSEMBLY = np.array(
    [3.2, 4.1, 3.8, 4.2, 3.1, 3.9, 3.4, 4.0, 4.3, 3.5, 4.6, 4.8, 3.5, 3.6, 3.9, 4.0, 3.6, 4.2, 3.7,
     3.9, 4.5, 4.7, 3.7, NAN, NAN, 4.2, 3.4, NAN, 4.3, 4.6, 4.4, 4.9, 3.5, NAN, 3.7, 3.9]
).reshape(9, 4)  # fmt: skip


def host(
    joules: dict[str, list[float | None]], blocked: bool = True, **columns: object
) -> HostTrials:
    """One host's trials from joules by image, one value a block; None is a failed trial."""
    rows = []
    position = 0
    for block, values in enumerate(itertools.zip_longest(*joules.values()), start=1):
        for image, value in zip(joules, values, strict=True):
            position += 1
            rows.append(
                TrialRow(
                    run_id="r",
                    host="h",
                    kind="workload",
                    block=block if blocked else None,
                    position=position,
                    planned_position=position,
                    image=image,
                    attempt=1,
                    status="failed" if value is None else "valid",
                    energy_j=value,
                    energy_scope="package",
                    energy_source="measured",
                    late=False,
                    **columns,  # type: ignore[arg-type]
                )
            )
    return host_trials(to_frame(rows), "h", tuple(joules))


def noisy(n: int, level: float, sd_pct: float, seed: int) -> list[float | None]:
    noise = np.random.default_rng(seed).normal(0, sd_pct / 100, n)
    return [float(v) for v in level * np.exp(noise)]


# The primitives ---------------------------------------------------------------------------------


def test_signed_rank_matches_the_documented_example_of_r() -> None:
    # R: wilcox.test(x, y, paired = TRUE, alternative = "greater"): V = 40, p-value = 0.01953;
    # Hollander & Wolfe 1973, p. 27 ff.: estimate 0.46, 96 % interval 0.010 to 0.786.
    x = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    y = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    shift = RankShift.signed_rank(x - y)
    assert int((shift.contrasts > 0).sum()) == 40
    assert shift.p_greater(0) == pytest.approx(0.01953, abs=5e-6)
    assert shift.estimate == pytest.approx(0.46, abs=1e-9)
    assert shift.interval(0.95) == pytest.approx((0.010, 0.786), abs=1e-9)


def test_rank_sum_matches_the_documented_example_of_r() -> None:
    # R: wilcox.test(x, y, alternative = "g"): W = 35, p-value = 0.1272; Hollander & Wolfe: 0.305.
    x = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    y = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    shift = RankShift.rank_sum(x, y)
    assert int((shift.contrasts > 0).sum()) == 35
    assert shift.p_greater(0) == pytest.approx(0.1272, abs=5e-5)
    assert shift.estimate == pytest.approx(0.305, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 14])
def test_signed_rank_distribution_is_that_of_all_signs(n: int) -> None:
    signs = np.array(list(itertools.product((0, 1), repeat=n)))
    sums = np.bincount(signs @ np.arange(1, n + 1), minlength=n * (n + 1) // 2 + 1)
    assert signed_rank_cdf(n) == pytest.approx(np.cumsum(sums) / 2**n, abs=1e-14)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (4, 4), (3, 7)])
def test_rank_sum_distribution_is_that_of_all_arrangements(n: int, m: int) -> None:
    us = [sum(places) - n * (n - 1) // 2 for places in itertools.combinations(range(n + m), n)]
    expected = np.cumsum(np.bincount(us, minlength=n * m + 1)) / math.comb(n + m, n)
    assert rank_sum_cdf(n, m) == pytest.approx(expected, abs=1e-14)


@given(
    st.lists(st.floats(-1, 1, allow_nan=False), min_size=4, max_size=14, unique=True),
    st.sampled_from([0.8, 0.9, 0.95, 0.99]),
)
def test_interval_and_test_always_agree(values: list[float], level: float) -> None:
    shift = RankShift.signed_rank(np.array(values))
    lower, upper = shift.interval(level)
    if lower is None or upper is None:
        assert two_sided(shift, -10) > 1 - level
        return
    inside = (lower + upper) / 2
    assert two_sided(shift, inside) > 1 - level
    assert two_sided(shift, np.nextafter(lower, -9)) <= 1 - level + 1e-9
    assert two_sided(shift, np.nextafter(upper, 9)) <= 1 - level + 1e-9


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_ties_and_zeros_never_make_the_test_liberal(sizes: list[int]) -> None:
    every_sign = itertools.product((1, -1), repeat=len(sizes))
    p = [RankShift.signed_rank(np.array(sizes) * np.array(s)).p_greater(0) for s in every_sign]
    for threshold in set(p):
        assert np.mean(np.array(p) <= threshold + 1e-12) <= threshold + 1e-12


def test_t_shift_is_students_test() -> None:
    d = np.random.default_rng(1).normal(0.3, 1, 12)
    shift = TShift(float(d.mean()), float(stats.sem(d)), 11)
    test = stats.ttest_1samp(d, 0)
    assert two_sided(shift) == pytest.approx(float(test.pvalue))
    assert shift.interval(0.95) == pytest.approx(tuple(test.confidence_interval(0.95)))


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_adjusted_p_are_those_of_statsmodels(correction: str) -> None:
    for p in ([0.04], [0.01, 0.02, 0.03], [0.03, 0.001, 0.2, 0.03, 0.9, 0.012]):
        expected = multipletests(p, method=correction)[1]
        assert adjust(p, correction) == pytest.approx(list(expected))


@given(st.floats(-99, 500))
def test_percent_and_log_are_inverse(pct: float) -> None:
    assert to_pct(to_log(pct)) == pytest.approx(pct, abs=1e-9)


# Omnibus ----------------------------------------------------------------------------------------


def test_friedman_matches_r_with_ties() -> None:
    # R: friedman.test(RoundingTimes): Friedman chi-squared = 11.143, df = 2, p-value = 0.003805
    found = blocked_omnibus(ROUNDING_TIMES, SETTINGS)
    assert found is not None
    assert (found.test, found.df, found.blocks, found.ties) == ("Friedman", 2, 22, 4)
    assert found.statistic == pytest.approx(11.143, abs=5e-4)
    assert found.p_method == "exact"
    assert found.p == pytest.approx(0.003805, rel=0.35)


def test_skillings_mack_matches_the_published_example() -> None:
    found = blocked_omnibus(ASSEMBLY, SETTINGS)
    assert found is not None
    assert (found.test, found.df, found.blocks) == ("Skillings–Mack", 3, 9)
    assert found.statistic == pytest.approx(15.493, abs=5e-4)
    assert found.p < 0.001


def test_skillings_mack_of_a_balanced_incomplete_design_is_durbins_statistic() -> None:
    # Durbin 1951: t treatments in b blocks of k, each r times: 12(t−1)/(rt(k−1)(k+1)) Σ (R − r(k+1)/2)².
    t, k = 4, 3
    table = np.full((4, t), NAN)
    rng = np.random.default_rng(3)
    for b, treatments in enumerate(itertools.combinations(range(t), k)):
        table[b, list(treatments)] = rng.permutation(k) + 10.0 * b
    r = 3
    sums = np.nansum(stats.rankdata(table, axis=1, nan_policy="omit"), axis=0)
    durbin = 12 * (t - 1) / (r * t * (k - 1) * (k + 1)) * ((sums - r * (k + 1) / 2) ** 2).sum()
    found = blocked_omnibus(table, SETTINGS)
    assert found is not None
    assert found.statistic == pytest.approx(durbin)
    assert found.p_method == "exact"


@pytest.mark.parametrize(("blocks", "images"), [(4, 3), (3, 4)])
def test_exact_p_is_that_of_every_permutation_within_blocks(blocks: int, images: int) -> None:
    table = np.random.default_rng(7).normal(size=(blocks, images)) + np.arange(images)
    found = blocked_omnibus(table, SETTINGS)
    assert found is not None
    statistic = float(stats.friedmanchisquare(*table.T).statistic)
    orders = [list(itertools.permutations(row)) for row in stats.rankdata(table, axis=1)]
    totals = np.array([np.sum(choice, axis=0) for choice in itertools.product(*orders)])
    mean = blocks * (images + 1) / 2
    every = 12 / (blocks * images * (images + 1)) * ((totals - mean) ** 2).sum(axis=1)
    assert found.statistic == pytest.approx(statistic)
    assert found.p == pytest.approx(float(np.mean(every >= statistic - 1e-9)))
    assert found.p_method == "exact"


def test_monte_carlo_p_names_its_seed_and_comes_near_the_chi_square() -> None:
    table = np.random.default_rng(11).normal(size=(30, 5)) + 0.25 * np.arange(5)
    found = blocked_omnibus(table, Settings(seed=4))
    assert found is not None
    assert found.p_method == "Monte Carlo (20000 draws, seed 4)"
    expected = stats.friedmanchisquare(*table.T)
    assert found.statistic == pytest.approx(float(expected.statistic))
    assert found.p == pytest.approx(float(expected.pvalue), rel=0.3, abs=1e-3)


def test_two_images_get_the_signed_rank_test() -> None:
    table = np.random.default_rng(5).normal(size=(12, 2))
    found = blocked_omnibus(table, SETTINGS)
    assert found is not None
    assert found.test == "Wilcoxon signed-rank"
    assert found.p == pytest.approx(float(stats.wilcoxon(table[:, 0] - table[:, 1]).pvalue))


def test_equal_values_everywhere_differ_in_nothing() -> None:
    for table in (np.ones((5, 3)), np.ones((5, 2))):
        found = blocked_omnibus(table, SETTINGS)
        assert found is not None
        assert found.p == pytest.approx(1)
    kw = kruskal_wallis([np.ones(4), np.ones(4)])
    assert kw is not None
    assert (kw.statistic, kw.p) == (0.0, 1.0)


def test_no_block_with_two_images_has_no_omnibus() -> None:
    assert blocked_omnibus(np.array([[1.0, NAN], [NAN, 2.0]]), SETTINGS) is None
    assert kruskal_wallis([np.ones(3), np.array([])]) is None


# Cliff's delta ----------------------------------------------------------------------------------


def test_cliffs_delta_counts_pairs() -> None:
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 3.5, 5.0])
    delta = cliffs_delta(a, b)
    assert delta.delta == pytest.approx((3 - 8) / 12)  # 3 pairs greater, 8 less, 1 equal
    assert delta.lower is not None
    assert delta.upper is not None
    # Brunner & Munzel's variance by hand: placements of a among b and of b among a.
    pa = np.array([0, 1 / 6, 1 / 3, 2 / 3])
    pb = np.array([2.5 / 4, 1 / 4, 0])
    va, vb = pa.var(ddof=1) / 4, pb.var(ddof=1) / 3
    df = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    share = 3.5 / 12
    reach = stats.t.ppf(0.975, df) * math.sqrt(va + vb) / (share * (1 - share))
    ends = [2 / (1 + math.exp(-(math.log(share / (1 - share)) + s * reach))) - 1 for s in (-1, 1)]
    assert (delta.lower, delta.upper) == pytest.approx(tuple(ends))


def test_separated_samples_get_the_clopper_pearson_bound() -> None:
    delta = cliffs_delta(np.arange(10.0), np.arange(20.0, 35.0))
    exact = stats.binomtest(10, 10).proportion_ci(0.95).low
    assert (delta.delta, delta.lower) == (-1, -1)
    assert delta.upper == pytest.approx(-(2 * exact - 1))


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0, 3.0]), ([2.0, 2.0], [2.0, 2.0])])
def test_delta_without_spread_has_a_reason_instead_of_an_interval(
    a: list[float], b: list[float]
) -> None:
    delta = cliffs_delta(np.array(a), np.array(b))
    assert (delta.lower, delta.upper) == (None, None)
    assert delta.reason


# Pairs and verdicts -----------------------------------------------------------------------------


def test_every_pair_is_compared_with_the_reference_second() -> None:
    trials = host({i: noisy(10, 100, 1, k) for k, i in enumerate("rabc")})
    pairs = compare(trials, SETTINGS)
    assert [(p.a, p.b) for p in pairs] == [
        ("a", "r"), ("b", "r"), ("c", "r"), ("b", "a"), ("c", "a"), ("c", "b"),
    ]  # fmt: skip


def test_blocks_are_compared_inside_so_that_drift_cancels() -> None:
    drift = np.linspace(1, 3, 12)  # the machine's joules triple during the run
    rng = np.random.default_rng(2)
    a, b = (list(level * drift * np.exp(rng.normal(0, 0.002, 12))) for level in (90, 100))
    (pair,) = compare(host({"ref": b, "new": a}), SETTINGS)
    assert pair.verdict is PairVerdict.LESS
    assert pair.estimate_pct == pytest.approx(-10, abs=0.5)
    assert pair.within_margin is False


def test_clear_effects_have_the_right_sign_and_a_flipped_view() -> None:
    pairs = compare(host({"a": noisy(10, 100, 0.5, 1), "b": noisy(10, 110, 0.5, 2)}), SETTINGS)
    forward, back = find_pair(pairs, "b", "a"), find_pair(pairs, "a", "b")
    assert forward is not None
    assert back is not None
    assert (forward.verdict, back.verdict) == (PairVerdict.MORE, PairVerdict.LESS)
    assert (1 + forward.estimate_pct / 100) * (1 + back.estimate_pct / 100) == pytest.approx(1)
    assert back.delta is not None
    assert back.delta.delta == -1
    again = back.flipped()
    assert (again.a, again.b, again.verdict, again.delta) == (
        "b",
        "a",
        forward.verdict,
        forward.delta,
    )
    assert again.individual is not None
    assert forward.individual is not None
    assert again.individual.lower_pct == pytest.approx(forward.individual.lower_pct)


@pytest.mark.parametrize(("images", "needed"), [(2, 6), (5, 9)])
def test_too_few_blocks_are_said_to_be_too_few(images: int, needed: int) -> None:
    names = "abcde"[:images]

    def pairs(blocks: int):
        joules = {n: noisy(blocks, 100 * 2**k, 0.1, k) for k, n in enumerate(names)}
        return compare(host(joules), SETTINGS)

    for pair in pairs(needed - 1):
        assert pair.verdict is PairVerdict.UNDECIDED
        assert pair.simultaneous is not None
        assert (pair.simultaneous.lower_pct, pair.simultaneous.upper_pct) == (None, None)
        assert pair.reason == (
            f"too few blocks ({needed - 1}; an interval needs at least {needed} blocks)"
        )
    assert {p.verdict for p in pairs(needed)} == {PairVerdict.MORE}


def test_small_known_differences_are_equivalent_and_may_also_be_decided() -> None:
    equal = compare(host({"a": noisy(30, 100, 0.3, 1), "b": noisy(30, 100, 0.3, 2)}), SETTINGS)[0]
    assert equal.verdict is PairVerdict.EQUIVALENT
    assert equal.within_margin is None
    small = compare(host({"a": noisy(30, 100, 0.1, 1), "b": noisy(30, 100.4, 0.1, 2)}), SETTINGS)[0]
    assert small.verdict is PairVerdict.MORE
    assert small.within_margin is True


def test_tost_is_two_one_sided_signed_rank_tests() -> None:
    a, b = noisy(15, 100, 0.8, 1), noisy(15, 100.3, 0.8, 2)
    pair = compare(host({"a": a, "b": b}), SETTINGS)[0]
    d = np.log(np.array(b, float)) - np.log(np.array(a, float))
    low, high = math.log(0.99), math.log(1.01)
    expected = max(
        stats.wilcoxon(d - low, alternative="greater").pvalue,
        stats.wilcoxon(d - high, alternative="less").pvalue,
    )
    assert pair.equivalence is not None
    assert pair.equivalence.p == pytest.approx(float(expected))
    assert pair.equivalence.interval.level == pytest.approx(0.9)


def test_equal_values_are_equivalent_without_nan() -> None:
    pair = compare(host({"a": [100.0] * 12, "b": [100.0] * 12}), SETTINGS)[0]
    assert pair.verdict is PairVerdict.EQUIVALENT
    assert (pair.estimate_pct, pair.p, pair.ties) == (0.0, 1.0, 12)
    assert pair.simultaneous is not None
    assert (pair.simultaneous.lower_pct, pair.simultaneous.upper_pct) == (0.0, 0.0)


def test_holm_decides_more_than_bonferroni_and_its_interval_ends_at_zero() -> None:
    joules = {
        "a": noisy(10, 100, 0.2, 1),
        "b": noisy(10, 130, 0.2, 2),
        "c": noisy(10, 130.8, 0.8, 6),
    }
    holm = compare(host(joules), Settings(correction="holm"))
    strict = compare(host(joules), Settings(correction="bonferroni"))
    h, s = find_pair(holm, "c", "b"), find_pair(strict, "c", "b")
    assert h is not None
    assert s is not None
    assert h.p == s.p
    assert h.p is not None
    assert 0.05 / 3 < h.p <= 0.05
    assert (h.verdict, s.verdict) == (PairVerdict.MORE, PairVerdict.UNDECIDED)
    assert h.simultaneous is not None
    assert s.simultaneous is not None
    assert h.simultaneous.lower_pct == 0.0
    assert s.simultaneous.lower_pct is not None
    assert s.simultaneous.lower_pct < 0


def test_incomplete_blocks_use_what_each_pair_shares() -> None:
    a, b, c = (noisy(12, 100 + 5 * k, 0.5, k) for k in range(3))
    b[0] = b[1] = c[5] = None
    trials = host({"a": a, "b": b, "c": c})
    pairs = compare(trials, SETTINGS)
    assert [p.n for p in pairs] == [10, 11, 9]
    found = omnibus(trials, SETTINGS)
    assert found is not None
    assert found.test == "Skillings–Mack"


def test_an_image_that_never_worked_has_a_reason() -> None:
    pairs = compare(host({"a": noisy(8, 100, 1, 1), "b": [None] * 8}), SETTINGS)
    assert pairs[0].individual is None
    assert pairs[0].reason == "b has no valid trial here"


def test_images_that_share_no_block_are_not_compared() -> None:
    joules = {"a": [1.0, None, 1.0], "b": [None, 2.0, None], "c": [3.0, 3.0, 3.0]}
    pairs = compare(host(joules), SETTINGS)
    assert pairs[0].reason == "no block holds both images"


def test_one_block_estimates_without_an_interval() -> None:
    pair = compare(host({"a": [100.0], "b": [110.0]}), SETTINGS)[0]
    assert pair.estimate_pct == pytest.approx(10)
    assert pair.sd_log_pct is None
    assert pair.reason is not None
    assert pair.reason.startswith("too few blocks")


def test_unblocked_trials_are_compared_as_independent_samples() -> None:
    trials = host({"a": noisy(15, 100, 1, 1), "b": noisy(15, 103, 1, 2)}, blocked=False)
    assert trials.design == "unblocked"
    assert "not run in blocks" in trials.notes[0]
    pair = compare(trials, SETTINGS)[0]
    logs = trials.samples()
    expected = stats.mannwhitneyu(logs["b"], logs["a"], method="exact").pvalue
    assert pair.p == pytest.approx(float(expected))
    found = omnibus(trials, SETTINGS)
    assert found is not None
    assert found.test == "Kruskal–Wallis"


# Endpoints --------------------------------------------------------------------------------------


def scoped(rows: list[tuple[str, int, str, float, float | None]]) -> HostTrials:
    frame = to_frame(
        TrialRow("r", "h", "workload", block, i, i, image, status="valid", attempt=1,
                 energy_j=package + (dram or 0), energy_scope=scope, package_j=package,
                 dram_j=dram, energy_source="measured")
        for i, (image, block, scope, package, dram) in enumerate(rows, start=1)
    )  # fmt: skip
    return host_trials(frame, "h", ("a", "b"))


def test_only_domains_common_to_all_trials_are_compared() -> None:
    trials = scoped([
        ("a", 1, "package+dram", 100, 10), ("b", 1, "package", 200, None),
        ("a", 2, "package+dram", 100, 10), ("b", 2, "package+dram", 200, 20),
    ])  # fmt: skip
    assert trials.scope == "package"
    assert list(trials.rows["joules"]) == [100, 200, 100, 200]
    assert "compared over package only: not every trial has dram" in trials.notes


def test_trials_without_a_common_domain_are_not_compared() -> None:
    trials = scoped([("a", 1, "package", 100, None), ("b", 1, "dram", 0, 20)])
    assert trials.reason == "the trials have no energy domain in common (dram, package)"


def test_secondary_endpoints_stand_beside_or_say_why_not() -> None:
    trials = host(
        {"a": noisy(8, 100, 1, 1), "b": noisy(8, 110, 1, 2)},
        duration_s=10.0,
        idle_corrected_j=-1.0,
    )
    found = {s.endpoint: s for s in secondary(trials, SETTINGS)}
    assert found["duration_s"].pairs[0].verdict is PairVerdict.EQUIVALENT
    assert found["duration_s"].pairs[0].delta is None
    assert found["idle_corrected_j"].reason == ("some values are not positive: they have no ratio")
    assert found["steady_j"].reason == "no trial has it"


def test_a_table_holds_one_row_a_block() -> None:
    table = host({"a": [1.0, math.e], "b": [None, 1.0]}).table()
    expected = pd.DataFrame({"a": [0.0, 1.0], "b": [NAN, 0.0]})
    assert np.allclose(table.to_numpy(), expected.to_numpy(), equal_nan=True)
