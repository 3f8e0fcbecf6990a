"""The S3 client: settings that every S3-compatible store understands, listings, refusals in one line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client


def make_client(
    *,
    endpoint_url: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    region: str | None = None,
    addressing_style: Literal["path", "virtual", "auto"] = "path",
    attempts: int = 4,
) -> S3Client:
    """Make a client; what is not given comes from the standard ``AWS_*`` variables.

    Args:
        endpoint_url: ``http(s)://host:port``.
        access_key: the key's id.
        secret_key: the key.
        region: of the bucket.
        addressing_style: path style reaches stores whose buckets have no host names.
        attempts: tries per request.

    Raises:
        ValueError, BotoCoreError: the settings can't be used.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        s3={"addressing_style": addressing_style},
        # On request only: many stores do not know the newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    core = botocore.session.Session()
    session = boto3.session.Session(botocore_session=core)
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return session.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=config,
    )


@cache
def _loader(data_path: str | None) -> Loader:
    """The descriptions of AWS's interfaces, read once per process: that is most of a client's cost."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


@dataclass(frozen=True)
class Listing:
    """What lies below a prefix.

    Attributes:
        sizes: key → bytes, whole keys.
        folders: prefixes directly below, without the slash at the end, sorted.
    """

    sizes: dict[str, int]
    folders: tuple[str, ...] = ()


def listing(client: S3Client, bucket: str, prefix: str, *, deep: bool) -> Listing:
    """List keys that begin with a prefix.

    Args:
        client: by :func:`make_client`.
        bucket: its name.
        prefix: empty, or with the slash at its end.
        deep: all keys below; else those directly below, and the folders.

    Raises:
        ClientError, BotoCoreError: see :func:`refusal`.
    """
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, Delimiter="" if deep else "/"
    )
    for page in pages:
        sizes |= {o["Key"]: o["Size"] for o in page.get("Contents", ())}
        folders |= {p["Prefix"].rstrip("/") for p in page.get("CommonPrefixes", ())}
    return Listing(sizes, tuple(sorted(folders)))


def code_of(error: Exception) -> str:
    """The server's error code; empty where no server has answered."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def refusal(error: Exception) -> str:
    """Why a request failed and what to do, on one line."""
    from botocore.exceptions import ClientError, NoCredentialsError

    if isinstance(error, NoCredentialsError):
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    elif code_of(error) == "NoSuchBucket":
        advice = "correct the bucket's name"
    elif isinstance(error, ClientError):
        advice = "check key, secret and their rights to this bucket"
    else:
        advice = "check AWS_ENDPOINT_URL and that the store runs"
    return f"{' '.join(str(error).split())[:200]}; {advice}"
