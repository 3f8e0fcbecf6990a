"""Airflow connections of services and hosts on this machine, in the file that Airflow reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local.keys import KeyPair
from wattbench.local.state_folder import StateFolder

#: The object store's.
STORE = "wattbench_store"
Connection = Mapping[str, object]


def connection_id(host: str) -> str:
    """The Airflow connection of a host."""
    return f"wattbench_{host.replace('-', '_')}"


def ssh(
    address: str, user: str, client_key: KeyPair, host_key: KeyPair, port: int = 22
) -> Connection:
    """An SSH connection that holds the host's key."""
    return {
        "conn_type": "ssh",
        "host": address,
        "login": user,
        "port": port,
        "extra": {
            "private_key": client_key.private,
            "host_key": host_key.public,
            "no_host_key_check": False,
        },
    }


def _file(state: StateFolder) -> Path:
    return state.path / "connections.json"


def read(state: StateFolder) -> Mapping[str, Connection]:
    """All connections of the file; none where there is no file yet.

    Raises:
        UserError: the file is not one of connections.
    """
    try:
        found = json.loads(_file(state).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{_file(state)}: {error}; correct it or delete it") from None
    if not isinstance(found, dict):
        raise UserError(f"{_file(state)}: not a mapping of connections; correct it or delete it")
    return found


def write(state: StateFolder, connections: Mapping[str, Connection]) -> None:
    """Writes all connections, readable by the owner only."""
    text = json.dumps(connections, indent=2) + "\n"
    write_atomically(_file(state), text, mode=0o600)
