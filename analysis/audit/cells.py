"""Cells of a table's first line, by which importers recognise their files."""

from __future__ import annotations

import functools
import re


@functools.lru_cache(maxsize=1)  # each importer in turn asks about the same file
def cells_of(head: bytes) -> tuple[str, ...]:
    """Cells of a file's first line that is not blank, whatever separates them."""
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    line = text.splitlines()[0].decode("utf-8", "replace") if text else ""
    return tuple(cell.strip().strip('"') for cell in re.split(r"[,;\t|]", line))
