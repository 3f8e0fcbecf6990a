"""`wattbench host release NAME`: takes a host's lease from a run that will not give it back itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wattbench.errors import HostError
from wattbench.run import host_claims
from wattbench.worker.ssh import Host

if TYPE_CHECKING:
    from wattbench.storage.object_store import Store
    from wattbench.worker.target import HostTarget

#: Supervisors and containers are ended one after the other, s.
CLEANUP_TIMEOUT_S = 300


@dataclass(frozen=True)
class Released:
    """What was there.

    Attributes:
        owner: the run that had the host; None: none had it.
        ended: attempts that were still running, and were ended.
        left: attempts whose raw logs still lie on the host.
    """

    owner: str | None
    ended: tuple[str, ...]
    left: tuple[str, ...]


def release(target: HostTarget, *, force: bool) -> Released:
    """Release the lease, whoever holds it; raw logs stay on the host until they are collected.

    Args:
        target: the host.
        force: end an attempt that is being measured.

    Raises:
        HostError: ``busy``: an attempt is being measured; or the host can't be reached.
    """
    with Host(target) as host:
        host.ship()
        lease = host.call("lease", {"action": "show"})
        owner, ended = lease.get("owner"), tuple[str, ...]()
        if lease.get("active") and not force:
            raise HostError(
                f"{target.name}: {lease['active']} is being measured; wait for it, mark its run failed "
                "in Airflow, or give --force to end it",
                code="busy",
            )
        if owner:
            ended = tuple(host.call("cleanup", {"owner": owner}, CLEANUP_TIMEOUT_S)["attempts"])
            host.call("lease", {"action": "release", "owner": owner})
        left = tuple(str(one["id"]) for one in host.call("list", {})["attempts"])
    return Released(owner, ended, left)


def expire_claims(store: Store, name: str) -> int:
    """Let others ask the host at once. The claims stay: by them what lies on the host is collected.

    Returns:
        How many claims stood.

    Raises:
        StoreError: it does not answer.
    """
    standing = [c for c in host_claims.claims(store, name) if not c.is_expired(time.time())]
    for one in standing:
        host_claims.put(store, replace(one, expires_unix_s=time.time()))
    return len(standing)
