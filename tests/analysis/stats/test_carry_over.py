"""Carry-over against statsmodels' analysis of variance, and on simulated runs of known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.stats import carry_over
from wattbench.config.experiment import Protocol
from wattbench.run.plan import make_plan

IMAGES = ["a", "b", "c", "d"]
EFFECTS = {"a": 0.0, "b": 0.02, "c": 0.05, "d": 0.10}


def simulated(
    seed: int, carried: float, blocks: int = 30, order: str = "random", sd: float = 0.01
) -> pd.DataFrame:
    """A run in planned order; ``d`` before a trial adds ``carried`` to its log joules."""
    rng = np.random.default_rng(seed)
    protocol = Protocol.model_validate({"blocks": blocks, "order": order, "idle_baseline": None})
    plan = make_plan(IMAGES, protocol, "h", str(seed))
    drift = rng.normal(0, 0.02, blocks + 1)
    rows = []
    for before, trial in zip([None, *plan], plan, strict=False):
        value = 5 + EFFECTS[trial.image] + drift[trial.block] + rng.normal(0, sd)
        value += carried if before is not None and before.image == "d" else 0.0
        rows.append(
            {"run_id": "r", "kind": "workload", "image": trial.image, "position": trial.planned_position,
             "block_key": f"r/{trial.block:06d}", "joules": np.exp(value)}
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(after=carry_over.preceding(frame))


def test_the_statistic_is_that_of_an_analysis_of_variance() -> None:
    rows = simulated(1, carried=0.01)
    found = carry_over.judge(rows, "a")
    used = rows.dropna(subset=["after"]).assign(log_j=lambda r: np.log(r["joules"]))
    base = smf.ols("log_j ~ C(block_key) + C(image)", used).fit()
    full = smf.ols("log_j ~ C(block_key) + C(image) + C(after)", used).fit()
    expected = anova_lm(base, full).iloc[1]
    assert found.f == pytest.approx(expected["F"])
    assert found.p == pytest.approx(expected["Pr(>F)"])
    assert (found.df, found.residual_df) == (expected["df_diff"], expected["df_resid"])
    adjusted = {c.image: c.adjusted_pct for c in found.changes}
    assert adjusted["d"] == pytest.approx(100 * np.expm1(full.params["C(image)[T.d]"]))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "williams"])
def test_none_is_found_where_none_is_at_the_nominal_rate(order: str) -> None:
    found = sum(carry_over.judge(simulated(s, 0.0, 12, order), "a").found for s in range(300))
    # Binomial(300, 0.05): 15 ± 3 · 3.8
    assert found <= 27


def test_a_planted_carry_over_is_found_and_adjusted_for() -> None:
    found = carry_over.judge(simulated(3, 0.03, 30), "a")
    assert found.found
    truth = {i: 100 * np.expm1(e) for i, e in EFFECTS.items()}
    for change in found.changes:
        assert change.adjusted_pct == pytest.approx(truth[change.image], abs=1.0)
    finding = carry_over.to_finding("host h", found)
    assert finding.verdict is Verdict.FOUND
    assert "goes from" in finding.message


def test_the_trial_before_may_be_of_any_kind_and_a_gap_is_unknown() -> None:
    frame = pd.DataFrame(
        {"run_id": ["r", "r", "r", "r", "s"], "kind": ["workload", "idle", "control", "workload", "workload"],
         "image": ["a", "a", "control", "b", "a"], "position": [1, 2, 3, 5, 2]}
    )  # fmt: skip
    assert list(carry_over.preceding(frame)) == [None, "a", "a (idle)", None, None]


@pytest.mark.parametrize(("blocks", "sd"), [(2, 0.01), (30, 0.0)])
def test_too_few_trials_or_no_variation_are_undecidable(blocks: int, sd: float) -> None:
    rows = simulated(4, 0.0, blocks, sd=sd)
    if sd == 0:
        rows["joules"] = 1.0
    found = carry_over.judge(rows, "a")
    assert found.p is None
    assert found.reason
    assert carry_over.to_finding("host h", found).verdict is Verdict.UNDECIDABLE
