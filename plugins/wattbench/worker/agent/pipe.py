"""Join stdin and stdout with a Unix socket: how the controller reaches this host's Docker."""

from __future__ import annotations

import os
import socket
import threading


def pipe(path: str) -> None:
    """Carry bytes both ways, each direction closed on its own."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.connect(path)
    except OSError as error:
        raise SystemExit("%s: %s" % (path, error.strerror)) from error

    def upstream() -> None:
        for block in iter(lambda: os.read(0, 65536), b""):
            peer.sendall(block)
        peer.shutdown(socket.SHUT_WR)

    threading.Thread(target=upstream, daemon=True).start()
    for block in iter(lambda: peer.recv(65536), b""):
        view = memoryview(block)
        while view:
            view = view[os.write(1, view) :]
