"""The agent's ``facts`` of a host, as a host's document keeps them: one definition for all readers."""

from __future__ import annotations

from typing import NotRequired

from pydantic import ConfigDict, ValidationError, with_config
from typing_extensions import TypedDict

#: Keys that are not listed are kept: an agent of another version wrote them.
DOCUMENT = ConfigDict(extra="allow", strict=True)


def first_fault(error: ValidationError) -> str:
    """The first field of a document that is not as agreed, what it is, and how many more there are."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field}: {first['msg']}{more}" if field else f"{first['msg']}{more}"


@with_config(DOCUMENT)
class MachineFacts(TypedDict, total=False):
    """The machine and its system; ``boot`` names one boot of it."""

    name: str | None
    os: str | None
    kernel: str | None
    architecture: str | None
    cpu_model: str | None
    sockets: int | None
    cores: int | None
    memory_bytes: int | None
    virtual: bool | None
    virtualisation: str | None
    boot: str | None
    python: str | None


@with_config(DOCUMENT)
class CpuFacts(TypedDict, total=False):
    """Governor, turbo and SMT; None: the platform does not report it."""

    governor: str | None
    turbo: bool | None
    smt: bool | None


@with_config(DOCUMENT)
class DockerFacts(TypedDict, total=False):
    """The Docker daemon; ``ok`` false with ``message``: it does not answer."""

    ok: bool
    message: str | None
    version: str | None
    disk_free_bytes: int | None


@with_config(DOCUMENT)
class GpuFacts(TypedDict, total=False):
    """One GPU of the host, used or not."""

    index: int | None
    uuid: str | None
    name: str | None
    driver: str | None


@with_config(DOCUMENT)
class SensorFacts(TypedDict, total=False):
    """Sensors that the agent's user can read; ``fix``: commands that open the others."""

    powercap: dict[str, bool]
    fix: list[str]


@with_config(DOCUMENT)
class MeterFacts(TypedDict, total=False):
    """Proof that the host's meter yields energy."""

    kind: str | None
    ok: bool
    message: str | None
    version: str | None


@with_config(DOCUMENT)
class ProbeFacts(TypedDict, total=False):
    """Answer of one probe of the agent; severity ``fine``, ``hard``, ``soft`` or ``unknown``."""

    code: str
    severity: str
    message: str


@with_config(DOCUMENT)
class ProblemDocument(TypedDict):
    """What is wrong with a host; ``severity`` is ``hard`` or ``soft``."""

    code: str
    severity: str
    message: str
    action: NotRequired[str | None]


@with_config(DOCUMENT)
class FactsDocument(TypedDict, total=False):
    """What the agent reports of a host before the first trial.

    Attributes:
        idle: levels of the idle host: ``cpu_pct``, ``power_w``, ``temperature_c``, ….
        meter: None: none was asked for.
        further_meters: others of the host, which its own is compared with.
        problems: what is wrong, as the agent reported it; the host's document has all of them.
    """

    agent_sha256: str | None
    host: MachineFacts
    docker: DockerFacts | None
    cpu: CpuFacts
    gpu: list[GpuFacts]
    sensors: SensorFacts
    idle: dict[str, float | None]
    meter: MeterFacts | None
    further_meters: list[MeterFacts]
    probes: list[ProbeFacts]
    problems: list[ProblemDocument]
