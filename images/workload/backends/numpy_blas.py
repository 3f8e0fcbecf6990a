"""NumPy alone: convolutions as matrix products, so that the BLAS that numpy is linked to does the work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..events import Refusal
from ..generator import Array
from ..program import Program
from .base import Backend, common_versions, cpu_name

#: Abramowitz and Stegun, 7.1.26: erf within 1.5e-7, which is about the precision of a 32-bit float.
_ERF_P = 0.3275911
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_BLAS = re.compile(r"/[^/]*(?:blas|blis|atlas|mkl)[^/]*\.so[^/]*$")


class NumpyOps:
    """The operations on arrays (batch, channels, height, width); in place where torch's are."""

    def conv(self, x: Array, weight: Array, stride: int, padding: int) -> Array:
        size = weight.shape[-1]
        if size == 1:
            columns = x[:, :, ::stride, ::stride]
        else:
            windows = sliding_window_view(_padded(x, padding, 0.0), (size, size), axis=(2, 3))
            columns = windows[:, :, ::stride, ::stride].transpose(0, 1, 4, 5, 2, 3)
        height, width = columns.shape[-2:]
        flat = columns.reshape(len(x), -1, height * width)
        product: Array = weight.reshape(len(weight), -1) @ flat
        return product.reshape(len(x), -1, height, width)

    def batch_norm(
        self, x: Array, mean: Array, variance: Array, scale: Array, shift: Array
    ) -> Array:
        factor = scale / np.sqrt(variance + np.float32(1e-5))
        x *= _channels(factor)
        x += _channels(shift - mean * factor)
        return x

    def relu(self, x: Array) -> Array:
        return np.maximum(x, np.float32(0), out=x)

    def add(self, x: Array, y: Array) -> Array:
        x += y
        return x

    def max_pool(self, x: Array, size: int, stride: int, padding: int) -> Array:
        windows = sliding_window_view(_padded(x, padding, -np.inf), (size, size), axis=(2, 3))
        highest: Array = windows[:, :, ::stride, ::stride].max((4, 5))
        return highest

    def global_average(self, x: Array) -> Array:
        mean: Array = x.mean((2, 3))
        return mean

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        product: Array = x @ weight.T
        product += bias
        return product

    def tokens(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)

    def layer_norm(self, x: Array, scale: Array, shift: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        centred /= np.sqrt(variance + np.float32(1e-6))
        centred *= scale
        centred += shift
        normed: Array = centred
        return normed

    def gelu(self, x: Array) -> Array:
        at = np.abs(x) * np.float32(0.5**0.5)
        t = 1 / (1 + np.float32(_ERF_P) * at)
        polynomial = np.zeros_like(t)
        for factor in _ERF:
            polynomial += np.float32(factor)
            polynomial *= t
        tail = polynomial * np.exp(-at * at)  # 1 − erf(|x| / √2)
        activated: Array = x * np.where(x < 0, tail, 2 - tail) * np.float32(0.5)
        return activated

    def attention(self, qkv: Array, heads: int) -> Array:
        batch, length, width = qkv.shape
        parts = qkv.reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        q, k, v = parts
        scores = q @ k.swapaxes(-1, -2)
        scores *= np.float32(q.shape[-1] ** -0.5)
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        mixed: Array = (scores @ v).swapaxes(1, 2)
        return mixed.reshape(batch, length, width // 3)

    def mean_token(self, x: Array) -> Array:
        mean: Array = x.mean(1)
        return mean


class NumpyBlas(Backend):
    """NumPy 1.20 or later on the CPU, 32-bit floats: BLAS has no narrower ones."""

    def __init__(self, device: str, precision: str) -> None:
        super().__init__(device, precision)
        if device != "cpu":
            raise Refusal(f"numpy computes on the CPU, not on {device}; use another framework")
        if precision != "fp32":
            raise Refusal(f"numpy computes fp32 here, not {precision}")

    def describe_device(self) -> dict[str, Any]:
        """The processor: numpy has no other device."""
        return {"actual": "cpu", "name": cpu_name(), "uuid": None}

    def versions(self) -> dict[str, Any]:
        """The BLAS that is loaded, which numpy's own build record need not name, beside what is common."""
        np.dot(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
        return {**common_versions(), "blas": _loaded_blas()}

    def load(self, program: Program, weights: Mapping[str, Array]) -> None:
        """The weights as they are."""
        self._program, self._weights, self._ops = program, weights, NumpyOps()

    def place(self, images: Array) -> Array:
        """The array as it is."""
        return images

    def run(self, images: Array) -> Array:
        """One inference, over on return."""
        logits: Array = self._program.forward(self._ops, self._weights, images)
        return logits

    def wait(self, logits: Array) -> None:
        """Nothing works behind Python's back."""

    def fetch(self, logits: Array) -> Array:
        """The array as it is."""
        return logits


def _padded(x: Array, padding: int, value: float) -> Array:
    if not padding:
        return x
    sides = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    return np.pad(x, sides, constant_values=np.float32(value))


def _channels(values: Array) -> Array:
    return values[:, np.newaxis, np.newaxis]


def _loaded_blas() -> list[str]:
    """Files of linear algebra mapped into this process."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if _BLAS.search(line)}
    return sorted(Path(path).name for path in paths)
