"""A page in the frame that Airflow puts it into: what its sandbox and our policy let the reader do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.browser import BROWSER, dom
from tests.wattbench.web.test_pages import known, listed
from wattbench.web import render, rows

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]
#: As Airflow 3.3 frames a plugin's page.
SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads"
FRAME = f"""<!DOCTYPE html><title>Airflow</title><body><iframe id="page" sandbox="{SANDBOX}" src="/wattbench/runs">
</iframe><script>const frame = document.getElementById("page"); let done = false;
frame.onload = () => {{ if (done) return; done = true;
 const inside = frame.contentDocument; {{act}} }};</script></body>"""


class Airflow(ThreadingHTTPServer):
    """Answers with our page of runs, with the page around it, and with where a reader has come to."""

    asked: list[str]
    act = ""


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server = self.server
            assert isinstance(server, Airflow)
            server.asked.append(self.path)
            policy, text = "", f"<!DOCTYPE html><title>at {self.path}</title>"
            if self.path == "/":
                text = FRAME.replace("{act}", server.act)
            elif self.path.startswith("/wattbench/runs"):
                chosen = {"experiment": ["nightly"], "state": rows.STATES, "host": ["a"]}
                line = rows.RunLine(known())
                runs = rows.RunList(listed(line).lines, None, choices=chosen)
                text, policy = render.page("runs", "/wattbench", runs=runs, first=True)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            if policy:
                self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            del args

    with Airflow(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.asked = True, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_link_to_airflow_s_run_leaves_the_frame(airflow: Airflow, tmp_path: Path) -> None:
    airflow.act = 'inside.querySelector("a[target=_top]").click();'
    text = dom(f"http://127.0.0.1:{airflow.server_port}/", tmp_path)
    path = "/dags/nightly/runs/scheduled__2026-01-02T01%3A00%3A00%2B00%3A00"
    assert f"<title>at {path}</title>" in text


def test_the_filter_can_be_sent_from_the_frame(airflow: Airflow, tmp_path: Path) -> None:
    airflow.act = (
        "inside.forms[0].elements.state.value = 'failed'; inside.forms[0].requestSubmit();"
    )
    dom(f"http://127.0.0.1:{airflow.server_port}/", tmp_path)
    assert "/wattbench/runs?experiment=&state=failed&host=" in airflow.asked
