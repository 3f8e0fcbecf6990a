"""`python -m deploy` with what people get wrong: one line, nothing overwritten."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import environment
from deploy.stack import ROOT


def deploy(file: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "deploy", *arguments, "--env-file", str(file)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    environment.make(tmp_path / "env")
    return tmp_path / "env"


def test_secrets_are_for_their_owners_eyes_and_differ_each_time(tmp_path: Path) -> None:
    code, said = deploy(tmp_path / "a", "secrets")
    assert (code, said.count("\n")) == (0, 1)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    deploy(tmp_path / "b", "secrets")
    one, other = environment.read(tmp_path / "a"), environment.read(tmp_path / "b")
    secret = {name for name in one if name.endswith(("PASSWORD", "KEY", "SECRET"))}
    assert len(secret) == 8
    assert all(one[name] != other[name] and len(one[name]) >= 16 for name in secret)
    assert not any(value in said for name, value in one.items() if name in secret)


def test_secrets_are_never_overwritten(file: Path) -> None:
    before = file.read_bytes()
    code, said = deploy(file, "secrets")
    assert code == 2
    assert (
        said
        == f"deploy: {file} is there already and stays as it is; a deployment's secrets are made once\n"
    )
    assert file.read_bytes() == before


def test_without_secrets_nothing_starts(tmp_path: Path) -> None:
    code, said = deploy(tmp_path / "env", "up")
    assert (code, said) == (
        2,
        f"deploy: {tmp_path / 'env'} is missing; make it with: make secrets\n",
    )


def test_a_missing_secret_is_named(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("JWT_SECRET", "POSTGRES_PASSWORD"))]
    file.write_text("".join(kept))
    code, said = deploy(file, "up")
    assert code == 2
    assert said.startswith(f"deploy: {file} lacks JWT_SECRET, POSTGRES_PASSWORD; ")
    assert said.count("\n") == 1


def test_secrets_that_others_can_read_are_refused(file: Path) -> None:
    file.chmod(0o644)
    code, said = deploy(file, "up")
    assert (code, said) == (2, f"deploy: {file} can be read by others; run: chmod 600 {file}\n")


def test_an_occupied_port_is_named_before_anything_starts(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with file.open("a") as out:
            out.write(f"WATTBENCH_PORT={port}\nCOMPOSE_PROJECT_NAME=wattbench-test-port\n")
        code, said = deploy(file, "up")
    assert code == 2
    if "neither" not in said:  # without Compose that is said first
        assert said.startswith(f"deploy: port {port} of 127.0.0.1 is occupied; ")
    assert said.count("\n") == 1


def test_a_backup_is_never_written_over_something(file: Path, tmp_path: Path) -> None:
    code, said = deploy(file, "backup", str(tmp_path))
    assert (code, said) == (
        2,
        f"deploy: {tmp_path} is there already; name a new folder for the backup\n",
    )


def test_what_is_no_backup_is_not_restored(file: Path, tmp_path: Path) -> None:
    code, said = deploy(file, "restore", str(tmp_path / "nothing"))
    assert code == 2
    assert said.startswith(f"deploy: {tmp_path / 'nothing'} is not a backup: ")
    assert said.count("\n") == 1
