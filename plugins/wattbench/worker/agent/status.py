"""The verb ``status``: how an attempt stands."""

from __future__ import annotations

from wattbench.worker.agent.settle import settle
from wattbench.worker.agent.spool import Attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool


def verb_status(spool: Spool, payload: Json) -> Json:
    """How an attempt stands, or without ``id`` the lease's active one."""
    attempt_id = payload.get("id") or spool.active()
    if not attempt_id:
        return {"state": "unknown", "id": None}
    attempt = Attempt(spool, str(attempt_id))
    if not attempt.exists():
        return {"state": "unknown", "id": attempt_id}
    if attempt.is_running():
        return {"state": "running", "id": attempt_id, "path": attempt.folder}
    with spool.guard():
        report = settle(attempt)
    answer = {"state": "running", "id": attempt_id, "path": attempt.folder}
    return answer | {"state": "over", "report": report} if report else answer
