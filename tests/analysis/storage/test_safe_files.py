"""Files of a folder: regular ones inside it, and nothing else; documents within limits."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from wattbench.analysis.__main__ import main
from wattbench.analysis.audit import importers, mapping
from wattbench.analysis.audit.discover import discover
from wattbench.analysis.audit.mapping import Mapping
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage import documents, safe_files
from wattbench.analysis.storage.source import DamagedError, open_source

RAW = (
    b"Delta,Time,PACKAGE_ENERGY (J)\n0,1700000000000,1\n100,1700000000100,2\n100,1700000000200,3\n"
)


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A campaign with every kind of thing that a folder may hold."""
    outside = tmp_path / "outside"
    (outside / "results").mkdir(parents=True)
    (outside / "results" / "secret_1.csv").write_bytes(RAW)
    root = tmp_path / "campaign"
    (root / "a" / "results").mkdir(parents=True)
    (root / "a" / "results" / "a_1.csv").write_bytes(RAW)
    (root / "a" / "results" / "a_2.csv").symlink_to("a_1.csv")
    (root / "a" / "results" / "a_3.csv").symlink_to(outside / "results" / "secret_1.csv")
    (root / "a" / "results" / "zero.csv").symlink_to("/dev/zero")
    (root / "linked").symlink_to(outside)
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.csv"))
    return root


def test_an_audit_stays_inside_the_folder_and_names_what_leads_out(campaign: Path) -> None:
    found = discover(campaign, importers.installed(), Mapping())
    assert found.of(importers.RAW) == ["a/results/a_1.csv", "a/results/a_2.csv"]
    leaving = {path for path, why in found.unread.items() if why.startswith("a link that leaves")}
    assert leaving == {"a/results/a_3.csv", "a/results/zero.csv", "linked", "up"}
    assert {found.unread["pipe.csv"], found.unread["socket.csv"]} == {"not a regular file"}


def test_a_walk_yields_regular_files_inside(campaign: Path) -> None:
    assert dict(safe_files.walk(campaign)) == {f"a/results/a_{n}.csv": len(RAW) for n in (1, 2)}
    with pytest.raises(InputError, match="over 1 files"):
        list(safe_files.walk(campaign, limit=1))


@pytest.mark.parametrize(
    "name",
    ["a/results/a_3.csv", "a/results/zero.csv", "pipe.csv", "linked/results/secret_1.csv", "../outside/results/secret_1.csv"],
)  # fmt: skip
def test_nothing_else_is_opened(campaign: Path, name: str) -> None:
    with pytest.raises(safe_files.UnsafeFileError):
        safe_files.read_inside(campaign, name)
    with pytest.raises(DamagedError):
        open_source(campaign).read(name)


def test_a_file_over_the_limit_is_not_read(campaign: Path) -> None:
    with pytest.raises(safe_files.UnsafeFileError, match="over 0 MB"):
        safe_files.read_inside(campaign, "a/results/a_1.csv", limit=10)
    with pytest.raises(safe_files.UnsafeFileError, match="over 0 MB"):
        safe_files.read_regular(campaign / "a/results/a_1.csv", limit=10)


@pytest.mark.parametrize("command", ["report", "audit", "compare"])
def test_a_run_whose_document_is_a_device_or_a_link_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    root.mkdir()
    (root / "run.json").symlink_to("/dev/zero")
    (tmp_path / "else.json").write_text("{}")
    for target in ("/dev/zero", str(tmp_path / "else.json")):
        (root / "run.json").unlink()
        (root / "run.json").symlink_to(target)
        assert main([command, str(root), "--out", str(tmp_path / "out")]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) in (1, 2)


def test_a_deep_folder_costs_a_lookup_per_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path
    for _ in range(200):
        folder = folder / "d"
    folder.mkdir(parents=True)
    (folder / "x.csv").write_bytes(RAW)
    calls = []
    resolve = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda *a, **k: (calls.append(a), resolve(*a, **k))[1])
    found = discover(tmp_path, importers.installed(), Mapping(), tmp_path / "out")
    assert found.of(importers.RAW) == [(folder / "x.csv").relative_to(tmp_path).as_posix()]
    assert len(calls) <= 1


BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 31)
)
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 31))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "expand to more than 200,000 values"),
        (LAUGHS, "expand to more than 200,000 values"),
        ("a: &a [*a]", "contains itself"),
        ("[" * 300 + "]" * 300, "nested more than 64 deep"),
        ("a: " + "1:" * 5000 + "1", "digits"),
        ("a: 2026-99-99", "not YAML"),
        ("? [a, b]\n: c", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: " + "x" * (1 << 20), "too large"),
    ],
)
def test_a_yaml_bomb_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        mapping.load(path)


def test_aliases_in_moderation_are_fine() -> None:
    document = documents.parse_yaml(b"a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]", "x")
    assert document == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[" * 100_000, "nested more than 64 deep"),
        (json.dumps([[[0]]]).encode().replace(b"0", b"[" * 62 + b"]" * 62), "nested more than 64 deep"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1e999}', "out of range"),
        (b"9" * 5000, "no JSON"),
        (b"\xff", "no JSON"),
        (b" " * 2000, "too large"),
    ],
)  # fmt: skip
def test_json_beyond_the_limits_is_one_error(data: bytes, says: str) -> None:
    with pytest.raises(documents.DocumentError, match=says):
        documents.parse_json(data, "x.json", limit=1000 if says == "too large" else 1 << 20)
