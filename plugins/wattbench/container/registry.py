"""Client of the OCI distribution API, read-only: resolves image references to digests and sizes.

Which digest: that of what the tag points at, so the index's for a multi-platform image. It is what
``docker pull NAME@DIGEST`` needs, what ``docker image inspect`` then shows in ``RepoDigests``, and
what registries display. The platform's own manifest digest is kept beside it.

Sources: OCI Distribution Specification 1.1, OCI Image Specification 1.1, Docker's token
authentication specification, and the grammar of ``distribution/reference``.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NotRequired, TypeVar

from typing_extensions import TypedDict

from wattbench.analysis.model.facts_document import first_fault
from wattbench.container.image_ref import DOCKER_HUB, DOCKER_HUB_API, ImageRef
from wattbench.errors import RegistryError, UnreachableRegistryError

if TYPE_CHECKING:
    import requests

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TIMEOUT_S = (5.0, 30.0)  # to connect, between bytes
WAITS_S = (1.0, 3.0)
#: Pauses of a run's tasks, where the registry may be away for a moment: a minute and a half.
PATIENT_WAITS_S = (1.0, 3.0, 6.0, 12.0, 24.0, 45.0)
log = logging.getLogger(__name__)
D = TypeVar("D")
_CHALLENGE = re.compile(r'([a-zA-Z]+)="([^"]*)"')


@dataclass(frozen=True)
class Access:
    """How to reach one registry. ``insecure``: plain HTTP (always so on the loopback address)."""

    insecure: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class _Platform(TypedDict, total=False):
    os: str
    architecture: str
    variant: str


class _Token(TypedDict, total=False):
    token: str
    access_token: str


class _Descriptor(TypedDict):
    digest: str
    size: int
    mediaType: NotRequired[str]
    platform: NotRequired[_Platform | None]


class _Manifest(TypedDict, total=False):
    """An image's manifest, or an index of several."""

    schemaVersion: int
    mediaType: str
    config: _Descriptor
    layers: list[_Descriptor]
    manifests: list[_Descriptor]


@dataclass(frozen=True)
class Layer:
    """One layer as it is transferred: compressed size, bytes."""

    digest: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True)
class ResolvedImage:
    """What a reference stands for now.

    Attributes:
        ref: the reference that was asked for, in full.
        ref_by_digest: ``name@digest`` for ``docker pull``.
        digest: of what the tag points at (see the module's docstring).
        manifest_digest: of the platform's manifest; equal to ``digest`` without an index.
        config_digest: the image id that Docker shows after a pull.
        platform: ``os/architecture[/variant]``.
        size_bytes: sum of the layers as transferred (compressed), each layer once.
        layers: in order, the base first.
    """

    ref: str
    ref_by_digest: str
    digest: str
    manifest_digest: str
    config_digest: str
    platform: str
    size_bytes: int
    layers: tuple[Layer, ...]


def resolve(
    ref: str,
    platform: str = "linux/amd64",
    registries: Mapping[str, Access] = MappingProxyType({}),
    waits_s: tuple[float, ...] = WAITS_S,
) -> ResolvedImage:
    """Ask the registry what a reference stands for.

    Args:
        ref: tag or digest; with both, the digest counts and the tag is not looked at.
        platform: ``os/architecture[/variant]``.
        registries: how to reach each registry, by ``host[:port]`` as it stands in references.
        waits_s: pauses between tries where the registry does not answer.

    Raises:
        UnreachableRegistryError: no answer.
        RegistryError: unknown tag or digest, not allowed, or nothing for the platform.
    """
    image = ImageRef.parse(ref)
    access = registries.get(image.registry) or Access()
    with _Repository(image, access, waits_s) as source:
        digest, document = source.manifest(image.digest or image.tag or "latest")
        manifest_digest, manifest = digest, document
        if document.get("mediaType") in _INDEXES or "manifests" in document:
            manifest_digest, manifest = source.manifest(_choose(image, document, platform))
        if "config" not in manifest or "layers" not in manifest:
            raise RegistryError(
                f"{image}: not a container image that Docker can run (no config or layers); "
                "push it with a current Docker or BuildKit"
            )
        layers = tuple(
            Layer(layer["digest"], layer["size"], layer.get("mediaType", ""))
            for layer in manifest["layers"]
        )
        config_digest = manifest["config"]["digest"]
        config = source.config(config_digest)
    _check_platform(image, config, platform)
    sizes = {layer.digest: layer.size_bytes for layer in layers}
    return ResolvedImage(
        ref=str(image),
        ref_by_digest=image.at(digest),
        digest=digest,
        manifest_digest=manifest_digest,
        config_digest=config_digest,
        platform=_platform(config),
        size_bytes=sum(sizes.values()),
        layers=layers,
    )


def _platform(entry: _Platform) -> str:
    parts = (entry.get("os"), entry.get("architecture"), entry.get("variant"))
    return "/".join(str(part) for part in parts if part)


def _fits(offered: str, wanted: str) -> bool:
    """A wanted platform without variant takes any; arm64 and arm64/v8 are the same."""
    offered, wanted = (p.removesuffix("/v8") if "arm64" in p else p for p in (offered, wanted))
    return offered == wanted or (wanted.count("/") == 1 and offered.startswith(wanted + "/"))


def _choose(image: ImageRef, index: _Manifest, wanted: str) -> str:
    offered = {}
    for entry in index.get("manifests", ()):
        platform = _platform(entry.get("platform") or _Platform())
        if _fits(platform, wanted):
            return entry["digest"]
        if platform and platform != "unknown/unknown":  # attestations are not images
            offered[platform] = True
    raise RegistryError(
        f"{image}: no image for {wanted}, only for {', '.join(offered) or 'no platform'}; "
        "use an image that is built for the hosts' platform"
    )


def _check_platform(image: ImageRef, config: _Platform, wanted: str) -> None:
    if not _fits(_platform(config), wanted):
        raise RegistryError(
            f"{image}: is built for {_platform(config) or 'an unknown platform'}, not for "
            f"{wanted}; use an image that is built for the hosts' platform"
        )


class _Repository:
    """One repository of one registry over HTTP, with the login that it asks for."""

    def __init__(self, image: ImageRef, access: Access, waits_s: tuple[float, ...]) -> None:
        import requests

        self.image, self.access, self.waits_s = image, access, waits_s
        host = DOCKER_HUB_API if image.registry == DOCKER_HUB else image.registry
        self.plain = access.insecure or _is_loopback(image.registry)
        self.base = f"{'http' if self.plain else 'https'}://{host}/v2/{image.repository}"
        self.session = requests.Session()
        self.session.headers["User-Agent"] = "wattbench"
        self.authorization: str | None = None

    def __enter__(self) -> _Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def manifest(self, reference: str) -> tuple[str, _Manifest]:
        """(digest, document) of a tag or digest; the digest is computed from what came."""
        accept = ", ".join(_INDEXES + _MANIFESTS)
        answer = self._get(f"{self.base}/manifests/{reference}", accept, reference)
        body = answer.content
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        stated = answer.headers.get("Docker-Content-Digest", digest)
        wanted = reference if ":" in reference else stated
        if stated.startswith("sha256:") and {stated, wanted} != {digest}:
            raise RegistryError(
                f"{self.image}: the registry announces {wanted[:19]}… and sends {digest[:19]}…; "
                "the registry or a proxy before it is broken"
            )
        document: _Manifest = self._read(body, _Manifest)
        if document.get("schemaVersion") != 2:
            raise RegistryError(
                f"{self.image}: its manifest is of schema 1; push it again with a current Docker"
            )
        return digest, document

    def config(self, digest: str) -> _Platform:
        """An image's config blob, checked against its digest."""
        body = self._get(f"{self.base}/blobs/{digest}", "*/*", digest).content
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise RegistryError(
                f"{self.image}: blob {digest[:19]}… arrived damaged; push the image again"
            )
        return self._read(body, _Platform)

    def _read(self, body: bytes, kind: type[D]) -> D:
        """A JSON document, checked to be of its type."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(kind).validate_json(body)
        except ValidationError as error:
            raise RegistryError(
                f"{self.image}: {self.image.registry} does not answer as a registry "
                f"({first_fault(error)}); correct its name or port"
            ) from None

    def _get(self, url: str, accept: str, reference: str) -> requests.Response:
        """A GET that logs in when asked to, and turns refusals into reasons."""
        answer = self._send(url, accept)
        if answer.status_code == 401:
            self.authorization = self._log_in(answer.headers.get("WWW-Authenticate", ""))
            answer = self._send(url, accept)
        status = answer.status_code
        if status == 200:
            return answer
        registry, codes = self.image.registry, _error_codes(answer)
        if status in (401, 403):
            who = f"user '{self.access.username}'" if self.access.username else "an anonymous user"
            raise RegistryError(
                f"{self.image}: {registry} does not let {who} read it (HTTP {status}); it does "
                "not exist or needs a login: check the name, or set registries.<name>.conn_id"
            )
        if status == 404 and reference == self.image.digest:
            raise RegistryError(
                f"{self.image}: {registry} no longer has this digest; choose an image that it has"
            )
        if status == 404:
            raise RegistryError(
                f"{self.image}: {registry} does not know it ({codes or 'HTTP 404'}); "
                "check name and tag, or push it first"
            )
        if status == 429:
            raise RegistryError(
                f"{self.image}: {registry} limits requests (HTTP 429); wait, "
                "or log in by registries.<name>.conn_id"
            )
        raise RegistryError(
            f"{self.image}: {registry} answered HTTP {status} {codes}".rstrip()
            + "; see the registry's own log"
        )

    def _send(
        self,
        url: str,
        accept: str,
        params: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> requests.Response:
        import requests

        def signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # Also when there is nothing to add: else requests would take a login from ~/.netrc.
            if self.authorization:
                request.headers["Authorization"] = self.authorization
            return request

        waits = iter(self.waits_s)
        while True:
            try:
                answer = self.session.get(
                    url, headers={"Accept": accept}, params=params, auth=login or signed,
                    timeout=_TIMEOUT_S,
                )  # fmt: skip
                if answer.status_code < 500:
                    return answer
                reason = f"HTTP {answer.status_code}"
            except requests.exceptions.SSLError as error:
                raise RegistryError(
                    f"{self.image.registry}: no trusted TLS ({_why(error)}); "
                    "if it speaks plain HTTP, set registries.<name>.insecure"
                ) from error
            except (requests.ConnectionError, requests.Timeout) as error:
                reason = _why(error)
            except requests.RequestException as error:
                raise RegistryError(
                    f"{self.image.registry}: {_why(error)}; correct its name"
                ) from error
            wait = next(waits, None)
            if wait is None:
                raise UnreachableRegistryError(
                    f"{self.image.registry}: unreachable ({reason}); "
                    "check that the registry runs and its name and port in the image reference"
                )
            log.warning("%s: %s; again in %.0f s", self.image.registry, reason, wait)
            time.sleep(wait)

    def _log_in(self, challenge: str) -> str:
        """The Authorization header for a challenge: Basic, or a bearer token from its realm."""
        import requests

        user, password = self.access.username, self.access.password or ""
        scheme = challenge.split(" ", 1)[0].lower()
        if scheme == "basic" and user:
            request = requests.Request("GET", self.base, auth=(user, password)).prepare()
            return request.headers["Authorization"]
        if scheme != "bearer":
            raise RegistryError(
                f"{self.image}: {self.image.registry} asks for a login; "
                "set registries.<name>.conn_id to a connection with user and password"
            )
        asked = {name.lower(): value for name, value in _CHALLENGE.findall(challenge)}
        realm = asked.get("realm", "")
        if not realm.startswith("https://") and not (self.plain and realm.startswith("http://")):
            raise RegistryError(
                f"{self.image.registry}: asks for the login to be sent to {realm or 'nowhere'!r}, "
                "which is not encrypted; use a registry whose token service has TLS"
            )
        scope = asked.get("scope") or f"repository:{self.image.repository}:pull"
        query = {"scope": scope} | ({"service": asked["service"]} if "service" in asked else {})
        self.authorization = None
        login = (user, password) if user else None
        answer = self._send(realm, "application/json", query, login)
        if answer.status_code != 200:
            who = f"user '{user}'" if user else "an anonymous reader"
            raise RegistryError(
                f"{self.image}: {self.image.registry} gives {who} no token "
                f"(HTTP {answer.status_code}); check the name and the login of "
                "registries.<name>.conn_id"
            )
        token = self._read(answer.content, _Token)
        return f"Bearer {token.get('token') or token.get('access_token') or ''}"


def _is_loopback(registry: str) -> bool:
    host = registry.rsplit(":", 1)[0] if registry.count(":") == 1 else registry.split("]")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.lstrip("[")).is_loopback
    except ValueError:
        return False


def _error_codes(answer: requests.Response) -> str:
    try:
        errors = answer.json().get("errors", [])
        return ", ".join(str(error.get("code", "")) for error in errors)
    except (ValueError, AttributeError, TypeError):
        return ""


def _why(error: Exception) -> str:
    """The innermost reason of a chain of wrapped network errors, one line."""
    text = " ".join(str(error).split())
    for known in ("Connection refused", "Name or service not known", "No route to host",
                  "certificate verify failed", "wrong version number", "timed out"):  # fmt: skip
        if known.lower() in text.lower():
            return known.lower()
    return text[:160]
