"""The JSON documents of an image, typed: index, manifests, and the image config.

Fields that no audit reads are ignored, as the OCI image specification demands. A field of the wrong type
makes the image unusable: no runtime would start it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from wattbench.analysis.model.errors import InputError

REF_NAME = "org.opencontainers.image.ref.name"
#: Indexes inside indexes.
INDEX_DEPTH = 4
#: Linux stacks up to 500 lower directories in one overlay mount.
_LAYERS = 500


def _absent_if_null(value: Any) -> Any:
    return () if value is None else value


def _empty_if_null(value: Any) -> Any:
    return {} if value is None else value


Digest = Annotated[str, Field(pattern=r"^[a-z0-9+._-]{1,40}:[0-9a-fA-F]{32,128}$")]
Texts = Annotated[tuple[str, ...], BeforeValidator(_absent_if_null)]
TextByName = Annotated[dict[str, str], BeforeValidator(_empty_if_null)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)


class Platform(_Document):
    """What an image of an index is for."""

    os: str = "?"
    architecture: str = "?"

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


class Descriptor(_Document):
    """A reference to a blob by its digest."""

    digest: Digest
    platform: Platform | None = None
    annotations: TextByName = {}

    @property
    def name(self) -> str | None:
        """The tag that an index gives it."""
        return self.annotations.get(REF_NAME)

    @property
    def stated_platform(self) -> Platform:
        """The platform, of unknown parts where none is given."""
        return self.platform or Platform()


class Index(_Document):
    """``index.json``, or an index below it."""

    manifests: tuple[Descriptor, ...]


class Manifest(_Document):
    """An OCI manifest."""

    config: Descriptor
    layers: Annotated[
        tuple[Descriptor, ...], BeforeValidator(_absent_if_null), Field(max_length=_LAYERS)
    ] = ()


class SavedImage(_Document):
    """One image of the ``manifest.json`` that ``docker save`` writes."""

    config: str = Field(alias="Config")
    tags: Texts = Field((), alias="RepoTags")
    layers: Annotated[Texts, Field(max_length=_LAYERS)] = Field(alias="Layers")


class Settings(_Document):
    """The ``config`` section: what a container starts with."""

    env: Texts = Field((), alias="Env")
    entrypoint: tuple[str, ...] | str | None = Field(None, alias="Entrypoint")
    command: tuple[str, ...] | str | None = Field(None, alias="Cmd")
    user: str | None = Field(None, alias="User")
    working_dir: str | None = Field(None, alias="WorkingDir")
    labels: TextByName = Field({}, alias="Labels")

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables by name."""
        return dict(one.partition("=")[::2] for one in self.env)


class RootFs(_Document):
    """The layers by their uncompressed digests."""

    diff_ids: Texts = ()


class Step(_Document):
    """One step of the build."""

    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class Config(_Document):
    """The image config."""

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    created: str | None = None
    settings: Annotated[Settings, BeforeValidator(_empty_if_null)] = Field(
        Settings(), alias="config"
    )
    rootfs: Annotated[RootFs, BeforeValidator(_empty_if_null)] = RootFs()
    history: Annotated[tuple[Step, ...], BeforeValidator(_absent_if_null)] = ()

    @property
    def platform(self) -> str:
        """``os/architecture/variant``, without what is not given."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


_Any = TypeVar("_Any", bound=_Document)
Kind = Literal["index", "manifest", "config"]


def typed(model: type[_Any], value: Any, place: str) -> _Any:
    """A parsed document as its type.

    Raises:
        InputError: a field is absent or of another type.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"][:6]) or "the document"
        raise InputError(
            f"{place}: {key}: {first['msg'].lower()[:200]}; save the image again"
        ) from error
