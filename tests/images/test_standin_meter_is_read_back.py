"""The stand-in's files through the project's own reader: the joules are those of the power model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import joules as measured_joules
from tests.support.side_by_side import side_by_side
from wattbench.analysis.meters import energibridge
from wattbench.analysis.meters.energibridge import Samples

pytestmark = pytest.mark.slow  # meters in real time

METER = Path(__file__).parents[2] / "images/worker-host/energibridge"
BUSY_THEN_IDLE = (
    "import time\nt = time.monotonic()\nwhile time.monotonic() - t < 0.8: pass\ntime.sleep(0.6)"
)
FAULTS = {
    "plain": "cpus:12",
    "intel wrap": "wrap_after_j:3",
    "amd wrap": "platform:amd,wrap_after_j:3,cpus:12",
    "gpu": "gpus:1,gpu_w:100,gpu_swing_w:30,gpu_period_s:1.3",
}
#: Name → (samples, truth).
Runs = dict[str, tuple[Samples, dict[str, Any]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    def run(name: str, _: int) -> tuple[Samples, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("meter")
        environ = os.environ | {
            "WATTBENCH_METER_CONFIG": "/nonexistent",
            "WATTBENCH_METER_FAULT": FAULTS[name],
            "WATTBENCH_METER_TRUTH": str(folder / "truth.json"),
        }
        argv = [str(METER), "-g", "-i", "100", "-o", str(folder / "e.csv")]
        subprocess.run(
            [*argv, "--", sys.executable, "-c", BUSY_THEN_IDLE],
            env=environ, check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return (
            energibridge.read((folder / "e.csv").read_bytes()),
            json.loads((folder / "truth.json").read_text()),
        )

    return side_by_side(run, FAULTS, len(FAULTS))


@pytest.mark.parametrize("name", FAULTS)
def test_counted_joules_over_the_rows_are_the_truth_to_a_counter_unit(
    runs: Runs, name: str
) -> None:
    samples, truth = runs[name]
    found = measured_joules.between_rows(samples)
    checked = [domain for domain in found if domain in truth["rows_joules"]]
    assert "package" in checked
    for domain in checked:
        joules, wraps = found[domain]
        assert joules == pytest.approx(truth["rows_joules"][domain], abs=2 * 2**-14)
        assert wraps == (domain == "package" and "wrap" in name)


@pytest.mark.parametrize("name", FAULTS)
def test_joules_of_the_commands_window_are_the_truth_within_their_uncertainty(
    runs: Runs, name: str
) -> None:
    samples, truth = runs[name]
    command = truth["command"]
    start_s, end_s = (command[edge]["unix_ms"] / 1000 for edge in ("started", "ended"))
    domains = measured_joules.in_window(samples, start_s, end_s)
    checked = [domain for domain in domains if domain.name in command["joules"]]
    assert {d.name for d in checked} >= {"package"} | ({"gpu0"} if name == "gpu" else set())
    for domain in checked:
        # The stated half-width is for 95 % of windows; twice it leaves no flaky test.
        doubt = 2 * domain.uncertainty_j + 0.01 * command["joules"][domain.name]
        assert domain.energy_j == pytest.approx(command["joules"][domain.name], abs=doubt)
