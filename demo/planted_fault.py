"""Fault planted in the demo's run: other work on one host inside one window, for a finding to catch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from demo import docker_engine
from demo.checkout import Checkout
from demo.hosts import VirtualHost
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial

#: On the host, beside everything of wattbench's: waits for a container to start, then burns CPU with three
#: processes, 2 s each. They outweigh the container, so that its window holds nearly all of it.
_OTHER_WORK = """\
import os, subprocess, sys, time
filters = ["--filter", "event=start", "--filter", "container=" + sys.argv[1]]
command = ["timeout", "900", "docker", "events", *filters, "--format", "{{.Time}}"]
with subprocess.Popen(command, stdout=subprocess.PIPE) as events:
    has_started = events.stdout.readline()
    events.terminate()
for _ in range(3 if has_started else 0):
    if os.fork() == 0:
        while time.process_time() < 2:
            pass
        os._exit(0)
"""
CODE = "host-busy"

Say = Callable[[str], None]


@dataclass(frozen=True)
class PlantedFault:
    """Where the fault is.

    Attributes:
        run_id: in which run.
        host: on which host.
        trial: beside the first attempt of which trial, `002-pip-numpy`.
    """

    run_id: str
    host: str
    trial: str

    @property
    def container(self) -> str:
        """Name of the container that it works beside."""
        identity = store_keys.attempt_id(self.run_id, self.host, self.trial, 1)
        return "wattbench-" + identity.replace("/", "-")

    def outcome(self, findings: Path) -> tuple[list[str], bool]:
        """What was planted and what caught it, for people; and whether anything did.

        Args:
            findings: the report's `findings.json`.
        """
        lines = [
            f"planted on purpose: other work on {self.host} inside the window of trial {self.trial}"
        ]
        subject = f"trial {self.host}/{self.trial}/1"
        for found in json.loads(findings.read_text(encoding="utf-8")):
            if (found["code"], found["verdict"], found["subject"]) == (CODE, "found", subject):
                counts = found["evidence"].get("accepted_attempt")
                instead = f", attempt {counts} counts instead" if counts else ""
                lines.append(
                    f"caught: {CODE}: {found['message']}; that attempt is kept out{instead}"
                )
                return lines, True
        return [*lines, f"NOT caught: no finding {CODE} of {subject} in {findings}"], False


def plant(
    checkout: Checkout, host: VirtualHost, run_id: str, plan: Sequence[PlannedTrial], say: Say
) -> PlantedFault:
    """Leave the other work waiting on a host for its first workload trial, and keep where.

    Args:
        checkout: whose test bed.
        host: which host.
        run_id: of which run.
        plan: the host's.
        say: receives a line if Docker has to be started.
    """
    first = next(trial for trial in plan if trial.kind == "workload")
    client = docker_engine.ensure(checkout, say)
    fault = PlantedFault(run_id, host.name, first.name)
    script = ["python3", "-c", _OTHER_WORK, fault.container]
    client.containers.get(host.container).exec_run(script, detach=True)
    write_atomically(_file(checkout), json.dumps(asdict(fault)))
    return fault


def of_run(checkout: Checkout, run_id: str) -> PlantedFault | None:
    """The fault planted in a run, by this call or by one that was interrupted."""
    try:
        fault = PlantedFault(**json.loads(_file(checkout).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return fault if fault.run_id == run_id else None


def _file(checkout: Checkout) -> Path:
    return checkout.demo / "planted_fault.json"
