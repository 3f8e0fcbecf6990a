"""What matters, against statsmodels' regression with effects of blocks, and against closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from wattbench.analysis.model.trials import TrialRow, to_frame
from wattbench.analysis.stats.factors import Effect, what_matters
from wattbench.analysis.stats.results import PairVerdict, Settings

SETTINGS = Settings(reference="ref")
ONE_FACTOR = {"omp-1": {"omp": "1"}, "omp-4": {"omp": "4"}, "isa-sse": {"isa": "sse"}}
COMBINED = {
    "omp-1": {"omp": "1"},
    "isa-sse": {"isa": "sse"},
    "omp-1-isa-sse": {"omp": "1", "isa": "sse"},
}


def campaign(
    logs: dict[str, float],
    blocks: int = 12,
    sd: float = 0.01,
    hosts: int = 1,
    seed: int = 4,
    lost: tuple[tuple[int, str], ...] = (),
) -> pd.DataFrame:
    """Joules are exp(level of the block + log of the image + noise); seconds likewise, a tenth of it."""
    rng = np.random.default_rng(seed)
    rows = []
    for host, block in itertools.product(range(hosts), range(1, blocks + 1)):
        level = rng.normal(5 + host, 0.05)
        for place, (image, log) in enumerate(logs.items()):
            joules, seconds = (math.exp(level + k * log + rng.normal(0, sd)) for k in (1.0, 0.1))
            fate = "failed" if (block, image) in lost else "valid"
            rows.append(
                TrialRow(
                    "r", f"h{host}", "workload", block, place + 1, place + 1, image, attempt=1, status=fate,
                    energy_j=joules, duration_s=seconds, energy_scope="package", energy_source="measured",
                )
            )  # fmt: skip
    return to_frame(rows)


def effects(trials: pd.DataFrame, **experiment: object) -> dict[tuple[str, str], Effect]:
    found = what_matters(trials, SETTINGS, {"reference": "ref"} | experiment, {})
    return {(e.factor, e.level): e for e in found}


def log_of(effect: Effect) -> float:
    assert effect.energy is not None
    assert effect.energy.estimate_pct is not None
    return math.log1p(effect.energy.estimate_pct / 100)


def regression(trials: pd.DataFrame, terms: str, **columns: dict[str, str]) -> pd.Series:
    """Coefficients of log joules on the factors' levels and the blocks, by ordinary least squares."""
    frame = trials.astype({"block": int}).assign(
        log=np.log(trials["energy_j"].astype(float)),
        **{name: trials["image"].map(levels).fillna("0") for name, levels in columns.items()},
    )
    return smf.ols(f"log ~ {terms} + C(host) : C(block)", frame).fit().params


def test_one_factor_effects_are_those_of_a_regression_with_effects_of_blocks() -> None:
    logs = {"ref": 0.0, "omp-1": 0.3, "omp-4": -0.05, "isa-sse": 1.1}
    trials = campaign(logs, blocks=30, sd=0.004)
    found = effects(trials, variants=ONE_FACTOR)
    expected = regression(
        trials, "C(omp) + C(isa)", omp={"omp-1": "1", "omp-4": "4"}, isa={"isa-sse": "sse"}
    )
    # Hodges and Lehmann's centre and the mean differ by less than the noise.
    assert log_of(found["omp", "1"]) == pytest.approx(expected["C(omp)[T.1]"], abs=0.001)
    assert log_of(found["omp", "4"]) == pytest.approx(expected["C(omp)[T.4]"], abs=0.001)
    assert log_of(found["isa", "sse"]) == pytest.approx(expected["C(isa)[T.sse]"], abs=0.001)


def test_over_hosts_effects_are_exactly_the_regressions() -> None:
    """Equal numbers of blocks make the mean over hosts that of all blocks."""
    trials = campaign({"ref": 0.0, "omp-1": 0.3, "omp-4": -0.05, "isa-sse": 1.1}, hosts=2)
    found = effects(trials, variants=ONE_FACTOR)
    expected = regression(
        trials, "C(omp) + C(isa)", omp={"omp-1": "1", "omp-4": "4"}, isa={"isa-sse": "sse"}
    )
    for (factor, level), name in {("omp", "1"): "C(omp)[T.1]", ("omp", "4"): "C(omp)[T.4]",
                                  ("isa", "sse"): "C(isa)[T.sse]"}.items():  # fmt: skip
        assert log_of(found[factor, level]) == pytest.approx(expected[name], abs=1e-9)


def test_combined_levels_give_main_effects_and_the_interaction_of_a_regression() -> None:
    logs = {"ref": 0.0, "omp-1": 0.2, "isa-sse": 0.5, "omp-1-isa-sse": 0.2 + 0.5 - 0.12}
    trials = campaign(logs, hosts=2, blocks=15)
    found = effects(trials, variants=COMBINED)
    # Levels coded as −½ and +½: a coefficient is the effect averaged over the other factor.
    frame = {
        "omp": {"ref": "-0.5", "isa-sse": "-0.5", "omp-1": "0.5", "omp-1-isa-sse": "0.5"},
        "isa": {"ref": "-0.5", "omp-1": "-0.5", "isa-sse": "0.5", "omp-1-isa-sse": "0.5"},
    }
    numeric = trials.assign(
        **{name: trials["image"].map(levels).astype(float) for name, levels in frame.items()},
        log=np.log(trials["energy_j"].astype(float)),
        block=trials["block"].astype(int),
    )
    expected = smf.ols("log ~ omp * isa + C(host) : C(block)", numeric).fit().params
    assert log_of(found["omp", "1"]) == pytest.approx(expected["omp"], abs=1e-9)
    assert log_of(found["isa", "sse"]) == pytest.approx(expected["isa"], abs=1e-9)
    assert log_of(found["isa × omp", "sse × 1"]) == pytest.approx(expected["omp:isa"], abs=1e-9)
    assert found["isa × omp", "sse × 1"].energy.verdict is PairVerdict.LESS


def test_effects_come_by_size_and_interactions_last() -> None:
    logs = {"ref": 0.0, "omp-1": -0.4, "isa-sse": 0.3, "omp-1-isa-sse": 0.9}
    found = what_matters(campaign(logs), SETTINGS, {"reference": "ref", "variants": COMBINED}, {})
    assert [e.kind for e in found] == ["factor", "factor", "interaction"]
    # On average over the other: isa 0.3 and 1.3, omp −0.4 and 0.6.
    assert [e.factor for e in found[:2]] == ["isa", "omp"]


def test_time_and_size_stand_beside_energy() -> None:
    found = what_matters(
        campaign({"ref": 0.0, "omp-1": 0.3}),
        SETTINGS,
        {"reference": "ref", "variants": {"omp-1": {"omp": "1"}}},
        {"ref": 1000.0, "omp-1": 1250.0},
    )
    (effect,) = found
    assert effect.time is not None
    assert effect.time.estimate_pct == pytest.approx(100 * math.expm1(0.03), abs=0.5)
    assert (effect.size_mb, effect.size_pct) == (250.0, pytest.approx(25.0))
    assert effect.energy.simultaneous.lower_pct > 30


def rungs(*numbers: int) -> dict[str, list[dict[str, object]]]:
    images = [*(f"fat-layer-{n}" for n in numbers[:-1]), "fat"]
    return {
        "fat": [
            {"image": image, "number": n, "instruction": f"RUN step {n}"}
            for n, image in zip(numbers, images, strict=True)
        ]
    }


def test_a_layer_is_compared_with_the_rung_below_it() -> None:
    logs = {"fat-layer-0": 0.0, "fat-layer-1": 0.2, "fat": 0.15}
    found = effects(campaign(logs | {"ref": 0.0}), ladders=rungs(0, 1, 2))
    assert {k: round(log_of(e), 1) for k, e in found.items()} == {
        ("fat", "1: RUN step 1"): 0.2,
        ("fat", "2: RUN step 2"): -0.1,
    }
    assert [(e.image, e.against) for e in found.values()] == [
        ("fat-layer-1", "fat-layer-0"),
        ("fat", "fat-layer-1"),
    ]


def test_rungs_that_were_left_out_count_with_the_next_one() -> None:
    """The base can't run yet, and a rung in the middle is lost."""
    logs = {"ref": 0.0, "fat-layer-1": 0.2, "fat": 0.15}
    found = effects(campaign(logs), ladders=rungs(0, 1, 2, 3))
    ((_, level),) = found
    assert level == "2: RUN step 2; 3: RUN step 3"


def test_a_level_whose_image_was_left_out_says_so() -> None:
    found = effects(campaign({"ref": 0.0, "isa-sse": 0.1, "omp-4": 0.0}), variants=ONE_FACTOR)
    gone = found["omp", "1"]
    assert gone.energy is None
    assert gone.reason == "an image of the comparison was left out"
    assert found["isa", "sse"].energy is not None


def test_blocks_that_lost_an_image_count_for_the_other_effects_only() -> None:
    trials = campaign(
        {"ref": 0.0, "omp-1": 0.1, "isa-sse": 0.1, "omp-4": 0.0}, lost=((3, "omp-1"), (4, "omp-1"))
    )
    found = effects(trials, variants=ONE_FACTOR)
    assert [found[k].energy.n for k in (("omp", "1"), ("isa", "sse"))] == [10, 12]


def test_all_effects_are_one_family_of_tests() -> None:
    trials = campaign({"ref": 0.0, "omp-1": 0.004, "omp-4": -0.003, "isa-sse": 0.9})
    found = effects(trials, variants=ONE_FACTOR)
    smallest, middle, largest = sorted(e.energy.p for e in found.values())
    # Holm 1979
    expected = [3 * smallest, max(3 * smallest, 2 * middle), max(3 * smallest, 2 * middle, largest)]
    assert sorted(e.energy.p_adjusted for e in found.values()) == pytest.approx(
        [min(1.0, p) for p in expected]
    )


def test_an_experiment_without_factors_has_no_effects() -> None:
    assert effects(campaign({"ref": 0.0, "other": 0.1})) == {}


def test_a_run_without_a_valid_trial_has_effects_without_numbers() -> None:
    trials = campaign({"ref": 0.0, "omp-1": 0.1}).assign(status="failed")
    (effect,) = effects(trials, variants={"omp-1": {"omp": "1"}}).values()
    assert effect.energy is None


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
def test_intervals_of_all_effects_hold_together_at_the_nominal_rate(hosts: int) -> None:
    """The limit is 95 % less three Monte-Carlo standard errors."""
    campaigns = 120
    logs = {"ref": 0.0, "omp-1": 0.01, "isa-sse": 0.5, "omp-1-isa-sse": 0.51}
    truth = {("omp", "1"): 0.01, ("isa", "sse"): 0.5}
    covered = 0
    for seed in range(campaigns):
        found = effects(campaign(logs, 10, 0.01, hosts, seed), variants=COMBINED)
        bounds = {k: found[k].energy.simultaneous for k in truth}
        covered += all(
            b.lower_pct <= 100 * math.expm1(truth[k]) <= b.upper_pct for k, b in bounds.items()
        )
    assert covered / campaigns >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / campaigns)
