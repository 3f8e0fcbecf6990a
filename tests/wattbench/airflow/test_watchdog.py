"""The watchdog over real processes: what ends, what hangs, what never comes up, and its own end."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wattbench.airflow.watchdog import FIRST_TRIES, descendants, health_of

#: Runs a watchdog whose health is a file's text, over a program that logs its start.
HARNESS = """
import sys
from pathlib import Path
from wattbench.airflow.watchdog import Limits, Watchdog
health, quick_s, program = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
limits = Limits(poll_s=0.05, start_s=0.2, unhealthy_s=0.2, grace_s=0.5, quick_s=quick_s, longest_pause_s=0.1)
words = {"healthy": True, "unhealthy": False, "unknown": None}
def ask():
    with open(f"{health}.asked", "a") as file:
        file.write(".")
    return words[health.read_text()]
sys.exit(Watchdog("it", program, ask, limits).run())
"""
#: Notes its pid and its child's, then waits; one that hangs ignores a polite end.
PROGRAM = """
import os, signal, subprocess, sys, time
if "hangs" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
if "ends" in sys.argv:
    child.kill()
    sys.exit(7)
time.sleep(600)
"""


class Watched:
    """A watchdog in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, quick_s: float = 0.0) -> None:
        self.health, self.starts = folder / "health", folder / "starts"
        self.asked = folder / "health.asked"
        self.asked.write_text("")
        self.health.write_text("healthy")
        self.starts.write_text("")
        (folder / "program.py").write_text(PROGRAM)
        self.said = folder / "said"
        self.log = self.said.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", HARNESS, str(self.health), str(quick_s),
             sys.executable, str(folder / "program.py"), str(self.starts), *arguments],
            stderr=self.log.fileno(),
        )  # fmt: skip

    def pids(self) -> list[tuple[int, int]]:
        """Of the programs that were started, each with its child."""
        lines = self.starts.read_text().splitlines()
        return [(int(a), int(b)) for a, b in (line.split() for line in lines)]


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def start(*arguments: str, **options: float) -> Watched:
        made.append(Watched(tmp_path, *arguments, **options))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()
        one.log.close()
        for pid in {p for pair in one.pids() for p in pair}:
            if lives(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_process_that_is_killed_is_started_again(watched: Callable[..., Watched]) -> None:
    one = watched()
    until(lambda: len(one.pids()) == 1)
    os.kill(one.pids()[0][0], signal.SIGKILL)
    until(lambda: len(one.pids()) == 2)


def test_one_that_lives_but_hangs_is_ended_with_all_it_started(
    watched: Callable[..., Watched],
) -> None:
    one = watched("hangs")
    until(lambda: len(one.pids()) == 1)
    one.health.write_text("unhealthy")
    until(lambda: len(one.pids()) == 2)
    one.health.write_text("healthy")
    first = one.pids()[0]
    assert not any(lives(pid) for pid in first)
    assert lives(one.pids()[1][0])


def test_an_unknown_state_ends_nothing(watched: Callable[..., Watched]) -> None:
    one = watched()
    until(lambda: len(one.pids()) == 1)
    one.health.write_text("unknown")
    asked = lambda: one.asked.stat().st_size  # noqa: E731
    before = asked()
    until(lambda: asked() >= before + 20)  # longer than all its patience
    assert len(one.pids()) == 1
    assert lives(one.pids()[0][0])


def test_one_that_never_comes_up_ends_the_watchdog_with_its_code(
    watched: Callable[..., Watched],
) -> None:
    one = watched("ends", quick_s=60)
    assert one.process.wait(60) == 7
    assert len(one.pids()) == FIRST_TRIES
    assert "giving up" in one.said.read_text()


def test_a_polite_end_is_passed_on(watched: Callable[..., Watched]) -> None:
    one = watched()
    until(lambda: len(one.pids()) == 1)
    one.process.send_signal(signal.SIGTERM)
    one.process.wait(60)
    assert not lives(one.pids()[0][0])
    assert len(one.pids()) == 1


def test_the_process_does_not_outlive_its_watchdog(watched: Callable[..., Watched]) -> None:
    one = watched()
    until(lambda: len(one.pids()) == 1)
    one.process.kill()
    until(lambda: not lives(one.pids()[0][0]))


def test_descendants_are_found_down_to_the_last(watched: Callable[..., Watched]) -> None:
    one = watched()
    until(lambda: len(one.pids()) == 1)
    assert set(one.pids()[0]) <= set(descendants(one.process.pid))


# ── what Airflow's API says ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def api() -> Iterator[tuple[str, dict[str, object]]]:
    answer: dict[str, object] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", answer
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("database", "scheduler", "found"),
    [("healthy", "healthy", True), ("healthy", "unhealthy", False), ("healthy", None, False),
     ("unhealthy", "unhealthy", None)],
)  # fmt: skip
def test_a_part_is_ill_only_where_the_database_could_tell(
    api: tuple[str, dict[str, object]], database: str, scheduler: str | None, found: bool | None
) -> None:
    url, answer = api
    answer |= {"metadatabase": {"status": database}, "scheduler": {"status": scheduler}}
    assert health_of("scheduler", url) is found


def test_no_answer_is_no_illness() -> None:
    assert health_of("scheduler", "http://127.0.0.1:1") is None
