"""Image registry of the test bed: Debian's docker-registry, twice over one folder.

Docker trusts a registry without TLS on the loopback address only, so images are pushed there and
no setting of the user's daemon is touched. The virtual hosts read from the bridge's gateway
address, where nothing can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import requests
import yaml

from demo import packages
from demo.checkout import Checkout, is_free
from demo.network import Network
from demo.processes import Service, service
from wattbench.analysis.storage.atomic import write_atomically


@dataclass(frozen=True)
class Registry:
    """Where to push to and where to pull from; both are the same registry.

    Attributes:
        push: `127.0.0.1:PORT`.
        pull: `GATEWAY:PORT`, the name in image references.
    """

    push: str
    pull: str


def describe(checkout: Checkout, network: Network) -> Registry:
    """The registry's addresses. Moves to another port when ours was taken while it was down."""
    port = checkout.port("registry")
    up = all(service(checkout, name).pid() for name in ("registry", "registry-push"))
    addresses = ("127.0.0.1", network.gateway)
    while not up and not all(
        is_free(port, address) or _ours(checkout, address) for address in addresses
    ):
        port = checkout.new_port("registry")
    return Registry(push=f"127.0.0.1:{port}", pull=f"{network.gateway}:{port}")


def ensure(checkout: Checkout, registry: Registry, say: Callable[[str], None]) -> None:
    """Starts what of the registry is not running."""
    binary = packages.unpacked(checkout, "docker-registry", "docker-registry", say)
    storage = checkout.folder("registry")
    for name, address, read_only in (
        ("registry-push", registry.push, False),
        ("registry", registry.pull, True),
    ):
        process = service(checkout, name)
        text = _config(str(storage), address, read_only)
        config = checkout.folder("etc") / f"{name}.yml"
        write_atomically(config, text)
        process.ensure([binary, "serve", str(config)], env={}, also=text)
        process.wait_until(partial(_answers, address), within_s=20)


def _config(storage: str, address: str, read_only: bool) -> str:
    return yaml.safe_dump(
        {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": storage},
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": read_only}},
            },
            "http": {"addr": address},
        }
    )


def _answers(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/v2/", timeout=2).ok
    except requests.RequestException:
        return False


def _ours(checkout: Checkout, address: str) -> bool:
    name = "registry-push" if address == "127.0.0.1" else "registry"
    process: Service = service(checkout, name)
    return process.pid() is not None
