"""``python -m analysis audit CAMPAIGN --out DIR``: can published energy measurements be believed?"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from wattbench.analysis.model.escaping import say

_DESCRIPTION = """\
Import a campaign of energy measurements, check it, and tabulate its numbers as published, as imported and
repaired. CAMPAIGN is a folder. Its layout is recognised by its files, or named with --layout:

%LAYOUTS%
"""

_MAPPING = """\
--mapping FILE is YAML; every key is optional:

  reference: pytorch-base
  device: cuda                       # what the workload was meant to use
  expected_trials: 30                # trials per image that are claimed
  sizes_gb: {ubuntu: 9.11, pytorch: 9.62}
  iterations: {256: 400, 512: 200}   # inferences by image size: adds J/image
  cuda_images: [cuda, nvcr]
  printed:                           # tables as published, checked cell by cell
    relative:
      - {image: cuda-base, median_diff_j: 454.88, median_diff_pct: 1.22,
         size_diff_gb: 3.29, size_diff_pct: 34.2}
  versions: {CUDA: "12.6"}           # what the text says; held against the logs' banners
  raw: {glob: "**/energy.csv", image: "^([^/]+)/", run: "run_(\\d+)", idle: "idle"}   # another layout
  logs: "**/*.out"
  derived: {glob: "tables/*.csv", energy_j: joules, duration_s: seconds}
  columns: {"PKG (J)": "PACKAGE_ENERGY (J)"}
  factors: [model, batch]            # experiment-runner: columns that make up the treatment
  images: {img_a: pytorch}           # other names
  suffixes: [_idle, -base]           # what names of one image may end with
  name: my-campaign
  host: desktop

Exit code: 0 done; 1 done, and an error was found; 2 nothing that can be audited.
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with the table of layouts, whose importers are loaded only when it is shown."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "%LAYOUTS%" in text:
            from wattbench.analysis.audit.importers import installed

            rows = [f"  {i.layout:<18} {i.recognised_by.replace('`', '')}" for i in installed()]
            text = text.replace("%LAYOUTS%", "\n".join(rows))
        return super()._fill_text(text, width, indent)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "audit",
        help="import, check and recompute a campaign measured with other tools",
        description=_DESCRIPTION,
        epilog=_MAPPING,
        formatter_class=_Help,
    )
    parser.add_argument("campaign", type=Path, help="folder of the campaign")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the results go"
    )
    parser.add_argument(
        "--mapping", type=Path, metavar="FILE", help="facts and layout, YAML (below)"
    )
    parser.add_argument(
        "--layout",
        metavar="NAME",
        help="layout to read it by; default: the first that is recognised",
    )
    parser.add_argument(
        "--reference",
        metavar="IMAGE",
        help="image the others are compared with; default: lowest median",
    )
    parser.add_argument(
        "--max-file-mb",
        type=int,
        default=256,
        metavar="N",
        help="largest raw file that is read (default 256)",
    )


def run(args: argparse.Namespace) -> int:
    """Audit, write, and say in a few lines what came out."""
    from wattbench.analysis.model.errors import InputError

    if args.max_file_mb < 1:
        raise InputError(f"--max-file-mb {args.max_file_mb}: at least 1 is needed")
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out}: is a file; name a folder with --out")
    # Records of a large campaign live to the end: collecting among them finds nothing and costs much.
    gc.freeze()
    gc.disable()
    try:
        return _audit(args)
    finally:
        gc.enable()
        gc.unfreeze()


def _audit(args: argparse.Namespace) -> int:
    from wattbench.analysis.audit import mapping
    from wattbench.analysis.audit.run import audit, write
    from wattbench.analysis.presentation.formatting import count
    from wattbench.analysis.presentation.progress import Progress

    result = audit(
        args.campaign,
        mapping.load(args.mapping),
        reference=args.reference,
        layout=args.layout,
        progress=Progress("audit"),
        limit=args.max_file_mb * 1024 * 1024,
        exclude=args.out,
    )
    facts = write(result, args.out)
    statuses = ", ".join(f"{n} {status}" for status, n in facts["status"].items())
    counts = facts["findings"]["found"]
    say(f"audit: {facts['believed']}")
    for sentence in facts["inferred"]:
        say(f"audit: {sentence}")
    say(f"audit: {facts['campaign']} ({facts['layout']}): {facts['trials']} trials ({statuses})")
    say(
        f"audit: {count(counts['error'], 'error')}, {count(counts['warning'], 'warning')}, "
        f"{count(counts['info'], 'note')} found; "
        f"{count(facts['findings']['undecidable'], 'check')} undecidable"
    )
    say(f"audit: {args.out / 'index.html'}")
    return 1 if result.has_errors else 0
