"""The planted fault: found by its container's name, reported with what caught it, or that nothing did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo import planted_fault
from demo.checkout import Checkout
from demo.planted_fault import PlantedFault
from wattbench.worker.agent.docker import container_name

RUN = "demo-20260314T220000Z-a1b2c3"
FAULT = PlantedFault(RUN, "virtual-2", "002-pip-numpy")


def findings(folder: Path, **changes: Any) -> Path:
    found = {
        "code": "host-busy", "verdict": "found", "severity": "warning",
        "subject": "trial virtual-2/002-pip-numpy/1",
        "message": "other processes used 3.7 s of CPU in 5.6 s", "evidence": {"accepted_attempt": 2},
    }  # fmt: skip
    path = folder / "findings.json"
    path.write_text(json.dumps([found | {"code": "drift"}, found | changes]))
    return path


def test_the_container_is_the_first_attempts() -> None:
    spec: Any = {"run": RUN, "host": "virtual-2", "trial": "002-pip-numpy", "attempt": 1}
    assert FAULT.container == container_name(spec)


def test_what_caught_it_and_which_attempt_counts_is_reported(tmp_path: Path) -> None:
    lines, caught = FAULT.outcome(findings(tmp_path))
    assert caught
    assert lines == [
        "planted on purpose: other work on virtual-2 inside the window of trial 002-pip-numpy",
        "caught: host-busy: other processes used 3.7 s of CPU in 5.6 s; that attempt is kept out, "
        "attempt 2 counts instead",
    ]


def test_a_finding_elsewhere_or_undecided_catches_nothing(tmp_path: Path) -> None:
    for changes in (
        {"verdict": "undecidable"},
        {"subject": "trial virtual-1/002-pip-numpy/1"},
        {"subject": "trial virtual-2/002-pip-numpy/2"},
    ):
        lines, caught = FAULT.outcome(findings(tmp_path, **changes))
        assert not caught
        assert lines[1].startswith("NOT caught: no finding host-busy of trial virtual-2/002-pip-")


def test_a_fault_of_another_run_or_a_damaged_note_is_none(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert planted_fault.of_run(checkout, RUN) is None
    checkout.demo.mkdir(parents=True)
    note = checkout.demo / "planted_fault.json"
    note.write_text(json.dumps(vars(FAULT)))
    assert planted_fault.of_run(checkout, RUN) == FAULT
    assert planted_fault.of_run(checkout, "demo-20260315T220000Z-a1b2c3") is None
    note.write_text("{")
    assert planted_fault.of_run(checkout, RUN) is None
