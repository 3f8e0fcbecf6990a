"""Names of devices as workloads and experiments write them."""

from __future__ import annotations

#: Devices by family: a workload says ``cuda`` where people say ``gpu``.
GPU_DEVICES = frozenset({"cuda", "gpu", "rocm", "hip", "mps", "xpu"})


def is_gpu(device: str) -> bool:
    """Whether a device's name is that of a GPU."""
    return device.lower().split(":")[0] in GPU_DEVICES
