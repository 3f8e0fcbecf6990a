"""Options that commands share, and the client of Airflow's REST API that they name."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model.errors import UserError

if TYPE_CHECKING:
    from wattbench.local.controller import Controller


def natural(text: str) -> int:
    """Argument type: a whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def file(text: str) -> Path:
    """Argument type: an existing file."""
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return path


def names(text: str) -> list[str]:
    """Argument type: names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def selection() -> argparse.ArgumentParser:
    """Parent parser: which part of an experiment."""
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--hosts", type=names, metavar="A,B", help="only these hosts")
    chosen.add_argument(
        "--images", type=names, metavar="A,B", help="only these images; the reference must stay"
    )
    chosen.add_argument("--blocks", type=natural, metavar="N", help="number of blocks")
    chosen.add_argument("--seed", help="seed of the order of trials")
    return chosen


def login() -> argparse.ArgumentParser:
    """Parent parser: where Airflow is and who asks."""
    parser = argparse.ArgumentParser(add_help=False)
    add_login(parser)
    return parser


def add_login(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`login`."""
    group = parser.add_argument_group("Airflow")
    group.add_argument("--url", help="its address (WATTBENCH_AIRFLOW_URL)")
    group.add_argument("--user", help="who you are (WATTBENCH_AIRFLOW_USER)")


def client_of(
    options: argparse.Namespace,
    *,
    needed: bool = True,
    waits_s: Sequence[float] = (1.0, 2.0, 4.0),
) -> Any:
    """Airflow's REST API as the user; None where it is not needed and no address is given.

    Args:
        options: with the login's options.
        needed: an address has to be given.
        waits_s: pauses between tries while Airflow does not answer.

    Raises:
        UserError: an address or a login is missing.
    """
    from wattbench.cli.airflow_api import Client, Login
    from wattbench.cli.measure import local_client

    url = airflow_url(options)
    if not url:
        if not needed:
            return None
        if (found := local_client()) is not None:
            return found
        raise UserError(
            "no Airflow is known; give --url http://HOST:8080, set WATTBENCH_AIRFLOW_URL, or start one on "
            "this machine: wattbench up"
        )
    if not re.match(r"https?://[^/]", url):
        raise UserError(f"--url {url!r}: an address begins with http:// or https://")
    token = os.environ.get("WATTBENCH_AIRFLOW_TOKEN") or None
    user = options.user or os.environ.get("WATTBENCH_AIRFLOW_USER") or ""
    password = os.environ.get("WATTBENCH_AIRFLOW_PASSWORD")
    if token is None and not user:
        raise UserError("no Airflow user is known; give --user NAME, or set WATTBENCH_AIRFLOW_USER")
    if token is None and password is None:
        if not sys.stdin.isatty():
            raise UserError(f"no password for {user!r}: set WATTBENCH_AIRFLOW_PASSWORD")
        password = getpass.getpass(f"Airflow password of {user}: ")
    return Client(Login(url, user, password or "", token), waits_s=waits_s)


def airflow_url(options: argparse.Namespace) -> str:
    """Address of Airflow; empty: none is given."""
    return (options.url or os.environ.get("WATTBENCH_AIRFLOW_URL") or "").rstrip("/")


def local_controller(options: argparse.Namespace) -> Controller | None:
    """The controller on this machine, where no address is given and it has been brought up before."""
    if airflow_url(options):
        return None
    from wattbench.cli.measure import own_controller

    controller = own_controller()
    return controller if controller.exists else None
