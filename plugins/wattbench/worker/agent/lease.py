"""The lease: one run at a time holds this host."""

from __future__ import annotations

import os
import time

from wattbench.worker.agent.base import AgentError, boot_mark, number, stamp, write_json
from wattbench.worker.agent.settle import settle
from wattbench.worker.agent.spool import Attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import Lease
    from wattbench.worker.agent.spool import Spool

_YEAR_9999 = 253_402_300_799


def extend(lease: Lease, seconds: float) -> None:
    """Let a lease last at least this long from now, on both clocks."""
    now, boot = stamp(), boot_mark()
    if lease["boot"] != boot:
        lease["boot"], lease["expires_mono_s"] = boot, 0.0
    lease["expires_unix_s"] = max(lease["expires_unix_s"], now["unix_s"] + seconds)
    lease["expires_mono_s"] = max(lease["expires_mono_s"], now["mono_s"] + seconds)


def is_expired(lease: Lease) -> bool:
    """By the monotonic clock, which can't be set; across a restart by the wall clock."""
    now = stamp()
    if lease["boot"] == boot_mark():
        return bool(now["mono_s"] >= lease["expires_mono_s"])
    return bool(now["unix_s"] >= lease["expires_unix_s"])


def active_attempt(spool: Spool, lease: Lease | None) -> str | None:
    """The lease's attempt if it still runs; one without supervisor is settled. Needs the guard."""
    active = lease.get("active") if lease else None
    if not active:
        return None
    attempt = Attempt(spool, active)
    return attempt.id if attempt.exists() and settle(attempt) is None else None


def holding(spool: Spool, owner: str) -> Lease:
    """The owner's lease.

    Raises:
        AgentError: ``leased`` by another owner, or ``no-lease``.
    """
    lease = spool.lease()
    if lease is None or (lease["owner"] == owner and is_expired(lease)):
        raise AgentError("no-lease", "%s does not hold this host" % owner, "take the lease first")
    if lease["owner"] != owner:
        raise leased(lease)
    return lease


def leased(lease: Lease) -> AgentError:
    """The refusal of a host that another owner holds."""
    until = time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(lease["expires_unix_s"], _YEAR_9999))
    )
    return AgentError(
        "leased", "the host is held by %s until %s" % (lease["owner"], until),
        "wait for it, or release it if that run is over",
        owner=lease["owner"], expires_unix_s=lease["expires_unix_s"], active=lease.get("active"),
    )  # fmt: skip


def verb_lease(spool: Spool, payload: Json) -> Json:
    """Take, release or show the lease."""
    action, owner = payload.get("action", "show"), payload.get("owner")
    if action not in ("take", "release", "show") or (action != "show" and not owner):
        raise AgentError("bad-request", "lease: action take or release with an owner, or show")
    with spool.guard():
        lease = spool.lease()
        active = active_attempt(spool, lease)
        if action == "take":
            return _take(spool, lease, active, str(owner), number(payload, "ttl_s", 3600))
        if action == "release" and lease and lease["owner"] == owner:
            if active:
                raise AgentError(
                    "busy", "%s is being measured" % active, "cleanup first", active=active
                )
            os.unlink(spool.path("lease.json"))
            lease = None
        return _lease_answer(lease, active)


def _lease_answer(lease: Lease | None, active: str | None, reclaimed: Json | None = None) -> Json:
    return {
        "held": lease is not None and not is_expired(lease),
        "owner": lease["owner"] if lease else None,
        "expires_unix_s": lease["expires_unix_s"] if lease else None,
        "active": active, "reclaimed": reclaimed,
    }  # fmt: skip


def _take(spool: Spool, lease: Lease | None, active: str | None, owner: str, ttl_s: float) -> Json:
    reclaimed = None
    if lease and lease["owner"] != owner:
        if not is_expired(lease) or (active and not _is_overdue(spool, active)):
            raise leased(lease)
        from wattbench.worker.agent.cleanup import end_all

        reclaimed = {"owner": lease["owner"], **end_all(spool, lease["owner"], None)}
        lease, active = None, None
    if lease is None:
        boot = boot_mark()
        lease = {
            "owner": owner, "boot": boot, "expires_unix_s": 0.0, "expires_mono_s": 0.0,
            "taken": {"mono_s": time.monotonic(), "boot": boot},
        }  # fmt: skip
    lease["active"] = active
    extend(lease, ttl_s)
    write_json(spool.path("lease.json"), lease)
    return _lease_answer(lease, active, reclaimed)


def _is_overdue(spool: Spool, attempt_id: str) -> bool:
    return time.time() > Attempt(spool, attempt_id).deadline_unix_s
