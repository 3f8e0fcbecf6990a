"""Encodings of texts that other programs wrote."""

from __future__ import annotations

import codecs

#: What a text in UTF-16 begins with.
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def as_utf8(data: bytes) -> bytes:
    """A text in UTF-16, such as ``>`` of Windows PowerShell writes, as UTF-8; others as they are."""
    if not data.startswith(UTF16):
        return data
    return data.decode("utf-16", "replace").encode("utf-8", "replace")
