"""``python -m analysis power``: how many trials an effect needs, what a number of them can find."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from wattbench.analysis.model.errors import InputError, UserError
from wattbench.analysis.model.escaping import say
from wattbench.analysis.presentation.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from wattbench.analysis.stats.power import Need, Noise

_EPILOG = """\
what the numbers mean
  An effect is a difference in energy between two images, in percent. Noise is how much the same
  image varies between trials: its coefficient of variation (CV), the SD of its joules divided by
  their mean. Quiet machines reach 0.5 to 2 %%. Half the effect needs four times as many trials.

  Several images mean several comparisons (five images: ten pairs). The table corrects for all of
  them, so that the chance of any false "less" or "more" in the whole run stays at --alpha.

  blocked    every block measures each image once, in random order; images are compared inside
             blocks. What drifts slowly cancels out: name that share of the noise with
             --correlation, or take it from an earlier run with --from.
  unblocked  independent trials of each image; drift adds to the noise.

  An exact test of few trials can't be significant at all: five images need nine blocks or more.

examples
  %(prog)s --cv 1                       five images, CV of 1 %%
  %(prog)s --cv 0.8,1.9 --images 2      two images, a quiet and a noisy machine
  %(prog)s --cv 1 --blocks 30           what can 30 blocks find?
  %(prog)s --from out/run --effect 0.5  from the noise of a run measured earlier
  %(prog)s --cv 1 --plot power.svg      power against the number of trials
"""

#: Where a run, a report or an audit keeps its trials.
_TABLES = ("trials.parquet", "trials.csv", "report/trials.csv")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``power`` to the command line."""
    parser = subparsers.add_parser(
        "power",
        help="how many trials an effect needs",
        description="How many trials an effect needs, or which effect a number of trials can find.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    noise = parser.add_mutually_exclusive_group(required=True)
    noise.add_argument(
        "--cv",
        type=_numbers,
        metavar="PCT[,PCT…]",
        help="coefficients of variation of one image's joules, %%",
    )
    noise.add_argument(
        "--from",
        dest="source",
        metavar="RUN",
        help="a run (folder or s3://…), trials.csv or trials.parquet: the noise of every pair there",
    )
    parser.add_argument(
        "--effect",
        type=_numbers,
        default=[0.25, 0.5, 1.0, 2.0, 5.0],
        metavar="PCT[,PCT…]",
        help="differences in energy to find, %% (default: 0.25,0.5,1,2,5)",
    )
    parser.add_argument(
        "--images", type=int, metavar="N", help="images compared (default: 5, or those of RUN)"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.05, help="family-wise error rate (default: 0.05)"
    )
    parser.add_argument(
        "--power", type=float, default=0.8, help="chance to find the effect (default: 0.8)"
    )
    parser.add_argument(
        "--blocks",
        type=int,
        metavar="N",
        help="also: what this number of trials per image can find",
    )
    parser.add_argument(
        "--correlation",
        type=float,
        default=0.0,
        help="with --cv: share of the variance that a block's images have in common (default: 0)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw power against trials (.svg, .png or .pdf)"
    )


def _numbers(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers such as 0.5,1"
        ) from None
    if not all(math.isfinite(v) and v > 0 for v in values):
        raise argparse.ArgumentTypeError(f"{text!r}: every number must be above 0")
    return values


def run(args: argparse.Namespace) -> int:
    """Prints the table, and draws the figure if asked to."""
    from wattbench.analysis.stats import power

    _check(args)
    if args.source:
        noises, images = _noise_of_run(args.source)
    else:
        noises, images = power.noise_from_cv(args.cv, args.correlation), 5
    images = args.images or images
    pairs = images * (images - 1) // 2
    per_pair = args.alpha / pairs
    say(
        f"Trials an image to find an effect with {100 * args.power:g} % power; {images} images, "
        f"{pairs} pair{'s' if pairs > 1 else ''}, family-wise α = {args.alpha:g}\n"
    )
    rows = []
    progress = Progress("power")
    for done, noise in enumerate(noises, start=1):
        rows += power.needs([noise], args.effect, alpha=per_pair, target=args.power)
        progress(f"{done}/{len(noises)} noise levels")
    say(_needs_table(rows, args.effect))
    least = power.smallest_n(per_pair), power.smallest_n(per_pair, blocked=False)
    say(
        f"\nBelow {least[0]} blocks ({least[1]} unblocked trials per image) the exact test decides "
        "nothing, however large the effect."
    )
    if args.blocks:
        say("\n" + _detectable_table(noises, args.blocks, per_pair, args.power))
    if args.plot:
        _plot(noises, args.effect, per_pair, args.power, args.plot)
        say(f"\nfigure: {args.plot}")
    return 0


def _check(args: argparse.Namespace) -> None:
    limits = (
        ("--alpha", args.alpha, 0.0, 0.5),
        ("--power", args.power, 0.0, 1.0),
    )
    for name, value, low, high in limits:
        if not low < value < high:
            raise UserError(f"{name} {value:g}: give a number between {low:g} and {high:g}")
    if not 0 <= args.correlation < 1:
        raise UserError(f"--correlation {args.correlation:g}: give a number from 0 to below 1")
    if args.images is not None and args.images < 2:
        raise UserError(f"--images {args.images}: a comparison needs at least 2")
    if args.blocks is not None and args.blocks < 1:
        raise UserError(f"--blocks {args.blocks}: give a number of at least 1")
    if args.plot and args.plot.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"--plot {args.plot}: name a .svg, .png or .pdf file")


def _noise_of_run(source: str) -> tuple[list[Noise], int]:
    """The noise of every pair of a run, and its number of images."""
    from wattbench.analysis.stats.endpoints import host_trials, images_of, reference_of
    from wattbench.analysis.stats.power import Noise, pooled_sd_pct
    from wattbench.analysis.stats.results import Settings
    from wattbench.analysis.stats.within_host import compare

    trials = _read_trials(source)
    reference, _ = reference_of(trials, None)
    images = images_of(trials, reference)
    noises = []
    hosts = [str(h) for h in sorted(trials["host"].fillna("").unique())]
    for host in hosts:
        part = host_trials(trials, host, images)
        samples = part.samples()
        for pair in compare(part, Settings(reference=reference)):
            label = f"{pair.a} – {pair.b}" + (f", {host}" if len(hosts) > 1 else "")
            paired = pair.sd_log_pct if part.design == "blocked" else None
            pooled = pooled_sd_pct(samples[pair.a], samples[pair.b])
            if paired is not None or pooled is not None:
                noises.append(Noise(label, paired, pooled))
    if not noises:
        raise InputError(
            f"{source}: no two images have at least two valid trials each; "
            "their noise is not known: give --cv instead"
        )
    return noises, len(images)


def _read_trials(place: str) -> pd.DataFrame:
    """The table of trials at a place: a file, a run's folder, or ``s3://…``."""
    import io

    import pandas as pd

    from wattbench.analysis.model.trials import COLUMNS, from_records
    from wattbench.analysis.storage import safe_files
    from wattbench.analysis.storage.source import MissingError, open_source

    path = Path(place)
    if path.is_file():
        name, data = place, safe_files.read_regular(path)
    else:
        source = open_source(place)
        for name in _TABLES:
            try:
                data = source.read(name)
                break
            except MissingError:
                continue
        else:
            raise InputError(
                f"{place}: holds none of {', '.join(_TABLES)}; name a run, or such a file"
            )
    try:
        read = pd.read_parquet if name.endswith(".parquet") else pd.read_csv
        table = read(io.BytesIO(data))
        unknown = [c for c in COLUMNS[:3] if c not in table]
        if unknown:
            raise ValueError(f"no column {unknown[0]}")
        records = table.to_dict("records")
        return from_records({str(k): v for k, v in r.items()} for r in records)
    except (ValueError, TypeError, OSError) as fault:
        why = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise InputError(f"{place}: not a table of trials ({why}); name another file") from fault


def _needs_table(rows: list[Need], effects: list[float]) -> str:
    lines = {(r.label, r.blocked): f"{r.sd_pct:.2f}" for r in rows}
    cells = {
        (r.label, r.blocked, r.effect_pct): "–" if r.trials is None else str(r.trials) for r in rows
    }
    head = ["noise", "design", "SD %", *(f"{e:g} %" for e in effects)]
    body = [
        [label, _design(blocked), sd, *(cells[label, blocked, e] for e in effects)]
        for (label, blocked), sd in lines.items()
    ]
    return _table(head, body)


def _detectable_table(noises: list[Noise], n: int, alpha: float, target: float) -> str:
    from wattbench.analysis.stats.power import detectable_pct

    body = []
    for noise in noises:
        for blocked, sd in ((True, noise.paired_pct), (False, noise.pooled_pct)):
            if sd is not None:
                found = detectable_pct(n, sd, alpha=alpha, target=target, blocked=blocked)
                text = "nothing: too few trials" if found is None else f"{found:.2f} %"
                body.append([noise.label, _design(blocked), f"{sd:.2f}", text])
    return _table(["noise", "design", "SD %", f"smallest effect found by {n}"], body)


def _design(blocked: bool) -> str:
    return "blocked" if blocked else "unblocked"


def _table(head: list[str], body: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), line(["-" * w for w in widths]), *map(line, body)])


def _plot(
    noises: list[Noise], effects: list[float], alpha: float, target: float, path: Path
) -> None:
    """Power against trials, one panel a noise level (the first four), one line an effect."""
    from matplotlib.figure import Figure

    from wattbench.analysis.stats.power import power, smallest_n

    shown = [n for n in noises if n.paired_pct is not None or n.pooled_pct is not None][:4]
    figure = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    # Okabe and Ito's palette: distinguishable without colour vision, with a dash each for print.
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    dashes = ("-", "--", "-.", ":")
    for panel, noise in zip(panels, shown, strict=True):
        blocked = noise.paired_pct is not None
        sd = noise.paired_pct if noise.paired_pct is not None else noise.pooled_pct
        assert sd is not None
        least = smallest_n(alpha, blocked=blocked)
        ns = range(2, 101)
        for k, effect in enumerate(effects):
            panel.plot(
                ns,
                [100 * power(n, effect, sd, alpha=alpha, blocked=blocked) for n in ns],
                color=colours[k % len(colours)],
                linestyle=dashes[k % len(dashes)],
                label=f"{effect:g} %",
            )
        panel.axhline(100 * target, color="0.6", linewidth=0.8)
        panel.axvline(least, color="0.6", linewidth=0.8)
        panel.set_title(f"{noise.label} ({_design(blocked)})", fontsize=10)
        panel.set_xlabel("blocks" if blocked else "trials per image")
    panels[0].set_ylabel("power (%)")
    panels[0].legend(title="effect", fontsize=8, title_fontsize=8)
    try:
        figure.savefig(path)
    except OSError as fault:
        raise UserError(
            f"--plot {path}: can't be written ({fault.strerror}); name another"
        ) from fault
