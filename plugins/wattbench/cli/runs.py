"""``wattbench run | status | logs``: runs in Airflow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model.errors import UserError
from wattbench.cli import follow
from wattbench.cli.options import client_of, local_controller, login, natural, selection
from wattbench.cli.output import columns, say

if TYPE_CHECKING:
    from wattbench.cli.airflow_api import Client, Dag
    from wattbench.dag_runs import Run, Task
    from wattbench.local.controller import Controller

#: Airflow lists and parses new files every 30 s, and takes some seconds for it.
_PARSE_S = 90


def add_parsers(commands: Any) -> None:
    """Add the three commands."""
    command = commands.add_parser(
        "run", parents=[selection(), login()], help="start an experiment; prints the run's id",
        description="Start a run as the trigger form would. Prints the run's id on stdout. An experiment "
        f"whose file was just written is waited for, {_PARSE_S} s at most.",
    )  # fmt: skip
    command.add_argument("experiment")
    command.add_argument(
        "--finish-by", metavar="HH:MM", help="leave out blocks that do not fit before; or: never"
    )
    command.add_argument("--wait", action="store_true", help="follow it; exit code 1 if it fails")
    command.add_argument(
        "--unpause", action="store_true", help="release a paused experiment's schedule too"
    )
    command.set_defaults(do=_run)

    command = commands.add_parser(
        "status", parents=[login()], help="the newest runs, or how far one is",
        description="Without RUN the newest runs; with RUN each host: trial k of n, time left.",
    )  # fmt: skip
    command.add_argument("run", nargs="?", metavar="RUN")
    command.add_argument("--limit", type=natural, default=10, help="number of runs (10)")
    command.set_defaults(do=_status)

    command = commands.add_parser(
        "logs", parents=[login()], help="why a run failed, or one task's log",
        description="Without TASK one line per failed task; with TASK its log.",
        epilog="TASK: gpu-a.check, check (if there is one host), 'gpu-a.trial.measure[3]'",
    )  # fmt: skip
    command.add_argument("run", metavar="RUN")
    command.add_argument("task", nargs="?", metavar="TASK")
    command.set_defaults(do=_logs)


def _run(options: argparse.Namespace) -> int:
    client = client_of(options)
    dag = _parsed(client, options.experiment, local_controller(options))
    if dag.is_paused and dag.schedule and not options.unpause:
        raise UserError(
            f"{options.experiment} is paused, and has a schedule ({dag.schedule}) that would start again "
            "too; give --unpause to release both"
        )
    conf = {k: getattr(options, k) for k in ("hosts", "images", "blocks", "seed", "finish_by")}
    run = client.trigger(
        options.experiment,
        {k: v for k, v in conf.items() if v is not None},
        release=dag.is_paused,
    )
    say(run.run_id)
    say(f"{client.login.url}/dags/{run.dag_id}/runs/{run.id}", to_stderr=True)
    return follow.follow(client, run) if options.wait else 0


def _parsed(client: Client, name: str, local: Controller | None) -> Dag:
    """Airflow's view of an experiment; one whose file is here and good is waited for.

    Raises:
        UserError: there is none, its file is refused, or Airflow does not parse it in time.
    """
    from wattbench.config.loader import config_dir, load_experiment, load_hosts

    dag = client.dag(name)
    if dag is not None and dag.is_runnable:
        return dag
    folder = config_dir() if local is None else local.config
    path = folder / "experiments" / f"{name}.yaml"
    if not path.is_file():
        if dag is not None and dag.is_refused:
            raise UserError(f"Airflow refuses {name}: {client.refusal(name)}")
        known = ", ".join(client.experiments()) or "none"
        elsewhere = "" if local is None else f"WATTBENCH_CONFIG={folder} "
        raise UserError(
            f"Airflow at {client.login.url} has no experiment {name!r} (there: {known}), and there is "
            f"no {path}; write it: {elsewhere}wattbench new {name}"
        )
    load_experiment(path, load_hosts(folder))
    say(f"{path}: waiting up to {_PARSE_S} s for Airflow to parse it …", to_stderr=True)
    if local is not None:
        local.parse_again()
    return client.wait_for_dag(name, within_s=_PARSE_S)


def _status(options: argparse.Namespace) -> int:
    from wattbench.progress import spoken

    client = client_of(options)
    if options.run is None:
        return _newest(client, options.limit)
    run = client.find(options.run)
    tasks = client.tasks(run)
    say(f"{run.run_id}: {run.state}")
    rows = [("HOST", "TRIALS", "LEFT", "NOW")]
    for line in follow.progress(client, run, tasks):
        trials = f"{line.done} of {line.total}" if line.total else "–"
        left = "–" if line.left_s is None else f"about {spoken(line.left_s)}"
        detail = line.detail.partition(", about")[0]
        rows.append((line.host, trials, left, line.stage + (f" · {detail}" if detail else "")))
    say(columns(rows))
    return follow.outcome(client, run, tasks) if run.over else 0


def _newest(client: Client, limit: int) -> int:
    """One line per run, the newest first."""
    ours = client.experiments()
    runs = sorted(
        (run for dag_id in ours for run in client.runs(dag_id, limit)),
        key=lambda run: run.run_after,
        reverse=True,
    )[:limit]
    if not runs:
        known = ", ".join(ours) or "none: its file belongs in experiments/"
        say(f"no runs yet; experiments: {known}")
        return 0
    rows = [("RUN", "STATE", "TRIALS")]
    for run in runs:
        trials = "–"
        if not run.over:
            at = follow.progress(client, run, client.tasks(run))
            trials = ", ".join(f"{p.host} {p.done}/{p.total}" for p in at if p.total) or "–"
        rows.append((run.run_id, run.state, trials))
    say(columns(rows))
    return 0


def _logs(options: argparse.Namespace) -> int:
    from wattbench.cli.airflow_api import reasons

    client = client_of(options)
    run = client.find(options.run)
    tasks = client.tasks(run)
    if options.task is None:
        failed = list(reasons(client, run, tasks, limit=50))
        say(f"{run.run_id}: {run.state}, {len(failed)} tasks failed")
        for line in failed:
            say(f"  {line}")
        return 1 if failed else 0
    for line in client.log(run, _task_named(options.task, run, tasks)):
        stamp = line.time[:19].replace("T", " ")
        say(f"{stamp:<19} {line.level:<8} {line.event}".rstrip())
        for kind, message in line.errors:
            say(f"{'':<19} {kind}: {message}")
    return 0


def _task_named(name: str, run: Run, tasks: Sequence[Task]) -> Task:
    """A task by its name, its name's end, or its label.

    Raises:
        UserError: none or several are meant.
    """
    exact = [task for task in tasks if name in (task.name, task.task_id)]
    near = [
        task for task in tasks
        if task.name.endswith(f".{name}") or task.task_id.endswith(f".{name}")
        or (task.label and task.label.endswith(name))
    ]  # fmt: skip
    found = exact or near
    if len(found) == 1:
        return found[0]
    shown = ", ".join(task.name for task in (found or tasks)[:12])
    what = f"{len(found)} tasks are called {name!r}" if found else f"no task {name!r}"
    raise UserError(f"{run.run_id}: {what}; name one of: {shown}{' …' if len(tasks) > 12 else ''}")
