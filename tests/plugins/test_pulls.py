"""Before a pull: which platform, and whether the plan's tag still points where it did."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from wattbench.config import Experiment
from wattbench.pulls import _moved_tag, _platform
from wattbench.registry import resolve
from wattbench.run import Run

from tests.plugins.live_chain import Shelf


def a_run(ref: str) -> Run:
    experiment = Experiment.model_validate(
        {
            "hosts": ["h1"],
            "workload": {"passes": [{"resolution": 64, "iterations": 2}]},
            "images": {"pip": {"ref": ref}},
            "reference": "pip",
        }
    )
    store: Any = Shelf()
    return Run(store, {"run_id": "run-1", "experiment": experiment.model_dump(mode="json")})


def test_a_tag_that_moved_since_the_plan_is_told_and_the_plan_s_digest_stays(
    registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ref = f"{registry.address}/moves:v1"
    registry.push_image("moves", "v1", {"a": b"1"})
    planned = resolve(ref).digest
    run = a_run(ref)
    assert _moved_tag(run, "pip", planned, {}) == {}
    now = registry.push_image("moves", "v1", {"a": b"2"})["digest"]
    with caplog.at_level(logging.WARNING):
        assert _moved_tag(run, "pip", planned, {}) == {"tag_moved_to": now}
    (line,) = [record.message for record in caplog.records]
    assert f"{ref} has moved to {now[:19]}" in line
    assert f"this run measures {planned[:19]}" in line
    assert resolve(f"{registry.address}/moves@{planned}").digest == planned


def test_a_digest_has_no_tag_to_move_and_a_tag_that_is_gone_moves_nothing(registry: Any) -> None:
    digest = registry.push_image("stays", "v1", {"a": b"1"})["digest"]
    pinned = a_run(f"{registry.address}/stays@{digest}")
    assert _moved_tag(pinned, "pip", "sha256:" + 64 * "0", {}) == {}
    assert _moved_tag(a_run(f"{registry.address}/stays:v2"), "pip", digest, {}) == {}


@pytest.mark.parametrize(
    ("machine", "platform"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("riscv64", "linux/riscv64")],
)
def test_the_platform_asked_for_is_the_host_s(machine: str, platform: str) -> None:
    assert _platform({"host": {"architecture": machine}}) == platform


def test_a_host_that_told_no_architecture_is_taken_for_the_usual_one() -> None:
    assert _platform({}) == "linux/amd64"
