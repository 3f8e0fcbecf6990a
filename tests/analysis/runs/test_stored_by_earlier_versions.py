"""Runs stored by earlier versions read as ever: the same numbers, byte by byte.

``stored-run-1.tar.gz`` is the demo's run as version 0.1.0 stored it, with the tables that its report had.
"""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import pytest

from wattbench.analysis.report import study, write_data
from wattbench.analysis.storage.source import open_source

REFERENCE = Path(__file__).parents[2] / "reference"
#: Columns added since; what was there before stays as it was.
ADDED = {"unit", "units", "j_per_unit", "board_j", "wall_j", "wall_uncertainty_j", "idle_state"}
#: Claims that rested on point estimates; where the interval allows both answers they are withdrawn.
WITHDRAWN = {
    "sizes.csv": {"pareto": ""},
    "break_even.csv": {"break_even_images": "", "outcome": "undecided: "},
}


def settle(name: str, old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """The old row, with claims that the new row withdraws replaced by what stands there now."""
    withdrawn = WITHDRAWN.get(name, {})
    return old | {
        column: new[column]
        for column, mark in withdrawn.items()
        if new[column] == mark or (mark and new[column].startswith(mark))
    }


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(REFERENCE / "stored-run-1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def report(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    now = study(open_source(stored))
    assert not any(f.is_found_error for f in now.findings)
    write_data(now, out)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_trials_are_what_they_were(stored: Path, report: Path) -> None:
    before = rows_of(stored / "report/trials.csv")
    after = rows_of(report / "trials.csv")
    assert len(before) == 24
    for old, new in zip(before, after, strict=True):
        # Codes that all trials share stand on each trial now, too.
        assert set(old.pop("findings").split()) <= set(new.pop("findings").split())
        assert {k: v for k, v in new.items() if k not in ADDED} == old


def test_every_table_says_what_it_said(stored: Path, report: Path) -> None:
    tables = sorted((stored / "report/tables").glob("*.csv"))
    assert len(tables) > 15
    for table in tables:
        if (
            table.name == "raw_files.csv"
        ):  # analyze writes the manifest, its source, after the report
            continue
        before, after = rows_of(table), rows_of(report / "tables" / table.name)
        assert len(after) == len(before), table.name
        kept = [{k: row.get(k) for k in old} for row, old in zip(after, before, strict=True)]
        settled = [settle(table.name, *rows) for rows in zip(before, kept, strict=True)]
        assert kept == settled, table.name


def test_findings_are_the_same_but_for_new_codes(stored: Path, report: Path) -> None:
    def outcomes(path: Path) -> set[tuple[str, str, str]]:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {(f["code"], f["subject"], f["verdict"]) for f in found}

    before = outcomes(stored / "report/findings.json")
    assert before <= outcomes(report / "findings.json")
