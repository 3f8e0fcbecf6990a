"""Registry of the test bed: pushed to on the loopback address, read by the hosts on their network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from demo.checkout import Checkout
from demo.network import Network
from wattbench.local import registry_server
from wattbench.local.processes import service
from wattbench.local.state_folder import is_free


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
    registry_server.ensure(checkout, "registry-push", registry.push, say)
    registry_server.ensure(checkout, "registry", registry.pull, say, read_only=True)


def _ours(checkout: Checkout, address: str) -> bool:
    name = "registry-push" if address == "127.0.0.1" else "registry"
    return service(checkout, name).pid() is not None
