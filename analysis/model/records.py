"""What is known of one attempt: computed from its raw files, stored as ``trial.json``, read by every check.

Imported campaigns yield the same records; what they do not record is None and makes checks undecidable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from wattbench.analysis.model.facts_document import first_fault
from wattbench.analysis.model.finding_codes import CODES, Severity
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.trials import TrialRow, with_units

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Domain:
    """Energy of one part of the machine over the window, by one meter.

    Attributes:
        name: ``package``, ``dram``, ``gpu0``, ``pp0`` (inside the package: never added), …
        meter: ``energibridge``, ``powercap``, ``nvml`` or ``modelled``.
        energy_j: joules of the window.
        uncertainty_j: half-width that covers the truth in ≥ 95 % of windows, J.
        wraps: counter wraps corrected.
        sources: columns, zones or devices that were read.
        counted: whether the trial's total includes it.
    """

    name: str
    meter: str
    energy_j: float
    uncertainty_j: float
    wraps: int = 0
    sources: tuple[str, ...] = ()
    counted: bool = False


@dataclass(frozen=True)
class Phase:
    """One part of the window: ``start``, ``import``, ``load``, ``warmup``, ``steady:<name>``, ``stop``.

    ``start_s`` counts from the window's start. Energies cover the trial's ``energy_scope``.
    """

    name: str
    start_s: float
    duration_s: float
    energy_j: float | None = None
    energy_uncertainty_j: float | None = None
    mean_w: float | None = None
    images_inferred: int | None = None
    j_per_image: float | None = None
    units: float | None = None
    j_per_unit: float | None = None


@dataclass(frozen=True)
class PassResult:
    """What one phase of the workload computed.

    Attributes:
        phase: its name.
        iterations: number of inferences, or 0 where the program has none.
        batch: inputs per inference.
        images: iterations × batch.
        duration_s: by the program's own clock.
        fingerprint: numbers that equal work yields equally: of the built-in program, fixed projections of
            its logits.
        units: of work done; None: the images.
    """

    phase: str
    iterations: int
    batch: int
    images: int
    duration_s: float
    fingerprint: tuple[float, ...] = ()
    units: float | None = None

    @property
    def done(self) -> float:
        """Units of work done."""
        return self.images if self.units is None else self.units


@dataclass(frozen=True)
class Work:
    """What the workload reports of its work. None or empty: it does not.

    ``unit`` and ``units`` are the name and the number of what the energy is divided by; ``same_work`` is
    the value that all images must report alike; ``problems`` says which of them was not found as the
    experiment asks for. ``tokens_counted``: by the ``chunks`` of a stream, where the server does not
    count them.
    """

    program: str | None = None
    framework: str | None = None
    precision: str | None = None
    device_requested: str | None = None
    device_actual: str | None = None
    device_name: str | None = None
    weights_sha256: str | None = None
    parameters: int | None = None
    inputs_sha256: Mapping[str, str] = field(default_factory=dict)
    results: tuple[PassResult, ...] = ()
    versions: Mapping[str, object] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    finished: bool | None = None
    unit: str | None = None
    units: float | None = None
    same_work: str | None = None
    problems: tuple[str, ...] = ()
    tokens_counted: str | None = None


@dataclass(frozen=True)
class Quantiles:
    """Times of a step's successful requests, s: linear between order statistics, as numpy's."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class LoadStep:
    """What one step of the load on a server came to.

    Attributes:
        name: ``c8``, ``r20``: of its phase, without ``steady:``.
        concurrency: requests at any time; None: a rate.
        rate_per_s: arrivals per second; None: a concurrency.
        planned: requests of the plan.
        sent: requests that were sent; None: the file of requests can't be used.
        succeeded: requests with the answer that is expected.
        failed: reason → number of the other requests.
        duration_s: from the step's begin to its last answer.
        latency_s: intended time to last byte.
        first_byte_s: intended time to first byte; of a streamed answer that of its first token.
        within_slo: successful requests within the SLO's latency; None: there is no SLO.
        tokens_in: of successful requests; None: the API has none.
        tokens_out: likewise.
        answers: 8 hexadecimal digits per number of a request, from 1, blanks where it has no answer;
            empty: answers are not compared.
        cpu_s: CPU time of the load generator.
        cores: CPUs that it may use.
        late_p50_s: sent minus intended, of rates.
        late_p99_s: how late requests were sent, as the generator reports it.
        late_max_s: likewise.
        energy_j: joules of the step over the trial's ``energy_scope``.
        energy_uncertainty_j: its half-width, J.
        mean_w: mean power, W.
    """

    name: str
    concurrency: int | None = None
    rate_per_s: float | None = None
    planned: int | None = None
    sent: int | None = None
    succeeded: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    duration_s: float | None = None
    latency_s: Quantiles | None = None
    first_byte_s: Quantiles | None = None
    within_slo: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    answers: str = ""
    cpu_s: float | None = None
    cores: float | None = None
    late_p50_s: float | None = None
    late_p99_s: float | None = None
    late_max_s: float | None = None
    energy_j: float | None = None
    energy_uncertainty_j: float | None = None
    mean_w: float | None = None

    @property
    def error_pct(self) -> float | None:
        """Share of the requests that failed, %."""
        return 100 * sum(self.failed.values()) / self.sent if self.sent else None

    @property
    def cpu_share(self) -> float | None:
        """CPU time of the generator of what it could use."""
        if self.cpu_s is None or not self.cores or not self.duration_s:
            return None
        return self.cpu_s / (self.duration_s * self.cores)

    def per_second(self, count: int | None) -> float | None:
        """A number of the step per second of it."""
        return count / self.duration_s if count is not None and self.duration_s else None

    def joules_per(self, count: float | None) -> float | None:
        """Joules of the step per one of a number of it."""
        return self.energy_j / count if self.energy_j is not None and count else None


@dataclass(frozen=True)
class Sampling:
    """How densely the window was sampled. Durations in s; ``rows`` includes those outside the window."""

    interval_s: float | None
    rows: int
    in_window: int
    largest_gap_s: float | None = None


@dataclass(frozen=True)
class Note:
    """Something that a reader of raw data met and dealt with, or could not.

    ``kind``: ``wrap``, ``reset``, ``gap``, ``clock-step``, ``stale``, ``repeated-row``, ``partial-row``,
    ``bad-row``, ``missing-column``, ``unknown-column``, ``empty``, ``no-energy``, ``edge``, ….
    ``fatal``: the energy can't be shown to be right.
    """

    kind: str
    message: str
    line: int | None = None
    column: str | None = None
    fatal: bool = False


@dataclass(frozen=True)
class Output:
    """How much the workload printed on both streams, and how much of it was kept."""

    printed_bytes: int
    kept_bytes: int
    cut: bool


Number = int | float | None
_OPEN = ConfigDict(extra="allow")


@with_config(_OPEN)
class ExpectedPass(TypedDict):
    """A pass of the built-in program."""

    resolution: int | str
    iterations: int


@with_config(_OPEN)
class ExpectedUnit(TypedDict):
    """What the energy is divided by."""

    name: str
    count: NotRequired[Number]
    pattern: NotRequired[str | None]


@with_config(_OPEN)
class ExpectedWork(TypedDict):
    """How equal work is recognised."""

    pattern: str
    tolerance: Number


@with_config(_OPEN)
class ExpectedStep(TypedDict):
    """One step of a load on a server."""

    name: str
    concurrency: NotRequired[int | None]
    requests: NotRequired[int | None]
    rate_per_s: NotRequired[Number]
    seconds: NotRequired[Number]


@with_config(_OPEN)
class ExpectedSlo(TypedDict, total=False):
    """What a server must keep to."""

    p99_ms: Number
    max_error_pct: Number


@with_config(_OPEN)
class ExpectedMeter(TypedDict):
    """A meter of the host.

    Attributes:
        name: in ``Domain.meter``.
        domain: what counts of it; None: each domain that it reads.
        primary: whether its joules are the trial's.
    """

    name: str
    kind: str
    domain: NotRequired[str | None]
    primary: NotRequired[bool]


@with_config(_OPEN)
class Expected(TypedDict, total=False):
    """The plan's side of an attempt: what was asked for.

    Attributes:
        meter: the configured meter's kind; of several the primary one's.
        meters: all of the host, the primary one first; absent: the configured one alone.
        gpus: that the attempt is given.
        idle_state: of an idle trial: ``loaded``, ``container``, or ``host`` without a container.
        unit, same_work, ready, reports_itself: of the workload's kind, as it expects its output.
    """

    kind: str
    idle_state: str
    workload: str
    runtime: str
    device: str | None
    meter: str | None
    meters: list[ExpectedMeter] | None
    interval_ms: Number
    gpus: list[str | int] | None
    program: str | None
    framework: str | None
    precision: str | None
    batch: int | None
    passes: list[ExpectedPass] | None
    reports_itself: bool
    unit: ExpectedUnit | None
    same_work: ExpectedWork | None
    ready: str | None
    endpoint: str
    steps: list[ExpectedStep] | None
    slo: ExpectedSlo | None
    answers_compared: bool


@with_config(_OPEN)
class PowercapZone(TypedDict, total=False):
    """A RAPL zone: its name, and the value at which its counter wraps."""

    name: str | None
    max_energy_range_uj: Number


@with_config(_OPEN)
class EdgeReadings(TypedDict, total=False):
    """The platform at an edge of the window; beside these keys each meter has its own."""

    kernel: str | None
    governor: str | None
    cpu_busy_ns: Number
    controller_cpu_ns: Number
    temperature_c: Number
    throttle: dict[str, Number] | None
    swap: dict[str, Number] | None
    powercap: dict[str, PowercapZone] | None
    nvml: list[dict[str, object]] | None
    machine: dict[str, bool | int | float | str] | None


@with_config(_OPEN)
class Timing(TypedDict, total=False):
    """The window on the host's clock.

    Attributes:
        clock_step_s: change of wall clock against monotonic clock.
        connections_in_window: the controller's calls.
        boot: names the host's boot at the start.
        load_clock: of a load generator on another machine: ``ahead_s``, how far the host's clock is ahead
            of it; ``doubt_s``, what its moments may be off on the host's clock; ``relay_cpu_s``, CPU time of
            what passes its requests on.
    """

    started_unix_s: Number
    ended_unix_s: Number
    clock_step_s: Number
    connections_in_window: int | None
    boot: str | None
    boot_changed: bool | None
    load_clock: dict[str, Number]


@with_config(_OPEN)
class LogFacts(TypedDict, total=False):
    """What an imported log shows of an attempt; lines count from 1.

    Attributes:
        file: the log, relative to the campaign.
        line: its first line of the attempt; ``…_line``: that of one fact.
        derived: whether the row comes from a table of results.
        pull_lines: first and last line of a pull inside the attempt.
        layers_downloaded: number of layers that were downloaded.
        ref: image reference.
        banners: vendor banners and versions; ``banner_lines``: their lines.
        wording: the program's prints with numbers masked.
        sizes: image sizes announced.
        complete: whether every announced pass is over.
        worked_s: time of all passes.
        device: that the workload reports.
        cuda_image: whether the image is built for CUDA.
        without_gpu: whether the image's name excludes a GPU.
        after_panic: lines printed after the meter's panic.
        summary_j: joules of the meter's summary line; ``aligned_j``: of the same samples.
        naive_j: joules of the package without correction of wraps; ``naive_total_j``: of all domains.
        constant: columns that never change.
    """

    file: str
    line: int
    derived: bool
    pull_lines: tuple[int, int] | None
    layers_downloaded: int
    ref: str | None
    banners: tuple[str, ...]
    banner_lines: tuple[int, ...]
    wording: tuple[str, ...]
    sizes: tuple[int, ...]
    complete: bool | None
    worked_s: float | None
    device: str | None
    device_line: int | None
    cuda_image: bool
    without_gpu: bool
    after_panic: tuple[int, ...]
    panic_line: int | None
    failed_line: int
    summary_j: float | None
    summary_line: int | None
    aligned_j: float | None
    naive_j: float | None
    naive_total_j: float | None
    constant: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """One attempt.

    Attributes:
        row: the attempt in the one schema; status, reason and findings are set by the checks.
        domains: every domain by every meter that read it.
        phases: the window's parts in order.
        work: what the workload reports.
        sampling: of the main meter.
        notes: what the readers met.
        state: of the agent's report (done, failed, timeout, lost, killed); imported: done or failed.
        container: of the agent's report.
        edges: the platform ``before`` and ``after`` the window, of the agent's report.
        series: summaries of columns over the window, ``{column: {mean, min, max, first, last}}``;
            of a GPU's reasons to throttle also ``any``, the bits of all rows; of an import's used swap
            also ``max_line``, where the raw log first shows its maximum.
        timing: the window on the host's clock.
        rest: how the host cooled down before, of the agent's report.
        expected: the plan's side.
        meter: ``argv``, ``rc``, ``version``, ``outlived``, of the agent's report.
        log: (imports) facts of the log.
        findings: checks' outcomes for this attempt.
        output: how much the workload printed; None: not reported.
        steps: of the load on a server, in order.
    """

    row: TrialRow
    domains: tuple[Domain, ...] = ()
    phases: tuple[Phase, ...] = ()
    work: Work = Work()
    sampling: Sampling | None = None
    notes: tuple[Note, ...] = ()
    state: str = "done"
    container: Mapping[str, object] | None = None
    edges: Mapping[str, EdgeReadings] = field(default_factory=dict)
    series: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    timing: Timing = field(default_factory=lambda: Timing())
    rest: Mapping[str, object] = field(default_factory=dict)
    expected: Expected = field(default_factory=lambda: Expected())
    meter: Mapping[str, object] = field(default_factory=dict)
    log: LogFacts = field(default_factory=lambda: LogFacts())
    findings: tuple[Finding, ...] = ()
    output: Output | None = None
    steps: tuple[LoadStep, ...] = ()

    @property
    def is_server(self) -> bool:
        """Whether the workload is a server under load."""
        return self.expected.get("workload") == "serve"

    @property
    def subject(self) -> str:
        """The findings' subject of this attempt."""
        row = self.row
        if row.planned_position is None and row.raw:
            return f"trial {row.raw}"
        if row.planned_position is None and self.log.get("file"):
            return f"trial {self.log['file']}:{self.log.get('line')}"
        if row.planned_position is None and row.run is not None:
            return f"trial {row.image}/{row.run}"
        return f"trial {row.host}/{row.planned_position or 0:03d}-{row.image}/{row.attempt}"

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready dict, the content of ``trial.json``."""
        return (
            {"schema": SCHEMA_VERSION}
            | asdict(replace(self, findings=()))
            | {"findings": [f.to_dict() for f in self.findings]}
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: the record was written by a newer version, or a field is of another type.
            KeyError, TypeError: it is not a record.
        """
        if data["schema"] > SCHEMA_VERSION:
            raise ValueError(
                f"record of schema {data['schema']}, this version reads up to {SCHEMA_VERSION}; "
                "upgrade wattbench"
            )
        for found in data["findings"]:
            CODES.adopt(str(found["code"]), Severity(found["severity"]))
        try:
            # As JSON, strictly: arrays are tuples, and no text is taken for a number.
            text = json.dumps({**data, "row": with_units(data["row"])})
            return _adapters()[0].validate_json(text, strict=True)
        except ValidationError as error:
            raise ValueError(first_fault(error)[:200]) from error


@cache
def _adapters() -> tuple[TypeAdapter[Record], TypeAdapter[EdgeReadings]]:
    """Validators of ``trial.json`` and of one edge's readings."""
    return TypeAdapter(Record), TypeAdapter(EdgeReadings)


def fits_edge(key: str, value: object) -> bool:
    """Whether a reading at an edge of the window has the type that checks and figures compute with."""
    try:
        _adapters()[1].validate_python({key: value}, strict=True)
    except ValidationError:
        return False
    return True
