"""Programs that serve on a free port of this machine."""

from __future__ import annotations

import socket
import subprocess
import time


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens there; fails if the process ends before."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, f"{process.args!r} ended"
            time.sleep(0.02)
    raise AssertionError(f"{process.args!r} does not listen")


class LocalServer:
    """One program on a port of its own; ends by its own process handle only."""

    def __init__(self) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def serve(self, *argv: str) -> None:
        """Start the program and wait until it listens."""
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_listening(self.port, self.process)

    def stop(self) -> None:
        """Kill it; it may be started again."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
