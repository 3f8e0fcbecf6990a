"""Builds and pushes every variant of an experiment: `python -m images.ablation EXPERIMENT.yaml`.

An image is built where its reference ends in `wattbench/NAME:TAG` and `images/NAME` has a Dockerfile; others
belong to others. Rungs of a ladder are tried first: one that can't run the workload yet is named and not
pushed, and the run leaves it out.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from wattbench.analysis.model.errors import UserError
from wattbench.config.dockerfile_ladder import ladder
from wattbench.config.experiment import Experiment
from wattbench.config.loader import read_experiment
from wattbench.container.image_ref import ImageRef
from wattbench.workloads import workload_of

from .build import BuiltImage, build
from .context import Context, names


@dataclass(frozen=True)
class Part:
    """One image to build.

    Attributes:
        image: its name in the experiment.
        folder: below `images/`.
        registry: where its reference has it.
        tag: its tag.
        dockerfile: of a rung; None for the folder's own.
    """

    image: str
    folder: str
    registry: str
    tag: str
    dockerfile: str | None = None


def parts(experiment: Experiment) -> Iterator[Part]:
    """What of an experiment is built from here, each reference once; rungs after the whole images."""
    rungs = {
        layer.image: (name, layer.number)
        for name, layers in experiment.ladders.items()
        for layer in layers[:-1]
    }
    seen = set()
    for image in sorted(experiment.images, key=lambda name: name in rungs):
        text = experiment.images[image].ref
        ref = ImageRef.parse(text) if text else None
        found = re.fullmatch(r"(?:(.+)/)?wattbench/([^/]+)", ref.repository) if ref else None
        if ref is None or ref.tag is None or found is None or found[2] not in names():
            continue
        if str(ref) in seen:
            continue
        seen.add(str(ref))
        dockerfile = None
        if image in rungs:
            dockerfile = ladder(Context(found[2]).dockerfile)[rungs[image][1]].text
        registry = f"{ref.registry}/{found[1]}" if found[1] else ref.registry
        yield Part(image, found[2], registry, ref.tag, dockerfile)


def build_all(
    experiment: Experiment,
    *,
    base_of: Callable[[str], str | None],
    registry: str | None = None,
    label: str | None = None,
    say: Callable[[str], None] = print,
    folder: Path | None = None,
) -> list[BuiltImage]:
    """Builds and pushes the images of an experiment and the rungs that can run its workload.

    Args:
        experiment: with its variants.
        base_of: the base by a Dockerfile's text; None for the one that it names.
        registry: where to push to, where that is another address than the references'.
        label: a further label, `KEY=VALUE`.
        say: receives progress, one line at a time.
        folder: of the experiment's file.

    Raises:
        UserError: a build or a push failed, nothing is built from here, or of a ladder nothing can be
            compared.
    """
    built, able = [], set()
    wanted = list(parts(experiment))
    if not wanted:
        raise UserError(
            "images: no reference of the experiment ends in wattbench/NAME:TAG, NAME being one of "
            + ", ".join(names())
        )
    for number, part in enumerate(wanted, 1):
        report = partial(_report, say, f"{number} of {len(wanted)}, {part.image}: ", part.folder)
        make = partial(
            build, part.folder, base=base_of(part.dockerfile or Context(part.folder).dockerfile),
            tag=part.tag, label=label, dockerfile=part.dockerfile, say=report,
        )  # fmt: skip
        if part.dockerfile and (why := _fault(make().ref, part.image, experiment, folder)):
            report(f"can't run the workload yet ({why}); left out")
            continue
        able.add(part.image)
        built.append(make(registry=registry or part.registry))
    for name, layers in experiment.ladders.items():
        if sum(layer.image in able for layer in layers) < 2:
            raise UserError(
                f"images.{name}.layers: only the whole image can run the workload, so there is nothing to "
                "compare; remove layers: true, or split the layer that brings the framework"
            )
    return built


def _report(say: Callable[[str], None], which: str, folder: str, text: str) -> None:
    """One line of a build, which names its folder, as one of an image of that folder."""
    say(which + text.removeprefix(f"{folder}: "))


def _fault(ref: str, image: str, experiment: Experiment, beside: Path | None) -> str | None:
    """Why an image can't run the experiment's workload, here on a CPU, in a few words; None if it can."""
    settings = experiment.workload_of(image)
    workload = workload_of(settings)
    program, *arguments = workload.probe_argv(
        settings, replace(experiment.place_of(image), device="cpu")
    )
    with tempfile.TemporaryDirectory() as folder:
        mounts = []
        for path, sha256 in workload.files(settings).items():
            file = Path(folder) / sha256
            file.write_bytes(workload.content(settings, path, beside))
            mounts += ["--mount", f"type=bind,source={file},target={path},readonly"]
        Path(folder).chmod(0o755)
        result = subprocess.run(
            [
                "docker", "run", "--rm", "--network", "none", *mounts, "--entrypoint", program, ref,
                *arguments,
            ],
            capture_output=True, text=True,
        )  # fmt: skip
    if result.returncode == 0:
        return None
    said = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
    last = said[-1].strip() if said else f"exit code {result.returncode}"
    refusal = re.search(r'"message": "([^"]+)"', last)
    return (refusal[1] if refusal else last)[:120]


def main(argv: Sequence[str] | None = None) -> int:
    """Builds an experiment's images; 0 done, 2 a mistake or a failed build, in one line."""
    parser = argparse.ArgumentParser(prog="python -m images.ablation", description=__doc__)
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT.yaml")
    parser.add_argument("--base", help="instead of the bases that the Dockerfiles name")
    parser.add_argument(
        "--registry", metavar="HOST:PORT", help="where to push to (default: as the references say)"
    )
    parser.add_argument("--label", metavar="KEY=VALUE")
    options = parser.parse_args(argv)
    try:
        built = build_all(
            read_experiment(options.experiment),
            base_of=lambda _: options.base,
            registry=options.registry,
            label=options.label,
            folder=options.experiment.parent,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(built)} images built and pushed; trigger the experiment {options.experiment.stem}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
