"""Zip applications (``.pyz``) that are shipped to hosts: the same files give the same bytes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

#: zip's earliest date.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """A zip application.

    Attributes:
        content: of the file.
        sha256: of the content, hexadecimal.
    """

    content: bytes
    sha256: str

    @property
    def name(self) -> str:
        """The file's name on a host."""
        return f"{self.sha256[:12]}.pyz"


def zipped(files: Mapping[str, bytes]) -> Bundle:
    """Zip files in the order of their names, without dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name])
    content = buffer.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest())
