"""Factors and layers: expansion of an experiment into one image per variant. Pure.

Plan, pull and trials handle the variants as ordinary images. The differences of each from the reference are
kept beside them, for the report.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from wattbench.config.container_settings import ContainerSettings
from wattbench.config.dockerfile_ladder import ladder
from wattbench.config.types import (
    NAME_LENGTH,
    Command,
    Environment,
    Image,
    Model,
    Name,
    Reference,
    WorkloadChanges,
)
from wattbench.container.image_ref import ImageRef

#: A block holds every image once; more would take too long, and a comparison of that many decides nothing.
MOST_IMAGES = 40

Design = Literal["one-factor", "factorial"]


class Change(Model):
    """One level of a factor: its changes to the reference image; mappings are joined with the reference's.

    Attributes:
        ref: Reference of another image.
        command: Another command.
        python: Another Python interpreter.
        env: Additional environment variables.
        framework: Short for ``workload: {framework: …}``.
        workload: Keys of ``workload`` that differ.
        container: Settings of the container that differ.
    """

    ref: Reference | None = None
    command: Command | None = None
    python: str | None = None
    env: Environment = Field(default={})
    framework: str | None = None
    workload: WorkloadChanges = Field(default={})
    container: ContainerSettings = Field(default=ContainerSettings())

    def settings(self) -> Iterator[str]:
        """What it sets: ``ref``, ``env.OMP_NUM_THREADS``, ``workload.batch``, …."""
        alone = ("ref", "command", "python")
        yield from (k for k in alone if getattr(self, k) is not None)
        yield from (f"env.{variable}" for variable in self.env)
        framework = ["framework"] if self.framework is not None else []
        yield from (f"workload.{key}" for key in [*self.workload, *framework])
        for key, value in self.container.set_keys().items():
            inner = value if isinstance(value, dict) else ()
            yield from ([f"container.{key}.{i}" for i in inner] or [f"container.{key}"])

    def applied_to(self, image: Image) -> Image:
        """The image with this change.

        Raises:
            ValidationError: it can't be changed so.
        """
        alone = {
            key: value
            for key in ("ref", "command", "python")
            if (value := getattr(self, key)) is not None
        }
        framework = {} if self.framework is None else {"framework": self.framework}
        joined = {
            "env": image.env | self.env,
            "framework": None,
            "workload": image.changes | self.workload | framework,
            "container": image.container.changed(self.container).set_keys(),
            "layers": False,
        }
        return Image.model_validate(image.model_dump() | alone | joined)


def _levels(value: object) -> object:
    """YAML reads the level ``4`` as a number, and ``off`` as a truth value."""
    if not isinstance(value, dict):
        return value
    for level in value:
        if isinstance(level, bool):
            raise ValueError(
                "YAML reads on, off, yes and no as true and false; write the level in quotes"
            )
    return {str(k) if isinstance(k, int) else k: v for k, v in value.items()}


Levels = Annotated[dict[Name, Change], BeforeValidator(_levels), Field(min_length=1)]
Factors = Annotated[dict[Name, Levels], Field(min_length=1)]


class Layer(Model):
    """One rung of an image's ladder: the image that ends with this layer."""

    image: Name
    number: Annotated[int, Field(ge=0)]
    instruction: str


@dataclass(frozen=True)
class Expanded:
    """What a declaration stands for.

    Attributes:
        images: by name, those of the experiment first.
        variants: image → factor → level; what is not named is as in the reference.
        ladders: image → its rungs, the base first, itself last.
    """

    images: dict[str, Image]
    variants: dict[str, dict[str, str]]
    ladders: dict[str, list[Layer]]


def expand(
    images: Mapping[str, Image],
    reference: str,
    factors: Mapping[str, Mapping[str, Change]],
    design: Design,
    dockerfile: Callable[[str], str],
) -> Expanded:
    """The images that an experiment measures.

    Args:
        images: as listed.
        reference: the one that factors change.
        factors: factor → level → change.
        design: ``one-factor`` changes one factor at a time, ``factorial`` combines all levels of all.
        dockerfile: text of the Dockerfile by the name of its folder; raises ValueError without one.

    Raises:
        ValueError: the declaration is none; begins with the place in it.
    """
    found = Expanded(dict(images), {}, {})
    for settings in _settings(factors, design):
        name = "-".join(part for pair in settings.items() for part in pair)
        path = ", ".join(f"factors.{factor}.{level}" for factor, level in settings.items())
        changed = images[reference]
        for factor, level in settings.items():
            changed = _changed(changed, factors[factor][level], f"factors.{factor}.{level}")
        _add(found.images, name, changed, path)
        found.variants[name] = settings
    for name, image in images.items():
        if image.layers:
            _add_ladder(found, name, image, dockerfile)
    if (found.variants or found.ladders) and len(found.images) > MOST_IMAGES:
        raise ValueError(
            f"factors and layers make more than {MOST_IMAGES} images; declare fewer levels"
            + (", or set design: one-factor" if design == "factorial" else "")
        )
    return found


def _settings(
    factors: Mapping[str, Mapping[str, Change]], design: Design
) -> Iterator[dict[str, str]]:
    if design == "one-factor":
        yield from ({factor: level} for factor, levels in factors.items() for level in levels)
        return
    owner: dict[str, str] = {}
    for factor, levels in factors.items():
        for key in sorted({key for change in levels.values() for key in change.settings()}):
            if owner.setdefault(key, factor) != factor:
                raise ValueError(
                    f"factors.{factor}: {owner[key]} sets {key} too, so their levels can't be combined; "
                    "set design: one-factor"
                )
    choices = [[(factor, level) for level in (None, *levels)] for factor, levels in factors.items()]
    combined = [
        {factor: level for factor, level in chosen if level is not None}
        for chosen in itertools.islice(itertools.product(*choices), MOST_IMAGES + 2)
    ]
    # The reference itself comes first; single changes before combinations.
    yield from sorted(combined[1:], key=len)


def _changed(image: Image, change: Change, path: str) -> Image:
    try:
        changed = change.applied_to(image)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {message}") from None
    if changed == image.model_copy(update={"layers": False}):
        raise ValueError(
            f"{path}: changes nothing, it is the reference; change something or remove it"
        )
    return changed


def _add(images: dict[str, Image], name: str, image: Image, path: str) -> None:
    if len(name) > NAME_LENGTH:
        raise ValueError(
            f"{path}: its image would be named {name!r}, longer than {NAME_LENGTH}; shorten factor or level"
        )
    if name in images:
        raise ValueError(f"{path}: there is an image {name!r} already; rename one of them")
    plain = image.model_copy(update={"layers": False})
    for other, there in images.items():
        if there.model_copy(update={"layers": False}) == plain:
            raise ValueError(f"{path}: is the same as {other!r}; remove one of them")
    images[name] = image


def _add_ladder(found: Expanded, name: str, image: Image, dockerfile: Callable[[str], str]) -> None:
    assert image.ref is not None
    ref = ImageRef.parse(image.ref)
    folder = ref.repository.rpartition("/")[2]
    if ref.digest is not None:
        raise ValueError(
            f"images.{name}.layers: its layers have tags of their own; name it by a tag"
        )
    try:
        rungs = ladder(dockerfile(folder))
    except ValueError as error:
        raise ValueError(f"images.{name}.layers: images/{folder}/Dockerfile {error}") from None
    layers = []
    for rung in rungs[:-1]:
        # The tag says what it was made from: a changed Dockerfile needs other images.
        digest = hashlib.sha256(rung.text.encode()).hexdigest()[:8]
        tagged = f"{ref.name}:{ref.tag}-layer-{rung.number}-{digest}"
        own = f"{name}-layer-{rung.number}"
        _add(
            found.images,
            own,
            image.model_copy(update={"ref": tagged, "layers": False}),
            f"images.{name}.layers",
        )
        layers.append(Layer(image=own, number=rung.number, instruction=rung.instruction))
    layers.append(Layer(image=name, number=rungs[-1].number, instruction=rungs[-1].instruction))
    found.ladders[name] = layers
