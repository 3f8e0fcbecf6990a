"""Commands of the analysis; ``wattbench report`` takes runs in Airflow too."""

from __future__ import annotations

import argparse
import importlib
import re
import tempfile
from pathlib import Path
from typing import Any

from wattbench.analysis.commands import COMMANDS
from wattbench.analysis.model.errors import UserError
from wattbench.cli.options import add_login, airflow_url, client_of
from wattbench.cli.output import say

_RUN_REPORT = """\
Where SOURCE is a run id or an experiment in Airflow, its report is downloaded, each file held against its
SHA-256, into a new folder DIR. Where an address of Airflow is given, a name without "/" is such a run."""


def add_parsers(commands: Any) -> None:
    """Add the commands of the analysis."""
    for name in COMMANDS:
        module = importlib.import_module(f"wattbench.analysis.commands.{name}")
        module.add_parser(commands)
        commands.choices[name].set_defaults(do=module.run)
    report = commands.choices["report"]
    report.description = f"{report.description}\n\n{_RUN_REPORT}"
    report.set_defaults(do=_report)
    add_login(report)


def _report(options: argparse.Namespace) -> int:
    """Make a report from a place, or fetch the one that a run in Airflow has."""
    from wattbench.analysis.commands import report

    if _is_place(options):
        return report.run(options)
    if options.out is None and options.format == "html":
        raise UserError("--out DIR is missing; name a new folder")
    from wattbench.cli.report_download import fetch_report
    from wattbench.run.run_id import parse_run_id

    client = client_of(options)
    run_id = options.source
    if parse_run_id(run_id) is None:
        run_id = client.find(run_id).run_id
    if options.format == "html":
        page = fetch_report(client, run_id, options.out)
        text = page.with_name("report.txt")
        if text.is_file():  # reports of earlier versions have none
            say(text.read_text(encoding="utf-8"))
        say(str(page))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        page = fetch_report(client, run_id, options.out or Path(folder, "report"))
        say(_short_form(page, options.format, run_id).rstrip("\n"))
    return 0


def _short_form(page: Path, name: str, run_id: str) -> str:
    """The answer of a downloaded report in another form.

    Raises:
        UserError: a version that did not write it yet made the report.
    """
    from wattbench.analysis.report import SHORT_FORMS

    try:
        return page.with_name(SHORT_FORMS[name].file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{run_id}: its report has no {SHORT_FORMS[name].file}, an earlier version made it; "
            "make it anew from the store: wattbench report s3://BUCKET/PREFIX/runs/RUN_ID"
        ) from None


def _is_place(options: argparse.Namespace) -> bool:
    """Whether SOURCE is a folder or s3:// place, not the name of a run in Airflow.

    A bare name may be both: where an Airflow is named it is a run, and ./NAME the folder.
    """
    source: str = options.source
    if source.startswith("s3://") or not re.fullmatch(r"[\w-]+", source):
        return True
    return not airflow_url(options) and Path(source).is_dir()
