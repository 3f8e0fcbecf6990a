"""The check of a load host and its attempts, with real agents in two spools of this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import Here, Shelf
from wattbench.config.experiment import Experiment
from wattbench.errors import HostError
from wattbench.run import host_claims
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run
from wattbench.steps.load_host import check_load_host, load_host_of, own_attempt
from wattbench.worker.attempt_spec import attempt_spec
from wattbench.workloads import workload_of
from wattbench.workloads.program_bundle import load_bundle


class There(Here):
    """A host whose clock is 2 s ahead of the controller's."""

    def clock_offset_s(self) -> float:
        return 2.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def run_with(port: int, cpuset: str | None = None, **host: Any) -> Run:
    """A run as its first task leaves it, in a store in memory."""
    origin = {"host": "load-1", "port": port} | ({"cpuset": cpuset} if cpuset else {})
    experiment = Experiment.model_validate(
        {
            "hosts": ["h1"],
            "workload": {
                "kind": "serve", "serve": {"port": 8000},
                "load": {
                    "request": {"path": "/"}, "steps": [{"concurrency": 1, "requests": 1}],
                    "from": origin,
                },
            },
            "images": {"a": {"ref": "r.example/a:1"}},
            "reference": "a",
        }
    )  # fmt: skip
    store: Any = Shelf()
    settings = experiment.workload_of("a")
    document: Any = {
        "run_id": "run-1", "dag_id": "d", "dag_run_id": "r", "plan": {"h1": []}, "seed": "s",
        "experiment": experiment.model_dump(mode="json"),
        "hosts": {"h1": {"config": {"ssh_conn_id": "x", "address": "127.0.0.1"} | host}},
        "workload_files": {"a": dict(workload_of(settings).files(settings))},
    }  # fmt: skip
    store.put(f"runs/run-1/files/{load_bundle().sha256}", load_bundle().content)
    return Run(store, document)


@pytest.fixture
def hosts(tmp_path: Path) -> tuple[Any, Any]:
    """The measured host and the load host."""
    return Here(tmp_path / "spool"), There(tmp_path / "load-spool")


def test_what_the_check_finds_of_a_load_host_is_kept_with_the_measured_one(
    hosts: tuple[Any, Any],
) -> None:
    host, other = hosts
    port = free_port()
    run = run_with(port)
    check_load_host(run, host, "h1", other, "load-1")
    document = run.host_document("h1")
    assert document is not None
    found = document["load"]
    assert (found["host"], found["address"], found["ports"], found["peer"]) == (
        "load-1", "127.0.0.1", [port], "127.0.0.1",
    )  # fmt: skip
    assert found["clock_offset_s"] == 2.0
    assert found["generator_sha256"] == load_bundle().sha256
    assert (
        found["agent_sha256"]
        == other.call("facts", {"docker": False, "sample_s": 0})["agent_sha256"]
    )
    assert run.load_address("h1") == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.slow
def test_a_port_that_is_in_use_is_named_by_the_check(hosts: tuple[Any, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HostError) as error:
            check_load_host(run_with(port), *with_names(hosts))
    assert error.value.code == "port-closed"
    assert f"127.0.0.1 port {port} can't be opened: Address already in use" in str(error.value)


def with_names(hosts: tuple[Any, Any]) -> tuple[Any, str, Any, str]:
    return hosts[0], "h1", hosts[1], "load-1"


def test_one_machine_by_two_names_is_refused(hosts: tuple[Any, Any]) -> None:
    run = run_with(free_port())
    facts = hosts[0].call("facts", {"docker": False, "sample_s": 0})
    run.write_host_document("h1", {"facts": {"host": {"boot": facts["host"]["boot"]}}})
    with pytest.raises(HostError, match="the load host load-1 and h1 are one machine") as error:
        check_load_host(run, *with_names(hosts))
    assert error.value.code == "load-host"


def test_cpus_that_the_load_host_lacks_are_refused(hosts: tuple[Any, Any]) -> None:
    with pytest.raises(HostError) as error:
        check_load_host(run_with(free_port(), "4095"), *with_names(hosts))
    assert "the load host load-1 is not fit: images.a: workload.load.from.cpuset: CPU 4095" in str(
        error.value
    )


def test_an_address_without_a_number_is_refused(hosts: tuple[Any, Any]) -> None:
    run = run_with(free_port(), address="no-such-host.invalid")
    with pytest.raises(HostError, match=r"'no-such-host\.invalid' is not an address") as error:
        check_load_host(run, *with_names(hosts))
    assert error.value.code == "load-host"


def spec(run: Run, attempt: int) -> Any:
    return attempt_spec(
        run.experiment, run.host_config("h1"), run_id="run-1", host_name="h1",
        trial=PlannedTrial(1, 1, "workload", "a"), attempt=attempt, ref="r.example/a@sha256:1",
        files=run.files("a"), rest={}, seed="s", address="127.0.0.1",
    )  # fmt: skip


def test_a_check_in_mid_window_finds_the_attempt_that_has_the_port(hosts: tuple[Any, Any]) -> None:
    _, other = hosts
    run = run_with(free_port())
    load = load_host_of(run, lambda _, work: work(other))
    assert load is not None
    assert own_attempt(run, other) is None
    load.prepare("a")
    load.ask(spec(run, 1))
    assert own_attempt(run, other) == "run-1/load-1/001-a/1"
    other.call("cleanup", {"owner": "run-1"})
    assert own_attempt(run, other) is None


def test_a_load_is_asked_for_once_and_an_earlier_one_is_removed(hosts: tuple[Any, Any]) -> None:
    _, other = hosts
    run = run_with(free_port())
    load = load_host_of(run, lambda _, work: work(other))
    assert load is not None
    load.prepare("a")
    assert host_claims.own_claim(run, "load-1") is not None
    load.ask(spec(run, 1))
    load.ask(spec(run, 1))  # a repeated step attaches
    assert [one["id"] for one in other.call("list", {})["attempts"]] == ["run-1/load-1/001-a/1"]
    load.ask(spec(run, 2))
    assert [one["id"] for one in other.call("list", {})["attempts"]] == ["run-1/load-1/001-a/2"]
    assert other.call("cleanup", {"owner": "run-1"})["attempts"] == ["run-1/load-1/001-a/2"]


def test_a_load_host_that_another_run_has_is_refused_by_name(hosts: tuple[Any, Any]) -> None:
    _, other = hosts
    other.call("lease", {"action": "take", "owner": "another", "ttl_s": 600})
    run = run_with(free_port())
    load = load_host_of(run, lambda _, work: work(other))
    assert load is not None
    with pytest.raises(HostError, match=r"the load host load-1: .*held by another") as error:
        load.prepare("a")
    assert error.value.code == "leased"
