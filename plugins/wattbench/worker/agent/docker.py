"""The docker client: an attempt's container from its command line to its removal."""

from __future__ import annotations

import os
import re
import subprocess
import time

from wattbench.worker.agent import limits, meters
from wattbench.worker.agent.base import parse_json, write_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import AttemptSpec, ContainerSpec


class DockerError(Exception):
    """The docker client is absent, or its daemon does not answer."""


def docker(*arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run the docker client; the daemon's own refusals are in the result.

    Raises:
        DockerError: no client, no daemon, or no answer in time.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise DockerError("no docker command in %s" % os.environ.get("PATH")) from None
    except subprocess.TimeoutExpired:
        raise DockerError("docker %s: no answer in %g s" % (arguments[0], timeout_s)) from None
    if done.returncode and re.search(
        r"cannot connect to the docker daemon|permission denied.*docker|error during connect"
        r"|unexpected EOF",
        done.stderr,
        re.IGNORECASE | re.DOTALL,
    ):
        raise DockerError(" ".join(done.stderr.split()))
    return done


def patiently(work: Callable[[], Any], patience_s: float) -> Any:
    """Do something with Docker, again for a while if the daemon is away."""
    deadline, pause = time.monotonic() + patience_s, 1.0
    while True:
        try:
            return work()
        except DockerError:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 8.0)


def container_name(spec: AttemptSpec) -> str:
    """The container's name: the attempt's."""
    words = ("wattbench", spec["run"], spec["host"], spec["trial"], spec["attempt"])
    return re.sub(r"[^A-Za-z0-9_.-]", "-", "-".join(str(w) for w in words))


def inspect(name: str) -> Json | None:
    """A container's state; None if there is none of that name.

    Raises:
        DockerError: the daemon's answer makes no sense.
    """
    done = docker("container", "inspect", name)
    if done.returncode:
        return None
    try:
        found = parse_json(done.stdout)
        return dict(found[0]) if found else None
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DockerError("docker container inspect: %s" % error) from None


def end_container(spec: AttemptSpec, log: str) -> tuple[Json | None, bool]:
    """Stop a container if it still runs, keep what its daemon reports of it, remove it and its network.

    Args:
        spec: the attempt's.
        log: file for the output of a server.

    Returns:
        The report's ``container`` (None: there was none) and whether it still ran.
    """
    name, serves = container_name(spec), bool(spec.get("serve"))
    state = inspect(name)
    if state is None:
        if serves:
            remove_network(name)
        return None, False
    running = bool((state.get("State") or {}).get("Running"))
    if running:
        docker("kill", name)
        if state["State"].get("Paused"):
            docker("unpause", name)  # the signal may be waiting for that
        docker("wait", name)
        state = inspect(name) or state
    if serves:
        write_bytes(log, server_output(name).encode())
    remove_container(name)
    if serves:
        remove_network(name)
    return _container_record(state), running


def server_output(name: str, lines: int | None = None) -> str:
    """What a detached container has printed, as far as its daemon keeps it.

    Args:
        name: the container's.
        lines: number of the last ones; None: all.
    """
    tail = "all" if lines is None else str(lines)
    done = docker("logs", "--tail", tail, name)
    return done.stdout + done.stderr


def remove_container(name: str) -> None:
    """Remove a container, running or not.

    Raises:
        DockerError: it is still there.
    """
    done = docker("rm", "-f", "-v", name)
    if done.returncode and "No such container" not in done.stderr:
        raise DockerError(" ".join(done.stderr.split()))


def _container_record(info: Json) -> Json:
    state = info.get("State") or {}
    return {
        "name": str(info.get("Name")).lstrip("/"),
        "id": info.get("Id"),
        "image_id": info.get("Image"),
        "exit_code": state.get("ExitCode"),
        "oom_killed": state.get("OOMKilled"),
        "started_at": state.get("StartedAt"),
        "finished_at": state.get("FinishedAt"),
        "error": state.get("Error") or None,
        "device_requests": (info.get("HostConfig") or {}).get("DeviceRequests"),
        "env": (info.get("Config") or {}).get("Env"),
    }


def labelled(**labels: str) -> list[str]:
    """Names of containers, in any state, that carry all of these ``wattbench.*`` labels."""
    done = docker("ps", "-a", "--format", "{{.Names}}", *_filters(labels))
    return done.stdout.split()


def make_network(spec: AttemptSpec, spool: str) -> str | None:
    """Make the network of a server and its load, without a way out; why there is none, or None."""
    labels = [word for label in _labels(spec, spool) for word in ("--label", label)]
    done = docker("network", "create", "--internal", *labels, container_name(spec))
    return " ".join(done.stderr.split()) if done.returncode else None


def remove_network(name: str) -> None:
    """Remove a network that has no containers any more.

    Raises:
        DockerError: it is still there.
    """
    done = docker("network", "rm", name)
    if done.returncode and network_exists(name):
        raise DockerError(" ".join(done.stderr.split()))


def labelled_networks(**labels: str) -> list[str]:
    """Names of networks that carry all of these ``wattbench.*`` labels."""
    done = docker("network", "ls", "--format", "{{.Name}}", *_filters(labels))
    return done.stdout.split()


def _filters(labels: dict[str, str]) -> list[str]:
    pairs = labels.items()
    return [word for k, v in pairs for word in ("--filter", "label=wattbench.%s=%s" % (k, v))]


def _labels(spec: AttemptSpec, spool: str) -> list[str]:
    """What containers and networks of an attempt are found by."""
    labels = {
        "run": spec["run"], "host": spec["host"], "owner": spec["owner"], "attempt": spec["id"],
        "spool": spool,
    }  # fmt: skip
    return ["wattbench.%s=%s" % pair for pair in labels.items()]


def write_environment(path: str, env: dict[str, str]) -> None:
    """Write variables for ``docker run --env-file``: never on a command line that others can see."""
    lines = ["%s=%s\n" % (key, value) for key, value in sorted(env.items())]
    write_bytes(path, "".join(lines).encode())


def docker_argv(spec: AttemptSpec, spool: str, environment: str) -> list[str]:
    """The ``docker run`` of an attempt: no pull, no network, no rights, no --rm (its state is read first).

    A server is detached: the daemon keeps its output, so that nothing copies it while it is measured.

    Args:
        spec: the attempt's.
        spool: by whose path the container is labelled.
        environment: file with its variables.
    """
    argv = ["docker", "run", "--pull", "never", "--name", container_name(spec)]
    for label in _labels(spec, spool):
        argv += ["--label", label]
    settings = spec.get("container") or {}
    network = settings.get("network") or "none"
    if spec.get("serve"):
        argv, network = [*argv, "--detach"], container_name(spec)
    argv += ["--network", network, *_confinement()]
    argv += [*_mounts(spec, spool), *_resources(settings)]
    user, entrypoint = spec.get("user"), spec.get("entrypoint")
    if user:
        argv += ["--user", user]
    for meter in meters.present(spec.get("gpus") or []):
        argv += meter.container_options()
    if spec.get("env"):
        argv += ["--env-file", environment]
    if entrypoint:
        argv += ["--entrypoint", entrypoint]
    return [*argv, str((spec["image"] or {}).get("ref")), *spec["command"]]


def _mounts(spec: AttemptSpec, spool: str) -> list[str]:
    """The workload's files and the volumes: read-only unless a volume says otherwise."""
    options = []
    for target, sha256 in sorted((spec.get("files") or {}).items()):
        source = os.path.join(spool, limits.FILES, sha256)
        options += ["--mount", "type=bind,source=%s,target=%s,readonly" % (source, target)]
    settings = spec.get("container") or {}
    for target, volume in sorted((settings.get("volumes") or {}).items()):
        end = "" if volume.get("writable") else ",readonly"
        options += ["--mount", "type=bind,source=%s,target=%s%s" % (volume["host"], target, end)]
    for target, size in sorted((settings.get("tmpfs") or {}).items()):
        options += ["--mount", "type=tmpfs,target=%s,tmpfs-size=%d" % (target, size)]
    return options


#: Setting → option of ``docker run`` with its value.
_OPTIONS = {
    "shm_size": "--shm-size", "ipc": "--ipc", "cpus": "--cpus", "cpuset": "--cpuset-cpus",
    "memory": "--memory", "user": "--user", "workdir": "--workdir",
}  # fmt: skip


def _resources(settings: ContainerSpec) -> list[str]:
    """What a container gets of its host, as options."""
    options = []
    for key, value in settings.items():
        if key in _OPTIONS and value is not None:
            options += [_OPTIONS[key], str(value)]
    if settings.get("memory") is not None:
        options += ["--memory-swap", str(settings["memory"])]
    for name, limit in sorted((settings.get("ulimits") or {}).items()):
        soft, hard = limit["soft"], limit.get("hard")
        options += ["--ulimit", "%s=%d:%d" % (name, soft, soft if hard is None else hard)]
    for capability in settings.get("capabilities") or []:
        options += ["--cap-add", capability]
    return options


def network_exists(name: str) -> bool:
    """Whether Docker has a network of that name."""
    return docker("network", "inspect", name).returncode == 0


def _confinement() -> list[str]:
    """What an image may do to its host: compute, and little else."""
    return [
        "--pids-limit", str(limits.CONTAINER_PIDS),
        "--security-opt", "no-new-privileges",
        "--cap-drop", "ALL",
        "--log-driver", "json-file",
        "--log-opt", "max-size=" + limits.CONTAINER_LOG_SIZE, "--log-opt", "max-file=1",
    ]  # fmt: skip
