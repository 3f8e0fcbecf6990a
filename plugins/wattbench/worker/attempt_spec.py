"""Attempt specification that the agent executes. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from wattbench.analysis.model.records import Expected
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig, MeterConfig
from wattbench.run.plan import IDLE_HOST, PlannedTrial
from wattbench.run.store_keys import attempt_id
from wattbench.worker.agent.documents import AttemptSpec, MeterSpec, ServeSpec
from wattbench.worker.agent.limits import (
    CONTROLLER_LEAD_S,
    INTERVAL_MS,
    LEAD_S,
    LOAD_REACH_S,
    MIN_FREE_BYTES,
)
from wattbench.workloads import workload_of
from wattbench.workloads.protocol import Expectation, HoldsModel, WarmsGpus
from wattbench.workloads.settings import Settings

#: What the folders of attempts begin with that belong to a pull and not to the plan.
PREPARING = "pull-"
#: What an idle trial runs in an image.
IDLE_PROGRAM = "sleep"
#: A meter without a program, whose samples nothing needs.
NO_METER = "powercap"
#: The longest that the load which warms GPUs takes to begin, s.
WARM_START_S = 300
#: The longest pull that is metered, s: what a killed controller leaves running ends then.
PULL_LIMIT_S = 4 * 3600


def attempt_spec(
    experiment: Experiment,
    host: HostConfig,
    *,
    run_id: str,
    host_name: str,
    trial: PlannedTrial,
    attempt: int,
    ref: str | None,
    files: Mapping[str, str],
    rest: Mapping[str, object],
    late: bool = False,
    seed: str = "",
    address: str = "",
) -> AttemptSpec:
    """The payload of the agent's ``start``.

    Args:
        experiment: the run's.
        host: its configuration.
        run_id: the run.
        host_name: the host.
        trial: what is measured.
        attempt: from 1.
        ref: the image by digest; None where no container is involved.
        files: the workload's files, path in the container or name on the host → SHA-256; the host has them
            by then.
        rest: what the ``rest`` sensor read, kept with the attempt.
        late: whether it is executed after its block.
        seed: of the run; a server's arrivals are drawn from it.
        address: of the host, at which a load from another one reaches it.
    """
    identity = attempt_id(run_id, host_name, trial.name, attempt)
    start = _start(experiment, trial)
    contained = start.runtime == "docker"
    works = trial.kind == "workload"
    mounts = works or (trial.kind == "idle" and _is_loaded(experiment, trial))
    serve = _serve(experiment.workload_of(trial.image), files, seed) if works else None
    return {
        "id": identity,
        "run": run_id,
        "host": host_name,
        "trial": trial.name,
        "attempt": attempt,
        "owner": run_id,
        "kind": trial.kind,
        "runtime": start.runtime,
        "image": {"name": trial.image, "ref": ref} if contained else None,
        "entrypoint": start.argv[0] if contained and start.argv else None,
        "command": list(start.argv[1:] if contained else start.argv),
        "env": dict(start.env),
        "files": {path: s for path, s in files.items() if path.startswith("/")} if mounts else {},
        "serve": _linked(serve, experiment, trial.image, identity, seed, address),
        "container": experiment.container_of(trial.image).set_keys() if contained else {},
        "times_lines": works and not _expected(experiment, trial.image).reports_itself,
        "gpus": list(host.gpus) if experiment.device == "cuda" else [],
        "controller": host.controller,
        "lead_s": CONTROLLER_LEAD_S if host.controller else LEAD_S,
        "meter": _meter(host),
        "timeout_s": experiment.protocol.timeout_s,
        "user": None,
        "rest": {**rest},
        "min_free_bytes": MIN_FREE_BYTES,
        "late": late,
    }


def metering_spec(host: HostConfig, *, run_id: str, host_name: str, image: str) -> AttemptSpec:
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
    experiment: Experiment,
    host: HostConfig,
    *,
    run_id: str,
    host_name: str,
    image: str,
    ref: str | None,
    files: Mapping[str, str],
    seed: str = "",
    address: str = "",
) -> AttemptSpec:
    """The payload of ``start`` for the probe of an image: its workload once, without a meter."""
    trial = PlannedTrial(1, 1, "workload", image)
    spec = attempt_spec(
        experiment, host, run_id=run_id, host_name=host_name, trial=trial, attempt=1, ref=ref,
        files=files, rest={}, seed=seed, address=address,
    )  # fmt: skip
    probe = _renamed(spec, f"{PREPARING}{image}-probe")
    settings = experiment.workload_of(image)
    argv = workload_of(settings).probe_argv(settings, experiment.place_of(image))
    contained = spec["runtime"] == "docker"
    serve = _serve(settings, files, seed, probe=True)
    return {
        **probe,
        "kind": "probe",
        "entrypoint": argv[0] if contained and argv else None,
        "command": list(argv[1:] if contained else argv),
        "serve": _linked(serve, experiment, image, probe["id"], seed, address),
        "meter": _no_meter(),
        "lead_s": 0,
    }


def idle_probe_spec(
    experiment: Experiment, spec: AttemptSpec, image: str, *, loaded: bool
) -> AttemptSpec:
    """The payload of ``start`` that shows whether an image can do its idle trials.

    Args:
        experiment: the run's.
        spec: of :func:`probe_spec`.
        image: name of the image.
        loaded: whether they hold the model loaded.
    """
    argv = _idle_argv(experiment, image, 0, loaded=loaded)
    contained = spec["runtime"] == "docker"
    return {
        **_renamed(spec, f"{spec['trial']}-{'loaded' if loaded else 'idle'}"),
        "entrypoint": argv[0] if contained else None,
        "command": list(argv[1:] if contained else argv),
        "files": spec["files"] if loaded else {},
        "serve": None,
        "times_lines": False,
    }


def warm_spec(experiment: Experiment, spec: AttemptSpec, image: str) -> AttemptSpec:
    """The payload of ``start`` for the load that warms the GPUs.

    Args:
        experiment: the run's.
        spec: of :func:`probe_spec`.
        image: name of the image; its workload is a :class:`WarmsGpus`.
    """
    settings = experiment.workload_of(image)
    workload = workload_of(settings)
    assert isinstance(workload, WarmsGpus)
    longest_s = experiment.protocol.warm_up.limit_s + WARM_START_S
    argv = workload.warm_argv(settings, experiment.place_of(image), longest_s, len(spec["gpus"]))
    contained = spec["runtime"] == "docker"
    return {
        **_renamed(spec, f"{PREPARING}{image}-warm"),
        "entrypoint": argv[0] if contained else None,
        "command": list(argv[1:] if contained else argv),
        "timeout_s": longest_s + WARM_START_S,
    }


def _renamed(spec: AttemptSpec, trial: str) -> AttemptSpec:
    identity = attempt_id(spec["run"], spec["host"], trial, spec["attempt"])
    return {**spec, "trial": trial, "id": identity}


def _serve(
    settings: Settings, files: Mapping[str, str], seed: str, *, probe: bool = False
) -> ServeSpec | None:
    """How the agent asks a server; None: the container holds a program that ends by itself."""
    serving = settings.serving(probe=probe)
    if serving is None:
        return None
    return {
        "port": serving.port,
        "generator": files[serving.generator],
        "requests": None if serving.requests is None else files[serving.requests],
        "plan": {**serving.plan, "cpus": list(serving.cpus), "seed": seed},
    }


def _linked(
    serve: ServeSpec | None,
    experiment: Experiment,
    image: str,
    identity: str,
    seed: str,
    address: str,
) -> ServeSpec | None:
    """With where the load host meets the server, if the load comes from another host."""
    serving = experiment.workload_of(image).serving()
    if serve is None or serving is None or serving.load_host is None:
        return serve
    token = hashlib.sha256(f"{seed}:{identity}".encode()).hexdigest()[:32]
    return {
        **serve,
        "link": {
            "load_host": serving.load_host, "address": address, "port": serving.outer_port,
            "token": token,
        },
    }  # fmt: skip


def load_spec(spec: AttemptSpec) -> AttemptSpec:
    """The payload of ``start`` on the load host.

    Args:
        spec: of the attempt that it loads, whose server has a link.
    """
    serve = spec["serve"]
    assert serve is not None
    link = serve.get("link")
    assert link is not None
    host = link["load_host"]
    return {
        "id": attempt_id(spec["run"], host, spec["trial"], spec["attempt"]),
        "run": spec["run"],
        "host": host,
        "trial": spec["trial"],
        "attempt": spec["attempt"],
        "owner": spec["owner"],
        "kind": "load",
        "runtime": "none",
        "command": ["ask"],
        "load": serve,
        "meter": _no_meter(),
        "timeout_s": spec["timeout_s"] + LOAD_REACH_S,
        "lead_s": 0,
    }


def meter_spec(meter: MeterConfig) -> MeterSpec:
    """A meter as the agent reads it."""
    return {"kind": meter.kind, "command": meter.argv, "interval_ms": meter.interval_ms}


def _meter(host: HostConfig) -> MeterSpec:
    return _no_meter() if host.agent_meter is None else meter_spec(host.agent_meter)


def _no_meter() -> MeterSpec:
    return {"kind": NO_METER, "command": None, "interval_ms": INTERVAL_MS}


@dataclass(frozen=True)
class _Start:
    """What is started: in a container, on the bare host, or nothing of an image's (``none``)."""

    runtime: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def _start(experiment: Experiment, trial: PlannedTrial) -> _Start:
    protocol = experiment.protocol
    if trial.kind == "control":
        assert protocol.control is not None
        return _Start("process", ("burn", "--rounds", str(protocol.control.rounds)))
    image = experiment.images.get(trial.image)
    if trial.kind == "idle":
        assert protocol.idle_baseline is not None
        loaded = _is_loaded(experiment, trial)
        waiting = _idle_argv(experiment, trial.image, protocol.idle_baseline.seconds, loaded=loaded)
        if trial.image == IDLE_HOST or image is None:
            return _Start("none", waiting)
        if image.runtime == "process" and not loaded:
            return _Start("none", waiting)
        return _Start(image.runtime, waiting, image.env)
    assert image is not None
    settings = experiment.workload_of(trial.image)
    argv = workload_of(settings).argv(settings, experiment.place_of(trial.image))
    return _Start(image.runtime, argv, image.env)


def _is_loaded(experiment: Experiment, trial: PlannedTrial) -> bool:
    """Whether an idle trial holds the framework and the model loaded."""
    idle = experiment.protocol.idle_baseline
    return idle is not None and (trial.idle_state or idle.states[0]) == "loaded"


def _idle_argv(
    experiment: Experiment, image: str, seconds: float, *, loaded: bool
) -> tuple[str, ...]:
    """What an idle trial runs."""
    if not loaded:
        return (IDLE_PROGRAM, f"{seconds:g}")
    settings = experiment.workload_of(image)
    workload = workload_of(settings)
    assert isinstance(workload, HoldsModel)
    return workload.idle_argv(settings, experiment.place_of(image), seconds)


def _idle_state(experiment: Experiment, trial: PlannedTrial) -> str:
    """What an idle trial has loaded: ``loaded``, ``container``, or ``host`` without a container."""
    if _is_loaded(experiment, trial):
        return "loaded"
    return "container" if _start(experiment, trial).runtime == "docker" else "host"


def _expected(experiment: Experiment, image: str) -> Expectation:
    settings = experiment.workload_of(image)
    return workload_of(settings).expectation(settings)


def expectation(experiment: Experiment, host: HostConfig, trial: PlannedTrial) -> Expected:
    """What the plan expects of an attempt, for the checks (``Record.expected``)."""
    works = trial.kind == "workload"
    expected = _expected(experiment, trial.image)
    own = _rules(expected) if works else {"passes": []}
    if trial.kind == "control":
        own |= {"unit": {"name": "round", "count": None, "pattern": None}}
    if trial.kind == "idle":
        own |= {"idle_state": _idle_state(experiment, trial)}
    return _joined(expected, own, _surroundings(experiment, host, trial))


def probe_expectation(experiment: Experiment, host: HostConfig, image: str) -> Expected:
    """What the probe of an image must show."""
    settings = experiment.workload_of(image)
    expected = workload_of(settings).probe_expectation(settings)
    trial = PlannedTrial(1, 1, "workload", image)
    return _joined(expected, _rules(expected), _surroundings(experiment, host, trial))


def _joined(expected: Expectation, *more: dict[str, Any]) -> Expected:
    joined = dict(expected.work)
    for values in more:
        joined |= values
    return cast("Expected", joined)


def _rules(expected: Expectation) -> dict[str, Any]:
    found = asdict(expected)
    return {key: found[key] for key in ("unit", "same_work", "ready", "reports_itself")}


def _surroundings(experiment: Experiment, host: HostConfig, trial: PlannedTrial) -> dict[str, Any]:
    image = experiment.images.get(trial.image)
    return {
        "kind": trial.kind,
        "workload": experiment.workload.kind,
        "endpoint": experiment.endpoint,
        "device": experiment.device,
        "gpus": list(host.gpus) if experiment.device == "cuda" else [],
        "runtime": image.runtime if image else "none",
        **metering(host),
    }


def metering(host: HostConfig) -> dict[str, Any]:
    """The keys of :class:`Expected` about the host's meters."""
    named: dict[str, Any] = {"meter": host.meter.kind, "interval_ms": host.meter.interval_ms}
    if host.meters or host.remote_meters or host.meter.domain:
        named["meters"] = [
            {"name": m.name, "kind": m.kind, "domain": m.domain, "primary": m is host.meter}
            for m in host.all_meters
        ]
    return named
