"""Debian packages that services need: installed as root, unpacked, or requested."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import written_beside
from wattbench.local.state_folder import StateFolder

#: Where commands are, root's included.
PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
_APT_ENV = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
#: Services come up side by side; only one of them may use apt.
_ONE_AT_A_TIME = threading.Lock()
_LOCK_TIMEOUT_S = 120


def find(command: str) -> str | None:
    """Where a command is, the folders for root's commands included."""
    return shutil.which(command, path=PATH)


def require(commands: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Makes commands available.

    Args:
        commands: command → the Debian package that has it.
        say: receives a line before something is installed.

    Raises:
        UserError: something is missing and we can't install it.
    """
    with _ONE_AT_A_TIME:
        _require(commands, say)


def _require(commands: Mapping[str, str], say: Callable[[str], None]) -> None:
    if os.geteuid() == 0 and shutil.which("dpkg") is not None:
        _finish_interrupted()
    missing = sorted({package for command, package in commands.items() if find(command) is None})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UserError(
            f"{', '.join(missing)} missing; install with: sudo apt-get install {' '.join(missing)}"
        )
    say(f"installing {' '.join(missing)}")
    _apt("update", "-qq")
    _apt("install", "-y", "-qq", "--no-install-recommends", *missing)


def unpacked(state: StateFolder, package: str, command: str, say: Callable[[str], None]) -> str:
    """A command from a package whose installation would start a system service.

    The package is unpacked below the state folder instead, and nothing is started.

    Returns:
        The path of the command: the installed one where there is one.
    """
    installed = find(command)
    if installed is not None:
        return installed
    target = state.folder("tools") / package
    binary = target / "usr" / "bin" / command
    if binary.exists():
        return str(binary)
    if shutil.which("apt-get") is None:
        raise UserError(f"{command} missing; install the package {package}")
    say(f"unpacking {package} below {state.path}/tools")
    download = state.folder("tools", "download", mode=0o777)
    with _ONE_AT_A_TIME:
        if os.geteuid() == 0:
            _apt("update", "-qq")
        _apt("download", package, cwd=download)
    (archive,) = download.glob(f"{package}_*.deb")
    with written_beside(target) as staging:
        _run("dpkg-deb", "-x", str(archive), str(staging))
    shutil.rmtree(download)
    return str(binary)


def _finish_interrupted() -> None:
    """Configures what an installation that was interrupted has only unpacked."""
    audit = subprocess.run(["dpkg", "--audit"], capture_output=True, text=True, env=_APT_ENV)
    if audit.stdout.strip():
        _run("dpkg", "--configure", "-a")


def _apt(*arguments: str, cwd: Path | None = None) -> None:
    # Waits for another apt (the system's own upgrades, another checkout) instead of failing on its
    # lock. The option does so for dpkg's, but not for that of the package lists.
    until = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            _run("apt-get", "-o", f"DPkg::Lock::Timeout={_LOCK_TIMEOUT_S}", *arguments, cwd=cwd)
            return
        except UserError as error:
            if "Unable to lock directory" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(1)


def _run(*argv: str, cwd: Path | None = None) -> None:
    result = subprocess.run(argv, env=_APT_ENV, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise UserError(f"{' '.join(argv[:4])} …: {lines[-1] if lines else result.returncode}")
