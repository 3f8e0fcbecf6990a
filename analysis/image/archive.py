"""Reads an image from where it lies: a tarball of ``docker save``, an OCI layout, a folder, local Docker.

One pass, in whatever order the parts come, nothing unpacked to disk: `docker save` of older Dockers writes
the manifest last. Every part is told by its first bytes; layers are read as they stream by, and put in order
by the manifest at the end. Each layer is held against its digest: a damaged archive is never audited.
"""

from __future__ import annotations

import gzip
import json
import posixpath
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from wattbench.analysis.image import layers
from wattbench.analysis.image.layers import Layer
from wattbench.analysis.model.errors import InputError

_BLOCK = 512
_PIECE = 1 << 20
#: Manifests and configs are far smaller; what is larger is no JSON worth keeping.
_JSON_LIMIT = 16 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SAVE = "give a file that `docker save IMAGE -o FILE` wrote, or an OCI layout"
_RECOMPRESS = (
    "write it with gzip: `skopeo copy --dest-compress-format gzip SOURCE oci-archive:FILE` "
    "or `docker buildx build --output type=docker,dest=FILE`"
)
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)

#: Told how many bytes of the source have been read.
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Stored:
    """An image as stored.

    Attributes:
        source: where it was read from.
        config: the OCI image config.
        config_digest: its digest, the image's id; empty where the source doesn't tell.
        digest: of the manifest, where the source tells.
        tags: names it was saved under.
        layers: the base first.
    """

    source: str
    config: Mapping[str, Any]
    config_digest: str
    digest: str | None
    tags: tuple[str, ...]
    layers: tuple[Layer, ...]


@dataclass
class _Parts:
    """What a source holds, by member name."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def real(self, name: str) -> str:
        """The member that a name stands for; `docker save` links equal layers."""
        name = posixpath.normpath(name)
        for _ in range(8):
            if name not in self.aliases:
                break
            name = self.aliases[name]
        return name

    def document(self, name: str) -> Any:
        """A JSON document, or None."""
        raw = self.documents.get(self.real(name))
        try:
            return None if raw is None else json.loads(raw)
        except ValueError:
            return None


def read(
    place: str, *, platform: str | None = None, name: str | None = None, tick: Tick = lambda _: None
) -> Stored:
    """Read an image.

    Args:
        place: a tarball, a folder, or the name of an image in the local Docker.
        platform: ``os/architecture``; which to take of several.
        name: ``repository:tag``; which to take of several.
        tick: told the progress.

    Raises:
        InputError: nothing there, no image, several, damaged, or compressed in a way that can't be read.
    """
    path = Path(place)
    if path.is_dir():
        parts = _folder(path, tick)
    elif path.is_file():
        with path.open("rb") as stream:
            parts = _tarball(place, cast("IO[bytes]", _Counted(stream, tick)))
    else:
        with _docker(place) as stream:
            parts = _tarball(place, cast("IO[bytes]", _Counted(stream, tick)))
        name = None
    return _assemble(place, parts, platform, name)


class _Counted:
    """A stream that tells how far it has been read."""

    def __init__(self, stream: IO[bytes], tick: Tick) -> None:
        self._stream, self._tick, self._read = stream, tick, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._read += len(piece)
        self._tick(self._read)
        return piece


def _tarball(place: str, stream: IO[bytes]) -> _Parts:
    parts = _Parts()
    try:
        with tarfile.open(fileobj=stream, mode="r|*", bufsize=layers.BUFFER) as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                if member.issym():
                    target = posixpath.join(posixpath.dirname(name), member.linkname)
                    parts.aliases[name] = posixpath.normpath(target)
                elif member.islnk():
                    parts.aliases[name] = posixpath.normpath(member.linkname)
                elif member.isreg() and (content := tar.extractfile(member)) is not None:
                    _part(place, parts, name, content, member.size)
                layers.forget(tar)
    except _DAMAGE as error:
        raise InputError(f"{place}: can't be read as a tar archive ({error}); {_SAVE}") from error
    return parts


def _folder(path: Path, tick: Tick) -> _Parts:
    if not any((path / name).is_file() for name in ("index.json", "manifest.json")):
        raise InputError(f"{path}: holds neither index.json nor manifest.json; {_SAVE}")
    parts, done = _Parts(), 0
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        name = file.relative_to(path).as_posix()
        size = file.stat().st_size
        with file.open("rb") as content:
            _part(str(path), parts, name, content, size)
        tick(done := done + size)
    return parts


@contextmanager
def _docker(ref: str) -> Iterator[IO[bytes]]:
    """The stream of ``docker save``."""
    if ref.startswith(("-", "/", ".")) or ref.endswith((".tar", ".gz", ".tgz")):
        raise InputError(f"{ref}: no such file or folder; {_SAVE}")
    if shutil.which("docker") is None:
        raise InputError(
            f"{ref}: no such file, and no docker command here to look for an image of that name; {_SAVE}"
        )
    asked = subprocess.run(["docker", "image", "inspect", ref], capture_output=True, text=True)
    if asked.returncode:
        why = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(
            f"{ref}: neither a file nor an image of the local Docker ({why}); "
            f"`docker pull {ref}` first, or {_SAVE}"
        )
    with subprocess.Popen(
        ["docker", "save", ref], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
            while process.stdout.read(_PIECE):  # padding behind the archive's end
                pass
        finally:
            process.stdout.close()  # after a fault: docker must not wait for a reader
            said = process.stderr.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise InputError(f"{ref}: docker save failed ({said[-1] if said else 'no message'})")


def _part(place: str, parts: _Parts, name: str, content: IO[bytes], size: int) -> None:
    """Look at one member: a layer, a JSON document, or nothing of ours."""
    head = content.peek(_BLOCK)[:_BLOCK]  # type: ignore[attr-defined]
    try:
        if head[:2] == _GZIP:
            with gzip.GzipFile(fileobj=content) as unpacked:
                if not _is_tar(unpacked.peek(_BLOCK)[:_BLOCK]):
                    return
                layer = layers.read(unpacked)
            layer.packed_bytes, layer.compression = size, "gzip"
            parts.layers[name] = layer
        elif _is_tar(head):
            parts.layers[name] = layers.read(content)
        elif head[:4] == _ZSTD:
            parts.refused[name] = "zstd"
        elif head.lstrip()[:1] in (b"{", b"[") and size <= _JSON_LIMIT:
            parts.documents[name] = content.read()
    except _DAMAGE as error:
        raise InputError(f"{place}: {name} is damaged or cut ({error}); save it again") from error


def _is_tar(head: bytes) -> bool:
    if len(head) < _BLOCK:
        return False
    if not any(head):
        return True  # a layer without files: nothing but the end mark
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _assemble(place: str, parts: _Parts, platform: str | None, name: str | None) -> Stored:
    saved = parts.document("manifest.json")
    index = parts.document("index.json")
    if isinstance(saved, list) and saved:
        chosen = _choose_saved(place, saved, name)
        config_name, names = chosen.get("Config"), chosen.get("Layers")
        tags = tuple(chosen.get("RepoTags") or ())
        digest = _only_digest(index)
    elif isinstance(index, dict):
        found = _choose_oci(place, parts, index, platform, name)
        manifest = parts.document(_blob(found["digest"]))
        if not isinstance(manifest, dict) or "config" not in manifest:
            raise InputError(f"{place}: manifest {found['digest']} is missing; save it again")
        config_name = _blob(manifest["config"]["digest"])
        names = [_blob(one["digest"]) for one in manifest.get("layers", ())]
        tag = (found.get("annotations") or {}).get("org.opencontainers.image.ref.name")
        tags, digest = ((tag,) if tag else ()), found["digest"]
    else:
        raise InputError(f"{place}: no image in it (no manifest.json, no index.json); {_SAVE}")
    config = parts.document(config_name) if isinstance(config_name, str) else None
    if not isinstance(config, dict) or not isinstance(names, list):
        raise InputError(f"{place}: the image's config {config_name} is missing; save it again")
    stack = _stack(place, parts, names, config)
    base = posixpath.basename(parts.real(cast("str", config_name))).removesuffix(".json")
    return Stored(place, config, f"sha256:{base}" if len(base) == 64 else "", digest, tags, stack)


def _choose_saved(place: str, saved: list[Any], name: str | None) -> dict[str, Any]:
    images = [one for one in saved if isinstance(one, dict)]
    if name is not None:
        images = [one for one in images if name in (one.get("RepoTags") or ())]
        if not images:
            raise InputError(f"{place}: holds no {name}; it holds {_tags(saved)}")
    if len(images) != 1:
        raise InputError(f"{place}: holds {_tags(saved)}; choose one with --name")
    return images[0]


def _tags(saved: list[Any]) -> str:
    names = [t for one in saved if isinstance(one, dict) for t in one.get("RepoTags") or ["<none>"]]
    return f"{len(saved)} images: {', '.join(names)}"


def _only_digest(index: Any) -> str | None:
    manifests = index.get("manifests") if isinstance(index, dict) else None
    return manifests[0].get("digest") if manifests and len(manifests) == 1 else None


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _choose_oci(
    place: str,
    parts: _Parts,
    index: dict[str, Any],
    platform: str | None,
    name: str | None,
    depth: int = 0,
) -> dict[str, Any]:
    """The manifest's descriptor; indexes may be nested."""
    ref = "org.opencontainers.image.ref.name"
    found = [one for one in index.get("manifests", ()) if _platform(one) != "unknown/unknown"]
    if name is not None and depth == 0:
        found = [one for one in found if (one.get("annotations") or {}).get(ref) == name]
    if len(found) > 1 and platform:
        found = [one for one in found if _same_platform(_platform(one), platform)]
    if len(found) != 1:
        there = ", ".join(_platform(one) for one in index.get("manifests", ())) or "none"
        raise InputError(
            f"{place}: {len(found)} images fit, platforms: {there}; choose with --platform or --name"
        )
    below = parts.document(_blob(found[0]["digest"]))
    if isinstance(below, dict) and "manifests" in below and depth < 4:
        return _choose_oci(place, parts, below, platform, name, depth + 1)
    return cast("dict[str, Any]", found[0])


def _platform(descriptor: Mapping[str, Any]) -> str:
    told = descriptor.get("platform") or {}
    return f"{told.get('os', '?')}/{told.get('architecture', '?')}"


def _same_platform(one: str, other: str) -> bool:
    return one.split("/")[:2] == other.split("/")[:2]


def _stack(
    place: str, parts: _Parts, names: list[Any], config: Mapping[str, Any]
) -> tuple[Layer, ...]:
    expected = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(expected) != len(names):
        raise InputError(
            f"{place}: the manifest names {len(names)} layers, the config {len(expected)}; save it again"
        )
    stack: list[Layer] = []
    for index, (name, diff_id) in enumerate(zip(names, expected, strict=True)):
        real = parts.real(str(name))
        if real in parts.refused:
            raise InputError(
                f"{place}: layer {index + 1} is compressed with {parts.refused[real]}, which Python "
                f"before 3.14 can't unpack; {_RECOMPRESS}"
            )
        layer = parts.layers.get(real)
        if layer is None:
            raise InputError(
                f"{place}: layer {index + 1} of {len(names)} is missing; save it again"
            )
        if layer.diff_id != diff_id:
            raise InputError(
                f"{place}: layer {index + 1} is damaged (its digest is {layer.diff_id[:19]}…, the config "
                f"says {diff_id[:19]}…); save it again"
            )
        if any(layer is one for one in stack):
            layer = layer.copy()
        layer.renumber(index)
        stack.append(layer)
    return tuple(stack)
