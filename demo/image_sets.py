"""`make images`: builds and pushes a set of images, and names each that could not be built."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import requests

from demo import base_image, docker_engine, network, settings
from demo import registry as registries
from demo.checkout import Checkout
from demo.timings import Timings, minutes
from demo.workloads import base_of, references
from images.build import BaseError, BuiltImage, build, default_base
from images.context import Context, is_example, names
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically

SETS = ("twins", "paper", "demo", "examples")

#: What the study printed for its images, GB unpacked.
STUDY_GB = {
    "paper-ubuntu": 9.11,
    "paper-python": 9.95,
    "paper-cuda": 12.91,
    "paper-pytorch": 9.62,
    "paper-nvcr": 40.86,
}

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What became of a set.

    Attributes:
        built: in the order of building.
        refused: image → why there is none.
        stand_ins: image → the base that it names, where another one stood in for it.
    """

    built: list[BuiltImage] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line an image."""
        lines = []
        for image in self.built:
            size = f"{image.size_bytes / 1e9:6.2f} GB"
            if image.name in STUDY_GB:
                size += f" (the study's: {STUDY_GB[image.name]:g} GB)"
            on = image.base
            if image.name in self.stand_ins:
                on += f", standing in for {self.stand_ins[image.name]}"
            lines.append(f"{image.name:<20} {size}  {image.ref}  on {on}")
        return lines + [f"{name:<20} not built: {why}" for name, why in self.refused.items()]


def members(which: str, checkout: Checkout) -> list[str]:
    """The images of a set.

    Raises:
        UserError: unknown set.
    """
    if which not in SETS:
        raise UserError(f"images: {which!r} is not a set; SET is one of {', '.join(SETS)}")
    if which == "demo":
        return sorted({name for name, _ in references(settings.source(checkout))})
    if which == "examples":
        return [name for name in names() if is_example(name)]
    ours = [name for name in names() if not is_example(name)]
    return [name for name in ours if (name in STUDY_GB) == (which == "paper")]


def make(checkout: Checkout, which: str, registry: str | None, say: Say, timings: Timings) -> int:
    """Builds and pushes a set.

    Args:
        which: of `SETS`.
        registry: `HOST:PORT`, perhaps with a path, to push to; None for this checkout's own.

    Returns:
        0 all are built and pushed; 1 some are not.

    Raises:
        UserError: no such set, no Docker, or nothing answers at the registry.
    """
    wanted = members(which, checkout)
    client = docker_engine.ensure(checkout, say)
    if registry is None:
        own = registries.describe(checkout, network.ensure(client, checkout))
        registries.ensure(checkout, own, say)
        registry = own.push
        say(f"pushing to this checkout's own registry {registry}; REGISTRY=HOST:PORT for another")
    else:
        _expect_registry(registry)
    outcome = Outcome()
    absent: dict[str, str] = {}  # base → why it can't be had
    for place, name in enumerate(wanted, start=1):

        def say_numbered(text: str, prefix: str = f"[{place}/{len(wanted)}] ") -> None:
            say(prefix + text)

        try:
            with timings.step(f"image {name}"):
                _one(checkout, name, registry, absent, outcome, say_numbered)
        except UserError as error:
            outcome.refused[name] = str(error)
            say_numbered(f"{name}: not built: {error}")
    document = {"set": which, "registry": registry, "refused": outcome.refused} | {
        "images": [asdict(image) for image in outcome.built]
    }
    record = checkout.var / "images" / f"{which}.json"
    write_atomically(record, json.dumps(document, indent=2) + "\n")
    for line in outcome.lines():
        print(line)
    print(
        f"images: {len(outcome.built)} of {len(wanted)} of the set {which} built and pushed to "
        f"{registry} in {minutes(timings.elapsed_s)}; digests: {record.relative_to(checkout.root)}"
    )
    return 0 if not outcome.refused else 1


def _one(
    checkout: Checkout, name: str, registry: str, absent: dict[str, str], outcome: Outcome, say: Say
) -> None:
    """One image on the base that it names; a twin on this machine's own where there is no other."""
    named = default_base(name)
    base = named
    if named in absent:
        base = _stand_in(checkout, name, absent[named], say)
    try:
        made = build(name, base=base, registry=registry, label=checkout.label, say=say)
    except BaseError as error:
        absent[named] = str(error).removeprefix("images: ")
        base = _stand_in(checkout, name, absent[named], say)
        made = build(name, base=base, registry=registry, label=checkout.label, say=say)
    outcome.built.append(made)
    if base != named:
        outcome.stand_ins[name] = named


def _stand_in(checkout: Checkout, name: str, why: str, say: Say) -> str:
    if name in STUDY_GB:
        raise UserError(f"{why}; nothing stands in for it: build this one where it can be pulled")
    say(f"{name}: {why}: building on this machine's own Debian instead")
    client = docker_engine.ensure(checkout, say)
    return base_of(Context(name).dockerfile, base_image.ensure(client, checkout, say))


def _expect_registry(registry: str) -> None:
    host = registry.partition("/")[0]
    for scheme in ("https", "http"):
        try:
            requests.get(f"{scheme}://{host}/v2/", timeout=5)  # a refusal is an answer too
        except requests.RequestException:
            continue
        return
    raise UserError(
        f"images: no registry answers at {host}; start it or correct REGISTRY, or leave REGISTRY out "
        "to push to this checkout's own"
    )
