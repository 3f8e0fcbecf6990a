"""Many raw files, read by several processes: when that pays, and how they are started."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

#: Below this many bytes a second process costs more than it saves.
PARALLEL_FROM = 64 * 1024 * 1024

#: Files that one process is given at once.
CHUNK_FILES = 256

#: More than a few would outrun the disk and the process that collects.
_MOST_PROCESSES = 8

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class Run(Protocol):
    """How to apply a function to each of some values."""

    def __call__(
        self, function: Callable[[_Given], _Made], values: Iterable[_Given], /
    ) -> Iterable[_Made]:
        """Results come in the order of the values."""


def chunks(paths: Sequence[str]) -> list[Sequence[str]]:
    """Files by what one process does at once: of a few large ones, every process gets some."""
    size = max(1, min(CHUNK_FILES, len(paths) // 16))
    return [paths[i : i + size] for i in range(0, len(paths), size)]


@contextmanager
def readers(root: str, paths: Sequence[str], limit: int) -> Iterator[Run]:
    """How to run a function over chunks of files: in this process, or in others where that pays.

    Args:
        root: the folder that relative paths start from.
        paths: all files.
        limit: bytes of a file beyond which it is not read.
    """
    if not _is_large(root, paths, limit):
        yield map
        return
    processes = min(_MOST_PROCESSES, os.cpu_count() or 1)
    # A plain fork would break where the caller has threads (pyarrow's).
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wattbench.analysis.audit.importers.reduce"])
    # Reducing makes no cycles: collecting in the readers would only cost.
    with ProcessPoolExecutor(processes, mp_context=context, initializer=gc.disable) as pool:
        yield pool.map


def below(root: str, path: str) -> str:
    """A file's path; a Path for each of tens of thousands would cost more than reading it."""
    return f"{root}/{path}" if root else path


def _is_large(root: str, paths: Sequence[str], limit: int) -> bool:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):  # said when it is opened
            size = os.stat(below(root, path)).st_size  # noqa: PTH116 - many small files
            total += size if size <= limit else 0
        if total >= PARALLEL_FROM:
            return True
    return False
