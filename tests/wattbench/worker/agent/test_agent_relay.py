"""A load on another machine: the relay and the generator as they are shipped, against real servers on loopback."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import SERVER
from wattbench.worker.agent import limits, relay
from wattbench.worker.agent.relay import Relay, RelayError
from wattbench.workloads.program_bundle import load_bundle

TOKEN = "0123456789abcdef"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass
class Bench:
    """A server, a relay in front of it, and load generators that reach it through the relay only."""

    folder: Path
    port: int = field(default_factory=free_port)
    server_port: int = field(default_factory=free_port)
    outcome: list[Any] = field(default_factory=list)

    def serve(self, **does: Any) -> None:
        path = self.folder / "server.py"
        path.write_text(SERVER)
        argv = [sys.executable, str(path), json.dumps({"port": self.server_port, **does})]
        self.server = subprocess.Popen(argv)
        self.ends_r, ends_w = os.pipe()

        def wait() -> None:
            self.server.wait()
            os.close(ends_w)

        threading.Thread(target=wait, daemon=True).start()

    def relay(self) -> None:
        link = {"load_host": "load-1", "address": "127.0.0.1", "port": self.port, "token": TOKEN}
        place = ("127.0.0.1", self.server_port)
        self.open = Relay(link, place, str(self.folder / "requests.csv"))

        def run() -> None:
            try:
                went = self.open.run(self.ends_r)
                self.outcome.append(went or self.open.tell_end("the server ended with 3: no more"))
            except RelayError as error:
                self.outcome.append(error)
            finally:
                self.open.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def load(self, **plan: Any) -> subprocess.Popen[str]:
        program = self.folder / "load.pyz"
        program.write_bytes(load_bundle().content)
        path = self.folder / "plan.json"
        path.write_text(
            json.dumps(
                {
                    "host": "127.0.0.1", "port": self.port, "ready_path": "/health", "ready_timeout_s": 20,
                    "api": "http", "request": {"path": "/predict", "json": {"x": 1}}, "requests": None,
                    "warmup": 3, "warmup_concurrency": 2, "status": 200, "json": "$.label",
                    "timeout_s": 5, "strict": False, "cpus": [], "seed": "7",
                    "steps": [
                        {"name": "c4", "concurrency": 4, "requests": 200},
                        {"name": "r50", "rate_per_s": 50.0, "seconds": 0.5, "arrivals": "uniform"},
                    ],
                    "output": str(self.folder / "own.csv"),
                    "link": {
                        "address": "127.0.0.1", "port": self.port, "token": TOKEN, "within_s": 10,
                    },
                    **plan,
                }
            )
        )  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-IS", str(program), str(path)],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> None:
        self.thread.join(60)
        assert not self.thread.is_alive()

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "requests.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.server.kill()
    bench.server.wait()


def ended(load: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    _, said = load.communicate(timeout=20)
    return load.returncode, said


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


LONG = {"steps": [{"name": "r5", "rate_per_s": 5.0, "seconds": 600.0, "arrivals": "uniform"}]}


def test_a_load_from_elsewhere_is_that_of_a_load_beside_the_server(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.serve(ready_after_s=0.3)
    load = bench.load()  # before the port is open, as on the load host
    time.sleep(0.2)
    bench.relay()
    bench.end()
    assert ended(load)[0] == 0
    assert bench.outcome == [True]
    said = events(capfd.readouterr().out)
    assert [e["event"] for e in said] == [
        "start", "clock", "phase", "phase", "phase", "phase", "load", "result", "phase", "phase", "load",
        "result", "clock", "end",
    ]  # fmt: skip
    clocks = [e for e in said if e["event"] == "clock"]
    for clock in clocks:  # both ends have one clock here
        assert abs(clock["ahead_s"]) <= clock["trip_s"] / 2
    assert clocks[1]["relay_cpu_s"] > clocks[0]["relay_cpu_s"]
    requests = bench.rows()
    assert [r["step"] for r in requests] == ["warmup"] * 3 + ["c4"] * 200 + ["r50"] * 25
    assert {(r["status"], r["error"]) for r in requests} == {("200", "")}
    assert (bench.folder / "own.csv").read_bytes() == (bench.folder / "requests.csv").read_bytes()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", bench.port))


def test_a_server_s_end_reaches_the_load_and_the_reason_names_the_phase(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.serve(dies_after=30)
    bench.relay()
    load = bench.load()
    bench.end()
    text = "the server ended with 3: no more (phase steady:c4)"
    assert ended(load) == (1, text + "\n")
    assert bench.outcome == [text]
    assert len(bench.rows()) >= 30 - 4  # all but those that were under way are kept
    assert events(capfd.readouterr().out)[-1]["message"] == text


def until_loaded(capfd: pytest.CaptureFixture[str], event: str = "steady:") -> None:
    deadline, seen = time.monotonic() + 20, ""
    while event not in (seen := seen + capfd.readouterr().out):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


@pytest.fixture
def load(bench: Bench, capfd: pytest.CaptureFixture[str]) -> subprocess.Popen[str]:
    """A load in mid-step, through a relay."""
    bench.serve()
    bench.relay()
    load = bench.load(**LONG)
    until_loaded(capfd)
    return load


def test_a_load_that_is_killed_is_named_with_its_phase(
    bench: Bench, load: subprocess.Popen[str]
) -> None:
    load.send_signal(signal.SIGKILL)
    ended(load)
    bench.end()
    (error,) = bench.outcome
    assert str(error) == (
        "the load generator of load-1 is gone: its connection from 127.0.0.1 was lost: closed "
        "(phase steady:r5)"
    )


def test_a_load_ends_by_itself_when_the_measured_host_is_gone(
    bench: Bench, load: subprocess.Popen[str]
) -> None:
    control = bench.open._control
    assert control is not None
    control.shutdown(socket.SHUT_RDWR)  # what the kernel does for a process that was killed
    code, said = ended(load)
    assert code == 1
    assert "the measured host has ended the trial" in said
    bench.end()


def test_a_load_ends_by_itself_when_the_port_never_opens(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    link = {"address": "127.0.0.1", "port": bench.port, "token": TOKEN, "within_s": 0.5}
    load = bench.load(link=link)
    code, said = ended(load)
    assert code == 1
    assert f"127.0.0.1 port {bench.port} can't be reached within 0.5 s" in said


def test_no_load_in_time_names_the_host_and_the_port(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOAD_CONNECT_S", 0.3)
    bench.serve()
    bench.relay()
    bench.end()
    assert str(bench.outcome[0]) == (
        f"no load generator of load-1 connected to 127.0.0.1 port {bench.port} within 0.3 s"
    )


def test_nothing_passes_without_the_token(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.serve()
    bench.relay()
    for greeting in (b"GET /health HTTP/1.1\r\n\r\n", b"wattbench " + b"f" * 16 + b"\n"):
        with socket.create_connection(("127.0.0.1", bench.port), 5) as stranger:
            stranger.sendall(greeting)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
    load = bench.load()
    bench.end()
    assert ended(load)[0] == 0
    assert bench.outcome == [True]


def test_another_address_is_turned_away(bench: Bench, load: subprocess.Popen[str]) -> None:
    with (
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
        socket.create_connection(
            ("127.0.0.1", bench.port), 5, source_address=("127.0.0.2", 0)
        ) as other,
    ):
        other.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(100) == b""
    with socket.create_connection(("127.0.0.1", bench.port), 5) as same:
        same.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert same.recv(100).startswith(b"HTTP/1.1 200")
    load.kill()
    ended(load)
    bench.end()


def test_large_bodies_pass_both_ways_whole(bench: Bench, tmp_path: Path) -> None:
    data = os.urandom(8 << 20)
    bench.ends_r, keep = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as echo:
        bench.server_port = echo.getsockname()[1]
        bench.server = subprocess.Popen(["sleep", "60"])
        bench.relay()

        def answer() -> None:
            sock, _ = echo.accept()
            with sock:
                got = bytearray()
                while part := sock.recv(1 << 16):
                    got += part
                sock.sendall(got)

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            socket.create_connection(("127.0.0.1", bench.port)) as control,
            control.makefile("rb") as heard,
        ):
            control.sendall(relay.GREETING + TOKEN.encode() + b"\n" + b'{"event": "clock?"}\n')
            assert json.loads(heard.readline())["unix_s"] == pytest.approx(time.time(), abs=5)
            with socket.create_connection(("127.0.0.1", bench.port)) as sock:
                sender = threading.Thread(
                    target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR))
                )
                sender.start()
                got = bytearray()
                while part := sock.recv(1 << 16):
                    got += part
                sender.join()
            assert bytes(got) == data
            control.sendall(b'{"event": "records", "bytes": 3}\nabc')
            assert heard.readline() == b"kept\n"
        thread.join()
    bench.end()
    os.close(keep)
    assert bench.outcome == [True]
    assert (tmp_path / "requests.csv").read_bytes() == b"abc"


def test_a_port_is_reached_or_the_reason_is_given(agent: Any) -> None:
    port = free_port()
    asked = {"address": "127.0.0.1", "port": port, "token": TOKEN, "timeout_s": 10}
    listening = agent.popen("listen", asked)
    assert agent.call("reach", asked)["trip_s"] > 0
    assert agent.answer(listening)["peer"] == "127.0.0.1"
    refused = agent.ask("reach", asked | {"timeout_s": 0.3})
    assert refused["error"] == "port-unreached"
    assert (
        f"127.0.0.1 port {port} can't be reached from here: Connection refused"
        in refused["message"]
    )
    alone = agent.ask("listen", asked | {"timeout_s": 0.3})
    assert alone["message"] == f"nothing reached 127.0.0.1 port {port} within 0.3 s"


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1", "Address already in use"), ("192.0.2.1", "Cannot assign requested address")],
)
def test_a_port_that_can_t_be_opened_is_named(agent: Any, address: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = {"address": address, "port": port, "token": TOKEN, "timeout_s": 1}
        refused = agent.ask("listen", asked)
    assert refused["error"] == "port-closed"
    assert refused["message"] == f"{address} port {port} can't be opened: {said}"
