"""A deployment of docker-compose.airflow.yml on local bases, beside the bed whose hosts it uses."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import docker
import requests

from demo import base_image, builds, settings
from demo.bed import Bed
from demo.checkout import Checkout
from deploy.stack import Stack
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.cli.airflow_api import Client, Login
from wattbench.local import object_store
from wattbench.storage.object_store import Store, StoreTarget

HERE = Path(__file__).resolve().parent / "compose"
OVERRIDE = HERE / "override.yml"


@dataclass(frozen=True)
class LocalStack:
    """A deployment in which everything but the images is what a team has."""

    bed: Bed
    env_file: Path

    @property
    def stack(self) -> Stack:
        return Stack(self.env_file, (OVERRIDE,))

    @property
    def url(self) -> str:
        return self.stack.variables["WATTBENCH_URL"]

    @property
    def client(self) -> Client:
        known = self.stack.variables
        login = Login(self.url, known["WATTBENCH_ADMIN"], known["WATTBENCH_ADMIN_PASSWORD"])
        return Client(login, advice="see the stack's logs")

    @property
    def token(self) -> str:
        known = self.stack.variables
        answer = requests.post(
            f"{self.url}/auth/token", timeout=60,
            json={"username": known["WATTBENCH_ADMIN"], "password": known["WATTBENCH_ADMIN_PASSWORD"]},
        )  # fmt: skip
        return str(answer.json()["access_token"])

    @property
    def store(self) -> Store:
        """The store, by its container's address: it has no port on this machine."""
        container = docker.from_env().containers.get(str(self.stack.container("store")))
        (network,) = container.attrs["NetworkSettings"]["Networks"].values()
        known = self.stack.variables
        return Store(
            StoreTarget(f"http://{network['IPAddress']}:8333", known["STORE_ACCESS_KEY"],
                        known["STORE_SECRET_KEY"], object_store.BUCKET)
        )  # fmt: skip

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m deploy`, as a person calls it."""
        return subprocess.run(
            [sys.executable, "-m", "deploy", *arguments, "--env-file", str(self.env_file), "--file", str(OVERRIDE)],
            cwd=self.bed.checkout.root, capture_output=True, text=True,
        )  # fmt: skip


def prepare(bed: Bed) -> LocalStack:
    """Secrets and configuration below `var`, and a base with packages; starts nothing."""
    checkout = bed.checkout
    folder = checkout.folder("compose")
    config = folder / "config"
    write_atomically(config / "hosts.yaml", settings.hosts_yaml(bed.hosts, bed.registry, {}))
    write_atomically(
        config / "experiments" / "demo.yaml",
        settings.resolve(settings.source(checkout), bed.registry),
    )
    local = LocalStack(bed, folder / "env")
    local.env_file.unlink(missing_ok=True)
    assert local.deploy("secrets").returncode == 0
    client = docker.from_env()
    base = base_image.ensure(client, checkout, print).python
    packages = _with_packages(checkout, base)
    port = checkout.free_port("compose")
    more = {
        "COMPOSE_PROJECT_NAME": f"{checkout.prefix}-stack",
        "WATTBENCH_PORT": str(port),
        "WATTBENCH_URL": f"http://127.0.0.1:{port}",
        "WATTBENCH_CONFIG": str(config),
        "WATTBENCH_IMAGE": f"{checkout.prefix}/controller:local",
        "WATTBENCH_API_WORKERS": "1",
        "BASE": base,
        "CHECKOUT_ID": checkout.id,
        "CHECKOUT_PREFIX": checkout.prefix,
        "CHECKOUT_ROOT": str(checkout.root),
        "PACKAGES": packages,
        "HOSTS_NETWORK": bed.network.name,
        "RCLONE": str(Path(sys.executable).with_name("rclone")),
    }
    with local.env_file.open("a") as file:
        file.writelines(f"{key}={value}\n" for key, value in more.items())
    return local


def _with_packages(checkout: Checkout, base: str) -> str:
    """The base with the controller's packages, which a build here can't install; made once a lock.

    The Dockerfile finds them where it would have installed them.
    """
    lock = checkout.root / "deploy" / "requirements.txt"
    key = hashlib.sha256(lock.read_bytes() + base.encode()).hexdigest()[:12]
    tag = f"{checkout.prefix}/packages:{key}"
    client = docker.from_env()
    if client.images.list(name=tag):
        return tag
    folder = checkout.folder("compose", "packages")
    site = folder / "packages"
    shutil.rmtree(site, ignore_errors=True)
    subprocess.run(
        [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--target", str(site),
         "--python-version", "3.11", "--only-binary", ":all:",
         "--require-hashes", "--requirements", str(lock)],
        check=True,
    )  # fmt: skip
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY packages /opt/packages\n")
    builds.build(client, folder, tag, {"BASE": base}, checkout.labels)
    shutil.rmtree(site)
    return tag
