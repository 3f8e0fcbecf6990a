"""The workload's files on a host: shipped once each, by their SHA-256."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from wattbench.errors import StoreError
from wattbench.run.stored_run import Run

if TYPE_CHECKING:
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)


def ship_files(run: Run, host: Host, image: str, *, mounted: bool = True) -> None:
    """Bring the files of an image's workload to the host, unless it has them.

    Args:
        mounted: those of containers too; else what runs beside them only.

    Raises:
        HostError, StoreError: a file could not be brought.
    """
    for path, sha256 in run.files(image).items():
        if (path.startswith("/") and not mounted) or host.has_file(sha256):
            continue
        content = run.file_content(sha256)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StoreError(
                f"the stored copy of {path} has another SHA-256 than run.json says; start another run"
            )
        host.ship_file(sha256, content)
        log.info("%s: %.0f kB shipped for %s", path, len(content) / 1e3, image)
