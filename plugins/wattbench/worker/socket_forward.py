"""Local Unix socket forwarded to one on the worker host, through the agent's `pipe` verb."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger(__name__)


class SocketForward:
    """Two threads that carry bytes between a local socket and a channel, one each way."""

    def __init__(self, local: socket.socket, channel: paramiko.Channel) -> None:
        self._local, self._channel = local, channel
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._up, self._down)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def closed(self) -> bool:
        """Whether both ways have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    def _up(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while block := self._local.recv(1 << 16):
                self._channel.sendall(block)
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def _down(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while block := self._channel.recv(1 << 16):
                self._local.sendall(block)
        # the far end has closed: wake the other direction too, its peer may never speak again
        with contextlib.suppress(OSError):
            self._local.shutdown(socket.SHUT_RDWR)
        said = b""
        with contextlib.suppress(OSError, EOFError):
            said = self._channel.recv_stderr(4096)
        if said.strip():
            log.warning("forwarded socket: %s", said.decode("utf-8", "replace").strip())
        self._channel.close()

    def close(self) -> None:
        """End both directions and wait for them."""
        with contextlib.suppress(OSError):
            self._local.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        for thread in self._threads:
            thread.join(5)
        self._local.close()
