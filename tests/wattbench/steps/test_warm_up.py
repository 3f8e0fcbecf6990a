"""The warm-up's end: steady, or at its limits; never longer, never sooner than asked; GPUs by the same rule."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stored_runs import experiment, prepared
from wattbench.config.experiment import WarmUp
from wattbench.config.hosts import HostsConfig
from wattbench.run.stored_run import Run
from wattbench.steps import warm_up
from wattbench.steps.warm_up import Reading, Warmth, gpu_load, judge, keep, keep_gpus
from wattbench.storage.object_store import Store


def heating(
    tau_s: float, rise_c: float, until_s: float, *, every_s: float = 5, power: bool = True
) -> list[Reading]:
    """A body that warms exponentially, read by a sensor of whole degrees; leakage follows the heat."""

    def at(t: float) -> Reading:
        warm = 1 - math.exp(-t / tau_s)
        return Reading(t, round(40 + rise_c * warm), 100 * (1 + 0.02 * warm) if power else None)

    return [at(t * every_s) for t in range(int(until_s / every_s) + 1)]


def ended(readings: list[Reading], wanted: WarmUp) -> Warmth:
    """As the sensor looks: after each reading."""
    for n in range(1, len(readings) + 1):
        found = judge(readings[:n], wanted)
        if found.over:
            return found
    raise AssertionError("it never ends")


@given(st.floats(10, 240), st.floats(5, 50), st.floats(0, 120), st.floats(180, 900))
def test_it_ends_when_hardly_anything_moves_and_within_its_limits(
    tau_s: float, rise_c: float, seconds: float, max_s: float
) -> None:
    wanted = WarmUp(seconds=seconds, max_s=max_s)
    found = ended(heating(tau_s, rise_c, 1000), wanted)
    assert seconds <= found.elapsed_s <= max(seconds, max_s) + 5
    # Half a minute's move of at most 0.5 °C by a sensor of whole degrees: under 1.5 °C in truth.
    warm_s = tau_s * math.log(max(1.0, rise_c * (1 - math.exp(-30 / tau_s)) / 1.5))
    if found.steady:
        assert found.elapsed_s >= warm_s - 30
    else:
        assert found.elapsed_s >= max_s


def test_a_slow_machine_takes_longer_than_a_quick_one() -> None:
    wanted = WarmUp(seconds=30, max_s=900)
    quick, slow = (ended(heating(tau, 30, 900), wanted) for tau in (15, 120))
    assert quick.steady
    assert slow.steady
    assert quick.elapsed_s < 150 < slow.elapsed_s


def test_a_host_without_sensors_is_warmed_for_the_fixed_time() -> None:
    blind = [Reading(t, None, None) for t in range(0, 100, 5)]
    found = ended(blind, WarmUp(seconds=60))
    assert (found.elapsed_s, found.steady) == (60, None)
    assert "neither temperature nor power" in found.why


def test_a_fixed_time_is_a_fixed_time() -> None:
    found = ended(heating(300, 40, 100), WarmUp(seconds=60, until_steady=False))
    assert (found.elapsed_s, found.steady, found.why) == (60, None, "for a fixed time")


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_the_limit_is_never_below_the_least(seconds: float) -> None:
    assert WarmUp(seconds=seconds, max_s=0).limit_s == seconds
    assert WarmUp(seconds=90, until_steady=False).limit_s == 90


def test_a_warm_up_that_did_not_become_steady_is_a_soft_problem_of_the_host(store: Store) -> None:
    run = prepared(store, experiment())
    run.write_host_document("lab-a", {"host": "lab-a", "facts": {"a": 1}, "problems": []})
    for max_s, problems in ((60, ["not-steady"]), (900, [])):
        found = ended(heating(100, 40, 900), WarmUp(seconds=30, max_s=max_s))
        keep(run, "lab-a", found)
        document = run.host_document("lab-a")
        assert document is not None
        assert document["facts"] == {"a": 1}
        assert document["warm_up"]["steady"] is (not problems)
        assert [p["code"] for p in document["problems"]] == problems


# ── GPUs ────────────────────────────────────────────────────────────────────────────────────────

IDLE_W, IMPORT_S, TAU_S = 75.0, 90.0, 60.0


class GpuHost:
    """A host whose GPUs idle while the framework is imported, and then warm exponentially.

    Time passes with each look. ``fails``: what the program ends with instead.
    """

    def __init__(self, works: bool = True, fails: str = "") -> None:
        self.now_s, self.works, self.fails = 0.0, works, fails
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.load: dict[str, Any] | None = None

    def has_file(self, _sha256: str) -> bool:
        return True

    def call(self, verb: str, payload: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((verb, payload))
        if verb == "start":
            self.load = payload
        if verb == "status":
            if self.load is None:
                return {"state": "unknown"}
            report = {"state": "failed", "message": self.fails}
            return {"state": "over", "report": report} if self.fails else {"state": "running"}
        if verb == "warm":
            self.now_s += 5.0
            worked_s = max(0.0, self.now_s - IMPORT_S) if self.works else 0.0
            warm = 1 - math.exp(-worked_s / TAU_S)
            watts = IDLE_W if not worked_s else 400.0 * (1 + 0.05 * warm)
            return {"gpu_temperature_c": round(40 + 35 * warm), "gpu_power_w": watts}
        return {}


def with_gpus(store: Store, name: str = "night", **changes: Any) -> Run:
    """A run on a host with two GPUs, whose idle level is known and whose images have been brought."""
    warm = {"seconds": 30, "max_s": 600}
    protocol = {"blocks": 4, "warm_up": warm, "idle_baseline": None}
    run = prepared(store, experiment(**{"device": "cuda", "protocol": protocol, **changes}), name)
    hosts = HostsConfig.model_validate(
        {
            "store": {"bucket": "wattbench"},
            "hosts": {"lab-a": {"ssh_conn_id": "a", "gpus": ["GPU-a", "GPU-b"]}},
        }
    )
    config = hosts.hosts["lab-a"].model_dump(mode="json")
    run.document["hosts"]["lab-a"]["config"] = config
    run.write_host_document("lab-a", {"facts": {"idle": {"gpu_power_w": IDLE_W}}, "problems": []})
    for image in run.experiment.images:
        run.write_pull("lab-a", image, {"image": None})
    return run


def warmed(run: Run, host: Any, monkeypatch: pytest.MonkeyPatch) -> Warmth:
    """As the trigger does it."""
    monkeypatch.setattr(warm_up.time, "monotonic", lambda: host.now_s)
    load = gpu_load(run, "lab-a")
    assert load is not None
    assert not load.is_running(host)
    load.start(host)
    while not (found := load.look(host)).over:
        pass
    load.end(host)
    keep_gpus(run, "lab-a", found)
    return found


def test_gpus_are_warmed_by_the_program_until_they_are_steady(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, host = with_gpus(store), GpuHost()
    found = warmed(run, host, monkeypatch)
    assert found.steady
    # Start-up does not count as steady; +0.5 °C in half a minute is left after about four time constants.
    assert IMPORT_S + 2.5 * TAU_S < found.elapsed_s < IMPORT_S + 7 * TAU_S
    assert host.load is not None
    assert host.load["gpus"] == ["GPU-a", "GPU-b"]
    assert host.load["command"][-4:] == ["--warm-s", "900", "--gpus", "2"]
    assert host.load["id"].endswith("/pull-a-warm/1")
    assert [verb for verb, _ in host.calls][-2:] == ["cleanup", "forget"]
    document = run.host_document("lab-a")
    assert document is not None
    assert document["warm_up"]["gpus"]["why"].startswith("steady: ")
    assert document["problems"] == []


def test_gpus_that_stay_idle_under_load_are_a_soft_problem(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_gpus(store)
    keep(run, "lab-a", Warmth(True, False, 600.0, "without steady state", Reading(600.0, 60, 90)))
    found = warmed(run, GpuHost(works=False), monkeypatch)
    assert (found.steady, found.elapsed_s) == (False, 300.0)
    document = run.host_document("lab-a")
    assert document is not None
    assert [p["message"] for p in document["problems"]] == [
        "the warm-up ended without steady state",
        "the warm-up of the GPUs ended the GPUs draw 75 W, no more than idle",
    ]
    assert document["warm_up"]["why"] == "without steady state"


def test_gpus_are_not_warmed_where_no_image_can_and_the_record_says_why(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = GpuHost(fails="the workload ended with 3: torch is not installed")
    found = warmed(with_gpus(store), host, monkeypatch)
    assert found.steady is None
    assert found.why == (
        "not warmed: the built-in program in a ended: the workload ended with 3: torch is not installed"
    )
    other, untouched = with_gpus(store, "other", workload={"command": "bench"}), GpuHost()
    found = warmed(other, untouched, monkeypatch)
    assert found.why == "not warmed: no image that is here runs the built-in program"
    assert [verb for verb, _ in untouched.calls] == []


def test_a_host_without_given_gpus_has_none_to_warm(store: Store) -> None:
    assert gpu_load(prepared(store, experiment()), "lab-a") is None
    assert gpu_load(with_gpus(store, device="cpu"), "lab-a") is None
