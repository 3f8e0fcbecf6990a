"""A real registry (Debian's docker-registry) with images that the tests push by plain HTTP."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from analysis.errors import UserError
from demo import packages
from demo.checkout import here

OCI = "application/vnd.oci.image."


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class TestRegistry:
    """One ``docker-registry serve``; started and ended by its own process handle."""

    __test__ = False

    def __init__(self, binary: str, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}/v2"

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
        self.process = subprocess.Popen(
            [self.binary, "serve", str(config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, "docker-registry ended"
                time.sleep(0.02)
        raise AssertionError("docker-registry does not listen")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def push_blob(self, name: str, data: bytes) -> str:
        begun = requests.post(f"{self.url}/{name}/blobs/uploads/", timeout=10)
        begun.raise_for_status()
        done = requests.put(
            begun.headers["Location"], params={"digest": sha256(data)}, data=data, timeout=60
        )
        done.raise_for_status()
        return sha256(data)

    def push_manifest(self, name: str, reference: str, document: Mapping[str, Any]) -> str:
        raw = json.dumps(document).encode()
        done = requests.put(
            f"{self.url}/{name}/manifests/{reference}", data=raw, timeout=10,
            headers={"Content-Type": str(document["mediaType"])},
        )  # fmt: skip
        done.raise_for_status()
        return sha256(raw)

    def push_image(
        self,
        name: str,
        reference: str | None,
        files: Mapping[str, bytes],
        *,
        architecture: str = "amd64",
        config: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One layer a file. Returns the manifest and its digests, as pushed."""
        layers, diff_ids = [], []
        for path, content in files.items():
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as tar:
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            blob = gzip.compress(packed.getvalue(), 1, mtime=0)
            diff_ids.append(sha256(packed.getvalue()))
            layers.append(
                {
                    "mediaType": OCI + "layer.v1.tar+gzip",
                    "size": len(blob),
                    "digest": self.push_blob(name, blob),
                }
            )
        document = {
            "os": "linux",
            "architecture": architecture,
            "created": "2026-01-02T03:04:05Z",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": f"COPY {path}"} for path in files],
        }
        raw = json.dumps(document).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": {
                "mediaType": OCI + "config.v1+json",
                "size": len(raw),
                "digest": self.push_blob(name, raw),
            },
            "layers": layers,
        }
        digest = sha256(json.dumps(manifest).encode())
        self.push_manifest(name, reference or digest, manifest)
        return {
            "digest": digest,
            "config_digest": sha256(raw),
            "size": len(json.dumps(manifest).encode()),
            "layers": layers,
            "diff_ids": diff_ids,
        }

    def push_index(self, name: str, tag: str, images: Mapping[str, Mapping[str, Any]]) -> str:
        return self.push_manifest(
            name,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": OCI + "index.v1+json",
                "manifests": [
                    {
                        "mediaType": OCI + "manifest.v1+json",
                        "digest": image["digest"],
                        "size": image["size"],
                        "platform": dict(
                            zip(("os", "architecture"), platform.split("/"), strict=True)
                        ),
                    }
                    for platform, image in images.items()
                ],
            },
        )


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
