"""Image pulls on a worker host, by digest, with progress and a watchdog; inspection of local images.

Works on the host's own Docker socket (``docker.APIClient`` on ``unix://``). The pull is sent through
the client as a plain request, since ``APIClient.pull`` waits without limit: when a registry hangs, Docker
sends no event at all; when it is down, Docker sends a countdown every second. In both cases no bytes are
transferred.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypedDict, cast

from wattbench.container.image_ref import ImageRef
from wattbench.container.pull_progress import PullEvent, PullProgress
from wattbench.container.registry import Access, ResolvedImage
from wattbench.errors import HostError, RegistryError

if TYPE_CHECKING:
    from wattbench.analysis.model.run_document import PullDocument

log = logging.getLogger(__name__)

_CONNECT_S = 10.0
# What a retry can't correct, by words of dockerd and of registries, and what a person can do about it.
_PERMANENT = (
    ("no space left on device", "free space in Docker's folder on this host, then clear the task"),
    ("manifest unknown", "the digest is gone from the registry: choose an image that is there"),
    ("not found", "the digest is gone from the registry: choose an image that is there"),
    ("name unknown", "check the image's name"),
    ("no matching manifest", "use an image that is built for the host's platform"),
    ("unauthorized", "check the login of registries.<name>.conn_id"),
    ("authentication required", "check the login of registries.<name>.conn_id"),
    ("denied", "check the login of registries.<name>.conn_id"),
    ("no basic auth credentials", "set registries.<name>.conn_id"),
    ("server gave http response to https client",
     "add the registry to insecure-registries in this host's daemon.json"),
    ("x509:", "let this host's Docker trust the registry's certificate"),
    ("invalid reference format", "check the image's name"),
)  # fmt: skip


@dataclass(frozen=True)
class PullRules:
    """When to give up, and how much room to ask for.

    Attributes:
        silence_s: an attempt ends after this time without a byte, s (a registry may hang for 45 s and
            go on, so keep it over 60).
        waits_s: pauses between attempts; there is one attempt more.
        report_every_s: minimum interval between two lines of progress, s.
        room_factor: bytes needed on the host for a byte transferred. Docker keeps the compressed
            layer while it unpacks it, and layers of ML images unpack to 2–3 times their size.
        room_margin_bytes: what must stay free beyond that.
    """

    silence_s: float = 90.0
    waits_s: tuple[float, ...] = (5.0, 15.0, 45.0)
    report_every_s: float = 5.0
    room_factor: float = 3.5
    room_margin_bytes: int = 512 << 20

    def room_bytes(self, transferred: int) -> int:
        """Free bytes that a pull of this compressed size needs."""
        return int(transferred * self.room_factor) + self.room_margin_bytes


@dataclass(frozen=True)
class PullReport:
    """What one pull took.

    Attributes:
        image: ``name@digest``.
        bytes: received by the host, as Docker reported them (compressed).
        seconds: from the first request to the verified image, with retries and pauses.
        already_present: nothing had to be fetched.
        layers: of the image. ``layers_present``: those that the host had.
        attempts: requests made; 0 where the image was there.
        image_id: Docker's id.
        size_bytes_unpacked: on the host.
    """

    image: str
    digest: str
    bytes: int
    seconds: float
    already_present: bool
    layers: int
    layers_present: int
    attempts: int
    image_id: str
    size_bytes_unpacked: int

    def document(self) -> PullDocument:
        """As the store keeps it."""
        return cast("PullDocument", asdict(self))


class InspectedImage(TypedDict, total=False):
    """Of Docker's answer to ``inspect``, what is read here."""

    Id: str
    Size: int
    RepoDigests: list[str] | None
    RepoTags: list[str] | None
    Created: str | None
    Os: str
    Architecture: str
    Variant: str
    Config: _ImageConfig | None
    RootFS: _Layers | None


class _ImageConfig(TypedDict, total=False):
    Env: list[str] | None
    Entrypoint: list[str] | None
    Cmd: list[str] | None
    User: str | None
    WorkingDir: str | None
    Labels: dict[str, str] | None


class _Layers(TypedDict, total=False):
    Layers: list[str] | None


class _BrokeOffError(Exception):
    """This attempt is over, another may do better."""


def pull(
    api: Any,
    image: ResolvedImage,
    *,
    login: Access | None = None,
    free_bytes: int | None = None,
    rules: PullRules | None = None,
    say: Callable[[str], None] = log.info,
) -> PullReport:
    """Bring an image to a host by its digest, unless it is there, and verify what came.

    Args:
        api: an ``APIClient`` of the host.
        image: as :func:`wattbench.registry.resolve` gave it.
        login: the registry's user and password, sent with this request only.
        free_bytes: free space in Docker's folder on the host; None: not known, not checked.
        rules: patience and room.
        say: gets a line of progress every few seconds.

    Raises:
        RegistryError: the registry's fault, or nothing arrives any more.
        HostError: the host's: no room, Docker does not answer, another image than asked for.
    """
    rules = rules or PullRules()
    began = time.monotonic()
    found = _find(api, image.ref_by_digest)
    if found is not None:
        return _report(image, found, began, attempts=0)
    _check_room(image, free_bytes, rules)
    say(f"{image.ref_by_digest}: {image.size_bytes / 1e6:.1f} MB in {len(image.layers)} layers")
    sizes = {layer.digest.split(":")[1][:12]: layer.size_bytes for layer in image.layers}
    received, had, attempts = 0, set[str](), 0
    for wait_s in (*rules.waits_s, None):
        attempts += 1
        progress = PullProgress(sizes)
        try:
            _attempt(api, image, login or Access(), rules, progress, say)
            received += progress.received
            had = had if attempts > 1 else progress.present
            break
        except _BrokeOffError as error:
            received += progress.received
            had = had if attempts > 1 else progress.present
            if wait_s is None:
                raise RegistryError(
                    f"{image.ref_by_digest}: {error} ({attempts} attempts, "
                    f"{received / 1e6:.1f} MB received); check the registry and the host's network"
                ) from error
            say(f"attempt {attempts} broke off: {error}; again in {wait_s:.0f} s")
            time.sleep(wait_s)
    found = _find(api, image.ref_by_digest)
    if found is None:
        raise HostError(
            f"{image.ref_by_digest}: Docker says it is pulled and does not have it; "
            "look at dockerd's log on the host",
            code="image",
        )
    return _report(image, found, began, attempts=attempts, received=received, had=len(had))


def _check_room(image: ResolvedImage, free_bytes: int | None, rules: PullRules) -> None:
    needed = rules.room_bytes(image.size_bytes)
    if free_bytes is not None and free_bytes < needed:
        raise HostError(
            f"{image.ref_by_digest}: needs about {needed / 1e9:.1f} GB in Docker's folder, "
            f"{free_bytes / 1e9:.1f} GB are free; remove images from this host or give it a larger "
            "disk",
            code="disk-full",
        )


def _attempt(
    api: Any,
    image: ResolvedImage,
    login: Access,
    rules: PullRules,
    progress: PullProgress,
    say: Callable[[str], None],
) -> None:
    last_move = last_said = time.monotonic()
    with closing(_events(api, image, login, rules.silence_s)) as events:
        for event in events:
            now = time.monotonic()
            if progress.feed(event, now):
                last_move = now
            if progress.error is not None:
                _raise_for(image, progress.error)
            if now - last_move > rules.silence_s:
                raise _BrokeOffError(f"no byte arrived for {rules.silence_s:.0f} s")
            if now - last_said >= rules.report_every_s:
                last_said = now
                say(progress.line(now))
    say(progress.line(time.monotonic()))


def _events(
    api: Any, image: ResolvedImage, login: Access, silence_s: float
) -> Generator[PullEvent, None, None]:
    """Docker's events of one pull; closing it closes the connection, which ends the pull."""
    import requests

    name, digest = image.ref_by_digest.split("@")
    headers = {}
    if login.username:
        token = {"username": login.username, "password": login.password or ""}
        headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(token).encode()).decode()
    try:
        with api.post(
            f"{api.base_url}/v{api.api_version}/images/create",
            params={"fromImage": name, "tag": digest, "platform": image.platform},
            headers=headers,
            stream=True,
            timeout=(_CONNECT_S, silence_s),
        ) as answer:
            if answer.status_code >= 400:
                _raise_for(image, _message(answer))
            for line in answer.iter_lines(chunk_size=None):
                if line.strip():
                    yield json.loads(line)
    except requests.exceptions.ReadTimeout as error:
        raise _BrokeOffError(f"Docker sent nothing for {silence_s:.0f} s") from error
    except requests.exceptions.RequestException as error:
        if "timed out" in str(error).lower():
            raise _BrokeOffError(f"Docker sent nothing for {silence_s:.0f} s") from error
        raise _BrokeOffError(f"the connection to the host's Docker broke ({error})") from error
    except ValueError as error:
        raise _BrokeOffError(f"Docker's answer was cut ({error})") from error


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"


def _raise_for(image: ResolvedImage, message: str) -> None:
    """Permanent faults become errors with an action, all others are worth another attempt."""
    text = " ".join(message.split())[:300]
    for words, action in _PERMANENT:
        if words in text.lower():
            whole = f"{image.ref_by_digest}: {text}; {action}"
            if words == "no space left on device":
                raise HostError(whole, code="disk-full")
            raise RegistryError(whole)
    raise _BrokeOffError(text)


@contextmanager
def _answering() -> Iterator[None]:
    """Docker, or the way to it, may be away for a while, which the error's code says."""
    import docker.errors
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise HostError(
            f"the host's Docker does not answer ({error}); check dockerd there", code="docker"
        ) from error


def _find(api: Any, ref: str) -> InspectedImage | None:
    """What Docker reports of an image; None where it has none."""
    import docker.errors

    with _answering():
        try:
            found: InspectedImage = api.inspect_image(ref)
        except docker.errors.ImageNotFound:
            return None
    return found


def is_there(api: Any, image: ResolvedImage) -> bool:
    """Whether the host has the image, so that :func:`pull` will fetch nothing.

    Raises:
        HostError: Docker does not answer.
    """
    return _find(api, image.ref_by_digest) is not None


def holds(found: InspectedImage, ref_by_digest: str) -> bool:
    """Whether an image, as inspected, is the one of this name and digest."""
    wanted = ImageRef.parse(ref_by_digest)
    return any(ImageRef.parse(ref) == wanted for ref in found.get("RepoDigests") or ())


def _report(
    image: ResolvedImage,
    found: InspectedImage,
    began: float,
    *,
    attempts: int,
    received: int = 0,
    had: int = 0,
) -> PullReport:
    if not holds(found, image.ref_by_digest):
        raise HostError(
            f"{image.ref_by_digest}: Docker has it as {found.get('RepoDigests')}; "
            "remove the image from the host and pull again",
            code="image",
        )
    if found["Id"] not in (image.config_digest, image.manifest_digest, image.digest):
        raise HostError(
            f"{image.ref_by_digest}: Docker holds id {found['Id'][:19]}…, the registry says "
            f"{image.config_digest[:19]}…; remove the image from the host and pull again",
            code="image",
        )
    return PullReport(
        image=image.ref_by_digest,
        digest=image.digest,
        bytes=received,
        seconds=round(time.monotonic() - began, 3),
        already_present=attempts == 0,
        layers=len(image.layers),
        layers_present=had if attempts else len(image.layers),
        attempts=attempts,
        image_id=str(found["Id"]),
        size_bytes_unpacked=int(found["Size"]),
    )


def inspect(api: Any, ref: str) -> dict[str, object]:
    """Provenance of an image and what it would run, for the store.

    Args:
        api: as for :func:`pull`.
        ref: tag, digest or id.

    Returns:
        ``id, digests, tags, created, platform, size_bytes, env, entrypoint, cmd, user, workdir,
        labels, layer_diff_ids, history`` (``[{created_by, size_bytes, comment}]``, the base first).

    Raises:
        HostError: there is none, or Docker does not answer.
    """
    found = _find(api, ref)
    if found is None:
        raise HostError(f"{ref}: not on this host; pull it first", code="image")
    config = found.get("Config") or _ImageConfig()
    parts = (found.get("Os"), found.get("Architecture"), found.get("Variant"))
    with _answering():
        layers = api.history(found["Id"])
    history = [
        {"created_by": one["CreatedBy"], "size_bytes": one["Size"], "comment": one["Comment"]}
        for one in reversed(layers)
    ]
    return {
        "id": found["Id"],
        "digests": list(found.get("RepoDigests") or ()),
        "tags": list(found.get("RepoTags") or ()),
        "created": found.get("Created"),
        "platform": "/".join(part for part in parts if part),
        "size_bytes": found["Size"],
        "env": dict(entry.partition("=")[::2] for entry in config.get("Env") or ()),
        "entrypoint": config.get("Entrypoint"),
        "cmd": config.get("Cmd"),
        "user": config.get("User") or "",
        "workdir": config.get("WorkingDir") or "",
        "labels": dict(config.get("Labels") or {}),
        "layer_diff_ids": list((found.get("RootFS") or _Layers()).get("Layers") or ()),
        "history": history,
    }
