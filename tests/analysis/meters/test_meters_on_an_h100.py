"""NVML's counter, its power and its mean power of one real GPU, against each other.

``tests/reference/h100`` holds what the agent read of an H100 (driver 580.159) in two trials of
``tests/bench/bench_gpu.py``: ResNet-50, fp16, 32 images of 224 pixels, and an idle one after another
trial. There is no truth, but three readings of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from wattbench.analysis.meters.curves import Curve
from wattbench.analysis.meters.readers.nvml import nvml_reading
from wattbench.analysis.meters.reading import Edge
from wattbench.analysis.meters.window import Split, split

FOLDER = Path(__file__).parents[2] / "reference/h100"


@dataclass(frozen=True)
class Trial:
    """A file, the counter at the window's edges (s, mJ), and where phases end between them, s."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]
    phases_s: tuple[float, ...] = ()

    def curve(self, meter: str, *, without: str | None = None) -> Curve:
        lines = [line.split(",") for line in (FOLDER / f"{self.name}.csv").read_text().splitlines()]
        kept = [i for i, name in enumerate(lines[0]) if name != without]
        data = "".join(",".join(cells[i] for i in kept) + "\n" for cells in lines).encode()
        edges = [Edge(t, {"nvml_mj": {"0": mj}}) for t, mj in (self.start, self.end)]
        return next(c for c in nvml_reading(data, edges).curves if c.meter == meter)

    def split(self, curve: Curve) -> Split:
        return split(curve, [self.start[0], *self.phases_s, self.end[0]])

    @property
    def counter(self) -> Split:
        return self.split(self.curve("nvml"))

    @property
    def power(self) -> Split:
        return self.split(self.curve("nvml-power"))

    @property
    def mean(self) -> Curve:
        """As of a driver that gives the mean of the last second only."""
        return self.curve("nvml-power", without="gpu0_power_instant_mw")


WORK = Trial(
    "resnet50_fp16",
    (1795660727.5444546, 27212153),
    (1795660743.2638366, 32249663),
    # start, import, load, warmup; steady; stop
    (1795660727.888715, 1795660731.6274803, 1795660732.0883582, 1795660732.4385633, 1795660742.7554169),
)  # fmt: skip
IDLE = Trial("idle", (1795660698.7592304, 21736581), (1795660708.7606914, 22501981))
BOTH = pytest.mark.parametrize("trial", [WORK, IDLE], ids=["work", "idle"])


@BOTH
def test_counter_and_power_agree_and_know_how_well(trial: Trial) -> None:
    counter, power = trial.counter, trial.power
    assert power.total_j == pytest.approx(counter.total_j, rel=0.01)
    assert abs(power.total_j - counter.total_j) <= (
        power.total_uncertainty_j + counter.total_uncertainty_j
    )
    assert counter.total_uncertainty_j <= 0.02 * counter.total_j
    assert counter.total_j == pytest.approx((trial.end[1] - trial.start[1]) / 1e3, rel=0.005)


def test_phases_agree_too() -> None:
    counter, power = WORK.counter, WORK.power
    apart = abs(counter.energy_j - power.energy_j)
    assert (apart <= counter.uncertainty_j + power.uncertainty_j).all()
    # 74,336 images at 7,200 a second
    assert counter.energy_j[4] / 74336 == pytest.approx(0.0606, rel=0.01)


@BOTH
def test_mean_of_a_second_lags_by_what_it_says(trial: Trial) -> None:
    counter, mean = trial.counter, trial.split(trial.mean)
    assert trial.mean.averaged_s == 1.0
    assert abs(mean.total_j - counter.total_j) <= mean.total_uncertainty_j


def test_mean_taken_for_the_power_of_the_moment_would_be_wrong() -> None:
    """The second before an idle trial belongs to the trial before it."""
    assert IDLE.split(IDLE.mean).total_j > 1.02 * IDLE.counter.total_j
