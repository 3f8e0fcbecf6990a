"""Servers as real containers under a real load, on this machine's Docker; all of it is gone at every end."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_docker import base_image, containers, docker, networks, until_running
from tests.support.servers import SERVER
from wattbench.worker.agent import limits
from wattbench.worker.agent.processes import processes_of
from wattbench.workloads.program_bundle import load_bundle


@pytest.fixture(scope="module")
def image() -> str:
    return base_image()


def shipped(agent: Any, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    (agent.spool / limits.FILES).mkdir(exist_ok=True)
    (agent.spool / limits.FILES / sha256).write_bytes(content)
    return sha256


PLAN: dict[str, Any] = {
    "ready_path": "/health", "ready_timeout_s": 20, "api": "http",
    "request": {"path": "/predict", "json": {"x": 1}}, "warmup": 3, "warmup_concurrency": 1,
    "steps": [
        {"name": "c2", "concurrency": 2, "requests": 30},
        {"name": "r50", "rate_per_s": 50.0, "seconds": 0.5, "arrivals": "uniform"},
    ],
    "status": 200, "json": "$.label", "timeout_s": 10, "strict": False, "cpus": [], "seed": "7",
}  # fmt: skip


@pytest.fixture
def served(leased: Any, request: pytest.FixtureRequest) -> Any:
    """Makes the spec of a server that does what is asked, under a load."""

    def make(plan: dict[str, Any] | None = None, **does: Any) -> dict[str, Any]:
        changes = does.pop("spec", {})
        image: str = request.getfixturevalue("image")
        spec: dict[str, Any] = leased.spec(
            ["/bench/server.py", json.dumps(does)],
            runtime="docker", image={"name": "base", "ref": image}, entrypoint="python3",
            files={"/bench/server.py": shipped(leased, SERVER.encode())}, times_lines=True,
            serve={
                "port": 8000, "generator": shipped(leased, load_bundle().content), "requests": None,
                "plan": PLAN | (plan or {}),
            },
        )  # fmt: skip
        return spec | changes

    return make


def events(agent: Any, spec: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (agent.attempt_folder(spec) / "workload.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows(agent: Any, spec: dict[str, Any]) -> list[dict[str, str]]:
    with (agent.attempt_folder(spec) / limits.REQUESTS_FILE).open() as file:
        return list(csv.DictReader(file))


def assert_all_gone(agent: Any, spec: dict[str, Any]) -> None:
    assert containers(agent.spool) == ""
    assert networks(agent.spool) == ""
    assert processes_of(None, str(agent.attempt_folder(spec))) == []


def until_loaded(agent: Any, spec: dict[str, Any], event: str = "steady:") -> None:
    log, deadline = agent.attempt_folder(spec) / "stdout.log", time.monotonic() + 30
    while event not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, "the load did not begin"
        time.sleep(0.05)


LONG = {"steps": [{"name": "r5", "rate_per_s": 5.0, "seconds": 600.0, "arrivals": "uniform"}]}


@pytest.mark.docker
def test_a_server_is_loaded_in_one_window_and_all_is_recorded(leased: Any, served: Any) -> None:
    spec = served(prints="listening")
    report = leased.run(spec)
    assert (report["state"], report["rc"]) == ("done", 0), report["message"]
    said = events(leased, spec)
    assert [e["event"] for e in said] == [
        "start", "phase", "phase", "phase", "phase", "load", "result", "phase", "phase", "load",
        "result", "end",
    ]  # fmt: skip
    assert [e["name"] for e in said if e["event"] == "phase"][::2] == [
        "warmup", "steady:c2", "steady:r50",
    ]  # fmt: skip
    assert [(e["phase"], e["units"]) for e in said if e["event"] == "result"] == [
        ("steady:c2", 30), ("steady:r50", 25),
    ]  # fmt: skip
    window = report["command"]
    assert window["started"]["unix_s"] < said[0]["unix_s"]
    assert said[-1]["unix_s"] < window["ended"]["unix_s"]
    requests = rows(leased, spec)
    assert [r["step"] for r in requests] == ["warmup"] * 3 + ["c2"] * 30 + ["r50"] * 25
    label = hashlib.sha256(b'"cat"').hexdigest()[:16]
    assert {(r["status"], r["error"], r["answer"]) for r in requests} == {("200", "", label)}
    assert set(report["files"]) >= {"requests.csv", "server.log", "output.log"}
    assert (leased.attempt_folder(spec) / "server.log").read_text().strip() == "listening"
    # what the load used is not other work on the host
    assert report["container"]["exit_code"] is not None
    assert report["strays"] == []
    assert_all_gone(leased, spec)


@pytest.mark.docker
def test_the_network_has_no_way_out_and_is_the_server_s_alone(
    leased: Any, served: Any, image: str
) -> None:
    spec = served(LONG)
    leased.call("start", spec)
    name = until_running(leased.spool)
    until_loaded(leased, spec)
    assert docker("network", "inspect", "-f", "{{.Internal}}", name) == "true"
    attached = docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name)
    assert list(json.loads(attached)) == [name]
    settings = json.loads(docker("inspect", "-f", "{{json .HostConfig}}", name))
    assert settings["CapDrop"] == ["ALL"]
    assert settings["SecurityOpt"] == ["no-new-privileges"]
    assert docker("exec", name, "sh", "-c", "ls /sys/class/net") == "eth0\nlo"
    other = f"other-{os.getpid()}"
    docker(
        "run", "-d", "--name", other, "--entrypoint", "python3", image, "-m", "http.server", "80"
    )
    try:
        address = docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", other)
        ask = (
            "import socket, sys, time\n"
            f"def reached(): return socket.socket().connect_ex(({address!r}, 80)) == 0\n"
            "socket.setdefaulttimeout(2)\n"
            "while not reached() and sys.argv[1:]: time.sleep(0.1)\n"
            "print(reached())"
        )
        assert docker("exec", other, "python3", "-c", ask, "until it listens") == "True"
        assert docker("exec", name, "python3", "-c", ask) == "False"
    finally:
        docker("rm", "-f", other)
    leased.call("cleanup", {"owner": "run-1"})
    assert_all_gone(leased, spec)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("plan", "does", "said"),
    [
        ({}, {"dies_after": 20}, "the server ended with 3: MemoryError: no more"),
        ({"strict": True}, {"dies_after": 4}, "the server ended with 3: MemoryError: no more"),
        ({"ready_timeout_s": 8}, {"ready_after_s": 60}, "the server was not ready after 8 s: GET /health on port 8000: it is answered 503"),
        ({"ready_timeout_s": 1}, {"port": 9}, "the server was not ready after 1 s: GET /health on port 8000: the connection failed: Connection refused"),
        ({}, {"lies": True}, "no request succeeded: POST /predict: the connection failed: Connection refused (GET /health had been answered with success) (phase warmup)"),
        ({}, {"redirects": True}, "POST /predict: it was answered 302 to /elsewhere instead of 200"),
        ({"json": "$.score"}, {}, "POST /predict: the answer has no 'score'"),
        ({}, {"port": "none"}, "the server ended with 1: "),
    ],
    ids=["dies", "dies in the probe", "never ready", "another port", "lies", "redirects", "other answer", "does not start"],
)  # fmt: skip
def test_a_server_that_fails_says_why_in_one_line(
    leased: Any, served: Any, plan: dict[str, Any], does: dict[str, Any], said: str
) -> None:
    spec = served(plan, **does)
    report = leased.run(spec)
    assert report["state"] == "failed"
    assert said in report["message"]
    assert "\n" not in report["message"]
    assert report["message"].startswith("the workload ended with 1: ")
    assert [e for e in events(leased, spec) if e["event"] == "error"]
    assert_all_gone(leased, spec)


@pytest.mark.docker
def test_a_server_is_ended_with_its_load_at_the_timeout(leased: Any, served: Any) -> None:
    spec = served(LONG, spec={"timeout_s": 4})
    report = leased.run(spec)
    assert report["state"] == "timeout"
    assert report["command"]["ended"] is not None
    assert_all_gone(leased, spec)


@pytest.mark.docker
def test_a_server_of_a_killed_supervisor_is_gone_at_the_next_call(leased: Any, served: Any) -> None:
    spec = served(LONG)
    leased.call("start", spec)
    until_loaded(leased, spec)
    os.kill(leased.supervisor(spec), signal.SIGKILL)
    report = leased.call("status", {"id": spec["id"]})["report"]
    assert report["state"] == "lost"
    assert "server.log" in report["files"]
    assert_all_gone(leased, spec)


@pytest.mark.docker
@pytest.mark.parametrize("killed", ["serve", "load.json", "wait"])
def test_a_part_that_is_killed_takes_all_others_along(
    leased: Any, served: Any, killed: str
) -> None:
    spec = served(LONG)
    leased.call("start", spec)
    until_loaded(leased, spec)
    folder = str(leased.attempt_folder(spec))
    for pid in processes_of(None, folder):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        if killed in words or words[-1].endswith(f"/{killed}"):
            os.kill(pid, signal.SIGKILL)
            break
    else:
        pytest.fail(f"no process {killed}")
    report = leased.over(spec)
    assert report["state"] == "failed", report["message"]
    assert_all_gone(leased, spec)


@pytest.mark.docker
def test_a_restarted_host_s_network_is_removed_before_the_next_window(
    leased: Any, served: Any
) -> None:
    name = f"left-{os.getpid()}"
    docker("network", "create", "--internal", "--label", f"wattbench.spool={leased.spool}", name)
    spec = served()
    report = leased.run(spec)
    assert report["state"] == "done", report["message"]
    assert report["leftovers"] == [name]
    assert_all_gone(leased, spec)


@pytest.mark.docker
def test_no_network_no_window(leased: Any, served: Any) -> None:
    spec = served()
    name = f"wattbench-run-1-worker-{spec['trial']}-1"
    docker("network", "create", name)  # another owner's
    try:
        report = leased.run(spec)
    finally:
        docker("network", "rm", name)
    assert report["state"] == "failed"
    assert report["message"].startswith("the server's network can't be made: ")
    assert report["command"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runtime": "process", "image": None}, "serve: runtime process has no container"),
        ({"serve": {"port": "8000", "generator": "x", "plan": {}}}, "serve.port is not a whole number"),
        ({"serve": {"port": 8000, "generator": "x", "plan": {}}}, "serve: generator: 'x' is not a SHA-256"),
    ],
)  # fmt: skip
def test_a_server_s_spec_that_can_t_be_run_is_refused(
    leased: Any, changes: dict[str, Any], said: str
) -> None:
    spec = leased.spec(["x"], runtime="docker", image={"name": "a", "ref": "a"}, serve={"port": 1, "generator": "a" * 64, "plan": {}})  # fmt: skip
    answer = leased.ask("start", spec | changes)
    assert answer["error"] == "bad-request"
    assert said in answer["message"]


def test_a_load_that_is_not_there_is_asked_for(leased: Any) -> None:
    spec = leased.spec(["x"], runtime="docker", image={"name": "a", "ref": "a"}, serve={"port": 1, "generator": "a" * 64, "plan": {}})  # fmt: skip
    answer = leased.ask("start", spec)
    assert (answer["error"], answer["message"]) == (
        "file-missing", "aaaaaaaaaaaa of generator is not in the spool",
    )  # fmt: skip


def test_cpus_of_a_load_that_the_host_lacks_are_refused_by_name(agent: Any) -> None:
    payload = {"sample_s": 0, "docker": False, "load_cpus": {"pip": [0, 4000]}}
    (problem,) = (
        p for p in agent.call("facts", payload)["problems"] if p["code"] == "container-settings"
    )
    assert problem["message"].startswith(
        "images.pip: workload.load.from.cpuset: CPU 4000 is not usable here; there are "
    )


@pytest.mark.docker
def test_a_server_that_ends_at_once_is_never_looked_for_elsewhere(leased: Any, served: Any) -> None:
    """Its container has no address any more; this machine may have another server on the port."""
    spec = served(spec={"entrypoint": "/bin/false", "command": []})
    report = leased.run(spec)
    assert report["message"] == "the workload ended with 1: the server ended with 1"
    assert_all_gone(leased, spec)
