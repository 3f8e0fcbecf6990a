"""Refusals, files, clocks and locks: what every module of the agent builds on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
import time

from wattbench.worker.agent import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    Json = dict[str, Any]

#: This program's own file, for the processes that it leaves behind.
SELF = os.path.abspath(sys.argv[0])

NUMBER = (int, float)
#: Errors of a disk without room.
FULL = (errno.ENOSPC, errno.EDQUOT)


class AgentError(Exception):
    """A refusal that the caller can act on."""

    def __init__(self, code: str, message: str, action: str = "", **details: Any) -> None:
        super().__init__(message)
        self.answer: Json = {
            "ok": False, "error": code, "message": message, "action": action, **details,
        }  # fmt: skip


class CorruptError(Exception):
    """A document that is there but is not what it should be; the message names it and says why."""


def own_command(*words: str) -> list[str]:
    """The command line that runs this program again, whatever Python settings the user has."""
    return [sys.executable, "-IS", SELF, *words]


# --------------------------------------------------------------------------------------------- reading


def rooted(path: str) -> str:
    """A platform path, below ``WATTBENCH_SYSROOT`` if set."""
    return os.environ.get("WATTBENCH_SYSROOT", "") + path


def read_bytes(path: str, limit: int = limits.DOCUMENT_BYTES) -> bytes:
    """Content of a regular file; never blocks, never reads more than the limit.

    Raises:
        OSError: there is no regular file, it can't be read, or it is larger.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, "larger than %d bytes" % limit, path)
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def read_text(path: str) -> str | None:
    """Text of a small file without surrounding blanks; None if it can't be read."""
    try:
        return read_bytes(path).decode("utf-8", "replace").strip()
    except OSError:
        return None


def read_int(path: str) -> int | None:
    """A file that holds one whole number; None if it can't be read or holds something else."""
    text = read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def parse_json(text: str, nan: bool = True) -> Any:
    """A JSON value of bounded depth.

    Args:
        text: the JSON.
        nan: whether NaN and infinities are accepted.

    Raises:
        ValueError: it is not JSON, or nested deeper than :data:`limits.DEPTH`.
    """
    try:
        value = json.loads(text, parse_constant=None if nan else _refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > limits.DEPTH and _is_deep(value):
        raise ValueError("nested deeper than %d levels" % limits.DEPTH)
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError("%s is not a JSON number" % name)


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limits.DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def read_json(path: str) -> Json | None:
    """A JSON object; None if the file is absent, torn, or something else."""
    try:
        return read_object(path)
    except CorruptError:
        return None


def read_object(path: str) -> Json | None:
    """A JSON object; None if it is absent.

    Raises:
        CorruptError: it is there but can't be used.
    """
    name = os.path.basename(path)
    try:
        data = parse_json(read_bytes(path).decode("utf-8"), nan=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptError("%s: %s" % (name, error.strerror)) from None
    except ValueError as error:
        raise CorruptError("%s: %s" % (name, error)) from None
    if not isinstance(data, dict):
        raise CorruptError("%s: not a JSON object" % name)
    return data


def number(payload: Json, key: str, default: float) -> float:
    """A number of a request; the default if it is absent or null.

    Raises:
        AgentError: ``bad-request``: it is something else.
    """
    value = payload.get(key)
    if value is None:
        return float(default)
    if not isinstance(value, NUMBER) or isinstance(value, bool):
        raise AgentError("bad-request", "%s %r is not a number" % (key, value))
    return float(value)


# -------------------------------------------------------------------------------------------- the boot


def boot_mark() -> str:
    """Identifies this boot of the host, also where the host is a container.

    There the boot_id is the machine's and survives a restart, the start time of process 1 does not.
    """
    boot_id = read_text(rooted("/proc/sys/kernel/random/boot_id")) or "unknown"
    init = stat_fields(rooted("/proc/1/stat"))
    return "%s/%s" % (boot_id, init[19] if init else "unknown")


def stat_fields(path: str) -> list[str] | None:
    """Fields 3… of a stat file (the name before them may hold anything)."""
    text = read_text(path)
    return text[text.rfind(")") + 1 :].split() if text else None


# --------------------------------------------------------------------------------------------- writing


def write_bytes(path: str, data: bytes, sync: bool = True) -> None:
    """Write a private file whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    temporary = "%s.tmp%d" % (path, os.getpid())
    try:
        with open(temporary, "wb", opener=_open_private) as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        try:
            os.replace(temporary, path)
        except IsADirectoryError:  # not ours, and in the way
            import shutil

            shutil.rmtree(path)
            os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def write_json(path: str, data: Mapping[str, Any], sync: bool = True) -> None:
    """Write a JSON object whole or not at all."""
    write_bytes(path, json.dumps(data).encode() + b"\n", sync)


def sha256_of(path: str) -> str:
    """SHA-256 of a file, hexadecimal."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------ clocks and locks


def stamp() -> Json:
    """This moment on both clocks, s. CLOCK_MONOTONIC is the machine's, in containers too."""
    return {"unix_s": time.time(), "mono_s": time.monotonic()}


def unix_minus_mono() -> float:
    """How far the wall clock is ahead of the monotonic one, s: a step shows as a change."""
    before, unix, after = time.monotonic(), time.time(), time.monotonic()
    return unix - (before + after) / 2


def open_lock(path: str) -> int:
    """A file descriptor to lock; made if missing, never waited for.

    Raises:
        OSError: something that can't be locked stands there.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold an exclusive flock."""
    file = open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
