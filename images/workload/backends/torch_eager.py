"""PyTorch as it comes: every operation is called one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from ..events import Refusal
from ..generator import Array
from ..program import Program
from .base import Backend, common_versions, cpu_name

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Tensor = torch.Tensor


class TorchOps:
    """The operations, by `torch.nn.functional`; in place where torchvision's model is."""

    def conv(self, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, weight, None, stride, padding)

    def batch_norm(
        self, x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor
    ) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-5)

    def relu(self, x: Tensor) -> Tensor:
        return torch.relu_(x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x.add_(y)

    def max_pool(self, x: Tensor, size: int, stride: int, padding: int) -> Tensor:
        return F.max_pool2d(x, size, stride, padding)

    def global_average(self, x: Tensor) -> Tensor:
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    def tokens(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def layer_norm(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, scale.shape, scale, shift, eps=1e-6)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def attention(self, qkv: Tensor, heads: int) -> Tensor:
        batch, length, width = qkv.shape
        q, k, v = qkv.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        mixed: Tensor = scores.softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(batch, length, width // 3)

    def mean_token(self, x: Tensor) -> Tensor:
        return x.mean(1)


class TorchEager(Backend):
    """Eager PyTorch, 1.13 or later."""

    def __init__(self, device: str, precision: str) -> None:
        super().__init__(device, precision)
        if device == "cuda" and not torch.cuda.is_available():
            raise Refusal(
                f"device cuda is not there: torch {torch.__version__}"
                + (
                    f" (CUDA {torch.version.cuda}) sees no GPU; were --gpus and a driver given?"
                    if torch.version.cuda
                    else " is built for the CPU only; use a CUDA build or device: cpu"
                )
            )
        # fp32 means fp32: NVIDIA's own images switch TensorFloat-32 on by an environment variable.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self._dtype = _DTYPES[precision]
        self._device = torch.device(device)

    def describe_device(self) -> dict[str, Any]:
        """Where a new tensor really lies."""
        actual = torch.zeros(1, device=self._device).device
        if actual.type != "cuda":
            return {"actual": actual.type, "name": cpu_name(), "uuid": None}
        properties = torch.cuda.get_device_properties(actual)
        uuid = getattr(properties, "uuid", None)  # torch 2.4 and later
        return {
            "actual": actual.type,
            "name": properties.name,
            "uuid": f"GPU-{uuid}" if uuid else None,
        }

    def versions(self) -> dict[str, Any]:
        """Torch's build configuration, threads and vector width beside what is common."""
        build = torch.__config__.show()
        cudnn: Any = torch.backends.cudnn
        onednn: Any = torch.backends.mkldnn
        cpu: Any = getattr(torch.backends, "cpu", None)  # torch 2.0 and later
        return {
            **common_versions(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": cudnn.version() if cudnn.is_available() else None,
            "cuda_archs": torch.cuda.get_arch_list(),
            "blas": _setting(build, "BLAS_INFO"),
            "onednn": onednn.is_available(),
            "threads": torch.get_num_threads(),
            "cpu_capability": cpu.get_cpu_capability() if cpu else _cpu_capability(build),
            "build": build,
        }

    def session(self) -> AbstractContextManager[Any]:
        """No gradients, no version counters."""
        return torch.inference_mode()

    def load(self, program: Program, weights: Mapping[str, Array]) -> None:
        """Weights as tensors; the forward pass as the program has it."""
        ops = TorchOps()
        placed = {
            name: torch.from_numpy(array).to(self._device, self._dtype)
            for name, array in weights.items()
        }

        def forward(x: Tensor) -> Any:
            return program.forward(ops, placed, x)

        self._forward = forward

    def place(self, images: Array) -> Tensor:
        """A tensor on the device."""
        return torch.from_numpy(images).to(self._device, self._dtype)

    def run(self, images: Tensor) -> Tensor:
        """One inference."""
        logits: Tensor = self._forward(images)
        return logits

    def wait(self, logits: Tensor) -> None:
        """A GPU works behind Python's back: waits for it."""
        if logits.is_cuda:
            torch.cuda.synchronize(logits.device)

    def fetch(self, logits: Tensor) -> Array:
        """To numpy by way of 32-bit floats, since numpy has no bfloat16."""
        array: Array = logits.float().cpu().numpy()
        return array


def _setting(build: str, key: str) -> str | None:
    found = re.search(rf"{key}=([^,\s]+)", build)
    return found.group(1) if found else None


def _cpu_capability(build: str) -> str | None:
    found = re.search(r"CPU capability usage: (\S+)", build)
    return found.group(1) if found else None
