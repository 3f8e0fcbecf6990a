"""The agent's own meters: every socket, every wrap, the GPU's counter beside its power."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattbench.analysis.meters.energibridge import FloatArray
from wattbench.analysis.meters.readers.energibridge import energibridge_reading
from wattbench.analysis.meters.readers.nvml import nvml_reading
from wattbench.analysis.meters.readers.powercap import powercap_reading
from wattbench.analysis.meters.reading import Edge
from wattbench.analysis.meters.window import split

T0 = 1_750_000_000.0
RANGE_UJ = 262_143_328_850
ZONES = {
    "intel-rapl:0": {"name": "package-0", "max_energy_range_uj": RANGE_UJ},
    "intel-rapl:0:0": {"name": "core", "max_energy_range_uj": RANGE_UJ},
    "intel-rapl:0:1": {"name": "dram", "max_energy_range_uj": 65_712_999_613},
    "intel-rapl:1": {"name": "package-1", "max_energy_range_uj": RANGE_UJ},
    "intel-rapl:1:1": {"name": "dram", "max_energy_range_uj": 65_712_999_613},
}
WATTS = dict(zip(ZONES, (80.0, 60.0, 8.0, 100.0, 12.0), strict=True))
START_UJ = dict(
    zip(ZONES, (RANGE_UJ - 50_000_000, 5, 6, 7, 65_712_999_613 - 1_000_000), strict=True)
)


def counter(zone: str, seconds: float) -> int:
    return int(START_UJ[zone] + WATTS[zone] * seconds * 1e6) % ZONES[zone]["max_energy_range_uj"]


def powercap_csv(seconds: list[float]) -> bytes:
    lines = ["unix_s,mono_s," + ",".join(ZONES)]
    for s in seconds:
        cells = [f"{T0 + s:.6f}", f"{500 + s:.6f}", *(str(counter(z, s)) for z in ZONES)]
        lines.append(",".join(cells))
    return ("\n".join(lines) + "\n").encode()


def mark(seconds: float) -> Edge:
    edge = Edge.of({"unix_s": T0 + seconds, "powercap_uj": {z: counter(z, seconds) for z in ZONES}})
    assert edge is not None
    return edge


def test_sockets_are_added_wraps_corrected_and_edges_exact() -> None:
    edges = [mark(1.234), mark(7.891)]
    reading = powercap_reading(powercap_csv([0.0, 3.0, 6.0, 9.0]), ZONES, edges)
    seconds = 7.891 - 1.234
    expected = {"package": 180.0, "dram": 20.0, "pp0": 60.0}
    assert {c.domain for c in reading.curves} == set(expected)
    for domain, watts in expected.items():
        curve = reading.curve(domain)
        assert curve is not None
        part = split(curve, [T0 + 1.234, T0 + 7.891])
        assert part.total_j == pytest.approx(watts * seconds, abs=0.001)
        assert part.total_uncertainty_j < 0.003 * part.total_j
    package, dram = reading.curve("package"), reading.curve("dram")
    assert package is not None
    assert dram is not None
    assert (package.wraps, dram.wraps) == (1, 1)
    assert package.sources == ("intel-rapl:0", "intel-rapl:1")
    assert not any(n.fatal for n in reading.notes)


def test_readings_at_the_edges_alone_make_a_window() -> None:
    curve = powercap_reading(b"", ZONES, [mark(0.0), mark(10.0)]).curve("package")
    assert curve is not None
    assert split(curve, [T0, T0 + 10.0]).total_j == pytest.approx(1800.0, abs=0.01)


def test_an_unread_domain_is_absent_not_zero() -> None:
    lines = powercap_csv([0.0, 1.0, 2.0]).decode().splitlines()
    at = list(ZONES).index("intel-rapl:0:0") + 2
    cut = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        cells[at] = ""
        cut.append(",".join(cells))
    reading = powercap_reading("\n".join([*cut, ""]).encode(), ZONES)
    assert reading.curve("pp0") is None
    assert reading.curve("package") is not None
    assert [n.column for n in reading.notes if n.kind == "missing-column"] == ["intel-rapl:0:0"]


@pytest.mark.parametrize("data", [b"", b"\xff\x00junk", b"a,b\n1,2\n", b"unix_s,mono_s\n"])
def test_a_file_of_another_kind_gives_no_curves(data: bytes) -> None:
    assert powercap_reading(data, {}).curves == ()
    assert nvml_reading(data).curves == ()


@settings(max_examples=80)
@given(st.integers(0, 400), st.binary(max_size=30))
def test_damaged_files_never_raise(at: int, junk: bytes) -> None:
    data = powercap_csv([0.0, 1.0, 2.0, 3.0])
    reading = powercap_reading(data[:at] + junk, ZONES, [mark(0.5), mark(2.5)])
    for curve in reading.curves:
        assert np.all(np.diff(curve.time_s) > 0)
        assert np.all(np.diff(curve.energy_j) >= 0)


def nvml_csv(*, counters: bool, rows: int = 40) -> bytes:
    lines = [
        "unix_s,mono_s,gpu1_energy_mj,gpu1_power_mw,gpu1_util_pct,gpu1_temperature_c,"
        "gpu1_sm_clock_mhz,gpu1_throttle"
    ]
    for i in range(rows):
        energy = str(9_000_000_000 + 250_000 * i) if counters else ""
        lines.append(f"{T0 + i:.6f},{i}.0,{energy},251000,{97 + i % 2},{60 + i},1400,4")
    return ("\n".join(lines) + "\n").encode()


def test_the_gpus_counter_and_its_integrated_power_stand_side_by_side() -> None:
    reading = nvml_reading(nvml_csv(counters=True))
    assert [(c.domain, c.meter) for c in reading.curves] == [
        ("gpu1", "nvml"),
        ("gpu1", "nvml-power"),
    ]
    joules = [split(c, [T0 + 3.5, T0 + 33.5]).total_j for c in reading.curves]
    assert joules == pytest.approx([7500.0, 7530.0])
    summary = reading.summaries(T0 + 3.5, T0 + 33.5)
    assert summary["gpu1_temperature_c"] == {
        "mean": 78.5, "min": 64.0, "max": 93.0, "first": 64.0, "last": 93.0,
    }  # fmt: skip
    assert reading.sampling(T0 + 3.5, T0 + 33.5).in_window == 30


def test_no_reason_to_throttle_hides_behind_another() -> None:
    lines = nvml_csv(counters=True).decode().splitlines()
    lines[20] = lines[20].removesuffix(",4") + ",256"
    lines[30] = lines[30].removesuffix(",4") + ",32"
    reading = nvml_reading("\n".join([*lines, ""]).encode())
    assert reading.summaries(T0, T0 + 39)["gpu1_throttle"]["any"] == 256 | 32 | 4
    assert reading.summaries(T0 + 20, T0 + 39)["gpu1_throttle"]["any"] == 32 | 4


def test_without_a_counter_power_is_the_gpus_energy() -> None:
    (curve,) = nvml_reading(nvml_csv(counters=False)).curves
    assert curve.meter == "nvml"
    assert split(curve, [T0, T0 + 39]).total_j == pytest.approx(251.0 * 39)


def test_a_gpus_counter_that_begins_anew_is_a_reset() -> None:
    lines = nvml_csv(counters=True).decode().splitlines()
    for at in range(21, len(lines)):  # the driver was loaded again
        cells = lines[at].split(",")
        cells[2] = str(int(cells[2]) - 9_004_900_000)
        lines[at] = ",".join(cells)
    curve = nvml_reading("\n".join([*lines, ""]).encode()).curve("gpu1")
    assert curve is not None
    assert [(n.kind, n.fatal) for n in curve.notes] == [("reset", True)]


def test_readings_of_a_slow_driver_that_cross_at_an_edge_cost_nothing() -> None:
    """A row stamped before the edge, read after it: what it shows is no fall of the counter."""
    edge = Edge.of({"unix_s": T0 + 20.003, "nvml_mj": {"1": 9_000_000_000 + 250_000 * 20 - 70_000}})
    assert edge is not None
    curve = nvml_reading(nvml_csv(counters=True), [edge]).curve("gpu1")
    assert curve is not None
    assert curve.notes == ()
    assert curve.total_j == pytest.approx(250.0 * 39)


class Load:
    """Power that steps: ``watts`` before, between and after ``bounds``, s."""

    def __init__(self, bounds: FloatArray, watts: FloatArray) -> None:
        self.bounds, self.watts = bounds, watts

    def joules(self, end_s: float) -> float:
        """Since 10 s before T0."""
        cuts = np.concatenate([[T0 - 10.0], np.minimum(self.bounds, end_s), [end_s]])
        return float(np.sum(np.diff(cuts) * self.watts))


class Counter(Load):
    """What a GPU's counter shows of a load that steps: up to date every so often, read slowly.

    As on an H100, whose counter moves every 100 ms and takes 4 to be read.
    """

    def __init__(self, rng: np.random.Generator, every_s: float, period_s: float) -> None:
        self._rng, self._every_s = rng, every_s
        self._phase_s = rng.uniform(0.0, every_s)
        begin = T0 + 2.0
        super().__init__(
            begin + np.concatenate([[0.0], np.cumsum(rng.uniform(0.3, 4.0, 6))]),
            np.concatenate([[76.0], rng.uniform(76.0, 700.0, 6), [90.0]]),
        )
        end = self.bounds[-1]
        stamps = np.arange(T0 + 2.0 - 0.25 - rng.uniform(0.0, period_s), end + 0.3, period_s)
        rows = [f"{t:.6f},{t - T0:.6f},{self._read(t + self._takes())}" for t in stamps]
        self.csv = ("\n".join(["unix_s,mono_s,gpu0_energy_mj", *rows]) + "\n").encode()
        first, last = self._read(begin - self._takes()), self._read(end + self._takes())
        self.edges = [Edge(begin, {"nvml_mj": {"0": first}}), Edge(end, {"nvml_mj": {"0": last}})]

    def _takes(self) -> float:
        return self._rng.uniform(0.001, 0.004)

    def _read(self, moment_s: float) -> int:
        rounds = np.floor((moment_s - T0 - self._phase_s) / self._every_s)
        return 10**9 + int(1000 * self.joules(T0 + rounds * self._every_s + self._phase_s))


@pytest.mark.parametrize(
    ("every_s", "period_s"), [(0.1, 0.1), (0.02, 0.1), (0.1, 0.2), (0.1, 0.03)]
)
def test_half_widths_of_a_counter_that_lags_cover_the_truth(
    every_s: float, period_s: float
) -> None:
    rng = np.random.default_rng(31)
    held, width = [], []
    for _ in range(150):
        load = Counter(rng, every_s, period_s)
        curve = nvml_reading(load.csv, load.edges).curve("gpu0")
        assert curve is not None
        cut = split(curve, load.bounds.tolist())
        true = np.diff([load.joules(b) for b in load.bounds])
        held.append(abs(cut.total_j - true.sum()) <= cut.total_uncertainty_j)
        held.extend(abs(cut.energy_j - true) <= cut.uncertainty_j)
        width.append(cut.total_uncertainty_j / true.sum())
    assert np.mean(held) >= 0.95
    assert np.median(width) <= 0.02


class Mean(Load):
    """What a GPU's power says that is the mean of the last second, of a load that steps."""

    def __init__(self, rng: np.random.Generator) -> None:
        # Idle before, several phases, idle after.
        super().__init__(
            np.concatenate([[T0 + 2.0], T0 + 2.0 + np.cumsum(rng.uniform(0.3, 6.0, 5))]),
            np.concatenate([[75.0], rng.uniform(75.0, 700.0, 5), [75.0]]),
        )

    def csv(self) -> bytes:
        stamps = np.arange(T0 + 1.0, self.bounds[-1] + 0.5, 0.1)
        mean = [1000 * (self.joules(t) - self.joules(t - 1.0)) for t in stamps]
        rows = [f"{t:.6f},{t - T0:.6f},{mw:.0f}" for t, mw in zip(stamps, mean, strict=True)]
        return ("\n".join(["unix_s,mono_s,gpu0_power_mw", *rows]) + "\n").encode()


def test_the_half_width_of_power_that_is_a_mean_covers_what_it_lags_behind() -> None:
    rng = np.random.default_rng(20)
    held = []
    for _ in range(120):
        load = Mean(rng)
        (curve,) = nvml_reading(load.csv()).curves
        bounds = load.bounds.tolist()
        cut = split(curve, bounds)
        true = [load.joules(b) for b in bounds]
        held.append(abs(cut.total_j - (true[-1] - true[0])) <= cut.total_uncertainty_j)
        held.extend(abs(cut.energy_j - np.diff(true)) <= cut.uncertainty_j)
        # and it is no excuse: half a second of all power there is, at most, at each of two edges
        assert cut.total_uncertainty_j <= 1.5 * load.watts.max()
    assert np.mean(held) >= 0.95


def test_readings_at_the_edges_make_a_gpu_window_too() -> None:
    edges = [
        Edge.of({"unix_s": T0 + s, "nvml_mj": {"1": 9_000_000_000 + 250_000 * s}})
        for s in (0.25, 20.75)
    ]
    reading = nvml_reading(nvml_csv(counters=True), [e for e in edges if e])
    curve = reading.curve("gpu1")
    assert curve is not None
    assert split(curve, [T0 + 0.25, T0 + 20.75]).total_j == pytest.approx(250.0 * 20.5)


def test_a_mark_without_a_time_is_no_edge() -> None:
    assert Edge.of(None) is None
    assert Edge.of({"unix_s": "soon"}) is None


def test_a_modelled_meter_is_never_called_a_measurement() -> None:
    data = b"Delta,Time,PACKAGE_ENERGY (J)\n0,1000,5\n200,1000,5.1\n200,1200,6\n1,1400,7\n"
    assert {c.meter for c in energibridge_reading(data, "modelled").curves} == {"modelled"}
