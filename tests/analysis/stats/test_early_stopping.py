"""Stopping early: the rule and its calibration."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tests.support import simulated_campaigns
from tests.support.simulated_campaigns import saving
from wattbench.analysis.model.trials import TrialRow, to_frame
from wattbench.analysis.stats import early_stopping
from wattbench.analysis.stats.conclude import conclude
from wattbench.analysis.stats.early_stopping import (
    calibrated,
    stop_after_block,
)
from wattbench.analysis.stats.results import Settings


def campaign(
    blocks: int, cv_pct: float, images: int = 3, planned: int = 30, seed: int = 1
) -> pd.DataFrame:
    """A host in mid-run: ``blocks`` measured, the rest of the plan still missing."""
    rng = np.random.default_rng(seed)
    rows = []
    for block in range(1, planned + 1):
        for k in range(images):
            done = block <= blocks
            joules = 100 * (1 + k / 10) * math.exp(rng.normal(0, cv_pct / 100))
            rows.append(
                TrialRow("r", "h", "workload", block, (block - 1) * images + k + 1,
                         (block - 1) * images + k + 1, "abcdef"[k], attempt=1,
                         status="valid" if done else "missing", energy_j=joules if done else None,
                         energy_scope="package" if done else None, energy_source="measured")
            )  # fmt: skip
    return to_frame(rows)


def settings(precision: float = 1.0, **more: object) -> Settings:
    values = {"precision_pct": precision, "blocks_min": 10, "blocks_max": 30} | more
    return Settings(**values)  # type: ignore[arg-type]


# The rule ---------------------------------------------------------------------------------------


def test_a_precise_host_stops_after_the_earliest_block_and_says_why() -> None:
    found = stop_after_block(campaign(10, 0.1), settings())
    assert found.stop
    assert found.blocks == 10
    assert found.reason == "every pair is known to ±1 % after 10 complete blocks"
    assert all(w is not None and w <= 1 for *_, w in found.half_widths)
    assert len(found.half_widths) == 3


def test_no_campaign_stops_before_the_earliest_block() -> None:
    assert not stop_after_block(campaign(9, 0.1), settings()).stop
    found = stop_after_block(campaign(9, 0.1), settings(blocks_min=3))
    assert (found.stop, found.reason) == (False, "9 complete blocks; the earliest stop is after 10")


def test_a_noisy_host_goes_on_and_names_its_widest_pair() -> None:
    found = stop_after_block(campaign(12, 3), settings())
    assert not found.stop
    widest = max(found.half_widths, key=lambda w: w[2] or 0)
    assert found.reason.startswith(
        f"{widest[0]} against {widest[1]} is known to ±{widest[2]:.2f} %"
    )


def test_a_failed_trial_makes_its_block_incomplete() -> None:
    frame = campaign(10, 0.1)
    frame.loc[4, "status"] = "failed"
    found = stop_after_block(frame, settings())
    assert (found.stop, found.blocks) == (False, 9)


def test_half_widths_are_those_of_the_conclusion_of_the_same_design() -> None:
    frame = campaign(14, 1.0)
    rule = stop_after_block(frame, settings(correction="bonferroni"))
    (host,) = conclude(frame, settings(correction="bonferroni")).hosts
    widths = {frozenset((a, b)): w for a, b, w in rule.half_widths}
    for pair in host.pairs:
        width = widths[frozenset((pair.a, pair.b))]
        assert width is not None
        if pair.simultaneous and pair.simultaneous.lower_pct != 0:
            assert pair.simultaneous.half_width_pct == pytest.approx(width, rel=0.15)
    assert host.stopping is not None
    assert host.stopping.blocks == rule.blocks


def test_one_image_never_stops() -> None:
    found = stop_after_block(campaign(12, 0.1, images=1), settings())
    assert (found.stop, found.half_widths) == (False, ())
    assert "one image only" in found.reason


def test_an_image_that_never_worked_keeps_the_host_running() -> None:
    frame = campaign(12, 0.1)
    frame.loc[frame["image"] == "c", "status"] = "failed"
    found = stop_after_block(frame, settings())
    assert (found.stop, found.blocks) == (False, 0)


def test_the_rule_needs_a_precision() -> None:
    with pytest.raises(ValueError, match="precision"):
        stop_after_block(campaign(10, 1), Settings())


# The calibration --------------------------------------------------------------------------------


def test_the_calibration_of_a_design_is_the_next_harder_one() -> None:
    assert calibrated(2, 18) == calibrated(2, 20)
    assert calibrated(2, 1000) == calibrated(2, 50) == calibrated(2, None)
    assert calibrated(9, 30).images == max(c.images for c in early_stopping.CALIBRATIONS)
    assert calibrated(2, 30).factor < calibrated(2, 15).factor <= 1


def test_every_calibration_covers_what_it_promises() -> None:
    for row in early_stopping.CALIBRATIONS:
        assert row.coverage >= 0.95
        assert row.coverage_fixed <= row.coverage


def test_fixed_designs_spend_all_of_alpha() -> None:
    assert early_stopping.factor(2, Settings()) == 1.0
    assert early_stopping.factor(2, settings()) == calibrated(2, 30).factor
    assert early_stopping.factor(1, settings()) == 1.0


def test_stopped_early_one_pair_is_covered_with_the_calibration_and_not_without() -> None:
    logs = simulated_campaigns.blocked_logs((0, 0), (1, 1), 30, 6000, np.random.default_rng(5))
    share = calibrated(2, 30).factor
    kept, naive = (
        simulated_campaigns.rates(
            simulated_campaigns.run(logs, precision_pct=0.62, blocks_min=10, factor=f), (0, 0)
        ).coverage
        for f in (share, 1.0)
    )
    error = math.sqrt(0.05 * 0.95 / 6000)
    assert kept >= 0.95 - 3 * error
    assert naive < 0.95 - 3 * error


def test_simulated_intervals_are_those_of_the_product() -> None:
    frame = campaign(12, 1.0, planned=12)
    (host,) = conclude(frame, Settings(reference="a", correction="bonferroni")).hosts
    wide = frame.pivot_table(index="block", columns="image", values="energy_j")
    outcome = simulated_campaigns.run(np.log(wide.to_numpy())[None])
    for k, pair in enumerate(host.pairs):
        assert pair.simultaneous is not None
        assert pair.simultaneous.lower_pct == pytest.approx(100 * np.expm1(outcome.lower[0, k]))
        assert pair.simultaneous.upper_pct == pytest.approx(100 * np.expm1(outcome.upper[0, k]))
    (holm,) = conclude(frame, Settings(reference="a")).hosts
    assert [p.p_adjusted for p in holm.pairs] == pytest.approx(list(outcome.p[0]))
    tost = [p.equivalence.p_adjusted for p in holm.pairs if p.equivalence]
    assert tost == pytest.approx(list(outcome.p_equal[0]))


def test_clear_differences_are_found_in_little_more_than_a_third_of_the_time() -> None:
    truth = (0.0, 6.0, 12.0)
    (row,) = saving([2.5], truth, (1.0, 1.2, 1.5), campaigns=300)
    assert row.share_of_time < 0.45
    assert row.early.decided == row.full.decided == 1.0
    assert row.early.false_difference <= 0.05


# The study --------------------------------------------------------------------------------------
