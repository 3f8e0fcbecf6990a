"""Load, temperature and power of the moment."""

from __future__ import annotations

import os
import time

from wattbench.worker.agent import meters
from wattbench.worker.agent.sysfs import host_cpu_ns, is_container, temperature_c, usable_cores

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wattbench.worker.agent.base import Json


def sample(seconds: float, gpus: Sequence[str]) -> Json:
    """CPU load over a short while, temperature and power, each None where it is not known."""
    readers = meters.present(gpus)
    marks = [meter.idle_mark() for meter in readers]
    cpu, began = host_cpu_ns(), time.monotonic()
    time.sleep(seconds)
    cpu_after, elapsed = host_cpu_ns(), time.monotonic() - began
    known = cpu is not None and cpu_after is not None
    cores = usable_cores() if is_container() else os.cpu_count() or 1
    levels: Json = {
        "cpu_pct": 100 * ((cpu_after or 0) - (cpu or 0)) / 1e9 / elapsed / cores if known else None,
        "temperature_c": temperature_c(),
        "power_w": None,
    }
    for meter, mark in zip(readers, marks):  # noqa: B905 (Python 3.9)
        levels_of_meter = meter.idle_levels(mark, time.monotonic() - began)
        levels.update(
            {k: v for k, v in levels_of_meter.items() if v is not None or k not in levels}
        )
    return levels
