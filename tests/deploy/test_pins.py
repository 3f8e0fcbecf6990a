"""Pinning by digest, against a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.pins import pin
from deploy.stack import COMPOSE_FILE, ROOT
from tests.wattbench.conftest import TestRegistry, registry_binary
from wattbench.analysis.model.errors import UserError

__all__ = ["registry_binary"]  # a fixture


@pytest.fixture
def registry(registry_binary: str, tmp_path: Path) -> Iterator[TestRegistry]:
    running = TestRegistry(registry_binary, tmp_path)
    running.start()
    yield running
    running.stop()


def test_tags_get_the_digest_they_have_now_and_a_later_one_replaces_it(
    registry: TestRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = f"{registry.address}/team/database:17.1"
    first = registry.push_image("team/database", "17.1", {"a": b"1"})["digest"]
    compose, dockerfile = tmp_path / "compose.yml", tmp_path / "Dockerfile"
    compose.write_text(
        f"services:\n  db:\n    image: {ref}\n  ours:\n    image: ${{OURS:-x:1}}\n"
        "  gone:\n    image: 127.0.0.1:1/team/gone:1\n"
    )
    dockerfile.write_text(f"ARG BASE={ref}\nFROM ${{BASE}}\n")
    assert pin([compose, dockerfile]) == 2
    assert f"    image: {ref}@{first}\n" in compose.read_text()
    assert "image: ${OURS:-x:1}\n" in compose.read_text()
    assert dockerfile.read_text() == f"ARG BASE={ref}@{first}\nFROM ${{BASE}}\n"
    said = capsys.readouterr().err
    assert "left as they are: 127.0.0.1:1/team/gone:1 (" in said
    assert said.count("\n") == 1
    second = registry.push_image("team/database", "17.1", {"a": b"2"})["digest"]
    assert pin([compose, dockerfile]) == 2
    assert f"    image: {ref}@{second}\n" in compose.read_text()


def test_where_no_registry_answers_one_line_says_so_and_nothing_changes(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services:\n  a:\n    image: 127.0.0.1:1/a:1\n")
    with pytest.raises(
        UserError, match=r"no registry answers, left as they are: 127\.0\.0\.1:1/a:1"
    ):
        pin([file])
    assert file.read_text() == "services:\n  a:\n    image: 127.0.0.1:1/a:1\n"


def test_all_images_of_others_are_found(tmp_path: Path) -> None:
    """In copies of the real files, with an address at which nothing answers before each name."""
    copies = []
    for file in (COMPOSE_FILE, ROOT / "deploy" / "Dockerfile"):
        copy = tmp_path / file.name
        text = file.read_text().replace("    image: ", "    image: 127.0.0.1:1/")
        copy.write_text(text.replace("ARG BASE=", "ARG BASE=127.0.0.1:1/"))
        copies.append(copy)
    with pytest.raises(UserError) as refused:
        pin(copies)
    for name in ("postgres", "chrislusf/seaweedfs", "valkey/valkey", "python"):
        assert f"127.0.0.1:1/{name}:" in str(refused.value)
