"""Power: against statsmodels, simulation and the study's own size; and the command."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from tests.support.simulated_campaigns import blocked_logs, rates, run
from wattbench.analysis.commands import power as command
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.model.trials import TrialRow, to_frame
from wattbench.analysis.stats.power import (
    EFFICIENCY,
    detectable_pct,
    needs,
    noise_from_cv,
    pooled_sd_pct,
    power,
    smallest_n,
    trials_needed,
    trials_to_decide,
)
from wattbench.analysis.stats.ranks import RankShift


@pytest.mark.parametrize(("n", "effect"), [(12, 1.0), (30, 0.5), (60, 2.0)])
def test_power_is_students_at_the_efficiency_of_rank_tests(n: int, effect: float) -> None:
    d = math.log1p(effect / 100) / 0.015
    paired = TTestPower().power(d, n * EFFICIENCY, 0.05)
    assert power(n, effect, 1.5) == pytest.approx(paired, abs=2e-3)
    independent = TTestIndPower().power(d, n * EFFICIENCY, 0.05)
    assert power(n, effect, 1.5, blocked=False) == pytest.approx(independent, abs=2e-3)


@pytest.mark.parametrize(("n", "effect"), [(10, 1.5), (20, 1.0), (30, 0.8)])
def test_power_is_what_simulated_campaigns_show(n: int, effect: float) -> None:
    truth = (0.0, effect)
    logs = blocked_logs(truth, (1.0, 1.0), n, 3000, np.random.default_rng(n))
    simulated = rates(run(logs), truth).decided
    # 3 standard errors, and what the discreteness of the exact test takes away
    assert power(n, effect, math.sqrt(2)) == pytest.approx(simulated, abs=0.045)


def test_thirty_trials_of_the_study_detect_what_it_says() -> None:
    # Five images, ten pairs, CVs from 0.8 %: "about 0.65–0.85 % at the lower end", unblocked.
    alone = detectable_pct(30, 0.8, alpha=0.05, blocked=False)
    corrected = detectable_pct(30, 0.8, alpha=0.005, blocked=False)
    assert alone is not None
    assert corrected is not None
    assert alone == pytest.approx(0.6, abs=0.05)
    assert corrected == pytest.approx(0.8, abs=0.05)


def test_needed_and_detectable_are_inverse() -> None:
    n = trials_needed(1.0, 1.4, alpha=0.01)
    assert n is not None
    assert power(n, 1.0, 1.4, alpha=0.01) >= 0.8 > power(n - 1, 1.0, 1.4, alpha=0.01)
    found = detectable_pct(n, 1.4, alpha=0.01)
    assert found is not None
    assert found <= 1.0
    assert power(n, found, 1.4, alpha=0.01) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("alpha", "blocks"), [(0.05, 6), (0.005, 9), (0.05 / 3, 7)])
def test_no_exact_test_rejects_below_its_smallest_size(alpha: float, blocks: int) -> None:
    assert smallest_n(alpha) == blocks
    assert 2 / 2**blocks <= alpha < 2 / 2 ** (blocks - 1)
    assert power(blocks - 1, 50, 1, alpha=alpha) == 0
    assert detectable_pct(blocks - 1, 1, alpha=alpha) is None
    assert trials_needed(50, 1, alpha=alpha) == blocks


def test_noise_free_images_need_no_more_than_the_smallest_size() -> None:
    assert trials_needed(0.1, 0.0) == 6
    assert detectable_pct(6, 0.0) == 0.0
    assert power(6, 0.0, 0.0) == 0.0


def test_hopeless_effects_are_none_not_a_huge_number() -> None:
    assert trials_needed(0.001, 50.0) is None


def test_pooled_sd_needs_two_values_of_each() -> None:
    a = np.log([100.0, 102.0, 98.0])
    assert pooled_sd_pct(a, a[:1]) is None
    assert pooled_sd_pct(a, a) == pytest.approx(100 * a.std(ddof=1))


def test_blocking_pays_by_what_images_of_a_block_have_in_common() -> None:
    free, shared = (noise_from_cv([1.0], c)[0].paired_pct for c in (0.0, 0.75))
    assert free == pytest.approx(math.sqrt(2))
    assert shared == pytest.approx(math.sqrt(0.5))
    rows = needs(noise_from_cv([1.0], 0.75), [1.0], alpha=0.05, target=0.8)
    blocked, unblocked = rows
    assert blocked.trials is not None
    assert unblocked.trials is not None
    assert blocked.trials < unblocked.trials


# The command ------------------------------------------------------------------------------------


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["power", *argv])


def test_the_table_names_effects_noise_and_the_smallest_campaign(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.run(parse("--cv", "0.8,1.9", "--effect", "1,2", "--blocks", "30")) == 0
    out = capsys.readouterr().out
    assert "5 images, 10 pairs, family-wise α = 0.05" in out
    expected = trials_needed(1, 0.8 * math.sqrt(2), alpha=0.005)
    row = next(line for line in out.splitlines() if line.startswith("CV 0.8 %  blocked"))
    assert row.split()[-2] == str(expected)
    assert "Below 9 blocks" in out
    assert "smallest effect found by 30" in out


def test_the_noise_can_come_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows = [
        TrialRow("r", "h", "workload", block, 2 * block + k, None, image, status="valid",
                 energy_j=100 * math.exp(rng.normal(0, 0.01)), energy_scope="package")
        for block in range(1, 21) for k, image in enumerate(("a", "b"))
    ]  # fmt: skip
    frame = to_frame(rows)
    write_frame(frame, tmp_path / "trials.csv")
    assert command.run(parse("--from", str(tmp_path))) == 0
    from_csv = capsys.readouterr().out
    assert "2 images, 1 pair," in from_csv
    logs = np.log(frame.pivot_table(index="block", columns="image", values="energy_j"))
    paired = float(100 * (logs["b"] - logs["a"]).std())
    assert f"blocked    {paired:.2f}" in from_csv
    frame.to_parquet(tmp_path / "trials.parquet")
    (tmp_path / "trials.csv").unlink()
    assert command.run(parse("--from", str(tmp_path))) == 0
    assert capsys.readouterr().out == from_csv


def test_a_run_of_one_image_has_no_noise_to_tell(tmp_path: Path) -> None:
    rows = [TrialRow("r", "h", "workload", b, b, b, "a", status="valid", energy_j=1.0 + b)
            for b in range(1, 9)]  # fmt: skip
    write_frame(to_frame(rows), tmp_path / "trials.csv")
    with pytest.raises(UserError, match="no two images have at least two valid trials"):
        command.run(parse("--from", str(tmp_path)))


def test_the_figure_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "power.svg"
    assert command.run(parse("--cv", "1", "--effect", "1", "--plot", str(target))) == 0
    assert target.read_text().startswith("<?xml")
    assert f"figure: {target}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cv", "1", "--alpha", "2"], "--alpha 2: give a number between 0 and 0.5"),
        (["--cv", "1", "--power", "1"], "--power 1: give a number between 0 and 1"),
        (["--cv", "1", "--images", "1"], "--images 1: a comparison needs at least 2"),
        (["--cv", "1", "--blocks", "0"], "--blocks 0: give a number of at least 1"),
        (["--cv", "1", "--correlation", "1"], "--correlation 1: give a number from 0 to below 1"),
        (["--cv", "1", "--plot", "x.gif"], "--plot x.gif: name a .svg, .png or .pdf file"),
        (["--from", "/nowhere"], "/nowhere: no such folder"),
        (["--from", str(Path(__file__).parent)], f"{Path(__file__).parent}: holds none of trials."),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        command.run(parse(*argv))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "run_id,host\n\x00,\xff\n"])
def test_a_file_that_is_no_table_of_trials_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trials.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        command.run(parse("--from", str(path)))
    assert str(path) in str(caught.value)


def test_a_table_too_large_to_be_one_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(UserError, match="over 268 MB; it is not read"):
        command.run(parse("--from", str(path)))


def test_numbers_that_are_none_are_refused_by_the_parser(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for text in ("x", "1,-2", "nan"):
        with pytest.raises(SystemExit) as caught:
            parse("--cv", text)
        assert caught.value.code == 2
    assert "is not a list of numbers" in capsys.readouterr().err


def test_the_trials_that_decide_a_pair_do_so_in_four_of_five_runs() -> None:
    """Simulated runs, judged by signed-rank tests and intervals that the power module does not use."""
    margin_pct, sd_pct = 1.0, 1.5
    n = trials_to_decide(margin_pct, sd_pct)
    assert n is not None
    rng = np.random.default_rng(11)
    margin = math.log1p(margin_pct / 100)
    same = rng.normal(0, sd_pct / 100, (300, n))
    different = same + margin
    found = np.mean([stats.wilcoxon(row).pvalue <= 0.05 for row in different])
    bounds = [RankShift.signed_rank(row).interval(0.90) for row in same]
    equivalent = np.mean([-margin < low and high < margin for low, high in bounds])
    assert 0.75 < min(found, equivalent) < 0.92


def test_without_noise_the_smallest_sample_decides() -> None:
    assert trials_to_decide(1.0, 0.0, alpha=0.05) == smallest_n(0.05)


def test_noise_beyond_reach_has_no_answer() -> None:
    assert trials_to_decide(0.01, 50.0) is None
