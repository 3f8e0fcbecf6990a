"""A machine of known truth, metered as EnergiBridge meters it.

Power is a sequence of phases, each at a level with noise around it; the true energy of any window is the
integral. The log has the tool's manners: a counter of limited width with an arbitrary start and the unit's
steps, a second row right after the first, ``Time`` taken just before a row's sample (row 1: just after it),
ticks with jitter, a last row up to one interval after the command's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

START_S = 1_750_000_000.0
GRID_S = 0.001


@dataclass(frozen=True)
class Level:
    """One phase of the truth: mean power, and noise as a share of it (a slow wander plus flicker)."""

    name: str
    seconds: float
    watts: float
    noise: float = 0.03


class Machine:
    """Power of one domain over time; ``begin_s`` to ``end_s`` is the command."""

    def __init__(
        self, levels: Sequence[Level], seed: int, idle_w: float = 10.0, margin_s: float = 0.25
    ) -> None:
        generator = np.random.default_rng(seed)
        self.begin_s = START_S + margin_s
        self.end_s = self.begin_s + sum(level.seconds for level in levels)
        self.edges_s = self.begin_s + np.cumsum([0.0, *(level.seconds for level in levels)])
        # Idle before; idle for a minute after, so that the last tick falls into the truth.
        everything = [
            Level("before", margin_s, idle_w),
            *levels,
            Level("after", 60.0, idle_w),
        ]
        borders = np.cumsum([0.0, *(level.seconds for level in everything)])
        grid = np.arange(0.0, borders[-1], GRID_S)
        which = np.minimum(np.searchsorted(borders, grid, "right") - 1, len(everything) - 1)
        watts = np.array([level.watts for level in everything])[which]
        noise = np.array([level.noise for level in everything])[which]
        wander = np.interp(grid, np.arange(0, borders[-1] + 1, 0.7),
                           generator.normal(size=np.arange(0, borders[-1] + 1, 0.7).size))  # fmt: skip
        flicker = generator.normal(size=grid.size) * 3.0
        power = np.maximum(watts * (1.0 + noise * (wander + flicker)), 0.1)
        self._time_s = np.append(grid, grid[-1] + GRID_S)
        self._power_w = power
        self._energy_j = np.concatenate([[0.0], np.cumsum(power * GRID_S)])

    def energy_j(self, time_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """True energy since the simulation began."""
        return np.interp(np.asarray(time_s) - START_S, self._time_s, self._energy_j)

    def power_w(self, time_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """True power, averaged over 20 ms as a GPU's sensor does it."""
        time = np.asarray(time_s)
        return (self.energy_j(time) - self.energy_j(time - 0.02)) / 0.02


@dataclass(frozen=True)
class Meter:
    """How the machine is sampled and counted."""

    interval_s: float = 0.2
    jitter_s: float = 0.002
    sample_s: float = 0.003
    unit_j: float = 2.0**-14
    start_j: float = 1000.0

    def moments(self, machine: Machine, seed: int) -> tuple[list[float], list[float], list[int]]:
        """``Time`` of each row, the moment of its sample, and ``Delta`` in ms."""
        generator = np.random.default_rng(seed)
        times, moments = [machine.begin_s], [machine.begin_s - self.sample_s / 2]
        tick = machine.begin_s
        while True:
            times.append(tick)
            moments.append(tick + generator.uniform(0.2, 1.0) * self.sample_s)
            if tick >= machine.end_s:
                break
            tick += self.interval_s + abs(generator.normal(0.0, self.jitter_s))
        steps = np.diff(times)
        deltas = [0, *(int(s * 1000) for s in steps[1:]), max(1, int(self.sample_s * 1000))]
        return times, moments, deltas

    def log(self, machine: Machine, seed: int, gpu: Machine | None = None) -> bytes:
        """The CSV of package, DRAM (a tenth), cores (a share of the package) and maybe a GPU."""
        times, moments, deltas = self.moments(machine, seed)
        package = self.counter(machine.energy_j(moments))
        dram = self.counter(machine.energy_j(moments) * 0.1, 77.0)
        cores = self.counter(machine.energy_j(moments) * 0.6, 5.0)
        header = ["Delta", "Time", "CPU_USAGE_0", "DRAM_ENERGY (J)"]
        header += ["GPU0_POWER (mWatts)", "GPU0_USAGE"] if gpu else []
        header += ["PACKAGE_ENERGY (J)", "PP0_ENERGY (J)", "USED_MEMORY"]
        rows = [",".join(header)]
        for i, time in enumerate(times):
            cells = [str(deltas[i]), str(int(time * 1000)), "12.5", repr(float(dram[i]))]
            if gpu:
                cells += [str(int(gpu.power_w(moments[i]) * 1000)), "50"]
            cells += [repr(float(package[i])), repr(float(cores[i])), "1000000"]
            rows.append(",".join(cells))
        return "\n".join(rows).encode() + b"\n"

    def counter(
        self, energy_j: npt.NDArray[np.float64], start_j: float | None = None
    ) -> npt.NDArray[np.float64]:
        """The register's value: whole units, from an arbitrary start, modulo 2^32 units."""
        start = self.start_j if start_j is None else start_j
        units = np.floor((energy_j + start) / self.unit_j)
        return np.mod(units, 2.0**32) * self.unit_j
