"""The spool: the agent's folder on this host, with the lease and one folder per attempt.

Whatever lies in it, reading never fails: a document that is not what it should be is distinguished from
an absent one (:class:`CorruptError`), and an attempt that has one is over, in the state ``corrupt``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import (
    AgentError,
    CorruptError,
    boot_mark,
    locked,
    open_lock,
    sha256_of,
    stamp,
)  # fmt: skip
from wattbench.worker.agent.documents import AttemptSpec, Lease, Report, read_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wattbench.worker.agent.base import Json

_MARKS = dict.fromkeys(map(ord, "._-"))
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def is_name(text: str) -> bool:
    """Whether a text can name a folder: letters, digits, and inside it also ``.``, ``_``, ``-``."""
    return text[:1] in _LETTERS and _LETTERS.issuperset(text.translate(_MARKS))


def is_id(text: str) -> bool:
    """Whether a text can be an attempt's id."""
    parts = text.split("/")
    return len(parts) == 4 and all(map(is_name, parts))


def folder_name(payload: Json, key: str) -> str | None:
    """A value of a request that names a folder.

    Raises:
        AgentError: ``bad-request``: it can't.
    """
    value = payload.get(key)
    if value is not None and not is_name(str(value)):
        raise AgentError("bad-request", "%s %r can't name a folder" % (key, value))
    return None if value is None else str(value)


class Spool:
    """The agent's folder on this host."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        try:
            os.makedirs(os.path.join(self.root, "trials"), exist_ok=True)
        except OSError as error:
            from wattbench.worker.agent import preparation

            raise AgentError(
                "spool",
                "%s can't be used: %s" % (self.root, error.strerror),
                preparation.sudo("spool", spool=self.root),
            ) from error

    def path(self, *names: str) -> str:
        """A path below the spool."""
        return os.path.join(self.root, *names)

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Held while the lease or an attempt changes hands."""
        return locked(self.path("lease.lock"))

    def lease(self) -> Lease | None:
        """The lease as written; instead of a corrupt one, one for the attempt that runs."""
        try:
            lease = read_document(self.path("lease.json"), Lease)
            if lease is None or is_id(lease.get("active") or "a/b/c/d"):
                return lease
        except CorruptError:
            pass
        running = next((a for a in self.attempts() if a.is_running()), None)
        if running is None:
            return None
        left_s = running.deadline_unix_s + limits.LEASE_MARGIN_S - time.time()
        now = stamp()
        return {
            "owner": running.owner, "active": running.id, "boot": boot_mark(),
            "expires_unix_s": now["unix_s"] + left_s, "expires_mono_s": now["mono_s"] + left_s,
        }  # fmt: skip

    def active(self) -> str | None:
        """Id of the attempt that the lease names."""
        lease = self.lease()
        return lease.get("active") if lease else None

    def attempts(self, run: str | None = None) -> list[Attempt]:
        """All attempts in the spool, in order of their folders."""
        folders = [self.path("trials")]
        for names in ([run] if run else None, None, None):
            folders = [
                entry
                for folder in folders
                for name in sorted(names or _names_in(folder))
                if is_name(name) and os.path.isdir(entry := os.path.join(folder, name))
            ]
        return [Attempt.at(self, folder) for folder in folders]


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


class Attempt:
    """One attempt's folder.

    Args:
        spool: the spool.
        attempt_id: ``run/host/nnn-image/attempt``.
    """

    def __init__(self, spool: Spool, attempt_id: str) -> None:
        if not is_id(attempt_id):
            raise AgentError(
                "bad-request", "attempt id %r is not run/host/nnn-image/attempt" % attempt_id
            )
        parts = attempt_id.split("/")
        self.id, self.spool = attempt_id, spool
        self.folder = spool.path("trials", parts[0], parts[2], parts[3])

    @classmethod
    def at(cls, spool: Spool, folder: str) -> Attempt:
        """The attempt in a folder; its spec alone says which host it belongs to."""
        run, trial, number = folder.split(os.sep)[-3:]
        attempt = cls(spool, "/".join((run, "unknown", trial, number)))
        spec = attempt.spec
        known = spec["id"] if spec else ""
        return cls(spool, known) if is_id(known) and cls(spool, known).folder == folder else attempt

    def path(self, name: str) -> str:
        """A file of the attempt."""
        return os.path.join(self.folder, name)

    def exists(self) -> bool:
        """Whether it was ever started, and not forgotten."""
        return os.path.isdir(self.folder)

    def read_spec(self) -> AttemptSpec | None:
        """What ``start`` was given; None: there is no such attempt.

        Raises:
            CorruptError: it can't be used.
        """
        return read_document(self.path("spec.json"), AttemptSpec)

    @property
    def spec(self) -> AttemptSpec | None:
        """What ``start`` was given; None: there is no such attempt, or its spec is corrupt."""
        try:
            return self.read_spec()
        except CorruptError:
            return None

    @property
    def owner(self) -> str:
        """Whose it is; where its spec is lost, the run's."""
        spec = self.spec
        return (spec["owner"] if spec else "") or self.id.split("/")[0]

    @property
    def deadline_unix_s(self) -> float:
        """When it must be over."""
        spec = self.spec
        return (spec.get("deadline_unix_s") if spec else None) or 0.0

    @property
    def report(self) -> Json | None:
        """The report; None while the attempt runs, or where a supervisor died."""
        try:
            report: Any = read_document(self.path("report.json"), Report)
        except CorruptError as error:
            return self.corrupt(str(error))
        found: Json | None = report
        return found

    def corrupt(self, why: str) -> Json:
        """The report of an attempt whose documents can't be used."""
        return {
            "schema": limits.SCHEMA, "id": self.id, "spec": self.spec or {}, "state": "corrupt",
            "message": why, "rc": None, "command": None, "container": None, "leftovers": [],
            "meter": {"argv": None, "rc": None, "version": None, "stderr_tail": "", "outlived": False},
            "edges": {"before": {}, "after": {}},
            "clock": {"unix_minus_mono_before": None, "unix_minus_mono_after": None},
            "boot": {"before": None, "after": boot_mark()}, "rest": None, "output": None,
            "connections": [], "files": self.files(),
        }  # fmt: skip

    def is_running(self) -> bool:
        """Whether a supervisor holds the attempt."""
        if not self.exists():
            return False
        try:
            file = open_lock(self.path("supervisor.lock"))
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def note(self, verb: str) -> None:
        """Record that a call touched the attempt while it ran."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            file = os.open(self.path("connections.jsonl"), flags, 0o600)
            os.write(file, json.dumps({"verb": verb, "unix_s": time.time()}).encode() + b"\n")
            os.close(file)

    def files(self) -> Json:
        """Raw files with size and SHA-256: regular files only, links lead elsewhere."""
        sizes = self._sizes()
        return {
            name: {"bytes": size, "sha256": sha256_of(self.path(name))}
            for name, (size, largest) in sizes.items()
            if size <= largest
        }

    def oversized(self) -> list[str]:
        """Names of files that are too large to be kept."""
        return [name for name, (size, largest) in self._sizes().items() if size > largest]

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """Sizes of the files that are there, and how large they may be, bytes."""
        from wattbench.worker.agent import meters

        most = dict.fromkeys(meters.raw_files(), limits.METER_FILE_BYTES)
        most[limits.REQUESTS_FILE] = limits.METER_FILE_BYTES
        most.update(dict.fromkeys(limits.OUTPUT_FILES + limits.STATE_FILES, limits.DOCUMENT_BYTES))
        found = {}
        for name, largest in most.items():
            with contextlib.suppress(OSError):
                facts = os.lstat(self.path(name))
                if stat.S_ISREG(facts.st_mode):
                    found[name] = (facts.st_size, largest)
        return found
