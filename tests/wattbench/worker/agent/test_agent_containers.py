"""What containers ask of a host, held against what it has before anything is measured."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest


def problems(agent: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    payload = {"sample_s": 0, "docker": False, "containers": {"pip": settings}}
    rows = agent.call("facts", payload)["problems"]
    return [row for row in rows if row["code"] == "container-settings"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"volumes": {"/data": {"host": "/nonexistent/rows"}}}, "container.volumes./data: /nonexistent/rows is not on this host"),
        ({"memory": 1 << 60}, "container.memory: 1073741824.0 GiB of this host's"),
        ({"shm_size": 1 << 60}, "container.shm_size: "),
        ({"tmpfs": {"/a": 1 << 59, "/b": 1 << 59}}, "container.tmpfs: 1073741824.0 GiB"),
        ({"cpus": 4096}, "container.cpus: 4096 of this host's"),
        ({"cpuset": "0,4000-4001"}, "container.cpuset: CPU 4000 is not usable here"),
    ],
)  # fmt: skip
def test_what_a_host_can_t_give_is_refused_by_name(
    agent: Any, settings: dict[str, Any], said: str
) -> None:
    (problem,) = problems(agent, settings)
    assert problem["severity"] == "hard"
    assert problem["message"].startswith("images.pip: ")
    assert said in problem["message"]
    assert problem["action"]


def test_a_link_to_a_socket_or_to_the_root_is_never_mounted(agent: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "engine"))
        (tmp_path / "link").symlink_to(tmp_path / "engine")
        (tmp_path / "all").symlink_to("/")
        (tmp_path / "root").symlink_to("/proc/self/root")
        (tmp_path / "services").symlink_to("/run")
        (tmp_path / "service").symlink_to("/run/lock")
        for name in ("link", "all", "root", "services", "service"):
            settings = {"volumes": {"/data": {"host": str(tmp_path / name)}}}
            (problem,) = problems(agent, settings)
            assert "would give the container the host" in problem["message"]


def test_what_a_host_has_is_fine(agent: Any) -> None:
    core = min(os.sched_getaffinity(0))
    settings = {
        "volumes": {"/data": {"host": "/etc"}}, "memory": 1 << 24, "cpus": 0.5, "cpuset": str(core),
        "network": "none",
    }  # fmt: skip
    assert problems(agent, settings) == []


@pytest.mark.docker
def test_a_network_that_docker_lacks_is_refused_with_the_command_that_makes_it(agent: Any) -> None:
    (problem,) = problems(agent, {"network": "wattbench-absent"})
    assert problem["action"] == "docker network create wattbench-absent"
