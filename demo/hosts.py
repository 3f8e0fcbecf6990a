"""Virtual worker hosts: containers with their own sshd, Docker daemon, address and one core."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import paramiko
from docker.errors import NotFound

from demo import builds
from demo.base_image import Bases
from demo.checkout import Checkout
from demo.network import Network
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local.keys import KeyPair, key_pair
from wattbench.worker.agent import limits

COUNT = 2
USER = "bench"
MEMORY_BYTES = 6 * 2**30
SPOOL = limits.DEFAULT_SPOOL
_SETTINGS_LABEL = "wattbench.settings"


@dataclass(frozen=True)
class VirtualHost:
    """One virtual worker host.

    Attributes:
        name: its name in hosts.yaml, `virtual-1`.
        container: its container's name on this machine.
        address: its IP address.
        core: this machine's core that it owns.
        host_key: its SSH identity.
        client_key: the controller's, which it lets in.
    """

    name: str
    container: str
    address: str
    core: int
    host_key: KeyPair
    client_key: KeyPair


def describe(checkout: Checkout, network: Network) -> list[VirtualHost]:
    """The hosts of this checkout with their keys, which are made when missing; starts nothing."""
    folder = checkout.folder("ssh", mode=0o700)
    client_key = key_pair(folder / "controller")
    cores = sorted(os.sched_getaffinity(0))
    found = [
        VirtualHost(
            name=f"virtual-{number}",
            container=f"{checkout.prefix}-virtual-{number}",
            address=network.address(number),
            core=cores[(number - 1) % len(cores)],
            host_key=key_pair(folder / f"virtual-{number}"),
            client_key=client_key,
        )
        for number in range(1, COUNT + 1)
    ]
    write_atomically(
        folder / "known_hosts", "".join(f"{h.address} {h.host_key.public}\n" for h in found)
    )
    write_atomically(folder / "config", "\n".join(_ssh_config(folder, h) for h in found))
    return found


def build_image(client: docker.DockerClient, checkout: Checkout, bases: Bases) -> str:
    """Builds the hosts' image.

    Returns:
        Its id.
    """
    return builds.build(
        client,
        checkout.root / "images" / "worker-host",
        tag=f"{checkout.prefix}/worker-host:latest",
        args={"BASE": bases.debian},
        labels=checkout.labels,
    )


def ensure(
    client: docker.DockerClient,
    checkout: Checkout,
    network: Network,
    host: VirtualHost,
    image_id: str | None,
    registry: str,
) -> None:
    """Starts a host, or leaves it alone when it runs as it should, and waits until it can be used.

    Its volumes (pulled images, spool) outlive its container.

    Args:
        client: of this machine's Docker.
        checkout: whose host.
        network: where it is.
        host: which one.
        image_id: what it is to run; None to keep a host that is there as it is.
        registry: from where it pulls images without TLS.

    Raises:
        UserError: no SSH or no Docker on it in time.
    """
    inputs = _write_inputs(checkout, host, registry)
    options = _options(host, inputs)
    settings = hashlib.sha256(
        json.dumps([image_id, options, registry], sort_keys=True, default=vars).encode()
    ).hexdigest()[:12]
    for role in ("docker", "spool"):
        client.volumes.create(f"{host.container}-{role}", labels=checkout.labels)
    container = _existing(client, host.container)
    if image_id and container and container.labels.get(_SETTINGS_LABEL) != settings:
        container.remove(force=True)
        container = None
    if container is None:
        if image_id is None:
            raise UserError(
                f"{host.name}: its container {host.container} is gone in the middle of a run; "
                "stop the run in Airflow, then call this again"
            )
        endpoint = client.api.create_endpoint_config(ipv4_address=host.address)
        container = client.containers.create(
            image_id,
            name=host.container,
            labels={**checkout.labels, _SETTINGS_LABEL: settings},
            network=network.name,
            networking_config={network.name: endpoint},
            **options,
        )
    if container.status != "running":
        container.start()
    wait_until_ready(host, within_s=90)


def wait_until_ready(host: VirtualHost, within_s: float) -> None:
    """Waits until the host lets us in and its Docker answers.

    Raises:
        UserError: neither in time; says which of the two.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            code, said = run(host, "docker version --format '{{.Server.Version}}'")
        except (OSError, paramiko.SSHException) as error:
            code, said = -1, f"SSH: {error}"
        if code == 0:
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"{host.name}: not ready within {within_s:.0f} s: {said}; "
                f"see: docker logs {host.container}"
            )
        time.sleep(0.2)


def run(host: VirtualHost, command: str, timeout_s: float = 20) -> tuple[int, str]:
    """Runs a command on a host over SSH, its identity checked.

    Returns:
        Exit code, and standard output or else the last line of standard error.
    """
    kind, blob = host.host_key.public.split()[:2]
    client = paramiko.SSHClient()
    client.get_host_keys().add(
        host.address, kind, paramiko.PKey.from_type_string(kind, base64.b64decode(blob))
    )
    with client:
        client.connect(
            host.address,
            username=USER,
            key_filename=str(host.client_key.file),
            timeout=5,
            banner_timeout=5,
            auth_timeout=5,
            look_for_keys=False,
            allow_agent=False,
        )
        _, stdout, stderr = client.exec_command(command, timeout=timeout_s)
        try:
            text = stdout.read().decode(errors="replace")
            errors = stderr.read().decode(errors="replace").strip().splitlines()
        except TimeoutError as error:
            raise OSError(f"no end of {command!r} within {timeout_s:.0f} s") from error
        return stdout.channel.recv_exit_status(), text.strip() or (errors or [""])[-1]


def _existing(client: docker.DockerClient, name: str) -> Any:
    try:
        return client.containers.get(name)
    except NotFound:
        return None


def _options(host: VirtualHost, inputs: Path) -> dict[str, Any]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "hostname": host.name,
        "detach": True,
        "cpuset_cpus": str(host.core),
        "mem_limit": min(MEMORY_BYTES, total // (COUNT + 1)),
        # Enough for an inner Docker daemon. --privileged is not allowed everywhere; this is.
        "cap_add": ["SYS_ADMIN", "NET_ADMIN"],
        "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
        "volumes": {
            str(inputs): {"bind": "/run/worker", "mode": "ro"},
            f"{host.container}-docker": {"bind": "/var/lib/docker", "mode": "rw"},
            f"{host.container}-spool": {"bind": SPOOL, "mode": "rw"},
        },
    }


def _write_inputs(checkout: Checkout, host: VirtualHost, registry: str) -> Path:
    """What makes the host itself; see images/worker-host/entry.sh."""
    folder = checkout.folder("hosts", host.name, mode=0o700)
    settings = {
        "insecure-registries": [registry],
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "2"},
    }
    write_atomically(folder / "daemon.json", json.dumps(settings, indent=2) + "\n")
    write_atomically(folder / "authorized_keys", f"{host.client_key.public}\n")
    write_atomically(folder / "ssh_host_ed25519_key", host.host_key.private, mode=0o600)
    write_atomically(folder / "ssh_host_ed25519_key.pub", f"{host.host_key.public}\n")
    return folder


def _ssh_config(folder: Path, host: VirtualHost) -> str:
    return (
        f"Host {host.name}\n"
        f"  HostName {host.address}\n"
        f"  User {USER}\n"
        f"  IdentityFile {host.client_key.file}\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n"
        "  StrictHostKeyChecking yes\n"
        "  ServerAliveInterval 3\n"
    )
