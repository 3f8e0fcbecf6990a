"""The SSH side against a virtual worker host: OpenSSH, a Docker daemon of its own, reboots."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wattbench.errors import HostError
from wattbench.worker.ssh import Host
from wattbench.worker.target import HostTarget

pytestmark = pytest.mark.docker

METER = {"kind": "modelled", "command": "/usr/local/bin/energibridge-standin", "interval_ms": 200}


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def image(suffix: str) -> str:
    if shutil.which("docker") is None:
        pytest.skip("no docker command here")
    listing = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}} {{.ID}}"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    for line in listing.stdout.splitlines():
        name, identity = line.split()
        if name.startswith("wattbench-") and name.endswith(suffix):
            return identity
    pytest.skip(f"no image {suffix} here: run make demo first")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, HostTarget]]:
    """A worker host of the tests' own, with the base image loaded into its Docker."""
    worker_image, base = image("/worker-host"), image("/base")
    folder = tmp_path_factory.mktemp("worker")
    folder.chmod(0o755)
    for name in ("ssh_host_ed25519_key", "client"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    (folder / "authorized_keys").write_text((folder / "client.pub").read_text())
    (folder / "daemon.json").write_text("{}\n")
    name = f"wattbench-test-worker-{os.getpid()}"
    docker(
        "run", "-d", "--name", name, "-v", f"{folder}:/run/worker:ro",
        "-v", f"{name}-docker:/var/lib/docker", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN",
        "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
        "--cpuset-cpus", "0", worker_image,
    )  # fmt: skip
    try:
        address = docker(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name
        )
        target = HostTarget(
            name="worker", hostname=address, username="bench", connect_timeout_s=90,
            private_key=(folder / "client").read_text(),
            host_key=(folder / "ssh_host_ed25519_key.pub").read_text(),
        )  # fmt: skip
        until_docker_answers(name)
        load = subprocess.Popen(["docker", "save", base], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "exec", "-i", name, "docker", "load"], stdin=load.stdout, check=True,
            capture_output=True,
        )  # fmt: skip
        assert load.stdout
        load.stdout.close()
        load.wait()
        yield name, target
    finally:
        docker("rm", "-f", "-v", name)
        docker("volume", "rm", f"{name}-docker")


def until_docker_answers(name: str) -> None:
    deadline = time.monotonic() + 90
    while subprocess.run(
        ["docker", "exec", name, "docker", "info"], capture_output=True
    ).returncode:
        assert time.monotonic() < deadline, "no Docker on the worker"
        time.sleep(0.2)


def start_in_container(host: Host, name: str, payload: dict[str, Any]) -> None:
    """Start an attempt and wait until its container runs."""
    assert host.call("start", payload)["state"] == "started"
    deadline = time.monotonic() + 60
    while not docker("exec", name, "docker", "ps", "-q"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def host(worker: tuple[str, HostTarget]) -> Iterator[Host]:
    with Host(worker[1]) as connected:
        connected.ship()
        connected.call("lease", {"action": "take", "owner": "run-1"})
        yield connected
        connected.call("cleanup", {"owner": "run-1"})
        connected.call("lease", {"action": "release", "owner": "run-1"})
        connected.call("forget", {"run": "run-1"})


def spec(trial: str, script: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"run-1/worker/{trial}/1", "run": "run-1", "host": "worker", "trial": trial,
        "attempt": 1, "owner": "run-1", "kind": "workload", "runtime": "docker",
        "image": {"name": "base", "ref": image("/base")}, "entrypoint": "/bin/sh",
        "command": ["-c", script], "env": {}, "gpus": [], "meter": METER, "timeout_s": 60,
    } | changes  # fmt: skip


def measured(host: Host, payload: dict[str, Any]) -> dict[str, Any]:
    assert host.call("start", payload)["state"] == "started"
    report: dict[str, Any] = host.wait(payload["id"], 120)["report"]
    return report


def test_facts_of_a_virtual_host_leave_out_what_can_t_be_determined(host: Host) -> None:
    facts = host.call("facts", {"meter": METER, "sample_s": 0.5})
    assert facts["host"]["virtual"] is True
    assert facts["host"]["cores"] == 1
    assert facts["docker"]["ok"] is True
    assert facts["meter"]["ok"] is True
    assert facts["load"] is None
    assert facts["cpu"]["governor"] is None
    assert facts["idle"]["cpu_pct"] is not None
    assert [p for p in facts["problems"] if p["severity"] == "hard"] == []
    # both clocks are this machine's
    assert abs(host.clock_offset_s()) < 0.05


def test_measured_container_is_distinguished_from_the_rest_of_the_host(host: Host) -> None:
    burn = (
        "import json, time; sum(i * i for i in range(30_000_000)); "
        "print(json.dumps({'cpu_s': time.process_time()}))"
    )
    payload = spec("001-burn", "") | {"entrypoint": "python3", "command": ["-c", burn]}
    report = measured(host, payload)
    assert (report["state"], report["message"]) == ("done", "done")
    opened = report["command"]["started"]["unix_s"]
    assert all(c["unix_s"] < opened for c in report["connections"])
    before, after = (report["edges"][edge] for edge in ("before", "after"))
    whole_s = (after["cgroup_cpu_ns"] - before["cgroup_cpu_ns"]) / 1e9
    foreign_s = (after["cpu_busy_ns"] - before["cpu_busy_ns"]) / 1e9
    folder = "/var/spool/wattbench/trials/run-1/001-burn/1"
    usage = json.loads(host.fetch_bytes(f"{folder}/workload.jsonl"))
    assert whole_s - foreign_s >= usage["cpu_s"]
    assert 0 < foreign_s < usage["cpu_s"]  # Docker's own work
    for name, facts in report["files"].items():
        assert len(host.fetch_bytes(f"{folder}/{name}")) == facts["bytes"]
    csv = host.fetch_bytes(f"{folder}/energibridge.csv").decode()
    assert "PACKAGE_ENERGY (J)" in csv.splitlines()[0]


def test_docker_py_speaks_through_the_forwarded_socket(host: Host) -> None:
    from docker import DockerClient

    with host.forward_socket() as path:
        client = DockerClient(base_url=f"unix://{path}", timeout=60)
        assert client.ping() is True
        assert client.images.list()
        output = client.containers.run(
            image("/base"), ["echo", "through"], remove=True, network_mode="none"
        )
        assert output == b"through\n"
        client.close()


def test_reboot_in_mid_window_ends_as_lost_and_leaves_nothing(
    worker: tuple[str, HostTarget], host: Host
) -> None:
    name, _ = worker
    payload = spec("002-reboot", "echo up; sleep 600")
    start_in_container(host, name, payload)
    docker("restart", "-t", "10", name)
    until_docker_answers(name)
    answer = host.wait(payload["id"], 90)
    report = answer["report"]
    assert (report["state"], report["message"]) == ("lost", "the host restarted")
    assert report["boot"]["before"] != report["boot"]["after"]
    assert report["container"]["exit_code"] is not None
    assert docker("exec", name, "docker", "ps", "-aq") == ""
    assert host.call("lease", {"action": "show"})["owner"] == "run-1"
    buffer = io.BytesIO()
    host.fetch(f"{answer['path']}/stdout.log", buffer)
    assert buffer.getvalue() == b"up\n"


def test_docker_daemon_that_dies_in_the_window_leaves_no_container(
    worker: tuple[str, HostTarget], host: Host
) -> None:
    name, _ = worker
    payload = spec("003-daemon", "sleep 600")
    start_in_container(host, name, payload)
    docker("exec", name, "sh", "-c", "kill -9 $(cat /var/run/docker.pid)")
    report = host.wait(payload["id"], 120)["report"]
    assert report["state"] == "failed"
    assert report["rc"] == 125
    assert report["container"] is not None  # the daemon came back while the supervisor had patience
    assert docker("exec", name, "docker", "ps", "-aq") == ""


def test_unplugged_host_is_given_up_at_the_call_s_deadline(
    worker: tuple[str, HostTarget], host: Host
) -> None:
    name, _ = worker
    docker("pause", name)
    try:
        with pytest.raises(HostError) as caught:
            host.call("status", {}, timeout_s=3)
        assert caught.value.code == "timeout"
    finally:
        docker("unpause", name)
    assert json.dumps(host.call("status", {}))


def test_key_files_are_not_needed_on_disk(worker: tuple[str, HostTarget], tmp_path: Path) -> None:
    """The key as text, as an Airflow connection holds it, and as a file give the same login."""
    from dataclasses import replace

    _, target = worker
    assert target.private_key
    path = tmp_path / "key"
    path.write_text(target.private_key)
    path.chmod(0o600)
    with Host(replace(target, private_key=None, key_filename=str(path))) as host:
        assert host.call("status", {})["ok"] is True
