"""The matrix has no hole, and its page holds what the outcomes hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import outcomes
from tests.faults.matrix import FAULTS, Cell, Phase, cells
from tests.faults.outcomes import Outcome
from tests.integration import test_faults


def outcome(**changes: object) -> Outcome:
    base = Outcome(
        passed=True,
        seconds=61.4,
        when="2026-11-27T03:10:00",
        commit="abc",
        machine="2 cores",
        why="",
    )
    return Outcome(**(base | changes))


def table(page: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_every_pair_is_tried_or_has_its_reason() -> None:
    tried = {(one.fault.name, one.phase) for one in cells()}
    impossible = {(f.name, phase) for f in FAULTS for phase in f.impossible}
    assert tried.isdisjoint(impossible)
    assert tried | impossible == {(f.name, phase) for f in FAULTS for phase in Phase}
    assert all(reason for f in FAULTS for reason in f.impossible.values())
    assert len({f.name for f in FAULTS}) == len(FAULTS)


def test_every_fault_that_can_be_made_has_its_injection() -> None:
    assert test_faults.INJECT.keys() == {one.fault.name for one in cells()}


def test_the_page_says_of_every_cell_what_is_known() -> None:
    scheduler = next(f for f in FAULTS if f.name == "scheduler killed")
    kept = {
        Cell(scheduler, Phase.WINDOW).key: outcome(),
        Cell(scheduler, Phase.PULL).key: outcome(
            passed=False, why="it-fault is failed:", when="2026-11-27T05:00:00"
        ),
        "a paused run goes on": outcome(seconds=200),
        "a test that is gone": outcome(commit="old"),
    }
    page = outcomes.page(kept, {"a paused run goes on", "another"})
    rows = table(page)
    assert rows["scheduler killed"][1:] == [
        "**failed** (61 s)", "not run", "ok (61 s)", "not run", "not run", "not run",
    ]  # fmt: skip
    assert all(one.startswith("n/a (") for one in rows["disk of the controller full"][1:])
    assert rows["a paused run goes on"] == ["ok (200 s)"]
    assert rows["another"] == ["not run"]
    assert f"2 of {len(cells())} cells have been run, 1 passed" in page
    assert "3 from 2026-11-27T03:10 to 2026-11-27T05:00 UTC on 2 cores, commit abc" in page
    assert "* scheduler killed, pull: `it-fault is failed:`" in page
    assert "a test that is gone" not in page


def test_outcomes_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "new" / "outcomes.json"
    assert outcomes.load(file) == {}
    outcomes.keep("a", outcome(), file)
    assert outcomes.keep("b", outcome(passed=False), file) == outcomes.load(file)
    assert outcomes.load(file) == {"a": outcome(), "b": outcome(passed=False)}


def test_the_page_in_the_documentation_has_the_rows_of_the_matrix() -> None:
    rows = table(outcomes.PAGE.read_text(encoding="utf-8"))
    assert [name for name in rows if name in {f.name for f in FAULTS}] == [f.name for f in FAULTS]


@pytest.mark.parametrize("fault", [pytest.param(f, id=f.name) for f in FAULTS])
def test_impossible_cells_are_the_same_in_the_documentation(fault: object) -> None:
    row = table(outcomes.PAGE.read_text(encoding="utf-8"))[fault.name]  # type: ignore[attr-defined]
    excluded = {phase for phase, cell in zip(Phase, row[1:], strict=True) if cell.startswith("n/a")}
    assert excluded == set(fault.impossible)  # type: ignore[attr-defined]
