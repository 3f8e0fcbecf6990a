"""Assembly of a loaded run into trial rows, phase rows and findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from wattbench.analysis import checks
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.experiment_document import (
    BlocksDocument,
    ExperimentDocument,
    ImageDocument,
)
from wattbench.analysis.model.facts_document import FactsDocument
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Phase, Record
from wattbench.analysis.model.run_document import (
    HostDocument,
    PlannedTrialDocument,
    PullDocument,
    RunDocument,
)
from wattbench.analysis.model.trials import to_frame
from wattbench.analysis.runs import steady_steps
from wattbench.analysis.runs.load import Run, name_of, planned_row
from wattbench.analysis.stats.results import Settings

#: Columns of a phase row before those of :class:`analysis.records.Phase`.
PHASE_KEYS = (
    "run_id", "host", "kind", "block", "planned_position", "image", "attempt", "status",
    "energy_scope", "energy_source",
)  # fmt: skip


@dataclass(frozen=True)
class RunData:
    """A run as tidy data.

    Attributes:
        document: ``run.json``: experiment, seed, plan, hosts' facts, versions.
        records: every attempt with its findings and status, and one a planned trial without any.
        accepted: of each planned trial the accepted, else the last attempt; in planned order.
        trials: their rows, in the schema of :mod:`analysis.trials`.
        attempts: the rows of all attempts.
        phases: one row per phase of every attempt; energies cover ``energy_scope``.
        findings: all, those about single trials included.
    """

    document: RunDocument
    records: tuple[Record, ...]
    accepted: tuple[Record, ...]
    trials: pd.DataFrame
    attempts: pd.DataFrame
    phases: pd.DataFrame
    findings: tuple[Finding, ...]

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.document["run_id"]

    @property
    def experiment(self) -> ExperimentDocument:
        """The experiment as resolved."""
        return self.document.get("experiment", {})

    @property
    def images(self) -> dict[str, ImageDocument]:
        """Images of the experiment by name."""
        return {name: image or {} for name, image in self.experiment.get("images", {}).items()}

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts of the plan, in its order."""
        return tuple(self.document["plan"])

    def host(self, name: str) -> HostDocument:
        """A host's document; empty where it has left none."""
        return self.document.get("hosts", {}).get(name, {})

    def facts(self, host: str) -> FactsDocument:
        """What ``check`` found on a host; empty where it never passed."""
        return self.host(host).get("facts", {})

    @cached_property
    def settings(self) -> Settings:
        """What the experiment laid down for the statistics."""
        return settings_of(self.document)


# From a run to tidy data -------------------------------------------------------------------------


def assemble(run: Run) -> RunData:
    """Judge every attempt and lay the run out as tidy rows."""
    everything = [*_in_order(run.records), *_absent(run)]
    judged, whole = checks.judge(everything, checks.Facts.of_run(run.document))
    judged = steady_steps.compared(judged, settings_of(run.document).endpoint)
    chosen = _choose(run.document, judged)
    watts = _idle_watts(chosen, above_idle_of(run.document))
    judged = tuple(_corrected(r, watts) for r in judged)
    chosen = tuple(_corrected(r, watts) for r in chosen)
    accepted_of = {_place(r): r for r in chosen}
    about_trials = [_superseded(f, r, accepted_of) for r in judged for f in r.findings]
    tried = [r for r in judged if r.row.status not in ("missing", "skipped")]
    return RunData(
        document=run.document,
        records=judged,
        accepted=chosen,
        trials=to_frame(r.row for r in chosen),
        attempts=to_frame(r.row for r in tried),
        phases=_phases(tried),
        findings=(*whole, *about_trials, *run.notes),
    )


def _in_order(records: Iterable[Record]) -> list[Record]:
    """Records with ``position``: their place on the host in the order of their windows' starts."""
    by_host: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_host[record.row.host].append(record)
    placed = []
    for of_host in by_host.values():
        # Stamps have one format, so text orders as time; equal ones are ordered by the plan.
        started = sorted(
            (r for r in of_host if r.row.started_at),
            key=lambda r: (r.row.started_at, r.row.planned_position, r.row.attempt),
        )
        position = {id(r): place for place, r in enumerate(started, start=1)}
        placed += [replace(r, row=replace(r.row, position=position.get(id(r)))) for r in of_host]
    return placed


def _absent(run: Run) -> list[Record]:
    """A record for every planned trial that has no attempt."""
    tried = {_place(r) for r in run.records}
    absent = []
    for host, plan in run.document["plan"].items():
        for planned in plan:
            if (host, planned["planned_position"]) in tried:
                continue
            status, reason = _why(run, host, planned)
            row = replace(planned_row(run.document, host, planned), status=status, reason=reason)
            absent.append(Record(row=row, state="lost"))
    return absent


def _why(run: Run, host: str, planned: PlannedTrialDocument) -> tuple[str, str]:
    outcome = run.outcomes.get((host, name_of(planned)))
    if outcome:
        status = outcome["status"]
        return (status if status == "skipped" else "missing"), outcome["reason"] or status
    entry: HostDocument = run.document.get("hosts", {}).get(host, {})
    pull: PullDocument = entry.get("pulls", {}).get(planned["image"], {})
    if error := pull.get("error"):
        return "missing", f"the image can't be measured: {error}"
    hard = [p for p in entry.get("problems", ()) if p["severity"] == "hard"]
    if hard:
        return "missing", f"the host was not fit: {hard[0]['message']}"
    return "missing", entry.get("reason") or "never started"


def _place(record: Record) -> tuple[str, int]:
    return record.row.host, int(record.row.planned_position or 0)


def _choose(document: RunDocument, judged: Sequence[Record]) -> tuple[Record, ...]:
    """Of each planned trial the first valid attempt, else the last one; in planned order."""
    by_place: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in judged:
        by_place[_place(record)].append(record)
    chosen = []
    for host, plan in document["plan"].items():
        for planned in plan:
            attempts = sorted(
                by_place[host, planned["planned_position"]], key=lambda r: r.row.attempt or 0
            )
            valid = [r for r in attempts if r.row.status == "valid"]
            chosen.append((valid or attempts[-1:])[0])
    return tuple(chosen)


def _superseded(
    found: Finding, record: Record, accepted: Mapping[tuple[str, int], Record]
) -> Finding:
    """A fault of an attempt that another attempt made good no longer takes anything away."""
    winner = accepted.get(_place(record))
    made_good = winner is not None and winner.row.status == "valid"
    if not found.is_found_error or not made_good or winner is None:
        return found
    if winner.row.attempt == record.row.attempt:
        return found
    return replace(
        found,
        severity=Severity.WARNING,
        evidence={**found.evidence, "accepted_attempt": winner.row.attempt},
        action=f"nothing to do: attempt {winner.row.attempt} of the trial was accepted",
    )


def above_idle_of(document: RunDocument) -> str | None:
    """The idle state that energy above idle refers to; None: the run has one alone."""
    protocol = document["experiment"].get("protocol") or {}
    states = (protocol.get("idle_baseline") or {}).get("state")
    return states[0] if isinstance(states, list) and states else None


def is_above(idle_state: object, declared: str | None) -> bool:
    """Whether energy above idle refers to an idle trial of this state."""
    return declared is None or (idle_state == "loaded") == (declared == "loaded")


def _idle_watts(
    chosen: Iterable[Record], declared: str | None
) -> dict[tuple[str, str, str | None], float]:
    """(host, image, scope) → median idle power of the run's valid idle trials, W."""
    powers: defaultdict[tuple[str, str, str | None], list[float]] = defaultdict(list)
    for record in chosen:
        row = record.row
        if row.kind != "idle" or not is_above(row.idle_state, declared):
            continue
        if row.status == "valid" and row.energy_j and row.duration_s:
            powers[row.host, row.image, row.energy_scope].append(row.energy_j / row.duration_s)
    return {key: float(np.median(values)) for key, values in powers.items()}


def _corrected(record: Record, watts: Mapping[tuple[str, str, str | None], float]) -> Record:
    """``idle_corrected_j``: the image's own idle power where it was measured, else the host's."""
    row = record.row
    if row.kind == "idle" or row.energy_j is None or row.duration_s is None:
        return record
    for image in (row.image, "idle"):
        power = watts.get((row.host, image, row.energy_scope))
        if power is not None:
            return replace(
                record,
                row=replace(row, idle_corrected_j=row.energy_j - power * row.duration_s),
            )
    return record


def _phases(records: Iterable[Record]) -> pd.DataFrame:
    rows = [
        {key: getattr(r.row, key) for key in PHASE_KEYS} | {"phase": p.name} | _plain(p)
        for r in records
        for p in r.phases
    ]
    measures = [f for f in Phase.__dataclass_fields__ if f != "name"]
    frame = pd.DataFrame(rows, columns=[*PHASE_KEYS, "phase", *measures])
    whole = ["block", "planned_position", "attempt", "images_inferred"]
    floats = [m for m in measures if m != "images_inferred"]
    return frame.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(floats, "float64"))


def _plain(phase: Phase) -> dict[str, object]:
    return {key: value for key, value in asdict(phase).items() if key != "name"}


def settings_of(document: RunDocument) -> Settings:
    """The experiment's statistical settings.

    Raises:
        InputError: they are not possible ones.
    """
    experiment = document.get("experiment", {})
    analysis = experiment.get("analysis") or {}
    blocks = (experiment.get("protocol") or {}).get("blocks")
    early: BlocksDocument = blocks if isinstance(blocks, dict) else {}
    given: dict[str, Any] = {
        "alpha": analysis.get("alpha"),
        "correction": analysis.get("correction"),
        "equivalence_pct": analysis.get("equivalence_pct"),
        "endpoint": analysis.get("endpoint"),
        "precision_pct": early.get("precision_pct"),
        "blocks_min": early.get("min"),
        "blocks_max": early.get("max") if early else blocks,
    }
    try:
        return Settings(
            reference=experiment.get("reference"),
            **{k: v for k, v in given.items() if v is not None},
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"run.json of {document.get('run_id')}: experiment.analysis: {error}; correct the "
            "experiment and run it again"
        ) from error
