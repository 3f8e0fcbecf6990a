"""The end of a run on a host, however the run ended: everything collected, nothing left, the lease free.

May be repeated at any time, by the run itself or from outside after the run has gone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from wattbench.errors import HostError
from wattbench.run import host_claims
from wattbench.run.stored_run import Run
from wattbench.steps import trial
from wattbench.worker.attempt_spec import PREPARING

if TYPE_CHECKING:
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)

#: Supervisors and containers are ended one after the other, s.
CLEANUP_TIMEOUT_S = 300


def close_host(run: Run, host: Host, host_name: str) -> int:
    """End what still runs, bring all raw logs that lie on the host into the store, release the lease.

    Returns:
        How many attempts were brought.

    Raises:
        HostError: ``leased``: another run has the host by now, and is not disturbed; try again later.
        HostError, StoreError: the host still has everything; try again.
    """
    if other := host_claims.holder(run, host_name):
        raise HostError(
            f"{host_name} is held by {other.run_id}; what {run.run_id} left there is collected later",
            code="leased",
        )
    host_claims.begin_closing(run, host_name)
    ended = host.call("cleanup", {"owner": run.run_id, "run": run.run_id}, CLEANUP_TIMEOUT_S)
    for attempt in ended["attempts"]:
        log.warning("%s was still running: ended", attempt)
    measured = host_name in run.document["plan"]
    plan = {planned.name: planned for planned in run.plan(host_name)} if measured else {}
    brought = 0
    for listed in host.call("list", {"run": run.run_id})["attempts"]:
        identity = str(listed["id"])
        name, number = identity.split("/")[2:]
        if name in plan:
            if trial.forget_collected(run, host, host_name, plan[name], int(number)):
                continue
            record = trial.collect_attempt(run, host, host_name, plan[name], int(number))
            log.info(
                "%s: %s", plan[name].label, "gone" if record is None else trial.describe(record)
            )
            brought += record is not None
        # A pull's joules were computed, or given up, by `pull`; a load's records are with its server's.
        elif not measured or name.startswith(PREPARING):
            host.call("forget", {"id": identity})
        else:
            log.warning("%s is not in the plan of %s: it stays there", identity, host_name)
    host.call("lease", {"action": "release", "owner": run.run_id})
    host_claims.drop(run, host_name)
    return brought
