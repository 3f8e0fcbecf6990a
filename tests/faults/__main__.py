"""``make faults``: the matrix of fault × phase and the interventions on live runs, resumable.

    python -m tests.faults [--only TEXT] [--again] [--minutes 150] [--page]

Outcomes are kept in var/faults/; what has passed is not run again. ``--only`` takes a part of a cell's name
("scheduler", "window"); ``--page`` only writes docs/reliability.md from what is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator
from datetime import UTC, datetime

import pytest

from tests.faults import outcomes
from tests.faults.outcomes import ROOT, Outcome
from tests.support.machine import commit, machine

TESTS = ROOT / "tests" / "integration"


def key_of(item: pytest.Item) -> str:
    """A cell's key, or a test's name as a sentence."""
    name, _, parameters = item.name.partition("[")
    if name == "test_cell":
        return parameters.removesuffix("]")
    told = f" ({parameters.removesuffix(']')})" if parameters else ""
    return name.removeprefix("test_").replace("_", " ") + told


class Recorder:
    """A pytest plugin: chooses what is left to run, keeps each outcome at once, stops in time."""

    def __init__(self, only: str, *, again: bool, minutes: float, run: bool) -> None:
        self.kept = outcomes.load()
        self.only, self.again, self.run = only, again, run
        self.until = time.monotonic() + 60 * minutes
        self.interventions: set[str] = set()
        self.left = 0
        self._commit, self._machine = commit(), machine()

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave what has passed before, and what was not asked for."""
        faults = [one for one in items if one.get_closest_marker("faults")]
        self.interventions = {
            key_of(one) for one in faults if not one.name.startswith("test_cell[")
        }
        chosen = [
            one
            for one in faults
            if self.run
            and self.only in key_of(one)
            and (self.again or not self.kept.get(key_of(one), {"passed": False})["passed"])
        ]
        config.hook.pytest_deselected(items=[one for one in items if one not in chosen])
        # Cells first: they are the matrix.
        items[:] = sorted(chosen, key=lambda one: not one.name.startswith("test_cell["))
        self.left = len(items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep the outcome of a test. Without its set-up, the test bed, nothing has an outcome."""
        report = yield
        if call.when == "setup" and report.failed:
            item.session.shouldstop = "the test bed could not be set up, see above"
        if call.when == "teardown" and time.monotonic() > self.until:
            item.session.shouldstop = "the time is over"
        if call.when == "call":
            self.left -= 1
            why = str(call.excinfo.value) if call.excinfo else ""
            lines = [line for line in why.splitlines() if line.strip()]
            self.kept[key_of(item)] = Outcome(
                passed=report.passed,
                seconds=round(report.duration, 1),
                when=datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"),
                commit=self._commit,
                machine=self._machine,
                why=(lines or [""])[0].replace("`", "'")[:200],
            )
            outcomes.save(self.kept)
            self.write_page()
        return report

    def write_page(self) -> None:
        """Write docs/reliability.md."""
        outcomes.PAGE.write_text(outcomes.page(self.kept, self.interventions), encoding="utf-8")


def main() -> int:
    """Run what is left, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--only", default="", help="part of the names of cells, phases and tests")
    parser.add_argument("--again", action="store_true", help="also what has passed before")
    parser.add_argument("--minutes", type=float, default=150, help="stop after so many (150)")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    args = parser.parse_args()
    recorder = Recorder(args.only, again=args.again, minutes=args.minutes, run=not args.page)
    mode = ["--collect-only", "-q", "--no-summary"] if args.page else ["-v", "-rfE"]
    code = pytest.main(
        [*mode, "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "faults", str(TESTS)],
        plugins=[recorder],
    )
    recorder.write_page()
    page = outcomes.PAGE.relative_to(ROOT)
    print(
        f"faults: {page} written; {recorder.left} left to run"
        + (", make faults goes on" if recorder.left else "")
    )
    nothing = pytest.ExitCode.NO_TESTS_COLLECTED
    return 0 if args.page or (code == nothing and not recorder.left) else int(code)


if __name__ == "__main__":
    sys.exit(main())
