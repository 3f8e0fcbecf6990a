"""HTTP/1.1 over connections that are kept: h11 has the protocol, asyncio the bytes."""

from __future__ import annotations

import asyncio
import os
import time

import h11

from wattbench.workloads.load.answers import AnswerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Union

    from wattbench.workloads.load.answers import Plain, Stream
    from wattbench.workloads.load.plan import Request

    Reader = Union[Plain, Stream]

#: Connections at any time: further requests wait for one, which counts in their latency.
MOST_CONNECTIONS = 1000
#: The first bytes of TLS records: an alert, a handshake.
_TLS = (b"\x15\x03", b"\x16\x03")
_HTTP = b"HTTP/1."


class Exchange:
    """A request and what came of it, times on the monotonic clock in seconds.

    Attributes:
        error: a word for the record; None: the answer came whole.
        message: what happened, in one line.
    """

    def __init__(self, request: Request, reader: Reader) -> None:
        self.request, self.reader = request, reader
        self.sent_s = time.monotonic()
        self.first_s: float | None = None
        self.done_s: float | None = None
        self.status: int | None = None
        self.location: str | None = None
        self.bytes_out = self.bytes_in = 0
        self.error: str | None = None
        self.message = ""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: str | None = None, message: str = "") -> None:
        """It is over, once."""
        if not self.over.done():
            self.done_s = time.monotonic()
            self.error, self.message = error, message
            self.over.set_result(None)

    def judge(self, status: int) -> str:
        """Look into the answer: sets ``error`` and ``message``, returns the fingerprint."""
        if self.error is None and self.status != status:
            moved = self.status is not None and 300 <= self.status < 400
            self.error = "redirect" if moved else "status"
            self.message = "it was answered %s%s instead of %d" % (
                self.status, " to %s" % self.location if self.location else "", status,
            )  # fmt: skip
        if self.error is not None:
            return ""
        try:
            return self.reader.answer()
        except AnswerError as error:
            self.error, self.message = error.word, str(error)
            return ""


class Connection(asyncio.Protocol):
    """One connection; one exchange at a time."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._transport: Any = None
        self._exchange: Exchange | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = transport

    def begin(self, exchange: Exchange, host: str) -> None:
        """Send a request."""
        request, self._exchange = exchange.request, exchange
        headers = [("Host", host), ("User-Agent", "wattbench-load"), *request.headers]
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            headers.append(("Content-Length", str(len(request.body))))
        events: list[Any] = [
            h11.Request(method=request.method, target=request.path, headers=headers)
        ]
        events += [h11.Data(data=request.body)] if request.body else []
        data = b"".join(self._http.send(event) or b"" for event in [*events, h11.EndOfMessage()])
        exchange.bytes_out = len(data)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Some of the answer."""
        exchange = self._exchange
        if exchange is None:  # nothing was asked
            self.close()
            return
        if not exchange.bytes_in:
            exchange.first_s = time.monotonic()
            if data[:7] != _HTTP[: len(data)]:
                tls = "it was answered in TLS; let the server speak plain HTTP"
                other = "the answer is not HTTP/1.1: it begins with %r" % data[:20]
                self.fail("protocol", tls if data[:2] in _TLS else other)
                return
        exchange.bytes_in += len(data)
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """The server closes: the end of an answer without length, or too early."""
        self.usable = False
        if self._exchange is not None:
            self._http.receive_data(b"")
            self._advance()

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self.usable = False
        if self._exchange is not None:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "closed"
            self.fail("reset", "the connection was lost before the answer was whole: %s" % why)

    def close(self) -> None:
        """Close at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        """Hand on what has come."""
        exchange = self._exchange
        assert exchange is not None
        now_s = time.monotonic()
        try:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Response):
                    exchange.status = event.status_code
                    where = dict(event.headers).get(b"location")
                    exchange.location = where[:200].decode("latin-1") if where else None
                    exchange.reader.head(list(event.headers), exchange.first_s or now_s)
                elif isinstance(event, h11.Data):
                    exchange.reader.feed(bytes(event.data), now_s)
                elif isinstance(event, h11.EndOfMessage):
                    self._complete()
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    self.fail("reset", "the server closed the connection without an answer")
                    return
        except h11.RemoteProtocolError as error:
            if self.usable:
                self.fail("protocol", "the answer is not HTTP/1.1: %s" % error)
            else:
                self.fail("reset", "the connection was closed before the answer was whole")

    def _complete(self) -> None:
        exchange, self._exchange = self._exchange, None
        states = (self._http.our_state, self._http.their_state)
        if states == (h11.DONE, h11.DONE) and self.usable:
            self._http.start_next_cycle()
        else:
            self.close()
        assert exchange is not None
        exchange.end()

    def fail(self, word: str, message: str) -> None:
        """Give up the exchange and the connection."""
        exchange, self._exchange = self._exchange, None
        self.close()
        if exchange is not None:
            exchange.end(word, message)


class Client:
    """Asks one server, over as many connections as there are requests at a time."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._name = "%s:%d" % (host, port)
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(MOST_CONNECTIONS)

    async def ask(self, request: Request, reader: Callable[[], Reader]) -> Exchange:
        """Send a request and wait for its answer; never raises for what the server does.

        A kept connection that the server has closed meanwhile is not a failure: the request is sent again on
        a new one, as HTTP clients do.
        """
        async with self._free:
            exchange = Exchange(request, reader())
            kept = await self._once(exchange)
            if kept and exchange.error == "reset" and exchange.bytes_in == 0:
                again = Exchange(request, reader())
                again.sent_s = exchange.sent_s
                exchange = again
                await self._once(exchange, fresh=True)
            return exchange

    async def _once(self, exchange: Exchange, fresh: bool = False) -> bool:
        """One try; whether it was on a connection that had been used before."""
        connection = None if fresh else self._kept()
        kept = connection is not None
        if connection is None:
            connection = await self._open(exchange)
        if connection is None:
            return kept
        late = "no answer within %g s" % self._timeout_s
        loop, left_s = asyncio.get_running_loop(), self._left_s(exchange)
        alarm = loop.call_later(left_s, connection.fail, "timeout", late)
        connection.begin(exchange, self._name)
        try:
            await exchange.over
        finally:
            alarm.cancel()
        if connection.usable:
            self._idle.append(connection)
        return kept

    async def _open(self, exchange: Exchange) -> Connection | None:
        """A new connection; None: the exchange is over, with the reason."""
        opening = asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        try:
            _, connection = await asyncio.wait_for(opening, self._left_s(exchange))
        except asyncio.TimeoutError:
            exchange.end("timeout", "no connection within %g s" % self._timeout_s)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            exchange.end("connect", "the connection failed: %s" % why)
        else:
            return connection
        return None

    def _left_s(self, exchange: Exchange) -> float:
        return max(exchange.sent_s + self._timeout_s - time.monotonic(), 0.001)

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    def close(self) -> None:
        """Close all kept connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
