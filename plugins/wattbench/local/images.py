"""Images by digest; what is only in this machine's Docker is copied to the embedded controller's registry."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wattbench.container import registry
from wattbench.container.image_ref import ImageRef
from wattbench.errors import RegistryError, UserError

if TYPE_CHECKING:
    import docker

Say = Callable[[str], None]


class ImageNaming:
    """Names images by digest, so that an experiment means the same bytes for ever.

    Args:
        client: of this machine's Docker.
        own_registry: brings up the controller's registry, and returns its address.
        say: receives a line before an image is copied.
    """

    def __init__(
        self, client: docker.DockerClient, own_registry: Callable[[], str], say: Say
    ) -> None:
        self._client = client
        self._own_registry = own_registry
        self._say = say
        self._platform = f"linux/{client.version()['Arch']}"

    def by_digest(self, text: str) -> str:
        """The image that `docker run` would start, by digest.

        Args:
            text: a reference, or the id of an image that Docker has here.

        Raises:
            RegistryError: it is neither in Docker here nor in its registry.
            UserError: it is only in Docker here, and there is no registry to copy it to.
        """
        found = self._in_docker(text)
        if found is None:
            try:
                return registry.resolve(text, self._platform).ref_by_digest
            except RegistryError as error:
                raise RegistryError(f"{error} (and this machine's Docker has no {text})") from None
        return self._in_its_registry(text, found) or self._copied(text, found)

    def _in_docker(self, text: str) -> dict[str, Any] | None:
        from docker.errors import DockerException, ImageNotFound

        try:
            return dict(self._client.images.get(text).attrs)
        except ImageNotFound:
            return None
        except DockerException as error:
            raise UserError(f"{text}: Docker can't look it up: {error}") from None

    def _in_its_registry(self, text: str, found: dict[str, Any]) -> str | None:
        """The same image as its registry has it; None: it was built here, or its registry is away.

        A registry on this machine counts only where it is named: another one is a controller's, and goes
        with it.
        """
        for digest in found.get("RepoDigests") or ():
            where = ImageRef.parse(digest).registry
            if where.startswith(("127.", "localhost")) and not text.startswith(f"{where}/"):
                continue
            try:
                known = registry.resolve(digest, self._platform, waits_s=())
            except RegistryError:
                continue
            if found["Id"] in (known.config_digest, known.manifest_digest, known.digest):
                return known.ref_by_digest
        return None

    def _copied(self, text: str, found: dict[str, Any]) -> str:
        """Pushes an image to the controller's registry."""
        from docker.errors import DockerException

        try:
            address = self._own_registry()
        except UserError as error:
            raise UserError(
                f"{text} is only in this machine's Docker, and trials need it by digest from a registry: "
                f"{error}; or push it to a registry of yours, and name it as it is there"
            ) from None
        name, tag = _name_in(address, text, str(found["Id"]))
        self._say(f"{text} is only in Docker here: copying {found['Size'] / 1e6:.0f} MB to {name}")
        try:
            self._client.images.get(found["Id"]).tag(name, tag)
            digest = _pushed(self._client.images.push(name, tag, stream=True, decode=True), text)
        except DockerException as error:
            raise UserError(f"{text}: can't be copied to {address}: {error}") from None
        return f"{name}:{tag}@{digest}"


def _pushed(events: Any, text: str) -> str:
    """The digest that Docker reports at the end of a push.

    Raises:
        UserError: it was refused, or reports none.
    """
    digest = None
    for event in events:
        if "error" in event:
            raise UserError(
                f"{text}: can't be copied to the registry of this machine: {event['error']}"
            )
        digest = (event.get("aux") or {}).get("Digest") or digest
    if digest is None:
        raise UserError(
            f"{text}: Docker reports no digest of its copy; push it to a registry of yours"
        )
    return str(digest)


def _name_in(address: str, text: str, image_id: str) -> tuple[str, str]:
    """Repository and tag in a registry on this machine for an image that has another name elsewhere."""
    short = image_id.removeprefix("sha256:")[:12]
    if image_id.removeprefix("sha256:").startswith(text.removeprefix("sha256:")):
        return f"{address}/by-id/{short}", "latest"
    ref = ImageRef.parse(text)
    place = ref.registry.replace(":", "-").strip("[]").lower()
    return f"{address}/{place}/{ref.repository}", ref.tag or short


def forget_copies(client: docker.DockerClient, address: str) -> int:
    """Removes the names that copies have in Docker here; an image that has no other name stays.

    Returns:
        How many names were removed.
    """
    from docker.errors import DockerException

    removed = 0
    for image in client.api.images():
        tags = image.get("RepoTags") or []
        ours = [tag for tag in tags if tag.startswith(f"{address}/")]
        for tag in ours if len(ours) < len(tags) else ():
            with contextlib.suppress(DockerException):  # gone meanwhile, or in use
                client.images.remove(tag, noprune=True)
                removed += 1
    return removed
