"""The verb ``cleanup``: end everything that belongs to an owner or a run."""

from __future__ import annotations

import shutil
import signal
import time

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import AgentError, read_json, write_json
from wattbench.worker.agent.burner import last_burner, stop_burner
from wattbench.worker.agent.docker import (
    DockerError,
    labelled,
    labelled_networks,
    remove_container,
    remove_network,
)  # fmt: skip
from wattbench.worker.agent.processes import is_alive, send_signal
from wattbench.worker.agent.settle import settle
from wattbench.worker.agent.spool import folder_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Attempt, Spool


def verb_cleanup(spool: Spool, payload: Json) -> Json:
    """End everything that belongs to an owner or a run."""
    owner, run = payload.get("owner"), folder_name(payload, "run")
    if not owner and not run:
        raise AgentError("bad-request", "cleanup: neither owner nor run")
    with spool.guard():
        answer = end_all(spool, owner, run)
        lease = spool.lease()
        if lease and lease.get("active") in answer["attempts"]:
            lease["active"] = None
            write_json(spool.path("lease.json"), lease)
        return answer


def end_all(spool: Spool, owner: str | None, run: str | None) -> Json:
    """Supervisors with all they hold, containers and networks by label, the burner. Needs the guard.

    Returns:
        ``attempts``, ``containers``, ``burner`` that were ended; ``docker``: why it didn't answer.
    """
    ended = []
    for attempt in spool.attempts(run):
        if owner in (None, attempt.owner) and (attempt.is_running() or attempt.report is None):
            _end_attempt(attempt)
            ended.append(attempt.id)
    containers: list[str] = []
    trouble = None
    labels = (
        {"spool": spool.root} | ({"owner": owner} if owner else {}) | ({"run": run} if run else {})
    )
    if shutil.which("docker"):
        try:
            containers = labelled(**labels)
            for name in containers:
                remove_container(name)
            for name in labelled_networks(**labels):
                remove_network(name)
        except DockerError as error:
            trouble = str(error)
    burner = last_burner(spool)
    burning = bool(burner and owner and burner["owner"] == owner and stop_burner(spool))
    return {"attempts": ended, "containers": containers, "burner": burning, "docker": trouble}


def _end_attempt(attempt: Attempt) -> None:
    """Ask the supervisor to stop; take over if it does not."""
    mark = (read_json(attempt.path("supervisor.json")) or {}).get("supervisor")
    deadline = time.monotonic() + limits.DOCKER_PATIENCE_S + limits.GRACE_S
    if mark is not None and is_alive(mark):
        send_signal([mark["pid"]], signal.SIGTERM)
        while attempt.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if attempt.is_running():
            send_signal([mark["pid"]], signal.SIGKILL)
            while attempt.is_running() and time.monotonic() < deadline + 5:
                time.sleep(0.05)
    settle(attempt)
