"""The store against a real, authenticated S3 server (rclone), with real faults."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from tests.support.s3_server import KEY, SECRET, Server
from wattbench.analysis.model.errors import InputError
from wattbench.errors import StoreError
from wattbench.storage.object_store import ObjectMissingError, Store, StoreTarget, compress

RUN = "runs/paper-20261123T131500Z-a1b2c3"

HOP_BY_HOP = ("transfer-encoding", "connection", "server", "date", "content-length")


class MeddlingProxy(ThreadingHTTPServer):
    """Passes requests on; changes one byte of the first ``damage`` bodies that are read.

    The first ``lose`` objects are gone when they are read, as from a store that is not consistent at once.
    """

    def __init__(self, port: int) -> None:
        proxy = self
        self.damage, self.lose, self.puts = 0, 0, 0
        self.put_headers: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # answers "Expect: 100-continue"

            def _pass_on(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                body = self.rfile.read(size)
                upstream.request(self.command, self.path, body, dict(self.headers.items()))
                answer = upstream.getresponse()
                data = answer.read()
                if self.command == "PUT":
                    proxy.puts += 1
                    proxy.put_headers = {k.lower(): v for k, v in self.headers.items()}
                if self.command == "GET" and data and proxy.damage > 0:
                    proxy.damage -= 1
                    data = bytes([data[0] ^ 1]) + data[1:]
                status = answer.status
                if self.command == "GET" and proxy.lose > 0:
                    proxy.lose -= 1
                    status, data = 404, b"<Error><Code>NoSuchKey</Code></Error>"
                self.send_response(status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(data)
                upstream.close()

            do_GET = do_PUT = do_HEAD = do_DELETE = _pass_on  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


def test_what_is_put_lies_on_the_servers_disk_with_the_stated_checksum(
    store: Store, server: Server, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 5000
    source = tmp_path / "log.csv"
    source.write_bytes(data)
    for key, given in (("a/bytes.bin", data), ("a/log.csv", source)):
        stored = store.put(key, given)
        on_disk = (server.folder / "wattbench" / store.target.prefix / key).read_bytes()
        assert on_disk == data
        assert stored.key == key
        assert (stored.bytes, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert store.get(key) == data


def test_an_empty_file_is_stored_too(store: Store) -> None:
    assert store.put("stderr.log", b"").bytes == 0
    assert store.get("stderr.log") == b""


def test_json_comes_back_as_it_went_and_nan_does_not_go(store: Store) -> None:
    value = {"b": [1, 2.5, None], "a": {"ö": "ü"}}
    store.put_json("x.json", value)
    assert store.get_json("x.json") == value
    with pytest.raises(ValueError, match="Out of range float"):
        store.put_json("x.json", {"joules": float("nan")})
    store.put("bad.json", b"{")
    with pytest.raises(StoreError, match=r"bad\.json .*no JSON"):
        store.get_json("bad.json")


def test_compressed_logs_are_the_same_bytes_every_time(store: Store) -> None:
    data = b"Delta,Time\n0,1\n" * 1000
    first = store.put_gzip("e.csv.gz", data)
    assert gzip.decompress(store.get("e.csv.gz")) == data
    assert store.put_gzip("e.csv.gz", data) == first
    assert compress(data)[4:8] == b"\0\0\0\0"  # the time field of RFC 1952
    with pytest.raises(StoreError, match=r"ends in \.gz"):
        store.put_gzip("e.csv", data)


def test_missing_objects_are_distinguished_from_present_ones(store: Store) -> None:
    assert not store.exists("a.txt")
    store.put("a.txt", b"1")
    assert store.exists("a.txt")
    with pytest.raises(ObjectMissingError, match=r"b\.txt in bucket 'wattbench'"):
        store.get("b.txt")


def test_listing_stays_inside_the_prefix(store: Store, target: StoreTarget) -> None:
    other = Store(replace(target, prefix=target.prefix + "-other"))
    other.put("runs/x/other.txt", b"1")
    for n in range(3):
        store.put(f"runs/x/{n}.txt", b"12")
    assert [(o.key, o.bytes) for o in store.list("runs/")] == [
        (f"runs/x/{n}.txt", 2) for n in range(3)
    ]


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/", "", "a b", "x/$(id)"])
def test_keys_that_could_leave_their_folder_are_refused(store: Store, key: str) -> None:
    with pytest.raises(InputError):
        store.put(key, b"1")


def test_folders_go_up_and_come_down_whole(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "report"
    (source / "tables").mkdir(parents=True)
    (source / "index.html").write_text("<p>ö</p>")
    (source / "tables" / "a.csv").write_text("x\n1\n")
    stored = store.upload_dir(source, f"{RUN}/report")
    assert [one.key for one in stored] == [
        f"{RUN}/report/index.html", f"{RUN}/report/tables/a.csv",
    ]  # fmt: skip
    paths = store.download_dir(f"{RUN}/report", tmp_path / "down")
    assert {p.relative_to(tmp_path / "down").as_posix(): p.read_bytes() for p in paths} == {
        "index.html": "<p>ö</p>".encode(), "tables/a.csv": b"x\n1\n",
    }  # fmt: skip
    assert not list((tmp_path / "down").rglob("*.part"))
    with pytest.raises(ObjectMissingError):
        store.download_dir("runs/none", tmp_path / "none")
    (source / "link").symlink_to("index.html")
    with pytest.raises(StoreError, match="is a link"):
        store.upload_dir(source, f"{RUN}/report")


def test_the_manifest_lists_all_but_the_report_and_counts_generations(store: Store) -> None:
    a, b = b"first", b"second"
    store.put(f"{RUN}/run.json", a)
    store.put(f"{RUN}/hosts/h/host.json", b)
    store.put(f"{RUN}/report/index.html", b"later")
    store.put(f"{RUN}-longer-name/run.json", b"another run")
    store.write_manifest(RUN)
    first_raw = store.get(f"{RUN}/manifest.json")
    manifest = json.loads(first_raw)
    assert manifest["generation"] == 1
    assert manifest["previous_sha256"] is None
    assert manifest["objects"] == [
        {"key": "hosts/h/host.json", "bytes": 6, "sha256": hashlib.sha256(b).hexdigest()},
        {"key": "run.json", "bytes": 5, "sha256": hashlib.sha256(a).hexdigest()},
    ]
    store.put(f"{RUN}/trials.parquet", b"more")
    store.write_manifest(RUN)
    second = store.get_json(f"{RUN}/manifest.json")
    assert second["generation"] == 2
    assert second["previous_sha256"] == hashlib.sha256(first_raw).hexdigest()
    assert len(second["objects"]) == 3


def test_verification_names_what_changed_behind_the_manifests_back(
    store: Store, server: Server
) -> None:
    for name in ("kept", "changed", "removed"):
        store.put(f"{RUN}/{name}", b"1234")
    store.write_manifest(RUN)
    assert store.verify_manifest(RUN) == ()
    folder = server.folder / "wattbench" / store.target.prefix / RUN
    (folder / "changed").write_bytes(b"1235")
    boto3.client(
        "s3", endpoint_url=store.target.endpoint_url, region_name="us-east-1",
        aws_access_key_id=KEY, aws_secret_access_key=SECRET,
    ).delete_object(Bucket="wattbench", Key=f"{store.target.prefix}/{RUN}/removed")  # fmt: skip
    problems = store.verify_manifest(RUN)
    assert len(problems) == 2
    assert problems[0].startswith(f"{RUN}/changed: 4 bytes of SHA-256 ")
    assert problems[1] == f"{RUN}/removed: is gone"


def test_the_check_leaves_nothing_behind(store: Store) -> None:
    store.check()
    assert store.list() == ()


def test_runs_that_check_at_the_same_time_do_not_disturb_each_other(target: StoreTarget) -> None:
    def check(_: int) -> None:
        # While another's removal empties the bucket's folder, rclone may answer 500 to a put, or forget it.
        Store(target, waits_s=(0.1, 0.2, 0.4)).check()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(8)))


def test_a_missing_bucket_and_wrong_keys_say_so_at_once(
    target: StoreTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("wattbench.storage.object_store.time.sleep", pauses.append)
    with pytest.raises(StoreError, match=r"bucket 'nowhere' .*no such bucket; create it"):
        Store(replace(target, bucket="nowhere")).check()
    with pytest.raises(StoreError, match=r"refused .*'SOMEBODYELSESKEY'.*correct key and secret"):
        Store(replace(target, access_key="SOMEBODYELSESKEY")).check()
    with pytest.raises(StoreError, match="correct key and secret") as wrong:
        Store(replace(target, secret_key="not-the-secret")).check()
    assert "not-the-secret" not in str(wrong.value) + repr(target)
    assert SECRET not in repr(target)
    assert pauses == []  # no tries that can't help


def test_an_unreachable_store_is_named_after_the_tries(target: StoreTarget) -> None:
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreError, match=f"at {url}: unreachable.*check that the store runs"):
            Store(replace(target, endpoint_url=url), waits_s=(0.01, 0.01)).check()
    with pytest.raises(StoreError, match="correct the endpoint"):
        Store(replace(target, endpoint_url="no url")).check()


def test_a_store_that_comes_back_loses_nothing(tmp_path: Path) -> None:
    own = Server(tmp_path)
    store = Store(own.target, waits_s=(0.1,) * 100)
    begun = threading.Timer(0.3, own.start)
    begun.start()
    try:
        assert store.get(store.put("a.txt", b"kept").key) == b"kept"
    finally:
        begun.join()
        own.stop()


@pytest.mark.parametrize(
    ("fault", "said"),
    [("damage", r"a\.bin came back damaged"), ("lose", r"a\.bin came back damaged .*is not there")],
)
def test_what_is_damaged_or_not_there_after_its_put_is_put_again_and_then_reported(
    target: StoreTarget, server: Server, fault: str, said: str
) -> None:
    proxy = MeddlingProxy(server.port)
    setattr(proxy, fault, 1)
    try:
        behind = Store(replace(target, endpoint_url=proxy.url), waits_s=(0.01, 0.01))
        assert behind.put("a.bin", b"payload").bytes == 7
        assert proxy.puts == 2
        setattr(proxy, fault, 99)
        with pytest.raises(StoreError, match=said):
            behind.put("a.bin", b"payload")
        assert proxy.puts == 2 + 3
    finally:
        proxy.close()


def test_uploads_carry_an_md5_and_no_vendor_extension(target: StoreTarget, server: Server) -> None:
    proxy = MeddlingProxy(server.port)
    try:
        Store(replace(target, endpoint_url=proxy.url)).put("a.bin", b"hello")
    finally:
        proxy.close()
    # base64 of md5("hello"), RFC 1864
    assert proxy.put_headers["content-md5"] == "XUFAKrxLKna5cZ2REBfFkg=="
    extensions = ("x-amz-checksum", "x-amz-meta", "if-", "x-amz-sdk-checksum", "x-amz-trailer")
    assert not [name for name in proxy.put_headers if name.startswith(extensions)]


def test_importing_the_store_does_not_import_boto3() -> None:
    code = "import sys, wattbench.storage.object_store; print([m for m in sys.modules if m.startswith('boto')])"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{root}:{root / 'plugins'}"},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


# ── outages ─────────────────────────────────────────────────────────────────────────────────────


class Clock:
    """A clock on which waiting takes no time; does something whenever it is waited by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
        self.now, self.meanwhile = 0.0, meanwhile
        self.pauses: list[float] = []
        monkeypatch.setattr("wattbench.storage.object_store.time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.meanwhile()


def test_a_patient_store_waits_for_one_that_is_away_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path)
    Clock(monkeypatch, server.start)
    try:
        assert Store(server.target, waits_s=(), patience_s=600).put("runs/a", b"kept").bytes == 4
    finally:
        server.stop()
    assert "waiting for the store, 0 s of at most 600 s so far (store.wait_s" in caplog.text


def test_refused_keys_are_an_outage_where_a_person_may_mend_them_and_else_a_mistake(
    target: StoreTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(target, secret_key="revoked")
    clock = Clock(monkeypatch, lambda: None)
    with pytest.raises(StoreError, match="refused to put"):
        Store(wrong).put("runs/a", b"x")
    assert clock.pauses == []
    with pytest.raises(StoreError, match="refused to put"):
        Store(wrong, waits_s=(), patience_s=40).put("runs/a", b"x")
    assert clock.pauses == []  # nor is anybody asked to mend it
    with pytest.raises(StoreError, match="refused to put"):
        Store(wrong, waits_s=(), patience_s=40, renew=lambda: wrong).put("runs/a", b"x")
    assert clock.pauses == [15.0, 15.0, 10.0]  # never beyond its limit


def test_keys_that_a_person_mends_meanwhile_are_taken_up(
    target: StoreTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda: None)
    wrong = replace(target, secret_key="revoked")
    mended = iter([wrong, target])
    store = Store(wrong, waits_s=(), patience_s=600, renew=lambda: next(mended))
    assert store.put("runs/a", b"kept").bytes == 4
    assert len(clock.pauses) == 2


def test_an_object_that_is_not_there_is_no_outage(
    target: StoreTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda: None)
    with pytest.raises(ObjectMissingError):
        Store(target, patience_s=600).get("runs/absent")
    assert clock.pauses == []
