"""Loads a stored run: run.json, records and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import SCHEMA_VERSION, TrialRow
from wattbench.analysis.storage.source import DamagedError, MissingError, Source


@dataclass(frozen=True)
class Run:
    """A run as stored.

    Attributes:
        document: ``run.json``.
        records: every attempt, by host, planned position and attempt.
        outcomes: (host, trial's name) → ``{status, reason}`` of trials without an attempt.
        notes: findings about the store itself: objects that are gone or damaged.
    """

    document: Mapping[str, Any]
    records: tuple[Record, ...]
    outcomes: Mapping[tuple[str, str], Mapping[str, str]]
    notes: tuple[Finding, ...] = ()

    @property
    def run_id(self) -> str:
        """The run's name."""
        return str(self.document["run_id"])


def load(source: Source) -> Run:
    """Read a run.

    Raises:
        InputError: the source holds no run, or its ``run.json`` can't be used.
    """
    try:
        document = source.read_json("run.json")
    except MissingError as error:
        raise InputError(
            f"{source.place} holds no run.json; name the folder of one run (…/runs/RUN_ID)"
        ) from error
    _check_document(document, source.place)
    records, notes = [], []
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
    return Run(document, tuple(records), _outcomes(source, document), tuple(notes))


def _check_document(document: Any, place: str) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("plan"), dict):
        raise InputError(f"{place}/run.json holds no plan; it is not a run's document")
    if "run_id" not in document:
        raise InputError(f"{place}/run.json names no run_id; it is not a run's document")
    if int(document.get("schema", 1)) > SCHEMA_VERSION:
        raise InputError(
            f"{place}/run.json is of schema {document['schema']}, this version reads up to "
            f"{SCHEMA_VERSION}; upgrade wattbench"
        )


def _damaged(
    document: Mapping[str, Any], key: str, error: Exception
) -> tuple[Record | None, Finding]:
    """A record that can't be read, as a failed attempt of its planned trial."""
    _, host, _, name, attempt, _ = key.split("/")
    planned = next((t for t in document["plan"].get(host, ()) if name_of(t) == name), None)
    reason = f"trial.json can't be used: {' '.join(str(error).split())[:200]}"
    subject = f"trial {host}/{name}/{attempt}"
    note = finding("row-untraceable", Verdict.FOUND, subject, reason, file=key)
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
    source: Source, document: Mapping[str, Any]
) -> dict[tuple[str, str], Mapping[str, str]]:
    found: dict[tuple[str, str], Mapping[str, str]] = {
        (host, name): outcome
        for host, entry in (document.get("hosts") or {}).items()
        for name, outcome in ((entry or {}).get("outcomes") or {}).items()
    }
    for entry in source.list("hosts/"):
        parts = entry.key.split("/")
        if len(parts) == 4 and parts[2] == "outcomes":
            found[parts[1], parts[3].removesuffix(".json")] = source.read_json(entry.key)
    return found


def name_of(planned: Mapping[str, Any]) -> str:
    """Folder name of a planned trial."""
    return str(planned.get("name") or f"{planned['planned_position']:03d}-{planned['image']}")


def planned_row(document: Mapping[str, Any], host: str, planned: Mapping[str, Any]) -> TrialRow:
    """The row of a planned trial before anything is known of its attempts."""
    images = (document.get("experiment") or {}).get("images") or {}
    image, entry = str(planned["image"]), (document.get("hosts") or {}).get(host) or {}
    pulled = (entry.get("pulls") or {}).get(image) or {}
    return TrialRow(
        run_id=str(document["run_id"]),
        host=host,
        kind=str(planned["kind"]),
        block=int(planned["block"]),
        position=None,
        planned_position=int(planned["planned_position"]),
        image=image,
        # a process has no image: its packages on this host have a digest
        digest=(images.get(image) or {}).get("digest") or pulled.get("digest"),
    )
