"""Codes of findings about an image: what it will cost wherever it runs.

Each code cites a source for the claim that it costs; a measured effect, where given, goes before it.
"""

from __future__ import annotations

from wattbench.analysis.model.finding_codes import IMAGE_CODES, Code, Severity

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
_GCC = "https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html"
_PRACTICES = "https://docs.docker.com/build/building/best-practices/"

#: In the order in which pages list them.
_CODES: tuple[tuple[str, Severity, str, str, str, str], ...] = (
    (
        "platform-mismatch",
        _E,
        "The image is for another architecture.",
        "It does not start, or runs emulated: every instruction is translated.",
        "Build or pull it for the host's platform (docker build --platform).",
        "https://docs.docker.com/build/building/multi-platform/",
    ),
    (
        "entry-point",
        _E,
        "The image does not start a Python that is there.",
        "Nothing would be measured, or something else than the workload.",
        "Set ENTRYPOINT to the workload's Python; give a wrapper's own cost a trial without it.",
        "https://docs.docker.com/reference/dockerfile/#entrypoint",
    ),
    (
        "cpu-build-on-gpu",
        _E,
        "The framework was built without CUDA, the job wants a GPU.",
        "The work runs on the CPU while the GPU idles: the joules are of another machine part.",
        "Install the CUDA build of the framework.",
        "https://pytorch.org/get-started/locally/",
    ),
    (
        "gpu-arch",
        _E,
        "The framework holds no machine code for the GPU.",
        "Kernels are compiled from PTX at each start of a container, or can't run at all.",
        "Use a build whose architecture list has the GPU; until then keep CUDA_CACHE_PATH on a volume.",
        "https://developer.nvidia.com/blog/cuda-pro-tip-understand-fat-binaries-jit-caching/",
    ),
    (
        "debug-build",
        _E,
        "A debug build of PyTorch or Python.",
        "Compiled without optimisation and with assertions: the same work takes more instructions.",
        "Install the release build.",
        "https://docs.python.org/3/using/configure.html#debug-build",
    ),
    (
        "thread-setting",
        _W,
        "The image fixes a number of threads that does not fit the host.",
        "Too few leave cores idle and powered for longer; too many wait for each other and switch.",
        "Leave the variable unset in the image and set it where the cores are known.",
        "https://pytorch.org/docs/stable/notes/cpu_threading_torchscript_inference.html",
    ),
    (
        "costly-setting",
        _W,
        "An environment variable makes the same work cost more.",
        "See the evidence: threads that spin while they wait, serialised kernels, narrower vectors, checks.",
        "Remove the variable from the image.",
        _GCC,
    ),
    (
        "bytecode-missing",
        _W,
        "Python modules lack bytecode that fits, so that every start compiles them again.",
        "A container's files are thrown away: what one start compiles, the next compiles anew.",
        "Run python -m compileall after the last change of the files (pip compiles unless --no-compile; "
        "uv needs UV_COMPILE_BYTECODE=1), and keep the sources' times.",
        "https://docs.python.org/3/reference/import.html#cached-bytecode-invalidation",
    ),
    (
        "torch-copies",
        _W,
        "Several copies of PyTorch.",
        "One is never used; which one is imported depends on the path.",
        "Keep one; look for a base image that already has it.",
        _PRACTICES,
    ),
    (
        "cuda-unused",
        _W,
        "CUDA libraries in an image for a CPU job.",
        "Bytes that are pulled, unpacked and kept, and never loaded.",
        "Install the CPU build of the framework.",
        "https://pytorch.org/get-started/locally/",
    ),
    (
        "duplicate-libraries",
        _W,
        "The same CUDA or BLAS library is there more than once.",
        "Bytes that are pulled and never loaded, or two thread pools that compete for the same cores.",
        "Install it by one package manager only.",
        "https://github.com/joblib/threadpoolctl/blob/master/README.md",
    ),
    (
        "openmp-copies",
        _I,
        "Several OpenMP runtimes.",
        "A process that loads two has two thread pools; each may take all cores.",
        "Look at python -m threadpoolctl -i torch numpy inside the image.",
        "https://github.com/joblib/threadpoolctl/blob/master/multiple_openmp.md",
    ),
    (
        "wasted-bytes",
        _W,
        "Bytes that no container sees or needs.",
        "They are pulled, unpacked and kept by every host: energy at deployment, none at inference.",
        "Delete in the layer that creates; set owner and mode with COPY --chown --chmod.",
        _PRACTICES,
    ),
    (
        "package-cache",
        _W,
        "Caches, lists or logs of package managers were left behind.",
        "They are pulled, unpacked and kept by every host: energy at deployment, none at inference.",
        "Clean up in the same RUN (rm -rf /var/lib/apt/lists/*, pip --no-cache-dir), or mount a cache.",
        _PRACTICES,
    ),
    (
        "image-size",
        _E,
        "The image is larger than it may be.",
        "Every host pulls and unpacks it before the first inference.",
        "See the largest layers; multi-stage builds leave tools behind.",
        _PRACTICES,
    ),
    (
        "preload",
        _I,
        "Another memory allocator or library is loaded before all others.",
        "Allocators change time and energy in both directions; a missing file warns at every start.",
        "Make it a factor of the experiment instead of a part of the image.",
        "https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html",
    ),
    (
        "runs-as-root",
        _I,
        "The container runs as root.",
        "No energy; files that it leaves on volumes belong to root, and a fault reaches further.",
        "Add a USER.",
        "https://docs.docker.com/build/building/best-practices/#user",
    ),
    (
        "base-unnamed",
        _I,
        "The image does not say what it was built from.",
        "No energy; without base and revision the measured image cannot be built again.",
        "Set the labels org.opencontainers.image.base.name, base.digest and revision.",
        "https://github.com/opencontainers/image-spec/blob/main/annotations.md",
    ),
)

for place, (name, severity, meaning, why, action, source) in enumerate(_CODES):
    IMAGE_CODES.declare(Code(name, severity, meaning, why, action, place, source=source))
