"""A server in the place of Airflow's REST API."""

from __future__ import annotations

import http.server
import json
import time
from collections.abc import Callable
from typing import Any

Answer = tuple[int, Any]


class FakeAirflow:
    """Answers what the test has set, and remembers what it was asked.

    Attributes:
        answers: path → status and document, or what gives them at each request.
        asked: verb, path with its query, and body of each request.
        clock_off_s: how far its header Date is ahead.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[], Answer]] = {
            "/auth/token": (201, {"access_token": "t"})
        }
        self.clock_off_s = 0.0
        self.asked: list[tuple[str, str, Any]] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                path = self.path.partition("?")[0]
                fake.asked.append((self.command, self.path, body))
                found = fake.answers.get(path, (404, {"detail": "not found"}))
                status, value = found() if callable(found) else found
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((timestamp or time.time()) + fake.clock_off_s)

            def log_message(self, *args: object) -> None:
                del args

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
