"""Deferred waits from end to end: real triggers in an event loop, SSH, agent, store, and a meter on the network.

Airflow alone is absent: it would say that it is the trial's turn, and keep the task's arguments.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from tests.support import ssh_server
from tests.support.live_chain import SPOKEN
from tests.support.stored_runs import HOSTS, experiment, prepared
from tests.support.wall_meter import Answers, Device, Load, serving, shelly
from wattbench.airflow import connections, host_threads, task_context, triggers, windows
from wattbench.airflow.triggers import MeasuredAttempt, RestedHost, ThreadTrigger
from wattbench.analysis.model.attempt_report import AttemptReport
from wattbench.config.hosts import HostConfig
from wattbench.remote_meters.watch import EDGE_READINGS
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run
from wattbench.steps.check_host import take_lease
from wattbench.steps.close_host import close_host
from wattbench.steps.trial import collect, collect_stored
from wattbench.storage.object_store import Store
from wattbench.worker.ssh import Host
from wattbench.worker.target import HostTarget

pytestmark = pytest.mark.slow  # attempts in real time

HOST, GROUP = "lab-a", "lab-a.trial"
WATTS = 120.0
WINDOW_S = 1.5
PATIENCE_S = 60.0


@dataclass
class Turns:
    """Whether the event loop goes on while something else is under way in its process.

    Attributes:
        seen: the answer each time that it was asked.
    """

    loop: asyncio.AbstractEventLoop | None = None
    seen: list[bool] = field(default_factory=list)

    def ask(self) -> None:
        """Let the loop run a callback; called by what answers the triggers."""
        loop, turned = self.loop, threading.Event()
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(turned.set)
        self.seen.append(turned.wait(4.0))  # a client that blocks the loop gives up no sooner


@dataclass
class Lab:
    """A run, its host and its meter, and what they were asked."""

    run: Run
    target: HostTarget
    server: ssh_server.Server
    turns: Turns
    states: dict[str, str | None]

    @property
    def trial(self) -> PlannedTrial:
        return self.run.plan(HOST)[0]

    @property
    def key(self) -> str:
        return store_keys.trial_key(self.run.run_id, HOST, self.trial.name, 1)

    def arguments(self) -> dict[str, Any]:
        spec = cast("dict[str, Any]", self.trial.to_dict())
        return {"run_id": self.run.run_id, "host": HOST, "spec": spec}

    def rest(self) -> RestedHost:
        made = RestedHost(
            **self.arguments(), group=GROUP, map_index=0, dag_id="night", dag_run_id="1"
        )
        made._states = self._states  # type: ignore[method-assign]
        return made

    def measure(self) -> MeasuredAttempt:
        return MeasuredAttempt(**self.arguments(), rest={"rested_s": 1.0}, late=False)

    def _states(self, tasks: tuple[str, ...], index: int | None = None) -> Mapping[str, str | None]:
        del index
        return {k: v for k, v in self.states.items() if k.split(".")[-1].split("_")[0] in tasks}

    def verbs(self) -> list[str]:
        """What the agent was asked, in order."""
        return [c.split()[-1] for c in self.server.commands if not c.startswith("sha256sum")]


@pytest.fixture
def lab(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    spoken = tmp_path / "spoken.py"
    spoken.write_text(SPOKEN)
    command = [sys.executable, "-IS", str(spoken), json.dumps({"seconds": WINDOW_S})]
    protocol = experiment().model_dump(mode="json")["protocol"]
    made = prepared(
        store,
        experiment(
            images={name: {"runtime": "process", "command": command} for name in ("a", "b")},
            protocol=protocol | {"rest": {"min_s": 0.2, "max_s": 1}, "timeout_s": 60},
        ),
    )
    turns = Turns()
    plug = shelly(Device(Load(((0.0, WATTS),))))
    with ssh_server.serving() as server, serving(_asking(plug, turns)) as url:
        server.before_each = turns.ask
        meter = {
            "kind": "http", "name": "plug", "interval_ms": 200, "averaged_s": 0.2,
            "url": f"{url}/rpc/Switch.GetStatus", "energy": {"path": "aenergy.total", "unit": "Wh"},
        }  # fmt: skip
        config = HostConfig.model_validate({"ssh_conn_id": "a", "meter": meter})
        made.document["hosts"][HOST] = {"config": config.model_dump(mode="json")}
        store.put_json(store_keys.run_json_key(made.run_id), made.document)
        target = ssh_server.target_of(server, tmp_path / "spool", HOST)
        for module in (connections, host_threads):
            monkeypatch.setattr(module, "host_target", lambda *_: target)
        for module in (host_threads, task_context):
            monkeypatch.setattr(module, "hosts_config", lambda: HOSTS)
        monkeypatch.setattr(host_threads, "_idle", {})
        monkeypatch.setattr(windows, "_windows", {})
        monkeypatch.setattr(triggers, "_known_run", lambda _: made)
        states = {f"{GROUP}.rest_0": "deferred"}
        yield Lab(made, target, server, turns, states | {f"{GROUP}.collect_0": None})
        for idle in host_threads._idle.values():
            idle.closing.cancel()
            idle.host.close()
        with Host(target) as host:
            host.ship()
            host.call("cleanup", {"owner": made.run_id})


def _asking(plug: Answers, turns: Turns) -> Answers:
    def during(
        answer: Callable[[dict[str, str]], tuple[int, str, bytes]],
    ) -> Callable[[dict[str, str]], tuple[int, str, bytes]]:
        def asked(query: dict[str, str]) -> tuple[int, str, bytes]:
            turns.ask()
            return answer(query)

        return asked

    return replace(plug, by_path={path: during(answer) for path, answer in plug.by_path.items()})


async def events(lab: Lab, trigger: ThreadTrigger) -> list[TriggerEvent]:
    """What a trigger gives its task, as the triggerer runs it: made anew of what Airflow keeps."""
    lab.turns.loop = asyncio.get_running_loop()
    return [event async for event in trigger.run()]


@asynccontextmanager
async def cancelled(lab: Lab, trigger: ThreadTrigger) -> AsyncIterator[None]:
    """A trigger that runs inside the context and whose task a person has marked or cleared after it."""
    running = asyncio.create_task(events(lab, trigger))
    yield
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def until(seen: Callable[[], bool]) -> None:
    """Wait for something that happens outside of the loop."""
    deadline = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def moments(data: bytes) -> list[float]:
    """When a meter was read."""
    lines = [json.loads(line) for line in data.splitlines()]
    return [line["sample"]["unix_s"] for line in lines if "sample" in line]


def test_a_remote_meter_is_read_around_a_deferred_window_and_the_host_is_left_alone(
    lab: Lab,
) -> None:
    async def rest_then_measure() -> None:
        (rested,) = await events(lab, lab.rest())
        assert isinstance(rested, TaskSuccessEvent)
        lab.states[f"{GROUP}.rest_0"] = "success"
        (measured,) = await events(lab, lab.measure())
        assert isinstance(measured, TaskSuccessEvent), measured.payload
        assert measured.xcoms is not None
        assert measured.xcoms["return_value"]["state"] == "done"

    asyncio.run(rest_then_measure())
    assert lab.turns.seen
    assert all(lab.turns.seen)
    verbs = lab.verbs()
    first, last = verbs.index("start"), len(verbs) - verbs[::-1].index("start")
    assert verbs[first - 1] == "clock"
    assert verbs[last:][:2] == ["wait", "clock"]
    assert len(lab.server.transports) == 1
    report = AttemptReport.of(lab.run.store.get_json(f"{lab.key}/attempt.json"))
    start, end = report.started.unix_s, report.ended.unix_s
    assert start is not None
    assert end is not None
    record = collect_stored(lab.run, HOST, lab.trial)
    assert record is not None
    assert record.row.energy_scope == "wall", record.row.reason
    assert record.row.energy_j is not None
    assert record.row.duration_s is not None
    assert record.row.energy_uncertainty_j is not None
    off_j = abs(record.row.energy_j - WATTS * record.row.duration_s)
    assert off_j <= record.row.energy_uncertainty_j
    read = moments(gzip.decompress(lab.run.store.get(f"{lab.key}/http.jsonl.gz")))
    assert sum(at_s < start for at_s in read) >= EDGE_READINGS
    assert sum(start < at_s < end for at_s in read) >= EDGE_READINGS
    assert sum(at_s > end for at_s in read) >= EDGE_READINGS


def test_a_controller_on_the_host_has_done_all_for_the_trial_before_its_window_opens(
    lab: Lab, tmp_path: Path
) -> None:
    config = lab.run.document["hosts"][HOST]["config"]
    config["controller"] = str(tmp_path)
    joined: list[bool] = []

    def note() -> None:
        if lab.server.commands[-1].endswith(" wait"):
            joined.append(windows._windows[HOST][-1].joined.is_set())

    lab.server.before_each = note

    async def rest_then_measure() -> None:
        await events(lab, lab.rest())
        lab.states[f"{GROUP}.rest_0"] = "success"
        (measured,) = await events(lab, lab.measure())
        assert isinstance(measured, TaskSuccessEvent), measured.payload

    asyncio.run(rest_then_measure())
    assert joined == [True]


def test_a_second_triggerer_leaves_the_readings_to_the_one_that_began_the_attempt(
    lab: Lab,
) -> None:
    async def rest_here_then_measure_there() -> None:
        await events(lab, lab.rest())
        windows_here = windows._windows.pop(HOST)
        (measured,) = await events(lab, lab.measure())
        assert isinstance(measured, TaskSuccessEvent), measured.payload
        await until(windows_here[-1].end.done)

    asyncio.run(rest_here_then_measure_there())
    assert lab.verbs().count("wait") == 2
    record = collect_stored(lab.run, HOST, lab.trial)
    assert record is not None
    assert record.row.energy_scope == "wall", record.row.reason


def test_a_window_whose_measure_a_person_ends_keeps_its_remote_readings(lab: Lab) -> None:
    async def end_in_mid_window() -> None:
        async with cancelled(lab, lab.measure()):
            await until(lambda: "wait" in lab.verbs())

    with Host(lab.target) as host:
        host.ship()
        assert take_lease(lab.run, host, HOST, anew=True) is None
    asyncio.run(end_in_mid_window())
    with Host(lab.target) as host:
        record = collect(lab.run, host, HOST, lab.trial)
    assert record is not None
    assert record.row.energy_scope == "wall", record.row.reason
    (window,) = windows.windows_of(HOST, lab.run.run_id)
    assert window.end.exception(PATIENCE_S) is None
    assert not [t for t in threading.enumerate() if t.name == "meter-plug"]


@pytest.mark.parametrize("verb", ["lease", "quiet"])
def test_a_cancelled_rest_starts_nothing_and_leaves_no_connection_and_no_lease(
    lab: Lab, verb: str
) -> None:
    protocol = lab.run.experiment.protocol
    object.__setattr__(protocol.rest, "min_s", 3600.0)
    object.__setattr__(protocol.rest, "max_s", 3600.0)

    async def cancel() -> None:
        async with cancelled(lab, lab.rest()):
            await until(lambda: verb in lab.verbs())
        await until(lambda: not any(t.is_active() for t in lab.server.transports))

    asyncio.run(cancel())
    assert "start" not in lab.verbs()
    with Host(lab.target) as host:
        assert host.call("lease", {"action": "show"})["held"] in (True, verb != "lease")
        assert close_host(lab.run, host, HOST) == 0
        assert not host.call("lease", {"action": "show"})["held"]


def test_a_rest_that_is_cancelled_while_the_meter_is_read_starts_nothing(lab: Lab) -> None:
    async def cancel() -> None:
        async with cancelled(lab, lab.rest()):
            await until(lambda: "clock" in lab.verbs())
        await until(lambda: not any(t.is_active() for t in lab.server.transports))
        await until(lambda: not [t for t in threading.enumerate() if t.name == "meter-plug"])

    asyncio.run(cancel())
    assert "start" not in lab.verbs()
    assert windows.windows_of(HOST, lab.run.run_id) == ()
