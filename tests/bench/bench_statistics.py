"""Coverage and error rates of the product's statistics, and what stopping early saves.

``python tests/bench/bench_statistics.py`` prints the tables (``make bench`` runs it);
``--calibrate`` prints the rows of ``analysis.stats.early_stopping.CALIBRATIONS``;
``--campaigns N`` sets how many campaigns are simulated a row.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.simulated_campaigns import (
    STUDY_CVS_PCT,
    Rates,
    blocked_logs,
    calibrate,
    rates,
    run,
    saving,
)

SEED = 20260101

#: What happens to a campaign beside noise: name, settings of the simulation.
CONDITIONS = {
    "noise alone": {},
    "drift of 3 %": {"drift_pct": 3.0},
    "two steps of 2 %": {"steps_pct": (2.0, -2.0)},
    "drift, step, 3 % outliers": {"drift_pct": 2.0, "steps_pct": (1.5,), "outliers": 0.03},
}

#: True energies of five images, % of a common level.
TRUTHS = {
    "all equal": (0.0, 0.0, 0.0, 0.0, 0.0),
    "as in the study": (0.0, 1.1, 2.5, 2.9, 2.8),
    "on the margin": (0.0, 1.0, 0.0, 1.0, 0.0),
}


def simulate(
    truth: Sequence[float], condition: str, blocks: int, campaigns: int, seed: int = SEED
) -> Rates:
    """Rates of one truth under one condition, with the study's coefficients of variation."""
    logs = blocked_logs(
        truth,
        STUDY_CVS_PCT,
        blocks,
        campaigns,
        np.random.default_rng(seed),
        **CONDITIONS[condition],
    )
    return rates(run(logs), truth)


def study() -> dict[str, np.ndarray]:
    """The published study's joules by image."""
    folder = ROOT / "tests" / "reference" / "study" / "preprocessed_results"
    return {
        path.name.split("-")[0]: np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1]
        for path in sorted(folder.glob("*-base_output.csv"))
    }


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_rates(campaigns: int) -> None:
    say(f"Five images, CVs of {', '.join(f'{c:g}' for c in STUDY_CVS_PCT)} %; α = 5 %, ±1 % margin")
    say(
        f"{campaigns} campaigns a row; Monte-Carlo standard error near 95 %: "
        f"{100 * math.sqrt(0.05 * 0.95 / campaigns):.2f} points\n"
    )
    say(
        f"{'condition':<27}{'truth':<17}{'blocks':>6}{'jointly':>9}{'a pair':>8}"
        f"{'false less/more':>17}{'false equivalent':>18}{'found':>7}"
    )
    for condition in CONDITIONS:
        for name, truth in TRUTHS.items():
            for blocks in (6, 10, 30):
                r = simulate(truth, condition, blocks, campaigns)
                found = "–" if r.decided is None else f"{100 * r.decided:.0f} %"
                say(
                    f"{condition:<27}{name:<17}{blocks:>6}{100 * r.coverage:>8.1f}%"
                    f"{100 * r.pair_coverage:>7.1f}%{100 * r.false_difference:>16.1f}%"
                    f"{100 * r.false_equivalent:>17.1f}%{found:>7}"
                )


def print_single_pair(campaigns: int) -> None:
    say("\nOne pair (no correction): coverage of the 95 % signed-rank interval")
    for blocks in (6, 8, 10, 12, 15, 20, 30):
        truth = (0.0, 1.0)
        logs = blocked_logs(
            truth, (1.9, 0.8), blocks, 5 * campaigns, np.random.default_rng(SEED), drift_pct=3.0
        )
        say(f"  {blocks:>2} blocks  {100 * rates(run(logs), truth).coverage:.2f} %")


def print_saving(campaigns: int) -> None:
    for name, truth in (
        ("effects as in the study", TRUTHS["as in the study"]),
        ("clear effects (0 to 16 %)", (0.0, 4.0, 8.0, 12.0, 16.0)),
    ):
        say(f"\nStopping early: five images, {name}, 10 to 30 blocks")
        say("precision  time used  joint coverage  false less/more  found (fixed design: found)")
        rows = saving(
            (1.5, 2.0, 2.5, 3.0, 4.0), truth, STUDY_CVS_PCT, campaigns=campaigns, seed=SEED
        )
        for row in rows:
            early, full = row.early, row.full
            say(
                f"  ±{row.precision_pct:.1f} %  {100 * row.share_of_time:7.0f} %"
                f"{100 * early.coverage:15.1f}%{100 * early.false_difference:16.1f}%"
                f"{100 * (early.decided or 0):7.0f} %  ({100 * (full.decided or 0):.0f} %)"
            )


def print_naive(campaigns: int) -> None:
    logs = blocked_logs((0.0, 0.0), (1.0, 1.0), 30, 5 * campaigns, np.random.default_rng(SEED))
    naive = rates(run(logs, precision_pct=0.5, blocks_min=6), (0.0, 0.0))
    say(
        "\nWhy it is calibrated: one pair of CV 1 %, stopped at ±0.5 % from block 6 on without "
        f"calibration, is covered in {100 * naive.coverage:.1f} % of campaigns"
    )


def print_calibrations() -> None:
    for images, campaigns in ((2, 20_000), (3, 10_000), (4, 6_000), (5, 4_000)):
        for blocks in (15, 20, 30, 50):
            say(
                f"    {calibrate(images, blocks, campaigns=campaigns // (2 if blocks > 30 else 1))},"
            )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calibrate", action="store_true", help="print CALIBRATIONS (minutes)")
    parser.add_argument("--campaigns", type=int, default=2000, help="simulated a row")
    args = parser.parse_args(argv)
    if args.calibrate:
        print_calibrations()
        return 0
    print_rates(args.campaigns)
    print_single_pair(args.campaigns)
    print_naive(args.campaigns)
    print_saving(args.campaigns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
