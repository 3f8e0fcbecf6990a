"""The experiment in ``run.json``, as resolved: what the analysis reads of it.

wattbench.config has the whole model; runs of other versions, and those that other programs wrote, may have
less. Keys that are not listed are kept.
"""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from wattbench.analysis.model.facts_document import DOCUMENT


@with_config(DOCUMENT)
class ImageDocument(TypedDict, total=False):
    """One image; ``digest`` and ``size_bytes`` (compressed) as the registry had them."""

    ref: str | None
    runtime: str | None
    command: list[str] | str | None
    framework: str | None
    env: dict[str, str]
    digest: str | None
    resolved_ref: str | None
    size_bytes: int | None


@with_config(DOCUMENT)
class PassDocument(TypedDict):
    """One pass of the built-in program."""

    resolution: int | str
    iterations: int


@with_config(DOCUMENT)
class UnitDocument(TypedDict, total=False):
    """What the energy is divided by."""

    name: str | None


@with_config(DOCUMENT)
class SameWorkDocument(TypedDict, total=False):
    """How equal work is recognised."""

    pattern: str | None


@with_config(DOCUMENT)
class StepDocument(TypedDict, total=False):
    """One step of a load."""

    concurrency: int | None
    requests: int | None
    rate_per_s: float | None
    seconds: float | None
    arrivals: str | None


@with_config(DOCUMENT)
class SloDocument(TypedDict, total=False):
    """What a server must keep."""

    p99_ms: float | None
    max_error_pct: float | None


@with_config(DOCUMENT)
class LoadDocument(TypedDict, total=False):
    """The load on a server."""

    api: str | None
    steps: list[StepDocument]
    slo: SloDocument | None


@with_config(DOCUMENT)
class WorkloadDocument(TypedDict, total=False):
    """The workload: keys of all kinds."""

    program: str | None
    framework: str | None
    precision: str | None
    command: list[str] | None
    unit: UnitDocument | None
    same_work: SameWorkDocument | None
    passes: list[PassDocument] | None
    load: LoadDocument | None


@with_config(DOCUMENT)
class BlocksDocument(TypedDict, total=False):
    """Blocks until the intervals are narrow enough."""

    min: int | None
    max: int | None
    precision_pct: float | None


@with_config(DOCUMENT)
class RestDocument(TypedDict, total=False):
    """Cool-down before each trial."""

    min_s: float
    max_s: float


@with_config(DOCUMENT)
class IdleDocument(TypedDict, total=False):
    """Idle trials; of a list of states, energy above idle refers to the first."""

    seconds: float
    every_blocks: int
    per: str
    state: str | list[str]


@with_config(DOCUMENT)
class ProtocolDocument(TypedDict, total=False):
    """What is done in which order."""

    blocks: int | BlocksDocument | None
    rest: RestDocument | None
    idle_baseline: IdleDocument | None


@with_config(DOCUMENT)
class AnalysisDocument(TypedDict, total=False):
    """Settings of the statistics; :class:`wattbench.analysis.stats.results.Settings` checks them."""

    alpha: float | None
    correction: str | None
    equivalence_pct: float | None
    endpoint: str | None


@with_config(DOCUMENT)
class LayerDocument(TypedDict):
    """One rung of a ladder."""

    number: int
    instruction: str | None
    image: str


@with_config(DOCUMENT)
class ExperimentDocument(TypedDict, total=False):
    """The experiment of a run.

    Attributes:
        variants: image → factor → level; factors that are not named are as in the reference.
        ladders: image → its rungs, the base first.
    """

    reference: str | None
    device: str | None
    images: dict[str, ImageDocument | None]
    workload: WorkloadDocument | None
    protocol: ProtocolDocument | None
    analysis: AnalysisDocument | None
    variants: dict[str, dict[str, str]]
    ladders: dict[str, list[LayerDocument]]
