"""``python -m analysis compare``: the same images across runs, hosts and nights."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from wattbench.analysis.model.escaping import note, say

_EPILOG = """\
what RUN may be
  a run's folder             var/demo/store/wattbench/runs/RUN_ID
  a folder of runs           …/runs   (every run in it)
  a pattern                  '…/runs/nightly-*'
  the same in a bucket       s3://BUCKET/PREFIX/runs, s3://BUCKET/PREFIX/runs/nightly-*
  an audit's or report's --out folder that holds trials.csv
For S3-compatible stores set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.
Of each run one file is read, trials.parquet; a run without it is computed from its records.

two to five runs
  Each later run is held against the first one named: how much more or less energy an image needs
  relative to the host's control workload (without one: to the reference image), with intervals that
  hold together; which verdicts changed; what else changed (digests, kernel, driver, governor, …).
  The intervals cover the noise inside the runs. How much an unchanged host scatters from run to run
  is seen only from many runs.

six runs or more: nights
  For every host and image a control chart of nightly levels; changes of level with the first night,
  the plausible nights, the size with its interval, the digests on both sides and the facts that
  changed then. A rise of at least --regression-pct that still stands is an error named "regression".
  A large one is reported on its first night, to be confirmed by two more. Fewer than 5 %% of comparisons
  name a false change; about one in 365 gives a false alarm on its last nights.
  A host whose control workload varies by more than --quarantine-pct is an error, "host-unsteady".

what lies in DIR afterwards
  index.html      one self-contained page
  summary.json    the answer for programs
  findings.json   alerts and everything looked for
  trials.csv      every trial of every run
  tables/         runs, changed_facts; levels, changes, control (nights); effects, differences,
                  verdict_changes (few runs)

exit codes
  0 done; 1 done, and an error was found in the data (a regression, an unsteady host, unequal
  work); 2 unusable input

examples
  %(prog)s runs/before runs/after --out out/compare
  %(prog)s s3://wattbench/runs --out out/trends
  %(prog)s 'runs/nightly-2026*' --regression-pct 0.5 --out out/trends
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``compare`` to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="the same images across runs, hosts and nights",
        description="What changed between runs: energy, verdicts, digests and hosts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs, or folders of runs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--reference", metavar="IMAGE", help="image to compare with (default: the runs' own)"
    )
    parser.add_argument(
        "--regression-pct",
        type=float,
        default=1.0,
        metavar="PCT",
        help="rise in energy that is an error, and margin of equivalence, %% (default: 1.0)",
    )
    parser.add_argument(
        "--quarantine-pct",
        type=float,
        default=1.0,
        metavar="PCT",
        help="largest SD of a host's control workload between runs, %% (default: 1.0)",
    )


def run(args: argparse.Namespace) -> int:
    """Compares, writes, and says the answer."""
    from wattbench.analysis.model.errors import InputError
    from wattbench.analysis.presentation.progress import Progress
    from wattbench.analysis.trends import headline
    from wattbench.analysis.trends.compare import Options, compare
    from wattbench.analysis.trends.write import write

    for name in ("regression_pct", "quarantine_pct"):
        value = getattr(args, name)
        if not (math.isfinite(value) and 0 < value < 100):
            raise InputError(
                f"--{name.replace('_', '-')} {value:g}: give a number between 0 and 100"
            )
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out}: is a file; name a folder")
    if any(Path(place).resolve() == args.out.resolve() for place in args.runs):
        raise InputError(f"--out {args.out}: is a run to be compared; name another folder")
    progress = Progress("compare")
    options = Options(args.reference, args.regression_pct, args.quarantine_pct)
    result = compare(args.runs, options, progress)
    progress("writing")
    try:
        write(result, args.out)
    except OSError as fault:
        raise InputError(
            f"--out {args.out}: can't be written ({fault.strerror}); name another"
        ) from fault
    for one in result.notes:
        note(f"compare: {one}")
    say(headline.sentence(result))
    say(str(args.out / "index.html"))
    return int(result.has_errors)
