"""What a kind of workload is to the rest: how it starts, what it needs on the host, what it reports.

A kind lives in one module and is listed in :mod:`wattbench.workloads` or, from another distribution, in
the entry-point group ``wattbench.workloads``. docs/extending.md shows how one is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from wattbench.workloads.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a workload starts.

    Attributes:
        runtime: ``docker``: in the image; ``process``: on the bare host.
        device: what it must compute on, ``cpu`` or ``cuda``.
        command: the image's own command instead of the workload's; None: none.
        python: the image's Python interpreter.
    """

    runtime: Literal["docker", "process"]
    device: str
    command: tuple[str, ...] | None = None
    python: str = "python3"


@dataclass(frozen=True)
class Rule:
    """How one value is found in a program's output.

    Attributes:
        pattern: regular expression whose only group is the value; it must match exactly once.
        tolerance: relative difference that two values may have; None: they are compared as text.
    """

    pattern: str
    tolerance: float | None = None


@dataclass(frozen=True)
class Unit:
    """What the energy is divided by.

    Attributes:
        name: of one unit, for example ``image``, ``document``, ``request``.
        count: units per trial, where it is fixed.
        pattern: else where the program prints the number; None with ``count`` None: event lines have it.
    """

    name: str
    count: float | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Expectation:
    """What a trial must show of its work.

    Attributes:
        unit: what the energy is divided by; None: only the window's joules are reported.
        same_work: the value that must agree between images; None: event lines have fingerprints, or
            equal work can't be shown.
        ready: pattern of the line that ends the phase ``start``; None: phases come from event lines.
        reports_itself: whether the program must print event lines with device, results and end. Of one
            that need not, the device is shown by its use.
        work: what was asked for, for the record: program, passes, batch, precision, ….
    """

    unit: Unit | None = None
    same_work: Rule | None = None
    ready: str | None = None
    reports_itself: bool = False
    work: Mapping[str, Any] = field(default_factory=dict)


class Workload(Protocol):
    """One kind of workload.

    Attributes:
        kind: its name in an experiment's YAML.
        Settings: model of its keys; their docstrings become docs/configuration.md.
    """

    kind: str
    Settings: type[Settings]

    def argv(self, settings: Any, place: Place) -> tuple[str, ...]:
        """What is started; empty: the image's own entry point.

        Paths of :meth:`files` stand for the files, in a container and on the bare host.
        """

    def probe_argv(self, settings: Any, place: Place) -> tuple[str, ...]:
        """What is started once before the first trial, to prove what the checks of each trial demand."""

    def files(self, settings: Any) -> Mapping[str, str]:
        """Files that are mounted read-only: absolute path in the container → SHA-256.

        A name without a leading slash is not mounted: it stays on the host, for what runs beside
        the container.
        """

    def content(self, settings: Any, path: str, folder: Path | None) -> bytes:
        """The content of one of :meth:`files`.

        Args:
            settings: the workload's.
            path: a key of :meth:`files`.
            folder: the experiment's file is in it; None: it is not known.

        Raises:
            OSError: it can't be read.
        """

    def expectation(self, settings: Any) -> Expectation:
        """What a trial must show."""

    def probe_expectation(self, settings: Any) -> Expectation:
        """What :meth:`probe_argv` must show."""


@runtime_checkable
class HoldsModel(Protocol):
    """A kind of workload that can hold its model loaded without work, for ``idle_baseline.state: loaded``."""

    def idle_argv(self, settings: Any, place: Place, seconds: float) -> tuple[str, ...]:
        """What loads the framework and the model, infers once, prints the phase ``idle`` and waits in it."""


@runtime_checkable
class WarmsGpus(Protocol):
    """A kind of workload that can repeat its work on all GPUs that it is given, for the warm-up."""

    def warm_argv(self, settings: Any, place: Place, seconds: float, gpus: int) -> tuple[str, ...]:
        """What computes on each of ``gpus`` GPUs and ends by itself after so many seconds."""
