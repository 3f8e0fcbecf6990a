"""Early stopping of a host: intervals narrow enough, or no time left for another block."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from wattbench.config.experiment import BlocksRule
from wattbench.history.deadline import reason_to_stop
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run

log = logging.getLogger(__name__)


def reason_to_skip(run: Run, host: str, trial: PlannedTrial) -> str | None:
    """Why a trial is no longer needed; None if it is.

    Decided once a block, from the records already in the store, and kept there: later trials of the host
    read the decision instead of taking it again.
    """
    rule = run.experiment.protocol.blocks
    precise = isinstance(rule, BlocksRule) and trial.block > rule.min
    if not precise and run.deadline is None:
        return None
    before = trial.block - 1
    folder = store_keys.host_key(run.run_id, host, "stops")
    taken = {int(o.key[-8:-5]): o.key for o in run.store.list(folder + "/")}
    for block in sorted(b for b in taken if b <= before):
        decision = run.store.get_json(taken[block])
        if decision["stop"]:
            return str(decision["reason"])
    if before in taken:
        return None
    decision = _decide(run, host, trial.block, precise=precise)
    run.store.put_json(
        store_keys.host_key(run.run_id, host, "stops", f"{before:03d}.json"), decision
    )
    log.info("after block %d: %s", before, decision["reason"])
    return str(decision["reason"]) if decision["stop"] else None


def _decide(run: Run, host: str, block: int, *, precise: bool) -> dict[str, object]:
    """Whether a block is begun."""
    if late := reason_to_stop(run, host, block, datetime.now(UTC)):
        return {"stop": True, "reason": late, "block": block - 1}
    rule = run.experiment.protocol.blocks
    if not precise or not isinstance(rule, BlocksRule):
        return {"stop": False, "reason": "there is time for the next block", "block": block - 1}
    return _by_precision(run, host, rule, block - 1)


def _by_precision(run: Run, host: str, rule: BlocksRule, block: int) -> dict[str, object]:
    from wattbench.analysis.model.trials import to_frame
    from wattbench.analysis.stats.early_stopping import stop_after_block
    from wattbench.analysis.stats.results import Settings

    rows = [
        next((r.row for r in attempts if r.row.status == "valid"), attempts[-1].row)
        for attempts in run.records(host).values()
    ]
    if not any(row.kind == "workload" for row in rows):
        return {"stop": False, "reason": "nothing to compare yet", "block": block}
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
    return {"stop": decision.stop, "reason": decision.reason, "block": block}
