"""A report's tables as files, and their rows as the csv module reads them."""

from __future__ import annotations

import csv
from pathlib import Path

from wattbench.analysis import report
from wattbench.analysis.model.trials import write_csv

Row = dict[str, str]


def write_tables(study: report.Study, folder: Path) -> Path:
    """Write trials.csv and every table into a folder; returns the folder."""
    write_csv(study.data.trials, folder / "trials.csv")
    for table in study.tables.values():
        table.write(folder)
    return folder


def read(folder: Path, name: str) -> list[Row]:
    """Rows of a table."""
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))
