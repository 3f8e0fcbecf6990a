"""Meters on the network of known truth: a load with exact joules, raw files, and real HTTP servers.

A :class:`Load` is piecewise constant, so that its energy between any two moments is a sum. A
:class:`Device` shows it as a wall plug does: late, averaged, updated at its own pace, rounded.
"""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Load:
    """Power over time: ``steps`` are (moment, W from then on), the first long before all else."""

    steps: tuple[tuple[float, float], ...]

    @classmethod
    def window(cls, start_s: float, end_s: float, idle_w: float, busy_w: float) -> Load:
        """Idle, busy inside a window, idle."""
        return cls(((start_s - 1e6, idle_w), (start_s, busy_w), (end_s, idle_w)))

    def energy_j(self, unix_s: float) -> float:
        """Joules since the first step."""
        ends = [start for start, _ in self.steps[1:]] + [math.inf]
        return sum(
            watts * (min(unix_s, end) - start)
            for (start, watts), end in zip(self.steps, ends, strict=True)
            if unix_s > start
        )

    def between_j(self, start_s: float, end_s: float) -> float:
        """Joules between two moments."""
        return self.energy_j(end_s) - self.energy_j(start_s)


@dataclass(frozen=True)
class Device:
    """What a meter shows of a load.

    Attributes:
        lag_s: how old what it shows is.
        averaged_s: its power is the mean of so long.
        update_s: it shows new values so often; 0: always.
        energy_digit_j: the counter is cut off to multiples of it.
        power_digit_w: the power is rounded to multiples of it.
        gain: what it shows of a watt.
    """

    load: Load
    lag_s: float = 0.0
    averaged_s: float = 1.0
    update_s: float = 0.0
    energy_digit_j: float = 1.0
    power_digit_w: float = 0.1
    gain: float = 1.0

    def _moment(self, unix_s: float) -> float:
        if self.update_s:
            unix_s = math.floor(unix_s / self.update_s) * self.update_s
        return unix_s - self.lag_s

    def energy_j(self, unix_s: float) -> float:
        """The counter that it shows."""
        joules = self.gain * self.load.energy_j(self._moment(unix_s))
        return math.floor(joules / self.energy_digit_j) * self.energy_digit_j

    def power_w(self, unix_s: float) -> float:
        """The power that it shows."""
        at_s, back_s = self._moment(unix_s), max(self.averaged_s, 1e-3)
        watts = self.gain * self.load.between_j(at_s - back_s, at_s) / back_s
        return round(watts / self.power_digit_w) * self.power_digit_w


def digits(value: float, digit: float) -> str:
    """A value as a meter prints it whose last digit is a power of ten."""
    return f"{value:.{max(0, -round(math.log10(digit)))}f}"


def raw_lines(
    device: Device,
    moments: Sequence[float],
    *,
    ahead_s: float = 0.0,
    trip_s: float = 0.01,
    quantities: Sequence[str] = ("power", "energy"),
    **settings: Any,
) -> bytes:
    """The raw file ``http.jsonl`` of a device that was read at moments of the host's clock.

    Args:
        ahead_s: host's clock minus the controller's.
        settings: of the line ``settings``, over a plug without lag.
    """
    settings = {
        "meter": "plug", "domain": "wall", "primary": False, "interval_s": 1.0, "lag_s": 0.0,
        "lag_uncertainty_s": 0.0, "averaged_s": 1.0, "power_unit": "W", "energy_unit": "J",
        "wraps_at": None, **settings,
    }  # fmt: skip
    lines: list[dict[str, Any]] = [{"settings": settings}]
    for at_s in (moments[0], moments[-1]):
        clock = {"unix_s": at_s - ahead_s, "ahead_s": ahead_s, "trip_s": trip_s}
        lines.append({"clock": clock})
    for at_s in moments:
        sample: dict[str, Any] = {"meter": settings["meter"], "unix_s": at_s - ahead_s}
        sample |= {"trip_s": trip_s, "mono_s": at_s - ahead_s - 1e5}
        if "power" in quantities:
            sample["power"] = digits(device.power_w(at_s), device.power_digit_w)
        if "energy" in quantities:
            sample["energy"] = digits(device.energy_j(at_s), device.energy_digit_j)
        lines.append({"sample": sample})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass
class Answers:
    """What a server answers: a path's function of the query gives status, type and body.

    Attributes:
        asked: every request's target and Authorization, in order.
    """

    by_path: dict[str, Callable[[dict[str, str]], tuple[int, str, bytes]]] = field(
        default_factory=dict
    )
    headers: dict[str, str] = field(default_factory=dict)
    authorized: Callable[[str | None], bool] = lambda _: True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: Answers

    def do_GET(self) -> None:
        login = self.headers.get("Authorization")
        self.answers.asked.append((self.path, login))
        parts = urllib.parse.urlsplit(self.path)
        make = self.answers.by_path.get(parts.path)
        if not self.answers.authorized(login):
            status, kind, body = 401, "text/plain", b"who are you"
        elif make is None:
            status, kind, body = 404, "text/plain", f"no {self.path}".encode()
        else:
            status, kind, body = make(dict(urllib.parse.parse_qsl(parts.query)))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.answers.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def serving(answers: Answers, context: Any = None) -> Iterator[str]:
    """A server on the loopback address; yields its URL.

    Args:
        context: of TLS; None: plain.
    """
    handler = type("Handler", (_Handler,), {"answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    scheme = "http" if context is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def as_json(value: Any) -> tuple[int, str, bytes]:
    """A document as an answer."""
    return 200, "application/json", json.dumps(value).encode()


def shelly(device: Device) -> Answers:
    """The second generation of Shelly's plugs: W and Wh."""
    return Answers(
        {
            "/rpc/Switch.GetStatus": lambda _: as_json(
                {
                    "id": 0, "output": True, "voltage": 230.1,
                    "apower": device.power_w(time.time()),
                    "aenergy": {"total": device.energy_j(time.time()) / 3600.0},
                }
            )
        }
    )  # fmt: skip


def tasmota(device: Device) -> Answers:
    """Tasmota: W and kWh of three digits."""
    return Answers(
        {
            "/cm": lambda query: as_json(
                {
                    "StatusSNS": {
                        "Time": "2026-01-01T12:00:00",
                        "ENERGY": {
                            "Power": round(device.power_w(time.time())),
                            "Total": math.floor(device.energy_j(time.time()) / 3600.0) / 1000.0,
                        },
                    }
                }
            )
            if query.get("cmnd") == "Status 8"
            else as_json({"Command": "Unknown"})
        }
    )  # fmt: skip


@dataclass
class Prometheus:
    """A server of Prometheus' query API that has scraped devices.

    Attributes:
        series: query → (labels, value at a moment of the server's clock) of each of its series.
        scrape_s: it reads a device at multiples of it.
        ahead_s: its clock minus ours.
        selectors: queries that are plain selectors, of which it gives the moments of the scrapes.
        silent: spans of its own clock without scrapes.
    """

    series: dict[str, list[tuple[dict[str, str], Callable[[float], str]]]]
    scrape_s: float = 1.0
    ahead_s: float = 0.0
    selectors: frozenset[str] = frozenset()
    silent: tuple[tuple[float, float], ...] = ()

    def answers(self) -> Answers:
        """What it answers over HTTP."""
        return Answers({"/api/v1/query": self._query, "/api/v1/query_range": self._range})

    def _query(self, query: dict[str, str]) -> tuple[int, str, bytes]:
        if query["query"] != "time()":
            return self._refused("only time() is known")
        now = time.time() + self.ahead_s
        return as_json(
            {"status": "success", "data": {"resultType": "scalar", "result": [now, str(now)]}}
        )

    def _range(self, query: dict[str, str]) -> tuple[int, str, bytes]:
        text, is_moment = query["query"], query["query"].startswith("timestamp(")
        name = text[len("timestamp(") : -1] if is_moment else text
        if name not in self.series:
            return self._refused(f"unknown function {name}")
        start, end, step = (float(query[k]) for k in ("start", "end", "step"))
        newest = min(end, time.time() + self.ahead_s)
        found = []
        for labels, value in self.series[name]:
            values = []
            for k in range(math.floor((newest - start) / step) + 1):
                at_s = start + k * step
                scrape = self._scrape_before(at_s)
                if scrape is None:
                    continue
                moment = scrape if name in self.selectors else at_s
                values.append([at_s, repr(moment) if is_moment else value(scrape)])
            if values:
                found.append({"metric": labels, "values": values})
        return as_json({"status": "success", "data": {"resultType": "matrix", "result": found}})

    def _scrape_before(self, at_s: float) -> float | None:
        """The last scrape, at most five minutes old."""
        scrape = math.floor(at_s / self.scrape_s) * self.scrape_s
        while any(first <= scrape < last for first, last in self.silent):
            scrape -= self.scrape_s
        return scrape if at_s - scrape < 300 else None

    @staticmethod
    def _refused(why: str) -> tuple[int, str, bytes]:
        body = {"status": "error", "errorType": "bad_data", "error": why}
        return 400, "application/json", json.dumps(body).encode()
