"""Images of known truth, written as `docker save` and OCI tarballs without Docker."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class LayerTar:
    """One layer; methods return it, so that calls chain."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(  # noqa: SIM115 (closed in bytes())
            fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT
        )

    def _add(
        self,
        name: str,
        kind: bytes,
        data: bytes = b"",
        target: str = "",
        mtime: int = 0,
        mode: int = 0o644,
    ) -> LayerTar:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname, info.mtime, info.mode = (
            kind,
            len(data),
            target,
            mtime,
            mode,
        )
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes | str = b"", mtime: int = 0) -> LayerTar:
        return self._add(
            name, tarfile.REGTYPE, data.encode() if isinstance(data, str) else data, mtime=mtime
        )

    def folder(self, name: str) -> LayerTar:
        return self._add(name, tarfile.DIRTYPE, mode=0o755)

    def symlink(self, name: str, target: str) -> LayerTar:
        return self._add(name, tarfile.SYMTYPE, target=target)

    def hardlink(self, name: str, target: str) -> LayerTar:
        return self._add(name, tarfile.LNKTYPE, target=target)

    def delete(self, name: str) -> LayerTar:
        folder, _, last = name.rpartition("/")
        return self.file(f"{folder}/.wh.{last}" if folder else f".wh.{last}")

    def opaque(self, name: str) -> LayerTar:
        return self.file(f"{name}/.wh..wh..opq")

    def bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config_of(layers: list[bytes], **settings: Any) -> dict[str, Any]:
    """An image config; ``architecture`` and what belongs to its ``config`` section as keywords."""
    architecture = settings.pop("architecture", "amd64")
    return {
        "os": "linux",
        "architecture": architecture,
        "created": "2026-11-01T00:00:00Z",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(one)}" for one in layers]},
        "history": [{"created_by": f"/bin/sh -c step {n}"} for n in range(1, len(layers) + 1)],
    }


def members(archive: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in archive.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def docker_parts(layers: list[LayerTar], tag: str = "app:1", **settings: Any) -> dict[str, bytes]:
    """Members of `docker save` before Docker 25: layers first, the manifest last."""
    packed = [layer.bytes() for layer in layers]
    config = json.dumps(config_of(packed, **settings)).encode()
    parts = {f"{n:064x}/layer.tar": data for n, data in enumerate(packed)}
    parts[f"{sha256(config)}.json"] = config
    manifest = [
        {
            "Config": f"{sha256(config)}.json",
            "RepoTags": [tag],
            "Layers": [n for n in parts if n.endswith("layer.tar")],
        }
    ]
    parts["manifest.json"] = json.dumps(manifest).encode()
    return parts


def docker_save(path: Path, layers: list[LayerTar], **settings: Any) -> Path:
    path.write_bytes(members(docker_parts(layers, **settings)))
    return path


def oci_parts(
    images: list[tuple[str, list[LayerTar], dict[str, Any]]],
    pack: Callable[[bytes], bytes] = lambda layer: gzip.compress(layer, mtime=0),
) -> dict[str, bytes]:
    """Members of an OCI layout: (platform, layers, settings) each, under one index."""
    parts, descriptors = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}, []

    def blob(data: bytes) -> dict[str, Any]:
        parts[f"blobs/sha256/{sha256(data)}"] = data
        return {"digest": f"sha256:{sha256(data)}", "size": len(data)}

    for platform, layers, settings in images:
        os_name, architecture = platform.split("/")
        plain = [layer.bytes() for layer in layers]
        config = blob(json.dumps(config_of(plain, architecture=architecture, **settings)).encode())
        stored = [blob(pack(one)) for one in plain]
        manifest = blob(
            json.dumps({"schemaVersion": 2, "config": config, "layers": stored}).encode()
        )
        descriptors.append(manifest | {"platform": {"os": os_name, "architecture": architecture}})
    parts["index.json"] = json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()
    return parts


def elf(machine: int) -> bytes:
    """The first bytes of a program for 64-bit Linux."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine)


def pyc(source_mtime: int, source_size: int, flags: int = 0) -> bytes:
    return b"\xa7\r\r\n" + struct.pack("<III", flags, source_mtime, source_size) + b"code"


def fatbin(targets: list[tuple[int, int, int]]) -> bytes:
    """A container of device code: (kind, capability × 10, payload bytes) each."""
    parts = []
    for kind, capability, size in targets:
        size = -(-size // 8) * 8
        header = struct.pack("<HHIQIIII", kind, 0x101, 64, size, size, 0, 0, capability)
        parts += [header.ljust(64, b"\0"), b"\xab" * size]
    entries = b"".join(parts)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def python_base(machine: int = 62) -> LayerTar:
    """A base with Python 3.11, compiled."""
    source = "import sys\n"
    return (
        LayerTar()
        .file("etc/os-release", 'PRETTY_NAME="Testing GNU/Linux 1"\nID=testing\n')
        .file("usr/bin/python3.11", elf(machine))
        .symlink("usr/bin/python3", "python3.11")
        .symlink("bin", "usr/bin")
        .file("usr/lib/python3.11/os.py", source, mtime=7)
        .file("usr/lib/python3.11/__pycache__/os.cpython-311.pyc", pyc(7, len(source)))
        .file(
            "var/lib/dpkg/status",
            "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n\n"
            "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
        )
    )


def torch_layer(
    root: str = "opt/packages",
    cuda: str | None = None,
    debug: bool = False,
    library: bytes = b"",
    version: str = "2.6.0",
) -> LayerTar:
    source = f"from typing import Optional\n__version__ = {version!r}\ndebug = {debug}\ncuda: Optional[str] = {cuda!r}\ngit_version = 'abc'\nhip: Optional[str] = None\n"
    layer = (
        LayerTar()
        .file(f"{root}/torch/version.py", source)
        .file(
            f"{root}/torch/lib/libtorch_cpu.so",
            b"x" * 50 + b"oneAPI Math Kernel Library Version" + b"y" * 50,
        )
    )
    layer.file(
        f"{root}/torch-{version}.dist-info/METADATA",
        f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n\nlong text",
    )
    if cuda:
        layer.file(f"{root}/torch/lib/libtorch_cuda.so", library)
    return layer


PYTHON_START: dict[str, Any] = {"Entrypoint": ["python3", "-m", "app"], "User": "10001"}
