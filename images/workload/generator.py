"""Numbers that are the same in every library version, on every machine, for ever.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) in numpy's unsigned 64-bit integers, which wrap by
definition. Each name has a stream of its own, so that adding a tensor changes no other. Every
operation after the integers is one that IEEE 754 rounds correctly, hence equal bits everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
else:
    Array = np.ndarray  # numpy before 1.22 takes no parameters

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_CHUNK = 1 << 14  # 128 KiB of words: two such buffers stay in a core's own cache

#: Means and deviations of ImageNet's colours, red, green, blue, as torchvision normalises with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def words(seed: int, count: int) -> Array:
    """The first outputs of SplitMix64.

    Args:
        seed: its initial state, 64 bits.
        count: how many outputs.

    Returns:
        `count` unsigned 64-bit integers.
    """
    out = np.empty(count, np.uint64)
    steps = np.arange(1, min(count, _CHUNK) + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    scratch = np.empty_like(steps)
    for start in range(0, count, _CHUNK):
        z = out[start : start + _CHUNK]
        t = scratch[: len(z)]
        np.add(steps[: len(z)], np.uint64((seed + start * _GOLDEN) & _MASK), out=z)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            np.right_shift(z, np.uint64(shift), out=t)
            np.bitwise_xor(z, t, out=z)
            np.multiply(z, np.uint64(factor), out=z)
        np.right_shift(z, np.uint64(31), out=t)
        np.bitwise_xor(z, t, out=z)
    return out


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Evenly spread numbers in [low, high), a function of the name and the shape alone.

    Args:
        name: of the stream; its SHA-256 is the seed.
        shape: of the result.
        low: the lower bound, taken as a 32-bit float.
        high: the upper bound.

    Returns:
        32-bit floats; each word yields two of them, from the upper 24 bits of its halves, the lower
        half first.
    """
    count = int(np.prod(shape, dtype=np.int64))
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    halves = words(seed, (count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
    halves >>= np.uint32(8)
    values = halves.astype(np.float32)
    values *= np.float32((high - low) * 2.0**-24)
    if low:
        values += np.float32(low)
    return values.reshape(shape)


def images(batch: int, resolution: int) -> Array:
    """Random three-colour images, normalised as ImageNet's are.

    Args:
        batch: how many.
        resolution: pixels a side.

    Returns:
        32-bit floats, (batch, 3, resolution, resolution).
    """
    shape = (batch, 3, resolution, resolution)
    values = uniform(f"input:{batch}:{resolution}", shape, 0.0, 1.0)
    for channel, (mean, std) in enumerate(zip(_MEAN, _STD)):
        values[:, channel] -= np.float32(mean)
        values[:, channel] /= np.float32(std)
    return values


def fingerprint(logits: Array, count: int = 8) -> list[float]:
    """A few fixed projections of a pass's output: two passes did equal work if these agree.

    Args:
        logits: the output, any shape.
        count: how many projections.

    Returns:
        `count` numbers of the order of the logits' root mean square.
    """
    flat = np.asarray(logits, np.float64).ravel()
    directions = uniform("fingerprint", (count, flat.size), -1.0, 1.0).astype(np.float64)
    scale = (3.0 / flat.size) ** 0.5
    return [float(value) for value in (directions * flat).sum(axis=1) * scale]


def sha256(array: Array) -> str:
    """SHA-256 of an array's 32-bit floats, little end first, in C order."""
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").data).hexdigest()


def sha256_of_weights(weights: Mapping[str, Array]) -> str:
    """SHA-256 over names, shapes and values, sorted by name: the same for every file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], "<f4")
        digest.update(f"{name} {list(array.shape)}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
