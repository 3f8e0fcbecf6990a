"""The load generator as it is shipped, against real servers on loopback."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import csv
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.workloads.load import answers
from wattbench.workloads.load.plan import Request, Step, read_requests, request_of
from wattbench.workloads.program_bundle import load_bundle

FOLDER = Path(answers.__file__).parent
#: The interpreter that runs the generator; set it to a Python 3.9 to see that it does.
PYTHON = os.environ.get("WATTBENCH_AGENT_PYTHON", sys.executable)


@dataclass(frozen=True)
class Asked:
    """A request as a server has it: its number from 1, without those for /health."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


Handler = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]
Health = Callable[[], Awaitable[bytes]]


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


CAT = answer(b'{"label": "cat"}')


async def healthy() -> bytes:
    return answer(b"")


class Server:
    """A server on a free port; every request of a test is in ``asked``."""

    def __init__(self, handler: Handler, health: Health = healthy) -> None:
        self._health = health
        self.asked: list[Asked] = []
        self.connections = 0
        self._handler, self._loop = handler, asyncio.new_event_loop()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = self._loop.run_until_complete(opening)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        own = self.connections
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"):
                method, path, _ = head[0].split()
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if path == "/health":
                    writer.write(await self._health())
                    continue
                asked = Asked(len(self.asked) + 1, method, path, headers, body, own)
                self.asked.append(asked)
                await self._handler(asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0.01)  # closed transports need a turn of the loop

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def serving() -> Iterator[Callable[[Handler], Server]]:
    running: list[Server] = []

    def start(handler: Handler, health: Health = healthy) -> Server:
        running.append(Server(handler, health))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("load") / "load.pyz"
    path.write_bytes(load_bundle().content)
    return path


@dataclass(frozen=True)
class Loaded:
    rc: int
    reason: str
    events: list[dict[str, Any]]
    rows: list[dict[str, str]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == kind]

    def latencies_ms(self, step: str) -> list[float]:
        rows = (r for r in self.rows if r["step"] == step)
        return [(float(r["done_unix_s"]) - float(r["intended_unix_s"])) * 1e3 for r in rows]


Run = Callable[..., Loaded]


@pytest.fixture
def load(program: Path, tmp_path: Path) -> Run:
    """Runs a whole load."""

    def run(
        port: int, *steps: dict[str, Any], stdin: bytes | None = None, **changes: Any
    ) -> Loaded:
        requests = changes.pop("requests", None)
        if requests is not None:
            (tmp_path / "requests.jsonl").write_bytes(requests)
        plan = {
            "host": "127.0.0.1", "port": port, "ready_path": "/health", "ready_timeout_s": 10, "api": "http",
            "requests": str(tmp_path / "requests.jsonl") if requests is not None else None,
            "request": {"path": "/predict", "json": {"x": 1}}, "warmup": 0, "warmup_concurrency": 1,
            "steps": [{"name": f"s{n}", **step} for n, step in enumerate(steps, start=1)],
            "status": 200, "json": "$.label", "timeout_s": 20, "strict": False, "cpus": [], "seed": "7",
            "output": str(tmp_path / "requests.csv"), **changes,
        }  # fmt: skip
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        with subprocess.Popen(
            [PYTHON, "-IS", str(program), str(tmp_path / "plan.json")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin
            assert process.stdout
            assert process.stderr
            if stdin is not None:
                process.stdin.write(stdin)
                process.stdin.flush()
            out, err = process.stdout.read(), process.stderr.read().decode()
            rc = process.wait(60)
        records = tmp_path / "requests.csv"
        rows = list(csv.DictReader(records.read_text().splitlines())) if records.exists() else []
        return Loaded(rc, err.strip(), [json.loads(line) for line in out.splitlines()], rows)

    return run


def closed(concurrency: int, requests: int) -> dict[str, Any]:
    return {"concurrency": concurrency, "requests": requests}


def rate(rate_per_s: float, seconds: float, arrivals: str = "uniform") -> dict[str, Any]:
    return {"rate_per_s": rate_per_s, "seconds": seconds, "arrivals": arrivals}


async def cats(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(CAT)


# ── what is sent ────────────────────────────────────────────────────────────────────────────────


def test_every_request_is_sent_once_and_recorded(serving: Any, load: Run) -> None:
    server = serving(cats)
    done = load(server.port, closed(3, 40), closed(1, 5), warmup=4)
    assert (done.rc, done.reason) == (0, "")
    assert len(server.asked) == 49
    assert [(r["step"], r["number"]) for r in done.rows if r["step"] == "s2"] == [
        ("s2", str(n)) for n in range(1, 6)
    ]
    assert sorted(int(r["number"]) for r in done.rows if r["step"] == "s1") == [*range(1, 41)]
    label = hashlib.sha256(b'"cat"').hexdigest()[:16]
    assert {(r["status"], r["error"], r["answer"], r["bytes_in"]) for r in done.rows} == {
        ("200", "", label, str(len(CAT)))
    }
    for row in done.rows:
        times = [float(row[f"{k}_unix_s"]) for k in ("intended", "sent", "first_byte", "done")]
        assert times == sorted(times)
    assert {e["units"] for e in done.of("result")} == {40, 5}
    assert server.asked[0].headers["host"] == f"127.0.0.1:{server.port}"
    assert server.asked[0].headers["content-type"] == "application/json"


def test_connections_are_kept_and_there_are_as_many_as_workers(serving: Any, load: Run) -> None:
    server = serving(cats)
    load(server.port, closed(4, 60))
    assert len({a.connection for a in server.asked}) <= 4
    assert server.connections <= 5  # one more asked whether it is ready


def test_requests_of_a_file_go_round_in_order_over_all_steps(serving: Any, load: Run) -> None:
    server = serving(cats)
    lines = b'{"path": "/a", "body": "x", "headers": {"X-Id": "1"}}\n\n{"method": "PUT", "path": "/b?q=1"}\n{"path": "/c"}\n'
    load(server.port, closed(1, 2), closed(1, 3), warmup=1, requests=lines)
    assert [(a.method, a.path) for a in server.asked] == [
        ("POST", "/a"), ("PUT", "/b?q=1"), ("GET", "/c"), ("POST", "/a"), ("PUT", "/b?q=1"), ("GET", "/c"),
    ]  # fmt: skip
    assert server.asked[0].headers["x-id"] == "1"
    assert server.asked[0].body == b"x"


def test_an_answer_to_a_kept_connection_that_was_closed_is_asked_for_again(
    serving: Any, load: Run
) -> None:
    async def close_every_other(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number == 2:
            writer.close()
        else:
            writer.write(CAT)

    server = serving(close_every_other)
    done = load(server.port, closed(1, 3))
    assert [r["error"] for r in done.rows] == ["", "", ""]
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"label\"\r\n7\r\n:\"cat\"}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + CAT,
        b"HTTP/1.0 200 OK\r\n\r\n{\"label\": \"cat\"}",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 16\r\n\r\n{\"label\": \"cat\"}",
    ],
    ids=["chunked", "continue", "until closed", "closed after"],
)  # fmt: skip
def test_every_form_of_an_answer_is_read(serving: Any, load: Run, body: bytes) -> None:
    async def handler(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        if b"1.0" in body or b"close" in body:
            writer.close()

    done = load(serving(handler).port, closed(2, 6))
    assert [r["error"] for r in done.rows] == [""] * 6


# ── time ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_stall_shows_in_every_request_that_was_to_be_sent_meanwhile(
    serving: Any, load: Run
) -> None:
    """Coordinated omission: with its own pace a stalled server would show in one request only."""
    stall_s, free = 2.0, []

    async def stalls(asked: Asked, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time()
        if asked.number == 20:
            free.append(now + stall_s)
        await asyncio.sleep(max(free[0] - now, 0) if free else 0)
        writer.write(CAT)

    done = load(serving(stalls).port, rate(50, 4))
    latencies = sorted(done.latencies_ms("s1"))
    assert len(latencies) == 200
    # uniform arrivals every 20 ms: those inside the stall wait for the rest of it
    late = [x for x in latencies if x >= 1000]
    assert len(late) >= 50
    assert latencies[math.ceil(0.99 * 200) - 1] >= 1900
    assert max(latencies) >= 2000
    # of a worker of its own pace, one request is late
    done = load(serving(_once_late(stall_s)).port, closed(1, 30))
    assert sum(x >= 1000 for x in done.latencies_ms("s1")) == 1


def _once_late(stall_s: float) -> Handler:
    async def handler(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(stall_s if asked.number == 10 else 0)
        writer.write(CAT)

    return handler


def test_latency_is_what_the_server_takes(serving: Any, load: Run) -> None:
    async def slow(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CAT[:20])  # the first byte is there at once
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(CAT[20:])

    done = load(serving(slow).port, closed(2, 6))
    assert min(done.latencies_ms("s1")) >= 200
    # a generator that the machine keeps waiting finds both parts at once, but not of every request
    body_s = [float(r["done_unix_s"]) - float(r["first_byte_unix_s"]) for r in done.rows]
    assert max(body_s) >= 0.15
    (event,) = done.of("load")
    assert event["duration_s"] >= 0.6
    assert 0 < event["cpu_s"] < event["duration_s"]
    assert (event["planned"], event["sent"], event["cores"]) == (6, 6, 1)


def test_a_step_of_a_rate_lasts_as_long_as_its_arrivals(serving: Any, load: Run) -> None:
    done = load(serving(cats).port, rate(4, 1))
    begin, end = (e["mono_s"] for e in done.of("phase"))
    assert end - begin >= 1
    assert len(done.rows) == 4


@given(st.floats(1, 200), st.floats(0.5, 20), st.text(max_size=8))
def test_arrivals_are_those_of_a_poisson_process_and_only_the_seed_s(
    rate_per_s: float, seconds: float, seed: str
) -> None:
    step = Step("r", rate_per_s=rate_per_s, seconds=seconds)
    offsets = step.offsets_s(seed)
    assert offsets == step.offsets_s(seed)
    assert offsets == sorted(offsets)
    assert all(0 < x < seconds for x in offsets)
    # a Poisson count lies within 6 standard deviations of its mean
    mean = rate_per_s * seconds
    assert abs(len(offsets) - mean) <= 6 * math.sqrt(mean) + 6
    assert offsets == [] or offsets != Step("r", rate_per_s=rate_per_s, seconds=seconds).offsets_s(
        seed + "x"
    )


def test_gaps_between_poisson_arrivals_are_exponential() -> None:
    from scipy import stats

    step = Step("r20", rate_per_s=20.0, seconds=500.0)
    offsets = [0.0, *step.offsets_s("a run's seed")]
    gaps = [b - a for a, b in itertools.pairwise(offsets)]
    assert stats.kstest(gaps, "expon", args=(0, 1 / 20)).pvalue > 0.001
    # the same numbers for ever: arrivals of a run are drawn again on every host
    assert [round(x, 6) for x in step.offsets_s("a run's seed")[:2]] == FIRST_ARRIVALS


#: -ln(1 - u) / 20 of the first numbers of random.Random("a run's seed:r20").
FIRST_ARRIVALS = [0.002687, 0.046463]


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("raw", "word", "said"),
    [
        (answer(b"", "302 Found", Location="/login"), "redirect", "it was answered 302 to /login instead of 200"),
        (answer(b"", "500 No"), "status", "it was answered 500 instead of 200"),
        (answer(b"<html>"), "parse", "the answer is not JSON: '<html>'"),
        (answer(b'{"score": 1}'), "answer", "the answer has no 'label'"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "protocol", "it was answered in TLS; let the server speak plain HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "protocol", "the answer is not HTTP/1.1: "),
        (b"", "reset", "the connection was closed before the answer was whole"),
        (CAT[:-5], "reset", "the connection was closed before the answer was whole"),
    ],
    ids=["redirect", "status", "html", "no value", "tls", "ssh", "closed", "torn"],
)  # fmt: skip
def test_a_wrong_answer_has_a_word_in_the_record_and_a_reason(
    serving: Any, load: Run, raw: bytes, word: str, said: str
) -> None:
    async def handler(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CAT if asked.number == 1 else raw)
        if asked.number > 1 and len(raw) < len(CAT):
            await writer.drain()
            writer.close()

    server = serving(handler)
    done = load(server.port, closed(1, 4))
    assert done.rc == 0  # one success: the rest is for the service level to judge
    assert [r["error"] for r in done.rows] == ["", word, word, word]
    assert done.of("result")[0]["units"] == 1
    done = load(server.port, closed(1, 4))  # none
    assert done.rc == 1
    assert done.reason.startswith("no request succeeded: POST /predict: " + said)
    assert done.of("error")[0]["message"] == done.reason
    assert done.reason.endswith("(GET /health had been answered with success) (phase steady:s1)")
    assert done.of("end") == []


def test_an_answer_that_does_not_come_is_a_timeout(serving: Any, load: Run) -> None:
    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0 if asked.number % 2 else 60)
        writer.write(CAT)

    done = load(serving(silent).port, closed(1, 4), timeout_s=0.3)
    assert [r["error"] for r in done.rows] == ["", "timeout", "", "timeout"]


def test_a_strict_load_ends_at_the_first_failure(serving: Any, load: Run) -> None:
    async def third_fails(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", "503 Busy") if asked.number == 3 else CAT)

    server = serving(third_fails)
    done = load(server.port, closed(1, 10), strict=True)
    assert (done.rc, len(server.asked)) == (1, 3)
    assert "POST /predict: it was answered 503 instead of 200" in done.reason


@pytest.mark.parametrize("step", [closed(2, 100_000), rate(2000, 60)], ids=["closed", "open"])
def test_a_server_that_fails_without_end_is_given_up(
    serving: Any, load: Run, step: dict[str, Any]
) -> None:
    async def fails(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CAT if asked.number == 1 else answer(b"", "500 No"))

    server = serving(fails)
    done = load(server.port, step)
    assert done.rc == 1
    assert done.reason.startswith("100 requests failed in a row: POST /predict: ")
    assert len(server.asked) < 1000


def test_a_server_that_is_not_there_is_named_with_its_port(load: Run) -> None:
    done = load(9, closed(1, 1), ready_timeout_s=0.5)
    assert done.reason == (
        "the server was not ready after 0.5 s: GET /health on port 9: the connection failed: "
        "Connection refused"
    )
    assert [e["event"] for e in done.events] == ["error"]


def test_the_last_answer_is_the_reason_though_the_deadline_cuts_the_next_question_short(
    serving: Any, load: Run
) -> None:
    questions = itertools.count(1)

    async def loading() -> bytes:
        if next(questions) > 2:
            await asyncio.Event().wait()
        return answer(b"", "503 Service Unavailable")

    port = serving(cats, loading).port
    done = load(port, closed(1, 1), ready_timeout_s=2)
    assert done.reason == (
        f"the server was not ready after 2 s: GET /health on port {port}: it is answered 503"
    )


def test_a_question_that_is_lost_is_asked_again(serving: Any, load: Run) -> None:
    questions = itertools.count(1)

    async def loading() -> bytes:
        if next(questions) == 1:
            await asyncio.Event().wait()
        return answer(b"")

    done = load(serving(cats, loading).port, closed(1, 1), ready_timeout_s=600)
    assert done.reason == ""
    assert next(questions) == 3


def test_what_is_said_on_stdin_ends_the_load_with_its_phase(serving: Any, load: Run) -> None:
    async def slow(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(CAT)

    done = load(serving(slow).port, closed(1, 10_000), stdin=b"the server ended with 137\n")
    assert done.rc == 1
    assert done.reason.startswith("the server ended with 137")


def test_cpus_that_are_not_there_and_a_broken_request_end_the_load_before_it_begins(
    load: Run,
) -> None:
    done = load(9, closed(1, 1), cpus=[4000])
    assert (done.rc, done.reason) == (1, "the load can't start: [Errno 22] Invalid argument")
    done = load(9, closed(1, 1), requests=b"{\n")
    assert done.reason.startswith("the load can't start: line 1: not JSON: ")
    assert [e["message"] for e in done.of("error")] == [done.reason]


# ── OpenAI APIs ─────────────────────────────────────────────────────────────────────────────────


def chunk(**choice: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, **choice}]})}\n\n".encode()


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}\n\n'
CHAT = [
    chunk(delta={"role": "assistant"}), chunk(delta={"content": "a "}), chunk(delta={"content": "b"}),
    chunk(delta={}, finish_reason="stop"),
]  # fmt: skip
TEXT = [chunk(text="a "), chunk(text="b", finish_reason="length")]
ASK = {
    "openai-chat": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "openai-completions": {"model": "m", "prompt": "Hi"},
}


def streaming(parts: list[bytes], pause_s: float = 0.0) -> Handler:
    async def handler(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        for part in parts:
            for piece in (part[:9], part[9:]):  # events don't keep to the chunks of the transfer
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            await asyncio.sleep(pause_s)
        writer.write(b"0\r\n\r\n")

    return handler


@pytest.mark.parametrize(
    ("api", "parts", "path"),
    [
        ("openai-chat", CHAT, "$.choices[0].message.content"),
        ("openai-completions", TEXT, "$.choices[0].text"),
    ],
)
def test_streamed_answers_are_put_together_and_their_tokens_counted(
    serving: Any, load: Run, api: str, parts: list[bytes], path: str
) -> None:
    server = serving(streaming([*parts, USAGE, b"data: [DONE]\n\n"], 0.1))
    done = load(server.port, closed(1, 2), api=api, request=ASK[api], json=path)
    assert done.rc == 0, done.reason
    sent = json.loads(server.asked[0].body)
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_usage": True})
    assert server.asked[0].path == answers.STREAMED[api]
    text = hashlib.sha256(b'"a b"').hexdigest()[:16]
    for row in done.rows:
        assert (row["answer"], row["tokens_in"], row["tokens_out"]) == (text, "7", "3")
        # from the first token to the end there are three pauses at least
        assert float(row["done_unix_s"]) - float(row["first_byte_unix_s"]) >= 0.25
    assert done.of("start")[0]["unit"] == "token"
    assert done.of("result")[0]["units"] == 6
    assert done.of("tokens") == []


def test_without_usage_the_parts_of_the_text_are_counted_and_it_is_said(
    serving: Any, load: Run
) -> None:
    server = serving(streaming([*CHAT, b"data: [DONE]\n\n"]))
    done = load(server.port, closed(1, 2), api="openai-chat", request=ASK["openai-chat"], json=None)
    assert [(r["tokens_in"], r["tokens_out"]) for r in done.rows] == [("", "2"), ("", "2")]
    assert [e["counted"] for e in done.of("tokens")] == ["chunks"]


def test_a_server_that_does_not_stream_is_read_too(serving: Any, load: Run) -> None:
    document = {
        "choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }

    async def handler(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(json.dumps(document).encode(), Content_Type="application/json"))

    path = "$.choices[0].message.content"
    done = load(
        serving(handler).port,
        closed(1, 1),
        api="openai-chat",
        request=ASK["openai-chat"],
        json=path,
    )
    assert done.rows[0]["answer"] == hashlib.sha256(b'"a b"').hexdigest()[:16]
    assert done.rows[0]["tokens_out"] == "3"


@pytest.mark.parametrize(
    ("parts", "word", "said"),
    [
        ([CHAT[1]], "parse", "the stream of the answer ends before its last event"),
        ([b"data: {broken\n\n"], "parse", "the answer is not JSON"),
        ([b'data: {"error": {"message": "out of memory"}}\n\n'], "answer", "the server reports: out of memory"),
    ],
    ids=["torn", "broken", "error"],
)  # fmt: skip
def test_a_stream_that_is_none_fails_with_a_reason(
    serving: Any, load: Run, parts: list[bytes], word: str, said: str
) -> None:
    done = load(
        serving(streaming(parts)).port, closed(1, 1), api="openai-chat", request=ASK["openai-chat"],
        json=None,
    )  # fmt: skip
    assert [r["error"] for r in done.rows] == [word]
    assert said in done.reason


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "delta", "content", "text", "usage", "completion_tokens", "error"]),
        inner, max_size=3,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(JSON | st.binary(max_size=20), max_size=4), st.integers(1, 7), st.booleans())
def test_whatever_a_server_streams_is_an_answer_or_a_reason(
    parts: list[Any], size: int, events: bool
) -> None:
    lines = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in parts]
    body = b"\n\n".join(b"data: " + line if events else line for line in lines) + b"\n\n"
    for api in answers.STREAMED:
        stream = answers.Stream(api, answers.parse_path("$.choices[0].text"))
        kind = b"text/event-stream" if events else b"application/json"
        stream.head([(b"content-type", kind)], 0.0)
        for at in range(0, len(body), size):
            stream.feed(body[at : at + size], 1.0)
        with contextlib.suppress(answers.AnswerError):
            assert len(stream.answer()) == 16
        assert stream.tokens_out is None or stream.tokens_out >= 0


# ── requests, paths, the bundle ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON: "),
        ("[]", "line 2: a request is a JSON object"),
        ('{"path": "predict"}', "line 2: path: 'predict' is not a path that begins with /"),
        ('{"path": "/a b"}', "line 2: path: '/a b' is not a path"),
        ('{"path": "/", "jsn": 1}', "line 2: unknown key 'jsn'; a request has method, path, headers, json, body"),
        ('{"path": "/", "json": 1, "body": "x"}', "line 2: json and body exclude each other"),
        ('{"path": "/", "body": {}}', "line 2: body is text; JSON goes into json"),
        ('{"path": "/", "method": "get"}', "line 2: method: 'get' is not a method"),
        ('{"path": "/", "headers": {"A:": "b"}}', "line 2: headers: 'A:': 'b' can't be a header"),
        ('{"path": "/", "headers": {"A": "b\\r\\nC: d"}}', "line 2: headers: 'A'"),
        ('{"path": "/", "headers": {"Host": "b"}}', "line 2: headers: Host is set by the generator; remove it"),
    ],
)  # fmt: skip
def test_a_broken_line_of_requests_is_named(line: str, said: str) -> None:
    with pytest.raises(ValueError, match="line 2") as error:
        read_requests(f'{{"path": "/"}}\n{line}\n'.encode(), "http")
    assert str(error.value).startswith(said)


def test_requests_of_an_api_are_its_own_bodies() -> None:
    with pytest.raises(ValueError, match="messages is missing; a request of openai-chat"):
        request_of({"prompt": "Hi"}, "openai-chat")
    with pytest.raises(ValueError, match="has no request"):
        read_requests(b"\n \n", "http")
    assert request_of({"path": "/x"}, "http") == Request("GET", "/x")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", {"a": [{"b-c": 7}]}),
        ("$.a[0].b-c", 7),
        ('$["a"][0]["b-c"]', 7),
        ("$.a[0]", {"b-c": 7}),
    ],
)
def test_a_path_leads_to_its_value(path: str, value: Any) -> None:
    assert answers.value_at({"a": [{"b-c": 7}]}, answers.parse_path(path)) == value


@pytest.mark.parametrize("path", ["", "a", "$a", "$.", "$.a[", "$.a[-1]", "$.a[*]", "$..a"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path such as"):
        answers.parse_path(path)


def test_values_that_are_equal_have_the_same_fingerprint() -> None:
    assert answers.fingerprint({"b": 1, "a": "é"}) == answers.fingerprint({"a": "é", "b": 1})
    canonical = '{"a":"é","b":1}'.encode()
    assert answers.fingerprint({"a": "é", "b": 1}) == hashlib.sha256(canonical).hexdigest()[:16]


def test_the_bundle_is_the_same_bytes_whenever_it_is_built(program: Path) -> None:
    first = load_bundle().content
    load_bundle.cache_clear()
    assert load_bundle().content == first
    with zipfile.ZipFile(program) as archive:
        names = archive.namelist()
    assert "h11/_connection.py" in names
    assert [n for n in names if "LICENSE" in n], "h11's licence travels with it"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_the_generator_is_python_3_9_with_the_standard_library_and_h11(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.split(".")[0]
            assert (
                top in sys.stdlib_module_names
                or top == "h11"
                or name.startswith("wattbench.workloads.load")
            )
