"""A real, authenticated S3 server over a folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.local_server import LocalServer
from wattbench.storage.object_store import StoreTarget

RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
KEY, SECRET = "WATTBENCHTESTKEY", "wattbench-test-secret"


class Server(LocalServer):
    """``rclone serve s3`` over a folder, whose folders are buckets; ``wattbench`` is one of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.url = f"http://{self.address}"
        (folder / "wattbench").mkdir(parents=True)

    def start(self) -> None:
        assert RCLONE
        self.serve(
            RCLONE, "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", self.address,
            "--config", "/dev/null", str(self.folder),
        )  # fmt: skip

    @property
    def target(self) -> StoreTarget:
        return StoreTarget(self.url, KEY, SECRET, "wattbench", "team/a")
