"""Command line of the deployment: secrets, start, backup, restore, supply chain. See docs/deploy.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy import backup, environment, pins, supply_chain
from deploy.stack import COMPOSE_FILE, ROOT, Stack, show
from wattbench.analysis.model.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 done; 1 a locked package has a known vulnerability; 2 a mistake of the user or of the
        machine, reported in one line.
    """
    options = _parser().parse_args(argv)
    stack = Stack(options.env_file, tuple(options.file))
    try:
        if options.command == "secrets":
            environment.make(options.env_file)
            show(f"{options.env_file}: made; keep a copy in a safe place. Next: make up")
        elif options.command == "up":
            stack.up()
            known = stack.variables
            show(
                f"Airflow at {known['WATTBENCH_URL']}, user {known['WATTBENCH_ADMIN']}, password in "
                f"{options.env_file}"
            )
        elif options.command == "backup":
            backup.save(stack, options.folder)
        elif options.command == "restore":
            backup.load(stack, options.folder)
        elif options.command == "sbom":
            supply_chain.write_sbom(show)
        elif options.command == "audit-deps":
            return _show_vulnerabilities(supply_chain.known_vulnerabilities(show))
        else:
            count = pins.pin([COMPOSE_FILE, ROOT / "deploy" / "Dockerfile"])
            show(f"{count} images pinned by digest")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _show_vulnerabilities(found: list[supply_chain.Vulnerability]) -> int:
    for one in found:
        show(f"{one.package}: {one.id}, mended in {one.fixed_in}")
    show(f"audit-deps: {len(found)} known vulnerabilities in {', '.join(supply_chain.LOCKS)}")
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--env-file",
        type=Path,
        default=Path(".env"),
        metavar="FILE",
        help="addresses and secrets (.env)",
    )
    common.add_argument(
        "--file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a compose file of yours, merged over docker-compose.airflow.yml; may be repeated",
    )
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("secrets", "write .env with fresh secrets; never overwrites one"),
        ("up", "build our image, start everything, wait until it is healthy"),
        ("pin", "write the digests that image tags have now into the compose file"),
        ("sbom", "write bills of materials below var/sbom, and docs/licences.md"),
        ("audit-deps", "list known vulnerabilities of the locked packages"),
    ):
        commands.add_parser(name, parents=[common], help=text, description=text)
    for name, text in (
        ("backup", "database and object store into a new folder, while everything runs"),
        ("restore", "such a folder into a deployment that holds nothing yet"),
    ):
        command = commands.add_parser(name, parents=[common], help=text, description=text)
        command.add_argument("folder", type=Path)
    return parser
