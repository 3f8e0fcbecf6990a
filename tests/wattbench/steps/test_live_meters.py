"""The agent's own meters in the live path: RAPL through the kernel, GPUs through NVML."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import HOME, INIT, Case, Chain, Live, Lives, home_of
from tests.support.shipped import written
from wattbench.analysis import checks
from wattbench.worker.agent.meters.nvml import open_library
from wattbench.worker.agent_bundle import bundle

pytestmark = pytest.mark.slow  # attempts in real time

# ── powercap ────────────────────────────────────────────────────────────────────────────────────

#: Zone → name, W. EnergiBridge reads one socket; what the stand-in models is the sum of both.
SOCKETS = {
    "intel-rapl:0": ("package-0", 25.0),
    "intel-rapl:0:0": ("dram", 0.5),
    "intel-rapl:1": ("package-1", 15.0),
    "intel-rapl:1:0": ("dram", 0.3),
}
FLAT = "cpus:2,idle_w:40,core_w:0,dram_core_w:0"
WIDE_UJ = 262_143_328_850
#: Of a counter that wraps after 30 J: at 25 W once in every trial.
NARROW_UJ = 30_000_000
TICK_S = 0.004
#: Beside a stall of the ticker.
LONG = {"seconds": 2.0}


class Machine:
    """A /sys/class/powercap whose counters rise at constant power."""

    def __init__(self, root: Path, range_uj: int = WIDE_UJ, readable: bool = True) -> None:
        self.root, self.range_uj = root, range_uj
        for path, text in {"proc/stat": "cpu  1 0 1 1 0 0 0 0\n", "proc/1/stat": INIT}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.counters = {}
        for zone, (name, watts) in SOCKETS.items():
            folder = root / "sys/class/powercap" / zone
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
            if readable:
                self.counters[os.open(folder / "energy_uj", os.O_WRONLY | os.O_CREAT)] = watts
            else:
                (folder / "energy_uj").mkdir()  # what root can't read either

    def tick(self) -> None:
        """Show the counters of this moment."""
        for file, watts in self.counters.items():
            microjoules = int(watts * 1e6 * time.monotonic()) % (self.range_uj + 1)
            os.pwrite(file, b"%020d\n" % microjoules, 0)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Machine]]:
    """Machines by name, their counters running; ``stall_s`` of the ticker is kept in ``gaps``."""
    folder = tmp_path_factory.mktemp("machines")
    made = {
        "wide": Machine(folder / "wide"),
        "narrow": Machine(folder / "narrow", NARROW_UJ),
        "closed": Machine(folder / "closed", readable=False),
    }
    over = threading.Event()
    gaps.clear()

    def run() -> None:
        last = time.monotonic()
        while not over.wait(TICK_S):
            for machine in made.values():
                machine.tick()
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    for machine in made.values():
        machine.tick()
    ticker = threading.Thread(target=run)
    ticker.start()
    yield made
    over.set()
    ticker.join()


#: Seconds between the ticker's rounds: how old a counter may have been when it was read.
gaps: list[float] = []


@pytest.fixture(scope="module")
def sockets(machines: dict[str, Machine], tmp_path_factory: pytest.TempPathFactory) -> Lives:
    chain = Chain(tmp_path_factory.mktemp("sockets"))
    on = {name: {"WATTBENCH_SYSROOT": str(m.root)} for name, m in machines.items()}
    return chain.run_all(
        {
            "both agree": Case(FLAT, env=on["wide"], says=LONG),
            "one socket seen": Case(
                "cpus:2,idle_w:25,core_w:0,dram_core_w:0", env=on["wide"], says=LONG
            ),
            "alone": Case(meter="powercap", env=on["wide"]),
            "wraps": Case(meter="powercap", env=on["narrow"], says={"seconds": 1.4}),
            "unreadable alone": Case(meter="powercap", env=on["closed"]),
            "unreadable beside": Case(FLAT, env=on["closed"]),
        }
    )


def seconds(live: Live) -> float:
    start, end = live.window
    return end - start


def test_two_sockets_are_added_and_agree_with_the_meter(sockets: Lives) -> None:
    live = sockets["both agree"]
    assert live.record.row.status == "valid", live.record.row.reason
    domains = {(d.name, d.meter): d for d in live.record.domains}
    late = 40.0 * 2 * max(gaps)
    for name, watts in (("package", 40.0), ("dram", 0.8)):
        own, counted = domains[name, "powercap"], domains[name, "energibridge"]
        assert own.energy_j == pytest.approx(watts * seconds(live), abs=late)
        assert (counted.counted, own.counted) == (True, False)
    assert live.record.row.package_j == domains["package", "energibridge"].energy_j


def test_a_socket_that_the_meter_does_not_read_is_a_disagreement(sockets: Lives) -> None:
    live = sockets["one socket seen"]
    assert live.record.row.status == "invalid"
    found = live.found["meter-disagree"]
    joules = found.evidence["joules"]
    # 25 W of 40 W
    assert joules["energibridge"] / joules["powercap"] == pytest.approx(0.625, abs=0.05)


def test_counters_are_read_at_both_edges_and_in_between(sockets: Lives) -> None:
    live = sockets["alone"]
    command = live.report["command"]
    assert set(command["started"]["powercap_uj"]) == set(SOCKETS)
    assert set(command["ended"]["powercap_uj"]) == set(SOCKETS)
    assert set(live.report["edges"]["before"]["powercap"]) == set(SOCKETS)
    rows = list(csv.DictReader(live.raw["powercap.csv"].decode().splitlines()))
    start, end = live.window
    inside = [row for row in rows if start < float(row["mono_s"]) < end]
    assert len(inside) >= 3
    assert float(rows[0]["mono_s"]) < start < end < float(rows[-1]["mono_s"])


def test_powercap_alone_gives_the_true_joules(sockets: Lives) -> None:
    live = sockets["alone"]
    row = live.record.row
    assert (row.status, row.energy_scope, row.energy_source) == (
        "valid",
        "package+dram",
        "measured",
    )
    assert row.energy_j == pytest.approx(40.8 * seconds(live), abs=40.8 * 2 * max(gaps))
    assert "energibridge.csv" not in live.raw


def test_every_wrap_of_a_small_counter_is_seen(sockets: Lives) -> None:
    live = sockets["wraps"]
    rows = list(csv.DictReader(live.raw["powercap.csv"].decode().splitlines()))
    fell = sum(
        int(later[zone]) < int(earlier[zone])
        for zone in SOCKETS
        for earlier, later in itertools.pairwise(rows)
    )
    assert fell >= 1
    assert live.record.row.status == "valid", live.record.row.reason
    assert live.record.row.wraps is not None
    assert 1 <= live.record.row.wraps <= fell
    assert "counter-wrap" in live.found
    assert live.record.row.energy_j == pytest.approx(40.8 * seconds(live), abs=40.8 * 2 * max(gaps))


def test_unreadable_counters_are_no_energy_rather_than_0_joules(sockets: Lives) -> None:
    alone = sockets["unreadable alone"].record
    assert (alone.row.status, alone.row.energy_j) == ("failed", None)
    assert "no energy" in (alone.row.reason or "")
    beside = sockets["unreadable beside"].record
    assert beside.row.status == "valid"
    assert {d.meter for d in beside.domains} == {"energibridge"}


def test_unreadable_counters_are_a_problem_with_the_command_that_opens_them(
    machines: dict[str, Machine], tmp_path: Path
) -> None:
    def facts(meter: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(written(bundle(), tmp_path)), "facts"],
            input=json.dumps({"spool": str(tmp_path), "meter": meter, "sample_s": 0, "docker": False}),
            env=os.environ | {"WATTBENCH_SYSROOT": str(machines["closed"].root)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    document = facts({"kind": "powercap"})
    found = {p["code"]: p for p in document["problems"]}
    assert found["sensors"]["severity"] == "soft"
    assert found["sensors"]["action"] == "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    assert found["meter-failed"]["severity"] == "hard"
    assert "chmod a+r" in found["meter-failed"]["action"]
    whole = checks.check_campaign(
        [], checks.Facts.of_run({"run_id": "r", "plan": {}, "hosts": {"h1": {"facts": document}}})
    )
    (finding,) = [f for f in whole if f.code == "meter-scope" and f.subject == "host h1"]
    assert finding.verdict == "found"
    assert finding.action == found["sensors"]["action"]
    assert finding.evidence["zones"] == sorted(SOCKETS)


# ── NVML ────────────────────────────────────────────────────────────────────────────────────────

#: One GPU whose power is a sine of known integral; what it reports is set by the environment.
DRIVER = r"""
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define W 100.0
#define SWING 30.0
#define PERIOD 1.3
static double setting(const char *name, double usual) {
  const char *text = getenv(name); return text ? atof(text) : usual;
}
static double now(void) {
  struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9;
}
static int lost(void) { const char *path = getenv("GPU_LOST"); return path && !access(path, F_OK) ? 15 : 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(size_t)(i + 1); return lost(); }
int nvmlDeviceGetUUID(void *d, char *s, unsigned n) { strncpy(s, "GPU-0f0f", n); return lost(); }
int nvmlDeviceGetName(void *d, char *s, unsigned n) { strncpy(s, "Sine 100", n); return lost(); }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "1.0", n); return 0; }
int nvmlDeviceGetUtilizationRates(void *d, unsigned *two) {
  two[0] = (unsigned)setting("GPU_USAGE", 80); two[1] = 0; return lost();
}
int nvmlDeviceGetClockInfo(void *d, int which, unsigned *v) { *v = 1410; return lost(); }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *v) {
  double turn = 2 * M_PI / PERIOD, t = floor(now() * 10) / 10; /* brought up to date every 100 ms */
  if (setting("GPU_COUNTER", 1) == 0) return 3; /* not supported */
  *v = (unsigned long long)(1000 * (W * t - SWING / turn * cos(turn * t)));
  return lost();
}
/* as since Ampere: the mean of the last second, and the present power by a field of newer drivers */
int nvmlDeviceGetPowerUsage(void *d, unsigned *v) {
  double turn = 2 * M_PI / PERIOD, t = now();
  double swing = SWING / turn * (cos(turn * (t - 1)) - cos(turn * t));
  *v = (unsigned)(1000 * setting("GPU_FACTOR", 1) * (W + swing));
  return lost();
}
struct field { unsigned id, scope; long long stamp, latency; int kind, status; unsigned value[2]; };
int nvmlDeviceGetFieldValues(void *d, int n, struct field *f) {
  double w = W + SWING * sin(2 * M_PI / PERIOD * now());
  f->status = f->id == 186 && setting("GPU_INSTANT", 1) ? 0 : 3;
  f->kind = 1; f->value[0] = (unsigned)(1000 * setting("GPU_FACTOR", 1) * w);
  return lost();
}
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *v) { *v = 61; return lost(); }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *v) {
  *v = (unsigned long long)setting("GPU_THROTTLE", 0); return lost();
}
"""
W, SWING, PERIOD = 100.0, 30.0, 1.3
GPU_STAND_IN = f"{FLAT},gpus:1,gpu_w:100,gpu_swing_w:30,gpu_period_s:1.3"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library, compiled."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to compile a driver with: apt install gcc")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(DRIVER)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, folder / "nvml.c", "-lm"], check=True
    )
    return str(library)


@pytest.fixture(scope="module")
def gpus(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Lives:
    folder = tmp_path_factory.mktemp("gpus")

    def lose(attempt: Path) -> None:
        deadline = time.monotonic() + 30
        while not (attempt / "command.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # a good part of the window first
        while (attempt / "nvml.csv").read_text().count("\n") < 8:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (home_of(attempt) / "lost").touch()

    def losing(**settings: Any) -> Case:
        return case(GPU_LOST=f"{HOME}/lost", says={"seconds": 2.0}, meddle=lose, **settings)

    def case(fault: str = "", meter: str = "nvml", **changes: Any) -> Case:
        env = {"WATTBENCH_NVML": driver} | {
            k: str(v) for k, v in changes.items() if k.startswith("GPU_")
        }
        own = {k: v for k, v in changes.items() if not k.startswith("GPU_")}
        return replace(Case(fault, device="cuda", meter=meter, env=env), **own)

    return Chain(folder / "runs").run_all(
        {
            "counter": case(),
            "by uuid": case(gpus=("GPU-0f0f",)),
            "no counter": case(GPU_COUNTER=0),
            "an older driver": case(GPU_INSTANT=0),
            "an older driver, no counter": case(GPU_INSTANT=0, GPU_COUNTER=0),
            "power that disagrees": case(GPU_FACTOR=1.5),
            "throttled": case(GPU_THROTTLE=0x20),
            "at rest": case(GPU_USAGE=0),
            "on the cpu": case(says={"device": "cpu"}),
            "lost": losing(),
            "lost, no counter": losing(GPU_COUNTER=0),
            "unknown": case(gpus=("GPU-7",)),
            "beside energibridge": case(GPU_STAND_IN, "energibridge"),
            "against energibridge": case(f"{FLAT},gpus:1,gpu_w:60", "energibridge"),
        }
    )  # fmt: skip


def gpu_truth(live: Live) -> float:
    """The sine's integral over the window, J."""
    start, end = live.window
    turn = 2 * math.pi / PERIOD
    return W * (end - start) - SWING / turn * (math.cos(turn * end) - math.cos(turn * start))


@pytest.mark.parametrize(
    "name", ["counter", "by uuid", "no counter", "an older driver", "an older driver, no counter"]
)
def test_gpu_joules_are_the_truth_within_their_uncertainty(gpus: Lives, name: str) -> None:
    live = gpus[name]
    row = live.record.row
    assert row.status == "valid", row.reason
    assert (row.energy_scope, row.gpu_j, row.package_j) == ("gpu", row.energy_j, None)
    assert row.energy_j is not None
    assert row.energy_uncertainty_j is not None
    assert abs(row.energy_j - gpu_truth(live)) <= row.energy_uncertainty_j + 0.02 * gpu_truth(live)
    assert "meter-scope" in live.found
    assert not {"gpu-idle", "device-mismatch"} & set(live.found)


def test_counter_counts_and_integrated_power_stands_beside_it(gpus: Lives) -> None:
    counter, power = (
        next(d for d in gpus["counter"].record.domains if d.meter == meter)
        for meter in ("nvml", "nvml-power")
    )
    assert (counter.counted, power.counted) == (True, False)
    truth = gpu_truth(gpus["counter"])
    assert counter.energy_j == pytest.approx(truth, abs=counter.uncertainty_j)
    # up to date to 100 ms at both edges
    assert counter.uncertainty_j <= 0.1 * (W + SWING)
    assert power.energy_j == pytest.approx(truth, abs=power.uncertainty_j)
    assert power.sources == ("gpu0_power_instant_mw",)


def test_power_of_an_older_driver_owns_up_to_being_a_mean(gpus: Lives) -> None:
    old, new = (
        next(d for d in gpus[name].record.domains if d.meter == "nvml-power")
        for name in ("an older driver", "counter")
    )
    assert old.sources == ("gpu0_power_mw",)
    assert old.energy_j == pytest.approx(gpu_truth(gpus["an older driver"]), abs=old.uncertainty_j)
    assert new.sources != old.sources


def test_clocks_temperature_and_throttle_reasons_are_kept(gpus: Lives) -> None:
    live = gpus["counter"]
    for edge in ("before", "after"):
        (gpu,) = live.report["edges"][edge]["nvml"]
        assert (gpu["uuid"], gpu["sm_clock_mhz"], gpu["temperature_c"], gpu["throttle"]) == (
            "GPU-0f0f", 1410, 61, 0,
        )  # fmt: skip
    assert live.record.series["gpu0_sm_clock_mhz"]["mean"] == 1410


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("power that disagrees", "meter-disagree"),
        ("throttled", "throttled"),
        ("at rest", "gpu-idle"),
        ("on the cpu", "device-mismatch"),
        ("against energibridge", "meter-disagree"),
    ],
)
def test_fault_of_a_gpu_makes_the_trial_invalid(gpus: Lives, name: str, code: str) -> None:
    live = gpus[name]
    assert live.record.row.status == "invalid"
    assert code in live.found


@pytest.mark.parametrize("name", ["lost", "lost, no counter"])
def test_gpu_that_is_lost_on_the_way_leaves_no_valid_joules(gpus: Lives, name: str) -> None:
    live = gpus[name]
    assert live.report["state"] == "done"  # the work itself went on
    assert live.record.row.status in ("failed", "invalid"), live.record.row
    assert "gpu0" in (live.record.row.reason or "")
    assert live.left == []


def test_gpu_that_is_not_there_is_no_energy(gpus: Lives) -> None:
    row = gpus["unknown"].record.row
    assert (row.status, row.energy_j) == ("failed", None)


def test_energibridge_and_nvml_agree_on_a_gpu(gpus: Lives) -> None:
    live = gpus["beside energibridge"]
    assert live.record.row.status == "valid", live.record.row.reason
    both = {d.meter: d for d in live.record.domains if d.name == "gpu0"}
    assert both["nvml"].counted
    assert not both["energibridge"].counted
    assert live.record.row.gpu_j == both["nvml"].energy_j
    # a load that swings within 1.3 s is not seen by a sample per second
    assert live.raw["nvml.csv"].count(b"\n") >= 6


def test_driver_is_the_one_that_the_agent_opens(driver: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("WATTBENCH_NVML", driver)
    nvml = open_library()
    assert nvml is not None
    assert nvml.identity(0) == {"index": 0, "uuid": "GPU-0f0f", "name": "Sine 100"}
