"""``python -m analysis image REF|TARBALL``: what in an image costs energy, without running it."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.escaping import say
from wattbench.analysis.presentation.progress import Progress

if TYPE_CHECKING:
    from wattbench.analysis.image.checks import Wants
    from wattbench.analysis.image.provenance import Image

_DESCRIPTION = """\
Audit an image for what is known or measured to cost energy: layers with wasted bytes, builds that don't fit
the job, settings, missing bytecode. IMAGE is a tarball of `docker save` or an OCI layout (.tar, .tar.gz, a
folder), or the name of an image in the local Docker. Nothing of it is run or unpacked to disk.
"""

_EPILOG = """\
examples
  %(prog)s wattbench/pip-torch:demo
  %(prog)s image.tar --device cuda --gpu-arch sm_90 --cores 64 --out audit/
  %(prog)s app:pr --max-size-gb 8 --max-waste-pct 5 --fail-on bytecode-missing     in CI
  %(prog)s app:old --diff app:new

Exit code: 0 done; 1 done, and an error was found (a broken threshold is one); 2 no image that can be read.
"""

_FORMATS = ("text", "json", "md", "html")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "image",
        help="audit an image for what costs energy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", metavar="IMAGE", help="tarball, folder, or image of local Docker")
    parser.add_argument(
        "--diff", metavar="IMAGE", help="show the differences of this image from the first"
    )
    parser.add_argument("--format", choices=_FORMATS, default="text", help="of standard output")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write page, JSON and CSV")
    job = parser.add_argument_group("what the image is for")
    job.add_argument("--device", choices=("cpu", "cuda"), help="what the job runs on")
    job.add_argument("--gpu-arch", metavar="sm_90", help="the host's GPU")
    job.add_argument("--cores", type=int, metavar="N", help="of the host")
    job.add_argument("--platform", metavar="linux/amd64", help="of the host; chooses among several")
    job.add_argument("--name", metavar="REPO:TAG", help="which image of a tarball with several")
    job.add_argument("--effects", type=Path, metavar="FILE", help="effects measured by own runs")
    limits = parser.add_argument_group("what makes it fail")
    limits.add_argument("--max-waste-mb", type=float, metavar="MB")
    limits.add_argument("--max-waste-pct", type=float, metavar="PCT")
    limits.add_argument("--max-size-gb", type=float, metavar="GB", help="unpacked")
    limits.add_argument(
        "--fail-on",
        metavar="CODE[,…]",
        default="",
        help="findings that are errors; also: warning, info",
    )


def run(args: argparse.Namespace) -> int:
    """Audit or compare, print, write."""
    from wattbench.analysis.image import checks, diff, effects, render

    wants = _wants(args)
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out}: is a file; name a folder with --out")
    measured = effects.load(args.effects) if args.effects else {}
    image = _describe(args.image, args)
    if args.diff is not None:
        difference = diff.compare(image, _describe(args.diff, args))
        form = {"text": render.difference_as_text, "md": render.difference_as_markdown,
                "json": render.difference_as_json, "html": render.difference_as_html}  # fmt: skip
        say(form[args.format](difference).rstrip("\n"))
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            for name, made in (("index.html", form["html"]), ("diff.json", form["json"])):
                (args.out / name).write_text(made(difference), encoding="utf-8")
        return 0
    findings = checks.run(image, wants, measured)
    shape = {"text": render.as_text, "md": render.as_markdown,
             "json": render.as_json, "html": render.as_html}  # fmt: skip
    say(shape[args.format](image, findings).rstrip("\n"))
    if args.out is not None:
        render.write(image, findings, args.out)
    return 1 if any(f.is_found_error for f in findings) else 0


def _describe(place: str, args: argparse.Namespace) -> Image:
    from wattbench.analysis.image import archive, provenance

    path = Path(place)
    whole = f" of {path.stat().st_size / 1e6:,.0f}" if path.is_file() else ""
    progress = Progress("image")

    def tick(done: int) -> None:
        progress(f"{place}: {done / 1e6:,.0f}{whole} MB read")

    stored = archive.read(place, platform=args.platform, name=args.name, tick=tick)
    return provenance.describe(stored)


def _wants(args: argparse.Namespace) -> Wants:
    from wattbench.analysis.image.checks import Wants
    from wattbench.analysis.model.finding_codes import IMAGE_CODES, Severity

    for name, value in (
        ("--max-waste-mb", args.max_waste_mb),
        ("--max-waste-pct", args.max_waste_pct),
        ("--max-size-gb", args.max_size_gb),
    ):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} {value:g}: give a number of at least 0")
    if args.cores is not None and args.cores < 1:
        raise InputError(f"--cores {args.cores}: at least 1 is needed")
    if args.platform is not None and not re.fullmatch(r"[a-z]+/[a-z0-9]+(/\w+)?", args.platform):
        raise InputError(f"--platform {args.platform}: give os/architecture, such as linux/amd64")
    wanted = frozenset(filter(None, args.fail_on.split(",")))
    if unknown := wanted - set(IMAGE_CODES) - set(Severity):
        raise InputError(
            f"--fail-on {', '.join(sorted(unknown))}: is none of warning, info, {', '.join(IMAGE_CODES)}"
        )
    return Wants(
        device=args.device,
        gpu=_gpu(args.gpu_arch),
        cores=args.cores,
        platform=args.platform,
        max_waste_mb=args.max_waste_mb,
        max_waste_pct=args.max_waste_pct,
        max_size_gb=args.max_size_gb,
        fail_on=wanted,
    )


def _gpu(text: str | None) -> int | None:
    """``sm_90``, ``sm_90a`` or ``9.0`` → 90."""
    if text is None:
        return None
    if found := re.fullmatch(r"(?:sm_)?(\d{2,3})[af]?", text):
        return int(found[1])
    if found := re.fullmatch(r"(\d{1,2})\.(\d)", text):
        return int(found[1]) * 10 + int(found[2])
    raise InputError(f"--gpu-arch {text}: give a compute capability, such as sm_90 or 9.0")
