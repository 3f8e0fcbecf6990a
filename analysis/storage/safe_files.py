"""Files of a folder that others wrote: regular ones, inside it, up to a size.

A symbolic link may lead to another place of the same folder and nowhere else. Nothing is waited for: a
pipe or device is refused before anything is read from it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from wattbench.analysis.model.errors import InputError

#: Largest file that is read whole, bytes.
FILE_BYTES: Final = 256 << 20


class UnsafeFileError(InputError):
    """A file that is not read: outside of its folder, not a regular file, or too large."""


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading.

    Raises:
        UnsafeFileError: it is a pipe, a device, a socket or a folder.
        OSError: it can't be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnsafeFileError(f"{path}: is not a regular file; it is not read")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def leaves(root: str | Path, path: str | Path) -> bool:
    """Whether a path, links followed, lies outside of a folder."""
    base = os.path.realpath(root)
    return os.path.commonpath([base, os.path.realpath(path)]) != base


def open_inside(root: Path, relative: str) -> IO[bytes]:
    """Open a regular file of a folder.

    Raises:
        UnsafeFileError: it lies outside of the folder, or is not a regular file.
        OSError: it can't be opened.
    """
    path = root / relative
    if leaves(root, path):
        raise UnsafeFileError(f"{path}: leads out of the folder; it is not read")
    return open_regular(path)


def read_inside(root: Path, relative: str, *, limit: int = FILE_BYTES) -> bytes:
    """The content of a regular file of a folder.

    Raises:
        UnsafeFileError: as :func:`open_inside`, or it is larger than ``limit`` bytes.
        OSError: it can't be read.
    """
    with open_inside(root, relative) as file:
        return _whole(file, root / relative, limit)


def read_regular(path: Path, *, limit: int = FILE_BYTES) -> bytes:
    """The content of a regular file that a person has named, wherever it lies.

    Raises:
        UnsafeFileError: it is not a regular file, or larger than ``limit`` bytes.
        OSError: it can't be read.
    """
    with open_regular(path) as file:
        return _whole(file, path, limit)


def _whole(file: IO[bytes], path: Path, limit: int) -> bytes:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise UnsafeFileError(f"{path}: over {limit / 1e6:.0f} MB; it is not read")
    return data


def walk(root: Path, *, limit: int = 1_000_000) -> Iterator[tuple[str, int]]:
    """Regular files below a folder, by name: path relative to it with slashes, and size in bytes.

    Links to folders are not followed, nor those to files outside; what is not a regular file is left out.

    Raises:
        InputError: there are more than ``limit`` files.
        OSError: a folder can't be read.
    """
    todo, count = [""], 0
    while todo:
        folder = todo.pop()
        below = []
        with os.scandir(root / folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    below.append(relative)
                elif entry.is_file() and not (entry.is_symlink() and leaves(root, entry.path)):
                    count += 1
                    if count > limit:
                        raise InputError(f"{root}: over {limit:,} files; name a folder with less")
                    yield relative, entry.stat().st_size
        todo += below[::-1]
