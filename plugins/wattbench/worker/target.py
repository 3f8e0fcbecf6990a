"""Address, login and host key of a worker host."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from wattbench.worker.agent.limits import DEFAULT_SPOOL


@dataclass(frozen=True)
class HostTarget:
    """Where a worker host is and how to know it.

    Attributes:
        name: its name in hosts.yaml.
        hostname: address or DNS name.
        port: of its sshd.
        username: whom to log in as.
        private_key: PEM text; else ``key_filename``, else the SSH agent's and the user's keys.
        key_filename: path of a private key.
        host_key: the only key it may show, ``ssh-ed25519 AAAA…``; else ``known_hosts_file`` decides.
        known_hosts_file: OpenSSH's format; None is the controller's ``~/.ssh/known_hosts``.
        spool: the agent's folder there.
        connect_timeout_s: how long refused, reset and unanswered connects are tried again, s.
        python: the interpreter there, 3.9 or newer.
    """

    name: str
    hostname: str
    port: int = 22
    username: str = "root"
    private_key: str | None = None
    key_filename: str | None = None
    host_key: str | None = None
    known_hosts_file: str | None = None
    spool: str = DEFAULT_SPOOL
    connect_timeout_s: float = 60.0
    python: str = "python3"

    @property
    def label(self) -> str:
        """Name and address for messages."""
        return f"host {self.name} ({self.username}@{self.hostname}:{self.port})"

    def __repr__(self) -> str:  # never print the private key
        return f"HostTarget({self.label})"


def fingerprint(key: bytes) -> str:
    """A public key blob the way OpenSSH shows it."""
    digest = hashlib.sha256(key).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
