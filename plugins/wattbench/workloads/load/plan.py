"""What is sent when: the plan of a load as the agent writes it, its requests, and the arrivals."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import dataclass

from wattbench.workloads.load.answers import STREAMED, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wattbench.workloads.load.answers import Path


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        method: in capitals.
        path: with its query.
        headers: beside those of every request.
        body: empty: none.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def what(self) -> str:
        """The request in words."""
        return "%s %s" % (self.method, self.path)


@dataclass(frozen=True)
class Step:
    """A part of the load.

    Attributes:
        name: of the phase, without ``steady:``.
        concurrency: requests at any time, each worker's next one once it has the answer; None: a rate.
        requests: how many, of a step with concurrency.
        rate_per_s: arrivals per second, whatever becomes of the earlier ones.
        seconds: how long they arrive.
        arrivals: ``poisson`` or ``uniform``.
    """

    name: str
    concurrency: int | None = None
    requests: int | None = None
    rate_per_s: float | None = None
    seconds: float | None = None
    arrivals: str = "poisson"

    def offsets_s(self, seed: str) -> list[float]:
        """Arrivals from the step's begin, s: the same wherever it is computed.

        Args:
            seed: of the run.
        """
        assert self.rate_per_s is not None
        assert self.seconds is not None
        if self.arrivals == "uniform":
            return [n / self.rate_per_s for n in range(math.ceil(self.rate_per_s * self.seconds))]
        # Python promises the same numbers of random() for a seed in all versions, of nothing else
        draw = random.Random("%s:%s" % (seed, self.name))  # noqa: S311
        offsets: list[float] = []
        at = 0.0
        while True:
            at -= math.log(1.0 - draw.random()) / self.rate_per_s
            if at >= self.seconds:
                return offsets
            offsets.append(at)

    def planned(self, seed: str) -> int:
        """Number of requests."""
        return self.requests if self.requests is not None else len(self.offsets_s(seed))


@dataclass(frozen=True)
class Plan:
    """A whole load.

    Attributes:
        host: address of the server.
        port: that it listens on.
        ready_path: answers with 2xx once the server is ready.
        ready_timeout_s: how long that may take.
        api: ``http`` or a key of :data:`STREAMED`.
        requests: sent in this order, from the first again after the last.
        steps: in this order.
        warmup: requests before the first step.
        warmup_concurrency: at any time.
        status: what every answer must have.
        path: to the value that must be the same for all images.
        timeout_s: after which a request has failed.
        seed: of the run.
        cpus: that the generator runs on; empty: any.
        strict: a single failed request ends the load.
    """

    host: str
    port: int
    ready_path: str
    ready_timeout_s: float
    api: str
    requests: tuple[Request, ...]
    steps: tuple[Step, ...]
    warmup: int
    warmup_concurrency: int
    status: int
    path: Path | None
    timeout_s: float
    seed: str
    cpus: tuple[int, ...]
    strict: bool

    @classmethod
    def of(cls, document: dict[str, Any]) -> Plan:
        """Read the document that the agent wrote.

        Raises:
            ValueError: a request is none; names its line.
            OSError: the file of requests can't be read.
        """
        api, path = document["api"], document.get("json")
        if document.get("requests"):
            with open(document["requests"], "rb") as file:
                requests = read_requests(file.read(), api)
        else:
            requests = [request_of(document["request"], api)]
        return cls(
            document["host"], document["port"], document["ready_path"], document["ready_timeout_s"], api,
            tuple(requests), tuple(Step(**step) for step in document["steps"]), document["warmup"],
            document["warmup_concurrency"], document["status"],
            None if path is None else parse_path(path), document["timeout_s"], document["seed"],
            tuple(document["cpus"]), document["strict"],
        )  # fmt: skip

    def request(self, number: int) -> Request:
        """The request with a number, from 0 over all steps."""
        return self.requests[number % len(self.requests)]

    @property
    def unit(self) -> str:
        """What is counted."""
        return "token" if self.api in STREAMED else "request"


def read_requests(data: bytes, api: str) -> list[Request]:
    """The requests of a file: one JSON object per line; blank lines are passed over.

    Raises:
        ValueError: names the line and says why.
    """
    found = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(request_of(json.loads(line), api))
        except (ValueError, RecursionError) as error:
            why = "not JSON: %s" % error if isinstance(error, json.JSONDecodeError) else error
            raise ValueError("line %d: %s" % (number, why)) from None
    if not found:
        raise ValueError("has no request; write one JSON object per line")
    return found


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[ -~]*")
_OURS = ("connection", "content-length", "host", "transfer-encoding", "user-agent")
#: Keys of a request of the API ``http``.
KEYS = ("method", "path", "headers", "json", "body")


def request_of(document: Any, api: str) -> Request:
    """A request as the user writes it: for ``http`` with path and body, else the API's own body.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(document, dict):
        raise ValueError("a request is a JSON object")
    if api in STREAMED:
        return _openai(document, api)
    unknown = sorted(set(document) - set(KEYS))
    if unknown:
        raise ValueError("unknown key %r; a request has %s" % (unknown[0], ", ".join(KEYS)))
    path, headers = document.get("path"), document.get("headers") or {}
    if not isinstance(path, str) or not path.startswith("/") or not _plain(path):
        raise ValueError("path: %r is not a path that begins with / (escape blanks as %%20)" % path)
    if "json" in document and "body" in document:
        raise ValueError("json and body exclude each other; remove one")
    body = b""
    if "json" in document:
        body = _dumped(document["json"])
        headers = {"Content-Type": "application/json", **headers}
    elif "body" in document:
        if not isinstance(document["body"], str):
            raise ValueError("body is text; JSON goes into json")
        body = document["body"].encode()
    method = document.get("method", "POST" if body else "GET")
    if not isinstance(method, str) or not method.isalpha() or not method.isupper():
        raise ValueError("method: %r is not a method such as GET or POST" % (method,))
    if not isinstance(headers, dict):
        raise ValueError("headers: a mapping of names to values")
    for name, value in headers.items():
        _check_header(name, value)
    return Request(method, path, tuple(headers.items()), body)


def _check_header(name: str, value: Any) -> None:
    if not isinstance(value, str) or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError("headers: %r: %r can't be a header" % (name, value))
    if name.lower() in _OURS:
        raise ValueError("headers: %s is set by the generator; remove it" % name)


def _openai(document: dict[str, Any], api: str) -> Request:
    needed = "messages" if api == "openai-chat" else "prompt"
    if needed not in document:
        raise ValueError("%s is missing; a request of %s is the API's own body" % (needed, api))
    streamed = {**document, "stream": True, "stream_options": {"include_usage": True}}
    headers = (("Content-Type", "application/json"), ("Accept", "text/event-stream"))
    return Request("POST", STREAMED[api], headers, _dumped(streamed))


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _plain(text: str) -> bool:
    """Whether a text has visible ASCII characters only."""
    return bool(text) and all("!" <= c <= "~" for c in text)
