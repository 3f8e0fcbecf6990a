"""``python -m analysis COMMAND``: reports, audits, comparisons and power of energy measurements.

Exit codes: 0 done; 1 done, and an error was found in the data; 2 unusable input or arguments.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

if not __package__ or __package__ == "analysis":  # `python -m analysis` in a checkout
    sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "plugins"))

from wattbench.analysis.commands import COMMANDS
from wattbench.analysis.model.errors import UserError, missing_package, refused_by_system
from wattbench.analysis.model.escaping import note


def installed() -> dict[str, ModuleType]:
    """The subcommands by name."""
    modules = {name: f"wattbench.analysis.commands.{name}" for name in COMMANDS}
    return {
        n: importlib.import_module(m) for n, m in modules.items() if importlib.util.find_spec(m)
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; the process's own by default.

    Returns:
        the exit code; a user's mistake is one line on stderr and 2.
    """
    top = argparse.ArgumentParser(
        prog="python -m analysis", description="Energy measurements that can be believed."
    )
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = installed()
    for command in commands.values():
        command.add_parser(subparsers)
    args = top.parse_args(argv)
    try:
        return int(commands[args.command].run(args))
    except UserError as mistake:
        note(f"{args.command}: {mistake}")
        return 2
    except ModuleNotFoundError as error:
        note(f"{args.command}: {missing_package(error)}")
        return 2
    except BrokenPipeError:
        # The reader of our output went away (`| head`); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        note(f"{args.command}: {refused_by_system(error)}")
        return 2


if __name__ == "__main__":
    code = main()
    # The process ends: looking for cycles among what is left would free nothing that does not go anyhow.
    gc.freeze()
    sys.exit(code)
