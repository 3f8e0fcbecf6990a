"""Images of experiments on the virtual hosts: built and pushed where they have changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import yaml

from demo import base_image, docker_engine, settings
from demo.base_image import Bases
from demo.checkout import Checkout
from demo.registry import Registry
from demo.timings import Timings
from images.ablation import build_all
from images.build import build
from images.context import Context
from wattbench.config.loader import read_experiment

_REF = re.compile(r"registry\.local/wattbench/(?P<name>[a-z0-9-]+):(?P<tag>[A-Za-z0-9._-]+)")

_CHORE = re.compile(r": step \d+/\d+ (?!RUN|COPY)")  # steps that take no time


def ensure(
    checkout: Checkout,
    bases: Bases,
    registry: Registry,
    say: Callable[[str], None],
    timings: Timings,
) -> None:
    """Builds and pushes what the demo's experiment names; unchanged images take a second.

    Raises:
        UserError: a build or a push failed.
    """

    def one(name: str, tag: str) -> None:
        with timings.step(f"image {name}"):
            build(
                name,
                base=base_of(Context(name).dockerfile, bases),
                registry=registry.push,
                tag=tag,
                label=checkout.label,
                say=_without_chores(say),
            )

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(one, *ref) for ref in references(settings.source(checkout))]:
            done.result()


def ensure_variants(
    checkout: Checkout, experiment: str, registry: Registry, say: Callable[[str], None]
) -> None:
    """Builds and pushes all images of another experiment, with those of its factors and layers.

    Raises:
        ConfigError: the experiment is missing or refused.
        UserError: a build or a push failed.
    """
    bases = base_image.ensure(docker_engine.ensure(checkout, say), checkout, say)
    folder = settings.folder(checkout) / "experiments"
    build_all(
        read_experiment(folder / f"{experiment}.yaml"),
        base_of=lambda dockerfile: base_of(dockerfile, bases),
        registry=registry.push,
        label=checkout.label,
        say=_without_chores(say),
        folder=folder,
    )


def _without_chores(say: Callable[[str], None]) -> Callable[[str], None]:
    def filtered(text: str) -> None:
        if not _CHORE.search(text):
            say(text)

    return filtered


def references(experiment: str) -> list[tuple[str, str]]:
    """Name and tag of the images in `registry.local` that an experiment uses, each once."""
    images = yaml.safe_load(experiment)["images"].values()
    found = [_REF.fullmatch(image.get("ref", "")) for image in images]
    return list(dict.fromkeys((match["name"], match["tag"]) for match in found if match))


def base_of(dockerfile: str, bases: Bases) -> str:
    """The base that stands for the one which a Dockerfile names as its default."""
    return bases.python if re.search(r"^ARG BASE=python:", dockerfile, re.M) else bases.debian
