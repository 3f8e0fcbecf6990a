"""Per-host history: trial durations and control-workload energy, kept for later runs.

One small document per run and host, written by ``analyze`` below ``hosts/<host>/runs/``. No run touches
another's, so that experiments which share a host need no agreement.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from wattbench.analysis.model.facts_document import first_fault
from wattbench.config.experiment import Experiment
from wattbench.errors import StoreError
from wattbench.history.durations import Pace, pace_of
from wattbench.run import store_keys
from wattbench.run.run_id import parse_run_id

if TYPE_CHECKING:
    from wattbench.analysis.model.trials import TrialRow
    from wattbench.run.stored_run import Run
    from wattbench.storage.object_store import Store

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
#: Runs of a host that are looked back on.
LOOK_BACK = 25
#: Runs of a host that are searched for those with a control workload.
SEARCH_BACK = 200


@dataclass(frozen=True)
class ControlLevel:
    """The control workload in one run.

    Attributes:
        rounds: how much work it was.
        scope: domains that its joules cover.
        source: ``measured`` or ``modelled``.
        joules: the median of its valid trials.
        trials: how many they were.
    """

    rounds: int
    scope: str
    source: str
    joules: float
    trials: int

    def is_like(self, other: ControlLevel) -> bool:
        """Whether the joules of both can be compared."""
        mine, theirs = ((c.rounds, c.scope, c.source) for c in (self, other))
        return mine == theirs


@dataclass(frozen=True)
class Past:
    """One run on one host, as later runs see it.

    Attributes:
        run_id: the run.
        experiment: its experiment.
        work: stands for what its trials do, see :func:`work_of`.
        pace: how long they took; None without two of them.
        control: its control workload; None without a valid trial of it.
    """

    run_id: str
    experiment: str
    work: str
    pace: Pace | None = None
    control: ControlLevel | None = None
    schema: int = field(default=SCHEMA_VERSION)


_PAST = TypeAdapter(Past)


def work_of(experiment: Experiment) -> str:
    """The same for experiments whose trials take equally long on the same host."""
    protocol = experiment.protocol
    workload, idle, *others = (
        part.model_dump(mode="json") if part else None
        for part in (experiment.workload, protocol.idle_baseline, protocol.control, protocol.rest)
    )
    if idle and idle["state"] == "container":
        del idle["state"]  # what runs of versions without the key have hashed
    work = [experiment.device, workload, idle, *others]
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:16]


def control_of(rows: Sequence[TrialRow], rounds: int) -> ControlLevel | None:
    """The control workload of a run from its trials; None without a valid one."""
    valid = [r for r in rows if r.kind == "control" and r.status == "valid" and r.energy_j]
    if not valid:
        return None
    scope, source = valid[-1].energy_scope or "", valid[-1].energy_source or ""
    joules = [r.energy_j or 0.0 for r in valid if (r.energy_scope or "") == scope]
    return ControlLevel(rounds, scope, source, median(joules), len(joules))


def remember(run: Run) -> None:
    """Leave what this run learned of its hosts; of those it measured nothing on, nothing."""
    experiment = run.experiment
    control = experiment.protocol.control
    for host in experiment.hosts:
        rows = [r.row for attempts in run.records(host).values() for r in attempts]
        if not rows:
            continue
        past = Past(
            run.run_id,
            str(run.document["dag_id"]),
            work_of(experiment),
            pace_of(rows),
            control_of(rows, control.rounds) if control else None,
        )
        run.store.put_json(store_keys.past_key(host, run.run_id), asdict(past))


def run_ids(
    store: Store, hosts: Iterable[str], experiment: str | None = None, *, before: str | None = None
) -> list[str]:
    """Runs that left something about one of these hosts, oldest first.

    Args:
        store: where they are.
        hosts: whose.
        experiment: only runs of this one.
        before: only runs that were due before this one.
    """
    names = set()
    for host in hosts:
        folder = store_keys.past_key(host) + "/"
        names |= {o.key.removeprefix(folder).removesuffix(".json") for o in store.list(folder)}
    found = [parsed for name in names if (parsed := parse_run_id(name))]
    found.sort(key=lambda parsed: parsed.order)
    last = parse_run_id(before) if before else None
    return [
        str(parsed)
        for parsed in found
        if experiment in (None, parsed.experiment) and (last is None or parsed.order < last.order)
    ]


def recall(
    store: Store, host: str, *, experiment: str | None = None, limit: int = LOOK_BACK
) -> tuple[Past, ...]:
    """Earlier runs on a host, oldest first.

    Args:
        store: where they are.
        host: whose.
        experiment: only runs of this one.
        limit: the largest number of the newest.

    Raises:
        StoreError: a document is malformed, or the store does not answer.
    """
    return tuple(
        _read(store, store_keys.past_key(host, run_id))
        for run_id in run_ids(store, [host], experiment)[-limit:]
    )


def recall_controls(store: Store, host: str) -> tuple[Past, ...]:
    """Earlier runs on a host that had a control workload, oldest first, however many had none since.

    Raises:
        StoreError: a document is malformed, or the store does not answer.
    """
    newest_first = run_ids(store, [host])[: -SEARCH_BACK - 1 : -1]
    pasts = (_read(store, store_keys.past_key(host, run_id)) for run_id in newest_first)
    found = list(islice((past for past in pasts if past.control is not None), LOOK_BACK))
    return tuple(reversed(found))


def _read(store: Store, key: str) -> Past:
    try:
        return _PAST.validate_python(store.get_json(key))
    except ValidationError as error:
        raise StoreError(
            f"{key} in {store.target.place}: {first_fault(error)}; remove the object, later runs do "
            "without it"
        ) from None
