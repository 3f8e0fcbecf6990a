"""Early stopping of a host: narrow intervals, no time for another block, or nothing left to compare."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from wattbench.config.experiment import BlocksRule
from wattbench.history.deadline import reason_to_stop
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.retry import is_deterministic
from wattbench.run.stored_run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """Whether a host goes on after a block; kept in the store, so that it is taken once.

    Attributes:
        stop: whether its later trials are left out.
        reason: why, or why not, in one sentence.
        block: after which it was taken; 0: before the first trial.
        is_fault: what is left out is missing and the run fails; else it is skipped on purpose.
    """

    stop: bool
    reason: str
    block: int
    is_fault: bool = False

    @property
    def status(self) -> str:
        """What becomes of the trials that are left out."""
        return "missing" if self.is_fault else "skipped"


def stop_before(run: Run, host: str, trial: PlannedTrial) -> Decision | None:
    """The decision by which a trial is left out; None if it is measured.

    Taken once a block, from the records already in the store: later trials of the host read the decision
    instead of taking it again.
    """
    precise = _may_be_precise(run, trial)
    doubtful = run.experiment.protocol.stop_without_comparison and trial.block > 1
    if not precise and not doubtful and run.deadline is None:
        return None
    before = trial.block - 1
    taken = {d.block: d for d in _decisions(run, host, before)}
    stopped = next((d for d in taken.values() if d.stop), None)
    if stopped is not None or before in taken:
        return stopped
    decision = _decide(run, host, trial.block, precise=precise)
    _keep(run, host, decision)
    log.info("after block %d: %s", before, decision.reason)
    return decision if decision.stop else None


def stop_known(run: Run, host: str, trial: PlannedTrial) -> Decision | None:
    """The decision by which a trial is left out, if it was taken already."""
    return next((d for d in _decisions(run, host, trial.block - 1) if d.stop), None)


def needs_records(run: Run, host: str, trial: PlannedTrial) -> bool:
    """Whether :func:`stop_before` takes a decision that depends on the records of all earlier trials."""
    doubtful = run.experiment.protocol.stop_without_comparison and trial.block == 2
    if not _may_be_precise(run, trial) and not doubtful and run.deadline is None:
        return False
    taken = _decisions(run, host, trial.block - 1)
    return not any(d.stop or d.block == trial.block - 1 for d in taken)


def _may_be_precise(run: Run, trial: PlannedTrial) -> bool:
    rule = run.experiment.protocol.blocks
    return isinstance(rule, BlocksRule) and trial.block > rule.min


def stop_without_images(
    run: Run, host: str, trials: Sequence[PlannedTrial], unavailable: Mapping[str, str]
) -> str | None:
    """Stop a host before its first trial if its images leave nothing to compare.

    Args:
        trials: that would be measured; with a reason to stop, all of them become ``missing``.
        unavailable: image → why it is not on the host.

    Returns:
        The reason; None if the host goes on.
    """
    why = nothing_to_compare(_images(trials), unavailable)
    if why is None or not run.experiment.protocol.stop_without_comparison:
        return None
    decision = Decision(True, f"{why}; nothing was measured", 0, is_fault=True)
    _keep(run, host, decision)
    for trial in trials:
        run.write_outcome(host, trial, decision.status, decision.reason)
    return decision.reason


def is_given_up(run: Run, host: str) -> bool:
    """Whether a fault has stopped the host: nothing is tried again there."""
    return any(d.is_fault for d in _decisions(run, host, run.experiment.protocol.max_blocks))


def nothing_to_compare(images: Sequence[str], lost: Mapping[str, str]) -> str | None:
    """Why no two images can be compared; None if two can, or one where no more are planned.

    Args:
        images: that are planned.
        lost: image → why it can't be measured.
    """
    left = [image for image in images if image not in lost]
    if len(left) >= min(2, len(images)):
        return None
    by_reason: dict[str, list[str]] = {}
    for image in images:
        if image in lost:
            by_reason.setdefault(lost[image], []).append(image)
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
    what = f"{left[0]} alone compares with nothing" if left else "no image can be measured"
    return f"{what} ({reasons})"


# ── decisions ───────────────────────────────────────────────────────────────────────────────────


def _decisions(run: Run, host: str, until: int) -> list[Decision]:
    """Those taken up to a block, in order."""
    folder = store_keys.host_key(run.run_id, host, "stops")
    keys = sorted(listed.key for listed in run.store.list(folder + "/"))
    return [Decision(**run.store.get_json(key)) for key in keys if int(key[-8:-5]) <= until]


def _keep(run: Run, host: str, decision: Decision) -> None:
    key = store_keys.host_key(run.run_id, host, "stops", f"{decision.block:03d}.json")
    run.store.put_json(key, asdict(decision))


def _decide(run: Run, host: str, block: int, *, precise: bool) -> Decision:
    """Whether a block is begun."""
    protocol = run.experiment.protocol
    if block == 2 and protocol.stop_without_comparison:
        planned = [trial for trial in run.plan(host) if trial.block == 1]
        if why := nothing_to_compare(_images(planned), _invalid_for_good(run, host, planned)):
            text = f"stopped after the first block: {why}; protocol.stop_without_comparison: false goes on"
            return Decision(True, text, block - 1, is_fault=True)
    if late := reason_to_stop(run, host, block, datetime.now(UTC)):
        return Decision(True, late, block - 1)
    if not precise or not isinstance(protocol.blocks, BlocksRule):
        return Decision(False, "the next block is measured", block - 1)
    return _by_precision(run, host, protocol.blocks, block - 1)


def _images(trials: Sequence[PlannedTrial]) -> list[str]:
    """Images with a trial of their workload."""
    return list(dict.fromkeys(trial.image for trial in trials if trial.kind == "workload"))


def _invalid_for_good(run: Run, host: str, trials: Sequence[PlannedTrial]) -> dict[str, str]:
    """Image → why its trial has no valid attempt and none can have one."""
    records, outcomes = run.records(host), run.outcomes(host)
    found = {}
    for trial in trials:
        if trial.kind != "workload":
            continue
        attempts, outcome = records.get(trial.name, []), outcomes.get(trial.name)
        repeats = next((r for r in attempts if is_deterministic(r)), None)
        if repeats is not None and not any(r.row.status == "valid" for r in attempts):
            found[trial.image] = repeats.row.reason or repeats.row.status or "invalid"
        elif (
            not attempts
            and outcome
            and (error := run.pulls(host).get(trial.image, {}).get("error"))
        ):
            found[trial.image] = error
    return found


def _by_precision(run: Run, host: str, rule: BlocksRule, block: int) -> Decision:
    from wattbench.analysis.model.trials import to_frame
    from wattbench.analysis.stats.early_stopping import stop_after_block
    from wattbench.analysis.stats.results import Settings

    rows = [
        next((r.row for r in attempts if r.row.status == "valid"), attempts[-1].row)
        for attempts in run.records(host).values()
    ]
    if not any(row.kind == "workload" for row in rows):
        return Decision(False, "nothing to compare yet", block)
    settings = run.experiment.analysis
    decision = stop_after_block(
        to_frame(rows),
        Settings(
            reference=run.experiment.reference,
            alpha=settings.alpha,
            correction=settings.correction,
            equivalence_pct=settings.equivalence_pct,
            precision_pct=rule.precision_pct,
            blocks_min=rule.min,
            blocks_max=rule.max,
            endpoint=run.experiment.endpoint,
        ),
    )
    return Decision(decision.stop, decision.reason, block)
