"""Progress and outcome of a run on the terminal, from Airflow's REST API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from wattbench.cli.airflow_api import Client, reasons
from wattbench.cli.output import say
from wattbench.cli.report_download import report_text
from wattbench.dag_runs import Run, Task
from wattbench.progress import HostProgress, describe, hosts_of, whole

POLL_S = 5.0


def follow(client: Client, run: Run) -> int:
    """Print what is new until the run is over; 0 if every trial is accounted for.

    The first trial of a host that is not valid is printed with its reason: a person may end the run and
    correct it.
    """
    said: dict[str, str] = {}
    faulty: set[str] = set()
    while True:
        run = client.run(run)
        tasks = client.tasks(run)
        for line in progress(client, run, tasks):
            if said.get(line.host) != line.stage:
                say(f"{datetime.now().astimezone():%H:%M:%S}  {line}")
                said[line.host] = line.stage
        for task in tasks:
            host, _, step = task.task_id.partition(".")
            if step == "trial.collect" and task.state == "failed" and host not in faulty:
                faulty.add(host)
                say(f"          {next(reasons(client, run, [task]))}")
        if run.over:
            return outcome(client, run, tasks)
        time.sleep(POLL_S)


def outcome(client: Client, run: Run, tasks: Sequence[Task]) -> int:
    """Print a finished run's answer, and why it failed; 0 if every trial is accounted for."""
    if answer := report_text(client, run.run_id):
        say(answer)
    verdict = next((task.state for task in tasks if task.task_id == "verdict"), None)
    if run.state == "success" and verdict != "success":
        say(
            f"{run.run_id}: success in Airflow, but its verdict is {verdict or 'missing'}: it does not say "
            "that every trial is accounted for; see wattbench logs"
        )
        return 1
    if run.state == "success":
        say(f"{run.run_id}: every trial is accounted for; wattbench report {run.run_id} --out DIR")
        return 0
    say(f"{run.run_id}: {run.state}")
    for reason in reasons(client, run, tasks):
        say(f"  {reason}")
    return 1


def progress(client: Client, run: Run, tasks: Sequence[Task]) -> list[HostProgress]:
    """Where each host stands, and what the run as a whole is at."""
    now = datetime.now(UTC)
    lines = [describe(h, tasks, client.plan(run, h), {}, now) for h in hosts_of(tasks)]
    if doing := whole(tasks):
        lines.append(HostProgress("run", doing))
    return lines
