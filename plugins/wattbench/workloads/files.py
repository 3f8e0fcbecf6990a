"""Files beside an experiment's YAML that its workload needs, by content."""

from __future__ import annotations

import hashlib
import posixpath
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, ValidationInfo, WithJsonSchema

from wattbench.workloads.settings import Model

#: Larger data belongs into a volume of the container.
MOST_FILE_BYTES = 64 << 20


class SourceFile(Model):
    """A file beside the experiment's YAML.

    Attributes:
        name: path from the YAML's folder.
        sha256: of its content.
    """

    name: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


#: Path in the container → file; in YAML its name, checked by :func:`source_files`.
Files = Annotated[
    dict[str, SourceFile],
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]


def source_files(value: object, info: ValidationInfo) -> object:
    """The files of a mapping of the YAML by name and SHA-256; of a stored run they are that already."""
    if not isinstance(value, dict):
        return value
    folder = (info.context or {}).get("folder")
    return {_container_path(path): source_file(source, folder) for path, source in value.items()}


def _container_path(path: object) -> str:
    text = str(path)
    if not text.startswith("/") or posixpath.normpath(text) != text or set(",\n\0") & set(text):
        raise ValueError(
            f"{text!r} is not an absolute path in the container without '..' and commas"
        )
    return text


def source_file(source: object, folder: Path | None) -> object:
    """A file of the YAML by name and SHA-256; of a stored run it has both already."""
    if not isinstance(source, str) or folder is None:
        return source
    return {"name": source, "sha256": hashlib.sha256(read_source(source, folder)).hexdigest()}


def read_source(source: str, folder: Path) -> bytes:
    """The content of a file beside the YAML.

    Raises:
        ValueError: it is not there, leaves the folder, or is too large.
    """
    root = folder.resolve()
    file = (root / source).resolve()
    if not file.is_relative_to(root):
        raise ValueError(f"{source!r} leaves the experiment's folder; copy the file into it")
    if not file.is_file():
        raise ValueError(f"{source!r} is not a file in {folder.name}/; put it beside the YAML")
    if file.stat().st_size > MOST_FILE_BYTES:
        raise ValueError(
            f"{source!r} has more than {MOST_FILE_BYTES >> 20} MiB; put it on the hosts and mount it with "
            "container.volumes"
        )
    return file.read_bytes()
