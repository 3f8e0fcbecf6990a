"""Base of the models that describe a workload in an experiment's YAML."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

#: Linux numbers CPUs below it.
MOST_CPUS = 1 << 13


def _argv(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


def _ascending(cpuset: str) -> str:
    for part in cpuset.split(","):
        first, _, last = part.partition("-")
        if not int(first) <= int(last or first) < MOST_CPUS:
            raise ValueError(
                f"{part!r} is not a range of CPUs; write the lower number first, below {MOST_CPUS}"
            )
    return cpuset


PositiveInt = Annotated[int, Field(ge=1)]
#: A command: a list of words, or one line that is split as a shell would, without running one.
Command = Annotated[
    list[str], BeforeValidator(_argv, json_schema_input_type=list[str] | str), Field(min_length=1)
]
CpuSet = Annotated[
    str,
    StringConstraints(pattern=r"^\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*$"),
    AfterValidator(_ascending),
]


def cpus_of(cpuset: str) -> tuple[int, ...]:
    """The numbers of ``0-3,8``."""
    ends = [part.partition("-") for part in cpuset.split(",") if part]
    return tuple(n for first, _, last in ends for n in range(int(first), int(last or first) + 1))


@dataclass(frozen=True)
class Serving:
    """How a server is asked, beside its container on the host.

    Attributes:
        port: that it listens on.
        generator: of the workload's files, the program that asks.
        requests: of the workload's files, the one with the requests; None: the plan has the only one.
        cpus: that the generator runs on; empty: any.
        least_s: shortest time that the load can take, s.
        plan: what the generator is given beside addresses and paths, JSON-ready.
        load_host: host that the generator runs on; None: beside the server.
        outer_port: of the measured host, at which the load host reaches the server.
    """

    port: int
    generator: str
    requests: str | None
    cpus: tuple[int, ...]
    least_s: float
    plan: Mapping[str, Any]
    load_host: str | None = None
    outer_port: int = 0


class Model(BaseModel):
    """A model that refuses unknown keys and numbers that are not finite, and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Settings(Model):
    """What an experiment's ``workload`` holds; each kind has its own, with its ``kind`` as default.

    Attributes:
        kind: Kind of the workload; chosen by the other keys if not given.
    """

    #: What is compared if the experiment does not say it: joules of the window, or of its steady phases.
    endpoint: ClassVar[Literal["window", "steady"]] = "window"

    kind: str

    def changed(self, changes: dict[str, Any]) -> Settings:
        """The same workload with some keys changed, as an image or a factor's level changes them.

        Raises:
            ValidationError: it can't be changed so.
        """
        return type(self).model_validate(self.model_dump() | changes)

    def serving(self, *, probe: bool = False) -> Serving | None:  # noqa: ARG002 (for servers)
        """How the server in the container is asked; None: it holds a program that ends by itself.

        Args:
            probe: the few requests that prove an image before its first trial.
        """
        return None
