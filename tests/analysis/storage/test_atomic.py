"""Files and folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from wattbench.analysis.storage.atomic import write_atomically, written_beside


def test_a_file_appears_with_its_content_and_nothing_else_stays(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "a.txt", "é")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "é".encode()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_atomically(target, "old")

    def interrupted() -> None:
        with written_beside(target) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    write_atomically(tmp_path / "key", "secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_an_existing_file_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "a.yaml"
    target.write_text("old")
    target.chmod(0o640)
    write_atomically(target, "new")
    assert (target.stat().st_mode & 0o777, target.read_text()) == (0o640, "new")


def test_a_folder_replaces_no_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")

    def write() -> None:
        with written_beside(tmp_path / "out") as beside:
            beside.mkdir()
            (beside / "new.txt").write_text("new")

    with pytest.raises(OSError, match="not empty"):
        write()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_path_beside_keeps_the_extension(tmp_path: Path) -> None:
    with written_beside(tmp_path / "base.tar") as beside:
        assert beside.suffix == ".tar"
        beside.touch()
    assert (tmp_path / "base.tar").exists()
