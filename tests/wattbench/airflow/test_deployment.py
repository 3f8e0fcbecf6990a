"""What a deployment's containers do beside Airflow, against a real S3 server."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.s3_server import Server
from wattbench.airflow.deployment import healthy, load, save
from wattbench.errors import StoreError
from wattbench.storage.object_store import Store, StoreTarget

OBJECTS = {"runs/a/run.json": b"{}\n", "runs/a/hosts/h/x.csv.gz": bytes(range(256)) * 1000}


@pytest.fixture
def target(server: Server, tmp_path: Path) -> StoreTarget:
    return replace(server.target, bucket=f"b-{tmp_path.name.lower().replace('_', '-')}", prefix="p")


def test_a_bucket_is_made_once_and_then_left_alone(target: StoreTarget) -> None:
    store = Store(target, waits_s=())
    assert store.ensure_bucket() is True
    store.put("kept", b"1")
    assert store.ensure_bucket() is False
    assert store.get("kept") == b"1"


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """An S3 server with one answer; a bucket that has been looked for is not there."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404 if body else status)
            self.end_headers()

        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(size)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_bucket_of_another_owner_is_refused_in_one_line(target: StoreTarget) -> None:
    taken = b"<Error><Code>BucketAlreadyExists</Code><Message>taken</Message></Error>"
    with answering(409, taken) as url, pytest.raises(StoreError) as refused:
        Store(replace(target, endpoint_url=url), waits_s=()).ensure_bucket()
    assert str(refused.value) == (
        f"bucket '{target.bucket}' at {url}: belongs to another account; "
        "name another in store.bucket of hosts.yaml"
    )
    with (
        answering(403) as url,
        pytest.raises(StoreError, match="if another account owns it") as refused,
    ):
        Store(replace(target, endpoint_url=url), waits_s=()).ensure_bucket()
    assert "\n" not in str(refused.value)


def test_what_is_saved_can_be_loaded_into_another_store(target: StoreTarget) -> None:
    one = Store(target, waits_s=())
    one.ensure_bucket()
    for key, data in OBJECTS.items():
        one.put(key, data)
    archive = io.BytesIO()
    save(one, archive)
    other = Store(replace(target, bucket=f"{target.bucket}-2", prefix="elsewhere"), waits_s=())
    assert load(other, io.BytesIO(archive.getvalue())) == 2
    assert {o.key: other.get(o.key) for o in other.list()} == OBJECTS
    assert {o.key: one.get(o.key) for o in one.list()} == OBJECTS


def test_a_store_that_holds_something_is_never_loaded_into(target: StoreTarget) -> None:
    store = Store(target, waits_s=())
    store.ensure_bucket()
    store.put("runs/b/run.json", b"mine")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("runs/b/run.json"))
    with pytest.raises(StoreError, match=r"holds 1 objects already, runs/b/run\.json for one"):
        load(store, io.BytesIO(archive.getvalue()))
    assert store.get("runs/b/run.json") == b"mine"


def test_a_part_is_healthy_only_if_airflow_says_so() -> None:
    states = {"metadatabase": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}}
    with answering(200, json.dumps(states).encode()) as url:
        assert healthy("metadatabase", url)
        assert not healthy("triggerer", url)
        assert not healthy("scheduler", url)
    assert not healthy("metadatabase", url)
