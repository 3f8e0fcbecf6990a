"""Findings about an image: codes of their own, in the shape of every other finding.

``analysis.findings`` has the codes of trials, hosts and runs. These name what an image will cost wherever
it runs. Each code cites a source for the claim that it costs; a measured effect, where given, goes before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wattbench.analysis.model.finding_codes import Severity, Verdict


@dataclass(frozen=True)
class ImageCode:
    """What a code means. ``source`` supports ``why``; as in :class:`analysis.findings.Code` otherwise."""

    severity: Severity
    meaning: str
    why: str
    action: str
    source: str


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
_GCC = "https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html"
_PRACTICES = "https://docs.docker.com/build/building/best-practices/"

#: Every code, in the order in which pages list them. Codes may be added; none is renamed.
CODES: dict[str, ImageCode] = {
    "platform-mismatch": ImageCode(
        _E,
        "The image is for another architecture.",
        "It does not start, or runs emulated: every instruction is translated.",
        "Build or pull it for the host's platform (docker build --platform).",
        "https://docs.docker.com/build/building/multi-platform/",
    ),
    "entry-point": ImageCode(
        _E,
        "The image does not start a Python that is there.",
        "Nothing would be measured, or something else than the workload.",
        "Set ENTRYPOINT to the workload's Python; give a wrapper's own cost a trial without it.",
        "https://docs.docker.com/reference/dockerfile/#entrypoint",
    ),
    "cpu-build-on-gpu": ImageCode(
        _E,
        "The framework was built without CUDA, the job wants a GPU.",
        "The work runs on the CPU while the GPU idles: the joules are of another machine part.",
        "Install the CUDA build of the framework.",
        "https://pytorch.org/get-started/locally/",
    ),
    "gpu-arch": ImageCode(
        _E,
        "The framework holds no machine code for the GPU.",
        "Kernels are compiled from PTX at each start of a container, or can't run at all.",
        "Use a build whose architecture list has the GPU; until then keep CUDA_CACHE_PATH on a volume.",
        "https://developer.nvidia.com/blog/cuda-pro-tip-understand-fat-binaries-jit-caching/",
    ),
    "debug-build": ImageCode(
        _E,
        "A debug build of PyTorch or Python.",
        "Compiled without optimisation and with assertions: the same work takes more instructions.",
        "Install the release build.",
        "https://docs.python.org/3/using/configure.html#debug-build",
    ),
    "thread-setting": ImageCode(
        _W,
        "The image fixes a number of threads that does not fit the host.",
        "Too few leave cores idle and powered for longer; too many wait for each other and switch.",
        "Leave the variable unset in the image and set it where the cores are known.",
        "https://pytorch.org/docs/stable/notes/cpu_threading_torchscript_inference.html",
    ),
    "costly-setting": ImageCode(
        _W,
        "An environment variable makes the same work cost more.",
        "See the evidence: threads that spin while they wait, serialised kernels, narrower vectors, checks.",
        "Remove the variable from the image.",
        _GCC,
    ),
    "bytecode-missing": ImageCode(
        _W,
        "Python modules lack bytecode that fits, so that every start compiles them again.",
        "A container's files are thrown away: what one start compiles, the next compiles anew.",
        "Run python -m compileall after the last change of the files (pip compiles unless --no-compile; "
        "uv needs UV_COMPILE_BYTECODE=1), and keep the sources' times.",
        "https://docs.python.org/3/reference/import.html#cached-bytecode-invalidation",
    ),
    "torch-copies": ImageCode(
        _W,
        "Several copies of PyTorch.",
        "One is never used; which one is imported depends on the path.",
        "Keep one; look for a base image that already has it.",
        _PRACTICES,
    ),
    "cuda-unused": ImageCode(
        _W,
        "CUDA libraries in an image for a CPU job.",
        "Bytes that are pulled, unpacked and kept, and never loaded.",
        "Install the CPU build of the framework.",
        "https://pytorch.org/get-started/locally/",
    ),
    "duplicate-libraries": ImageCode(
        _W,
        "The same CUDA or BLAS library is there more than once.",
        "Bytes that are pulled and never loaded, or two thread pools that compete for the same cores.",
        "Install it by one package manager only.",
        "https://github.com/joblib/threadpoolctl/blob/master/README.md",
    ),
    "openmp-copies": ImageCode(
        _I,
        "Several OpenMP runtimes.",
        "A process that loads two has two thread pools; each may take all cores.",
        "Look at python -m threadpoolctl -i torch numpy inside the image.",
        "https://github.com/joblib/threadpoolctl/blob/master/multiple_openmp.md",
    ),
    "wasted-bytes": ImageCode(
        _W,
        "Bytes that no container sees or needs.",
        "They are pulled, unpacked and kept by every host: energy at deployment, none at inference.",
        "Delete in the layer that creates; set owner and mode with COPY --chown --chmod.",
        _PRACTICES,
    ),
    "package-cache": ImageCode(
        _W,
        "Caches, lists or logs of package managers were left behind.",
        "They are pulled, unpacked and kept by every host: energy at deployment, none at inference.",
        "Clean up in the same RUN (rm -rf /var/lib/apt/lists/*, pip --no-cache-dir), or mount a cache.",
        _PRACTICES,
    ),
    "image-size": ImageCode(
        _E,
        "The image is larger than it may be.",
        "Every host pulls and unpacks it before the first inference.",
        "See the largest layers; multi-stage builds leave tools behind.",
        _PRACTICES,
    ),
    "preload": ImageCode(
        _I,
        "Another memory allocator or library is loaded before all others.",
        "Allocators change time and energy in both directions; a missing file warns at every start.",
        "Make it a factor of the experiment instead of a part of the image.",
        "https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html",
    ),
    "runs-as-root": ImageCode(
        _I,
        "The container runs as root.",
        "No energy; files that it leaves on volumes belong to root, and a fault reaches further.",
        "Add a USER.",
        "https://docs.docker.com/build/building/best-practices/#user",
    ),
    "base-unnamed": ImageCode(
        _I,
        "The image does not say what it was built from.",
        "No energy; without base and revision nobody can build the measured image again.",
        "Set the labels org.opencontainers.image.base.name, base.digest and revision.",
        "https://github.com/opencontainers/image-spec/blob/main/annotations.md",
    ),
}


@dataclass(frozen=True)
class Effect:
    """A measured effect of what a finding names.

    Attributes:
        code: the finding's code.
        change: what was changed, for example ``bytecode: absent → compiled``.
        energy_pct: difference in energy, %; negative saves.
        low_pct: lower end of its interval.
        high_pct: upper end.
        run_id: the run that measured it.
        energy_source: ``measured`` or ``modelled``.
    """

    code: str
    change: str
    energy_pct: float
    low_pct: float
    high_pct: float
    run_id: str
    energy_source: str

    def sentence(self) -> str:
        """One line for people."""
        mark = "" if self.energy_source == "measured" else " (modelled, not measured)"
        return (
            f"{self.change}: {self.energy_pct:+.1f} % energy "
            f"[{self.low_pct:+.1f}, {self.high_pct:+.1f}], run {self.run_id}{mark}"
        )


@dataclass(frozen=True)
class ImageFinding:
    """One check's outcome for the image; as :class:`analysis.findings.Finding`, with its source.

    Attributes:
        effect: measured, where one was given for the code.
    """

    code: str
    verdict: Verdict
    severity: Severity
    subject: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    action: str = ""
    source: str = ""
    effect: Effect | None = None

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown finding code {self.code!r}")

    @property
    def is_found_error(self) -> bool:
        """Whether a pull request fails for it."""
        return self.verdict is Verdict.FOUND and self.severity is Severity.ERROR

    @property
    def why(self) -> str:
        """A sentence, and what supports it."""
        if self.effect is not None:
            return self.effect.sentence()
        return f"{CODES[self.code].why} {self.source or CODES[self.code].source}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "code": self.code,
            "verdict": str(self.verdict),
            "severity": str(self.severity),
            "subject": self.subject,
            "message": self.message,
            "evidence": dict(self.evidence),
            "action": self.action or CODES[self.code].action,
            "source": self.source or CODES[self.code].source,
            "effect": vars(self.effect) if self.effect else None,
        }


def ordered(findings: Iterable[ImageFinding]) -> tuple[ImageFinding, ...]:
    """Found before undecidable before not found, errors first."""
    rank = {Verdict.FOUND: 0, Verdict.UNDECIDABLE: 1, Verdict.NOT_FOUND: 2}
    severities, codes = list(Severity), list(CODES)
    return tuple(
        sorted(
            findings,
            key=lambda f: (rank[f.verdict], severities.index(f.severity), codes.index(f.code)),
        )
    )


def dump(findings: Iterable[ImageFinding]) -> str:
    """``findings.json``."""
    return json.dumps([f.to_dict() for f in ordered(findings)], indent=1, ensure_ascii=False) + "\n"
