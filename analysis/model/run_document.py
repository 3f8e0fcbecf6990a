"""``run.json``, a host's document, pulls and outcomes: one definition for who writes and who reads them.

Bytes become documents in :func:`read_run`, :func:`read_host`, :func:`read_pull` and :func:`read_outcome`;
past them every field has the type that stands here. Keys that are not listed are kept: another version of
wattbench wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NotRequired, TypeVar, cast

from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.experiment_document import ExperimentDocument
from wattbench.analysis.model.facts_document import (
    DOCUMENT,
    FactsDocument,
    ProblemDocument,
    first_fault,
)

SCHEMA_VERSION = 1

D = TypeVar("D")


@with_config(DOCUMENT)
class PlannedTrialDocument(TypedDict):
    """One planned trial; ``name`` is its folder, ``label`` what people read."""

    planned_position: int
    block: int
    kind: str
    image: str
    name: NotRequired[str]
    label: NotRequired[str]
    idle_state: NotRequired[str]


@with_config(DOCUMENT)
class OutcomeDocument(TypedDict):
    """Why a planned trial has no attempt: ``skipped`` on purpose, or ``missing``."""

    status: str
    reason: str


@with_config(DOCUMENT)
class PullEnergyDocument(TypedDict, total=False):
    """Energy of the whole host during a pull, or ``why`` there is none."""

    energy_j: float | None
    energy_uncertainty_j: float | None
    energy_scope: str | None
    energy_source: str | None
    package_j: float | None
    dram_j: float | None
    window_s: float | None
    why: str | None


@with_config(DOCUMENT)
class PullDocument(TypedDict, total=False):
    """How an image came to a host; ``error``: why it did not. Of a process, its packages."""

    image: str | None
    digest: str | None
    seconds: float | None
    attempts: int | None
    bytes: int | None
    size_bytes_unpacked: int | None
    already_present: bool
    packages: list[str]
    energy: PullEnergyDocument
    provenance: dict[str, object]
    tag_moved_to: str
    why: str
    error: str


@with_config(DOCUMENT)
class MeterConfigDocument(TypedDict, total=False):
    """The host's meter as configured."""

    kind: str | None
    name: str | None
    domain: str | None
    interval_ms: float | None


@with_config(DOCUMENT)
class HostConfigDocument(TypedDict, total=False):
    """The host's entry of hosts.yaml."""

    meter: MeterConfigDocument | None
    meters: list[MeterConfigDocument]


@with_config(DOCUMENT)
class WarmUpDocument(TypedDict, total=False):
    """How long the host was warmed up, and why it ended then; ``gpus``: the same of its GPUs."""

    elapsed_s: float
    why: str
    gpus: WarmUpDocument | None


@with_config(DOCUMENT)
class LoadHostDocument(TypedDict, total=False):
    """The host that the load on a host's servers comes from; written by the measured host's check.

    Attributes:
        host: its name.
        address: of the measured host, as the load host reaches it.
        ports: there, opened while a trial lasts.
        peer: the load host's address as the measured one sees it.
        trip_s: time of a connection, s.
        clock_offset_s: the load host's clock minus the controller's.
        agent_sha256: of the agent there.
        generator_sha256: of the load generator.
    """

    host: str
    address: str
    ports: list[int]
    peer: str
    trip_s: float
    clock_offset_s: float
    python: str
    cpu_model: str | None
    agent_sha256: str
    generator_sha256: str


@with_config(DOCUMENT)
class HostDocument(TypedDict, total=False):
    """A host in a run. Its check writes ``facts`` to ``quarantine``, ``analyze`` adds pulls and outcomes.

    Attributes:
        clock_offset_s: host's clock minus the controller's.
        quarantine: why its results are not used.
        reason: why its check failed, or why nothing else is known of it.
        load: where the load on its servers comes from, if from another host.
    """

    host: str
    config: HostConfigDocument
    facts: FactsDocument
    clock_offset_s: float | None
    problems: list[ProblemDocument]
    quarantine: str | None
    warm_up: WarmUpDocument | None
    reason: str
    load: LoadHostDocument
    pulls: dict[str, PullDocument]
    outcomes: dict[str, OutcomeDocument]


@with_config(DOCUMENT)
class LastingDocument(TypedDict, total=False):
    """What ``trials.parquet`` keeps of its run in its metadata, for comparisons years later.

    Attributes:
        digests: of the images.
        hosts: host → facts that can change between runs.
    """

    schema: int
    run_id: str | None
    dag_id: str | None
    run_after: str | None
    reference: str | None
    digests: dict[str, str | None]
    hosts: dict[str, dict[str, object]]
    versions: dict[str, str]


@with_config(DOCUMENT)
class RunDocument(TypedDict):
    """``run.json``: everything that was known before the first trial, completed by ``analyze``.

    Attributes:
        experiment: as resolved: each image with its digest.
        plan: host → trials in planned order.
        skipped_hosts: host → why this run leaves it out; ``skipped_images`` likewise.
        deadline: when measuring should be over, ISO 8601.
        workload_files: image → path in the container → SHA-256 of the file that is mounted there.
    """

    run_id: str
    plan: dict[str, list[PlannedTrialDocument]]
    schema: NotRequired[int]
    dag_id: NotRequired[str]
    dag_run_id: NotRequired[str]
    run_after: NotRequired[str]
    created_at: NotRequired[str]
    experiment: NotRequired[ExperimentDocument]
    seed: NotRequired[str]
    deadline: NotRequired[str | None]
    skipped_hosts: NotRequired[dict[str, str]]
    skipped_images: NotRequired[dict[str, str]]
    hosts: NotRequired[dict[str, HostDocument]]
    workload_files: NotRequired[dict[str, dict[str, str]]]
    versions: NotRequired[dict[str, str]]


def read_run(value: object, place: str) -> tuple[RunDocument, dict[str, str]]:
    """Read ``run.json``.

    What a host's entry holds comes from the worker: a field of it that is not what was agreed is left out,
    and is that host's fault, not the run's.

    Returns:
        The document, and host → what is wrong with its entry.

    Raises:
        InputError: it is not a run's document, or a newer version's.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("plan"), Mapping):
        raise InputError(f"{place} holds no plan; it is not a run's document")
    if "run_id" not in value:
        raise InputError(f"{place} names no run_id; it is not a run's document")
    schema = value.get("schema", 1)
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise InputError(
            f"{place} is of schema {schema}, this version reads up to {SCHEMA_VERSION}; "
            "upgrade wattbench"
        )
    entries = value.get("hosts") or {}
    if not isinstance(entries, Mapping):
        raise InputError(f"{place}: hosts: is not an object; fetch the run again")
    hosts: dict[str, HostDocument] = {}
    faults: dict[str, str] = {}
    for name, entry in entries.items():
        hosts[str(name)], fault = readable_host(entry)
        if fault is not None:
            faults[str(name)] = fault
    return _read_run({**value, "hosts": hosts}, place), faults


def _reader(document: type[D]) -> Callable[[object, str], D]:
    """Reader of one document, by its value and where it comes from.

    It returns the very value, once it is known to be what was agreed, and raises InputError else.
    """
    adapter: TypeAdapter[D] = TypeAdapter(document)

    def read(value: object, place: str) -> D:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            raise InputError(f"{place}: {first_fault(error)}; fetch it again") from None
        return cast("D", value)

    return read


#: Of a host; what its agent reports of it; what pulling an image took; why a trial has no attempt; what
#: ``trials.parquet`` keeps of its run.
read_host = _reader(HostDocument)
read_facts = _reader(FactsDocument)
read_pull = _reader(PullDocument)
read_outcome = _reader(OutcomeDocument)
read_lasting = _reader(LastingDocument)
_read_run = _reader(RunDocument)


_HOST: TypeAdapter[HostDocument] = TypeAdapter(HostDocument)


def readable_host(entry: object) -> tuple[HostDocument, str | None]:
    """A host's document without its malformed fields, and what is wrong with the first of them."""
    if entry is None:
        return {}, None
    if not isinstance(entry, Mapping):
        return {}, "is not an object"
    try:
        _HOST.validate_python(entry)
    except ValidationError as error:
        kept = dict(entry)
        for fault in error.errors(include_url=False):
            _leave_out(kept, fault["loc"])
        return cast("HostDocument", kept), first_fault(error)
    return cast("HostDocument", entry), None


def _leave_out(entry: dict[str, object], place: tuple[int | str, ...]) -> None:
    """Leave out a malformed field; of ``facts`` only the group that has it."""
    key, *inner = map(str, place)
    group = entry.get(key)
    if key == "facts" and inner and isinstance(group, Mapping):
        entry[key] = {k: v for k, v in group.items() if k != inner[0]}
    else:
        entry.pop(key, None)
