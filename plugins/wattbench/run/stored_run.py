"""A run in the object store: its document, trials, pulls and outcomes.

Tasks share nothing but the store; XComs carry names. ``run.json`` is written by ``prepare`` and completed
by ``analyze``; in between every host writes below its own folder only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from wattbench.analysis.model.facts_document import FactsDocument
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.run_document import (
    HostDocument,
    OutcomeDocument,
    PullDocument,
    RunDocument,
    read_host,
    read_outcome,
    read_pull,
    read_run,
)
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial, shuffled
from wattbench.run.retry import is_deterministic

if TYPE_CHECKING:
    from wattbench.storage.object_store import Store


@dataclass(frozen=True)
class Run:
    """One run as ``prepare`` stored it."""

    store: Store
    document: RunDocument

    @classmethod
    def load(cls, store: Store, run_id: str) -> Run:
        """Read ``run.json``.

        Raises:
            StoreError: unreachable, or ``prepare`` has not written it.
        """
        key = store_keys.run_json_key(run_id)
        return cls(store, read_run(store.get_json(key), key)[0])

    @property
    def run_id(self) -> str:
        """Folder, label and key name of this run."""
        return self.document["run_id"]

    @property
    def seed(self) -> str:
        """What the plan was drawn from."""
        return str(self.document["seed"])

    @property
    def deadline(self) -> datetime | None:
        """When measuring should be over; None: nothing limits it."""
        text = self.document.get("deadline")
        return None if text is None else datetime.fromisoformat(text)

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment as this run executes it."""
        resolved = ("digest", "size_bytes", "resolved_ref", "tag")
        images = {
            name: {k: v for k, v in (image or {}).items() if k not in resolved}
            for name, image in self.document["experiment"]["images"].items()
        }
        return Experiment.model_validate({**self.document["experiment"], "images": images})

    def host_config(self, host: str) -> HostConfig:
        """The host as hosts.yaml had it when the run was prepared."""
        return HostConfig.model_validate(self.document["hosts"][host]["config"])

    def plan(self, host: str) -> tuple[PlannedTrial, ...]:
        """All trials of a host in planned order."""
        return tuple(PlannedTrial.from_dict(t) for t in self.document["plan"][host])

    def image_ref(self, image: str) -> str | None:
        """The image by digest, as the host pulls and runs it; None for processes."""
        return (self.document["experiment"]["images"].get(image) or {}).get("resolved_ref")

    def files(self, image: str) -> dict[str, str]:
        """The workload's files in an image: path → SHA-256."""
        return dict((self.document.get("workload_files") or {}).get(image) or {})

    def file_content(self, sha256: str) -> bytes:
        """A file of the workload, as ``prepare`` stored it."""
        return self.store.get(store_keys.file_key(self.run_id, sha256))

    def digest(self, image: str, host: str) -> str | None:
        """``sha256:…`` of an image; of a process, of the packages that its host listed."""
        known = self.document["experiment"]["images"].get(image)
        if known is None:
            return None
        digest = known.get("digest")
        if digest is None and self.store.exists(key := self._pull_key(host, image)):
            digest = self.store.get_json(key).get("digest")
        return None if digest is None else str(digest)

    # ── what hosts write ────────────────────────────────────────────────────────────────────────

    def host_document(self, host: str) -> HostDocument | None:
        """Facts, problems and pulls of a host; None before its ``check`` has passed."""
        key = store_keys.host_json_key(self.run_id, host)
        return read_host(self.store.get_json(key), key) if self.store.exists(key) else None

    def write_host_document(self, host: str, document: HostDocument) -> None:
        """Replace a host's document. Only tasks of this host do so, one at a time."""
        key = store_keys.host_json_key(self.run_id, host)
        self.store.put_json(key, {**read_host(document, key)})

    def facts(self, host: str) -> FactsDocument:
        """What the agent reported of a host; empty before its ``check``."""
        return (self.host_document(host) or HostDocument()).get("facts", {})

    def load_address(self, host: str) -> str:
        """Where the load host reaches a host, as its check found it; empty: no load comes from one."""
        return (self.host_document(host) or HostDocument()).get("load", {}).get("address", "")

    def _pull_key(self, host: str, image: str) -> str:
        return store_keys.host_key(self.run_id, host, "pulls", f"{image}.json")

    def write_pull(self, host: str, image: str, report: PullDocument) -> None:
        """Keep what pulling an image took, or why it failed (``error``)."""
        key = self._pull_key(host, image)
        self.store.put_json(key, read_pull(report, key))

    def pulls(self, host: str) -> dict[str, PullDocument]:
        """Every image's pull on a host."""
        return {
            image: read_pull(self.store.get_json(key), key)
            for image in self.document["experiment"]["images"]
            if self.store.exists(key := self._pull_key(host, image))
        }

    # ── trials ──────────────────────────────────────────────────────────────────────────────────

    def stored_attempts(self, host: str, trial: PlannedTrial) -> list[int]:
        """Attempts of a trial whose record is in the store."""
        folder = store_keys.host_key(self.run_id, host, "trials", trial.name)
        keys = [o.key for o in self.store.list(folder + "/") if o.key.endswith("/trial.json")]
        return sorted(int(k.split("/")[-2]) for k in keys)

    def records(self, host: str) -> dict[str, list[Record]]:
        """``{trial name: records of its attempts}`` of a host, in order of attempts."""
        folder = store_keys.host_key(self.run_id, host, "trials")
        found: dict[str, list[Record]] = {}
        for listed in self.store.list(folder + "/"):
            if listed.key.endswith("/trial.json"):
                record = Record.from_dict(self.store.get_json(listed.key))
                found.setdefault(listed.key.split("/")[-3], []).append(record)
        return {k: sorted(v, key=lambda r: r.row.attempt or 0) for k, v in found.items()}

    def _outcome_key(self, host: str, trial: PlannedTrial) -> str:
        return store_keys.host_key(self.run_id, host, "outcomes", f"{trial.name}.json")

    def write_outcome(self, host: str, trial: PlannedTrial, status: str, reason: str) -> None:
        """Say why a planned trial has no attempt: ``skipped`` on purpose, or ``missing``."""
        outcome = OutcomeDocument(status=status, reason=reason)
        self.store.put_json(self._outcome_key(host, trial), outcome)

    def outcomes(self, host: str) -> dict[str, OutcomeDocument]:
        """``{trial name: {status, reason}}`` of trials without an attempt."""
        folder = store_keys.host_key(self.run_id, host, "outcomes")
        return {
            listed.key.rsplit("/", 1)[-1].removesuffix(".json"): read_outcome(
                self.store.get_json(listed.key), listed.key
            )
            for listed in self.store.list(folder + "/")
        }

    def to_try_again(self, host: str) -> tuple[PlannedTrial, ...]:
        """Trials without an accepted attempt for which another attempt may succeed, shuffled."""
        records, outcomes = self.records(host), self.outcomes(host)
        again = []
        for trial in self.plan(host):
            attempts = records.get(trial.name, [])
            outcome = outcomes.get(trial.name)
            if any(r.row.status == "valid" for r in attempts):
                continue
            if (outcome and outcome["status"] == "skipped") or any(map(is_deterministic, attempts)):
                continue
            again.append(trial)
        return shuffled(again, host, self.seed)
