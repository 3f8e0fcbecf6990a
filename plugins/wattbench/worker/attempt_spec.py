"""Attempt specification that the agent executes. Pure."""

from __future__ import annotations

from typing import Any

from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig
from wattbench.run.plan import IDLE_HOST, PlannedTrial
from wattbench.run.store_keys import attempt_id
from wattbench.worker.agent.limits import MIN_FREE_BYTES

#: What the folders of attempts begin with that belong to a pull and not to the plan.
PREPARING = "pull-"
#: The longest pull that is metered, s: what a killed controller leaves running ends then.
PULL_LIMIT_S = 4 * 3600


def workload_argv(experiment: Experiment, image: str) -> list[str]:
    """The workload's arguments: the same for every image, but for a framework of its own."""
    workload = experiment.workload
    framework = experiment.images[image].framework or workload.framework
    passes = ",".join(f"{p.resolution}:{p.iterations}" for p in workload.passes)
    return [
        "--program", workload.program, "--framework", framework, "--precision", workload.precision,
        "--device", experiment.device, "--batch", str(workload.batch), "--passes", passes,
    ]  # fmt: skip


def attempt_spec(
    experiment: Experiment,
    host: HostConfig,
    *,
    run_id: str,
    host_name: str,
    trial: PlannedTrial,
    attempt: int,
    ref: str | None,
    rest: dict[str, Any],
) -> dict[str, Any]:
    """The payload of the agent's ``start``.

    Args:
        ref: the image by digest; None where no container is involved.
        rest: what the ``rest`` sensor read, kept with the attempt.
    """
    runtime, entrypoint, command, env = _command(experiment, trial)
    return {
        "id": attempt_id(run_id, host_name, trial.name, attempt),
        "run": run_id,
        "host": host_name,
        "trial": trial.name,
        "attempt": attempt,
        "owner": run_id,
        "kind": trial.kind,
        "runtime": runtime,
        "image": {"name": trial.image, "ref": ref} if runtime == "docker" else None,
        "entrypoint": entrypoint,
        "command": command,
        "env": env,
        "gpus": list(host.gpus) if experiment.device == "cuda" else [],
        "meter": _meter(host),
        "timeout_s": experiment.protocol.timeout_s,
        "user": None,
        "rest": rest,
        "min_free_bytes": MIN_FREE_BYTES,
    }


def metering_spec(host: HostConfig, *, run_id: str, host_name: str, image: str) -> dict[str, Any]:
    """The payload of ``start`` for the meter around a pull: an attempt that waits for ``finish``."""
    trial = f"{PREPARING}{image}"
    return {
        "id": attempt_id(run_id, host_name, trial, 1),
        "run": run_id,
        "host": host_name,
        "trial": trial,
        "attempt": 1,
        "owner": run_id,
        "kind": "pull",
        "runtime": "none",
        "command": ["hold"],
        "meter": _meter(host),
        "timeout_s": PULL_LIMIT_S,
        "lead_s": 0,
    }


def probe_spec(
    experiment: Experiment, host: HostConfig, *, run_id: str, host_name: str, image: str, ref: str
) -> dict[str, Any]:
    """The payload of ``probe``: what a trial of the image would start."""
    trial = PlannedTrial(1, 1, "workload", image)
    spec = attempt_spec(
        experiment,
        host,
        run_id=run_id,
        host_name=host_name,
        trial=trial,
        attempt=1,
        ref=ref,
        rest={},
    )
    name = f"{PREPARING}{image}"
    return spec | {"trial": name, "id": attempt_id(run_id, host_name, name, 1)}


def _meter(host: HostConfig) -> dict[str, Any]:
    return {
        "kind": host.meter.kind,
        "command": host.meter.argv,
        "interval_ms": host.meter.interval_ms,
    }


def _command(
    experiment: Experiment, trial: PlannedTrial
) -> tuple[str, str | None, list[str], dict[str, str]]:
    protocol = experiment.protocol
    if trial.kind == "control":
        assert protocol.control is not None
        return "process", None, ["burn", "--rounds", str(protocol.control.rounds)], {}
    image = experiment.images.get(trial.image)
    if trial.kind == "idle":
        assert protocol.idle_baseline is not None
        seconds = f"{protocol.idle_baseline.seconds:g}"
        if trial.image == IDLE_HOST or image is None or image.runtime == "process":
            return "none", None, ["sleep", seconds], {}
        return "docker", "sleep", [seconds], dict(image.env)
    assert image is not None
    argv = workload_argv(experiment, trial.image)
    if image.runtime == "process":
        return "process", None, [*(image.command or []), *argv], dict(image.env)
    return "docker", None, [*(image.command or []), *argv], dict(image.env)


def expectation(experiment: Experiment, host: HostConfig, trial: PlannedTrial) -> dict[str, Any]:
    """What the plan expects of an attempt, for the checks (``Record.expected``)."""
    workload = experiment.workload
    image = experiment.images.get(trial.image)
    return {
        "kind": trial.kind,
        "device": experiment.device,
        "program": workload.program,
        "framework": (image.framework if image else None) or workload.framework,
        "precision": workload.precision,
        "batch": workload.batch,
        "passes": [p.model_dump() for p in workload.passes] if trial.kind == "workload" else [],
        "gpus": list(host.gpus) if experiment.device == "cuda" else [],
        "runtime": image.runtime if image else "none",
        "meter": host.meter.kind,
        "interval_ms": host.meter.interval_ms,
    }
