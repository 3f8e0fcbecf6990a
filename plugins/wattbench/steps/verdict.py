"""Task `verdict`: whether every planned trial is accounted for."""

from __future__ import annotations

from dataclasses import dataclass

from wattbench.analysis.model.errors import UserError
from wattbench.run.stored_run import Run


@dataclass(frozen=True)
class Account:
    """How many planned trials ended how. Skipped ones were left out on purpose."""

    planned: int
    valid: int
    skipped: int
    lost: tuple[str, ...]

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
            shown = "; ".join(self.lost[:5])
            more = f"; and {len(self.lost) - 5} more" if len(self.lost) > 5 else ""
            text += f"; not accounted for: {shown}{more}"
        return text


def account(run: Run) -> Account:
    """Count what became of every planned trial of every host that was meant to run."""
    planned = valid = skipped = 0
    lost: list[str] = []
    for host in run.experiment.hosts:
        try:
            records, outcomes = run.records(host), run.outcomes(host)
        except UserError as error:
            records, outcomes = {}, {}
            lost.append(f"{host}: {error}")
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
                why = outcome["reason"] if outcome else "never started"
                if last:
                    why = last.reason or last.status
                lost.append(f"{host}/{trial.name}: {why}")
    return Account(planned, valid, skipped, tuple(lost))
