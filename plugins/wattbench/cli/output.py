"""Lines and columns on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def say(text: str = "", *, to_stderr: bool = False) -> None:
    """Print one line and flush."""
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows under each other; the last column is as wide as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
