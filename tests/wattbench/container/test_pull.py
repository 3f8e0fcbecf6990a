"""Pulls: events added up, faults by their cause, against a scripted socket and a real Docker."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import docker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.airflow.task_context import PASSING
from wattbench.container.pull import PullRules, holds, inspect, is_there, pull
from wattbench.container.pull_progress import PullProgress
from wattbench.container.registry import Access, Layer, ResolvedImage, resolve
from wattbench.errors import HostError, RegistryError

SOCKET = Path("/var/run/docker.sock")
DIGEST, CONFIG = "sha256:" + "d" * 64, "sha256:" + "c" * 64
A, B = "a" * 12, "b" * 12
IMAGE = ResolvedImage(
    ref="r.test:5000/x:v1", ref_by_digest=f"r.test:5000/x@{DIGEST}", digest=DIGEST,
    manifest_digest=DIGEST, config_digest=CONFIG, platform="linux/amd64", size_bytes=6_302_403,
    layers=(Layer("sha256:" + "a" * 64, 6_002_083, ""), Layer("sha256:" + "b" * 64, 300_320, "")),
)  # fmt: skip
QUICK = PullRules(silence_s=0.4, waits_s=(0.01, 0.01), report_every_s=0.0)


def event(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    detail = {"current": current, "total": total} if total else {}
    return {"status": status, "progressDetail": detail, "id": layer}


# As dockerd 20.10 sent them for an image of two layers.
WHOLE = [
    {"status": "Pulling from x", "id": DIGEST},
    event(A, "Pulling fs layer"),
    event(B, "Pulling fs layer"),
    event(B, "Downloading", 3_678, 300_320),
    event(A, "Downloading", 69_213, 6_002_083),
    event(B, "Downloading", 300_320, 300_320),
    event(B, "Verifying Checksum"),
    event(B, "Download complete"),
    event(A, "Downloading", 6_002_083, 6_002_083),
    event(A, "Extracting", 196_608, 6_002_083),
    event(A, "Extracting", 6_002_083, 6_002_083),
    event(A, "Pull complete"),
    event(B, "Extracting", 32_768, 300_320),
    event(B, "Pull complete"),
    {"status": f"Digest: {DIGEST}"},
    {"status": f"Status: Downloaded newer image for x@{DIGEST}"},
]
REFUSED = {"errorDetail": {"message": "dial tcp: connection refused"}, "error": "dial tcp"}


def played(events: list[dict[str, Any]], step_s: float = 1.0, **more: Any) -> PullProgress:
    progress = PullProgress(**more)
    for n, one in enumerate(events):
        progress.feed(one, n * step_s)
    return progress


def test_a_whole_pull_counts_every_byte_once() -> None:
    progress = played(WHOLE)
    assert progress.received == progress.expected == IMAGE.size_bytes
    assert progress.unpacked == 2
    assert progress.error is None


def test_a_line_shows_bytes_rate_and_time_left() -> None:
    progress = PullProgress({A: 40_000_000, B: 10_000_000})
    progress.feed(event(A, "Downloading", 10_000_000, 40_000_000), 0.0)
    progress.feed(event(A, "Downloading", 20_000_000, 40_000_000), 4.0)
    # 10 MB in 4 s; 30 of 50 MB are left
    assert progress.line(4.0) == (
        "20.0 of 50.0 MB (40 %), 2.5 MB/s, 12 s left; 0 of 2 layers unpacked"
    )


def test_layers_at_the_host_need_no_bytes_and_count_as_unpacked() -> None:
    progress = played([event(A, "Already exists")], sizes={A: 6_002_083, B: 300_320})
    assert progress.expected == 300_320
    assert (progress.unpacked, progress.present, progress.received) == (1, {A}, 0)


def test_a_small_layer_that_shows_no_progress_counts_with_its_size() -> None:
    events = [event(B, "Pulling fs layer"), event(B, "Download complete")]
    assert played(events, sizes={B: 512}).received == 512


def test_a_countdown_is_not_progress_but_is_shown() -> None:
    progress = played([event(A, "Downloading", 1000, 6_002_083)], sizes={A: 6_002_083})
    for left in range(5, 0, -1):
        assert not progress.feed(event(A, f"Retrying in {left} seconds"), 10.0)
    assert progress.line(10.0).endswith("; retrying in 1 seconds")
    assert not progress.feed(event(A, "Waiting"), 11.0)


def test_a_layer_that_starts_again_keeps_the_bytes_that_were_wasted() -> None:
    progress = played(
        [
            event(A, "Downloading", 4_000_000, 6_002_083),
            event(A, "Retrying in 1 second"),
            event(A, "Downloading", 100_000, 6_002_083),
            event(A, "Downloading", 6_002_083, 6_002_083),
        ]
    )
    assert progress.received == 4_000_000 + 6_002_083
    assert progress.expected == 6_002_083


def test_the_same_byte_count_again_is_not_progress() -> None:
    progress = PullProgress()
    assert progress.feed(event(A, "Downloading", 10, 100), 0)
    assert not progress.feed(event(A, "Downloading", 10, 100), 1)
    assert progress.feed(event(A, "Extracting", 10, 100), 2)
    assert not progress.feed(event(A, "Extracting", 10, 100), 3)


def test_an_error_event_is_kept_with_its_detail() -> None:
    assert played([REFUSED]).error == "dial tcp: connection refused"


STATUS = st.sampled_from(
    ["Pulling fs layer", "Waiting", "Downloading", "Retrying in 3 seconds", "Verifying Checksum",
     "Download complete", "Extracting", "Pull complete", "Already exists"]
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), STATUS, st.integers(0, 500), st.integers(0, 500)),
        max_size=40,
    )
)
def test_no_order_of_events_breaks_the_sum_or_the_line(
    events: list[tuple[str, str, int, int]],
) -> None:
    progress, before = PullProgress({A: 500, B: 400}), 0
    for n, (layer, status, current, total) in enumerate(events):
        progress.feed(event(layer, status, min(current, total), total), float(n))
        assert progress.received >= before  # bytes that came are never taken back
        before = progress.received
        assert "layers unpacked" in progress.line(n + 0.5)
        assert 0 <= progress.unpacked <= 2


# ── a scripted Docker ───────────────────────────────────────────────────────────────────────────


class Script(BaseHTTPRequestHandler):
    """Plays the next script of its :class:`ScriptedDocker`."""

    server: ScriptedDocker
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.server.found:
            self._json(500, {"message": "layer store is locked"})
        elif self.server.pulled:
            self._json(200, self.server.found)
        else:
            self._json(404, {"message": "No such image"})

    def do_POST(self) -> None:
        self.server.requests.append(
            {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            | {"auth": self.headers.get("X-Registry-Auth")}
        )
        script = self.server.scripts.pop(0)
        if script and isinstance(script[0], int):
            return self._json(script[0], {"message": script[1]})
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for step in script:
                if isinstance(step, float):
                    self.server.ended.wait(step)
                elif step == "cut":
                    self.close_connection = True
                    return None
                else:
                    self._chunk(json.dumps(step).encode() + b"\r\n")
            self.server.pulled = True  # before the end is sent: the client asks at once
            self._chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            return None  # the client left: what it does when its patience ends
        return None

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, document: dict[str, Any]) -> None:
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


class ScriptedDocker(socketserver.ThreadingUnixStreamServer):
    """Answers pulls over a unix socket: every script is one attempt's events, pauses (s) or a cut."""

    daemon_threads = True

    def __init__(self, path: Path, scripts: list[list[Any]], found: dict[str, Any]) -> None:
        self.scripts, self.found, self.pulled = scripts, found, False
        self.requests: list[dict[str, Any]] = []
        self.ended = threading.Event()

        super().__init__(str(path), Script)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.ended.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


FOUND = {"Id": CONFIG, "RepoDigests": [IMAGE.ref_by_digest], "Size": 12_345_678}


class Bed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: ScriptedDocker | None = None
        self.api: Any = None
        self.lines: list[str] = []

    def start(self, *scripts: list[Any], found: dict[str, Any] = FOUND) -> None:
        path = self.folder / "d.sock"
        self.server = ScriptedDocker(path, list(scripts), found)
        self.api = docker.APIClient(f"unix://{path}", version="1.41", timeout=5)

    def pull(self, rules: PullRules = QUICK, **more: Any) -> Any:
        return pull(self.api, IMAGE, rules=rules, say=self.lines.append, **more)

    def stop(self) -> None:
        if self.server:
            self.api.close()
            self.server.close()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    one = Bed(tmp_path)
    yield one
    one.stop()


def test_a_pull_asks_for_the_digest_and_reports_what_it_took(bed: Bed) -> None:
    bed.start(WHOLE)
    report = bed.pull(login=Access(username="ann", password="pw"))
    assert bed.server
    asked = bed.server.requests[0]
    assert (asked["fromImage"], asked["tag"]) == ("r.test:5000/x", DIGEST)
    assert asked["platform"] == "linux/amd64"
    assert asked["auth"] is not None
    assert report.bytes == IMAGE.size_bytes
    assert (report.attempts, report.already_present, report.layers) == (1, False, 2)
    assert (report.image_id, report.size_bytes_unpacked) == (CONFIG, 12_345_678)
    assert json.loads(json.dumps(report.document()))["digest"] == DIGEST
    assert any("of 6.3 MB" in line for line in bed.lines)


def test_an_image_that_is_there_is_not_pulled(bed: Bed) -> None:
    bed.start()
    assert bed.server
    bed.server.pulled = True
    report = bed.pull(free_bytes=0)
    assert (report.attempts, report.bytes, report.already_present) == (0, 0, True)
    assert bed.server.requests == []


def test_lines_of_progress_are_seconds_apart(bed: Bed) -> None:
    bed.start([*WHOLE[:5], *(event(A, "Downloading", n, 6_002_083) for n in range(300)), *WHOLE])
    bed.pull(replace(QUICK, report_every_s=60))
    assert len(bed.lines) == 2  # what is to come, what came


def test_a_registry_that_is_down_counts_as_silence_in_spite_of_its_countdown(bed: Bed) -> None:
    countdown: list[Any] = []
    for left in range(60, 0, -1):
        countdown += [event(A, f"Retrying in {left} seconds"), 0.05]
    bed.start([*WHOLE[:5], *countdown], WHOLE)
    report = bed.pull()
    assert report.attempts == 2
    assert any("no byte arrived" in line for line in bed.lines)


def test_a_registry_that_hangs_is_left_after_the_silence_and_tried_again(bed: Bed) -> None:
    bed.start([*WHOLE[:5], 30.0], WHOLE)
    report = bed.pull()
    assert report.attempts == 2
    assert any("sent nothing for" in line for line in bed.lines)
    assert report.bytes == IMAGE.size_bytes + 3_678 + 69_213  # the first attempt's are counted


def test_a_short_pause_is_not_a_loss(bed: Bed) -> None:
    bed.start([*WHOLE[:5], 0.25, WHOLE[5], 0.25, *WHOLE[6:]])
    assert bed.pull(replace(QUICK, silence_s=5)).attempts == 1


@pytest.mark.parametrize(
    "fault",
    [
        [*WHOLE[:5], REFUSED],
        [*WHOLE[:5], "cut"],
        [500, 'Get "http://r.test:5000/v2/": dial tcp: connect: connection refused'],
        [500, "net/http: TLS handshake timeout"],
    ],
)
def test_what_may_pass_is_tried_again(bed: Bed, fault: list[Any]) -> None:
    bed.start(fault, fault, WHOLE)
    assert bed.pull().attempts == 3


def test_what_does_not_pass_ends_with_the_reason_and_the_number_of_attempts(bed: Bed) -> None:
    bed.start(*[[*WHOLE[:5], REFUSED]] * 3)
    with pytest.raises(RegistryError, match=r"connection refused \(3 attempts, 0.2 MB received\)"):
        bed.pull()


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ([404, f"manifest for r.test:5000/x@{DIGEST} not found: manifest unknown"],
         RegistryError, "gone from the registry"),
        ([500, 'Head "https://r.test:5000/v2/x": unauthorized: authentication required'],
         RegistryError, "check the login"),
        ([500, "http: server gave HTTP response to HTTPS client"],
         RegistryError, "insecure-registries"),
        ([*WHOLE[:9], {"error": "failed to register layer: no space left on device"}],
         HostError, "free space in Docker's folder"),
    ],
)  # fmt: skip
def test_what_no_retry_can_mend_is_not_tried_again(
    bed: Bed, fault: list[Any], error: type[Exception], message: str
) -> None:
    bed.start(fault)
    with pytest.raises(error, match=message):
        bed.pull()
    assert bed.server
    assert len(bed.server.requests) == 1


def test_too_little_room_is_refused_before_the_pull(bed: Bed) -> None:
    bed.start()
    rules = replace(QUICK, room_factor=2.0, room_margin_bytes=1_000_000)
    needed = 2 * IMAGE.size_bytes + 1_000_000
    with pytest.raises(HostError, match="remove images from this host") as refused:
        bed.pull(rules, free_bytes=needed - 1)
    assert refused.value.code == "disk-full"
    assert bed.server
    assert bed.server.requests == []
    bed.server.scripts = [WHOLE]
    assert bed.pull(rules, free_bytes=needed).attempts == 1


@pytest.mark.parametrize(
    "found",
    [FOUND | {"RepoDigests": []}, FOUND | {"Id": "sha256:" + "e" * 64},
     FOUND | {"RepoDigests": [f"other.test/x@{DIGEST}"]}],
)  # fmt: skip
def test_another_image_than_asked_for_is_refused(bed: Bed, found: dict[str, Any]) -> None:
    bed.start(WHOLE, found=found)
    with pytest.raises(HostError, match="remove the image from the host and pull again"):
        bed.pull()


def test_docker_hubs_short_names_are_the_same_image() -> None:
    found = {"RepoDigests": [f"ubuntu@{DIGEST}"]}
    assert holds(found, f"docker.io/library/ubuntu@{DIGEST}")
    assert not holds(found, f"docker.io/other/ubuntu@{DIGEST}")


def test_a_docker_that_is_ill_is_the_hosts_fault(bed: Bed) -> None:
    bed.start(found={})
    with pytest.raises(HostError, match=r"layer store is locked.*check dockerd there") as error:
        bed.pull()
    assert error.value.code == "docker"


# ── a real Docker and a real registry ───────────────────────────────────────────────────────────


class Dropped(socketserver.StreamRequestHandler):
    """The way to Docker is gone: what was asked stays without an answer."""

    def handle(self) -> None:
        self.rfile.readline()


def test_a_way_to_docker_that_breaks_off_may_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "broken.sock"
    with socketserver.UnixStreamServer(str(path), Dropped) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = docker.APIClient(base_url=f"unix://{path}", version="1.41")
        for ask in (lambda: is_there(client, IMAGE), lambda: inspect(client, DIGEST)):
            with pytest.raises(HostError, match="Docker does not answer") as caught:
                ask()
            assert caught.value.code in PASSING
        server.shutdown()
        client.close()


@pytest.fixture
def api() -> Iterator[Any]:
    if not SOCKET.is_socket():
        pytest.skip(f"no Docker at {SOCKET}")
    client = docker.APIClient(f"unix://{SOCKET}", timeout=30)
    yield client
    client.close()


@pytest.mark.docker
def test_a_real_pull_is_verified_reported_and_not_repeated(api: Any, spare_registry: Any) -> None:
    spare_registry.start()
    config = {"Cmd": ["/a"], "Env": ["A=1", "B=x=y"], "Labels": {"l": "1"}}
    files = {"a": os.urandom(6_000_000), "b": os.urandom(300_000)}
    pushed = spare_registry.push_image("wattbench-test/pull", "v1", files, config=config)
    image = resolve(f"{spare_registry.address}/wattbench-test/pull:v1")
    try:
        report = pull(api, image, free_bytes=10**12)
        assert report.bytes == image.size_bytes
        assert report.image_id == pushed["config_digest"]
        assert report.size_bytes_unpacked == 6_300_000
        assert (report.attempts, report.layers, report.layers_present) == (1, 2, 0)
        again = pull(api, image)
        assert (again.already_present, again.bytes) == (True, 0)
        facts = inspect(api, image.ref_by_digest)
        assert facts["digests"] == [image.ref_by_digest]
        assert facts["env"] == {"A": "1", "B": "x=y"}
        assert (facts["cmd"], facts["platform"]) == (["/a"], "linux/amd64")
        assert facts["layer_diff_ids"] == pushed["diff_ids"]
        assert [(one["created_by"], one["size_bytes"]) for one in facts["history"]] == [
            ("COPY a", 6_000_000), ("COPY b", 300_000),
        ]  # fmt: skip
    finally:
        api.remove_image(image.ref_by_digest)


@pytest.mark.docker
def test_a_multi_platform_image_is_held_by_its_indexs_digest(api: Any, spare_registry: Any) -> None:
    spare_registry.start()
    amd = spare_registry.push_image("wattbench-test/multi", None, {"a": os.urandom(5000)})
    arm = spare_registry.push_image(
        "wattbench-test/multi", None, {"a": os.urandom(5000)}, architecture="arm64"
    )
    both = {"linux/amd64": amd, "linux/arm64": arm}
    index = spare_registry.push_index("wattbench-test/multi", "v1", both)
    image = resolve(f"{spare_registry.address}/wattbench-test/multi:v1")
    try:
        report = pull(api, image)
        assert report.digest == index
        assert report.image_id == amd["config_digest"]
    finally:
        api.remove_image(image.ref_by_digest)


@pytest.mark.docker
def test_a_registry_that_dies_in_a_real_pull_is_noticed_by_its_bytes(
    api: Any, spare_registry: Any
) -> None:
    """Docker counts down every second and would go on for minutes; the registry comes back later."""
    spare_registry.start()
    spare_registry.push_image("wattbench-test/dies", "v1", {"a": os.urandom(40_000_000)})
    image = resolve(f"{spare_registry.address}/wattbench-test/dies:v1")
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith(image.ref_by_digest):
            spare_registry.stop()  # before the first byte
        elif "broke off" in line:
            spare_registry.start()

    rules = PullRules(silence_s=3, waits_s=(0.5, 1, 1, 1), report_every_s=0.5)
    try:
        report = pull(api, image, rules=rules, say=say)
        assert report.attempts >= 2
        assert report.bytes >= image.size_bytes
        assert any("broke off" in line for line in lines)
    finally:
        api.remove_image(image.ref_by_digest)


@pytest.mark.docker
def test_a_digest_that_is_gone_is_not_retried_by_a_real_docker(
    api: Any, spare_registry: Any
) -> None:
    spare_registry.start()
    spare_registry.push_image("wattbench-test/gone", "v1", {"a": b"1"})
    image = resolve(f"{spare_registry.address}/wattbench-test/gone:v1")
    gone = replace(image, ref_by_digest=image.ref_by_digest[:-64] + "ab" * 32)
    lines: list[str] = []
    with pytest.raises(RegistryError, match="gone from the registry"):
        pull(api, gone, say=lines.append)
    assert not any("broke off" in line for line in lines)
