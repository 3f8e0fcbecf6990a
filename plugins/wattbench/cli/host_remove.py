"""`wattbench host remove NAME`: what speaks against it, and what `host add` made beside hosts.yaml."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wattbench.airflow.connections import store_target
from wattbench.cli import enrol
from wattbench.cli.output import say
from wattbench.config.loader import experiment_paths, read_experiment
from wattbench.errors import ConfigError, UserError
from wattbench.run import host_claims
from wattbench.storage.object_store import Store

if TYPE_CHECKING:
    from wattbench.cli.airflow_api import Client
    from wattbench.cli.enrol import Address
    from wattbench.config.hosts import HostsConfig


def reasons_against(name: str, folder: Path, hosts: HostsConfig) -> list[str]:
    """Why a host should stay: experiments name it, runs hold it, or the store can't say whether one does."""
    found = list(_experiments_of(name, folder))
    reasons = [f"{', '.join(found)}: would be refused, since it names {name}"] if found else []
    try:
        claims = host_claims.claims(Store(store_target(hosts), waits_s=()), name)
    except UserError as error:
        return [*reasons, f"whether a run has it is not known ({error})"]
    return reasons + [
        f"raw logs of {claim.run_id} may still lie on it (wattbench-housekeeping collects them)"
        if claim.is_expired(time.time())
        else f"{claim.run_id} has it (wait for it, or: wattbench host release {name})"
        for claim in claims
    ]


def _experiments_of(name: str, folder: Path) -> Iterator[str]:
    """The experiments that name a host; one that can't be read is refused already."""
    for path in experiment_paths(folder):
        try:
            if name in read_experiment(path).hosts:
                yield path.stem
        except ConfigError:
            continue


def forget_key(name: str, addresses: Mapping[str, Address | None], pins: Path) -> str:
    """Remove a host's pinned key, unless another host has the same address.

    Args:
        name: the host.
        addresses: of all hosts, as far as they are known.
        pins: the file with the keys.

    Returns:
        What became of it, for the user.
    """
    address = addresses[name]
    if address is None:
        return (
            f"{pins}: a key of it stays, since no connection here says its address; remove its line"
        )
    same = [
        other
        for other, there in addresses.items()
        if there is not None and other != name and there.known_as == address.known_as
    ]
    if same:
        return f"{pins}: the key of {address.known_as} stays, {', '.join(same)} is there too"
    if enrol.unpin(address, pins):
        return f"{pins}: the key of {address.known_as} is removed"
    return f"{pins}: has no key of {address.known_as}"


def forget_connection(client: Client | None, conn_id: str) -> int:
    """Remove a host's Airflow connection where we are logged in, else say how; 1 if Airflow refuses."""
    by_hand = f"airflow connections delete {conn_id}"
    if client is None:
        say(f"\nNot logged in to Airflow; where its command line is:\n\n  {by_hand}")
        return 0
    try:
        removed = client.remove_connection(conn_id)
    except UserError as error:
        say(f"Airflow: connection {conn_id} stays: {error}; remove it: {by_hand}", to_stderr=True)
        return 1
    say(
        f"Airflow: connection {conn_id} is removed"
        if removed
        else f"Airflow: its database has no connection {conn_id}; one set by AIRFLOW_CONN_… or in a "
        "file stays"
    )
    return 0
