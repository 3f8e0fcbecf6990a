"""The frameworks: each computes any program; none is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from ..events import Refusal
from .base import Backend

#: Name on the command line → module and class.
BACKENDS: Mapping[str, tuple[str, str]] = {
    "torch": ("torch_eager", "TorchEager"),
    "torch-compile": ("torch_compile", "TorchCompile"),
    "onnxruntime": ("onnx_runtime", "OnnxRuntime"),
    "jax": ("jax_jit", "JaxJit"),
    "tensorflow": ("tensorflow_graph", "TensorFlowGraph"),
    "numpy": ("numpy_blas", "NumpyBlas"),
}


def open_backend(name: str, device: str, precision: str) -> Backend:
    """Imports a framework and takes hold of the device.

    Args:
        name: a key of `BACKENDS`.
        device: cpu or cuda.
        precision: fp32, fp16 or bf16.

    Raises:
        Refusal: the framework or the device is not there, or it lacks the precision.
    """
    module, kind = BACKENDS[name]
    try:
        backend = getattr(importlib.import_module(f".{module}", __name__), kind)
    except ImportError as error:
        raise Refusal(f"{name} can't be imported in this image: {error}") from error
    opened: Backend = backend(device, precision)
    return opened
