"""Quarantine: decides from the control workload's run-to-run spread whether a host's results are used.

A host in quarantine measures nothing but the control workload, until that passes again; where the
experiment has none, it is left alone. The rule is :func:`analysis.control.standing`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from wattbench.analysis.model.facts_document import ProblemDocument
from wattbench.history.host_history import Past, recall_controls
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run

if TYPE_CHECKING:
    from wattbench.config.hosts import HostConfig
    from wattbench.storage.object_store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """A host over its runs.

    Attributes:
        quarantined: whether it is in quarantine.
        reason: why, or why not, in one sentence.
        levels: ``(run id, joules of the control workload)``, oldest first, of runs that compare.
    """

    quarantined: bool
    reason: str
    levels: tuple[tuple[str, float], ...]

    @property
    def course_pct(self) -> tuple[float, ...]:
        """The levels against their median, %."""
        middle = median([joules for _, joules in self.levels]) if self.levels else 0.0
        return tuple(100 * (joules / middle - 1) for _, joules in self.levels)


def judge(past: Sequence[Past], limit_pct: float | None) -> Standing:
    """Judge a host by its earlier runs, oldest first.

    Only runs whose control workload is that of the newest are compared: as much work, the same
    domains of the same meter. Without a limit nothing is judged.
    """
    from wattbench.analysis.stats.control_chart import standing

    controls = [(p.run_id, p.control) for p in past if p.control is not None]
    alike = [(run_id, c.joules) for run_id, c in controls if c.is_like(controls[-1][1])]
    if limit_pct is None:
        return Standing(False, "hosts.yaml sets no limit", tuple(alike))
    found = standing([joules for _, joules in alike], limit_pct)
    return Standing(found.quarantined, found.reason, tuple(alike))


def standing_of(store: Store, host: str, config: HostConfig) -> Standing:
    """A host as it stands by the runs in the store."""
    return judge(recall_controls(store, host), config.unsteady_pct)


def problem(found: Standing) -> ProblemDocument:
    """Quarantine in the form of the other problems that a host's check finds."""
    return {
        "code": "host-unsteady",
        "severity": "soft",
        "message": f"in quarantine: {found.reason}",
        "action": "look for other work, cooling and clock settings on the host; the control workload "
        "(protocol.control) lifts it",
    }


# ── a run ───────────────────────────────────────────────────────────────────────────────────────


def quarantine(run: Run, host: str) -> str | None:
    """Why a run takes only the control workload's trials of a host; None if it takes all.

    Decided by the host's check, which keeps it with the host's document.
    """
    reason = (run.host_document(host) or {}).get("quarantine")
    return None if reason is None else str(reason)


def set_aside(
    run: Run, host: str, trials: Sequence[PlannedTrial], reason: str | None
) -> tuple[PlannedTrial, ...]:
    """The trials to measure; in quarantine the others become ``skipped``, with the reason."""
    if reason is None:
        return tuple(trials)
    log.warning("%s is in quarantine: %s", host, reason)
    for trial in trials:
        if trial.kind != "control":
            run.write_outcome(host, trial, "skipped", f"host in quarantine: {reason}")
    return tuple(t for t in trials if t.kind == "control")
