"""``make faults``: the matrix of fault × phase and the interventions on live runs, resumable.

    python -m tests.faults [--only TEXT] [--again] [--minutes 150] [--page]

Cells whose fault meets one host alone run in lanes side by side, one process and one host each; then those
that every run meets, and the interventions, one after the other. Outcomes are kept in var/faults/; what has
passed is not run again. ``--only`` takes a part of a cell's name ("scheduler", "window"); ``--page`` only
writes docs/reliability.md from what is kept.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo import bed
from demo.checkout import here
from demo.timings import Timings
from tests.faults import outcomes
from tests.faults.matrix import cells
from tests.faults.outcomes import ROOT, Outcome
from tests.support.machine import commit, machine

TESTS = ROOT / "tests" / "integration"
LANE = "WATTBENCH_TEST_LANE"
#: Cells that can run beside others.
BESIDE = frozenset(cell.key for cell in cells() if not cell.fault.is_shared)


def key_of(item: pytest.Item) -> str:
    """A cell's key, or a test's name as a sentence."""
    name, _, parameters = item.name.partition("[")
    if name == "test_cell":
        return parameters.removesuffix("]")
    suffix = f" ({parameters.removesuffix(']')})" if parameters else ""
    return name.removeprefix("test_").replace("_", " ") + suffix


def now() -> str:
    """The time, UTC, ISO."""
    return datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00")


class Recorder:
    """A pytest plugin: chooses what is left to run, keeps each outcome at once, stops in time.

    Args:
        only: part of the names.
        since: what has passed from then on is not run again, ISO.
        until_unix_s: no test is started after it.
        claims: folder of what lanes have taken; None: not a lane.
    """

    def __init__(self, only: str, since: str, until_unix_s: float, claims: Path | None) -> None:
        self.only, self.since, self.until_unix_s, self.claims = only, since, until_unix_s, claims
        self.asked: list[str] = []
        self.interventions: set[str] = set()
        self._commit, self._machine = commit(), machine()
        self._screen = os.fdopen(os.dup(2), "w")  # pytest captures the other one

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave what has passed before, and what was not asked for."""
        faults = [one for one in items if one.get_closest_marker("faults")]
        self.interventions = {
            key_of(one) for one in faults if not one.name.startswith("test_cell[")
        }
        self.asked = [key for one in faults if self.only in (key := key_of(one))]
        wanted = {key for key in self.left() if (key in BESIDE) == (self.claims is not None)}
        chosen = [one for one in faults if key_of(one) in wanted]
        config.hook.pytest_deselected(items=[one for one in items if one not in chosen])
        # Cells first: they are the matrix.
        items[:] = sorted(chosen, key=lambda one: not one.name.startswith("test_cell["))

    def left(self) -> list[str]:
        """Of what was asked for, the names of what has not passed."""
        kept = outcomes.load()
        return [
            key
            for key in self.asked
            if not (key in kept and kept[key]["passed"] and kept[key]["when"] >= self.since)
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Start nothing when the time is over, and pass over what another lane has taken."""
        if time.time() > self.until_unix_s:
            item.session.shouldstop = "the time is over"
            return True
        if self.claims is None:
            return None
        try:
            (self.claims / key_of(item)).touch(exist_ok=False)
        except FileExistsError:
            return True
        return None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep the outcome of a test. Without its set-up, the test bed, nothing has an outcome."""
        report = yield
        if call.when == "setup" and report.failed:
            item.session.shouldstop = "the test bed could not be set up, see above"
        if call.when == "call":
            why = str(call.excinfo.value) if call.excinfo else ""
            lines = [line for line in why.splitlines() if line.strip()]
            outcome = Outcome(
                passed=report.passed,
                seconds=round(report.duration, 1),
                when=now(),
                commit=self._commit,
                machine=self._machine,
                why=(lines or [""])[0].replace("`", "'")[:200],
            )
            outcomes.write_page(outcomes.keep(key_of(item), outcome), self.interventions)
            said = "ok" if report.passed else f"failed: {outcome['why']}"
            print(
                f"{key_of(item)}: {said} ({report.duration:.0f} s)", file=self._screen, flush=True
            )
        return report


def run(recorder: Recorder, *options: str) -> int:
    """Run pytest on what the recorder chooses."""
    return pytest.main(
        [*options, "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "faults", str(TESTS)],
        plugins=[recorder],
    )


def run_in_lanes(argv: list[str], until_unix_s: float) -> None:
    """Run the cells that can run beside others, one process per virtual host; each has a log of its own."""
    checkout = here()
    with checkout.lock("tests"), tempfile.TemporaryDirectory() as claims:
        hosts = bed.up(checkout, print, Timings(time.time())).hosts
        lanes = []
        for lane, host in enumerate(hosts):
            log = outcomes.FILE.with_name(f"lane-{host.name}.log")
            log.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "tests.faults", *argv, "--claims", claims]
            command += [f"--until={until_unix_s}"]
            with log.open("wb") as out:
                environment = {**os.environ, LANE: str(lane)}
                lanes.append(subprocess.Popen(command, env=environment, stdout=out))
            print(f"faults: {host.name} has lane {lane}, {log.relative_to(ROOT)}", flush=True)
        try:
            for one in lanes:
                one.wait()
        finally:
            for one in lanes:  # interrupted, a lane ends its run
                one.send_signal(signal.SIGINT)
                one.wait()


def main() -> int:
    """Run what is left, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--only", default="", help="part of the names of cells, phases and tests")
    parser.add_argument("--again", action="store_true", help="also what has passed before")
    parser.add_argument("--minutes", type=float, default=150, help="stop after so many (150)")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    parser.add_argument("--claims", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--since", default="", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a job in the background ignores the second
        signal.signal(number, signal.default_int_handler)  # no outcome of the test it falls into
    until_unix_s = args.until or time.time() + 60 * args.minutes
    since = args.since or (now() if args.again else "")
    recorder = Recorder(args.only, since, until_unix_s, args.claims)
    if args.claims is not None:
        return run(recorder, "-v", "-rfE")
    if args.page:
        run(recorder, "--collect-only", "-q", "--no-summary")
        outcomes.write_page(outcomes.load(), recorder.interventions)
        return 0
    run_in_lanes(["--only", args.only, "--since", since], until_unix_s)
    run(recorder, "-v", "-rfE")
    left = recorder.left()
    print(
        f"faults: {outcomes.PAGE.relative_to(ROOT)} written; {len(left)} left to run"
        + (", make faults goes on" if left else "")
    )
    return 1 if left else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("faults: interrupted; what has been run is kept")
