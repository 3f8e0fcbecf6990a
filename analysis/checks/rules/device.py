"""The device that the work ran on, and the GPUs that should have worked."""

from __future__ import annotations

import re
from dataclasses import replace

from wattbench.analysis.checks.evidence import (
    GPU_USAGE,
    device_of,
    gpu_powers,
    matching,
    place,
    series,
    wants_gpu,
)
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import check, code
from wattbench.analysis.model.devices import is_gpu
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Record

#: How a workload refuses to run where the device it was asked for is absent.
NO_DEVICE = re.compile(r"device \S+ is not there")

#: A GPU that works shows more than this utilisation at some sample, %.
IDLE_GPU_PCT = 5.0

DEVICE_MISMATCH = code(
    "device-mismatch",
    Severity.ERROR,
    place=10,
    shared=True,
    meaning="The workload ran on another device than the experiment asked for.",
    why="The joules describe a different machine part; the paper's campaign measured the CPU this way.",
    action="Make the device visible to the container (GPU request, driver, CUDA build) and run again.",
)

GPU_IDLE = code(
    "gpu-idle",
    Severity.ERROR,
    place=20,
    shared=True,
    meaning="A GPU that should have worked stayed at its idle level.",
    why="Its joules are idle joules; the work was done elsewhere or not at all.",
    action="Check the device the workload reports, and the GPU the trial was given.",
)


@check(
    DEVICE_MISMATCH,
    kinds=("workload",),
    fine="the device is the one asked for",
    example=lambda r: replace(r, work=replace(r.work, device_actual="cpu")),
)
def device_mismatch(record: Record) -> Outcomes:
    """Requested against reported device."""
    actual = device_of(record)
    wanted = record.expected.get("device") or record.work.device_requested
    if wanted is None:
        yield from _of_import(record, actual)
    elif actual is None:
        refused = next((e for e in record.work.errors if NO_DEVICE.search(e)), None)
        if refused:
            yield Found(f"the workload refused: {refused}", place(record, requested=wanted))
        elif record.expected.get("reports_itself") is False:
            yield from _by_use(record, str(wanted))
        elif record.row.status == "failed":
            yield Unknown("the attempt ended before the workload reported its device")
        else:
            yield Found(
                f"the workload did not say which device it used; {wanted} was asked for",
                place(record, requested=wanted),
            )
    elif is_gpu(str(wanted)) != is_gpu(actual):
        line = record.log.get("device_line")
        evidence = place(record, line=line) if line else place(record)
        yield Found(
            f"{wanted} was asked for, the workload ran on {actual}",
            evidence | {"requested": wanted, "actual": actual},
        )


def _by_use(record: Record, wanted: str) -> Outcomes:
    """Of a program that reports no device: what its container was given, and what the GPUs did."""
    container = record.container
    given = bool((container or {}).get("device_requests"))
    usage = series(record, GPU_USAGE)
    if container is not None and given != is_gpu(wanted):
        what = "a GPU" if given else "no GPU"
        yield Found(
            f"{wanted} was asked for, the container was given {what}",
            place(record, requested=wanted),
        )
    elif is_gpu(wanted) and not usage:
        yield Unknown("the program reports no device and GPU utilisation was not sampled")
    elif container is None and not is_gpu(wanted):
        yield Unknown("neither the program nor a container shows which device was used")


def _of_import(record: Record, actual: str | None) -> Outcomes:
    """What was intended is not known: a metered GPU or a CUDA image is a sign of a GPU."""
    if actual is None:
        yield Unknown("the log does not say which device ran")
        return
    if is_gpu(actual):
        return
    signs = []
    if any(d.name.startswith("gpu") for d in record.domains):
        signs.append("a GPU is metered")
    if record.log.get("cuda_image"):
        signs.append("the image is built for CUDA")
    if signs:
        evidence = place(record, line=record.log.get("device_line"), actual=actual, signs=signs)
        yield Found(f"the workload ran on {actual}, although {' and '.join(signs)}", evidence)


@check(
    GPU_IDLE,
    kinds=("workload",),
    fine="no GPU stayed idle that should have worked",
    example=lambda r: replace(
        r, series={"gpu0_util_pct": dict.fromkeys(("mean", "min", "max", "first", "last"), 1.0)}
    ),
)
def gpu_idle(record: Record) -> Outcomes:
    """A GPU that the trial was given, or that was metered, and that did nothing."""
    if wants_gpu(record) is False or record.log.get("without_gpu"):
        return
    usage = max((c["max"] for c in series(record, GPU_USAGE)), default=None)
    idle = _idle_gpus(record) if wants_gpu(record) else {}
    if usage is None:
        yield Unknown("GPU utilisation was not sampled")
    elif usage <= IDLE_GPU_PCT:
        power = gpu_powers(record)
        watts = power[0]["mean"] if power else None
        text = f"GPU utilisation never exceeds {usage:.0f} %" + (
            f", mean power {watts:.1f} W" if watts is not None else ""
        )
        yield Found(text, place(record, usage_max_pct=usage, mean_w=watts))
    elif idle:
        names = ", ".join(f"{gpu} never exceeds {use:.0f} %" for gpu, use in idle.items())
        yield Found(f"of the given GPUs {names}", place(record, idle_gpus=dict(idle)))


def _idle_gpus(record: Record) -> dict[str, float]:
    """Given GPUs that did nothing, with their highest utilisation, %."""
    counted = {d.name for d in record.domains if d.counted and d.name.startswith("gpu")}
    columns = matching(GPU_USAGE, tuple(record.series))
    highest = {c.lower().partition("_")[0]: record.series[c]["max"] for c in columns}
    return {
        gpu: highest[gpu] for gpu in sorted(counted & set(highest)) if highest[gpu] <= IDLE_GPU_PCT
    }
