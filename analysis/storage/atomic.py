"""Files and folders that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Yield a free path in the target's folder, and rename it to the target at the end.

    After an exception whatever was written is removed and the target is untouched. An existing file
    is replaced; an existing folder is not, unless it is empty.

    Args:
        target: where the file or folder is to appear; its parents are made.

    Yields:
        A path with the target's extension that does not exist yet.

    Raises:
        OSError: nothing was written, or the target is a folder that holds something.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{os.getpid()}-{threading.get_ident()}.{target.name}")
    _remove(beside)
    try:
        yield beside
        beside.replace(target)
    except BaseException:
        _remove(beside)
        raise


def write_atomically(target: Path, content: str | bytes, mode: int | None = None) -> None:
    """Write a file whole or not at all.

    Args:
        target: the file; its parents are made.
        content: text is written as UTF-8.
        mode: permissions, in force before the content is written; None keeps those of an existing
            file, and gives 0o644 to a new one.

    Raises:
        OSError: nothing was written; with the file's name.
    """
    if mode is None:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    with written_beside(target) as beside:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
        except OSError as error:  # of a full disk: a write's error has no name
            error.filename = str(target)
            raise
        beside.chmod(mode)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
