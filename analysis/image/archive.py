"""Reader of image archives: a tarball of ``docker save``, an OCI layout, a folder, local Docker.

One pass, in whatever order the parts come, nothing unpacked to disk: `docker save` of older Dockers writes
the manifest last. Every part is recognised by its first bytes; layers are read as they stream by, and put in
order by the manifest at the end. Each layer is held against its digest: a damaged archive is never audited.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from wattbench.analysis.image import layers, streams, tar_stream
from wattbench.analysis.image.documents import (
    INDEX_DEPTH,
    Config,
    Descriptor,
    Index,
    Manifest,
    SavedImage,
    typed,
)
from wattbench.analysis.image.layers import Budget, Layer
from wattbench.analysis.image.streams import PIECE, Buffered, DamagedError, Decompressed, Readable
from wattbench.analysis.image.tar_stream import BLOCK, Content
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage import safe_files
from wattbench.analysis.storage.documents import parse_json

#: The OCI distribution specification has registries take manifests of 4 MiB; configs are smaller.
_JSON_BYTES = 4 << 20
#: JSON kept of all members: manifests and configs of 500 platforms.
_ALL_JSON_BYTES = 32 << 20
#: Members of the archive itself.
_MEMBERS = 20_000
_NAMED = 8
_SAVE = "give a file that `docker save IMAGE -o FILE` wrote, or an OCI layout"
_HEX_DIGEST = re.compile(r"(?:^|/)([0-9a-f]{64})(?:\.json)?$")

#: Told how many bytes of the source have been read.
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Stored:
    """An image as stored.

    Attributes:
        source: where it was read from.
        config: the OCI image config.
        config_digest: its digest, the image's id.
        digest: of the manifest, where the source gives it.
        tags: names it was saved under.
        layers: the base first.
    """

    source: str
    config: Config
    config_digest: str
    digest: str | None
    tags: tuple[str, ...]
    layers: tuple[Layer, ...]


class _Parts:
    """What a source holds, by member name."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.budget = Budget(place)
        self.layers: dict[str, Layer] = {}
        self.aliases: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self._documents: dict[str, bytes] = {}
        self._json_bytes = 0

    def real(self, name: str) -> str:
        """The member that a name stands for; `docker save` links equal layers."""
        name = posixpath.normpath(name)
        for _ in range(8):
            if name not in self.aliases:
                break
            name = self.aliases[name]
        return name

    def keep(self, name: str, raw: bytes) -> None:
        """Keep what may be a document of the image."""
        self._json_bytes += len(raw)
        if self._json_bytes > _ALL_JSON_BYTES:
            self.refused[name] = f"lies behind {_ALL_JSON_BYTES >> 20} MiB of other JSON; {_SAVE}"
        else:
            self._documents[name] = raw

    def has(self, name: str) -> bool:
        """Whether there is a document, or something of its name that can't be one."""
        real = self.real(name)
        return real in self._documents or real in self.refused

    def document(self, name: str, what: str) -> Any:
        """A JSON document, held against the digest in its name.

        Raises:
            InputError: it is missing, too large, damaged, or no JSON.
        """
        real = self.real(name)
        if real in self.refused:
            raise InputError(f"{self.place}: {what} {real} {self.refused[real]}")
        raw = self._documents.get(real)
        if raw is None:
            raise InputError(f"{self.place}: {what} {real[:200]} is missing; save it again")
        match = _HEX_DIGEST.search(real)
        if match is not None and hashlib.sha256(raw).hexdigest() != match[1]:
            raise InputError(
                f"{self.place}: {what} {real} is damaged (its digest is another); save it again"
            )
        return parse_json(
            raw, f"{self.place}: {what} {real}", action="save it again", limit=_JSON_BYTES
        )

    def digest_of(self, name: str) -> str:
        """The digest of a document that is there."""
        return f"sha256:{hashlib.sha256(self._documents[self.real(name)]).hexdigest()}"


def read(
    place: str, *, platform: str | None = None, name: str | None = None, tick: Tick = lambda _: None
) -> Stored:
    """Read an image.

    Args:
        place: a tarball, a folder, or the name of an image in the local Docker.
        platform: ``os/architecture``; which to take of several.
        name: ``repository:tag``; which to take of several.
        tick: called with the progress.

    Raises:
        InputError: nothing there, no image, several, damaged, or compressed in a way that can't be read.
    """
    path = Path(place)
    if path.is_dir():
        parts = _folder(path, tick)
    elif path.is_file():
        with safe_files.open_regular(path) as stream:
            parts = _tarball(place, _Counted(stream, tick))
    elif path.exists():
        raise InputError(f"{place}: is neither a file nor a folder; {_SAVE}")
    else:
        with _docker(place) as stream:
            parts = _tarball(place, _Counted(stream, tick))
        name = None
    return _assemble(parts, platform, name)


class _Counted:
    """A stream that reports how far it has been read."""

    def __init__(self, stream: IO[bytes], tick: Tick) -> None:
        self._stream, self._tick, self._read = stream, tick, 0

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        self._read += len(piece)
        self._tick(self._read)
        return piece


def _tarball(place: str, source: Readable) -> _Parts:
    parts = _Parts(place)
    stream = Buffered(source)
    if streams.compression(stream.peek(8)):
        stream = Buffered(Decompressed(stream, place))
    count = 0
    try:
        if not tar_stream.looks_like_tar(stream.peek(BLOCK)):
            raise DamagedError("not a tar archive")
        for member, content in tar_stream.members(stream):
            count += 1
            if count > _MEMBERS:
                raise InputError(f"{place}: over {_MEMBERS:,} members, no saved image; {_SAVE}")
            name = posixpath.normpath(member.name)
            if member.is_symlink:
                target = posixpath.join(posixpath.dirname(name), member.target)
                parts.aliases[name] = posixpath.normpath(target)
            elif member.is_hard_link:
                parts.aliases[name] = posixpath.normpath(member.target)
            elif member.is_file and not member.sparse:
                parts.aliases.pop(name, None)
                _part(parts, name, content)
    except DamagedError as error:
        raise InputError(f"{place}: can't be read as a tar archive ({error}); {_SAVE}") from error
    return parts


def _folder(path: Path, tick: Tick) -> _Parts:
    if not any((path / name).is_file() for name in ("index.json", "manifest.json")):
        raise InputError(f"{path}: holds neither index.json nor manifest.json; {_SAVE}")
    parts, done = _Parts(str(path)), 0
    for name, size in safe_files.walk(path, limit=_MEMBERS):
        with safe_files.open_inside(path, name) as content:
            _part(parts, name, Content(Buffered(content), size))
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
            while process.stdout.read(PIECE):  # padding behind the archive's end
                pass
        finally:
            process.stdout.close()  # after a fault: docker must not wait for a reader
            said = process.stderr.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise InputError(f"{ref}: docker save failed ({said[-1] if said else 'no message'})")


def _part(parts: _Parts, name: str, content: Content) -> None:
    """Look at one member: a layer, a JSON document, or nothing of ours."""
    size, stream = content.left, Buffered(content)
    head = stream.peek(BLOCK)
    try:
        if compression := streams.compression(head):
            unpacked = Buffered(Decompressed(stream, f"{parts.place}: {name}"))
            if not tar_stream.looks_like_tar(unpacked.peek(BLOCK)):
                return
            layer = layers.read(unpacked, parts.budget)
            layer.packed_bytes, layer.compression = size, compression
            parts.layers[name] = layer
        elif tar_stream.looks_like_tar(head):
            parts.layers[name] = layers.read(stream, parts.budget)
        elif head.lstrip()[:1] in (b"{", b"["):
            if size > _JSON_BYTES:
                parts.refused[name] = f"is larger than {_JSON_BYTES >> 20} MiB; {_SAVE}"
            else:
                parts.keep(name, stream.exactly(size))
    except DamagedError as error:
        raise InputError(
            f"{parts.place}: {name} is damaged or cut ({error}); save it again"
        ) from error


def _assemble(parts: _Parts, platform: str | None, name: str | None) -> Stored:
    if parts.has("manifest.json"):
        chosen = _choose_saved(parts, name)
        config_name, names, tags = chosen.config, chosen.layers, chosen.tags
        digest = _only_digest(parts)
    elif parts.has("index.json"):
        found = _choose_oci(parts, "index.json", platform, name)
        manifest = typed(
            Manifest,
            parts.document(_blob(found.digest), "manifest"),
            f"{parts.place}: manifest {found.digest}",
        )
        config_name = _blob(manifest.config.digest)
        names = tuple(_blob(one.digest) for one in manifest.layers)
        tags, digest = ((found.name,) if found.name else ()), found.digest
    else:
        raise InputError(
            f"{parts.place}: no image in it (no manifest.json, no index.json); {_SAVE}"
        )
    document = parts.document(config_name, "the image's config")
    config = typed(Config, document, f"{parts.place}: the image's config")
    stack = _stack(parts, names, config.rootfs.diff_ids)
    return Stored(parts.place, config, parts.digest_of(config_name), digest, tags, stack)


def _choose_saved(parts: _Parts, name: str | None) -> SavedImage:
    place = f"{parts.place}: manifest.json"
    document = parts.document("manifest.json", "the manifest")
    if not isinstance(document, list) or not document:
        raise InputError(f"{place} names no image; {_SAVE}")
    saved = [typed(SavedImage, one, place) for one in document]
    images = saved if name is None else [one for one in saved if name in one.tags]
    if name is not None and not images:
        raise InputError(f"{parts.place}: holds no {name}; it holds {_tags(saved)}")
    if len(images) != 1:
        raise InputError(f"{parts.place}: holds {_tags(saved)}; choose one with --name")
    return images[0]


def _tags(saved: Sequence[SavedImage]) -> str:
    return f"{len(saved)} images: " + _listed([t for one in saved for t in one.tags or ("<none>",)])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    shown = ", ".join(name[:200] for name in names[:_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def _only_digest(parts: _Parts) -> str | None:
    """The manifest's digest, where an index beside ``manifest.json`` names one."""
    if not parts.has("index.json"):
        return None
    index = typed(Index, parts.document("index.json", "the index"), f"{parts.place}: index.json")
    return index.manifests[0].digest if len(index.manifests) == 1 else None


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _choose_oci(
    parts: _Parts, index_name: str, platform: str | None, name: str | None, depth: int = 0
) -> Descriptor:
    """The manifest's descriptor; indexes may be nested."""
    place = f"{parts.place}: {index_name}"
    listed = typed(Index, parts.document(index_name, "the index"), place).manifests
    found = [one for one in listed if str(one.stated_platform) != "unknown/unknown"]
    if name is not None and depth == 0:
        found = [one for one in found if one.name == name]
    if len(found) > 1 and platform:
        found = [one for one in found if _same_platform(str(one.stated_platform), platform)]
    if len(found) != 1:
        there = _listed([str(one.stated_platform) for one in listed]) or "none"
        raise InputError(
            f"{parts.place}: {len(found)} images fit, platforms: {there}; "
            "choose with --platform or --name"
        )
    below = _blob(found[0].digest)
    document = parts.document(below, "manifest")
    if isinstance(document, dict) and "manifests" in document:
        if depth >= INDEX_DEPTH:
            raise InputError(f"{place}: indexes nested more than {INDEX_DEPTH} deep; {_SAVE}")
        return _choose_oci(parts, below, platform, name, depth + 1)
    return found[0]


def _same_platform(one: str, other: str) -> bool:
    return one.split("/")[:2] == other.split("/")[:2]


def _stack(parts: _Parts, names: Sequence[str], expected: Sequence[str]) -> tuple[Layer, ...]:
    place = parts.place
    if len(expected) != len(names):
        raise InputError(
            f"{place}: the manifest names {len(names)} layers, the config {len(expected)}; save it again"
        )
    stack: list[Layer] = []
    used: set[int] = set()
    for index, (name, diff_id) in enumerate(zip(names, expected, strict=True)):
        real = parts.real(name)
        if real in parts.refused:
            raise InputError(f"{place}: layer {index + 1} {parts.refused[real]}")
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
        if id(layer) in used:
            parts.budget.take(len(layer.entries) + len(layer.replaced), 0)
            layer = layer.copy()
        used.add(id(layer))
        layer.renumber(index)
        stack.append(layer)
    return tuple(stack)
