"""Documents of the agent: their check follows from their types, for what the controller writes too."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig
from wattbench.run.plan import PlannedTrial
from wattbench.worker.agent import documents
from wattbench.worker.agent.attempts import checked_spec
from wattbench.worker.agent.base import AgentError
from wattbench.worker.attempt_spec import attempt_spec

DOCUMENTS = {
    name: kind
    for name, kind in vars(documents).items()
    if isinstance(kind, type) and issubclass(kind, documents.TypedDict) and name != "TypedDict"
}
FIELDS = {
    f"{name}.{key}": wanted
    for name, kind in DOCUMENTS.items()
    for key, wanted in vars(kind).get("__annotations__", {}).items()
}
VALUES: list[Any] = [
    "text",
    True,
    1,
    1.5,
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
    {"a": "b"},
    {"a": {"b": 1}},
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_accepts_what_another_checker_of_types_accepts(field: str) -> None:
    wanted = FIELDS[field]
    one = type("One", (documents.TypedDict,), {"__annotations__": {"x": wanted}})
    assert documents.misfit({}, one) == (None if "None" in wanted else "no x")
    if set(DOCUMENTS) & set(wanted.replace("]", " ").replace("[", " ").split()):
        assert "is not a object" in str(
            documents.misfit({"x": "text"}, one)
        )  # its fields are in FIELDS
        return
    oracle = TypeAdapter(eval(wanted))
    for value in VALUES:
        try:
            oracle.validate_python(value, strict=True)
            accepted = True
        except ValidationError:
            accepted = False
        assert (documents.misfit({"x": value}, one) is None) == accepted, value


def whole_spec() -> dict[str, Any]:
    """What the controller writes for an image that uses every setting of containers."""
    experiment = Experiment.model_validate(
        {
            "hosts": ["h1"],
            "workload": {"passes": [{"resolution": 32, "iterations": 1}]},
            "images": {"a": {"ref": "r.example/a:1", "env": {"A": "1"}, "container": {
                "volumes": {"/data": {"host": "/srv/data", "writable": True}, "/x": "/srv/x"},
                "shm_size": "1g", "ipc": "private", "cpus": 2, "cpuset": "0-1", "memory": "2g",
                "ulimits": {"nofile": 1024, "core": {"soft": 0, "hard": 1}}, "user": 1000,
                "workdir": "/data", "network": "bridge", "tmpfs": {"/tmp": "64m"},
                "capabilities": ["SYS_NICE"],
            }}},
            "reference": "a",
        }
    )  # fmt: skip
    host = HostConfig.model_validate({"ssh_conn_id": "x", "gpus": ["GPU-1"]})
    return {**attempt_spec(
        experiment, host, run_id="r", host_name="h1", trial=PlannedTrial(1, 1, "workload", "a"),
        attempt=1, ref="r.example/a@sha256:1", files={"/opt/w.pyz": "f" * 64},
        rest={"rested_s": 3.0, "readings": {"power_w": 1.0}}, late=True,
    )}  # fmt: skip


def test_what_the_controller_writes_is_what_the_agent_keeps() -> None:
    spec = whole_spec()
    assert set(spec["container"]) == set(vars(documents.ContainerSpec)["__annotations__"])
    assert checked_spec({**spec, "spool": "/s"}) == spec


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("late",), "no", "late is not a truth value"),
        (("gpus",), [0], r"gpus\[0\] is not a text"),
        (("env", "A"), 1, r"env\[A\] is not a text"),
        (("meter", "kind"), None, r"no meter\.kind"),
        (("meter", "interval_ms"), 0.5, r"meter\.interval_ms is not a whole number"),
        (("container", "memory"), "2g", r"container\.memory is not a whole number"),
        (
            ("container", "volumes", "/x", "host"),
            7,
            r"container\.volumes\[/x\]\.host is not a text",
        ),
        (("container", "ulimits", "core", "soft"), None, r"no container\.ulimits\[core\]\.soft"),
    ],
)
def test_a_malformed_field_is_refused_by_its_path(
    place: tuple[str, ...], value: object, why: str
) -> None:
    spec: Any = whole_spec()
    inner = spec
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(AgentError, match=f"^start: {why}$"):
        checked_spec(spec)
