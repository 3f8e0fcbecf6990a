"""The verb ``packages``: what a command's interpreter would import from."""

from __future__ import annotations

import hashlib
import os
import subprocess

from wattbench.worker.agent.base import AgentError, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool

#: Run by the command's own interpreter: the distributions that it would import from.
LIST_PACKAGES = (
    "import importlib.metadata as m, json, platform\n"
    "found = {(d.metadata['Name'] or '').lower() + '==' + d.version for d in m.distributions()}\n"
    "print(json.dumps(['python==' + platform.python_version()] + sorted(found)))"
)


def verb_packages(_spool: Spool, payload: Json) -> Json:
    """The packages of a command's interpreter, and the SHA-256 that stands for them.

    Raises:
        AgentError: ``packages``: the command's first word is no Python that can be asked.
    """
    command = [str(word) for word in payload.get("command") or []]
    if not command:
        raise AgentError("bad-request", "packages: no command")
    try:
        done = subprocess.run(
            [command[0], "-c", LIST_PACKAGES], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=60, check=False, cwd="/",
            env=os.environ | {str(k): str(v) for k, v in (payload.get("env") or {}).items()},
        )  # fmt: skip
        listed = parse_json(done.stdout) if not done.returncode else None
        why = "it is not a Python of 3.8 or later"
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        listed, why = None, getattr(error, "strerror", None) or str(error)
    if not isinstance(listed, list):
        raise AgentError(
            "packages", "%s can't list its packages: %s" % (command[0], why),
            "install it on the host, or name its Python first in the image's command",
        )  # fmt: skip
    digest = hashlib.sha256("".join("%s\n" % line for line in listed).encode()).hexdigest()
    return {"packages": listed, "sha256": digest}
