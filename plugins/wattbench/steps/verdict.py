"""Task `verdict`: whether every planned trial is accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattbench.analysis.model.errors import UserError
from wattbench.run.stored_run import Run


@dataclass(frozen=True)
class Account:
    """How many planned trials ended how. Skipped ones were left out on purpose.

    Attributes:
        lost: ``(host/trial, why)`` of the others.
    """

    planned: int
    valid: int
    skipped: int
    lost: tuple[tuple[str, str], ...]

    @property
    def is_complete(self) -> bool:
        """Whether every planned trial is valid or skipped, and not all of them skipped."""
        return not self.lost and self.valid > 0

    def sentence(self) -> str:
        """``17/18 trials valid; lost: …``."""
        wanted = self.planned - self.skipped
        text = f"{self.valid}/{wanted} trials valid"
        if self.skipped:
            text += f", {self.skipped} skipped on purpose"
        if not wanted:
            text += ": nothing was measured"
        if self.lost:
            by_reason: dict[str, list[str]] = {}
            for subject, why in self.lost:
                by_reason.setdefault(why, []).append(subject)
            shown = [f"{_listed(names)}: {why}" for why, names in by_reason.items()]
            more = f"; and {len(shown) - 5} more reasons" if len(shown) > 5 else ""
            text += f"; not accounted for: {'; '.join(shown[:5])}{more}"
        return text


def _listed(names: Sequence[str]) -> str:
    """The first of several trials, and how many others there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def account(run: Run) -> Account:
    """Count what became of every planned trial of every host that was meant to run."""
    planned = valid = skipped = 0
    lost: list[tuple[str, str]] = []
    for host in run.experiment.hosts:
        try:
            records, outcomes = run.records(host), run.outcomes(host)
            refusal = (run.host_document(host) or {}).get("reason", "never started")
        except UserError as error:
            records, outcomes, refusal = {}, {}, "never started"
            lost.append((host, str(error)))
        for trial in run.plan(host):
            planned += 1
            attempts = records.get(trial.name, [])
            outcome = outcomes.get(trial.name)
            if any(r.row.status == "valid" for r in attempts):
                valid += 1
            elif outcome and outcome["status"] == "skipped":
                skipped += 1
            else:
                last = attempts[-1].row if attempts else None
                why = outcome["reason"] if outcome else refusal
                if last:
                    why = last.reason or last.status
                lost.append((f"{host}/{trial.name}", why))
    return Account(planned, valid, skipped, tuple(lost))
