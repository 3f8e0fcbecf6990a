"""Bridge network of the virtual hosts: one per checkout, on an unused subnet."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import NotFound
from docker.types import IPAMConfig, IPAMPool

from demo.checkout import Checkout
from wattbench.analysis.model.errors import UserError

Subnet = ipaddress.IPv4Network


@dataclass(frozen=True)
class Network:
    """A Docker network.

    Attributes:
        name: Docker's name of it.
        subnet: its addresses; the first is the gateway, where this machine listens.
    """

    name: str
    subnet: Subnet

    @property
    def gateway(self) -> str:
        """This machine's address on the network."""
        return str(self.subnet[1])

    def address(self, index: int) -> str:
        """The fixed address of virtual host `index`, counted from 1."""
        return str(self.subnet[10 + index])


def ensure(client: docker.DockerClient, checkout: Checkout) -> Network:
    """The checkout's network, made when missing.

    Raises:
        UserError: all of 10.88.0.0/16 is in use.
    """
    try:
        known = client.networks.get(checkout.prefix)
    except NotFound:
        subnet = choose_subnet(checkout.id, _used(client))
        pool = IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
        client.networks.create(
            checkout.prefix,
            driver="bridge",
            labels=checkout.labels,
            ipam=IPAMConfig(pool_configs=[pool]),
            options={"com.docker.network.bridge.name": f"wb-{checkout.id}"},
        )
        return Network(checkout.prefix, subnet)
    return Network(checkout.prefix, Subnet(known.attrs["IPAM"]["Config"][0]["Subnet"]))


def choose_subnet(checkout_id: str, used: list[Subnet]) -> Subnet:
    """A /24 of 10.88.0.0/16 that overlaps nothing in use, the same for a checkout each time."""
    candidates = list(Subnet("10.88.0.0/16").subnets(new_prefix=24))[1:-1]
    start = int(checkout_id, 16) % len(candidates)
    for candidate in candidates[start:] + candidates[:start]:
        if not any(candidate.overlaps(other) for other in used):
            return candidate
    raise UserError(
        "network: no free subnet in 10.88.0.0/16; remove unused ones: docker network prune"
    )


def _used(client: docker.DockerClient) -> list[Subnet]:
    """Subnets of Docker's networks and of this machine's routes, a VPN's for example."""
    pools = [
        ipaddress.ip_network(pool["Subnet"])
        for network in client.networks.list()
        for pool in network.attrs["IPAM"]["Config"] or []
        if "Subnet" in pool
    ]
    routes = parse_routes(Path("/proc/net/route").read_text())
    return [*(pool for pool in pools if isinstance(pool, Subnet)), *routes]


def parse_routes(table: str) -> list[Subnet]:
    """The destinations of `/proc/net/route`, the default route left out."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        destination, mask = (
            ipaddress.IPv4Address(struct.pack("<I", int(fields[column], 16))) for column in (1, 7)
        )
        if int(mask):
            found.append(Subnet(f"{destination}/{mask}"))
    return found
