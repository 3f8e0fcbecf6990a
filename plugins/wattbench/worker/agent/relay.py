"""Inside the window: lets a load on another machine reach a server that has no way out of its network.

A socket of this process listens, on one address and port, as long as the process lives. The connection that
shows the attempt's token first is the load generator's own: over it come its event lines, its questions
about the clock and, after the last step, its records; it hears when the server is gone. From then on,
connections from the same address are passed on to the server, and all others are closed.
"""

from __future__ import annotations

import errno
import hmac
import json
import os
import resource
import selectors
import socket
import struct
import time

from wattbench.worker.agent import limits
from wattbench.worker.agent.streams import event_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import LinkSpec

#: First line of the load generator's connection, before the token.
GREETING = b"wattbench "
#: What the load generator is sent when its records are kept.
KEPT = b"kept\n"
#: Read from a connection at a time; held back for one that is slow, bytes.
_BLOCK, _HELD = 1 << 16, 1 << 18
#: How long a connection stays open whose server refuses it: the server's end is known by then, s.
_REFUSED_S = 0.1
#: Connections that may be open without having shown the token, and how long, s.
_STRANGERS, _STRANGER_S = 16, 5.0
#: Files that the process may have open, where the host lets it.
_OPEN_FILES = 2 * limits.LOAD_CONNECTIONS + 64


class RelayError(Exception):
    """Why the load has not gone to its end, in one line."""


class _End:
    """One side of a connection that is passed on, or one that has not shown the token yet.

    Attributes:
        other: the other side.
        held: bytes that it is still to be sent.
        connected: False while the server has not accepted yet.
        refused: the server did not accept.
        read_all: its peer sends no more.
        wrote_all: nor do we.
        closes_at_s: when it is closed in any case.
    """

    def __init__(self, sock: socket.socket, other: _End | None = None) -> None:
        self.sock, self.other = sock, other
        self.held = bytearray()
        self.connected = True
        self.refused = self.read_all = self.wrote_all = False
        self.closes_at_s: float | None = None

    def events(self) -> int:
        """What it waits for."""
        if not self.connected:
            return selectors.EVENT_WRITE
        if self.refused:
            return 0
        full = self.other is not None and len(self.other.held) >= _HELD
        reads = 0 if full or self.read_all else selectors.EVENT_READ
        return reads | (selectors.EVENT_WRITE if self.held else 0)


class Relay:
    """The listening socket, the load generator's own connection, and those that are passed on.

    Args:
        link: where to listen, and the token.
        server: address and port of the server.
        records: file for the generator's records.

    Raises:
        OSError: nothing can be listened on there.
    """

    def __init__(self, link: LinkSpec, server: tuple[str, int], records: str) -> None:
        self._link, self._server, self._records = link, server, records
        _allow_connections()
        self._listener = listening(link["address"], link["port"])
        self._select = selectors.DefaultSelector()
        self._select.register(self._listener, selectors.EVENT_READ)
        self._strangers: list[_End] = []
        self._ends: dict[int, _End] = {}
        self._timed: list[_End] = []
        self._control: socket.socket | None = None
        self._peer = ""
        self._text = bytearray()
        self._file: BinaryIO | None = None
        self._left = 0
        self._phase = "start"
        self._error: str | None = None
        self._over = False

    def close(self) -> None:
        """Close the port and all connections."""
        for end in (*self._ends.values(), *self._strangers):
            end.sock.close()
        if self._control is not None:
            self._control.close()
        if self._file is not None:
            self._file.close()
        self._listener.close()
        self._select.close()

    def run(self, server_ends: int) -> bool:
        """Pass on until the load is over or the server is gone.

        Args:
            server_ends: a descriptor that becomes readable when the server is gone.

        Returns:
            Whether the load went to its end; else the server is gone.

        Raises:
            RelayError: the load has failed, was not there in time, or is gone.
        """
        self._select.register(server_ends, selectors.EVENT_READ)
        deadline_s = time.monotonic() + limits.LOAD_CONNECT_S
        while not self._over:
            left_s = None if self._control is not None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise RelayError(self._no_load())
            if server_ends in self._once(left_s):
                self._select.unregister(server_ends)
                return False
        if self._error is not None:
            raise RelayError(self._error)
        return True

    def tell_end(self, why: str) -> str:
        """Let the load generator end, since the server is gone; the reason with the phase."""
        if self._control is None:
            return why
        deadline_s = time.monotonic() + limits.LOAD_STOP_S
        try:
            self._control.sendall(why.encode() + b"\n")
            while not self._over and time.monotonic() < deadline_s:
                self._once(deadline_s - time.monotonic())
        except (OSError, RelayError):
            pass
        return self._error or "%s (phase %s)" % (why, self._phase)

    def _no_load(self) -> str:
        return "no load generator of %s connected to %s port %d within %g s" % (
            self._link["load_host"], self._link["address"], self._link["port"], limits.LOAD_CONNECT_S,
        )  # fmt: skip

    # -- the loop --------------------------------------------------------------------------------------

    def _once(self, timeout_s: float | None) -> list[object]:
        """Sleep until something comes, deal with it; descriptors of others that are ready."""
        now = time.monotonic()
        due = [end.closes_at_s for end in self._timed if end.closes_at_s is not None]
        if due:
            timeout_s = max(
                min([*due, *([] if timeout_s is None else [now + timeout_s])]) - now, 0.0
            )
        foreign: list[object] = []
        for key, mask in self._select.select(timeout_s):
            end = key.data
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._control:
                self._hear()
            elif end is None:
                foreign.append(key.fileobj)
            elif end in self._strangers:
                self._greet(end)
            elif end.sock.fileno() in self._ends:
                self._pass_on(end, mask)
        now = time.monotonic()
        for end in [e for e in self._timed if e.closes_at_s is not None and e.closes_at_s <= now]:
            self._drop(end)
        return foreign

    def _watch(self, end: _End) -> None:
        """Let the selector know what an end waits for."""
        events = end.events()
        known = end.sock in self._select.get_map()
        if not events and known:
            self._select.unregister(end.sock)
        elif events and known:
            if self._select.get_key(end.sock).events != events:
                self._select.modify(end.sock, events, end)
        elif events:
            self._select.register(end.sock, events, end)

    def _close_at(self, end: _End, seconds: float) -> None:
        end.closes_at_s = time.monotonic() + seconds
        self._timed.append(end)

    def _drop(self, end: _End) -> None:
        """Reset a connection, both its sides."""
        for one in (end, end.other):
            if one is None or one.sock.fileno() < 0:
                continue
            self._ends.pop(one.sock.fileno(), None)
            if one in self._strangers:
                self._strangers.remove(one)
            if one in self._timed:
                self._timed.remove(one)
            if one.sock in self._select.get_map():
                self._select.unregister(one.sock)
            if not (one.read_all and one.wrote_all):
                _reset(one.sock)
            one.sock.close()

    # -- connections -----------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        end = _End(sock)
        if self._control is None:
            if len(self._strangers) >= _STRANGERS:
                sock.close()
                return
            self._strangers.append(end)
            self._close_at(end, _STRANGER_S)
            self._watch(end)
        elif peer[0] != self._peer or len(self._ends) >= 2 * limits.LOAD_CONNECTIONS:
            _reset(sock)
            sock.close()
        else:
            self._connect(end)

    def _connect(self, end: _End) -> None:
        """Open the server's side of a connection."""
        family = socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET
        server = _End(socket.socket(family, socket.SOCK_STREAM), end)
        server.sock.setblocking(False)
        for one in (end, server):
            one.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[one.sock.fileno()] = one
        end.other = server
        why = server.sock.connect_ex(self._server)
        if why not in (0, errno.EINPROGRESS):
            self._refuse(server)
            return
        server.connected = why == 0
        self._watch(server)
        self._watch(end)

    def _refuse(self, server: _End) -> None:
        """The server is not there: let the load know, and not too fast."""
        end = server.other
        assert end is not None
        end.other = server.other = None
        end.refused = True
        self._close_at(end, _REFUSED_S)
        self._watch(end)
        self._drop(server)

    def _pass_on(self, end: _End, mask: int) -> None:
        other = end.other
        if other is None:
            return
        if not end.connected:
            if end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._refuse(end)
                return
            end.connected = True
        try:
            if mask & selectors.EVENT_WRITE:
                self._flush(end)
            if mask & selectors.EVENT_READ and not end.read_all:
                self._take(end, other)
        except OSError:
            self._drop(end)
            return
        if end.read_all and other.read_all and not end.held and not other.held:
            self._drop(end)
            return
        self._watch(end)
        self._watch(other)

    def _take(self, end: _End, other: _End) -> None:
        try:
            data = end.sock.recv(_BLOCK)
        except BlockingIOError:
            return
        if data:
            other.held += data
        else:
            end.read_all = True
        self._flush(other)

    def _flush(self, end: _End) -> None:
        """Send what is held back; after the last of it, its end."""
        if end.held and end.connected:
            try:
                del end.held[: end.sock.send(end.held)]
            except BlockingIOError:
                return
        ended = end.other is not None and end.other.read_all
        if ended and not end.held and not end.wrote_all and end.connected:
            end.wrote_all = True
            end.sock.shutdown(socket.SHUT_WR)

    # -- the load generator's own connection -----------------------------------------------------------

    def _greet(self, end: _End) -> None:
        """A connection that shows the token is the load generator's; the others are closed."""
        try:
            end.held += end.sock.recv(256)
        except BlockingIOError:
            return
        except OSError:
            self._drop(end)
            return
        wanted = GREETING + self._link["token"].encode() + b"\n"
        if len(end.held) < len(wanted) and wanted.startswith(end.held) and end.held:
            return
        if self._control is not None or not hmac.compare_digest(end.held[: len(wanted)], wanted):
            self._drop(end)
            return
        self._strangers.remove(end)
        self._timed.remove(end)
        self._select.unregister(end.sock)
        self._control, self._peer = end.sock, end.sock.getpeername()[0]
        end.sock.setblocking(True)
        keep_alive(end.sock)
        self._select.register(end.sock, selectors.EVENT_READ)
        for stranger in list(self._strangers):
            self._drop(stranger)
        self._listen(bytes(end.held[len(wanted) :]))

    def _hear(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(_BLOCK)
        except OSError as error:
            raise self._gone(error.strerror or "closed") from None
        if not data:
            raise self._gone("closed")
        self._listen(data)

    def _gone(self, why: str) -> RelayError:
        return RelayError(
            "the load generator of %s is gone: its connection from %s was lost: %s (phase %s)"
            % (self._link["load_host"], self._peer, why, self._phase)
        )

    def _listen(self, data: bytes) -> None:
        """Event lines, questions, and records."""
        self._text += data
        while self._text and not self._over:
            if self._file is not None:
                self._keep()
                continue
            line, newline, _ = self._text.partition(b"\n")
            if not newline:
                if len(line) > limits.LINE_BYTES:
                    raise self._gone("it sent no event lines")
                return
            del self._text[: len(line) + 1]
            self._hear_line(bytes(line))

    def _hear_line(self, line: bytes) -> None:
        event = event_of(line) or {}
        kind = event.get("event")
        if kind == "clock?":
            answer = {"unix_s": time.time(), "cpu_s": time.process_time()}
            self._answer(json.dumps(answer).encode() + b"\n")
            return
        if kind == "records":
            self._expect(event)
            return
        if kind == "phase" and event.get("edge") == "begin":
            self._phase = str(event.get("name"))
        if kind == "error":
            self._error = " ".join(str(event.get("message")).split())
        os.write(1, line + b"\n")

    def _answer(self, data: bytes) -> None:
        assert self._control is not None
        try:
            self._control.sendall(data)
        except OSError as error:
            raise self._gone(error.strerror or "closed") from None

    def _expect(self, event: Json) -> None:
        count = event.get("bytes")
        if not isinstance(count, int) or not 0 <= count <= limits.METER_FILE_BYTES:
            raise self._gone("it announced %r bytes of records" % count)
        self._file, self._left = open(self._records, "wb"), count
        if not count:
            self._keep()

    def _keep(self) -> None:
        """Write records that have come; after the last of them, the load is over."""
        assert self._file is not None
        part = memoryview(self._text)[: self._left]
        self._file.write(part)
        size = len(part)
        part.release()
        del self._text[:size]
        self._left -= size
        if self._left == 0:
            self._file.close()
            self._file = None
            self._over = True
            self._answer(KEPT)


def listening(address: str, port: int) -> socket.socket:
    """A socket that listens on one address of this machine.

    Raises:
        OSError: the address is not this machine's, or the port is not free.
    """
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    family, _, _, _, place = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel notice within a minute that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    for name, value in (*options, ("TCP_USER_TIMEOUT", 45_000)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _reset(sock: socket.socket) -> None:
    """Let a socket's end be a reset, which no peer takes for an answer's end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _allow_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
