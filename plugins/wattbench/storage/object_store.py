"""Object store client for any S3-compatible endpoint; the only writer of objects.

What is put is sent with Content-MD5, read back and compared by SHA-256, so an object that ``put``
returned is there, whole. Nothing depends on an extension that servers are known to ignore:
conditional writes, server-side checksums, user metadata.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
import mimetypes
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast

from wattbench.analysis.storage.atomic import written_beside
from wattbench.analysis.storage.s3 import code_of, make_client
from wattbench.errors import StoreError, UserError
from wattbench.storage.keys import MANIFEST, checked_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import BucketLocationConstraintType

log = logging.getLogger(__name__)

MANIFEST_SCHEMA = 1
_CHUNK = 1 << 20
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # 15.5 s in all: longer than a store's restart
_PATIENT_WAIT_S = 15.0
_TRANSIENT = frozenset(
    {"BadDigest", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
     "SlowDown", "Throttling", "500", "502", "503", "504"}
)  # fmt: skip
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_REFUSED = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "AuthorizationHeaderMalformed",
     "InvalidSecurity", "401", "403", "Forbidden"}
)  # fmt: skip
_OUTAGE = _REFUSED | {"NoSuchBucket"}
T = TypeVar("T")


@dataclass(frozen=True)
class StoreTarget:
    """A bucket and how to reach it.

    Attributes:
        endpoint_url: ``http(s)://host:port``; None: Amazon's own.
        prefix: folder in the bucket, without slashes at its ends; may be empty.
        addressing_style: ``path``, ``virtual`` or ``auto``.
    """

    endpoint_url: str | None
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    addressing_style: Literal["path", "virtual", "auto"] = "path"

    @property
    def place(self) -> str:
        """For messages: where this is, without secrets."""
        return f"bucket '{self.bucket}' at {self.endpoint_url or 'Amazon S3'}"


@dataclass(frozen=True)
class StoredObject:
    """What was put, read back and found equal. ``key`` is relative to the store's prefix."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Listed:
    """An object as listed: Size as reported by the listing; the content has not been verified."""

    key: str
    bytes: int


class ObjectMissingError(StoreError):
    """No object has this key."""


class Damaged(Exception):  # noqa: N818 (never leaves this module)
    """What came back is not what was sent: worth another try."""


def compress(data: bytes) -> bytes:
    """Gzip without time or name: equal content, equal bytes, so a retry changes no checksum."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def media_type(name: str) -> str:
    """The media type of a file by its name."""
    suffix = Path(name).suffix
    known = {
        ".jsonl": "application/x-ndjson", ".log": "text/plain; charset=utf-8",
        ".md": "text/markdown; charset=utf-8", ".parquet": "application/vnd.apache.parquet",
        ".gz": "application/gzip", ".csv": "text/csv; charset=utf-8",
        ".html": "text/html; charset=utf-8",
    }  # fmt: skip
    return known.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _hashes(chunks: Iterable[bytes]) -> tuple[int, str, str]:
    """(bytes, SHA-256 in hex, MD5 in base64, as Content-MD5 wants it)."""
    size, sha256, md5 = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        size += len(chunk)
        sha256.update(chunk)
        md5.update(chunk)
    return size, sha256.hexdigest(), base64.b64encode(md5.digest()).decode()


def _chunks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


class Store:
    """One bucket. All keys are relative to the target's prefix. Safe to use from one thread.

    Args:
        target: the bucket and how to reach it.
        waits_s: pauses between tries where the cause may pass.
        patience_s: how long an outage is waited for after them, each wait logged.
        renew: reads the target again before each of these tries, which a person may have mended: so
            refused keys and a missing bucket are an outage too.
    """

    def __init__(
        self,
        target: StoreTarget,
        waits_s: tuple[float, ...] = WAITS_S,
        patience_s: float = 0.0,
        renew: Callable[[], StoreTarget] | None = None,
    ) -> None:
        self.target = target
        self._waits_s = waits_s
        self._patience_s = patience_s
        self._renew = renew

    @cached_property
    def _client(self) -> S3Client:
        try:
            return make_client(
                endpoint_url=self.target.endpoint_url,
                access_key=self.target.access_key,
                secret_key=self.target.secret_key,
                region=self.target.region,
                addressing_style=self.target.addressing_style,
                attempts=1,  # tries are counted in _try
            )
        except ValueError as error:
            raise StoreError(
                f"{self.target.place}: {error}; correct the endpoint of the store's connection"
            ) from error

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, data: bytes | Path, content_type: str | None = None) -> StoredObject:
        """Put bytes or a file, read it back, compare.

        Returns:
            The object as it is now in the store, whole.

        Raises:
            StoreError: it is not there for sure; says why and what to do.
        """
        from botocore.exceptions import ClientError

        checked_key(key)
        try:
            size, sha256, md5 = _hashes(_chunks(data))
        except OSError as error:
            raise StoreError(f"{data!s}: can't be read for upload ({error.strerror})") from error
        media = content_type or media_type(key)

        def once() -> StoredObject:
            with _opened(data) as body:
                self._client.put_object(
                    Bucket=self.target.bucket, Key=self._full(key), Body=body,
                    ContentLength=size, ContentMD5=md5, ContentType=media,
                )  # fmt: skip
            try:
                back = self._digest(key)
            except ClientError as error:
                if code_of(error) not in _MISSING:
                    raise
                raise Damaged("it was put, and is not there") from error
            if back != (size, sha256):
                raise Damaged(f"read back {back[0]} bytes of SHA-256 {back[1][:12]}, sent {size}")
            return StoredObject(key, size, sha256)

        return self._try("put", key, once)

    def put_json(self, key: str, value: Any) -> StoredObject:
        """Put a JSON document: sorted keys, no NaN, newline at the end."""
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return self.put(key, (text + "\n").encode(), "application/json")

    def put_gzip(self, key: str, data: bytes | Path) -> StoredObject:
        """Put compressed; the key has to end in ``.gz``. The same data gives the same object."""
        if not key.endswith(".gz"):
            raise StoreError(f"{key}: a compressed object's key ends in .gz")
        raw = data if isinstance(data, bytes) else data.read_bytes()
        return self.put(key, compress(raw), "application/gzip")

    def upload_dir(self, folder: Path, key: str) -> tuple[StoredObject, ...]:
        """Put every file below a folder, in order of their names; links are refused.

        Raises:
            StoreError: as for :meth:`put`, or the folder holds something else than files.
        """
        stored = []
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                raise StoreError(f"{path}: is a link; put the file itself there")
            if path.is_file():
                stored.append(self.put(f"{key}/{path.relative_to(folder).as_posix()}", path))
        if not stored:
            raise StoreError(f"{folder}: holds no file to upload")
        return tuple(stored)

    def write_manifest(
        self, key: str, put: Mapping[str, str] = MappingProxyType({})
    ) -> StoredObject:
        """Write ``<key>/manifest.json``, last: every object below ``key`` with size and SHA-256.

        Every object is read for it; a report, which has a manifest of its own, is left out. A manifest
        that is already there is followed by the next generation, which names the one before by its
        SHA-256, and keeps its entries of objects that have expired.

        Args:
            key: folder of a run or of a report.
            put: SHA-256 by name of objects as they were put. One that differs by now is damaged: the
                manifest lists what was put, so that whoever reads it finds the damage.
        """
        own = f"{key}/{MANIFEST}"
        objects = []
        for listed in self.list(key + "/"):
            name = listed.key.removeprefix(key + "/")
            if listed.key == own or name.startswith("report/"):
                continue
            size, sha256 = self.digest(listed.key)
            if put.get(name, sha256) != sha256:
                log.error("%s: damaged in the store since it was put there", listed.key)
            objects.append({"key": name, "bytes": size, "sha256": put.get(name, sha256)})
        found = {str(entry["key"]) for entry in objects}
        return self._next_manifest(own, objects, self._expired(own, found))

    def expire(self, key: str, names: Collection[str], reason: str) -> int:
        """Remove objects that a manifest lists; it keeps their entries, as ``expired``.

        The manifest changes first. What an earlier try left behind is removed too.

        Args:
            key: folder of a run, with a manifest.
            names: keys relative to ``key``.
            reason: why, one line.

        Returns:
            How many objects were removed.

        Raises:
            StoreError: there is no manifest, or the store does not answer.
        """
        own = f"{key}/{MANIFEST}"
        document = self.get_json(own)
        gone = [o for o in document["objects"] if o["key"] in names]
        if gone:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            expired = document.get("expired", []) + [
                o | {"expired_at": now, "reason": reason} for o in gone
            ]
            kept = [o for o in document["objects"] if o not in gone]
            self._next_manifest(own, kept, sorted(expired, key=lambda o: str(o["key"])))
            document = self.get_json(own)
        there = {o.key for o in self.list(key + "/")}
        doomed = [f"{key}/{o['key']}" for o in document.get("expired", [])]
        removed = [name for name in doomed if name in there]
        for name in removed:
            self.remove(name)
        return len(removed)

    def _expired(self, own: str, there: Collection[str]) -> list[dict[str, Any]]:
        """The manifest's entries of expired objects that have not been stored again."""
        try:
            expired = self.get_json(own).get("expired", [])
        except ObjectMissingError:
            return []
        return [o for o in expired if o["key"] not in there]

    def _next_manifest(
        self, own: str, objects: list[dict[str, Any]], expired: list[dict[str, Any]]
    ) -> StoredObject:
        try:
            raw = self.get(own)
            before, generation = hashlib.sha256(raw).hexdigest(), self._json(own, raw)["generation"]
        except ObjectMissingError:
            before, generation = None, 0
        return self.put_json(
            own,
            {
                "schema": MANIFEST_SCHEMA,
                "generation": generation + 1,
                "previous_sha256": before,
                "written_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "objects": objects,
                **({"expired": expired} if expired else {}),
            },
        )

    def verify_manifest(self, key: str) -> tuple[str, ...]:
        """What is wrong below ``key`` by its manifest, one line each; empty: all is as listed."""
        problems = []
        for entry in self.get_json(f"{key}/{MANIFEST}")["objects"]:
            name = f"{key}/{entry['key']}"
            try:
                size, sha256 = self.digest(name)
            except ObjectMissingError:
                problems.append(f"{name}: is gone")
                continue
            if (size, sha256) != (entry["bytes"], entry["sha256"]):
                problems.append(f"{name}: {size} bytes of SHA-256 {sha256[:12]}, not as listed")
        return tuple(problems)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes:
        """The content of an object.

        Raises:
            ObjectMissingError: there is none.
            StoreError: it can't be read.
        """
        return self._try("get", key, lambda: b"".join(self._stream(key)))

    def digest(self, key: str) -> tuple[int, str]:
        """Size and SHA-256 of an object's content, read for it.

        Raises:
            StoreError: as for :meth:`get`.
        """
        return self._try("read", key, lambda: self._digest(key))

    def get_json(self, key: str) -> Any:
        """A JSON document.

        Raises:
            StoreError: as for :meth:`get`, or it is no JSON.
        """
        return self._json(key, self.get(key))

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

        def once() -> bool:
            self._client.head_object(Bucket=self.target.bucket, Key=self._full(key))
            return True

        try:
            return self._try("look for", key, once)
        except ObjectMissingError:
            return False

    def list(self, key_prefix: str = "") -> tuple[Listed, ...]:
        """All objects whose keys begin so, by key."""

        def once() -> tuple[Listed, ...]:
            start = len(self._full(""))
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.target.bucket, Prefix=self._full(key_prefix)
            )
            found = [
                Listed(entry["Key"][start:], entry["Size"])
                for page in pages
                for entry in page.get("Contents", ())
            ]
            return tuple(sorted(found, key=lambda one: one.key))

        return self._try("list", key_prefix or "/", once)

    def download_dir(self, key: str, folder: Path) -> tuple[Path, ...]:
        """Every object below ``key`` as a file below ``folder``; each appears whole or not at all.

        Raises:
            StoreError: there is nothing below ``key``, or a key would leave the folder.
        """
        paths = []
        for listed in self.list(key + "/"):
            name = listed.key.removeprefix(key + "/")
            if {"", ".", ".."} & set(name.split("/")):
                raise StoreError(f"{listed.key}: no file can have that name; remove the object")
            path = folder / name
            with written_beside(path) as part:
                self._download(listed.key, part)
            paths.append(path)
        if not paths:
            raise ObjectMissingError(f"{key}/ in {self.target.place}: holds no object")
        return tuple(paths)

    def check(self) -> None:
        """Whether the bucket is there and can be written, before anything is measured.

        Raises:
            StoreError: it can't; says why and what to do.
        """
        key = f"wattbench-write-check-{uuid.uuid4().hex}"  # runs may check at the same time
        self.put(key, f"{datetime.now(UTC).isoformat()}\n".encode(), "text/plain")
        self.remove(key)

    def ensure_bucket(self) -> bool:
        """Make the bucket where there is none.

        Returns:
            Whether it was made now.

        Raises:
            StoreError: it can't be created, or another account owns it.
        """
        from botocore.exceptions import ClientError

        def once() -> bool:
            try:
                self._client.head_bucket(Bucket=self.target.bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
                    raise
            else:
                return False
            if self.target.region == "us-east-1":  # where naming the region is an error
                self._client.create_bucket(Bucket=self.target.bucket)
            else:
                self._client.create_bucket(
                    Bucket=self.target.bucket,
                    CreateBucketConfiguration={
                        "LocationConstraint": cast(
                            "BucketLocationConstraintType", self.target.region
                        )
                    },
                )
            return True

        return self._try("make", "the bucket", once)

    def remove(self, key: str) -> None:
        """Remove an object; a missing one is not an error."""
        self._try(
            "remove",
            key,
            lambda: self._client.delete_object(Bucket=self.target.bucket, Key=self._full(key)),
        )

    # ── underneath ──────────────────────────────────────────────────────────────────────────────

    def _full(self, key: str) -> str:
        prefix = self.target.prefix.strip("/")
        return f"{prefix}/{key}" if prefix else key

    def _stream(self, key: str) -> Iterator[bytes]:
        answer = self._client.get_object(Bucket=self.target.bucket, Key=self._full(key))
        size = 0
        for chunk in answer["Body"].iter_chunks(_CHUNK):
            size += len(chunk)
            yield chunk
        if size != answer["ContentLength"]:
            raise Damaged(f"{size} of {answer['ContentLength']} bytes came")

    def _digest(self, key: str) -> tuple[int, str]:
        return _hashes(self._stream(key))[:2]

    def _download(self, key: str, path: Path) -> None:
        def once() -> None:
            with path.open("wb") as file:
                for chunk in self._stream(key):
                    file.write(chunk)

        self._try("get", key, once)

    def _json(self, key: str, raw: bytes) -> Any:
        try:
            return json.loads(raw)
        except ValueError as error:
            raise StoreError(f"{key} in {self.target.place}: no JSON ({error})") from error

    def _try(self, verb: str, key: str, once: Callable[[], T]) -> T:
        """Try, with growing waits as long as the cause may pass; then say why."""
        from botocore.exceptions import BotoCoreError, ClientError

        waits, began = iter(self._waits_s), time.monotonic()
        while True:
            try:
                return once()
            except ClientError as error:
                code = code_of(error)
                problem = self._refusal(verb, key, code, error)
                passing = code in _TRANSIENT or (self._renew is not None and code in _OUTAGE)
                cause: Exception = error
            except (BotoCoreError, Damaged, OSError) as error:
                problem = self._failure(verb, key, error)
                passing = _may_pass(error)
                cause = error
            wait = next(waits, None) if passing else None
            if wait is None:
                waited_s = time.monotonic() - began
                if not passing or waited_s >= self._patience_s:
                    raise problem from cause
                wait = min(_PATIENT_WAIT_S, self._patience_s - waited_s)
                log.warning(
                    "waiting for the store, %.0f s of at most %.0f s so far (store.wait_s in hosts.yaml): %s",
                    waited_s, self._patience_s, problem,
                )  # fmt: skip
                time.sleep(wait)
                self._look_at_target_again()
            else:
                time.sleep(wait)

    def _look_at_target_again(self) -> None:
        if self._renew is None:
            return
        try:
            target = self._renew()
        except UserError as error:
            log.warning("the store's connection can't be read: %s", error)
            return
        if target != self.target:
            self.target = target
            self.__dict__.pop("_client", None)

    def _refusal(self, verb: str, key: str, code: str, error: Exception) -> StoreError:
        place = self.target.place
        if code == "NoSuchBucket":
            return StoreError(
                f"{place}: no such bucket; create it, or correct store.bucket in hosts.yaml"
            )
        if code == "BucketAlreadyExists":
            return StoreError(
                f"{place}: belongs to another account; name another in store.bucket of hosts.yaml"
            )
        if code in _MISSING:
            return ObjectMissingError(f"{key} in {place}: no such object")
        if code in _REFUSED:
            return StoreError(
                f"{place}: refused to {verb} {key} for access key "
                f"'{self.target.access_key}' ({code}); "
                "correct key and secret of the store's connection, the key's rights to this bucket, or "
                "store.bucket in hosts.yaml if another account owns it"
            )
        return StoreError(f"{place}: could not {verb} {key}: {error}; see the store's own log")

    def _failure(self, verb: str, key: str, error: Exception) -> StoreError:
        from botocore.exceptions import BotoCoreError

        place = self.target.place
        if isinstance(error, Damaged):
            return StoreError(
                f"{place}: {key} came back damaged ({error}); check the store's disk and network"
            )
        if isinstance(error, OSError) and not isinstance(error, BotoCoreError | ConnectionError):
            return StoreError(f"could not {verb} {key}: {error}; check the local disk")
        return StoreError(
            f"{place}: unreachable, could not {verb} {key} ({_one_line(error)}); "
            "check that the store runs and the endpoint of the store's connection"
        )


def _may_pass(error: Exception) -> bool:
    """Connection trouble and damage may pass; a malformed request will not."""
    from botocore import exceptions

    if isinstance(error, exceptions.SSLError):
        return False  # a wrong certificate stays wrong
    return isinstance(
        error,
        Damaged
        | ConnectionError
        | TimeoutError
        | exceptions.ConnectionError
        | exceptions.HTTPClientError
        | exceptions.IncompleteReadError,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@contextmanager
def _opened(data: bytes | Path) -> Iterator[bytes | BinaryIO]:
    if isinstance(data, bytes):
        yield data
    else:
        with data.open("rb") as file:
            yield file
