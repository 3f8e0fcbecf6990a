"""What a report says, once: sections that text, Markdown and HTML put into form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from wattbench.analysis.image import settings
from wattbench.analysis.image.provenance import Image
from wattbench.analysis.model.escaping import one_line
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.presentation.formatting import shortened, size
from wattbench.analysis.presentation.table import Grid

_LISTED = 12


def facts(image: Image) -> tuple[tuple[str, str], ...]:
    """The image in a few lines."""
    held = image.inventory
    packages = Counter(package.manager for package in held.packages)
    pythons = [f"{one.version or one.minor} ({one.path})" for one in held.pythons]
    values = {
        "image": image.name,
        "id": image.id,
        "digest": image.digest or "",
        "platform": image.platform,
        "created": image.created or "",
        "size": f"{size(image.size_bytes)} unpacked"
        + (f", {size(image.packed_bytes)} compressed" if image.packed_bytes is not None else "")
        + f", {len(image.layers)} layers",
        "waste": f"{size(image.waste.total)} ({image.waste.share_pct:.1f} %): {size(image.waste.hidden)} "
        f"hidden, {size(image.waste.left_behind)} left behind",
        "base": image.labels.get("org.opencontainers.image.base.name", ""),
        "system": held.system.get("PRETTY_NAME") or held.system.get("NAME", ""),
        "python": "; ".join(pythons) or "none",
        "packages": ", ".join(f"{count} {manager}" for manager, count in sorted(packages.items()))
        or "none found",
        "starts": " ".join(held.start.argv) or "nothing",
        "user": image.user or "root",
    }
    return tuple((name, one_line(value)) for name, value in values.items() if value)


def sections(image: Image) -> tuple[Grid, ...]:
    """Everything but facts and findings; without sections that would be empty."""
    made = (_layers(image), _hidden(image), _left(image), _torch(image), _libraries(image), _env(image),
            _labels(image))  # fmt: skip
    return tuple(section for section in made if section.rows)


def _layers(image: Image) -> Grid:
    packed = image.packed_bytes is not None
    rows = [
        (
            str(one.number),
            size(one.size_bytes),
            *([size(one.packed_bytes or 0)] if packed else []),
            size(one.hidden_bytes) if one.hidden_bytes else "",
            str(one.files),
            shortened(one.command, 76),
        )
        for one in image.layers
    ]
    head = ("#", "size", *(["compressed"] if packed else []), "hidden", "files", "command")
    return Grid.of("Layers", head, tuple(rows), "# size compressed hidden files")


def _hidden(image: Image) -> Grid:
    largest = sorted(image.hidden, key=lambda one: (-one.size, one.path))
    rows = [
        (size(one.size), str(one.layer + 1), str(one.by + 1), str(one.how), shortened(f"/{one.path}", 80))
        for one in largest[:_LISTED]
        if one.size
    ]  # fmt: skip
    more = len([one for one in largest if one.size]) - len(rows)
    return Grid.of(
        "Hidden: stored, but no container sees it",
        ("size", "in", "by", "how", "file"),
        tuple(rows),
        "size in by",
        f"and {more} smaller" if more > 0 else "",
    )


def _left(image: Image) -> Grid:
    rows = [
        (size(one.size), str(one.files), ", ".join(str(n + 1) for n in one.layers), one.kind,
         shortened(f"/{one.largest}", 60))
        for one in image.left_behind
    ]  # fmt: skip
    head = ("size", "files", "layers", "kind", "largest")
    return Grid.of("Left behind: seen, but never needed", head, tuple(rows), "size files")


def _torch(image: Image) -> Grid:
    rows = []
    for one in image.inventory.torches:
        mkl = {True: "MKL linked in", False: "no MKL inside", None: "not known"}[one.mkl]
        rows.append(
            (
                one.version or "?",
                one.cuda or (f"ROCm {one.rocm}" if one.rocm else "none"),
                {True: "debug", False: "release", None: "?"}[one.debug],
                one.linkage,
                mkl,
                " ".join(one.gpu.names()) if one.gpu else "none",
                one.path.removesuffix("/version.py"),
            )
        )
    head = ("version", "CUDA", "build", "libtorch", "BLAS", "GPU code", "at")
    return Grid.of("PyTorch", head, tuple(rows))


def _libraries(image: Image) -> Grid:
    libraries = sorted(image.inventory.libraries, key=lambda one: (one.group, -one.size, one.path))
    shown = [one for one in libraries if one.size >= 100_000]
    rows = [(one.group, one.family, size(one.size), str(one.layer + 1), one.path) for one in shown]
    head = ("group", "family", "size", "layer", "path")
    return Grid.of("Libraries that matter", head, tuple(rows), "size layer")


def _env(image: Image) -> Grid:
    variables = settings.that_matter(image.env)
    rows = tuple((name, shortened(value, 90)) for name, value in variables.items())
    return Grid.of("Environment variables that matter", ("name", "value"), rows)


def _labels(image: Image) -> Grid:
    rows = tuple((shortened(k, 60), shortened(v, 80)) for k, v in sorted(image.labels.items()))
    return Grid.of("Labels", ("name", "value"), rows)


def tally(findings: Sequence[Finding]) -> str:
    """How many of what."""
    found = Counter(str(f.severity) for f in findings if f.verdict is Verdict.FOUND)
    unknown = sum(f.verdict is Verdict.UNDECIDABLE for f in findings)
    return (
        f"{found['error']} errors, {found['warning']} warnings, {found['info']} notes found; "
        f"{unknown} checks undecidable"
    )
