"""What the operating system refuses is one line with place and next action, from every command."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo import cli as demo
from demo.checkout import Checkout
from wattbench.analysis.model.errors import refused_by_system
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.cli import command_line


def test_a_full_disk_is_named_with_the_file_that_did_not_fit(tmp_path: Path) -> None:
    full = Path("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(OSError, match="No space left") as caught:
        full.write_text("x")
    assert refused_by_system(caught.value) == (
        "No space left on device; free space on its disk, then call this again"
    )
    caught.value.filename = tmp_path / "ports.json"
    assert refused_by_system(caught.value).startswith(f"{tmp_path}/ports.json: No space left")


def test_another_error_of_the_system_stays_our_defect() -> None:
    error = OSError(errno.EBADF, "Bad file descriptor")
    with pytest.raises(OSError, match="Bad file descriptor"):
        refused_by_system(error)


def test_a_write_that_fails_names_its_target_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777: opened(
        "/dev/full" if ".json" in str(path) else path, flags & ~(os.O_CREAT | os.O_EXCL), mode
    ))  # fmt: skip
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "ports.json", "{}")
    assert caught.value.filename == str(tmp_path / "ports.json")
    assert list(tmp_path.iterdir()) == []


def test_a_demo_is_refused_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "here", lambda: Checkout(tmp_path))
    free = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert demo.main(["up"]) == 2
    said = capsys.readouterr().err
    assert said == f"demo: {tmp_path}/var/demo has 1.0 GB free of 2.1 GB needed; free space\n"


@pytest.mark.parametrize("command", ["demo", "wattbench"])
def test_a_file_in_the_place_of_a_folder_is_one_line_from_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    place = tmp_path / "file"
    place.touch()
    if command == "demo":
        monkeypatch.setattr(demo, "here", lambda: Checkout(place))
        code = demo.main(["up"])
    else:
        monkeypatch.setenv("XDG_STATE_HOME", str(place))
        monkeypatch.delenv("WATTBENCH_AIRFLOW_URL", raising=False)
        code = command_line.main(["up"])
    said = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(said) == 1, said
    assert str(place) in said[-1]
    assert ";" in said[-1]


#: Root may read everything: without these two capabilities it is refused as everyone is.
AS_EVERYONE = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("command", ["doctor", "up", "down", "hosts", "status"])
def test_a_state_folder_of_another_user_is_one_line(command: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "wattbench").mkdir(parents=True)
    state.chmod(0)
    env = {k: v for k, v in os.environ.items() if not k.startswith("WATTBENCH")}
    code = "import sys; from wattbench.cli.command_line import main; sys.exit(main(sys.argv[1:]))"
    try:
        done = subprocess.run(
            [*(AS_EVERYONE if os.geteuid() == 0 else ()), sys.executable, "-c", code, command],
            env=env | {"XDG_STATE_HOME": str(state)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        state.chmod(0o755)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"wattbench: {state}/wattbench")
    assert "Permission denied; correct its owner and permissions" in line
