"""The platform's state before and after a window, cheap to read."""

from __future__ import annotations

import os
import platform

from wattbench.worker.agent.base import stamp
from wattbench.worker.agent.machine import machine_state
from wattbench.worker.agent.sysfs import (
    family_cpu_ns,
    frequency_khz,
    governor,
    host_cpu_ns,
    is_container,
    memory,
    own_cpu_ns,
    quota_throttles,
    swap,
    temperature_c,
    throttle_counts,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import AttemptSpec
    from wattbench.worker.agent.meters import Meter
    from wattbench.worker.agent.sysfs import ContainerCpu


def edges(
    spec: AttemptSpec, readers: Sequence[Meter], containers: ContainerCpu, over: bool
) -> Json:
    """One edge.

    Args:
        spec: the attempt's.
        readers: all meters.
        containers: CPU time of the host's containers.
        over: whether the window is over.
    """
    host_ns = host_cpu_ns()
    # before the first container of a host there is no cgroup of theirs to read
    trial_ns = containers.read() if spec["runtime"] == "docker" else 0
    trial_ns = 0 if trial_ns is None and not over else trial_ns
    known = host_ns is not None and trial_ns is not None
    folder = spec.get("controller")
    controller_ns = family_cpu_ns(folder) if folder else 0
    ours_ns = own_cpu_ns() + controller_ns
    state: Json = {
        **stamp(),
        "kernel": platform.release(),
        "governor": governor(),
        "throttle": throttle_counts() | quota_throttles(),
        "swap": swap(),
        "memory_available_bytes": memory()["available_bytes"],
        "load": None if is_container() else list(os.getloadavg()),
        "cgroup_cpu_ns": host_ns,
        "cpu_busy_ns": (host_ns or 0) - (trial_ns or 0) - ours_ns if known else None,
        "controller_cpu_ns": controller_ns,
        "frequency_khz": frequency_khz(),
        "temperature_c": temperature_c(),
        "machine": machine_state(readers),
    }
    for meter in readers:
        state.update(meter.edge())
    return state
