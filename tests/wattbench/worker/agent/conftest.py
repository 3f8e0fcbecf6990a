"""The agent as the controller meets it: a process a call, JSON in and out, in a spool of the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.shipped import written
from wattbench.worker.agent_bundle import bundle

#: The interpreter that runs the agent; set it to a Python 3.9 to see that it does.
PYTHON = os.environ.get("WATTBENCH_AGENT_PYTHON", sys.executable)

#: EnergiBridge's interface in a few lines; the stand-in proper has its own tests.
TINY_METER = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    --version) echo "tiny 1.0"; exit 0;;
    -o) csv=$2; shift 2;;
    -c) out=$2; shift 2;;
    -i) shift 2;;
    -g) shift;;
    --) shift; break;;
    *) break;;
  esac
done
@BEFORE@
printf 'Delta,Time,PACKAGE_ENERGY (J)\\n0,1,10\\n' > "$csv"
@RUN@
printf '1,2,11\\n' >> "$csv"
exit $rc
"""


class Agent:
    """One worker host's spool."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder, self.program = folder, program
        self.spool = folder / "spool"
        self.environment = dict(os.environ) | {"WATTBENCH_SPOOL": str(self.spool)}
        self.meter = self.make_meter("meter")

    def make_meter(self, name: str, *, before: str = "", run: str = '"$@" > "$out"; rc=$?') -> str:
        path = self.folder / name
        path.write_text(TINY_METER.replace("@BEFORE@", before).replace("@RUN@", run))
        path.chmod(0o755)
        return str(path)

    def popen(self, verb: str, payload: dict[str, Any] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PYTHON, str(self.program), verb],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment, text=True,
        )  # fmt: skip
        assert process.stdin
        process.stdin.write(json.dumps(payload or {}))
        process.stdin.close()
        process.stdin = None
        return process

    def answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        answer: dict[str, Any] = json.loads(out)
        return answer

    def call(self, verb: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        """An answer with ``ok``."""
        answer = self.ask(verb, payload)
        assert answer["ok"], answer
        return answer

    def ask(self, verb: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        """Any answer."""
        return self.answer(self.popen(verb, payload))

    def take(self, owner: str = "run-1", ttl_s: float = 600) -> dict[str, Any]:
        return self.call("lease", {"action": "take", "owner": owner, "ttl_s": ttl_s})

    def spec(self, command: list[str], trial: str = "001-pip", **changes: Any) -> dict[str, Any]:
        spec = {
            "run": "run-1", "host": "worker", "trial": trial, "attempt": 1, "owner": "run-1",
            "kind": "workload", "runtime": "process", "image": None, "command": command, "env": {},
            "gpus": [], "timeout_s": 60, "lead_s": 0, "rest": {"rested_s": 3.0},
            "meter": {"kind": "modelled", "command": self.meter, "interval_ms": 200},
        } | changes  # fmt: skip
        return spec | {"id": "{run}/{host}/{trial}/{attempt}".format(**spec)}

    def sh(self, script: str, **changes: Any) -> dict[str, Any]:
        """A spec that runs a line of shell."""
        return self.spec(["sh", "-c", script], **changes)

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The report of an attempt that is started now."""
        self.call("start", spec)
        return self.over(spec)

    def over(self, spec: dict[str, Any]) -> dict[str, Any]:
        answer = self.call("wait", {"id": spec["id"], "timeout_s": 50})
        assert answer["over"]
        report: dict[str, Any] = answer["report"]
        return report

    def attempt_folder(self, spec: dict[str, Any]) -> Path:
        return self.spool / "trials" / spec["run"] / spec["trial"] / str(spec["attempt"])

    def supervisor(self, spec: dict[str, Any]) -> int:
        known = json.loads((self.attempt_folder(spec) / "supervisor.json").read_text())
        return int(known["supervisor"]["pid"])

    def edit(self, name: str, **changes: Any) -> None:
        """Change a JSON file of the spool."""
        path = self.spool / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def is_running(pid: int) -> bool:
    """Whether a process lives; zombies do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as it is shipped."""
    return written(bundle(), tmp_path_factory.mktemp("agent"))


@pytest.fixture
def agent(tmp_path: Path, program: Path) -> Iterator[Agent]:
    """A fresh spool; whatever the test leaves running in it is ended by pid."""
    agent = Agent(tmp_path, program)
    yield agent
    if agent.spool.exists():
        attempts = agent.spool.glob("trials/*/*/*")
        if any(not (a / "report.json").exists() for a in attempts):
            agent.ask("cleanup", {"owner": "run-1"})
        if (agent.spool / "warm.json").exists():
            agent.ask(
                "cleanup", {"owner": json.loads((agent.spool / "warm.json").read_text())["owner"]}
            )
        for known in agent.spool.glob("trials/*/*/*/supervisor.json"):
            pid = json.loads(known.read_text())["supervisor"]["pid"]
            if is_running(pid) and str(program) in Path(f"/proc/{pid}/cmdline").read_text():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def leased(agent: Agent) -> Agent:
    """The agent, with run-1 holding the host."""
    agent.take()
    return agent


@pytest.fixture
def gone() -> Any:
    """Tells whether a process has ended."""
    return lambda pid: not is_running(pid)
