"""``wattbench measure | up | down | hosts``: any images on this machine, with a controller of one's own.

Nothing but Docker and an sshd program is needed; all that is written lies below the state folder.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.cli.output import columns, say
from wattbench.errors import UserError

if TYPE_CHECKING:
    from wattbench.cli.airflow_api import Client
    from wattbench.dag_runs import Run
    from wattbench.local.controller import Controller
    from wattbench.local.measurement import Measurement

_LOCK = "wattbench command"
#: From a cancelled run until its containers are gone and its host is free, s.
_CANCEL_S = 300
_MODELLED = (
    "energy is MODELLED from CPU time, not measured: a dry run that says nothing about joules"
)


def add_parsers(commands: Any) -> None:
    """Add the four commands to the parser's."""
    command = commands.add_parser(
        "measure", help="compare images on this machine, with a controller of its own",
        usage="wattbench measure IMAGE IMAGE… [options] [-- program…]",
        description="Runs the program (else each image's own entry point) in every image in random order, "
        "at rest between trials, and prints which needs less energy, and how sure it is. The first image is "
        "the reference. Airflow, an object store and an sshd on the loopback address start as you, below "
        "your state folder; nothing needs root where you may use Docker.",
        epilog="Example: wattbench measure python:3.12 python:3.12-slim -- python3 -c 'sum(range(10**8))'",
    )  # fmt: skip
    command.add_argument(
        "images", nargs="+", metavar="IMAGE",
        help="REF or NAME=REF; what is in this machine's Docker is taken from there",
    )  # fmt: skip
    command.add_argument(
        "--blocks", type=int, default=10, metavar="N", help="trials per image (10)"
    )
    command.add_argument(
        "--unit", metavar="NAME[:NUMBER|:PATTERN]",
        help=r"what the energy is divided by: document:500, or 'document:processed (\d+)' for a number that "
        "the program prints",
    )  # fmt: skip
    command.add_argument(
        "--same-work", metavar="PATTERN", help="one group that all images must print alike"
    )
    command.add_argument("--ready", metavar="PATTERN", help="the line that ends the start-up phase")
    command.add_argument(
        "--file", action="append", default=[], metavar="FILE[:PATH]", dest="files",
        help="a file of yours in the containers, read-only (at /bench/FILE); repeat",
    )  # fmt: skip
    command.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="in the containers; repeat"
    )
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(cpu)")
    command.add_argument(
        "--gpu", metavar="UUID", help="with --device cuda, where there are several"
    )
    command.add_argument(
        "--rest",
        type=float,
        default=2,
        metavar="S",
        help="least rest before a trial, s (2); what the controller does between trials comes on top",
    )
    command.add_argument(
        "--timeout", type=int, default=3600, metavar="S", help="longest trial, s (3600)"
    )
    command.add_argument(
        "--modelled", action="store_true", help="without a meter: a dry run, reported as modelled"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="a new folder for the report")
    command.set_defaults(do=_measure)

    command = commands.add_parser(
        "up", help="start the controller on this machine, and leave it up"
    )
    command.set_defaults(do=_up)
    command = commands.add_parser(
        "down", help="stop the controller on this machine; nothing is lost",
        description="A run that goes on is cancelled first.",
    )  # fmt: skip
    command.add_argument(
        "--remove",
        action="store_true",
        help="remove its state folder too, all runs and reports with it",
    )
    command.set_defaults(do=_down)
    command = commands.add_parser(
        "hosts", help="this machine as a host, and whether its controller is up"
    )
    command.set_defaults(do=_hosts)


def local_client() -> Client | None:
    """A login to the controller on this machine; None where it is not up."""
    controller = own_controller()
    return connect(controller) if controller.exists and controller.is_up else None


def own_controller() -> Controller:
    """The controller of the calling user's state folder, whether it exists or not."""
    from wattbench.local.controller import Controller, default_path
    from wattbench.local.state_folder import StateFolder

    return Controller(StateFolder(default_path()))


def connect(controller: Controller) -> Client:
    """A login to an embedded controller."""
    from wattbench.cli.airflow_api import Client, Login

    airflow = controller.airflow
    return Client(
        Login(airflow.url, airflow.user, airflow.password), advice="bring it up: wattbench up"
    )


def _note(text: str) -> None:
    say(f"wattbench: {text}", to_stderr=True)


# ── measure ─────────────────────────────────────────────────────────────────────────────────────


def _measure(options: argparse.Namespace) -> int:
    from wattbench.local import measurement as measurements
    from wattbench.local.controller import require_extra

    images = measurements.image_names(options.images)
    wanted = measurements.Measurement(
        images=images,
        command=options.command,
        host="",
        modelled=options.modelled,
        device=options.device,
        blocks=options.blocks,
        unit=None if options.unit is None else measurements.parse_unit(options.unit),
        same_work=options.same_work,
        ready=options.ready,
        env=dict(map(measurements.parse_env, options.env)),
        files=measurements.files_of(options.files),
        rest_s=options.rest,
        timeout_s=options.timeout,
    )
    wanted.check()
    if options.gpu is not None and options.device != "cuda":
        raise UserError("--gpu: only --device cuda gives a GPU to the containers; add it")
    require_extra()
    if options.out is not None and options.out.exists():
        raise UserError(f"--out {options.out}: exists; name a new folder")
    controller = own_controller()
    with controller.state.lock(_LOCK):
        try:
            return _measured(controller, wanted, options)
        except OSError as error:
            raise UserError(
                f"{error.filename or controller.state.path}: {error.strerror}; correct it and call this again"
            ) from error


def _measured(controller: Controller, wanted: Measurement, options: argparse.Namespace) -> int:
    from wattbench.local import docker_engine
    from wattbench.local.images import ImageNaming

    docker = docker_engine.require()
    if wanted.modelled:
        _note(_MODELLED)
    controller.prepare(_note)
    if controller.is_up:
        _refuse_second(connect(controller))
    machine = controller.look(wanted.device, options.gpu)
    wanted = replace(wanted, host=machine.host_for(wanted.modelled))
    controller.write_hosts(machine.hosts)
    naming = ImageNaming(docker, lambda: controller.ensure_registry(_note), _note)
    refs = {name: naming.by_digest(ref) for name, ref in wanted.images.items()}
    experiment = controller.add_experiment(
        wanted.name, wanted.text(refs), list(wanted.files.values())
    )
    controller.up(_note)
    client = connect(controller)
    _refuse_second(client)  # one that was interrupted goes on when its controller is up again
    client.wait_for_dag(wanted.name, within_s=120)
    run = client.trigger(wanted.name)
    say(f"experiment  {experiment}")
    say(f"run         {run.run_id}")
    say(f"in Airflow  {client.login.url}/dags/{run.dag_id}/runs/{run.id}")
    return _followed(controller, client, run, wanted, options.out)


def _refuse_second(client: Client) -> None:
    """One machine measures one thing at a time.

    Raises:
        UserError: a run goes on.
    """
    if (run := client.running("~")) is not None:
        raise UserError(
            f"{run.run_id} goes on on this machine, and two would disturb each other; follow it: "
            f"wattbench status {run.run_id}, or stop it: wattbench down"
        )


def _followed(
    controller: Controller, client: Client, run: Run, wanted: Measurement, out: Path | None
) -> int:
    from wattbench.cli import follow
    from wattbench.cli.report_download import fetch_report

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as by Ctrl-C
    try:
        code = follow.follow(client, run)
    except KeyboardInterrupt:
        _note(f"stopping {run.run_id}: its trial is ended, and what it measured is kept …")
        _cancel(client, run)
        raise UserError(f"{run.run_id}: cancelled; nothing of it is left running") from None
    try:
        page = fetch_report(
            client, run.run_id, out or controller.state.path / "reports" / run.run_id
        )
        say(f"report      {page}")
    except UserError as error:
        _note(str(error))
        code = code or 1
    if wanted.modelled:
        _note(_MODELLED)
    return code


def _cancel(client: Client, run: Run) -> None:
    """End a run, and wait until its last tasks have removed its container and freed the host.

    Raises:
        UserError: not in time.
    """
    client.end(run)
    until = time.monotonic() + _CANCEL_S
    while not client.run(run).over or any(task.state == "running" for task in client.tasks(run)):
        if time.monotonic() > until:
            raise UserError(
                f"{run.run_id}: not ended within {_CANCEL_S} s; see wattbench status {run.run_id}, or "
                "stop everything: wattbench down"
            )
        time.sleep(1)


# ── up, down, hosts ─────────────────────────────────────────────────────────────────────────────


def _up(_: argparse.Namespace) -> int:
    from wattbench.local.controller import require_extra

    require_extra()
    controller = own_controller()
    with controller.state.lock(_LOCK):
        controller.prepare(_note)
        controller.write_hosts(controller.look("cpu", None).hosts)
        controller.up(_note)
    airflow = controller.airflow
    say(f"Airflow       {airflow.url}  user {airflow.user}")
    say(f"its password  {controller.state.path / 'airflow_passwords.json'}")
    say(f"its CLI       set -a; . {controller.state.path / 'airflow.env'}; set +a; airflow …")
    return _hosts(_)


def _down(options: argparse.Namespace) -> int:
    controller = own_controller()
    if not controller.exists:
        say(f"nothing to do: there is no controller in {controller.state.path}")
        return 0
    with controller.state.lock(_LOCK):
        if controller.is_up:
            client = connect(controller)
            while (run := client.running("~")) is not None:
                _note(f"cancelling {run.run_id}")
                _cancel(client, run)
        controller.stop(_note)
        if options.remove:
            _remove(controller)
    return 0


def _remove(controller: Controller) -> None:
    from wattbench.local import docker_engine
    from wattbench.local.images import forget_copies

    client = docker_engine.connect()
    if client is not None:
        forget_copies(client, controller.registry)
    shutil.rmtree(controller.state.path)
    _note(f"removed {controller.state.path}")


def _hosts(_: argparse.Namespace) -> int:
    controller = own_controller()
    if not controller.exists:
        say("no controller on this machine yet; wattbench measure, or wattbench up, starts one")
        return 1
    rows = [("HOST", "METER", "ENERGY", "GPUS")]
    for name, config in controller.hosts().hosts.items():
        energy = "modelled" if config.meter.kind == "modelled" else "measured"
        rows.append((name, config.meter.kind, energy, ", ".join(config.gpus) or "–"))
    say(columns(rows))
    up = controller.is_up
    say(f"controller: {f'up, {controller.airflow.url}' if up else 'down; start it: wattbench up'}")
    return 0 if up else 1
