"""The connection to the measured machine, of a load that runs on another one.

It takes the place of stdin and stdout: event lines go there, and what comes says why the load is to end.
Besides, the other side answers questions about its clock, and keeps the records after the last step.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What the load is sent when the connection has ended without a reason.
GONE = "the measured host has ended the trial, or the connection to it was lost"
#: Between two tries to connect: the port opens with the window, s.
_AGAIN_S = 0.1
#: How long one try may take, and an answer, s.
_TRY_S, _ANSWER_S = 5.0, 60.0
#: Questions about the clock; the one that was answered soonest counts.
_ROUNDS = 9
_BLOCK = 1 << 20


class LinkError(Exception):
    """Why there is no connection, or none any more, in one line."""


class Link:
    """The connection, once it stands."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Connect, trying again while the port is closed, and show the token.

        Args:
            document: ``address``, ``port``, ``token``, and ``within_s``: how long that is tried.

        Raises:
            LinkError: there is no connection in time.
        """
        place = (document["address"], document["port"])
        deadline_s, sock = time.monotonic() + document["within_s"], None
        while sock is None:
            try:
                sock = socket.create_connection(place, _TRY_S)
                sock.settimeout(None)
                _keep_alive(sock)
                sock.sendall(b"wattbench %s\n" % document["token"].encode())
            except OSError as error:
                if time.monotonic() + _AGAIN_S > deadline_s:
                    raise LinkError(
                        "%s port %d can't be reached within %g s: %s"
                        % (*place, document["within_s"], error.strerror or error)
                    ) from None
                sock = None
                time.sleep(_AGAIN_S)
        for stream in (0, 1):
            os.dup2(sock.fileno(), stream)
        sock.close()
        self._text = b""

    def clock(self) -> dict[str, float]:
        """How far the other machine's clock is ahead, the round trip that showed it, CPU time of the relay.

        Raises:
            LinkError: it is gone; what it has said instead.
        """
        best = (float("inf"), 0.0, 0.0)
        for _ in range(_ROUNDS):
            asked_s, began_s = time.time(), time.monotonic()
            _write(b'{"event": "clock?"}\n')
            line = self._line()
            trip_s = time.monotonic() - began_s
            if not line.startswith(b"{"):
                raise LinkError(line.decode("utf-8", "replace") or GONE)
            answer = json.loads(line)
            best = min(best, (trip_s, answer["unix_s"] - (asked_s + trip_s / 2), answer["cpu_s"]))
        return {"ahead_s": best[1], "trip_s": best[0], "relay_cpu_s": best[2]}

    def hand_over(self, path: str) -> None:
        """Send the records; returns once they are kept there.

        Raises:
            LinkError: it is gone.
        """
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            _write(json.dumps({"event": "records", "bytes": size}).encode() + b"\n")
            while block := file.read(_BLOCK):
                _write(block)
        while (line := self._line()) != b"kept":
            if not line:
                raise LinkError(GONE)

    def _line(self) -> bytes:
        """The next line without its end; empty: the connection has ended."""
        while b"\n" not in self._text:
            if not select.select([0], [], [], _ANSWER_S)[0]:
                return b""
            try:
                data = os.read(0, 4096)
            except OSError:
                return b""
            if not data:
                return b""
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return line


def _write(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise LinkError("%s: %s" % (GONE, error.strerror)) from None


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel notice within a minute that the other machine is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    for name, value in (*options, ("TCP_USER_TIMEOUT", 45_000)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
