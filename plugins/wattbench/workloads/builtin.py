"""The workload ``builtin``: image classification by a program of ours, the same bytes in every image.

An image needs Python 3.9 or later, numpy and the framework; the program is mounted read-only.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from wattbench.workloads.program.names import FRAMEWORKS, PRECISIONS, PROGRAMS
from wattbench.workloads.program_bundle import bundle
from wattbench.workloads.protocol import Expectation, Place, Unit
from wattbench.workloads.settings import Model, PositiveInt, Settings

#: Where the program is in a container.
PATH = "/opt/wattbench/workload.pyz"
#: Stands for the program in an image's own command.
PLACEHOLDER = "{workload}"


def _one_of(names: Sequence[str], more: str = "") -> Callable[[str], str]:
    """A validator that names the nearest choice."""

    def check(name: str) -> str:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.0)[0]
            raise ValueError(f"did you mean {near!r}? There are: {', '.join(names)}{more}")
        return name

    return check


_OTHERS = "; a program of your own goes into workload.command"
Program = Annotated[
    str, AfterValidator(_one_of(PROGRAMS, _OTHERS)), Field(json_schema_extra={"enum": [*PROGRAMS]})
]
Framework = Annotated[
    str, AfterValidator(_one_of(FRAMEWORKS)), Field(json_schema_extra={"enum": [*FRAMEWORKS]})
]
Precision = Annotated[
    str, AfterValidator(_one_of(PRECISIONS)), Field(json_schema_extra={"enum": [*PRECISIONS]})
]


class Pass(Model):
    """One steady phase: a number of inferences at one resolution.

    Attributes:
        resolution: Width and height of the input, pixels.
        iterations: Number of inferences.
    """

    resolution: Annotated[int, Field(ge=32, le=8192)]
    iterations: PositiveInt


class BuiltinSettings(Settings):
    """The built-in program: inference of one model, in every image.

    Attributes:
        program: Model: ``resnet50`` or ``vit-tiny``.
        framework: Framework that runs it; an image may have its own.
        precision: Precision of the arithmetic.
        batch: Inputs per inference.
        passes: Steady phases in this order, each resolution once.
    """

    kind: Literal["builtin"] = "builtin"
    program: Program = "resnet50"
    framework: Framework = "torch"
    precision: Precision = "fp32"
    batch: PositiveInt = 1
    passes: Annotated[list[Pass], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_pass_per_resolution(self) -> BuiltinSettings:
        seen = [p.resolution for p in self.passes]
        if len(set(seen)) < len(seen):
            raise ValueError(f"passes name a resolution twice: {seen}; join them")
        return self


class Builtin:
    """The program of ``images/workload``."""

    kind = "builtin"
    Settings: type[Settings] = BuiltinSettings

    def argv(self, settings: BuiltinSettings, place: Place) -> tuple[str, ...]:
        """Python with the program; an image's own command instead gets the same arguments."""
        passes = ",".join(f"{p.resolution}:{p.iterations}" for p in settings.passes)
        return self._argv(settings, place, passes)

    def probe_argv(self, settings: BuiltinSettings, place: Place) -> tuple[str, ...]:
        """One inference at the smallest resolution."""
        least = min(p.resolution for p in settings.passes)
        return (*self._argv(settings, place, f"{least}:1"), "--warmup-iterations", "0")

    def idle_argv(self, settings: BuiltinSettings, place: Place, seconds: float) -> tuple[str, ...]:
        """The program, which loads what it would compute with and then waits."""
        return (*self.argv(settings, place), "--idle-s", f"{seconds:g}")

    def warm_argv(
        self, settings: BuiltinSettings, place: Place, seconds: float, gpus: int
    ) -> tuple[str, ...]:
        """The program, which repeats its work on every GPU until the time is over."""
        return (*self.argv(settings, place), "--warm-s", f"{seconds:g}", "--gpus", str(gpus))

    def _argv(self, settings: BuiltinSettings, place: Place, passes: str) -> tuple[str, ...]:
        start = place.command or (place.python, PLACEHOLDER)
        return (
            *(PATH if word == PLACEHOLDER else word for word in start),
            "--program", settings.program, "--framework", settings.framework,
            "--precision", settings.precision, "--device", place.device,
            "--batch", str(settings.batch), "--passes", passes,
        )  # fmt: skip

    def files(self, _settings: BuiltinSettings) -> Mapping[str, str]:
        """The program."""
        return {PATH: bundle().sha256}

    def content(self, _settings: BuiltinSettings, _path: str, _folder: Path | None) -> bytes:
        """The program's bytes."""
        return bundle().content

    def expectation(self, settings: BuiltinSettings) -> Expectation:
        """Event lines with device, results and fingerprints."""
        return self._expectation(settings, [p.model_dump() for p in settings.passes])

    def probe_expectation(self, settings: BuiltinSettings) -> Expectation:
        """The same of one inference."""
        least = min(p.resolution for p in settings.passes)
        return self._expectation(settings, [{"resolution": least, "iterations": 1}])

    def _expectation(self, settings: BuiltinSettings, passes: list[dict[str, Any]]) -> Expectation:
        work = {
            "program": settings.program, "framework": settings.framework,
            "precision": settings.precision, "batch": settings.batch, "passes": passes,
        }  # fmt: skip
        return Expectation(unit=Unit("image"), reports_itself=True, work=work)
