"""One image to one host: platform, tag, bytes, seconds, joules, and whether its workload runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import STAND_IN, Here, Shelf
from wattbench.config.experiment import Experiment
from wattbench.container.registry import PATIENT_WAITS_S, resolve
from wattbench.errors import HostError
from wattbench.run.store_keys import file_key
from wattbench.run.stored_run import Run
from wattbench.steps.prepare import _resolve_images
from wattbench.steps.pull_image import _moved_tag, _platform, pull_image
from wattbench.workloads.builtin import PATH
from wattbench.workloads.program_bundle import bundle


def a_run(ref: str, idle_per: str = "image", **more: Any) -> Run:
    experiment = Experiment.model_validate(
        {
            "hosts": ["h1"],
            "workload": {"passes": [{"resolution": 64, "iterations": 2}]},
            "images": {"pip": {"ref": ref}},
            "reference": "pip",
            "protocol": {"idle_baseline": {"per": idle_per}},
        }
    )
    store: Any = Shelf()
    document = {"run_id": "run-1", "experiment": experiment.model_dump(mode="json")}
    return Run(store, document | more)


def test_a_tag_that_moved_since_the_plan_is_reported_and_the_plan_s_digest_stays(
    registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ref = f"{registry.address}/moves:v1"
    registry.push_image("moves", "v1", {"a": b"1"})
    planned = resolve(ref).digest
    run = a_run(ref)
    assert _moved_tag(run, "pip", planned, {}) is None
    now = registry.push_image("moves", "v1", {"a": b"2"})["digest"]
    with caplog.at_level(logging.WARNING):
        assert _moved_tag(run, "pip", planned, {}) == now
    (line,) = [record.message for record in caplog.records]
    assert f"{ref} has moved to {now[:19]}" in line
    assert f"this run measures {planned[:19]}" in line
    assert resolve(f"{registry.address}/moves@{planned}").digest == planned


def test_a_digest_has_no_tag_to_move_and_a_tag_that_is_gone_moves_nothing(registry: Any) -> None:
    digest = registry.push_image("stays", "v1", {"a": b"1"})["digest"]
    pinned = a_run(f"{registry.address}/stays@{digest}")
    assert _moved_tag(pinned, "pip", "sha256:" + 64 * "0", {}) is None
    assert _moved_tag(a_run(f"{registry.address}/stays:v2"), "pip", digest, {}) is None


@pytest.fixture
def away(spare_registry: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A registry that is down, and comes back when it has been waited for 20 s: all pauses."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if sum(pauses) >= 20 > sum(pauses[:-1]):
            monkeypatch.undo()
            spare_registry.start()

    spare_registry.start()
    spare_registry.push_image("x", "v1", {"a": b"1"})
    spare_registry.stop()
    monkeypatch.setattr("wattbench.container.registry.time.sleep", pause)
    return pauses


def test_a_registry_that_is_away_while_images_are_pulled_is_waited_for(
    spare_registry: Any, away: list[float]
) -> None:
    class ReachedError(HostError):
        """The host was asked, so that the registry has answered."""

    class AsFarAsThis:
        def forward_socket(self) -> Any:
            raise ReachedError("here", code="docker")

    run = a_run(f"{spare_registry.address}/x:v1", hosts={"h1": {}})
    run.document["experiment"]["images"]["pip"]["resolved_ref"] = f"{spare_registry.address}/x:v1"
    host: Any = AsFarAsThis()
    with pytest.raises(ReachedError):
        pull_image(run, host, "h1", "pip", {})
    assert sum(away) >= 20


def test_a_registry_that_is_away_when_the_run_begins_is_waited_for_once(
    spare_registry: Any, away: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = f"{spare_registry.address}/x:v1"
    two = a_run(ref).experiment.model_dump(mode="json")
    two["images"] |= {"other": {"ref": ref}}
    found, missing = _resolve_images(Experiment.model_validate(two), {})
    assert set(found) == {"pip", "other"}
    assert not missing
    waited = list(away)
    spare_registry.stop()
    monkeypatch.setattr("wattbench.container.registry.time.sleep", away.append)
    found, missing = _resolve_images(Experiment.model_validate(two), {})
    assert not found
    assert all("unreachable" in why for why in missing.values())
    assert away[len(waited) :] == list(PATIENT_WAITS_S)


@pytest.mark.parametrize(
    ("machine", "platform"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("riscv64", "linux/riscv64")],
)
def test_the_platform_asked_for_is_the_host_s(machine: str, platform: str) -> None:
    assert _platform({"host": {"architecture": machine}}) == platform


def test_a_host_that_reports_no_architecture_is_taken_for_the_usual_one() -> None:
    assert _platform({}) == "linux/amd64"


# ── a whole pull, by this machine's Docker ──────────────────────────────────────────────────────


class HereWithDocker(Here):
    """A worker host whose Docker is this machine's."""

    @contextmanager
    def forward_socket(self) -> Iterator[str]:
        yield "/var/run/docker.sock"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WATTBENCH_METER_CONFIG", "/nonexistent")
    monkeypatch.setenv("WATTBENCH_METER_FAULT", "cpus:2,idle_w:40,core_w:0,dram_core_w:0")
    here = HereWithDocker(tmp_path / "spool")
    here.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
    return here


def pulled(registry: Any, name: str, idle_per: str) -> Run:
    """A run whose only image was pushed and resolved."""
    ref = f"{registry.address}/wattbench-test/{name}:v1"
    meter = {"kind": "energibridge", "interval_ms": 100, "command": [str(STAND_IN)]}
    run = a_run(ref, idle_per, hosts={"h1": {"config": {"ssh_conn_id": "x", "meter": meter}}})
    found = resolve(ref)
    run.document["experiment"]["images"]["pip"] |= {
        "resolved_ref": found.ref_by_digest, "digest": found.digest,
    }  # fmt: skip
    run.document["seed"] = "1"
    run.document["workload_files"] = {"pip": {PATH: bundle().sha256}}
    run.store.put(file_key(run.run_id, bundle().sha256), bundle().content)
    return run


@pytest.mark.docker
@pytest.mark.parametrize(
    ("idle_per", "said"),
    [
        (
            "host",
            r'its workload failed: .*"python3": executable file not found.*needs Python 3.9 or later',
        ),
        (
            "image",
            r'idle trials can\'t run: .*"sleep": executable file not found.*needs \'sleep\' for them',
        ),
    ],
)
def test_an_image_without_what_a_trial_starts_is_metered_pulled_and_refused(
    host: Any, registry: Any, idle_per: str, said: str
) -> None:
    import docker

    config = {"Entrypoint": ["python3", "/opt/wattbench/workload"]}
    files = {"etc/motd": os.urandom(200_000)}
    registry.push_image(f"wattbench-test/empty-{idle_per}", "v1", files, config=config)
    run = pulled(registry, f"empty-{idle_per}", idle_per)
    ref = str(run.image_ref("pip"))
    try:
        for _ in range(2):  # the second try of a task finds the image and keeps what the first took
            with pytest.raises(HostError, match=said) as refused:
                pull_image(run, host, "h1", "pip", {})
            assert str(refused.value).startswith("images.pip: ")
            pull = run.pulls("h1")["pip"]
            assert pull["error"] == str(refused.value)
            assert (pull["layers"], pull["attempts"]) == (1, 1)
            assert pull["bytes"] > 200_000
            energy = pull["energy"]
            assert energy["window_s"] >= pull["seconds"]
            assert energy["package_j"] == pytest.approx(40 * energy["window_s"], rel=0.05)
            assert pull["provenance"]["entrypoint"] == config["Entrypoint"]
    finally:
        docker.from_env().images.remove(ref, force=True)
    assert host.call("list", {})["attempts"] == []
