"""The command line: ``python3 AGENT.pyz VERB`` reads a JSON object on stdin and writes one on stdout.

``{"ok": true, …}`` or ``{"ok": false, "error": CODE, "message": …, "action": …}``, with exit code 0
where the agent can say what is wrong. Nothing passes through a shell. docs/architecture.md has verbs,
spool and report. Each verb imports only the modules that it needs: Python compiles them at each call.

Besides the verbs: ``clock`` answers each line with the time; ``pipe SOCKET`` joins stdin and stdout
with a Unix socket; ``supervise DIR READY_FD`` is an attempt's supervisor, ``command DIR -- ARGV`` the
wrapper inside the meter, ``burner SECONDS`` the warm-up, ``burn --rounds N`` the control workload,
``hold`` what a meter runs around a pull until ``finish``, ``serve DIR`` what it runs around a server,
``ask DIR`` a load on a server of another host.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import FULL, AgentError, parse_json, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wattbench.worker.agent.base import Json

#: Verb → module that has ``verb_VERB(spool, payload)``.
VERBS = {
    "facts": "facts",
    "packages": "packages",
    "lease": "lease",
    "warm": "quiet",
    "quiet": "quiet",
    "start": "attempts",
    "wait": "started",
    "status": "status",
    "finish": "started",
    "list": "started",
    "forget": "started",
    "cleanup": "cleanup",
    "listen": "reach",
    "reach": "reach",
}


def _module(name: str) -> Any:
    return importlib.import_module("wattbench.worker.agent." + name)


def answer_verb(verb: str, text: str) -> Json:
    """One request's answer.

    Raises:
        AgentError: what the caller can act on.
    """
    from wattbench.worker.agent.spool import Attempt, Spool

    try:
        payload = parse_json(text or "{}", nan=False)
    except ValueError as error:
        raise AgentError("bad-request", "stdin is not JSON: %s" % error) from error
    if not isinstance(payload, dict):
        raise AgentError("bad-request", "stdin is not a JSON object")
    root = os.environ.get("WATTBENCH_SPOOL") or payload.get("spool") or limits.DEFAULT_SPOOL
    spool = Spool(str(root))
    active = spool.active()
    if active:
        attempt = Attempt(spool, active)
        if attempt.is_running():
            attempt.note(verb)
    answer: Json = getattr(_module(VERBS[verb]), "verb_" + verb)(spool, payload)
    return {"ok": True, **answer}


def run_verb(verb: str) -> int:
    """Answer on stdout; 0 for all that the agent understands, 1 for its own defects."""
    code = 0
    try:
        answer = answer_verb(verb, sys.stdin.read())
    except AgentError as error:
        answer = error.answer
    except Exception as error:  # noqa: BLE001 - the protocol promises an answer
        answer, code = _unforeseen(error)
    print(json.dumps(answer), flush=True)
    return code


def _unforeseen(error: Exception) -> tuple[Json, int]:
    """A disk that is full or refuses to be written is the host's trouble; all else is our defect."""
    if isinstance(error, OSError) and error.errno in FULL:
        text = "no room is left on the host: %s" % (error.filename or error.strerror)
        return AgentError("disk-full", text, "free space on the host").answer, 0
    if isinstance(error, OSError) and error.filename:
        text = "%s: %s" % (error.filename, error.strerror)
        return AgentError("spool", text, "look at it on the host").answer, 0
    import traceback

    traceback.print_exc()
    return AgentError("internal", "agent: %r" % error, "report this").answer, 1


def clock_loop() -> None:
    """Answer every line on stdin with the time, so that a round trip holds no process start."""
    from wattbench.worker.agent.base import boot_mark

    boot = boot_mark()
    for _line in sys.stdin:
        print(json.dumps({"ok": True, **stamp(), "boot": boot}), flush=True)


def main(argv: list[str]) -> int:
    """The command line."""
    if len(argv) == 1 and argv[0] in VERBS:
        return run_verb(argv[0])
    if argv == ["clock"]:
        clock_loop()
    elif len(argv) == 3 and argv[0] == "supervise":
        _module("supervisor").supervise(argv[1], int(argv[2]))
    elif len(argv) > 3 and argv[0] == "command" and argv[2] == "--":
        return int(_module("wrapper").run(argv[1], argv[3:]))
    elif len(argv) == 2 and argv[0] == "serve":
        return int(_module("serve").run(argv[1]))
    elif len(argv) == 2 and argv[0] == "ask":
        return int(_module("serve").ask(argv[1]))
    elif len(argv) == 2 and argv[0] == "burner":
        _module("burner").burner(float(argv[1]))
    elif len(argv) == 3 and argv[:2] == ["burn", "--rounds"] and argv[2].isdigit():
        _module("control").burn(int(argv[2]))
    elif argv == ["hold"]:
        _module("control").hold()
    elif len(argv) == 2 and argv[0] == "pipe":
        _module("pipe").pipe(argv[1])
    else:
        print("usage: agent %s" % " | ".join([*VERBS, "clock"]), file=sys.stderr)
        return 2
    return 0
