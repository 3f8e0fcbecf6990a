"""Field types of the config models: names, references, commands, times, images."""

from __future__ import annotations

import contextlib
import re
import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)

from wattbench.config.container_settings import ContainerSettings
from wattbench.container.image_ref import ImageRef
from wattbench.errors import RegistryError
from wattbench.workloads.settings import Command, Model, PositiveInt

__all__ = [
    "NAME_LENGTH", "NAME_PATTERN", "Clock", "Command", "Environment", "Image", "Model", "Name", "PositiveInt",
    "Reference", "Seconds", "TimeZone", "WorkloadChanges",
]  # fmt: skip

#: Names become folders, container names, keys and Airflow ids: letters, digits and `-` only.
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
NAME_LENGTH = 40

SCHEDULE_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
Seconds = Annotated[float, Field(ge=0, le=7 * 86400)]


def _reference(value: str) -> str:
    try:
        ImageRef.parse(value)
    except RegistryError as error:
        raise ValueError(str(error)) from None
    return value


def _environment(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise ValueError(f"{key!r} is not a variable name: letters, digits and _ only")
        if "\n" in text or "\0" in text:
            raise ValueError(f"the value of {key} holds a line break")
    return value


def _text(value: object) -> object:
    """YAML reads `OMP_NUM_THREADS: 1` as a number; an environment holds text."""
    if isinstance(value, dict):
        return {
            str(k): str(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v
            for k, v in value.items()
        }
    return value


def _clock(value: object) -> object:
    """YAML reads an unquoted `22:30` as a number of base 60: as minutes."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 24 * 60:
        return f"{value // 60:02d}:{value % 60:02d}"
    return value


def _clock_text(value: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError('is not a time of day; write it as "06:00"')
    return value


def _time_zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone; write UTC or a name like Europe/Amsterdam") from None
    return value


def _without_kind(value: dict[str, Any]) -> dict[str, Any]:
    if "kind" in value:
        raise ValueError("kind: all images of an experiment have workloads of one kind; remove it")
    return value


def _schedule(value: str) -> str:
    from croniter import CroniterError, croniter

    if value in SCHEDULE_PRESETS:
        return value
    with contextlib.suppress(CroniterError):
        if len(value.split()) == 5:
            croniter(value).get_next()  # 31 February never comes
            return value
    raise ValueError(
        f'is not a cron line; write five fields such as "30 1 * * *", or one of {", ".join(SCHEDULE_PRESETS)}'
    )


Schedule = Annotated[str, AfterValidator(_schedule)]
Clock = Annotated[str, BeforeValidator(_clock), AfterValidator(_clock_text)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Reference = Annotated[str, AfterValidator(_reference)]
Environment = Annotated[
    dict[str, str],
    BeforeValidator(_text, json_schema_input_type=dict[str, str | int | float]),
    AfterValidator(_environment),
]


#: Keys of ``workload`` that an image or a level changes; the kind of workload checks them.
WorkloadChanges = Annotated[dict[str, Any], AfterValidator(_without_kind)]


class Image(Model):
    """One treatment: a container image, or a command on the bare host (``runtime: process``).

    Attributes:
        ref: Reference of the image; a tag is resolved to a digest before the first trial.
        runtime: ``docker``: a container; ``process``: a command on the bare host.
        command: Command to start instead of the workload's, a list or one line. Before the
            built-in program's arguments; ``{workload}`` in it stands for the program's path.
        python: Python that runs the built-in program, 3.9 or later.
        env: Environment variables; numbers are taken as text.
        framework: Short for ``workload: {framework: …}``.
        workload: Keys of ``workload`` that differ for this image.
        container: Settings of its container, which override those of the experiment.
        layers: Also measure the ladder of its Dockerfile's layers.
    """

    ref: Reference | None = None
    runtime: Literal["docker", "process"] = "docker"
    command: Command | None = None
    python: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/+-]+$")] = "python3"
    env: Environment = Field(default={})
    framework: str | None = None
    workload: WorkloadChanges = Field(default={})
    container: ContainerSettings = ContainerSettings()
    layers: bool = False

    @model_validator(mode="after")
    def _one_way_to_run(self) -> Image:
        if self.runtime == "docker" and self.ref is None:
            raise ValueError("ref is missing; name the image, or set runtime: process")
        if self.runtime == "process" and self.ref is not None:
            raise ValueError("runtime: process takes no ref; remove one of them")
        if self.runtime == "process" and self.container.set_keys():
            raise ValueError("runtime: process has no container; remove the container settings")
        if self.framework is not None and "framework" in self.workload:
            raise ValueError("framework stands twice; remove one")
        if self.runtime == "process" and self.layers:
            raise ValueError("runtime: process has no layers; remove layers: true")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """The keys of ``workload`` that differ for this image."""
        return self.workload | ({} if self.framework is None else {"framework": self.framework})
