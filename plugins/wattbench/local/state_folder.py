"""Folder of one installation, from which names, ports and files of its services derive."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically

FIRST_PORT, LAST_PORT = (
    20_000,
    32_000,
)  # below Linux's ephemeral range: no outgoing connection takes one


@dataclass(frozen=True)
class StateFolder:
    """The folder; two of them never share a port or a file.

    Attributes:
        path: where it is.
    """

    path: Path

    @property
    def id(self) -> str:
        """Eight hex digits of the SHA-256 of the folder's path."""
        return short_hash(self.path)

    def folder(self, *parts: str, mode: int = 0o755) -> Path:
        """A folder below it, made when missing."""
        path = self.path.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        return path

    def port(self, name: str, address: str = "127.0.0.1") -> int:
        """The port of a service: chosen free once, then kept."""
        kept = self._ports()
        if name not in kept:
            kept[name] = self._free_port(address, set(kept.values()))
            write_atomically(self._ports_file, json.dumps(kept, indent=2) + "\n")
        return kept[name]

    def new_port(self, name: str, address: str = "127.0.0.1") -> int:
        """Another port, where another process has taken the kept one while the service was down."""
        kept = self._ports()
        kept.pop(name, None)
        write_atomically(self._ports_file, json.dumps(kept, indent=2) + "\n")
        return self.port(name, address)

    def free_port(self, name: str, address: str = "127.0.0.1") -> int:
        """The port for a service that is about to start: the kept one if it is still free."""
        port = self.port(name, address)
        return port if is_free(port, address) else self.new_port(name, address)

    @property
    def _ports_file(self) -> Path:
        return self.folder() / "ports.json"

    def _ports(self) -> dict[str, int]:
        try:
            return dict(json.loads(self._ports_file.read_text()))
        except FileNotFoundError:
            return {}

    def _free_port(self, address: str, taken: set[int]) -> int:
        span = LAST_PORT - FIRST_PORT
        start = int(self.id, 16) % span
        for step in range(span):
            port = FIRST_PORT + (start + step) % span
            if port not in taken and is_free(port, address):
                return port
        raise UserError(f"ports: none between {FIRST_PORT} and {LAST_PORT} is free on {address}")

    def require_room(self, free_bytes: int, elsewhere: str = "") -> None:
        """Refuse a disk that is about to be full.

        Args:
            free_bytes: that have to be free.
            elsewhere: what else than freeing space helps, the end of the message.

        Raises:
            UserError: less is free.
        """
        there = next(p for p in (self.path, *self.path.parents) if p.is_dir())
        free = shutil.disk_usage(there).free
        if free < free_bytes:
            raise UserError(
                f"{self.path} has {free / 1e9:.1f} GB free of {free_bytes / 1e9:.1f} GB needed; free space"
                + elsewhere
            )

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Keeps a second command out while one is at work here.

        Args:
            what: is at work, for the message: "demo".

        Raises:
            UserError: one is at work; names its process.
        """
        with (self.folder() / "lock").open("a+") as file:
            _take(file, what, self.path)
            yield


def _take(file: IO[str], what: str, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        raise UserError(
            f"another {what} is at work in {path} (process {holder}); wait for it or stop it"
        ) from None
    file.seek(0)
    file.truncate()
    try:
        file.write(str(os.getpid()))
        file.flush()
    except OSError as error:  # of a full disk: a write's error has no name
        error.filename = str(path)
        raise


def short_hash(path: Path) -> str:
    """Eight hex digits of the SHA-256 of a path."""
    return hashlib.sha256(str(path).encode()).hexdigest()[:8]


def is_free(port: int, address: str) -> bool:
    """Whether a server could listen there. An address that this machine lacks counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.strerror == "Cannot assign requested address"
    return True
