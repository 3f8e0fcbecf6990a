"""``python -m analysis report``: tables, figures and one page from a run, or from what is there instead."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

from wattbench.analysis.model.escaping import say
from wattbench.analysis.presentation.progress import Progress

#: Of --format; all but the first are a report's `SHORT_FORMS`.
FORMATS = ("html", "md", "junit", "badge")

_EPILOG = """\
what SOURCE may be
  a folder with a run's run.json, or s3://BUCKET/PREFIX/runs/RUN_ID. For S3-compatible stores set
  AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.
  A folder of runs (…/runs) is reported as `compare` does, an imported campaign as `audit` does;
  those commands have more options.

what lies in DIR afterwards
  index.html      one self-contained page: open it, mail it, print it
  report.md       its first screen, for a comment on a pull request; report.txt: for a terminal
  junit.xml       comparisons and checks as tests, for a CI; badge.svg: the verdict in a few words
  summary.json    the answer and all statistics for programs
  trials.csv      a row a planned trial; attempts.csv: every attempt; phases.csv: every phase
  findings.json   what is wrong with the data, under stable codes
  tables/         every table as CSV and as LaTeX (booktabs)
  figures/        every figure as SVG and PNG

how to read the answer
  Images are compared inside blocks; intervals hold jointly over all pairs. "less" and "more" mean
  that the interval excludes 0, "equivalent" that the difference was shown to lie inside the margin,
  "undecided" that the data do not show which. Not significant is never called the same.

exit codes
  0 done; 1 done, and an error was found in the data; 2 unusable input

examples
  %(prog)s var/demo/store/wattbench/runs/RUN_ID --out out/report
  %(prog)s s3://wattbench/runs/RUN_ID --out out/report
  %(prog)s RUN --format md | gh pr comment 12 --body-file -
  %(prog)s RUN --format junit > energy.xml
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``report`` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="tables, figures and HTML from a run",
        description="Which image uses the least energy, how sure that is, and what is wrong with the data.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a run's folder or s3:// place; or of runs, or a campaign's",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (needed for html)")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="html",
        help="md, junit, badge: print the answer as Markdown, JUnit XML or an SVG badge on stdout; "
        "with --out, write the whole report too (default: html)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the report, or prints its answer in another form."""
    from wattbench.analysis import report
    from wattbench.analysis.model.errors import UserError
    from wattbench.analysis.storage.source import MissingError, open_source

    if args.out is None and args.format == "html":
        raise UserError("--out DIR is missing; name a folder to write to")
    source = open_source(args.source)
    try:
        source.read("run.json")
    except MissingError:
        if args.format != "html":
            raise UserError(
                f"{args.source}: holds no run.json, and --format {args.format} is made from one run; "
                "name a run's folder"
            ) from None
        return _as(_other(args.source), args.source, args.out)
    if args.out is None:
        done = report.study(source, _progress)
        say(report.SHORT_FORMS[args.format].of(done).rstrip("\n"))
        return int(any(f.is_found_error for f in done.findings))
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out}: is a file; name a folder")
    try:
        made = report.make(source, args.out, _progress)
    except OSError as fault:
        raise UserError(
            f"--out {args.out}: can't be written ({fault.strerror}); name another"
        ) from fault
    if args.format == "html":
        say("\n".join([*made.text, "", str(made.page)]))
    else:
        form = report.SHORT_FORMS[args.format]
        say(made.page.with_name(form.file).read_text(encoding="utf-8").rstrip("\n"))
    return int(made.has_errors)


def _other(place: str) -> ModuleType:
    """The command for a place that holds no run itself: several runs, or a campaign of others."""
    from wattbench.analysis.commands import audit, compare
    from wattbench.analysis.model.errors import InputError
    from wattbench.analysis.storage import locations

    try:
        locations.find([place])
    except InputError:
        if place.startswith("s3://"):
            raise
        return audit
    return compare


def _as(command: ModuleType, place: str, out: Path) -> int:
    name = command.__name__.rpartition(".")[2]
    _progress(f"{place} is not a run: doing what `wattbench {name}` does")
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return int(command.run(parser.parse_args([name, place, "--out", str(out)])))


_progress = Progress("report", every_s=0)
