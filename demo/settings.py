"""Configuration of wattbench for the demo: hosts, experiment, connections; all below `var`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
from wattbench.workloads.files import read_source

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
    texts = {path.stem: path.read_text() for path in sorted(_experiments(checkout).glob("*.yaml"))}
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
    for name in sources(checkout):
        _activate(checkout, _experiments(checkout) / f"{name}.yaml", registry, say)
    known = connections.read(checkout)
    connections.write(checkout, {**known, **connections_of(hosts, store)})


def add_example(
    checkout: Checkout, name: str, registry: Registry, say: Callable[[str], None]
) -> None:
    """Makes an example an experiment of the virtual hosts, if there is one of that name for them.

    An experiment of that name in `config/experiments` goes before it.
    """
    path = _experiments(checkout) / "examples" / f"{name}.yaml"
    is_ours = path.is_file() and _PLACEHOLDER.search(path.read_text())
    if is_ours and name not in sources(checkout):
        _activate(checkout, path, registry, say)


def _activate(
    checkout: Checkout, path: Path, registry: Registry, say: Callable[[str], None]
) -> None:
    """Copies an experiment, resolved, with the files that its workload names; rewrites what has changed."""
    resolved = folder(checkout) / "experiments" / path.name
    text = path.read_text()
    for name in _files_of(text):
        with suppress(
            ValueError
        ):  # a file that can't be had is refused with the experiment, by name
            write_atomically(resolved.parent / name, read_source(name, path.parent))
    text = resolve(text, registry)
    if not resolved.exists() or resolved.read_text() != text:
        say(
            f"{resolved.relative_to(checkout.root)}: {path.relative_to(checkout.root)} with "
            f"{registry.pull} for registry.local"
        )
        write_atomically(resolved, text)


def _files_of(experiment: str) -> list[str]:
    """The files beside an experiment that its workload names; none of one that can't be read."""
    try:
        workload = yaml.safe_load(experiment)["workload"]
        requests = workload.get("load", {}).get("requests")
        named = [*workload.get("files", {}).values(), requests]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return []
    return [name for name in named if isinstance(name, str)]


def _experiments(checkout: Checkout) -> Path:
    return checkout.root / "config" / "experiments"


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
                    "meter": {"kind": "modelled", "command": METER, "interval_ms": 100},
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
