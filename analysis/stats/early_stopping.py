"""Early stopping: sequential intervals with calibrated coverage.

After every complete block a host may stop once every pair of images is known to a given
half-width. Looking again and
again at the same interval makes it too narrow: it stops when the noise happens to look small. So
the error rate spent on each pair is a calibrated share (``factor``) of the fixed design's. The
share was found by simulating the very intervals used, at the precision that does most harm; with
many pairs Bonferroni's own slack pays for the looks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from wattbench.analysis.stats.endpoints import HostTrials, host_trials, images_of
from wattbench.analysis.stats.ranks import RankShift
from wattbench.analysis.stats.results import Settings, StopDecision
from wattbench.analysis.stats.verdicts import interval_of

Array = npt.NDArray[np.float64]

#: No campaign stops before this many blocks; the calibration starts here.
EARLIEST = 10


@dataclass(frozen=True)
class Calibration:
    """What repeated looks cost one design.

    Attributes:
        images: compared.
        blocks_max: planned.
        factor: share of α/pairs spent on each pair.
        coverage: joint coverage of intervals at that share, at the most harmful precision.
        coverage_fixed: joint coverage of the fixed design's intervals under the same stopping.
    """

    images: int
    blocks_max: int
    factor: float
    coverage: float
    coverage_fixed: float


#: At α = 0.05 and looks from block 10 on, by
#: ``python tests/bench/bench_statistics.py --calibrate`` (seed 20260101).
CALIBRATIONS: tuple[Calibration, ...] = (
    Calibration(2, 15, 0.80, 0.953, 0.941),
    Calibration(2, 20, 0.80, 0.951, 0.940),
    Calibration(2, 30, 0.70, 0.953, 0.934),
    Calibration(2, 50, 0.70, 0.953, 0.932),
    Calibration(3, 15, 1.00, 0.954, 0.954),
    Calibration(3, 20, 1.00, 0.953, 0.953),
    Calibration(3, 30, 1.00, 0.951, 0.951),
    Calibration(3, 50, 1.00, 0.950, 0.950),
    Calibration(4, 15, 1.00, 0.963, 0.963),
    Calibration(4, 20, 1.00, 0.956, 0.956),
    Calibration(4, 30, 1.00, 0.955, 0.955),
    Calibration(4, 50, 0.95, 0.954, 0.950),
    Calibration(5, 15, 1.00, 0.962, 0.962),
    Calibration(5, 20, 1.00, 0.956, 0.956),
    Calibration(5, 30, 1.00, 0.952, 0.952),
    Calibration(5, 50, 1.00, 0.951, 0.951),
)


def calibrated(images: int, blocks_max: int | None) -> Calibration:
    """The calibration for a design, the next harder one where it is not in the table.

    More blocks mean more looks, fewer images less slack. Beyond the table's largest design its
    last row holds: further looks add little once intervals are that narrow.
    """
    fewer = [c for c in CALIBRATIONS if c.images <= max(2, images)]
    row = [c for c in fewer if c.images == max(f.images for f in fewer)]
    wanted = blocks_max if blocks_max is not None else math.inf
    enough = [c for c in row if c.blocks_max >= wanted]
    return min(enough, key=lambda c: c.blocks_max) if enough else max(row, key=_longest)


def _longest(calibration: Calibration) -> int:
    return calibration.blocks_max


def factor(images: int, settings: Settings) -> float:
    """Share of α that a run may spend: 1 unless it stops early."""
    if settings.precision_pct is None or images < 2:
        return 1.0
    return calibrated(images, settings.blocks_max).factor


def stop_after_block(frame_of_host: pd.DataFrame, settings: Settings) -> StopDecision:
    """Whether a host has measured enough.

    Args:
        frame_of_host: its rows in the schema of :mod:`analysis.trials`, those not yet executed
            included.
        settings: ``precision_pct`` (required), ``blocks_min`` and ``blocks_max``.

    Returns:
        ``stop`` once every pair's simultaneous interval has a half-width of at most
        ``precision_pct``, from ``blocks_min`` (at least 10) complete blocks on.

    Raises:
        ValueError: the settings name no precision.
    """
    if settings.precision_pct is None:
        raise ValueError("no precision to stop at: set blocks.precision_pct")
    hosts = frame_of_host["host"].fillna("").unique()
    images = images_of(frame_of_host, settings.reference)
    trials = host_trials(
        frame_of_host, str(hosts[0]) if len(hosts) else "", images, settings.endpoint
    )
    return judge(trials, settings)


def judge(trials: HostTrials, settings: Settings) -> StopDecision:
    """The rule itself, on one host's trials."""
    precision = settings.precision_pct or 0.0
    calibration = calibrated(len(trials.images), settings.blocks_max)
    pairs = list(itertools.combinations(trials.images, 2))
    per_pair = settings.alpha / max(1, len(pairs))
    level = 1 - calibration.factor * per_pair
    table = trials.table()
    complete = int(table.notna().all(axis=1).sum()) if len(pairs) else 0
    widths = tuple(
        (a, b, _half_width((table[a] - table[b]).dropna().to_numpy(float), level)) for b, a in pairs
    )
    start = max(EARLIEST, settings.blocks_min or EARLIEST)
    wide = [(a, b, w) for a, b, w in widths if w is None or w > precision]
    stop = bool(pairs) and complete >= start and not wide
    return StopDecision(
        stop=stop,
        blocks=complete,
        precision_pct=precision,
        half_widths=widths,
        level=level,
        factor=calibration.factor,
        fixed_level=1 - per_pair,
        coverage_fixed=calibration.coverage_fixed,
        reason=_reason(stop, complete, start, precision, wide, bool(pairs)),
    )


def _half_width(differences: Array, level: float) -> float | None:
    if len(differences) == 0:
        return None
    return interval_of(RankShift.signed_rank(differences), level).half_width_pct


def _reason(
    stop: bool,
    complete: int,
    start: int,
    precision: float,
    wide: Sequence[tuple[str, str, float | None]],
    comparable: bool,
) -> str:
    if not comparable:
        return "one image only: there is nothing to compare"
    if stop:
        return f"every pair is known to ±{precision:g} % after {complete} complete blocks"
    if complete < start:
        return f"{complete} complete blocks; the earliest stop is after {start}"
    a, b, width = max(wide, key=lambda w: math.inf if w[2] is None else w[2])
    so_far = "has no bounded interval yet" if width is None else f"is known to ±{width:.2f} %"
    return f"{a} against {b} {so_far} after {complete} complete blocks; asked for: ±{precision:g} %"
