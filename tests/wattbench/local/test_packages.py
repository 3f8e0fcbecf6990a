"""apt is used by one at a time, and another's use of it is waited for."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wattbench.analysis.model.errors import UserError
from wattbench.local import packages

# Fails on a held lock as apt-get does, whatever DPkg::Lock::Timeout says.
_APT = """#!/bin/sh
exec 9>>"$LISTS/lock"
flock -n 9 || { echo "E: Unable to lock directory $LISTS/" >&2; exit 100; }
echo begin >> "$LISTS/log"; for a in "$@"; do [ "$a" = fails ] && { echo "E: no such package" >&2; exit 100; }; done
sleep 0.1; echo end >> "$LISTS/log"
"""


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of package lists of an apt-get that is first on the path."""
    command = tmp_path / "bin" / "apt-get"
    command.parent.mkdir()
    command.write_text(_APT)
    command.chmod(0o755)
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "lock").touch()
    path = f"{command.parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(packages, "_APT_ENV", {**os.environ, "LISTS": str(folder), "PATH": path})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def test_two_parts_of_the_bed_install_one_after_the_other(lists: Path) -> None:
    def install(package: str) -> None:
        packages.require({f"no-such-command-{package}": package}, lambda _: None)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(install, ("one", "two")))
    assert (lists / "log").read_text().split() == ["begin", "end"] * 4  # update, install; twice


def test_another_programs_lock_is_waited_for(lists: Path) -> None:
    said: list[str] = []
    with (lists / "lock").open() as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = pool.submit(packages.require, {"no-such-command": "one"}, said.append)
        with pytest.raises(TimeoutError):
            done.result(timeout=0.5)
        fcntl.flock(held, fcntl.LOCK_UN)
        done.result(timeout=30)
    assert said == ["installing one"]


def test_any_other_failure_is_one_line_at_once(lists: Path) -> None:
    with pytest.raises(UserError, match=r"apt-get .*: E: no such package"):
        packages.require({"no-such-command": "fails"}, lambda _: None)
