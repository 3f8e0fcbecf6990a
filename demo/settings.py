"""Configuration of wattbench for the demo: hosts, experiment, connections; all below `var`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from demo.checkout import Checkout
from demo.hosts import SPOOL, USER, VirtualHost
from demo.registry import Registry
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local import connections, object_store
from wattbench.local.connections import Connection
from wattbench.local.object_store import ObjectStore

EXPERIMENT = "demo"
METER = "/usr/local/bin/energibridge-standin"
_PLACEHOLDER = re.compile(r"\bregistry\.local/")


def folder(checkout: Checkout) -> Path:
    """What WATTBENCH_CONFIG points at."""
    return checkout.folder("config")


def source(checkout: Checkout) -> str:
    """The demo's experiment as it stands in the repository."""
    return sources(checkout)[EXPERIMENT]


def sources(checkout: Checkout) -> dict[str, str]:
    """The experiments for the virtual hosts as they stand in the repository, by name."""
    texts = {
        path.stem: path.read_text()
        for path in sorted((checkout.root / "config" / "experiments").glob("*.yaml"))
    }
    return {name: text for name, text in texts.items() if _PLACEHOLDER.search(text)}


def write(
    checkout: Checkout,
    hosts: Sequence[VirtualHost],
    store: ObjectStore,
    registry: Registry,
    say: Callable[[str], None],
) -> None:
    """Writes hosts.yaml, the resolved experiments and the connections; rewrites what has changed.

    Hosts and connections that a person has added stay.

    Raises:
        UserError: hosts.yaml or the connections can't be read.
    """
    target = folder(checkout)
    write_atomically(target / "hosts.yaml", hosts_yaml(hosts, registry, _hosts_in(target)))
    for name, text in sources(checkout).items():
        resolved = target / "experiments" / f"{name}.yaml"
        text = resolve(text, registry)
        if not resolved.exists() or resolved.read_text() != text:
            say(
                f"{resolved.relative_to(checkout.root)}: config/experiments/{resolved.name} with "
                f"{registry.pull} for registry.local"
            )
            write_atomically(resolved, text)
    known = connections.read(checkout)
    connections.write(checkout, {**known, **connections_of(hosts, store)})


def _hosts_in(target: Path) -> Mapping[str, object]:
    path = target / "hosts.yaml"
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_text())["hosts"]
        return {str(name): host for name, host in found.items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a hosts.yaml; correct it or delete it") from None


def hosts_yaml(
    hosts: Sequence[VirtualHost], registry: Registry, known: Mapping[str, object]
) -> str:
    """The virtual hosts, and those that a person has added, as wattbench's configuration names them."""
    return yaml.safe_dump(
        {
            "store": {"conn_id": connections.STORE, "bucket": object_store.BUCKET, "prefix": ""},
            "registries": {registry.pull: {"insecure": True}},
            "hosts": {
                host.name: {
                    "ssh_conn_id": connections.connection_id(host.name),
                    "gpus": [],
                    "spool": SPOOL,
                    "meter": {"kind": "modelled", "command": METER, "interval_ms": 200},
                }
                for host in hosts
            }
            | {n: h for n, h in known.items() if n not in {host.name for host in hosts}},
        },
        sort_keys=False,
    )


def resolve(experiment: str, registry: Registry) -> str:
    """The experiment with the checkout's registry in place of `registry.local`."""
    return _PLACEHOLDER.sub(f"{registry.pull}/", experiment)


def connections_of(hosts: Sequence[VirtualHost], store: ObjectStore) -> dict[str, Connection]:
    """Airflow's connections: one per host, one for the store."""
    found = {
        connections.connection_id(host.name): connections.ssh(
            host.address, USER, host.client_key, host.host_key
        )
        for host in hosts
    }
    return found | {connections.STORE: store.connection()}
