"""Cells of a table's first line, by which importers recognise their files."""

from __future__ import annotations

import functools
import re

_LINE = re.compile(rb"[^\r\n]*")
_SEPARATOR = re.compile(r"[,;\t|]")


def cells_of(head: bytes) -> tuple[str, ...]:
    """Cells of a file's first line that is not blank, whatever separates them."""
    line = _LINE.match(head.removeprefix(b"\xef\xbb\xbf").lstrip())
    return _split(line[0] if line else b"")


@functools.lru_cache(maxsize=256)  # thousands of files have one header
def _split(line: bytes) -> tuple[str, ...]:
    text = line.decode("utf-8", "replace")
    return tuple(cell.strip().strip('"') for cell in _SEPARATOR.split(text))
