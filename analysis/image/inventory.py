"""What is in an image: system, Pythons, packages, PyTorch's build, libraries. Read from files, never run."""

from __future__ import annotations

import posixpath
import re
import shlex
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser

from wattbench.analysis.image.documents import Settings
from wattbench.analysis.image.fatbin import GpuCode
from wattbench.analysis.image.layers import Entry, Kind
from wattbench.analysis.image.overlay import Folder, Overlay

_ELF_MACHINES = {
    3: "386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64",
}  # fmt: skip
#: Words of a command and folders of ``PATH`` that are looked up.
_LOOKED_UP = 200
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Package:
    """An installed package. ``manager``: dpkg, apk, pip or conda; ``where``: its database or folder."""

    manager: str
    name: str
    version: str
    where: str


@dataclass(frozen=True)
class Library:
    """A shared library of CUDA, BLAS, OpenMP or PyTorch that a container sees.

    Attributes:
        family: ``cublas``, ``openblas``, ``openmp``, ``libtorch_cpu``, …
        group: ``cuda``, ``blas``, ``openmp`` or ``torch``.
        path: with a leading slash.
        size: bytes.
        layer: index of the layer that stores it.
        crc: CRC-32 of its content.
    """

    family: str
    group: str
    path: str
    size: int
    layer: int
    crc: int


@dataclass(frozen=True)
class Torch:
    """One copy of PyTorch, as its files describe it. None: they do not.

    Attributes:
        path: of ``torch/version.py``, with a leading slash.
        version: with build tag.
        cuda: version of CUDA that it was built for; None for a CPU build.
        rocm: likewise, AMD's.
        debug: whether it is a debug build.
        git: commit.
        linkage: how libtorch is linked.
        libraries: its own shared libraries.
        gpu: device code in them; None where no such library was found.
        mkl: whether Intel's MKL is linked into libtorch_cpu; None where that was not found.
    """

    path: str
    version: str | None
    cuda: str | None
    rocm: str | None
    debug: bool | None
    git: str | None
    linkage: str
    libraries: tuple[Library, ...]
    gpu: GpuCode | None
    mkl: bool | None


@dataclass(frozen=True)
class Python:
    """A Python with its standard library. ``debug``: built with Py_DEBUG."""

    minor: str
    version: str | None
    path: str
    debug: bool


@dataclass(frozen=True)
class Start:
    """What a container starts.

    Attributes:
        argv: entry point and command.
        program: real path of the first of them, with a leading slash; None where it isn't there.
        python: minor version where it is Python; empty for a Python of unknown version; None otherwise.
        folders: of the application, with leading slashes.
    """

    argv: tuple[str, ...]
    program: str | None
    python: str | None
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """All of it."""

    system: Mapping[str, str]
    packages: tuple[Package, ...]
    pythons: tuple[Python, ...]
    torches: tuple[Torch, ...]
    libraries: tuple[Library, ...]
    machines: Mapping[str, int]
    start: Start


def take(overlay: Overlay, settings: Settings) -> Inventory:
    """Look through the files that a container sees.

    Args:
        overlay: the image's files.
        settings: what a container starts with.
    """
    libraries = tuple(_libraries(overlay.files))
    return Inventory(
        system=_system(overlay),
        packages=tuple(sorted(set(_packages(overlay.files)), key=_package_order)),
        pythons=tuple(_pythons(overlay)),
        torches=tuple(_torches(overlay.files, libraries)),
        libraries=libraries,
        machines=_machines(overlay.files),
        start=_start(overlay, settings),
    )


def _text(entry: Entry | None) -> str:
    return entry.head.decode(errors="replace") if entry is not None and entry.head else ""


def _system(overlay: Overlay) -> dict[str, str]:
    for path in ("etc/os-release", "usr/lib/os-release"):
        found = overlay.resolve(path)
        if found is not None and isinstance(found[1], Entry) and (text := _text(found[1])):
            return dict(_assignments(text))
    return {}


def _assignments(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.isidentifier():
            try:
                yield name, " ".join(shlex.split(value))
            except ValueError:
                yield name, value


def _package_order(package: Package) -> tuple[str, str, str, str]:
    return package.manager, package.name.lower(), package.version, package.where


_CONDA = re.compile(
    r"(?P<where>(.*/)?conda-meta)/(?P<name>[^/]+)-(?P<version>[^-/]+)-[^-/]+\.json$"
)
_METADATA = re.compile(r"(?P<where>.*)/[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO|egg-info)$")


def _packages(files: Mapping[str, Entry]) -> Iterable[Package]:
    for path, entry in files.items():
        if path.endswith(".json") and (found := _CONDA.match(path)):
            yield Package("conda", found["name"], found["version"], "/" + found["where"])
        elif entry.head is None:
            continue
        elif path.startswith("var/lib/dpkg/status"):
            yield from _stanzas(_text(entry), "dpkg", "Package", "Version", "/" + path)
        elif path == "lib/apk/db/installed":
            yield from _stanzas(_text(entry), "apk", "P", "V", "/" + path)
        elif found := _METADATA.match(path):
            head = HeaderParser().parsestr(_text(entry))
            if head["Name"] and head["Version"]:
                yield Package("pip", head["Name"], head["Version"], "/" + found["where"])


def _stanzas(text: str, manager: str, name: str, version: str, where: str) -> Iterable[Package]:
    for stanza in text.split("\n\n"):
        facts = dict(
            line.split(":", 1) for line in stanza.splitlines() if ":" in line and line[0] > " "
        )
        status = facts.get("Status", "installed").split()
        if name in facts and version in facts and status[-1:] == ["installed"]:
            yield Package(manager, facts[name].strip(), facts[version].strip(), where)


_STDLIB = re.compile(r"(?P<root>(.*/)?lib/python(?P<minor>3\.\d+))/os\.py$")
_PATCHLEVEL = re.compile(r'#define\s+PY_VERSION\s+"([^"]+)"')


def _pythons(overlay: Overlay) -> Iterable[Python]:
    for path in sorted(overlay.files):
        found = _STDLIB.match(path)
        if found is None or overlay.files[path].kind is not Kind.FILE:
            continue
        root, minor = found["root"], found["minor"]
        prefix = root.removesuffix(f"lib/python{minor}")
        match = _PATCHLEVEL.search(
            _text(overlay.files.get(f"{prefix}include/python{minor}/patchlevel.h"))
        )
        tag = f".cpython-{minor.replace('.', '')}d-"
        debug = any(tag in name for name in _names(overlay, f"{root}/lib-dynload"))
        yield Python(minor, match[1] if match else None, f"/{root}", debug)


def _names(overlay: Overlay, path: str) -> list[str]:
    node = overlay.find(path)
    return list(node.children) if isinstance(node, Folder) else []


#: Group → family → pattern of file names.
_FAMILIES: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (group, family, re.compile(pattern))
    for group, family, pattern in (
        *(
            ("cuda", name, rf"lib{name}(-[0-9a-f]{{8}})?\.so")
            for name in (
                "cublas", "cublasLt", "cudart", "cudnn", "cufft", "curand", "cusolver", "cusparse",
                "cusparseLt", "nccl", "nvrtc", "nvJitLink", "cupti", "cufile",
            )
        ),
        ("cuda", "cudnn parts", r"libcudnn_\w+(-[0-9a-f]{8})?\.so"),
        ("blas", "openblas", r"lib(scipy_)?openblas\w*(-[\w.]+)?\.so"),
        ("blas", "mkl", r"libmkl_(rt|core)\.so"),
        ("blas", "reference blas", r"lib(blas|lapack)\.so"),
        ("blas", "blis", r"libblis\S*\.so"),
        ("openmp", "openmp", r"lib(gomp|iomp5|omp)(-[0-9a-f]+)?\.so"),
        ("torch", "torch", r"lib(torch|c10)\w*\.so"),
    )
)  # fmt: skip


def _libraries(files: Mapping[str, Entry]) -> Iterable[Library]:
    seen: set[int] = set()
    for path in sorted(files):
        entry, name = files[path], path.rpartition("/")[2]
        if ".so" not in name or entry.kind is not Kind.FILE or id(entry) in seen:
            continue
        for group, family, pattern in _FAMILIES:
            if pattern.match(name):
                seen.add(id(entry))
                name_shown = name.split(".so")[0] if family in ("torch", "cudnn parts") else family
                yield Library(name_shown, group, "/" + path, entry.size, entry.layer, entry.crc)
                break


_TORCH = re.compile(r"(.*/)?torch/version\.py$")


def _torches(files: Mapping[str, Entry], libraries: tuple[Library, ...]) -> Iterable[Torch]:
    copies = [path for path in sorted(files) if _TORCH.match(path) and files[path].head is not None]
    for path in copies:
        constants = _constants(_text(files[path]))
        folder = f"/{path.removesuffix('version.py')}"
        own = tuple(
            one for one in libraries if one.group == "torch" and one.path.startswith(folder)
        )
        if not own and len(copies) == 1:  # a distribution keeps them among the system's libraries
            own = tuple(one for one in libraries if one.group == "torch")
        entries = [files[one.path[1:]] for one in own]
        gpu = [entry.gpu for entry in entries if entry.gpu is not None]
        cpu = [
            entry for one, entry in zip(own, entries, strict=True) if one.family == "libtorch_cpu"
        ]
        debug = constants.get("debug")
        yield Torch(
            path="/" + path,
            version=_string(constants.get("__version__")),
            cuda=_string(constants.get("cuda")),
            rocm=_string(constants.get("hip")) or _string(constants.get("rocm")),
            debug=debug if isinstance(debug, bool) else None,
            git=_string(constants.get("git_version")),
            linkage=_linkage(own, libraries),
            libraries=own,
            gpu=_union(gpu) if gpu else None,
            mkl=any(entry.mkl for entry in cpu) if cpu else None,
        )  # fmt: skip


def _union(codes: list[GpuCode]) -> GpuCode:
    whole = GpuCode()
    for code in codes:
        whole |= code
    return whole


def _linkage(own: tuple[Library, ...], libraries: tuple[Library, ...]) -> str:
    if not any(one.family == "libtorch_cpu" for one in own):
        return "no libtorch_cpu.so: static, or not there"
    if not any(one.family == "libtorch_cuda" for one in own):
        return "dynamic"
    outside = any(one.family in ("cublas", "cudnn") for one in libraries)
    return "dynamic, CUDA libraries " + ("beside it" if outside else "linked into it or not there")


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


#: A plain assignment of a module, annotated or not. Parsing it as Python would run into the parser's limits.
_ASSIGNMENT = re.compile(
    r"""^(\w+)(?:[ ]*:[^=\n]*)?[ ]*=[ ]*(?:(?P<quote>['"])(?P<text>[^'"\\\n]*)(?P=quote)|"""
    r"""(?P<word>True|False|None))[ ]*(?:\#.*)?$""",
    re.MULTILINE,
)


def _constants(source: str) -> dict[str, object]:
    """Constants of a module: texts, True, False, None; the last of a name counts."""
    words: dict[str, object] = {"True": True, "False": False, "None": None}
    return {
        found[1]: words[found["word"]] if found["word"] else found["text"]
        for found in _ASSIGNMENT.finditer(source)
    }


def _machines(files: Mapping[str, Entry]) -> dict[str, int]:
    """Architectures of the Python programs that are there, by their ELF headers."""
    counts: Counter[str] = Counter()
    for path, entry in files.items():
        head = entry.head
        if head is None or len(head) < 20 or head[:4] != b"\x7fELF" or "bin/python" not in path:
            continue
        order = "<" if head[5] == 1 else ">"
        number = struct.unpack_from(f"{order}H", head, 18)[0]
        counts[_ELF_MACHINES.get(number, f"machine {number}")] += 1
    return dict(counts)


def _argv(settings: Settings) -> tuple[str, ...]:
    words: list[str] = []
    for words_of in (settings.entrypoint, settings.command):
        words += _words(words_of) if isinstance(words_of, str) else words_of or ()
    return tuple(words)


def _words(line: str) -> list[str]:
    """A command's words as a shell splits them; at blanks where its quotes don't end."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


_PYTHON = re.compile(r"python(3(\.\d+)?)?$")


def _start(overlay: Overlay, settings: Settings) -> Start:
    argv = _argv(settings)
    if not argv:
        return Start((), None, None, ())
    search = settings.variables.get("PATH") or _DEFAULT_PATH
    work = settings.working_dir or "/"
    program = _program(overlay, argv[0], search, work)
    words = argv
    if len(argv) > 2 and argv[1] == "-c" and argv[0].endswith("sh"):
        words = tuple(argv[2].replace("exec ", "").split()) or argv
    python = None
    if any(_PYTHON.match(word.rpartition("/")[2]) for word in words[:1]):
        real = _program(overlay, words[0], search, work)
        found = re.search(r"python(3\.\d+)$", real or "")
        python = found[1] if found else ""
    folders = {
        folder
        for word in words[1 : _LOOKED_UP + 1]
        if (folder := _folder(overlay, word, work)) is not None
    }
    return Start(argv, program, python, tuple(sorted(folders)))


def _program(overlay: Overlay, word: str, path: str, work: str) -> str | None:
    places = (
        [posixpath.join(work, word)]
        if "/" in word
        else [f"{folder}/{word}" for folder in path.split(":")[:_LOOKED_UP] if folder]
    )
    for place in places:
        found = overlay.resolve(place)
        if found is not None and isinstance(found[1], Entry):
            return "/" + found[0]
    return None


def _folder(overlay: Overlay, word: str, work: str) -> str | None:
    """The folder of an application that a word of the command names."""
    found = None if word.startswith("-") else overlay.resolve(posixpath.join(work, word))
    if found is None or not found[0]:
        return None
    if isinstance(found[1], Folder):
        return "/" + found[0]
    folder = posixpath.dirname(found[0])
    return f"/{folder}" if found[0].endswith(".py") and folder else None


def copies(libraries: Iterable[Library], group: str) -> dict[str, list[Library]]:
    """Families of a group with more than one file, the largest file first."""
    families: defaultdict[str, list[Library]] = defaultdict(list)
    for one in libraries:
        if one.group == group:
            families[one.family].append(one)
    return {
        family: sorted(found, key=lambda one: (-one.size, one.path))
        for family, found in sorted(families.items())
        if len(found) > 1
    }
