"""The meter around a pull: its joules against the stand-in's truth, and that it never stands in the way."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_chain import STAND_IN, Here, Shelf
from wattbench.errors import RegistryError
from wattbench.run.stored_run import Run
from wattbench.steps.pull_energy import metered
from wattbench.worker.attempt_spec import metering_spec

pytestmark = pytest.mark.slow  # meters in real time

#: 40 W and 3 W whatever the machine below is doing.
FLAT = "cpus:2,idle_w:40,core_w:0,dram_idle_w:3,dram_core_w:0"


def a_run(**meter: Any) -> Run:
    config = {"ssh_conn_id": "x", "meter": {"kind": "energibridge", "interval_ms": 100} | meter}
    store: Any = Shelf()
    return Run(store, {"run_id": "run-1", "hosts": {"h1": {"config": config}}})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WATTBENCH_METER_CONFIG", "/nonexistent")
    monkeypatch.setenv("WATTBENCH_METER_FAULT", FLAT)
    monkeypatch.setenv("WATTBENCH_METER_TRUTH", str(tmp_path / "truth.json"))
    here = Here(tmp_path / "spool")
    here.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
    return here


def test_joules_are_those_of_the_time_around_the_pull(host: Any) -> None:
    run = a_run(command=[str(STAND_IN)])
    with metered(run, host, "h1", "pip") as energy:
        began = time.monotonic()
        time.sleep(1.0)
        pulled_s = time.monotonic() - began
    assert energy["window_s"] >= pulled_s
    assert energy["package_j"] == pytest.approx(40 * energy["window_s"], rel=0.02)
    assert energy["dram_j"] == pytest.approx(3 * energy["window_s"], rel=0.02)
    assert energy["energy_j"] == pytest.approx(energy["package_j"] + energy["dram_j"])
    assert (energy["energy_source"], energy["energy_scope"]) == ("measured", "package+dram")
    kept: Any = run.store
    folder = "runs/run-1/hosts/h1/pulls/pip"
    assert kept.kept[f"{folder}/energibridge.csv.gz"].startswith(b"Delta,Time,")
    assert kept.kept[f"{folder}/attempt.json"]["state"] == "done"
    assert host.call("list", {})["attempts"] == []


def test_joules_of_a_modelled_meter_are_called_so(host: Any) -> None:
    run = a_run(kind="modelled", command=[str(STAND_IN)])
    with metered(run, host, "h1", "pip") as energy:
        pass
    assert energy["energy_source"] == "modelled"


def test_a_pull_that_fails_ends_its_meter_too(host: Any) -> None:
    run = a_run(command=[str(STAND_IN)])
    with pytest.raises(RegistryError, match="gone"), metered(run, host, "h1", "pip") as energy:
        raise RegistryError("gone")
    assert energy["energy_j"] > 0
    assert host.call("list", {})["attempts"] == []
    assert host.call("lease", {"action": "show"})["active"] is None


@pytest.mark.parametrize(
    ("meter", "switches", "why"),
    [
        ({"command": [str(STAND_IN)]}, "msr_start:1", "the meter ended with 101"),
        ({"command": ["/no/such/meter"]}, "", "/no/such/meter"),
        ({"kind": "powercap", "command": None}, "", "no energy"),
    ],
)
def test_a_meter_that_fails_lets_the_pull_go_on_and_says_why(
    host: Any, monkeypatch: pytest.MonkeyPatch, meter: dict[str, Any], switches: str, why: str
) -> None:
    monkeypatch.setenv("WATTBENCH_METER_FAULT", f"{FLAT},{switches}".strip(","))
    went_on = False
    with metered(a_run(**meter), host, "h1", "pip") as energy:
        went_on = True
    assert went_on
    assert why in energy["why"]
    assert "energy_j" not in energy


def test_a_host_that_refuses_lets_the_pull_go_on_and_says_why(host: Any) -> None:
    host.call("lease", {"action": "release", "owner": "run-1"})
    with metered(a_run(command=[str(STAND_IN)]), host, "h1", "pip") as energy:
        pass
    assert energy["why"] == "run-1 does not hold this host"


def test_the_meter_that_a_killed_task_left_running_is_ended_first(host: Any) -> None:
    run = a_run(command=[str(STAND_IN)])
    spec = metering_spec(run.host_config("h1"), run_id="run-1", host_name="h1", image="other")
    assert host.call("start", json.loads(json.dumps(spec)))["state"] == "started"
    with metered(run, host, "h1", "pip") as energy:
        pass
    assert energy["energy_j"] > 0
    assert host.call("list", {})["attempts"] == []
