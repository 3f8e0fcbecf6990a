"""Servers under a load, of known truth: what a load generator leaves of an attempt, for ``simulated_run``.

Joules per request and service times are the truth. A step with concurrency has as many workers that never wait;
a step with a rate has the arrivals of a seed, the same for all images, and one queue.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

HEADER = (
    "step,number,intended_unix_s,sent_unix_s,first_byte_unix_s,done_unix_s,status,error,answer,"
    "bytes_out,bytes_in,tokens_in,tokens_out"
)


@dataclass(frozen=True)
class Part:
    """A part of a window with constant power."""

    name: str
    seconds: float
    watts: float


@dataclass(frozen=True)
class Step:
    """A step of the load; with ``rate_per_s`` it has ``requests`` arrivals too."""

    name: str
    requests: int
    concurrency: int | None = None
    rate_per_s: float | None = None


@dataclass(frozen=True)
class Image:
    """One server.

    Attributes:
        j_per_request: joules of a request, all of the machine's while it is served.
        service_s: median of the time that a request takes.
        wrong: numbers of requests that it answers otherwise than all others, at each step.
        fails: numbers of requests that it answers with an error status.
        stalls_s: it answers nothing for so long, in the middle of the last step.
        dies: it ends in the middle of the last step.
        cpu_share: of the generator, at the last step.
        late_s: how late the generator is at the last step.
    """

    j_per_request: float = 2.0
    service_s: float = 0.02
    wrong: tuple[int, ...] = ()
    fails: tuple[int, ...] = ()
    stalls_s: float = 0.0
    dies: bool = False
    cpu_share: float = 0.1
    late_s: float = 0.0


@dataclass(frozen=True)
class Attempt:
    """What one attempt leaves.

    Attributes:
        parts: of the window.
        files: raw files by name.
        dies: it ended in the middle of the load.
        truth: step → joules per successful request.
    """

    parts: list[Part]
    files: dict[str, bytes]
    dies: bool
    truth: dict[str, float]


STEPS = (
    Step("c4", 400, concurrency=4),
    Step("r20", 160, rate_per_s=20.0),
)


@dataclass(frozen=True)
class Server:
    """The load, and the images that bear it.

    Attributes:
        images: by name.
        steps: of the load.
        slo: of the experiment.
        tokens: tokens out per request; 0: requests are what counts.
        broken: (planned position, line) of requests.csv that holds something else.
    """

    images: Mapping[str, Image]
    steps: tuple[Step, ...] = STEPS
    slo: Mapping[str, float] | None = field(
        default_factory=lambda: {"p99_ms": 200.0, "max_error_pct": 0.1}
    )
    tokens: int = 0
    broken: tuple[int, int] | None = None

    @property
    def unit(self) -> str:
        return "token" if self.tokens else "request"

    @property
    def expected(self) -> dict[str, Any]:
        """The plan's side of a trial."""
        return {
            "workload": "serve", "reports_itself": False,
            "unit": {"name": self.unit, "count": None, "pattern": None},
            "steps": [
                {"name": s.name, "concurrency": s.concurrency, "requests": s.requests}
                if s.concurrency
                else {"name": s.name, "rate_per_s": s.rate_per_s,
                      "seconds": s.requests / (s.rate_per_s or 1), "arrivals": "poisson"}
                for s in self.steps
            ],
            "slo": None if self.slo is None else dict(self.slo),
            "endpoint": "steady", "answers_compared": True,
        }  # fmt: skip

    @property
    def declares(self) -> dict[str, Any]:
        """Keys of the experiment."""
        return {
            "description": "Two servers of one model.",
            "workload": {
                "kind": "serve",
                "serve": {"command": None, "port": 8000, "ready": {"http": "/health"}},
                "load": {
                    "api": "openai-chat" if self.tokens else "http",
                    "steps": self.expected["steps"],
                    "slo": self.slo,
                },
            },
            "analysis": {
                "alpha": 0.05, "correction": "holm", "equivalence_pct": 1.0, "endpoint": "steady",
            },
        }  # fmt: skip

    def attempt(
        self, image: str, start: float, idle_w: float, noise: float, rng: np.random.Generator
    ) -> Attempt:
        """One attempt that begins at a time, with noise on its joules."""
        server = self.images[image]
        parts = [Part("start", 2.0, 2 * idle_w)]
        truth: dict[str, float] = {}
        events = _Events(start)
        rows = [HEADER]
        at = 2.0
        events.add("start", at, protocol=1, unit=self.unit, program="load")
        events.phase("warmup", at, at + 0.5)
        rows += _rows("warmup", *_served(Step("warmup", 20, 2), server, start + at, rng, 0.0), self)
        parts.append(Part("warmup", 0.5, 3 * idle_w))
        at += 0.5
        for step in self.steps:
            is_last = step is self.steps[-1]
            stall_s = server.stalls_s if is_last else 0.0
            intended, sent, done = _served(step, server, start + at, rng, stall_s)
            if is_last and server.late_s:
                delay = np.minimum(server.late_s, np.cumsum(np.full(len(sent), server.late_s / 20)))
                sent, done = sent + delay, done + delay
            seconds = math.ceil(100 * (done.max() - start - at) + 1) / 100
            watts = server.j_per_request * (1 + noise) * step.requests / seconds
            if is_last and server.dies:
                half = seconds / 2
                keep = done < start + at + half
                rows += _rows(step.name, intended[keep], sent[keep], done[keep], self, server)
                events.add("phase", at, name=f"steady:{step.name}", edge="begin")
                events.add("error", at + half, message=f"the server ended in step {step.name}")
                parts.append(Part(step.name, half, watts))
                return Attempt(parts, _files(events, rows), True, truth)
            rows += _rows(step.name, intended, sent, done, self, server)
            phase = f"steady:{step.name}"
            events.phase(phase, at, at + seconds)
            late = np.sort(sent - intended)
            good = step.requests - len(server.fails)
            events.add(
                "load", at + seconds, phase=phase, concurrency=step.concurrency,
                rate_per_s=step.rate_per_s, planned=step.requests, sent=step.requests,
                duration_s=seconds, cores=1,
                cpu_s=seconds * (server.cpu_share if is_last else 0.1),
                late_p99_s=float(np.quantile(late, 0.99)), late_max_s=float(late[-1]),
            )  # fmt: skip
            units = good * (self.tokens or 1)
            events.add("result", at + seconds, phase=phase, units=units, duration_s=seconds)
            parts.append(Part(step.name, seconds, watts))
            truth[step.name] = watts * seconds / good
            at += seconds
        events.add("end", at)
        return Attempt([*parts, Part("stop", 0.5, idle_w)], _files(events, rows), False, truth)


class _Events:
    """Event lines with the times at which they were read."""

    def __init__(self, start: float) -> None:
        self.lines: list[str] = []
        self._start = start

    def add(self, kind: str, at: float, **more: Any) -> None:
        stamps = {"unix_s": round(self._start + at, 6), "mono_s": round(1000 + at, 6)}
        line = json.dumps({"event": kind, **stamps, **more})
        self.lines.append(f"{self._start + at:.6f} o {line}")

    def phase(self, name: str, begin: float, end: float) -> None:
        self.add("phase", begin, name=name, edge="begin")
        self.add("phase", end, name=name, edge="end")


def _files(events: _Events, rows: list[str]) -> dict[str, bytes]:
    return {
        "output.log": ("\n".join(events.lines) + "\n").encode(),
        "requests.csv": ("\n".join(rows) + "\n").encode(),
    }


def _served(
    step: Step, server: Image, begin: float, rng: np.random.Generator, stall_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intended, sent and done of every request, Unix seconds."""
    service = server.service_s * np.exp(rng.normal(0, 0.08, step.requests))
    arrivals = np.random.default_rng(list(step.name.encode()))
    usual_s = step.requests / (step.rate_per_s or (step.concurrency or 1) / server.service_s)
    stalled = begin + usual_s / 2
    lines = np.full(step.concurrency or 1, begin)
    intended, done = np.empty(step.requests), np.empty(step.requests)
    if step.rate_per_s:
        gaps = arrivals.exponential(1 / step.rate_per_s, step.requests)
        intended[:] = begin + np.cumsum(gaps)
    for number in range(step.requests):
        line = int(lines.argmin())
        due = intended[number] if step.rate_per_s else lines[line]
        intended[number] = due
        starts = max(due, lines[line])
        ends = starts + service[number]
        if stall_s and starts < stalled + stall_s and ends > stalled:
            ends = stalled + stall_s + service[number]
        lines[line] = done[number] = ends
    return intended, intended.copy(), done


def _rows(
    name: str,
    intended: np.ndarray,
    sent: np.ndarray,
    done: np.ndarray,
    load: Server,
    server: Image | None = None,
) -> list[str]:
    rows = []
    for number, (due, out, end) in enumerate(zip(intended, sent, done, strict=True), start=1):
        wrong = server is not None and number in server.wrong
        failed = server is not None and number in server.fails
        answer = hashlib.sha256(f"{number}{wrong}".encode()).hexdigest()[:16]
        first = out + 0.3 * (end - out)
        status, error = (500, "status") if failed else (200, "")
        tokens = (7, load.tokens) if load.tokens else ("", "")
        rows.append(
            f"{name},{number},{due:.6f},{out:.6f},{first:.6f},{end:.6f},{status},{error},"
            f"{'' if failed else answer},120,300,{tokens[0]},{tokens[1]}"
        )
    return rows
