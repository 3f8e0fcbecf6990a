"""Loader of a stored run: run.json, records and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.run_document import (
    HostDocument,
    OutcomeDocument,
    PlannedTrialDocument,
    PullDocument,
    RunDocument,
    read_outcome,
    read_run,
)
from wattbench.analysis.model.trials import TrialRow
from wattbench.analysis.storage.source import DamagedError, MissingError, Source


@dataclass(frozen=True)
class Run:
    """A run as stored.

    Attributes:
        document: ``run.json``, typed.
        records: every attempt, by host, planned position and attempt.
        outcomes: (host, trial's name) → ``{status, reason}`` of trials without an attempt.
        notes: findings about the store itself: objects that are gone or damaged.
    """

    document: RunDocument
    records: tuple[Record, ...]
    outcomes: Mapping[tuple[str, str], OutcomeDocument]
    notes: tuple[Finding, ...] = ()

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.document["run_id"]


def load(source: Source) -> Run:
    """Read a run.

    Raises:
        InputError: the source holds no run, or its ``run.json`` can't be used.
    """
    try:
        content = source.read_json("run.json")
    except MissingError as error:
        raise InputError(
            f"{source.place} holds no run.json; name the folder of one run (…/runs/RUN_ID)"
        ) from error
    document, faults = read_run(content, f"{source.place}/run.json")
    records: list[Record] = []
    notes = [_note(f"host {host}", f"run.json: {fault}") for host, fault in faults.items()]
    for entry in source.list("hosts/"):
        if not entry.key.endswith("/trial.json"):
            continue
        try:
            records.append(Record.from_dict(source.read_json(entry.key)))
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            failed, note = _damaged(document, entry.key, error)
            notes.append(note)
            if failed is not None:
                records.append(failed)
    if lost := source.lost():
        notes.append(
            finding(
                "row-untraceable",
                Verdict.FOUND,
                "run",
                f"{len(lost)} objects that the manifest lists are not there",
                action="restore them from a copy of the store",
                files=list(lost[:50]),
            )
        )
    records.sort(key=lambda r: (r.row.host, r.row.planned_position or 0, r.row.attempt or 0))
    outcomes = _outcomes(source, document, notes)
    return Run(document, tuple(records), outcomes, tuple(notes))


def _note(subject: str, text: str, **evidence: Any) -> Finding:
    return finding("row-untraceable", Verdict.FOUND, subject, text, **evidence)


def _damaged(document: RunDocument, key: str, error: Exception) -> tuple[Record | None, Finding]:
    """A record that can't be read, as a failed attempt of its planned trial."""
    _, host, _, name, attempt, _ = key.split("/")
    planned = next((t for t in document["plan"].get(host, ()) if name_of(t) == name), None)
    reason = f"trial.json can't be used: {' '.join(str(error).split())[:200]}"
    subject = f"trial {host}/{name}/{attempt}"
    note = _note(subject, reason, file=key)
    if planned is None or not attempt.isdigit():
        return None, note
    row = replace(
        planned_row(document, host, planned),
        attempt=int(attempt),
        late=int(attempt) > 1,
        status="failed",
        reason=reason,
    )
    return Record(row=row, state="lost"), note


def _outcomes(
    source: Source, document: RunDocument, notes: list[Finding]
) -> dict[tuple[str, str], OutcomeDocument]:
    """Why trials have no attempt; one that can't be read is noted, and its trial is missing."""
    found = {
        (host, name): outcome
        for host, entry in document.get("hosts", {}).items()
        for name, outcome in entry.get("outcomes", {}).items()
    }
    for entry in source.list("hosts/"):
        parts = entry.key.split("/")
        if len(parts) == 4 and parts[2] == "outcomes":
            host, name = parts[1], parts[3].removesuffix(".json")
            try:
                found[host, name] = read_outcome(source.read_json(entry.key), entry.key)
            except InputError as error:
                found.pop((host, name), None)
                notes.append(_note(f"trial {host}/{name}", str(error), file=entry.key))
    return found


def name_of(planned: PlannedTrialDocument) -> str:
    """Folder name of a planned trial."""
    return planned.get("name") or f"{planned['planned_position']:03d}-{planned['image']}"


def planned_row(document: RunDocument, host: str, planned: PlannedTrialDocument) -> TrialRow:
    """The row of a planned trial before anything is known of its attempts."""
    images = document.get("experiment", {}).get("images", {})
    image = planned["image"]
    entry: HostDocument = document.get("hosts", {}).get(host, {})
    pulled: PullDocument = entry.get("pulls", {}).get(image, {})
    return TrialRow(
        run_id=document["run_id"],
        host=host,
        kind=planned["kind"],
        block=planned["block"],
        position=None,
        planned_position=planned["planned_position"],
        image=image,
        # a process has no image: its packages on this host have a digest
        digest=(images.get(image) or {}).get("digest") or pulled.get("digest"),
    )
