"""`wattbench`: hosts, runs, reports and analyses from a terminal.

The analysis commands need only what every installation has. Of the others, all but `host` and `plan` speak
to Airflow's REST API alone, so they work from any machine that can reach Airflow. Each command imports what
it needs when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from wattbench.analysis.model.errors import UserError, missing_package, refused_by_system

#: Modules of this package that add commands, in the order of the help text: each has ``add_parsers``,
#: which gives its commands ``do``: options → exit code.
FAMILIES = ("measure", "hosts", "plans", "experiments", "runs", "reports", "doctor")

_ABOUT = """\
Which Docker image runs this ML workload on the least energy, and how sure are we?

  on this machine       wattbench measure IMAGE IMAGE -- COMMAND

  first a host          wattbench host add gpu-a --ssh bench@gpu-a.example
  is it fit?            wattbench host check
  what would be run     wattbench plan nightly
  run it, and wait      wattbench run nightly --wait
  how far is it?        wattbench status
  why did it fail?      wattbench logs nightly
  the answer            wattbench report nightly --out out
  is all well here?     wattbench doctor

without an Airflow
  report of a run       wattbench report s3://wattbench/runs/RUN_ID --out out
  runs side by side     wattbench compare RUN RUN --out out
  a campaign of others  wattbench audit CAMPAIGN --out out
  an image's contents   wattbench image REF
  trials needed         wattbench power --effect 1

A RUN is a run id (nightly-20260102T010000Z-1a2b3c) or an experiment: then its newest run.
"""
_LOGIN = """\
Airflow is found and entered by WATTBENCH_AIRFLOW_URL, WATTBENCH_AIRFLOW_USER and WATTBENCH_AIRFLOW_PASSWORD
(or WATTBENCH_AIRFLOW_TOKEN); a password that is not given is asked for. hosts.yaml and experiments/ lie in
the folder that WATTBENCH_CONFIG names, else in config/ (of the checkout, or here).

exit codes: 0 done; 1 done, and something is wrong (a failed run, a host with soft problems);
            2 could not be done, or a host that is not fit: one line on stderr says why and what to do
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0, 1 or 2, see the help.
    """
    words, command = _split(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words, argparse.Namespace(command=command))
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its troubles come as our errors
    try:
        return int(options.do(options))
    except UserError as error:
        sys.stderr.write(f"wattbench: {error}\n")
        return 2
    except ModuleNotFoundError as error:
        sys.stderr.write(f"wattbench: {missing_package(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("wattbench: stopped; what runs in Airflow runs on\n")
        return 2
    except BrokenPipeError:  # `wattbench logs … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        sys.stderr.write(f"wattbench: {refused_by_system(error)}\n")
        return 2


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the command line, and the command that `measure` has after `--`."""
    words = list(argv)
    if words[:1] != ["measure"] or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "wattbench", description=_ABOUT, epilog=_LOGIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in FAMILIES:
        importlib.import_module(f"wattbench.cli.{name}").add_parsers(commands)
    return parser
