"""Outcomes of cells and interventions, kept in a file so that ``make faults`` goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypedDict

from tests.faults.matrix import FAULTS, Cell, Phase
from wattbench.analysis.storage.atomic import write_atomically

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "var" / "faults" / "outcomes.json"
PAGE: Final = ROOT / "docs" / "reliability.md"


class Outcome(TypedDict):
    """What one cell or intervention came to.

    Attributes:
        passed: whether all expectations held.
        seconds: wall time, the run's and the expectations'.
        when: UTC, ISO.
        commit: of the checkout, shortened; ``+`` with changes.
        machine: where.
        why: the last line of the failure.
    """

    passed: bool
    seconds: float
    when: str
    commit: str
    machine: str
    why: str


def load(file: Path = FILE) -> dict[str, Outcome]:
    """Outcomes so far, by key; none where there is no file."""
    if not file.exists():
        return {}
    return dict(json.loads(file.read_text(encoding="utf-8")))


def keep(key: str, outcome: Outcome, file: Path = FILE) -> dict[str, Outcome]:
    """Add an outcome to the file, which other processes add to as well; all outcomes so far."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcomes = load(file) | {key: outcome}
        write_atomically(file, json.dumps(outcomes, indent=1, ensure_ascii=False) + "\n")
    return outcomes


_HEAD = """\
# Reliability

What happens when something dies, hangs, fills up or is tampered with in the middle of a run. `make faults` injects
each fault on the test bed (virtual hosts, real Airflow, SSH, Docker, object store), in each phase of a small run, and
writes this page; it goes on where it stopped. A cell passes when the run ends as the fault's row says, and host, store
and Airflow agree: every planned trial accounted for, every raw log in the store with its checksum, a report, nothing left
on the host, no lease and no claim held.

"""


def write_page(outcomes: Mapping[str, Outcome], interventions: Iterable[str]) -> None:
    """Write docs/reliability.md."""
    write_atomically(PAGE, page(outcomes, interventions))


def page(outcomes: Mapping[str, Outcome], interventions: Iterable[str]) -> str:
    """The page: when and where, the matrix, impossible cells, further tests, failures."""
    further = sorted(interventions)
    known = {key: one for key, one in outcomes.items() if key in {*_keys(), *further}}
    text = [_HEAD + _when(known)]
    text.append("\n| fault | the run ends | " + " | ".join(Phase) + " |\n" + "| --- " * 8 + "|\n")
    reasons: dict[str, int] = {}
    for fault in FAULTS:
        row = []
        for phase in Phase:
            if reason := fault.impossible.get(phase):
                row.append(f"n/a ({reasons.setdefault(reason, len(reasons) + 1)})")
            else:
                row.append(_cell(outcomes.get(Cell(fault, phase).key)))
        text.append(f"| {fault.name} | {fault.end.value} | {' | '.join(row)} |\n")
    text.append("\nn/a:\n\n")
    text += [f"{number}. {reason}\n" for reason, number in reasons.items()]
    text.append("\n## Further interventions and outages\n\n| what | outcome |\n| --- | --- |\n")
    text += [f"| {name} | {_cell(outcomes.get(name))} |\n" for name in further]
    if failed := {key: one for key, one in known.items() if not one["passed"]}:
        text.append("\n## Failures\n\n")
        text += [f"* {key}: `{one['why']}`\n" for key, one in sorted(failed.items())]
    return "".join(text)


def _keys() -> set[str]:
    """Keys of the cells that can be run."""
    return {Cell(f, phase).key for f in FAULTS for phase in Phase if phase not in f.impossible}


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not run"
    return f"{'ok' if outcome['passed'] else '**failed**'} ({outcome['seconds']:.0f} s)"


def _when(known: Mapping[str, Outcome]) -> str:
    ran = [one for key, one in known.items() if key in _keys()]
    lines = [
        f"{len(ran)} of {len(_keys())} cells have been run, {sum(o['passed'] for o in ran)} passed.\n"
    ]
    places: dict[tuple[str, str], list[str]] = {}
    for one in known.values():
        places.setdefault((one["machine"], one["commit"]), []).append(one["when"])
    for (machine, commit), times in sorted(places.items()):
        first, last = min(times)[:16], max(times)[:16]
        lines.append(f"* {len(times)} from {first} to {last} UTC on {machine}, commit {commit}\n")
    return "\n".join([lines[0], *(["".join(lines[1:])] if lines[1:] else [])])
