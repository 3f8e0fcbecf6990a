"""Trials as real containers, on this machine's Docker."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_docker import base_image, containers, docker, until_running
from wattbench.worker.agent import limits

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def image() -> str:
    return base_image()


@pytest.fixture
def contained(leased: Any, image: str) -> Any:
    """Makes a spec of a container that runs a line of shell."""

    def make(script: str, **changes: Any) -> dict[str, Any]:
        spec: dict[str, Any] = leased.spec(
            [script], runtime="docker", image={"name": "base", "ref": image}, **changes
        )
        return spec | {"entrypoint": "/bin/sh", "command": ["-c", script]}

    return make


def test_container_is_named_offline_recorded_and_removed(
    leased: Any, contained: Any, image: str
) -> None:
    script = 'echo "{\\"event\\": \\"seen\\", \\"net\\": \\"$(ls /sys/class/net | tr -d \'\\n\')\\"}"; id -u >&2'
    spec = contained(script, env={"COLOUR": "blue, green"}, user="4711:4711")
    report = leased.run(spec)
    assert (report["state"], report["rc"]) == ("done", 0)
    container = report["container"]
    assert container["name"] == "wattbench-run-1-worker-001-pip-1"
    assert container["image_id"] == image
    assert (container["exit_code"], container["oom_killed"]) == (0, False)
    assert "COLOUR=blue, green" in container["env"]
    assert container["device_requests"] is None
    folder = leased.attempt_folder(spec)
    seen = json.loads((folder / "workload.jsonl").read_text())
    assert seen["net"] == "lo"
    assert (folder / "stderr.log").read_text().strip().endswith("4711")
    assert containers(leased.spool) == ""
    # the trial's containers are distinguished from the rest of the host
    assert report["edges"]["after"]["cpu_busy_ns"] is not None


def test_gpus_are_asked_for_one_by_one(image: str) -> None:
    from wattbench.worker.agent.docker import docker_argv

    spec = {
        "id": "r/h/001-x/1", "run": "r", "host": "h", "trial": "001-x", "attempt": 1, "owner": "r",
        "image": {"name": "x", "ref": image}, "gpus": ["GPU-a", "GPU-b"], "command": ["x"],
        "env": {}, "user": None, "entrypoint": None,
    }  # fmt: skip
    argv = docker_argv(spec, "/spool", "/environment")
    name = docker(*["create" if word == "run" else word for word in argv[1:]])
    try:
        requests = json.loads(docker("inspect", "-f", "{{json .HostConfig.DeviceRequests}}", name))
        assert requests[0]["DeviceIDs"] == ["GPU-a", "GPU-b"]
    finally:
        docker("rm", "-f", name)


def test_settings_and_files_of_a_container_are_those_asked_for(
    leased: Any, contained: Any, tmp_path: Path
) -> None:
    content = b"read me\n"
    sha256 = hashlib.sha256(content).hexdigest()
    (leased.spool / "files").mkdir()
    (leased.spool / "files" / sha256).write_bytes(content)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows").write_text("3")
    (tmp_path / "out").mkdir()
    script = (
        "cat /bench/read.me /data/rows; pwd; id -u; ulimit -n; df -k /dev/shm | tail -1; "
        "touch /bench/read.me || echo read-only; touch /data/x || echo read-only; touch /out/x; "
        "grep -c NoNewPrivs:.1 /proc/self/status; grep CapBnd /proc/self/status"
    )
    spec = contained(
        script,
        files={"/bench/read.me": sha256},
        container={
            "volumes": {
                "/data": {"host": str(tmp_path / "data"), "writable": False},
                "/out": {"host": str(tmp_path / "out"), "writable": True},
            },
            "shm_size": 8 << 20, "memory": 256 << 20, "cpuset": "0", "user": "4711", "workdir": "/tmp",
            "ulimits": {"nofile": {"soft": 99, "hard": 100}}, "tmpfs": {"/scratch": 1 << 20},
            "capabilities": ["NET_BIND_SERVICE"],
        },
    )  # fmt: skip
    (tmp_path / "out").chmod(0o777)  # whatever the umask
    report = leased.run(spec)
    assert (report["state"], report["rc"]) == ("done", 0), report["message"]
    said = (leased.attempt_folder(spec) / "stdout.log").read_text().split("\n")
    assert said[:5] == ["read me", "3/tmp", "4711", "99", said[4]]
    assert said[4].split()[1] == str(8 << 10)
    assert said[5:8] == ["read-only", "read-only", "1"]
    assert int(said[8].split()[1], 16) == 1 << 10  # CAP_NET_BIND_SERVICE alone
    assert (tmp_path / "out/x").exists()


def test_a_trial_whose_file_is_not_there_is_not_started(leased: Any, contained: Any) -> None:
    answer = leased.ask("start", contained("true", files={"/bench/x.py": "a" * 64}))
    assert answer["error"] == "file-missing"
    assert "aaaaaaaaaaaa of /bench/x.py" in answer["message"]


def test_container_is_stopped_at_the_timeout(leased: Any, contained: Any) -> None:
    report = leased.run(contained("trap '' TERM; sleep 600 & wait", timeout_s=2))
    assert report["state"] == "timeout"
    assert report["container"]["exit_code"] == 137
    assert report["command"]["ended"] is not None
    assert report["meter"]["outlived"] is False
    assert containers(leased.spool) == ""


def test_container_that_outlives_its_meter_is_reported_and_removed(
    leased: Any, contained: Any, tmp_path: Path
) -> None:
    """The real tool ends with the docker client killed and the container at work."""
    leased.meter = leased.make_meter(
        "dies",
        run=f'"$@" > "$out" & while [ ! -e {tmp_path}/seen ]; do sleep 0.05; done; '
        "echo \"thread 'main' panicked at src/cpu.rs:1:1:\" >&2; exit 101",
    )
    spec = contained("sleep 600")
    leased.call("start", spec)
    until_running(leased.spool)
    (tmp_path / "seen").touch()
    report = leased.over(spec)
    assert report["state"] == "failed"
    assert report["meter"]["outlived"] is True
    assert report["message"].startswith(
        "the meter ended with 101 before its workload: thread 'main'"
    )
    assert report["container"]["exit_code"] == 137
    assert containers(leased.spool) == ""


def test_container_of_a_killed_supervisor_is_removed_at_the_next_call(
    leased: Any, contained: Any
) -> None:
    spec = contained("sleep 600")
    leased.call("start", spec)
    until_running(leased.spool)
    os.kill(leased.supervisor(spec), signal.SIGKILL)
    report = leased.call("status", {"id": spec["id"]})["report"]
    assert report["state"] == "lost"
    assert report["container"]["exit_code"] == 137
    assert containers(leased.spool) == ""


def test_image_is_never_pulled(leased: Any, contained: Any) -> None:
    spec = contained("true")
    report = leased.run(spec | {"image": {"name": "x", "ref": "localhost:1/absent:1"}})
    assert report["state"] == "failed"
    assert report["rc"] == 125
    assert "No such image" in report["message"] or "Unable to find" in report["message"]


def test_container_that_never_started_is_removed(leased: Any, contained: Any) -> None:
    report = leased.run(contained("true") | {"entrypoint": "/no/such/program"})
    assert (report["state"], report["rc"]) == ("failed", 127)
    assert report["container"]["started_at"].startswith("0001-01-01")
    assert containers(leased.spool) == ""


def test_leavings_of_earlier_attempts_are_removed_before_the_window(
    leased: Any, contained: Any, image: str
) -> None:
    left = ["--label", f"wattbench.spool={leased.spool}", "--label", "wattbench.owner=run-0"]
    docker(
        "run", "-d", "--name", f"left-{os.getpid()}", *left, "--entrypoint", "sleep", image, "600"
    )
    report = leased.run(contained("true"))
    assert report["state"] == "done"
    assert report["leftovers"] == [f"left-{os.getpid()}"]
    assert containers(leased.spool) == ""


def test_cleanup_removes_the_owner_s_containers_in_any_state(leased: Any, image: str) -> None:
    labels = ["--label", f"wattbench.spool={leased.spool}", "--label", "wattbench.owner=run-1"]
    name = f"created-{os.getpid()}"
    docker("create", "--name", name, *labels, "--entrypoint", "sleep", image, "600")
    assert leased.call("cleanup", {"owner": "run-2"})["containers"] == []
    assert leased.call("cleanup", {"owner": "run-1"})["containers"] == [name]
    assert containers(leased.spool) == ""


def test_facts_show_docker_and_who_else_runs(leased: Any, image: str) -> None:
    name = f"stranger-{os.getpid()}"
    docker("run", "-d", "--name", name, "--entrypoint", "sleep", image, "600")
    try:
        facts = leased.call("facts", {"sample_s": 0})
    finally:
        docker("rm", "-f", name)
    assert facts["docker"]["ok"] is True
    assert facts["docker"]["version"]
    problem = next(p for p in facts["problems"] if p["code"] == "foreign-containers")
    assert problem["severity"] == "soft"
    assert name in problem["message"]
    leased.environment["DOCKER_HOST"] = f"unix://{leased.spool}/absent.sock"
    facts = leased.call("facts", {"sample_s": 0})
    assert facts["docker"]["ok"] is False
    problem = next(p for p in facts["problems"] if p["code"] == "docker-unreachable")
    assert problem["severity"] == "hard"


def test_container_can_compute_and_little_else(leased: Any, contained: Any) -> None:
    spec = contained("grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status >&2")
    report = leased.run(spec)
    assert report["state"] == "done", report["message"]
    status = (leased.attempt_folder(spec) / "stderr.log").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_container_s_bounds_are_docker_s_own(leased: Any, contained: Any) -> None:
    spec = contained("sleep 600", container={"memory": 256 << 20})
    leased.call("start", spec)
    name = until_running(leased.spool)
    settings = json.loads(docker("inspect", "-f", "{{json .HostConfig}}", name))
    assert settings["PidsLimit"] == 4096
    assert settings["Memory"] == 256 << 20
    assert settings["CapDrop"] == ["ALL"]
    assert settings["SecurityOpt"] == ["no-new-privileges"]
    assert settings["LogConfig"] == {
        "Type": "json-file", "Config": {"max-size": "8m", "max-file": "1"},
    }  # fmt: skip
    leased.call("cleanup", {"owner": "run-1"})


def test_variables_of_a_container_stand_on_no_command_line(leased: Any, contained: Any) -> None:
    secret = f"word-{os.getpid()}-of-no-user"
    spec = contained(
        'echo "{\\"event\\": \\"$TOKEN\\"}"; sleep 600', env={"TOKEN": secret, "B": "x y"}
    )
    leased.call("start", spec)
    until_running(leased.spool)
    lines = [
        path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists()
    ]
    assert lines
    assert not [line for line in lines if secret.encode() in line]
    folder = leased.attempt_folder(spec)
    assert (folder / "environment").stat().st_mode & 0o077 == 0
    readable = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_mode & 0o044]
    assert not [p for p in readable if secret.encode() in p.read_bytes() and p.suffix == ".json"]
    leased.call("cleanup", {"owner": "run-1"})
    assert not (folder / "environment").exists()
    event = json.loads((folder / "workload.jsonl").read_text())
    assert event == {"event": secret}


def test_flood_of_a_container_is_cut_and_reported(leased: Any, contained: Any) -> None:
    report = leased.run(contained("head -c 20000000 /dev/zero"))
    assert (report["state"], report["rc"]) == ("done", 0)
    assert report["output"]["stdout_bytes"] == 20_000_000
    assert report["output"]["cut"] is True
    assert report["files"]["stdout.log"]["bytes"] == limits.OUTPUT_BYTES
    assert containers(leased.spool) == ""


def test_paused_container_is_ended_at_the_timeout(leased: Any, contained: Any) -> None:
    spec = contained("sleep 600", timeout_s=4)
    leased.call("start", spec)
    docker("pause", until_running(leased.spool))
    report = leased.over(spec)
    assert (report["state"], report["message"]) == ("timeout", "stopped after timeout_s = 4 s")
    assert report["container"]["exit_code"] == 137
    assert report["command"]["ended"] is not None
    # nothing of the meter lies after the edge that follows the window
    assert report["command"]["ended"]["unix_s"] <= report["edges"]["after"]["unix_s"]
    assert containers(leased.spool) == ""
