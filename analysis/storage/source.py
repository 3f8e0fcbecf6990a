"""Source of a run: a folder or an ``s3://`` prefix, checked against its manifest.

Everything above this module names objects by keys relative to the run (``run.json``,
``hosts/…/trial.json``) and need not know where they are.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage import s3, safe_files
from wattbench.analysis.storage.documents import DocumentError, parse_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MANIFEST = "manifest.json"
#: Largest object of a run, packed and unpacked, bytes.
OBJECT_BYTES = safe_files.FILE_BYTES
_AGAIN = "fetch the run again"
_TOO_LARGE = f"over {OBJECT_BYTES / 1e6:.0f} MB, too large for an object of a run; {_AGAIN}"


class SourceError(InputError):
    """An object of a run can't be read."""


class MissingError(SourceError):
    """There is no such object."""


class DamagedError(SourceError):
    """An object is not what the manifest says, or not what its name says."""


@dataclass(frozen=True)
class Entry:
    """One object: its key relative to the source, its size, and its SHA-256 where that is known."""

    key: str
    bytes: int
    sha256: str | None = None


class Listed(Protocol):
    """What a store lists."""

    @property
    def key(self) -> str:
        """Full key."""
        ...

    @property
    def bytes(self) -> int:
        """Size."""
        ...


class KeyedStore(Protocol):
    """The reading side of the controller's store."""

    def get(self, key: str) -> bytes:
        """An object's content."""
        ...

    def list(self, key_prefix: str = "") -> Sequence[Listed]:
        """Objects whose keys begin so."""
        ...


class Source(ABC):
    """A run's objects.

    Args:
        place: for messages, where it is.
        verify: hold what is read against the manifest, where there is one.
    """

    def __init__(self, place: str, *, verify: bool = True) -> None:
        self.place = place
        self._verify = verify

    @abstractmethod
    def _fetch(self, key: str) -> bytes:
        """The content of an object; MissingError if there is none."""

    @abstractmethod
    def _entries(self) -> Sequence[Entry]:
        """Every object, without checksums."""

    @cached_property
    def manifest(self) -> Mapping[str, Entry]:
        """Key → what the manifest says of it; empty without a manifest."""
        if not self._verify:
            return {}
        try:
            document = parse_json(self._fetch(MANIFEST), f"{self.place}/{MANIFEST}", action=_AGAIN)
            return {
                str(o["key"]): Entry(str(o["key"]), int(o["bytes"]), str(o["sha256"]))
                for o in document["objects"]
            }
        except MissingError:
            return {}
        except DocumentError as error:
            raise DamagedError(str(error)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"{self.place}/{MANIFEST} is not a manifest ({error!r}); fetch the run again"
            ) from error

    @cached_property
    def _all(self) -> tuple[Entry, ...]:
        known = self.manifest
        return tuple(
            Entry(e.key, e.bytes, known[e.key].sha256 if e.key in known else None)
            for e in sorted(self._entries(), key=lambda e: e.key)
        )

    def list(self, prefix: str = "") -> tuple[Entry, ...]:
        """Objects whose keys begin so, by key; the manifest's checksums beside them."""
        return tuple(e for e in self._all if e.key.startswith(prefix))

    def lost(self) -> tuple[str, ...]:
        """Keys that the manifest names and that are not there."""
        there = {e.key for e in self._all}
        return tuple(sorted(set(self.manifest) - there))

    def read(self, key: str) -> bytes:
        """An object's content, as stored.

        Raises:
            MissingError: there is none.
            DamagedError: its SHA-256 is not the manifest's.
        """
        data = self._fetch(key)
        known = self.manifest.get(key)
        if known is not None and hashlib.sha256(data).hexdigest() != known.sha256:
            raise DamagedError(
                f"{self.place}/{key} is not what the manifest lists (SHA-256 differs); "
                "fetch the run again, or restore the object"
            )
        return data

    def open(self, key: str) -> BinaryIO:
        """An object's content as a file, unpacked if its key ends in ``.gz``."""
        data = self.read(key)
        if key.endswith(".gz"):
            try:
                with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                    data = packed.read(OBJECT_BYTES + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise DamagedError(
                    f"{self.place}/{key} can't be unpacked ({error}); fetch the run again"
                ) from error
            if len(data) > OBJECT_BYTES:
                raise DamagedError(f"{self.place}/{key} unpacks to {_TOO_LARGE}")
        return io.BytesIO(data)

    def read_json(self, key: str) -> Any:
        """A JSON object.

        Raises:
            MissingError, DamagedError: as :meth:`read`, or it is no JSON, too large or too deep.
        """
        try:
            return parse_json(self.read(key), f"{self.place}/{key}", action=_AGAIN)
        except DocumentError as error:
            raise DamagedError(str(error)) from error


class FolderSource(Source):
    """A run in a folder."""

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        super().__init__(str(folder), verify=verify)
        self.folder = folder

    def _fetch(self, key: str) -> bytes:
        path = self.folder / key
        try:
            return safe_files.read_inside(self.folder, key, limit=OBJECT_BYTES)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError(f"{path}: no such file") from error
        except OSError as error:
            raise SourceError(f"{path} can't be read: {error.strerror}") from error
        except (safe_files.UnsafeFileError, ValueError) as error:
            raise DamagedError(str(error)) from error

    def _entries(self) -> Sequence[Entry]:
        try:
            return [Entry(key, size) for key, size in safe_files.walk(self.folder)]
        except OSError as error:
            raise SourceError(f"{self.folder} can't be read: {error.strerror}") from error


class StoreSource(Source):
    """A run in the controller's store, below a key of it."""

    def __init__(self, store: KeyedStore, key: str, *, verify: bool = True) -> None:
        super().__init__(key.strip("/"), verify=verify)
        self._store = store
        self._key = key.strip("/") + "/"

    def _fetch(self, key: str) -> bytes:
        return self._store.get(self._key + key)

    def _entries(self) -> Sequence[Entry]:
        return [Entry(o.key.removeprefix(self._key), o.bytes) for o in self._store.list(self._key)]


class S3Source(Source):
    """A run below a prefix of a bucket."""

    def __init__(self, client: S3Client, bucket: str, prefix: str, *, verify: bool = True) -> None:
        super().__init__(f"s3://{bucket}/{prefix.strip('/')}", verify=verify)
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""

    def _fetch(self, key: str) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            data = answer["Body"].read(OBJECT_BYTES + 1)
        except ClientError as error:
            if s3.code_of(error) in ("NoSuchKey", "404", "NotFound"):
                raise MissingError(f"{self.place}/{key}: no such object") from error
            raise self._problem(error) from error
        except BotoCoreError as error:
            raise self._problem(error) from error
        if len(data) > OBJECT_BYTES:
            raise DamagedError(f"{self.place}/{key}: {_TOO_LARGE}")
        return data

    def _entries(self) -> Sequence[Entry]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = s3.listing(self._client, self._bucket, self._prefix, deep=True)
        except (BotoCoreError, ClientError) as error:
            raise self._problem(error) from error
        return [Entry(k.removeprefix(self._prefix), size) for k, size in found.sizes.items()]

    def _problem(self, error: Exception) -> SourceError:
        return SourceError(f"{self.place}: {s3.refusal(error)}")


def open_source(place: str | Path) -> Source:
    """A run by its place.

    Args:
        place: a folder, or ``s3://bucket/prefix/runs/RUN`` reached with the standard ``AWS_*``
            variables (``AWS_ENDPOINT_URL`` for stores that are not Amazon's).

    Raises:
        SourceError: it is neither.
    """
    text = str(place)
    if text.startswith("s3://"):
        parts = urlsplit(text)
        if not parts.netloc:
            raise SourceError(f"{text}: names no bucket; write s3://BUCKET/PREFIX/runs/RUN")
        return S3Source(s3_client(), parts.netloc, parts.path)
    folder = Path(text)
    if not folder.is_dir():
        raise SourceError(f"{text}: no such folder; name a run's folder or s3://BUCKET/…/runs/RUN")
    return FolderSource(folder)


def s3_client() -> S3Client:
    """A client from the standard ``AWS_*`` variables.

    Raises:
        SourceError: the variables can't be used.
    """
    from botocore.exceptions import BotoCoreError

    try:
        return s3.make_client()
    except (ValueError, BotoCoreError) as error:
        raise SourceError(f"the S3 client can't be made: {error}; check the AWS_* variables") from (
            error
        )


def from_store(store: KeyedStore, key: str) -> StoreSource:
    """A run in the controller's store.

    Not held against a manifest: while a run goes on, the manifest is of an earlier
    generation, and the store has read back everything that it wrote.
    """
    return StoreSource(store, key, verify=False)
