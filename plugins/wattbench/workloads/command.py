"""The workload ``command``: a program of the user's, in every image.

Its work is counted and compared by what it prints: lines that match patterns, or the event lines of
docs/workload-protocol.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wattbench.workloads.files import Files, source_files
from wattbench.workloads.protocol import Expectation, Place, Rule, Unit
from wattbench.workloads.settings import Command, Model, Settings


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None


def _with_group(pattern: str) -> str:
    groups = _compiled(pattern).groups
    if groups != 1:
        raise ValueError(
            f"{pattern!r} has {groups} groups; put exactly one pair of parentheses around the value "
            "(other parentheses as (?:…))"
        )
    return pattern


Pattern = Annotated[str, AfterValidator(lambda pattern: _compiled(pattern).pattern)]
ValuePattern = Annotated[str, AfterValidator(_with_group)]
UnitName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9 -]{0,39}$")]


class UnitSettings(Model):
    """What the energy is divided by: a fixed count, a number that the program prints, or event lines.

    Attributes:
        name: Name of one unit: small letters, singular.
        pattern: Regular expression with one group, the number of units; it must match exactly one line.
        count: Number of units per trial, where it is fixed.
    """

    name: UnitName
    pattern: ValuePattern | None = None
    count: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> UnitSettings:
        if self.pattern is not None and self.count is not None:
            raise ValueError("pattern and count exclude each other; remove one")
        return self


class SameWork(Model):
    """A value that all images must print alike: a checksum, an accuracy, ….

    Attributes:
        pattern: Regular expression with one group, the value; it must match exactly one line.
        tolerance: Maximum relative difference of two numbers; null: compared as text.
    """

    pattern: ValuePattern
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None


class Ready(Model):
    """The line that ends the phase ``start``.

    Attributes:
        pattern: Regular expression; the first line that matches counts.
    """

    pattern: Pattern


class CommandSettings(Settings):
    """A program of your own.

    Attributes:
        command: Command to start, a list or one line; null: the image's own entry point. An image may have
            its own ``command``.
        files: Path in the container → file beside the experiment's YAML; mounted read-only.
        unit: Unit of work that the energy is divided by; null: the window's joules only.
        same_work: Output that shows that all images did the same work; null: equal work is not proven.
        ready: Line that ends the phase ``start``; null: the window is not split, unless event lines do.
    """

    kind: Literal["command"] = "command"
    command: Command | None = None
    files: Files = Field(default={})
    unit: UnitSettings | None = None
    same_work: SameWork | None = None
    ready: Ready | None = None

    @field_validator("files", mode="before")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> object:
        return source_files(value, info)


class CommandWorkload:
    """A program of the user's."""

    kind = "command"
    Settings: type[Settings] = CommandSettings

    def argv(self, settings: CommandSettings, place: Place) -> tuple[str, ...]:
        """The image's own command, else the workload's, else the image's entry point."""
        return tuple(place.command or settings.command or ())

    def probe_argv(self, settings: CommandSettings, place: Place) -> tuple[str, ...]:
        """The whole command: only its output shows whether the patterns match."""
        return self.argv(settings, place)

    def files(self, settings: CommandSettings) -> Mapping[str, str]:
        """Those of the YAML."""
        return {path: file.sha256 for path, file in settings.files.items()}

    def content(self, settings: CommandSettings, path: str, folder: Path | None) -> bytes:
        """A file's bytes.

        Raises:
            OSError: it can't be read.
        """
        return ((folder or Path()) / settings.files[path].name).read_bytes()

    def expectation(self, settings: CommandSettings) -> Expectation:
        """What its patterns find."""
        unit, same = settings.unit, settings.same_work
        return Expectation(
            unit=None if unit is None else Unit(unit.name, unit.count, unit.pattern),
            same_work=None if same is None else Rule(same.pattern, same.tolerance),
            ready=None if settings.ready is None else settings.ready.pattern,
            work=self._work(settings),
        )

    def probe_expectation(self, settings: CommandSettings) -> Expectation:
        """The same as of a trial."""
        return self.expectation(settings)

    def _work(self, settings: CommandSettings) -> dict[str, Any]:
        return {"command": settings.command, "files": dict(self.files(settings))}
