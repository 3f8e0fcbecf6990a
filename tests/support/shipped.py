"""What is shipped to hosts, as a file that a test can start."""

from __future__ import annotations

from pathlib import Path

from wattbench.zip_application import Bundle


def written(bundle: Bundle, folder: Path) -> Path:
    """A zip application in a folder, under its own name."""
    path = folder / bundle.name
    path.write_bytes(bundle.content)
    return path
