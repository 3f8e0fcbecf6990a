"""The verb ``start``: begins an attempt, or attaches to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time

from wattbench.worker.agent import limits, meters
from wattbench.worker.agent.base import (
    FULL,
    AgentError,
    own_command,
    sha256_of,
    write_json,
)  # fmt: skip
from wattbench.worker.agent.burner import stop_burner
from wattbench.worker.agent.documents import AttemptSpec, misfit
from wattbench.worker.agent.lease import active_attempt, extend, holding
from wattbench.worker.agent.settle import settle
from wattbench.worker.agent.spool import Attempt
from wattbench.worker.agent.text import complaint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool


def verb_start(spool: Spool, payload: Json) -> Json:
    """Start an attempt, or attach to it if it was started before."""
    spec = checked_spec(payload)
    attempt = Attempt(spool, spec["id"])
    with spool.guard():
        if attempt.exists():
            return _attach(attempt, spec)
        _prepare_files(spool, spec)
        lease = holding(spool, spec["owner"])
        active = active_attempt(spool, lease)
        if active:
            raise AgentError(
                "busy", "%s is being measured" % active, "wait for it, or cleanup", active=active
            )
        _refuse_full_disk(spool, int(spec.get("min_free_bytes") or 0))
        stop_burner(spool)
        deadline_s = float(spec["timeout_s"]) + limits.SETTLE_S
        lease["active"] = spec["id"]
        extend(lease, deadline_s + limits.LEASE_MARGIN_S)
        _lay_out(attempt, spec, time.time() + deadline_s)
        write_json(spool.path("lease.json"), lease)
        attempt.note("start")
        _launch(attempt)
    if spec["kind"] == "pull":
        _until_held(attempt)
    return {
        "state": "started", "active": spec["id"], "path": attempt.folder,
        "deadline_unix_s": time.time() + deadline_s,
    }  # fmt: skip


def _refuse_full_disk(spool: Spool, needed: int) -> None:
    free, needed = shutil.disk_usage(spool.root).free, max(needed, 4 * limits.RESERVE_BYTES)
    if free < needed:
        raise AgentError(
            "disk-full",
            "%s has %.0f MB free, the attempt needs %.0f MB"
            % (spool.root, free / 1e6, needed / 1e6),
            "free space on the host",
            free_bytes=free,
        )


def _prepare_files(spool: Spool, spec: AttemptSpec) -> None:
    """Refuse an attempt whose files are not there, whole; let a container's own user read and run them."""
    for target, sha256 in [*(spec.get("files") or {}).items(), *_own_files(spec)]:
        path = spool.path(limits.FILES, sha256)
        if not os.path.isfile(path) or sha256_of(path) != sha256:
            text = "%s of %s is not in the spool" % (sha256[:12], target)
            raise AgentError("file-missing", text, "ship it again")
        os.chmod(path, 0o755)  # noqa: S103 (programs too)


def _own_files(spec: AttemptSpec) -> list[tuple[str, str]]:
    """Files that what asks a server needs on the host, unless it runs elsewhere: what each is, SHA-256."""
    serve = spec.get("serve") or spec.get("load")
    if not serve or (spec.get("serve") and serve.get("link")):
        return []
    files = {"generator": serve["generator"], "requests": serve.get("requests")}
    return [(key, sha256) for key, sha256 in files.items() if sha256]


def _until_held(attempt: Attempt) -> None:
    """Come back when the window is open, so that nothing of the pull lies before it."""
    deadline = time.monotonic() + limits.FINISH_S
    while attempt.is_running() and time.monotonic() < deadline:
        if os.path.exists(attempt.path("finish")):
            return
        time.sleep(0.02)


def _attach(attempt: Attempt, spec: AttemptSpec) -> Json:
    known = attempt.spec  # a corrupt one is reported, never run again
    if known and known["id"] != spec["id"]:
        raise AgentError(
            "conflict", "%s holds the attempt %s" % (attempt.folder, known["id"]),
            "give every host a spool of its own",
        )  # fmt: skip
    report = settle(attempt)
    answer: Json = {
        "state": "attached", "active": None if report else spec["id"], "over": report is not None,
        "path": attempt.folder, "deadline_unix_s": (known or spec).get("deadline_unix_s"),
    }  # fmt: skip
    return answer | ({"report": report} if report else {})


def checked_spec(payload: Json) -> AttemptSpec:
    """The spec with its defaults; refuses what can't be run.

    Raises:
        AgentError: ``bad-request``.
    """
    given: Any = {k: v for k, v in payload.items() if k != "spool"}
    spec: AttemptSpec = given
    why = misfit(spec, AttemptSpec) or _contradiction(spec)
    why = why or meters.find(spec["meter"]["kind"]).refusal(spec["meter"])
    if why:
        raise AgentError("bad-request", "start: %s" % why)
    interval_ms = spec["meter"].get("interval_ms") or limits.INTERVAL_MS
    return {
        **spec,
        "meter": {**spec["meter"], "interval_ms": interval_ms},
        "kind": spec.get("kind") or "workload", "gpus": spec.get("gpus") or [],
        "command": spec.get("command") or [], "env": spec.get("env") or {},
    }  # fmt: skip


def _contradiction(spec: AttemptSpec) -> str | None:
    """Why a well-formed spec can't be run."""
    if spec["id"] != "%(run)s/%(host)s/%(trial)s/%(attempt)s" % spec:
        return "id %r is not run/host/trial/attempt" % spec["id"]
    if spec["runtime"] not in ("docker", "process", "none", "control"):
        return "runtime %r is unknown" % spec["runtime"]
    contained = spec["runtime"] == "docker"
    if contained and not isinstance((spec.get("image") or {}).get("ref"), str):
        return "runtime docker without image.ref"
    if not contained and not (spec.get("command") or spec.get("entrypoint")):
        return "runtime %s without a command" % spec["runtime"]
    if spec.get("serve") and not contained:
        return "serve: runtime %s has no container" % spec["runtime"]
    load = spec.get("load")
    if load and (contained or not load.get("link")):
        return "load: it is a program of the host, with a link to the server's"
    return _misfit_of_files(spec) or _misfit_of_environment(spec, contained)


def _misfit_of_files(spec: AttemptSpec) -> str | None:
    for target, sha256 in (spec.get("files") or {}).items():
        if not _is_sha256(sha256) or not re.fullmatch(r"/[^,\0\n]+", target):
            return "files: %r: %r is not a path and a SHA-256" % (target, sha256)
    for key, sha256 in _own_files(spec):
        if not _is_sha256(sha256):
            return "%s: %s: %r is not a SHA-256" % (
                "serve" if spec.get("serve") else "load",
                key,
                sha256,
            )
    return None


def _misfit_of_environment(spec: AttemptSpec, contained: bool) -> str | None:
    for key, value in (spec.get("env") or {}).items():
        if not re.fullmatch(r"[^\s=#\0][^\s=\0]*", key):
            return "env %r can't be a variable's name" % key
        if "\0" in value or (contained and re.search(r"[\r\n]", value)):
            return "env %s: a container's variable has one line" % key
    return None


def _is_sha256(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _lay_out(attempt: Attempt, spec: AttemptSpec, deadline_unix_s: float) -> None:
    """Put the attempt's folder in place, complete, by one rename."""
    parent = os.path.dirname(attempt.folder)
    os.makedirs(parent, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".new-", dir=parent)
    try:
        os.chmod(draft, 0o755)  # noqa: S103 (a container's own user may look in)
        write_json(os.path.join(draft, "spec.json"), {**spec, "deadline_unix_s": deadline_unix_s})
        with open(os.path.join(draft, "reserve"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, limits.RESERVE_BYTES)
        os.rename(draft, attempt.folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise AgentError(
            "disk-full" if error.errno in FULL else "spool",
            "%s: %s" % (parent, error.strerror),
            "free space on the host",
        ) from error


def _launch(attempt: Attempt) -> None:
    """Leave a supervisor behind, detached from this process, its session and its files."""
    ready_r, ready_w = os.pipe()
    with open(attempt.path("supervisor.log"), "wb") as log:
        process = subprocess.Popen(
            own_command("supervise", attempt.folder, str(ready_w)),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[ready_w],
            start_new_session=True, cwd="/",
        )  # fmt: skip
    os.close(ready_w)
    ready = os.read(ready_r, 1)
    os.close(ready_r)
    if ready != b"1":
        process.wait()
        raise AgentError(
            "supervisor",
            "the supervisor did not start: %s" % complaint(attempt.path("supervisor.log")),
            "look at %s" % attempt.path("supervisor.log"),
        )
    process.returncode = 0  # not ours to wait for any more: it outlives this process
