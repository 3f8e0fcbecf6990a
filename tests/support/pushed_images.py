"""Images that tests push to a registry by plain HTTP, without any Docker."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import requests

OCI = "application/vnd.oci.image."


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class RegistryWriter:
    """Pushes to a registry on this machine."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.url = f"http://{address}/v2"

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
