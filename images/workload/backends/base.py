"""What a framework has to offer."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..generator import Array
from ..program import Program

#: Variables that change how fast the same code computes.
_TELLING = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|ONEDNN|DNNL|PYTORCH|TORCH|CUDA|CUBLAS|CUDNN|NVIDIA|XLA|JAX|MALLOC)_"
    r"|TF_(ENABLE|NUM)_|LD_PRELOAD$|PYTHONDONTWRITEBYTECODE$|PYTHONOPTIMIZE$"
)


class Backend:
    """A framework on a device: `load` a program once, then `place` inputs and `run` them."""

    def __init__(self, device: str, precision: str) -> None:
        self.device = device
        self.precision = precision

    def describe_device(self) -> dict[str, Any]:
        """`actual` as the framework reports it, `name`, `uuid` (null for a CPU)."""
        raise NotImplementedError

    def versions(self) -> dict[str, Any]:
        """Versions and settings that may explain a difference between images."""
        raise NotImplementedError

    def session(self) -> AbstractContextManager[Any]:
        """What all computation happens in."""
        return nullcontext()

    def load(self, program: Program, weights: Mapping[str, Array]) -> None:
        """Brings the weights to the device, in the precision."""
        raise NotImplementedError

    def place(self, images: Array) -> Any:
        """Brings an input to the device, in the precision."""
        raise NotImplementedError

    def run(self, images: Any) -> Any:
        """Starts one inference; it may still be under way on return."""
        raise NotImplementedError

    def wait(self, logits: Any) -> None:
        """Returns when everything that was started is done; `logits` came last."""
        raise NotImplementedError

    def fetch(self, logits: Any) -> Array:
        """The logits as 32-bit floats (batch, classes)."""
        raise NotImplementedError


def common_versions() -> dict[str, Any]:
    """Versions that need no framework."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "os": _os_name(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "bytecode": not sys.dont_write_bytecode,
        "env": {k: v for k, v in sorted(os.environ.items()) if _TELLING.match(k)},
    }


def cpu_name() -> str:
    """The processor's name as Linux reports it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def version_of(module: str) -> str | None:
    """The version of a package that may be absent."""
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError:
        return None


def _os_name() -> str:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.system()
    fields = dict(line.partition("=")[::2] for line in lines)
    return fields.get("PRETTY_NAME", platform.system()).strip('"')
