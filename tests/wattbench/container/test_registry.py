"""Image references against their grammar, and resolution against a real registry."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest
from docker.auth import resolve_repository_name
from docker.utils import parse_repository_tag
from hypothesis import given
from hypothesis import strategies as st

from wattbench.container.image_ref import ImageRef
from wattbench.container.registry import Access, resolve
from wattbench.errors import RegistryError

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("pytorch/pytorch:2.6.0-cuda12.6-cudnn9-runtime",
         "docker.io/pytorch/pytorch:2.6.0-cuda12.6-cudnn9-runtime"),
        ("nvcr.io/nvidia/pytorch:25.01-py3", "nvcr.io/nvidia/pytorch:25.01-py3"),
        ("127.0.0.1:5000/pip-torch", "127.0.0.1:5000/pip-torch:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        (f"ubuntu@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
        (f"ghcr.io/a/b:1@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}"),
        ("foo/bar/baz__q-w.e", "docker.io/foo/bar/baz__q-w.e:latest"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1"),
        ("Registry/x", "Registry/x:latest"),
    ],
)  # fmt: skip
def test_references_get_the_defaults_that_docker_gives_them(text: str, full: str) -> None:
    assert str(ImageRef.parse(text)) == full


@pytest.mark.parametrize(
    "text",
    ["", "Ubuntu", "a b", "x;id", "$(id)", "x:`id`", "x|y", "x\n", "-x", "--privileged", "x:",
     "x@sha256:12", "x@md5:" + "a" * 32, "a//b", "/a", "a/", "x:-1", "http://x/y", "../x",
     "x:" + "a" * 129, "foo/Bar", "a/b:c/d", "ü", f"x@{DIGEST.upper()}", "a" * 600],
)  # fmt: skip
def test_anything_else_is_refused_with_what_a_reference_looks_like(text: str) -> None:
    with pytest.raises(RegistryError, match=r"name\[:tag\]|use lower case"):
        ImageRef.parse(text)


@given(st.text(max_size=60) | st.from_regex(r"[a-zA-Z0-9./:@_\-]{1,40}", fullmatch=True))
def test_an_accepted_reference_is_free_of_shell_syntax_and_stays_itself(text: str) -> None:
    try:
        ref = ImageRef.parse(text)
    except RegistryError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._/:@\[\]-]+", str(ref))
    assert not str(ref).startswith("-")
    assert ImageRef.parse(str(ref)) == ref
    assert ImageRef.parse(ref.at(DIGEST)).digest == DIGEST


WORD = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?", fullmatch=True)


@given(
    st.sampled_from(["", "ghcr.io/", "host:5000/", "localhost/"]),
    st.lists(WORD, min_size=1, max_size=3),
    st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
)
def test_parts_are_those_that_docker_py_finds(
    domain: str, path: list[str], tag: str | None
) -> None:
    text = domain + "/".join(path) + (f":{tag}" if tag else "")
    ref = ImageRef.parse(text)
    name, found_tag = parse_repository_tag(text)
    index, remote = resolve_repository_name(name)
    assert ref.tag == (found_tag or "latest")
    assert ref.registry == index
    library = "library/" if index == "docker.io" and "/" not in remote else ""
    assert ref.repository == library + remote


def test_a_tag_resolves_to_digest_layers_and_sizes(registry: Any) -> None:
    pushed = registry.push_image("team/single", "v1", {"a": b"a" * 1000, "b": b"b"})
    image = resolve(f"{registry.address}/team/single:v1")
    assert image.digest == image.manifest_digest == pushed["digest"]
    assert image.ref_by_digest == f"{registry.address}/team/single@{pushed['digest']}"
    assert image.config_digest == pushed["config_digest"]
    assert image.platform == "linux/amd64"
    assert image.size_bytes == sum(layer["size"] for layer in pushed["layers"])
    assert [layer.digest for layer in image.layers] == [one["digest"] for one in pushed["layers"]]
    again = resolve(image.ref_by_digest)
    assert (again.digest, again.layers) == (image.digest, image.layers)


def test_of_an_index_the_indexs_digest_and_the_platforms_layers_count(registry: Any) -> None:
    amd = registry.push_image("multi", None, {"a": b"amd"})
    arm = registry.push_image("multi", None, {"a": b"arm!!"}, architecture="arm64")
    index = registry.push_index("multi", "v1", {"linux/amd64": amd, "linux/arm64": arm})
    for platform, pushed in (("linux/amd64", amd), ("linux/arm64/v8", arm)):
        image = resolve(f"{registry.address}/multi:v1", platform)
        assert image.digest == index
        assert image.manifest_digest == pushed["digest"]
        assert image.config_digest == pushed["config_digest"]
    with pytest.raises(
        RegistryError, match="no image for linux/s390x, only for linux/amd64, linux/arm64"
    ):
        resolve(f"{registry.address}/multi:v1", "linux/s390x")


def test_an_image_for_another_architecture_is_refused(registry: Any) -> None:
    registry.push_image("arm-only", "v1", {"a": b"x"}, architecture="arm64")
    with pytest.raises(RegistryError, match="built for linux/arm64, not for linux/amd64"):
        resolve(f"{registry.address}/arm-only:v1")


def test_a_tag_that_moves_resolves_anew_and_the_old_digest_stays(registry: Any) -> None:
    old = registry.push_image("moving", "v1", {"a": b"1"})
    assert resolve(f"{registry.address}/moving:v1").digest == old["digest"]
    new = registry.push_image("moving", "v1", {"a": b"2"})
    assert resolve(f"{registry.address}/moving:v1").digest == new["digest"]
    by_both = resolve(f"{registry.address}/moving:v1@{old['digest']}")
    assert by_both.digest == old["digest"]


def test_unknown_tags_digests_and_repositories_say_so(registry: Any) -> None:
    registry.push_image("known", "v1", {"a": b"1"})
    with pytest.raises(RegistryError, match=r"known:v2: .* does not know it \(MANIFEST_UNKNOWN\)"):
        resolve(f"{registry.address}/known:v2")
    with pytest.raises(RegistryError, match=r"nowhere:latest: .*does not know it.*push it first"):
        resolve(f"{registry.address}/nowhere")
    with pytest.raises(RegistryError, match="no longer has this digest"):
        resolve(f"{registry.address}/known@{DIGEST}")


def test_what_is_no_image_is_refused(registry: Any) -> None:
    blob = registry.push_blob("artifact", b"{}")
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": blob},
        "layers": [],
    }  # fmt: skip
    registry.push_manifest("artifact", "v1", manifest)
    with pytest.raises(RegistryError, match="unknown platform"):
        resolve(f"{registry.address}/artifact:v1")


def test_an_unreachable_registry_is_distinguished_from_a_wrong_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RegistryError, match=f"{name}: unreachable .connection refused"):
            resolve(f"{name}/x", waits_s=(0.01,))
    with pytest.raises(RegistryError, match=r"no-such-host\.invalid: unreachable"):
        resolve("no-such-host.invalid/x", waits_s=())


def test_a_registry_that_comes_back_is_waited_for(spare_registry: Any) -> None:
    spare_registry.start()
    digest = spare_registry.push_image("x", "v1", {"a": b"1"})["digest"]
    spare_registry.stop()
    begun = threading.Timer(0.3, spare_registry.start)
    begun.start()
    try:
        assert resolve(f"{spare_registry.address}/x:v1", waits_s=(0.1,) * 100).digest == digest
    finally:
        begun.join()


def test_a_login_by_password_is_used_and_its_absence_or_error_explained(
    spare_registry: Any,
) -> None:
    spare_registry.start()
    digest = spare_registry.push_image("x", "v1", {"a": b"1"})["digest"]
    spare_registry.stop()
    passwords = spare_registry.folder / "htpasswd"
    passwords.write_bytes(b"ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    spare_registry.start({"auth": {"htpasswd": {"realm": "r", "path": str(passwords)}}})
    name = f"{spare_registry.address}/x:v1"
    known = Access(username="ann", password="secret")
    assert resolve(name, registries={spare_registry.address: known}).digest == digest
    with pytest.raises(RegistryError, match="asks for a login; set registries"):
        resolve(name)
    wrong = Access(username="ann", password="wrong!")
    with pytest.raises(RegistryError, match="does not let user 'ann' read it") as refused:
        resolve(name, registries={spare_registry.address: wrong})
    assert "wrong!" not in str(refused.value) + repr(wrong)


class TokenFront(ThreadingHTTPServer):
    """Docker's token authentication before a real registry: 401, realm, token, bearer."""

    def __init__(self, upstream: str, user: str | None, realm: str | None = None) -> None:
        front = self
        self.asked: list[dict[str, list[str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path == "/token":
                    front.asked.append(parse_qs(url.query))
                    wanted = "Basic " + base64.b64encode(f"{user}:pw".encode()).decode()
                    ok = user is None or self.headers.get("Authorization") == wanted
                    return self._answer(200 if ok else 401, {}, b'{"token": "t0k"}')
                if self.headers.get("Authorization") != "Bearer t0k":
                    where = realm or f"http://127.0.0.1:{front.server_address[1]}/token"
                    scope = "repository:x:pull"
                    challenge = f'Bearer realm="{where}",service="svc",scope="{scope}"'
                    return self._answer(401, {"WWW-Authenticate": challenge}, b"{}")
                connection = http.client.HTTPConnection(upstream, timeout=10)
                connection.request("GET", self.path, headers={"Accept": self.headers["Accept"]})
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                return self._answer(answer.status, {}, data)

            def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def fronts() -> Iterator[list[TokenFront]]:
    opened: list[TokenFront] = []
    yield opened
    for front in opened:
        front.close()


def test_a_bearer_token_is_fetched_from_the_realm(registry: Any, fronts: list[TokenFront]) -> None:
    digest = registry.push_image("x", "v1", {"a": b"1"})["digest"]
    anonymous, private = TokenFront(registry.address, None), TokenFront(registry.address, "ann")
    fronts += [anonymous, private]
    assert resolve(f"{anonymous.name}/x:v1").digest == digest
    assert anonymous.asked == [{"service": ["svc"], "scope": ["repository:x:pull"]}]
    login = {private.name: Access(username="ann", password="pw")}
    assert resolve(f"{private.name}/x:v1", registries=login).digest == digest
    with pytest.raises(RegistryError, match=r"gives an anonymous reader no token .HTTP 401"):
        resolve(f"{private.name}/x:v1")


def test_a_login_is_never_sent_to_a_realm_without_tls(
    registry: Any, fronts: list[TokenFront]
) -> None:
    front = TokenFront(registry.address, None, realm="ftp://elsewhere/token")
    fronts.append(front)
    with pytest.raises(RegistryError, match="not encrypted"):
        resolve(f"{front.name}/x:v1", registries={front.name: Access(username="a", password="b")})


def test_a_manifest_changed_on_its_way_is_noticed(spare_registry: Any) -> None:
    spare_registry.start()
    pushed = spare_registry.push_image("x", "v1", {"a": b"1"})
    algorithm, digits = pushed["digest"].split(":")
    stored = spare_registry.folder / "data/docker/registry/v2/blobs" / algorithm
    blob = stored / digits[:2] / digits / "data"
    blob.write_bytes(blob.read_bytes().replace(b'"size"', b' "size"'))
    with pytest.raises(RegistryError, match=r"the registry announces sha256:.* and sends sha256:"):
        resolve(f"{spare_registry.address}/x@{pushed['digest']}", waits_s=())


def test_resolution_gives_up_after_its_tries(
    fronts: list[TokenFront], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("wattbench.container.registry.time.sleep", pauses.append)
    front = TokenFront("127.0.0.1:9", None)  # a registry behind that refuses connections
    fronts.append(front)
    with pytest.raises(RegistryError, match="unreachable"):
        resolve(f"{front.name}/x:v1", waits_s=(20.0, 40.0))
    assert pauses == [20.0, 40.0]
