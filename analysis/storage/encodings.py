"""Encodings of texts that other programs wrote."""

from __future__ import annotations

import codecs

#: Bytes by which a text in UTF-16 is recognised: about half of them are NUL, none of any other text.
SAMPLE_BYTES = 512


def is_utf16(data: bytes) -> bool:
    """Whether data that begins a text is UTF-16, such as ``>`` of Windows PowerShell writes."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    sample = data[:SAMPLE_BYTES]
    return marked and sample.count(0) * 4 >= len(sample) - 2


def as_utf8(data: bytes) -> bytes:
    """A text in UTF-16 as UTF-8; others as they are."""
    if not is_utf16(data):
        return data
    return data.decode("utf-16", "replace").encode("utf-8", "replace")
