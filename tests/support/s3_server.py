"""A real, authenticated S3 server over a folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from wattbench.storage.object_store import StoreTarget

RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
KEY, SECRET = "WATTBENCHTESTKEY", "wattbench-test-secret"


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


class Server:
    """``rclone serve s3`` over a folder; ends by its own process handle only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "wattbench").mkdir(parents=True)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert RCLONE
        self.process = subprocess.Popen(
            [RCLONE, "serve", "s3", "--auth-key", f"{KEY},{SECRET}",
             "--addr", f"127.0.0.1:{self.port}", "--config", "/dev/null", str(self.folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until_listening(self.port, self.process)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def target(self) -> StoreTarget:
        return StoreTarget(f"http://127.0.0.1:{self.port}", KEY, SECRET, "wattbench", "team/a")
