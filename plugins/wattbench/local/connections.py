"""Airflow connections of services and hosts on this machine, in the file that Airflow reads."""

from __future__ import annotations

import json
from collections.abc import Mapping

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
    """An SSH connection that knows the host by its key."""
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


def write(state: StateFolder, connections: Mapping[str, Connection]) -> None:
    """Writes all connections, readable by the owner only."""
    text = json.dumps(connections, indent=2) + "\n"
    write_atomically(state.path / "connections.json", text, mode=0o600)
