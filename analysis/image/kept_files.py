"""Which files of a layer are looked into while it streams by, and what is kept of them.

Layers are read once and never unpacked, so this has to be decided by a path alone.
"""

from __future__ import annotations

import re

_KIB = 1024

#: Pattern of a path → bytes kept from its beginning.
_KEPT: tuple[tuple[re.Pattern[str], int], ...] = tuple(
    (re.compile(pattern), limit)
    for pattern, limit in (
        (r"(etc|usr/lib)/os-release$", 16 * _KIB),
        (r"var/lib/dpkg/status(\.d/[^/]+)?$", 64 * _KIB * _KIB),
        (r"lib/apk/db/installed$", 64 * _KIB * _KIB),
        (r"(.*/)?[^/]+\.dist-info/METADATA$", 8 * _KIB),
        (r"(.*/)?[^/]+\.egg-info(/PKG-INFO)?$", 8 * _KIB),
        (r"(.*/)?torch/version\.py$", 4 * _KIB),
        (r"(.*/)?include/python3\.\d+d?/patchlevel\.h$", 8 * _KIB),
        (r"(.*/)?bin/python[\d.]*$", 20),
    )
)
_GPU_LIBRARY = re.compile(r"(.*/)?libtorch_cuda[^/]*\.so[^/]*$")
_CPU_LIBRARY = re.compile(r"(.*/)?libtorch_cpu\.so[^/]*$")

#: What Intel's library answers when asked for its version: it is linked into the file.
MKL_MARK = b"Math Kernel Library Version"
#: The header of compiled Python (PEP 552): magic, flags, and mtime and size of the source.
PYC_HEADER = 16


def kept_bytes(path: str) -> int:
    """How many bytes from the beginning of a file are kept; 0 for most."""
    if path.endswith(".pyc"):
        return PYC_HEADER
    return next((limit for pattern, limit in _KEPT if pattern.match(path)), 0)


def has_gpu_code(path: str) -> bool:
    """Whether a file is looked through for GPU code: the library with PyTorch's CUDA kernels."""
    return _GPU_LIBRARY.match(path) is not None


def may_have_mkl(path: str) -> bool:
    """Whether a file is looked through for Intel's MKL: the library with PyTorch's CPU kernels."""
    return _CPU_LIBRARY.match(path) is not None
