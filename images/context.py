"""Build context of one image: the image's folder, files beside it, and packages where needed.

The layout of the folder around it, so that `docker build -f images/NAME/Dockerfile images` by hand sees
the same files.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

FOLDER = Path(__file__).resolve().parent
#: Experiments to copy, with the images that they need.
EXAMPLES = FOLDER.parent / "config" / "experiments" / "examples"
#: The folder of the image that plays a machine.
HOST = "worker-host"


@dataclass(frozen=True)
class Context:
    """A build context.

    Attributes:
        name: the image's name, which is that of its folder in `images/` or among the examples.
        site: installed packages that appear as `NAME/site`; None where the build installs them.
        text: of a Dockerfile in the place of the folder's own; None for that one.
    """

    name: str
    site: Path | None = None
    text: str | None = None

    @property
    def root(self) -> Path:
        """The folder around the image's own."""
        return next(
            (r for r in (FOLDER, EXAMPLES) if (r / self.name / "Dockerfile").is_file()), FOLDER
        )

    @property
    def requirements(self) -> list[Path]:
        """The files of pinned Python packages that the image installs."""
        return [path for path in self._own_files() if path.suffix == ".txt"]

    @property
    def dockerfile(self) -> str:
        """The Dockerfile's text."""
        return self.text or (self.root / self.name / "Dockerfile").read_text()

    def key(self, *more: str) -> str:
        """Twelve hex digits that change when anything changes that the image is made from.

        Args:
            more: what else goes in, the base's id for example.
        """
        digest = hashlib.sha256("\0".join((*more, self.site.name if self.site else "")).encode())
        for path in self._own_files():
            digest.update(f"\0{path.relative_to(self.root)}\0".encode())
            digest.update(self._content(path))
        return digest.hexdigest()[:12]

    def write(self, out: IO[bytes]) -> None:
        """Writes the context as a tar archive, in a fixed order, owned by root.

        In GNU's format: Docker takes an archive that begins with a PAX header for a Dockerfile.
        """
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as archive:
            for path in self._own_files():
                entry = _by_root(archive.gettarinfo(path, str(path.relative_to(self.root))))
                content = self._content(path)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            if self.site:
                archive.add(self.site, f"{self.name}/site", filter=_by_root)

    def _content(self, path: Path) -> bytes:
        is_replaced = self.text is not None and path == self.root / self.name / "Dockerfile"
        return self.dockerfile.encode() if is_replaced else path.read_bytes()

    def _own_files(self) -> Iterator[Path]:
        copied = " ".join(re.findall(r"^COPY (?!--)(.*)", self.dockerfile, re.MULTILINE)).split()
        for path in sorted(self.root.iterdir()):
            if path.is_file() and path.name in copied:
                yield path
        for path in sorted((self.root / self.name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def names() -> list[str]:
    """The images there are: the folders with a Dockerfile, but for that of the demo's hosts."""
    found = {path.parent.name for root in (FOLDER, EXAMPLES) for path in root.glob("*/Dockerfile")}
    return sorted(found - {HOST})


def is_example(name: str) -> bool:
    """Whether an image belongs to an example."""
    return Context(name).root == EXAMPLES


def _by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    # Group and world as the owner: the checkout's umask must not decide who can read the image.
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
