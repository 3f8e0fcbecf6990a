"""People are notified through Airflow's own notifiers: a real one, to a real (small) mail server."""

from __future__ import annotations

import email
import socketserver
import threading
from collections.abc import Iterator
from email import policy
from pathlib import Path

import pytest

from tests.support.airflow_process import in_airflow


class _Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs to hand over a message."""

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        for line in self.rfile:
            verb = line.strip().upper()[:4]
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.messages.append(b"".join(lines))  # type: ignore[attr-defined]
            if verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")


@pytest.fixture(scope="module")
def mailbox() -> Iterator[tuple[int, list[bytes]]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail) as server:
        messages: list[bytes] = []
        server.messages = messages  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], messages
        server.shutdown()
        thread.join()


CODE = """
from wattbench.config.hosts import NotifyConfig
from wattbench.steps.run_events import Event
from wattbench.airflow.notifiers import link_of, send
notifiers = [
    NotifyConfig(notifier="wattbench.notify.LogNotifier"),
    NotifyConfig(notifier="no.such.Notifier", events=["regression"]),
    NotifyConfig(
        notifier="airflow.providers.smtp.notifications.smtp.SmtpNotifier",
        events=["host-quarantined"],
        arguments={
            "smtp_conn_id": "mail", "from_email": "lab@example.org", "to": "me@example.org",
            "subject": "[{{ wattbench.event }}] {{ wattbench.title }}",
            "html_content": "<p>{{ wattbench.text }}</p><a href='{{ wattbench.link }}'>{{ wattbench.run_id }}</a>",
        },
    ),
]
events = [
    Event("regression", "b rose", "by 4 %"),
    Event("host-quarantined", "lab-a is in quarantine", "it says {{ 7 * 191 }} {% raw %}"),
]
link = link_of("night", "scheduled__2026-03-14T01:00:00+00:00")
for line in send(events, notifiers, {}, run_id="night-1", link=link):
    print("trouble", line)
"""


def test_each_event_reaches_the_notifiers_that_asked_for_it(
    mailbox: tuple[int, list[bytes]], tmp_path: Path
) -> None:
    port, messages = mailbox
    said = in_airflow(
        CODE, tmp_path,
        AIRFLOW_CONN_MAIL=f'{{"conn_type": "smtp", "host": "127.0.0.1", "port": {port}, '
        '"extra": {"disable_ssl": true, "disable_tls": true}}',
        AIRFLOW__API__BASE_URL="https://lab.example.org/airflow",
    )  # fmt: skip
    assert "] regression: b rose – by 4 %" in said
    assert "] host-quarantined: lab-a is in quarantine" in said
    # One that can't be reached doesn't keep the others from being notified.
    (trouble,) = [line for line in said.splitlines() if line.startswith("trouble")]
    assert "no.such.Notifier could not report regression" in trouble
    assert "correct its path or arguments" in trouble
    (message,) = messages
    mail = email.message_from_bytes(message, policy=policy.default)
    assert mail["subject"] == "[host-quarantined] lab-a is in quarantine"
    body = mail.get_body(("html",))
    assert body is not None
    text = body.get_content()
    # What a host or an image said is text to the templates, never a template.
    assert "it says {{ 7 * 191 }} {% raw %}" in text
    link = "https://lab.example.org/airflow/dags/night/runs/scheduled__2026-03-14T01%3A00%3A00%2B00%3A00"
    assert f"<a href='{link}'>night-1</a>" in text
