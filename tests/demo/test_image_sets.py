"""Sets of images: what belongs to each, what stands in where, and that the exit code is honest."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo import image_sets
from demo.base_image import Bases
from demo.checkout import Checkout, here
from demo.timings import Timings
from images.build import BaseError, BuiltImage
from images.context import names
from wattbench.analysis.model.errors import UserError

REFUSED = "images: base debian:bookworm-slim can't be pulled: dial tcp: no such host"


def test_the_sets_hold_every_image_once_and_the_demo_s_are_among_the_twins() -> None:
    twins, paper, demo, examples = (image_sets.members(w, here()) for w in image_sets.SETS)
    assert sorted([*twins, *paper, *examples]) == names()
    assert set(paper) == set(image_sets.STUDY_GB)
    assert set(demo) <= set(twins)
    assert demo


def test_an_unknown_set_is_one_line_with_what_there_is() -> None:
    with pytest.raises(
        UserError, match=r"^images: 'all' is not a set; SET is one of twins, paper, demo, examples$"
    ):
        image_sets.members("all", here())


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Runs a set with a builder that is handed in, against a registry that only listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    monkeypatch.setattr(image_sets.docker_engine, "ensure", lambda *_: None)
    monkeypatch.setattr(image_sets.base_image, "ensure", lambda *_: Bases("own:1", "own:1"))
    monkeypatch.setattr(image_sets, "_expect_registry", lambda _: None)
    source = tmp_path / "config" / "experiments"
    source.mkdir(parents=True)

    def run(which: str, build: Any) -> tuple[int, list[str]]:
        said: list[str] = []
        monkeypatch.setattr(image_sets, "build", build)
        code = image_sets.make(
            Checkout(tmp_path), which, f"127.0.0.1:{port}", said.append, Timings(0.0)
        )
        return code, said

    yield run
    listener.close()


def built(name: str, base: str, registry: str) -> BuiltImage:
    ref = f"{registry}/wattbench/{name}:1"
    return BuiltImage(name, base, ref, "sha256:d", 9_110_000_000, 1.0, False)


def test_where_no_base_can_be_had_twins_stand_on_a_stand_in_that_is_announced(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def build(name: str, *, base: str, registry: str, **_: Any) -> BuiltImage:
        asked.append(base)
        if base != "own:1":
            raise BaseError(REFUSED)
        return built(name, base, registry)

    code, said = made("twins", build)
    assert code == 0
    assert asked.count("debian:bookworm-slim") == 1  # asked once, not for each image
    assert any("no such host: building on this machine's own Debian instead" in s for s in said)
    out = capsys.readouterr().out
    assert "on own:1, standing in for debian:bookworm-slim" in out
    assert "10 of 10 of the set twins built and pushed" in out
    document = json.loads((tmp_path / "var" / "images" / "twins.json").read_text())
    assert {image["digest"] for image in document["images"]} == {"sha256:d"}


def test_the_study_s_images_have_no_stand_in_and_the_exit_code_says_so(
    made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(name: str, *, base: str, registry: str, **_: Any) -> BuiltImage:
        if base != "ubuntu:22.04":
            raise BaseError(f"images: base {base} can't be pulled: no such host")
        return built(name, base, registry)

    code, _ = made("paper", build)
    assert code == 1
    lines = capsys.readouterr().out.splitlines()
    (ubuntu,) = [line for line in lines if line.startswith("paper-ubuntu")]
    assert "9.11 GB (the study's: 9.11 GB)" in ubuntu
    (nvcr,) = [line for line in lines if line.startswith("paper-nvcr")]
    assert "not built: base nvcr.io/nvidia/pytorch:24.12-py3 can't be pulled: no such host" in nvcr
    assert "nothing stands in for it: build this one where it can be pulled" in nvcr
    assert lines[-1].startswith("images: 1 of 5 of the set paper built and pushed")


def test_an_image_that_fails_leaves_the_others_to_be_built(made: Any) -> None:
    def build(name: str, *, base: str, registry: str, **_: Any) -> BuiltImage:
        if name == "slim":
            raise UserError("slim: docker build failed at 3/9")
        return built(name, base, registry)

    code, said = made("twins", build)
    assert code == 1
    assert any(line.endswith("slim: not built: slim: docker build failed at 3/9") for line in said)


def test_a_registry_that_does_not_answer_is_reported_before_anything_is_built() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match=f"no registry answers at 127.0.0.1:{port}; start it"):
        image_sets._expect_registry(f"127.0.0.1:{port}/team")
