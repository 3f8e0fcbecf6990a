"""ResNet-50 on this machine's GPU, without a container: NVML's energy counter against its power.

``python tests/bench/bench_gpu.py --out DIR`` needs an NVIDIA GPU and a torch that uses it. Every trial
goes the way of a run's, by the controller's spec, the agent with meter ``nvml`` and the checks, in
randomised blocks; only SSH and Airflow are left out. Each block has two idle trials: of the bare host,
and with torch and the first setting's model loaded. It prints the GPU's settings, J/image and the phases
of each setting and how far the two meters are apart, and writes ``trials.csv`` and the raw files to DIR.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from tests.support.live_chain import Case, Chain, Live
from wattbench.worker.agent.meters.nvml import open_library

#: Of the trial that finds out how many iterations fill the time.
TRY = 50
#: Idle trials: without a process on the GPU, and with the framework and the model loaded.
IDLE, LOADED = "idle", "idle, loaded"


@dataclass(frozen=True)
class Setting:
    """What is inferred: precision, images an inference, pixels a side."""

    precision: str
    batch: int
    resolution: int

    @property
    def name(self) -> str:
        """As it is shown: ``fp16 32 x 224``."""
        return f"{self.precision} {self.batch} x {self.resolution}"


SETTINGS = (
    Setting("fp32", 1, 224),
    Setting("fp32", 32, 224),
    Setting("fp16", 32, 224),
    Setting("bf16", 32, 224),
    Setting("fp16", 8, 1024),
)


class Gpu:
    """Attempts on one GPU, as of an experiment with one bare-metal image."""

    def __init__(self, folder: Path, gpu: str, interval_ms: int) -> None:
        self.folder = folder
        self._chain = Chain(folder)
        self._case = Case(
            meter="nvml",
            device="cuda",
            gpus=(gpu,),
            interval_ms=interval_ms,
            timeout_s=600,
            command=(sys.executable, "-m", "workload"),
            env={"WATTBENCH_SYSROOT": "", "PYTHONPATH": str(ROOT / "images")},
            spec={"lead_s": 1.0},
        )

    def _case_of(self, setting: Setting, iterations: int) -> Case:
        passes = ((setting.resolution, iterations),)
        return replace(self._case, passes=passes, precision=setting.precision, batch=setting.batch)

    def infer(self, name: str, setting: Setting, iterations: int) -> Live:
        """A trial."""
        return self._chain.run(name, self._case_of(setting, iterations))

    def idle(self, name: str, seconds: float) -> Live:
        """An idle trial."""
        return self._chain.run(name, replace(self._case, kind="idle", idle_s=seconds))

    def idle_loaded(self, name: str, setting: Setting, seconds: float) -> Live:
        """An idle trial with the framework and a setting's model loaded."""
        case = replace(self._case_of(setting, 1), kind="idle", idle_s=seconds, loaded=True)
        return self._chain.run(name, case)


def joules(live: Live, meter: str) -> tuple[float, float]:
    """The GPU's by a meter, and what they are uncertain by."""
    found = [d for d in live.record.domains if d.meter == meter and d.name.startswith("gpu")]
    return (found[0].energy_j, found[0].uncertainty_j) if found else (float("nan"), float("nan"))


def row(live: Live, setting: str, block: int) -> dict[str, object]:
    """What is kept of a trial."""
    trial = live.record.row
    (counter_j, counter_doubt_j), (power_j, power_doubt_j) = (
        joules(live, m) for m in ("nvml", "nvml-power")
    )
    return {
        "setting": setting,
        "block": block,
        "status": trial.status,
        "reason": trial.reason,
        "findings": " ".join(sorted(live.found)),
        "duration_s": trial.duration_s,
        "images_inferred": trial.images_inferred,
        "counter_j": counter_j,
        "counter_uncertainty_j": counter_doubt_j,
        "power_j": power_j,
        "power_uncertainty_j": power_doubt_j,
        "steady_j_per_image": trial.steady_j_per_image,
        **{
            f"{phase.name.partition(':')[0]}_{field}": value
            for phase in live.record.phases
            for field, value in (
                ("s", phase.duration_s),
                ("j", phase.energy_j),
                ("uncertainty_j", phase.energy_uncertainty_j),
            )
        },
    }


def iterations(live: Live, seconds: float) -> int:
    """How many would have taken so long, by a trial of :data:`TRY`."""
    result = live.record.work.results
    if not result:
        raise SystemExit(f"bench_gpu: {live.record.row.reason}: {live.raw['stderr.log'].decode()}")
    return max(TRY, round(seconds * result[0].iterations / result[0].duration_s))


def measure(
    gpu: Gpu, settings: Sequence[Setting], blocks: int, seconds: float, seed: int
) -> pd.DataFrame:
    """All trials, one row each; ``trials.csv`` holds them as they come."""
    trials: dict[str, Callable[[str], Live]] = {
        IDLE: partial(gpu.idle, seconds=seconds),
        LOADED: partial(gpu.idle_loaded, setting=settings[0], seconds=seconds),
    }
    for setting in settings:
        live = gpu.infer(f"try {setting.name}", setting, TRY)
        if setting is settings[0]:
            tell_state(live)
        count = iterations(live, seconds)
        trials[setting.name] = partial(gpu.infer, setting=setting, iterations=count)
        print(f"{setting.name}: {count} iterations", flush=True)
    order, rows = random.Random(seed), []
    for block in range(1, blocks + 1):
        for name in order.sample([*trials], len(trials)):
            live = trials[name](f"{name} {block}")
            rows.append(row(live, name, block))
            pd.DataFrame(rows).to_csv(gpu.folder / "trials.csv", index=False)
            trial = live.record.row
            print(
                f"block {block} of {blocks}, {name}: {trial.status}, {trial.duration_s:.1f} s, "
                f"{trial.gpu_j:.0f} J {trial.reason or ''}" if trial.gpu_j else f"{name}: {trial.reason}",
                flush=True,
            )  # fmt: skip
    return pd.DataFrame(rows)


def tell_state(live: Live) -> None:
    """The GPU's settings as the agent recorded them before a trial's window."""
    machine = live.record.edges["before"].get("machine") or {}
    own = {key: value for key, value in machine.items() if key.startswith("gpu[")}
    width = max(map(len, own), default=0)
    print("\nGPU settings before the first trial:")
    print("\n".join(f"  {key:<{width}}  {value}" for key, value in own.items()) or "  not reported")
    print(flush=True)


def show(trials: pd.DataFrame, names: Iterable[str]) -> None:
    """The tables, medians of the valid trials."""
    valid = trials[trials["status"] == "valid"]
    settings = {name: valid[valid["setting"] == name] for name in names}
    print()
    idle_w = {}
    for name in (IDLE, LOADED):
        idle = valid[valid["setting"] == name]
        each_w = idle["counter_j"] / idle["duration_s"]
        idle_w[name] = each_w.median()
        print(
            f"{name}: {idle_w[name]:.1f} W, {each_w.min():.1f} to {each_w.max():.1f}, {len(idle)} trials"
        )
    phases = [
        p for p in ("start", "import", "load", "warmup", "steady", "stop") if f"{p}_s" in trials
    ]
    print(f"\n{'setting':<16}{'n':>3}  " + "".join(f"{p + ': s, J, W':>26}" for p in phases))
    for name, own in settings.items():
        middle = own.median(numeric_only=True)
        cells = (
            f"{middle[f'{p}_s']:.2f}  {middle[f'{p}_j']:.1f}  {middle[f'{p}_j'] / middle[f'{p}_s']:.0f}"
            for p in phases
        )
        print(f"{name:<16}{len(own):>3}  " + "".join(f"{c:>26}" for c in cells))
    print(f"\n{'setting':<16}{'images/s':>10}{'J/image':>10}{'SD %':>7}{'above idle':>12}"
          f"{'power - counter %':>32}")  # fmt: skip
    for name, own in settings.items():
        each = own["steady_j_per_image"]
        rate = (own["images_inferred"] / own["steady_s"]).median()
        apart = 100 * (own["power_j"] / own["counter_j"] - 1)
        known = 100 * own["power_uncertainty_j"] / own["counter_j"]
        print(f"{name:<16}{rate:>10.0f}{each.median():>10.4f}{100 * each.std() / each.mean():>7.2f}"
              f"{each.median() - idle_w[IDLE] / rate:>12.4f}{apart.median():>+11.2f} "
              f"({apart.min():+.2f} to {apart.max():+.2f}; ± {known.median():.2f})")  # fmt: skip
    counts = Counter(code for codes in trials["findings"] for code in str(codes).split())
    print("\nfindings: " + ", ".join(f"{code} {n}" for code, n in counts.most_common()))
    if len(valid) < len(trials):
        invalid = trials[trials["status"] != "valid"]
        print("not valid: " + "; ".join(invalid["setting"] + ": " + invalid["reason"].astype(str)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--gpu", help="UUID or index; the first")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of inference, a trial")
    parser.add_argument("--interval-ms", type=int, default=100, help="of the meter")
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="the first so many")
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    options = parser.parse_args()
    nvml = open_library()
    wanted = [options.gpu] if options.gpu else [str(i) for i in nvml.devices] if nvml else []
    indices = nvml.chosen(wanted) if nvml else []
    if nvml is None or not indices:
        named = f" {options.gpu}" if options.gpu else ""
        print(f"bench_gpu: NVML finds no GPU{named} on this machine", file=sys.stderr)
        return 2
    if options.out.exists() and any(options.out.iterdir()):
        print(f"bench_gpu: {options.out} is not empty; name another folder", file=sys.stderr)
        return 2
    about = nvml.identity(min(indices))
    print(f"{about['name']}, driver {nvml.driver()}, meter every {options.interval_ms} ms")
    settings = SETTINGS[: options.settings]
    gpu = Gpu(options.out, str(about["uuid"]), options.interval_ms)
    trials = measure(gpu, settings, options.blocks, options.seconds, options.seed)
    show(trials, [s.name for s in settings])
    return int((trials["status"] != "valid").any())


if __name__ == "__main__":
    raise SystemExit(main())
