"""The table of checks: an image and what is wanted of it → findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from wattbench.analysis.image import inventory, settings
from wattbench.analysis.image.provenance import Image
from wattbench.analysis.model.finding_codes import IMAGE_CODES, Severity, Verdict
from wattbench.analysis.model.findings import Effect, Finding, ordered
from wattbench.analysis.presentation.formatting import size

#: Bytecode is called missing where more than this share of a root's bytes would be compiled at start …
_COMPILED_SHARE_PCT = 50.0
#: … and waste or duplicates are spoken of from this size on: below, no pull would notice.
_NOTICED_BYTES = 1_000_000
_LISTED = 10


@dataclass(frozen=True)
class Wants:
    """What the image is audited for; None where it was not given.

    Attributes:
        device: ``cpu`` or ``cuda``.
        gpu: compute capability × 10 of the GPU (90 for sm_90).
        cores: of the host.
        platform: ``os/architecture`` of the host.
        max_waste_mb: waste above it is an error, MB.
        max_waste_pct: likewise, % of what is stored.
        max_size_gb: a larger image is an error, GB unpacked.
        fail_on: codes, or severities, whose found findings become errors.
    """

    device: str | None = None
    gpu: int | None = None
    cores: int | None = None
    platform: str | None = None
    max_waste_mb: float | None = None
    max_waste_pct: float | None = None
    max_size_gb: float | None = None
    fail_on: frozenset[str] = frozenset()


Outcome = tuple[Verdict, str, dict[str, Any]]


def _found(message: str, **evidence: Any) -> Outcome:
    return Verdict.FOUND, message, evidence


def _fine(message: str, **evidence: Any) -> Outcome:
    return Verdict.NOT_FOUND, message, evidence


def _unknown(message: str, **evidence: Any) -> Outcome:
    return Verdict.UNDECIDABLE, message, evidence


def _platform(image: Image, wants: Wants) -> Iterable[Outcome]:
    declared = image.platform.split("/")[1] if "/" in image.platform else ""
    machines = image.inventory.machines
    other = {name: n for name, n in machines.items() if name != declared}
    if wants.platform and image.platform.split("/")[:2] != wants.platform.split("/")[:2]:
        yield _found(f"for {image.platform}, wanted is {wants.platform}", platform=image.platform)
    elif other and declared:
        yield _found(
            f"declared for {declared}, its Python programs are for {', '.join(other)}",
            machines=dict(machines),
        )
    elif wants.platform:
        yield _fine(f"for {image.platform}", machines=dict(machines))
    else:
        yield _unknown(f"for {image.platform}; say the host's with --platform")


def _entry_point(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    start = image.inventory.start
    line = " ".join(start.argv)
    if not image.inventory.pythons:
        yield _found("no Python: no standard library (lib/python3.*/os.py) in the image", argv=line)
    elif not start.argv:
        yield _unknown(
            "neither ENTRYPOINT nor CMD: it runs the built-in program or a command of the experiment"
        )
    elif start.program is None:
        yield _found(f"starts {start.argv[0]}, which is not in the image", argv=line)
    elif start.python is None:
        yield _unknown(
            f"starts {start.program}; what that runs is not known without running it", argv=line
        )
    else:
        yield _fine(f"starts {start.program}", argv=line)


def _cpu_build(image: Image, wants: Wants) -> Iterable[Outcome]:
    torches = image.inventory.torches
    if not torches:
        yield _unknown("no torch/version.py in the image")
    elif wants.device is None:
        yield _unknown("say with --device what the job runs on")
    elif wants.device == "cpu":
        yield _fine("the job runs on the CPU")
    else:
        without = [one for one in torches if not (one.cuda or one.rocm)]
        for one in without:
            yield _found(
                f"torch {one.version} has no CUDA, the job wants {wants.device}",
                path=one.path,
                version=one.version,
            )
        if not without:
            yield _fine(f"torch {torches[0].version}, CUDA {torches[0].cuda}")


def _gpu_arch(image: Image, wants: Wants) -> Iterable[Outcome]:
    built = [one for one in image.inventory.torches if one.cuda]
    if not built:
        yield _unknown("no CUDA build of torch in the image")
        return
    for one in built:
        if not one.gpu:
            yield _unknown(
                f"torch {one.version}: no GPU code could be read from libtorch_cuda", path=one.path
            )
            continue
        names = one.gpu.names()
        if wants.gpu is None:
            yield _unknown(
                f"holds {' '.join(names)}; say the host's GPU with --gpu-arch", arch_list=names
            )
        elif one.gpu.runs_on(wants.gpu):
            yield _fine(f"sm_{wants.gpu} is served by {' '.join(names)}", arch_list=names)
        elif one.gpu.compiles_for(wants.gpu):
            yield _found(
                f"no machine code for sm_{wants.gpu}: compiled from PTX at each start "
                f"(holds {' '.join(names)})",
                path=one.path,
                arch_list=names,
                jit=True,
            )
        else:
            yield _found(
                f"neither machine code nor PTX for sm_{wants.gpu} (holds {' '.join(names)})",
                path=one.path,
                arch_list=names,
                jit=False,
            )


def _debug(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    torches, pythons = image.inventory.torches, image.inventory.pythons
    debug = [f"torch {one.version} ({one.path}: debug = True)" for one in torches if one.debug]
    debug += [f"Python {one.version or one.minor} ({one.path})" for one in pythons if one.debug]
    if debug:
        yield _found(f"debug build: {'; '.join(debug)}", builds=debug)
    elif not torches and not pythons:
        yield _unknown("neither Python nor torch in the image")
    elif any(one.debug is None for one in torches):
        yield _unknown("torch/version.py does not say whether it is a debug build")
    else:
        yield _fine("release builds")


def _threads(image: Image, wants: Wants) -> Iterable[Outcome]:
    variables = {name: image.env[name] for name in settings.THREADS if name in image.env}
    if not variables:
        yield _fine("no number of threads is fixed")
    for name, value in variables.items():
        count = _first_number(value)
        if count is None or count < 1:
            yield _found(f"{name}={value} is not a number of threads", variable=name, value=value)
        elif count == 1 and wants.cores != 1:
            yield _found(
                f"{name}=1: one thread on whatever host it runs", variable=name, value=value
            )
        elif wants.cores is None:
            yield _unknown(
                f"{name}={value} is fixed in the image; say the host's cores with --cores",
                variable=name,
                value=value,
            )
        elif count > wants.cores:
            yield _found(
                f"{name}={value} on {wants.cores} cores",
                variable=name,
                value=value,
                cores=wants.cores,
            )
        else:
            yield _fine(
                f"{name}={value} on {wants.cores} cores",
                variable=name,
                value=value,
                cores=wants.cores,
            )


def _first_number(value: str) -> int | None:
    """Of ``8`` or of a list by nesting level, ``8,1``."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*(,\s*\d{1,9}\s*)*", value, re.ASCII)
    return int(found[1]) if found else None


def _settings(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    costly = settings.costly(image.env)
    for one, value in costly:
        yield _found(
            f"{one.name}={value}: {one.why}", variable=one.name, value=value, source=one.source
        )
    if not costly:
        yield _fine(
            f"none of {len(settings.COSTLY)} variables known to cost is set to such a value"
        )


def _bytecode(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    if not image.compiled:
        yield _unknown("no Python whose bytecode could be looked for")
        return
    unwritten = " and PYTHONDONTWRITEBYTECODE is set" * bool(
        image.env.get("PYTHONDONTWRITEBYTECODE")
    )
    poor = [
        one
        for one in image.compiled
        if one.share_pct > _COMPILED_SHARE_PCT
        and one.missing_size + one.stale_size >= _NOTICED_BYTES / 10
    ]
    for one in poor:
        what = f"{one.missing} without bytecode"
        if one.stale:
            what += f", {one.stale} whose bytecode is of another version of the file"
        yield _found(
            f"/{one.root}: of {one.files} modules {what} ({size(one.missing_size + one.stale_size)}, "
            f"{one.share_pct:.0f} %){unwritten}",
            root=f"/{one.root}",
            modules=one.files,
            missing=one.missing,
            missing_bytes=one.missing_size,
            stale=one.stale,
            stale_bytes=one.stale_size,
        )
    if not poor:
        total = sum(one.files for one in image.compiled)
        lacking = sum(one.missing + one.stale for one in image.compiled)
        yield _fine(
            f"{total - lacking} of {total} modules have bytecode", modules=total, lacking=lacking
        )


def _torch_copies(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    torches = image.inventory.torches
    if len(torches) > 1:
        copies = [f"{one.version} at {one.path.removesuffix('/version.py')}" for one in torches]
        yield _found(f"{len(torches)} copies: {'; '.join(copies)}", copies=copies)
    elif torches:
        yield _fine(f"one copy, {torches[0].version}")
    else:
        yield _unknown("no torch/version.py in the image")


def _cuda_unused(image: Image, wants: Wants) -> Iterable[Outcome]:
    cuda = [one for one in image.inventory.libraries if one.group == "cuda"]
    cuda += [one for one in image.inventory.libraries if one.family.startswith("libtorch_cuda")]
    total = sum(one.size for one in cuda)
    if not cuda:
        yield _fine("no CUDA libraries")
    elif wants.device is None:
        yield _unknown(
            f"{len(cuda)} CUDA libraries, {size(total)}; say with --device what the job runs on"
        )
    elif wants.device == "cpu":
        yield _found(
            f"{len(cuda)} CUDA libraries, {size(total)}, for a job on the CPU",
            bytes=total,
            largest=[one.path for one in sorted(cuda, key=lambda one: -one.size)[:_LISTED]],
        )
    else:
        yield _fine("the job runs on the GPU")


def _duplicates(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    libraries = image.inventory.libraries
    noticed = 0
    for group in ("cuda", "blas"):
        for family, found in inventory.copies(libraries, group).items():
            spare = sum(one.size for one in found[1:])
            if family == "cudnn parts" or spare < _NOTICED_BYTES:
                continue
            noticed += 1
            same = len({(one.size, one.crc) for one in found}) == 1
            yield _found(
                f"{family}: {len(found)} {'equal' if same else 'different'} copies, {size(spare)} more "
                f"than the largest: {', '.join(one.path for one in found[:3])}",
                spare_bytes=spare,
                equal=same,
                copies=[{"path": o.path, "bytes": o.size, "layer": o.layer + 1} for o in found],
            )
    if not noticed:
        yield _fine("no CUDA or BLAS library is there twice")


def _openmp(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    found = [one for one in image.inventory.libraries if one.group == "openmp"]
    if len(found) > 1:
        yield _found(
            f"{len(found)} runtimes: {', '.join(one.path for one in found)}",
            paths=[one.path for one in found],
        )
    else:
        yield _fine(f"{len(found)} OpenMP runtime{'s' * (len(found) != 1)}")


def _waste(image: Image, wants: Wants) -> Iterable[Outcome]:
    waste = image.waste
    shares = (
        f"{size(waste.total)} of {size(waste.stored)} ({waste.share_pct:.1f} %): "
        f"{size(waste.hidden)} hidden by later layers, {size(waste.left_behind)} left behind"
    )
    over = []
    if wants.max_waste_mb is not None and waste.total > wants.max_waste_mb * 1e6:
        over.append(f"over --max-waste-mb {wants.max_waste_mb:g}")
    if wants.max_waste_pct is not None and waste.share_pct > wants.max_waste_pct:
        over.append(f"over --max-waste-pct {wants.max_waste_pct:g}")
    evidence = {
        "stored_bytes": waste.stored,
        "hidden_bytes": waste.hidden,
        "left_behind_bytes": waste.left_behind,
        "largest": _largest_hidden(image),
    }
    if over:
        yield _found(f"{shares}; {' and '.join(over)}", over_limit=over, **evidence)
    elif waste.total >= _NOTICED_BYTES:
        yield _found(shares, **evidence)
    else:
        yield _fine(shares, **evidence)


def _largest_hidden(image: Image) -> list[dict[str, Any]]:
    largest = sorted(image.hidden, key=lambda one: (-one.size, one.path))[:_LISTED]
    return [
        {
            "path": f"/{one.path}",
            "bytes": one.size,
            "layer": one.layer + 1,
            "by_layer": one.by + 1,
            "how": str(one.how),
        }
        for one in largest
    ]


def _caches(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    noticed = [one for one in image.left_behind if one.size >= _NOTICED_BYTES]
    for one in noticed:
        yield _found(
            f"{one.kind}: {one.files} files, {size(one.size)}, layer "
            f"{', '.join(str(n + 1) for n in one.layers)}",
            kind=one.kind,
            files=one.files,
            bytes=one.size,
            layers=[n + 1 for n in one.layers],
            largest=f"/{one.largest}",
        )
    if not noticed:
        rest = sum(one.size for one in image.left_behind)
        yield _fine(f"none of at least {size(_NOTICED_BYTES)}; {size(rest)} in all", bytes=rest)


def _size(image: Image, wants: Wants) -> Iterable[Outcome]:
    sizes = f"{size(image.size_bytes)} unpacked"
    if image.packed_bytes is not None:
        sizes += f", {size(image.packed_bytes)} compressed"
    if wants.max_size_gb is None:
        yield _unknown(f"{sizes}; no limit given with --max-size-gb", bytes=image.size_bytes)
    elif image.size_bytes > wants.max_size_gb * 1e9:
        yield _found(f"{sizes}, over --max-size-gb {wants.max_size_gb:g}", bytes=image.size_bytes)
    else:
        yield _fine(f"{sizes}, limit {wants.max_size_gb:g} GB", bytes=image.size_bytes)


def _preload(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    preloaded = image.env.get("LD_PRELOAD", "").strip()
    if preloaded:
        yield _found(f"LD_PRELOAD={preloaded}", value=preloaded)
    else:
        yield _fine("LD_PRELOAD is not set")


def _root(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    user = image.user.split(":")[0]
    if user in ("", "0", "root"):
        yield _found(f"USER is {image.user or 'not set'}", user=image.user)
    else:
        yield _fine(f"USER is {image.user}", user=image.user)


def _base(image: Image, wants: Wants) -> Iterable[Outcome]:  # noqa: ARG001
    prefix = "org.opencontainers.image."
    wanted = [f"{prefix}{name}" for name in ("base.name", "base.digest", "revision")]
    absent = [name for name in wanted if not image.labels.get(name)]
    if absent:
        yield _found(f"labels absent: {', '.join(absent)}", absent=absent)
    else:
        yield _fine(f"built on {image.labels[wanted[0]]}")


Probe = Callable[[Image, Wants], Iterable[Outcome]]

CHECKS: tuple[tuple[str, Probe], ...] = (
    ("platform-mismatch", _platform),
    ("entry-point", _entry_point),
    ("cpu-build-on-gpu", _cpu_build),
    ("gpu-arch", _gpu_arch),
    ("debug-build", _debug),
    ("thread-setting", _threads),
    ("costly-setting", _settings),
    ("bytecode-missing", _bytecode),
    ("torch-copies", _torch_copies),
    ("cuda-unused", _cuda_unused),
    ("duplicate-libraries", _duplicates),
    ("openmp-copies", _openmp),
    ("wasted-bytes", _waste),
    ("package-cache", _caches),
    ("image-size", _size),
    ("preload", _preload),
    ("runs-as-root", _root),
    ("base-unnamed", _base),
)


def run(image: Image, wants: Wants, effects: dict[str, Effect]) -> tuple[Finding, ...]:
    """Every check's outcomes, ordered.

    Args:
        image: as described.
        wants: what it is audited for.
        effects: measured effects by code.
    """
    findings = []
    for code, probe in CHECKS:
        for verdict, message, evidence in probe(image, wants):
            source = str(evidence.pop("source", ""))
            one = Finding(
                code=code,
                verdict=verdict,
                severity=_severity(code, evidence, wants),
                subject=f"image {image.name}",
                message=message,
                evidence=evidence,
                source=source,
                effect=effects.get(code),
            )
            findings.append(one)
    return ordered(findings)


def _severity(code: str, evidence: dict[str, Any], wants: Wants) -> Severity:
    """The code's own; an error where a threshold was broken or the user says so; a JIT is a warning."""
    usual = IMAGE_CODES[code].severity
    if evidence.get("jit"):
        usual = Severity.WARNING
    raised = code in wants.fail_on or str(usual) in wants.fail_on or "over_limit" in evidence
    return Severity.ERROR if raised else usual
