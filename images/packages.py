"""Python packages for builds without an index: copied in installed, or served as wheels."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import written_beside

from .context import FOLDER

_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_VAR = FOLDER.parent / "var" / "images"
STORE = _VAR / "site"
#: Wheels are served at one of these.
_PORTS = range(20_000, 30_000)


def local_wheels() -> str | None:
    """The folder of wheels that this machine installs from; a build container does not see it."""
    places = f"{os.environ.get('UV_FIND_LINKS', '')} {os.environ.get('PIP_FIND_LINKS', '')}"
    return next((place for place in places.replace(",", " ").split() if Path(place).is_dir()), None)


def install(requirements: Path, python: str, say: Callable[[str], None]) -> Path:
    """A folder with the requirements installed, trimmed, with bytecode; made when missing.

    Args:
        requirements: pinned, one a line.
        python: the version they are to run on, such as 3.11.
        say: receives a line before anything is downloaded.

    Returns:
        The folder. Its name is a hash of requirements, Python and recipe.

    Raises:
        UserError: uv could not install them.
    """
    recipe = (requirements.read_bytes(), python.encode(), (FOLDER / "trim.sh").read_bytes())
    target = STORE / hashlib.sha256(b"\0".join(recipe)).hexdigest()[:16]
    if target.is_dir():
        return target
    say(f"installing {' '.join(requirements.read_text().split())} for Python {python}")
    try:
        with written_beside(target) as staging:
            _install(requirements, python, staging)
    except OSError:
        if not target.is_dir():  # else another process was quicker
            raise
    return target


def _install(requirements: Path, python: str, folder: Path) -> None:
    wheels = local_wheels()
    argv = [_uv(), "pip", "install", "--quiet", "--target", str(folder)]
    argv += ["--python-version", python, "--only-binary", ":all:", "--link-mode", "copy"]
    argv += ["--find-links", wheels] if wheels else ["--extra-index-url", _CPU_INDEX]
    argv += ["--index-strategy", "unsafe-best-match", "--requirements", str(requirements)]
    _run(argv, f"installing {requirements.name} of {requirements.parent.name}")
    if (folder / "torch").is_dir():
        _run(["sh", str(FOLDER / "trim.sh"), str(folder)], "trimming torch")
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        # Bytecode of another Python would be useless; then the build itself compiles.
        # torch ships a file in the syntax of Python 3.12.
        argv = [sys.executable, "-m", "compileall", "-q", "-j", "0", "-x", "py312_", str(folder)]
        _run(argv, "compiling bytecode")


@contextmanager
def served(
    requirements: list[Path],
    python: str,
    say: Callable[[str], None],
    with_dependencies: bool = True,
) -> Iterator[str]:
    """Serves the wheels of requirements to builds on this machine's network.

    Args:
        requirements: files, pinned, one a line.
        python: the version they are to run on, such as 3.11.
        say: receives a line before anything is downloaded.
        with_dependencies: also of what the files don't name.

    Yields:
        The address of a page of links, as pip's and uv's `--find-links` take it.

    Raises:
        UserError: pip could not download them.
    """
    texts = b"\0".join(path.read_bytes() for path in requirements)
    alone = [] if with_dependencies else ["--no-deps"]
    key = hashlib.sha256(texts + " ".join([python, *alone]).encode()).hexdigest()[:16]
    target = _VAR / "wheels" / key
    if not target.is_dir():
        say(f"downloading wheels of {', '.join(path.name for path in requirements)}")
        with written_beside(target) as staging:
            argv = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(staging)]
            argv += ["--only-binary", ":all:", "--python-version", python]
            argv += [] if local_wheels() else ["--extra-index-url", _CPU_INDEX]
            argv += alone
            for path in requirements:
                argv += ["--requirement", str(path)]
            _run(argv, "downloading wheels")
    port = _PORTS[int(key, 16) % len(_PORTS)]
    with _server(port, partial(_Wheels, directory=str(target))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _server(port: int, handler: Callable[..., _Wheels]) -> ThreadingHTTPServer:
    """At the same port as ever, if it is free.

    The address is an argument of the build, and Docker takes a layer from its cache only where all
    arguments are as they were.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError:
        return ThreadingHTTPServer(("127.0.0.1", 0), handler)


class _Wheels(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the base
        """Says nothing: pip reports what it fetches."""


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise UserError("images: uv is missing; run make setup, or pip install uv")
    return found


def _run(argv: list[str], what: str) -> None:
    result = subprocess.run(argv, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise UserError(f"images: {what} failed: {' '.join(lines)[-300:] or result.returncode}")
