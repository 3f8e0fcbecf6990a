"""Image references, in the grammar of ``distribution/reference``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wattbench.errors import RegistryError

DOCKER_HUB, DOCKER_HUB_API = "docker.io", "registry-1.docker.io"

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class ImageRef:
    """A reference in full: nothing is left to a default.

    Attributes:
        registry: host and port, ``docker.io`` for Docker Hub.
        repository: path, with ``library/`` for Docker Hub's own images.
        tag: None where only a digest was given.
        digest: ``sha256:…`` or None.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Read a reference as ``docker pull`` does, but nothing else than a reference.

        Raises:
            RegistryError: it is none; says what one looks like.
        """
        found = _REFERENCE.fullmatch(text)
        if not found or len(text) > 512:
            raise RegistryError(
                f"image reference {text[:120]!r} is malformed; write it as "
                "[registry[:port]/]name[:tag] or [registry[:port]/]name@sha256:<64 hex digits>, "
                "the name in lower case"
            )
        domain, path = found["domain"], found["path"]
        if domain and not (re.search(r"[.:\[A-Z]", domain) or domain == "localhost"):
            domain, path = None, f"{domain}/{path}"
            if not re.fullmatch(rf"{_PART}(?:/{_PART})*", path):
                raise RegistryError(
                    f"image reference {text!r}: {path!r} is not a name; use lower case"
                )
        if domain in (None, "index.docker.io", DOCKER_HUB):
            domain, path = DOCKER_HUB, path if "/" in path else f"library/{path}"
        tag = found["tag"] or (None if found["digest"] else "latest")
        return cls(domain or DOCKER_HUB, path, tag, found["digest"])

    @property
    def name(self) -> str:
        """Registry and repository, as ``docker`` takes them."""
        return f"{self.registry}/{self.repository}"

    def at(self, digest: str) -> str:
        """``name@digest``: the same image for ever."""
        return f"{self.name}@{digest}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")
