"""Locations of runs: a run, a folder of runs, an ``s3://`` prefix, or a pattern of names."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage import s3
from wattbench.analysis.storage.source import (
    FolderSource,
    S3Source,
    Source,
    SourceError,
    s3_client,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: What a run's folder holds at least one of; the first that is there is read.
MARKS = ("trials.parquet", "run.json", "trials.csv", "report/trials.csv")

_PATTERN = set("*?[")


@dataclass(frozen=True)
class Place:
    """One run's place.

    Attributes:
        source: reads its objects; not held against the manifest: one object is read of a run, and
            its own checksums are in it.
        named: whether the user named this very run (else it was found in a folder of runs).
    """

    source: Source
    named: bool

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return self.source.place


def find(places: Sequence[str]) -> list[Place]:
    """Every run that the places name, each once, in their order.

    Args:
        places: folders of one run, folders of runs (``…/runs``), the same below ``s3://``, or
            patterns such as ``runs/nightly-*``.

    Raises:
        InputError: a place holds no run, or can't be reached.
    """
    client: S3Client | None = None
    found: dict[str, Place] = {}
    for place in places:
        if place.startswith("s3://"):
            client = client or s3_client()
            here = _in_bucket(client, place)
        else:
            here = _in_folder(place)
        for one in here:
            found.setdefault(one.name.rstrip("/"), one)
    return list(found.values())


def _in_folder(place: str) -> list[Place]:
    path = Path(place)
    if _PATTERN & set(place) and not path.exists():
        base = Path(path.anchor) if path.anchor else Path()
        pattern = str(path.relative_to(path.anchor)) if path.anchor else place
        matches = sorted(p for p in base.glob(pattern) if p.is_dir() and _is_run(p))
        if not matches:
            raise InputError(f"{place}: no run's folder has such a name; correct the pattern")
        return [_folder(p, named=False) for p in matches]
    if path.is_file():
        raise InputError(f"{place}: is a file; name the folder of its run")
    if not path.is_dir():
        raise InputError(f"{place}: no such folder; name a run, a folder of runs or s3://BUCKET/…")
    if _is_run(path):
        return [_folder(path, named=True)]
    inside = sorted(p for p in path.iterdir() if p.is_dir() and _is_run(p))
    if not inside:
        raise InputError(
            f"{place}: holds no run (no {' or '.join(MARKS[:2])} in it or in a folder of it); "
            "name …/runs/RUN_ID or …/runs"
        )
    return [_folder(p, named=False) for p in inside]


def _folder(path: Path, *, named: bool) -> Place:
    return Place(FolderSource(path, verify=False), named)


def _is_run(path: Path) -> bool:
    return any((path / mark).is_file() for mark in MARKS)


def _in_bucket(client: S3Client, place: str) -> list[Place]:
    parts = urlsplit(place.replace("?", "%3F").replace("#", "%23"))
    bucket, prefix = parts.netloc, parts.path.strip("/").replace("%3F", "?").replace("%23", "#")
    if not bucket:
        raise InputError(f"{place}: names no bucket; write s3://BUCKET/PREFIX/runs/RUN")
    if _PATTERN & set(prefix):
        path = PurePosixPath(prefix)
        if _PATTERN & set(str(path.parent)):
            raise InputError(f"{place}: only the last part may be a pattern")
        parent = "" if str(path.parent) == "." else str(path.parent)
        _, folders = _list(client, bucket, parent)
        names = [f for f in folders if fnmatch.fnmatchcase(PurePosixPath(f).name, path.name)]
        if not names:
            raise InputError(f"{place}: no run has such a name; correct the pattern")
        return [_object(client, bucket, n, named=False) for n in names]
    keys, folders = _list(client, bucket, prefix)
    if {k.removeprefix(f"{prefix}/" if prefix else "") for k in keys} & set(MARKS):
        return [_object(client, bucket, prefix, named=True)]
    if not folders:
        raise InputError(
            f"{place}: holds no run; name s3://BUCKET/…/runs/RUN_ID or s3://BUCKET/…/runs"
        )
    return [_object(client, bucket, f, named=False) for f in folders]


def _object(client: S3Client, bucket: str, prefix: str, *, named: bool) -> Place:
    return Place(S3Source(client, bucket, prefix, verify=False), named)


def _list(client: S3Client, bucket: str, prefix: str) -> tuple[list[str], list[str]]:
    """Keys and folders directly below a prefix."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = s3.listing(client, bucket, f"{prefix}/" if prefix else "", deep=False)
    except (BotoCoreError, ClientError) as error:
        raise SourceError(f"s3://{bucket}/{prefix}: {s3.refusal(error)}") from error
    return list(found.sizes), list(found.folders)
