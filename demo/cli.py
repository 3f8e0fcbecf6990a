"""The test bed and the demo on it: Docker, registry, object store, two worker hosts, Airflow."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from functools import partial

from demo import (
    airflow,
    bed,
    campaign,
    down,
    image_sets,
    network,
    planted_fault,
    settings,
    workloads,
)
from demo.checkout import Checkout, here
from demo.timings import Timings, minutes
from wattbench.analysis.model.errors import UserError, refused_by_system
from wattbench.local.docker_engine import connect
from wattbench.local.processes import services

_EPILOG = """\
Everything is below var/ and carries this checkout's id, so several checkouts run side by side.
What is there already is used again; after an interruption call the same command again.
`make demo` is `run` after setting up .venv, `make clean` is `down --remove`.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 done; 1 the demo's run failed, an image was not built, or something is down; 2 a mistake of
        the user or of the machine, reported in one line.
    """
    options = _parser().parse_args(argv)
    checkout = here()
    try:
        if options.command == "status":
            return _status(checkout)
        if options.command == "env":
            return _env(checkout)
        with checkout.lock("demo"):
            if options.command == "down":
                (down.remove if options.remove else down.stop)(checkout, _say)
                return 0
            timings = Timings(options.since)
            if options.command == "images":
                say = partial(_say, who="images")
                return image_sets.make(checkout, options.set, options.registry, say, timings)
            up = bed.up(checkout, _say, timings)
            if options.command == "up":
                return _up(up, timings)
            return _run(up, options.experiment, timings)
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"demo: {refused_by_system(error)}", file=sys.stderr)
        return 2


def _up(up: bed.Bed, timings: Timings) -> int:
    print(timings.table())
    print(up.guide())
    return 0


def _run(up: bed.Bed, experiment: str, timings: Timings) -> int:
    out = up.checkout.demo / "report"
    if experiment != settings.EXPERIMENT:
        out = out.with_name(f"report-{experiment}")
        settings.add_example(up.checkout, experiment, up.registry, _say)
        airflow.parse_again(up.checkout)
        with timings.step(f"images of {experiment}"):
            workloads.ensure_variants(up.checkout, experiment, up.registry, _say)
    with timings.step("the run, to its report"):
        outcome = campaign.run(up, experiment, _say, out)
    for stage in outcome.stages:
        timings.add(*stage)
    print(timings.table())
    if experiment == settings.EXPERIMENT:
        timings.save(up.checkout.demo / "timings.json")
    missed = _last_screen(up, outcome)
    where = outcome.report.relative_to(up.checkout.root) if outcome.report else "none"
    for reason in outcome.reasons:
        print(f"demo: {reason}", file=sys.stderr)
    print(
        f"demo: {outcome.valid}/{outcome.wanted} trials on {outcome.hosts} hosts in "
        f"{minutes(timings.elapsed_s)}; report: {where}",
        flush=True,
    )
    return 0 if outcome.succeeded and outcome.report and not missed else 1


def _last_screen(up: bed.Bed, outcome: campaign.Outcome) -> bool:
    """Print what the report says; returns whether a planted fault was missed."""
    if outcome.report is None:
        return False
    report = outcome.report.parent
    print(campaign.windows(report / "trials.csv"))
    print("\n" + (report / "report.txt").read_text(encoding="utf-8"))
    fault = planted_fault.of_run(up.checkout, outcome.run_id)
    if fault is None:
        return False
    lines, caught = fault.outcome(report / "findings.json")
    print("\n".join(lines) + "\n")
    return not caught


def _status(checkout: Checkout) -> int:
    states = {process.name: process.pid() for process in services(checkout)}
    for name, pid in states.items():
        print(f"{name:<28} {'down' if pid is None else f'up, process {pid}'}")
    client = connect()
    if client is None or not states:
        print("test bed: not up; bring it up with: make demo, or: .venv/bin/python -m demo up")
        return 1
    ours = client.containers.list(all=True, filters={"label": checkout.label})
    # A build that goes on elsewhere has containers with our label too, under random names.
    containers = [c for c in ours if str(c.name).startswith(checkout.prefix)]
    for container in containers:
        print(f"{container.name:<28} {container.status}")
    if not containers:
        print("worker hosts: none; bring them up with: .venv/bin/python -m demo up")
        return 1
    print(bed.describe(checkout, network.ensure(client, checkout)).guide())
    well = all(states.values()) and all(c.status == "running" for c in containers)
    return 0 if well else 1


def _env(checkout: Checkout) -> int:
    client = connect()
    if client is None or not services(checkout):
        raise UserError("the test bed is not up; bring it up with: python -m demo up")
    known = bed.describe(checkout, network.ensure(client, checkout)).environment()
    for name, value in known.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _say(text: str, who: str = "demo") -> None:
    print(f"{who}: {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("up", "bring up the test bed, and say how to reach its parts"),
        ("run", "bring it up, run an experiment through Airflow, fetch its report"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "run":
            command.add_argument(
                "experiment",
                nargs="?",
                default=settings.EXPERIMENT,
                help="of config/experiments or its examples, for the virtual hosts (default: %(default)s)",
            )
        command.add_argument(
            "--since",
            type=float,
            default=time.time(),
            metavar="UNIX_S",
            help="count the time from here (default: now)",
        )
    text = "build and push a set of images"
    images = commands.add_parser(
        "images",
        help=text,
        description=f"{text.capitalize()}: one line per step, and at the end one per image. Exit code 1: "
        "some were not built, and the last lines say why.",
    )
    images.add_argument(
        "set",
        nargs="?",
        default="twins",
        metavar="SET",
        help="twins (for CPUs; on this machine's own Debian where no public registry answers), paper "
        "(the study's five, 80 GB), demo (what make demo compares); default: twins",
    )
    images.add_argument(
        "--registry",
        metavar="HOST:PORT[/PATH]",
        help="default: this checkout's own, on this machine",
    )
    images.set_defaults(since=time.time())
    text = "stop services and hosts; nothing is lost"
    stop = commands.add_parser("down", help=text, description=text)
    stop.add_argument(
        "--remove",
        action="store_true",
        help="remove containers, networks, volumes and images with this checkout's label, and var/",
    )
    text = "print what wattbench needs to reach the bed's Airflow and its configuration"
    commands.add_parser(
        "env", help=text, description=f'{text.capitalize()}: eval "$(python -m demo env)"'
    )
    text = "what is up, and how to reach it"
    commands.add_parser("status", help=text, description=text)
    return parser
