"""Parts of a report: its tables as files, their rows as the csv module reads them, a section of the page."""

from __future__ import annotations

import csv
from pathlib import Path

from wattbench.analysis import report
from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.report import registry
from wattbench.analysis.report.figures import Artist

Row = dict[str, str]


def write_tables(study: report.Study, folder: Path) -> Path:
    """Write trials.csv and every table into a folder; returns the folder."""
    write_frame(study.data.trials, folder / "trials.csv")
    for table in study.tables.values():
        table.write(folder)
    return folder


def read(folder: Path, name: str) -> list[Row]:
    """Rows of a table."""
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def section(study: report.Study, name: str) -> str:
    """One section of the page, with its figures drawn, as :func:`report.make` draws them."""
    of_name = next(s for s in registry.sections() if s.name == name)
    artist = Artist(study.looks, modelled=bool(study.mark))
    drawn = {f.name: f for f in of_name.figures(study, artist) if f is not None}
    return of_name.html(study, drawn, is_first=False)
