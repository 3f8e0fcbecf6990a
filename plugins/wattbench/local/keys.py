"""SSH identities, generated before the first start so that the first connection is strict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wattbench.analysis.storage.atomic import write_atomically


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 key pair in OpenSSH's formats.

    Attributes:
        file: where the private half is, mode 600.
        private: its text.
        public: `ssh-ed25519 AAAA…`.
    """

    file: Path
    private: str
    public: str


def key_pair(file: Path) -> KeyPair:
    """The key pair of that file, made when missing."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_ssh_private_key,
    )

    try:
        private = file.read_text()
    except FileNotFoundError:
        private = (
            Ed25519PrivateKey.generate()
            .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            .decode()
        )
        write_atomically(file, private, mode=0o600)
    key = load_ssh_private_key(private.encode(), password=None)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    write_atomically(file.with_name(f"{file.name}.pub"), f"{public}\n")
    return KeyPair(file, private, public)
