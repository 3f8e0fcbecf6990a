"""A Docker daemon that can't be used: one line with place and next action."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from demo import docker_engine as demos
from demo.checkout import Checkout
from wattbench.analysis.model.errors import UserError
from wattbench.local import docker_engine


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Answers as a Docker daemon of an old version does."""

    api_version = "1.21"  # Docker 1.9


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Daemon)
        body = b"OK"
        if self.path.endswith("/version"):
            body = json.dumps({"Version": "1.9.1", "ApiVersion": self.server.api_version}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *args: object) -> None:
        del args


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    path = tmp_path / "docker.sock"
    with Daemon(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(docker_engine, "SOCKET", path)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield server
        server.shutdown()
        thread.join()


def test_an_old_docker_is_to_be_updated(daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"docker\.sock is too old: .* update Docker") as caught:
        docker_engine.require()
    assert "\n" not in str(caught.value)
    # The demo neither takes it for absent nor starts another beside it.
    with pytest.raises(UserError, match="update Docker"):
        demos.ensure(Checkout(tmp_path), print)


def test_a_docker_of_today_is_used(daemon: Daemon) -> None:
    daemon.api_version = "1.44"
    client = docker_engine.require()
    assert client.api.api_version == "1.44"
    client.close()
