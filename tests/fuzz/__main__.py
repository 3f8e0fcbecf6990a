"""``python -m tests.fuzz``: damaged input for every parser, for minutes.

    python -m tests.fuzz [--seconds 20] [--from 1000] [--target NAME] [--input NUMBER]

An input is named by its number: ``--target mapping --input 4711`` runs that one alone. Exit code 1: a
parser ended in something else than success or the declared errors; the input lies in var/fuzz/.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from tests.fuzz.targets import TARGETS
from wattbench.analysis.model.errors import UserError

#: Below lie the numbers of the fast tests.
FIRST = 1000


def outcome(target: str, number: int) -> str | None:
    """None for an allowed outcome, else the traceback."""
    data = TARGETS[target].input(number)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter(
            "error"
        )  # a parser that warns on standard error prints foreign text there
        try:
            TARGETS[target].parse(data, Path(folder))
        except UserError as error:
            return None if str(error).strip() else "an error without a word"
        except Exception:  # noqa: BLE001 - what escapes is the finding
            return traceback.format_exc()
    return None


def main() -> int:
    """Fuzz every target for some seconds."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=20.0, help="per target (default 20)")
    parser.add_argument(
        "--from", type=int, default=FIRST, dest="first", help="number of the first input"
    )
    parser.add_argument("--target", choices=TARGETS, help="one alone")
    parser.add_argument("--input", type=int, help="one input alone, by its number")
    args = parser.parse_args()
    failed = 0
    for name in [args.target] if args.target else TARGETS:
        until, count = time.monotonic() + args.seconds, 0
        numbers = [args.input] if args.input is not None else itertools.count(args.first)
        for number in numbers:
            if time.monotonic() > until and args.input is None:
                break
            count += 1
            if (fault := outcome(name, number)) is not None:
                failed += 1
                kept = Path("var/fuzz") / f"{name}-{number}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(TARGETS[name].input(number))
                print(f"fuzz: {name}: input {number} ({kept}):\n{fault}")
                break
        else:
            print(f"fuzz: {name}: input {args.input} is fine")
            continue
        print(f"fuzz: {name}: {count} inputs from {args.first} on")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
