"""Each fault in each phase of a small run: what is injected, and how the run has to end (tests/faults/matrix.py)."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from demo import hosts, registry, settings
from tests.faults.matrix import Cell, End, Phase, cells
from tests.integration.conftest import Lab
from tests.integration.interventions import (
    active,
    assert_closed,
    at_work,
    children,
    clear_run,
    cut_link,
    delete,
    pause,
    processes_of,
    set_state,
    task_instance_id,
)
from wattbench.dag_runs import Run, Task
from wattbench.local import airflow_services, object_store
from wattbench.local.processes import service
from wattbench.run import store_keys

pytestmark = [pytest.mark.docker, pytest.mark.faults, pytest.mark.timeout(2400)]

SPOOL = hosts.SPOOL
METER = settings.METER
#: Seconds that a service is away: longer than any single try of ours, shorter than the patience.
AWAY_S = 20
#: The task that is at work in each phase.
TASKS = {
    Phase.PULL: ".pull", Phase.WARM_UP: ".warm_up", Phase.WINDOW: "trial.measure",
    Phase.COLLECT: "trial.collect", Phase.UPLOAD: "trial.collect", Phase.ANALYZE: "analyze",
}  # fmt: skip

#: Called when the run is over.
After = Callable[[], None]


def experiment_of(lab: Lab) -> str:
    """The experiment on the lane's host."""
    return f"it-fault-{lab.bed.hosts[0].name}"


@pytest.fixture(scope="module", autouse=True)
def experiments(lab: Lab) -> None:
    lab.write_experiment(
        experiment_of(lab), hosts=[lab.bed.hosts[0].name], images={"pip-numpy": {"ref": lab.image("pip-numpy")}},
        workload={"framework": "numpy", "passes": [{"resolution": 256, "iterations": 40}]},
        protocol={
            "blocks": 1, "warm_up": {"seconds": 10, "until_steady": False}, "timeout_s": 120,
            "rest": {"min_s": 0.5, "max_s": 5}, "idle_baseline": None,
        },
    )  # fmt: skip


@dataclass
class Scene:
    """A run in a phase."""

    lab: Lab
    run: Run
    phase: Phase

    def reach(self, phase: Phase) -> None:
        """Wait until the run is in a phase."""
        if phase is Phase.WINDOW:
            self.lab.wait_for(self.run, lambda _: self._trial_window(), within_s=600)
        elif phase is Phase.UPLOAD:
            self._wait_for_upload()
        elif phase is Phase.COLLECT:  # at work it is seen by chance only: it may last half a second
            self.lab.wait_for(self.run, _collect_begins, within_s=600, every_s=0.05)
        else:
            self.lab.wait_for(self.run, lambda t: at_work(t, TASKS[phase]), within_s=600)

    def task(self) -> Task:
        """The task that is at work in this phase."""
        found: Task = self.lab.wait_for(self.run, lambda t: at_work(t, TASKS[self.phase]))
        return found

    def stored(self, *names: str) -> Path:
        """A file of the first attempt in the store, on its disk."""
        host = self.lab.bed.hosts[0].name
        name = self.lab.stored(self.run).plan(host)[0].name
        key = store_keys.trial_key(self.run.run_id, host, name, 1, *names)
        return self.lab.bed.checkout.folder("store") / object_store.BUCKET / key

    def root(self, script: str) -> str:
        """As root on the host, past its sshd."""
        return self.lab.in_container(0, "sh", "-ec", script)

    def kill(self, pattern: str, signal_name: str = "KILL") -> None:
        """Signal processes of the host by their command lines; they may have to be waited for."""
        self.root(
            f"for n in $(seq 150); do pkill -{signal_name} -f '{pattern}' && exit 0; sleep 0.1; done; "
            f"echo no process '{pattern}'; exit 1"
        )

    def _trial_window(self) -> bool:
        attempt = active(self.lab)
        return attempt is not None and not attempt.split("/")[2].startswith("pull-")

    def _wait_for_upload(self) -> None:
        self.lab.wait_for(self.run, lambda t: at_work(t, TASKS[Phase.WINDOW]), within_s=600)
        folder, deadline = self.stored(), time.monotonic() + 300
        while not folder.exists():  # an upload lasts less than a look through Airflow's API
            assert time.monotonic() < deadline, self.lab.table(self.run)
            time.sleep(0.01)


def _collect_begins(tasks: list[Task]) -> bool:
    begun = ("scheduled", "queued", "running", "deferred", "success")
    return any(t.task_id.endswith("trial.collect") and t.state in begun for t in tasks)


Inject = Callable[[Scene], After | None]


# ── the controller ──────────────────────────────────────────────────────────────────────────────


def kill_task(scene: Scene) -> None:
    for process in processes_of(task_instance_id(scene.lab, scene.run, scene.task())):
        os.kill(process, signal.SIGKILL)


def kill_service(name: str) -> Inject:
    def inject(scene: Scene) -> None:
        before = children(scene.lab, name)
        assert before, f"{name} has no process"
        for process in before:
            os.kill(process, signal.SIGKILL)

    return inject


def lock_database(scene: Scene) -> None:
    with closing(
        sqlite3.connect(scene.lab.bed.airflow.home / "airflow.db", timeout=60)
    ) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(30)
        database.rollback()


# ── between controller and host ─────────────────────────────────────────────────────────────────


def kill_on_host(pattern: str, signal_name: str = "KILL") -> Inject:
    return lambda scene: scene.kill(pattern, signal_name)


# ── on the host ─────────────────────────────────────────────────────────────────────────────────


def until_collected(scene: Scene) -> None:
    scene.lab.wait_for(
        scene.run,
        lambda tasks: any(t.task_id.endswith("trial.collect") and t.state for t in tasks),
        within_s=600,
    )


def meter_without_file(scene: Scene) -> None:
    """Set while the host warms up, so that the first window has it."""
    script = '#!/bin/sh\\nwhile [ "$1" != -- ]; do shift; done\\nshift\\n"$@"\\nexit 0\\n'
    scene.root(f"cp -p {METER} {METER}.kept; printf '{script}' > {METER}")
    try:
        until_collected(scene)
    finally:
        scene.root(f"mv {METER}.kept {METER}")


def meter_with_clock_step(scene: Scene) -> None:
    """Set while the host warms up, so that the first window has it."""
    file = "/etc/wattbench-meter.json"
    step = json.dumps({"clock_step_ms": -9000, "clock_step_row": 10})
    scene.root(f"[ ! -e {file} ] || cp {file} {file}.kept; echo '{step}' > {file}")
    try:
        until_collected(scene)
    finally:
        scene.root(f"rm {file}; [ ! -e {file}.kept ] || mv {file}.kept {file}")


def on_container(command: str) -> Inject:
    def inject(scene: Scene) -> None:
        scene.root(
            "for n in $(seq 150); do one=$(docker ps -q --filter label=wattbench.run); "
            f'[ -n "$one" ] && exec docker {command} $one; sleep 0.1; done; echo no container runs; exit 1'
        )

    return inject


def kill_dockerd(scene: Scene) -> None:
    scene.root("kill -9 $(cat /run/docker.pid)")


def power_cycle(*, polite: bool) -> Inject:
    def inject(scene: Scene) -> None:
        host = docker.from_env().containers.get(scene.lab.bed.hosts[0].container)
        if polite:
            host.restart(timeout=5)
        else:
            host.kill()
            time.sleep(5)
            host.start()

    return inject


def fill_spool(scene: Scene) -> After:
    """Trials lie in a file system of their own of 24 MB, which is full for a while."""
    trials = f"{SPOOL}/trials"
    scene.root(f"dd if=/dev/zero of={trials}/fill bs=64k 2>/dev/null || test -s {trials}/fill")
    time.sleep(AWAY_S)
    scene.root(f"rm {trials}/fill")
    return lambda: None


def small_spool(lab: Lab) -> After:
    trials = f"{SPOOL}/trials"
    lab.in_container(
        0, "sh", "-c",
        f"install -d -o bench -g bench {trials} && mount -t tmpfs -o size=24m,uid=$(id -u bench),gid=$(id -g bench) tmpfs {trials}",
    )  # fmt: skip

    def unmount() -> None:
        lab.in_container(0, "umount", "-l", trials)

    return unmount


# ── what a run needs beside them ────────────────────────────────────────────────────────────────


def store_down(scene: Scene) -> None:
    bed = scene.lab.bed
    service(bed.checkout, object_store.NAME).stop()
    time.sleep(AWAY_S)
    object_store.ensure(bed.checkout, bed.store)


def store_slow(scene: Scene) -> None:
    pid = service(scene.lab.bed.checkout, object_store.NAME).pid()
    assert pid is not None
    for _ in range(AWAY_S):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.9)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)


def store_refuses(scene: Scene) -> None:
    path = scene.lab.bed.checkout.demo / "connections.json"
    before = path.read_text()
    wrong = json.loads(before)
    wrong["wattbench_store"]["password"] = "revoked"
    path.write_text(json.dumps(wrong))
    try:
        time.sleep(AWAY_S)
    finally:
        path.write_text(before)


def store_damages(scene: Scene) -> After:
    file = scene.stored("energibridge.csv.gz")
    before = file.read_bytes()
    damaged = bytearray(before)
    damaged[len(before) // 2] ^= 0xFF
    file.write_bytes(damaged)

    def named_and_mended() -> None:
        broken = scene.lab.store.verify_manifest(store_keys.run_key(scene.run.run_id))
        file.write_bytes(before)
        assert any("energibridge.csv.gz" in str(one) for one in broken)

    return named_and_mended


def registry_down(scene: Scene) -> None:
    bed = scene.lab.bed
    for name in ("registry", "registry-push"):
        service(bed.checkout, name).stop()
    time.sleep(AWAY_S)
    registry.ensure(bed.checkout, bed.registry, lambda _: None)


# ── others ──────────────────────────────────────────────────────────────────────────────────────


def second_controller(scene: Scene) -> None:
    wanted = json.dumps({"action": "take", "owner": "another-controller", "ttl_s": 60})
    said = scene.lab.on_host(
        0, f"cd {SPOOL}/agent; echo '{wanted}' | python3 $(ls -t *.pyz | head -1) lease || true"
    )
    assert json.loads(said)["error"] == "leased", said


def second_run(scene: Scene) -> After:
    second = scene.lab.trigger(scene.run.dag_id, seed="7")

    def measured_too() -> None:
        over = scene.lab.follow(second, within_s=900)
        assert over.state == "success", scene.lab.table(over)

    return measured_too


# ── a person ────────────────────────────────────────────────────────────────────────────────────


def mark(state: str) -> Inject:
    return lambda scene: set_state(scene.lab, scene.run, state)


def pause_for_a_while(scene: Scene) -> None:
    pause(scene.lab, scene.run.dag_id, True)
    try:
        time.sleep(AWAY_S)
    finally:
        pause(scene.lab, scene.run.dag_id, False)


def broken_file(name_of: Callable[[Scene], str], text: str | None = "images: [") -> Inject:
    """What an editor leaves behind for a while; without a text, the file is away."""

    def inject(scene: Scene) -> None:
        path = scene.lab.config / name_of(scene)
        kept = path.read_text()
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        try:
            time.sleep(AWAY_S)
        finally:
            path.write_text(kept)

    return inject


def own_file(scene: Scene) -> str:
    return f"experiments/{scene.run.dag_id}.yaml"


INJECT: dict[str, Inject] = {
    "task process killed": kill_task,
    "scheduler killed": kill_service("scheduler"),
    "triggerer killed": kill_service("triggerer"),
    "api-server killed": kill_service("api-server"),
    "dag-processor killed": kill_service("dag-processor"),
    "database locked for 30 s": lock_database,
    "link down for 5 s": lambda scene: cut_link(scene.lab, 0, 5),
    "link down for 5 min": lambda scene: cut_link(scene.lab, 0, 300),
    "sshd killed": kill_on_host("[s]shd"),
    # A call of ours is `python3 AGENT.pyz VERB`; the supervisor, the wrapper and the burner go on.
    "agent killed": kill_on_host("[.]pyz (facts|wait|warm|quiet|start|status|list|pipe|finish|lease)"),
    "supervisor killed": kill_on_host("[.]pyz supervise"),
    "meter killed": kill_on_host("[e]nergibridge"),
    "meter hangs": kill_on_host("[e]nergibridge", "STOP"),
    "meter exits 0 without a file": meter_without_file,
    "clock of the meter steps back by 9 s": meter_with_clock_step,
    "container out of memory": on_container("update --memory 16m --memory-swap 16m"),
    "container hangs": on_container("pause"),
    "container killed": on_container("kill"),
    "dockerd killed": kill_dockerd,
    "host rebooted": power_cycle(polite=True),
    "host without power for 5 s": power_cycle(polite=False),
    "spool full for 20 s": fill_spool,
    "store down for 20 s": store_down,
    "store slow for 20 s": store_slow,
    "store refuses its keys for 20 s": store_refuses,
    "store damages an object": store_damages,
    "registry down for 20 s": registry_down,
    "a second controller takes the host": second_controller,
    "a second run is triggered": second_run,
    "run marked failed": mark("failed"),
    "run marked success": mark("success"),
    "run cleared": lambda scene: clear_run(scene.lab, scene.run),
    "run paused for 20 s": pause_for_a_while,
    "run deleted": lambda scene: delete(scene.lab, scene.run),
    "experiment's file broken for 20 s": broken_file(own_file),
    "experiment's file removed for 20 s": broken_file(own_file, None),
    "hosts.yaml broken for 20 s": broken_file(lambda _: "hosts.yaml"),
}  # fmt: skip

#: Faults that are injected in an earlier phase, to be there in their own.
FROM = {
    "meter exits 0 without a file": Phase.WARM_UP,
    "clock of the meter steps back by 9 s": Phase.WARM_UP,
}
#: What has to be set up before the run.
PREPARE: dict[str, Callable[[Lab], After]] = {"spool full for 20 s": small_spool}


# ── how a run has to end ────────────────────────────────────────────────────────────────────────


def follow(lab: Lab, run: Run, end: End) -> Run:
    if end is not End.CLOSED:
        return lab.follow(run, within_s=1500)
    upkeep = lab.follow(lab.trigger("wattbench-housekeeping"))
    assert upkeep.state == "success", lab.log(upkeep, "keep_house")
    return run


def assert_ends(lab: Lab, run: Run, end: End) -> None:
    assert_closed(lab, run)
    stored = lab.stored(run)
    host = lab.bed.hosts[0].name
    records = stored.records(host)
    attempts = [[r.row for r in records.get(t.name, ())] for t in stored.plan(host)]
    measured = bool(attempts) and all(a and a[-1].status == "valid" for a in attempts)
    if end is End.CLOSED:
        return
    if end is End.RED:
        assert run.state == "failed", lab.table(run)
    elif end is End.HONEST:
        assert (run.state == "success") == measured, lab.table(run)
        assert "trials valid" in lab.log(run, "verdict")
    else:
        assert run.state == "success", lab.table(run)
        assert measured, attempts
        if end is End.ONCE:
            assert all(len(a) == 1 and a[0].attempt == 1 for a in attempts), attempts


def free(lab: Lab, run: Run) -> None:
    """End a run that a failed cell has left, so that the next cell has the host."""
    if not lab.client.run(run).over:
        set_state(lab, run, "failed")
        lab.follow(run)


def ready(lab: Lab) -> None:
    airflow_services.wait_until_ready(lab.bed.checkout, lab.bed.airflow)
    hosts.wait_until_ready(lab.bed.hosts[0], within_s=90)


@pytest.mark.parametrize("cell", [pytest.param(one, id=one.key) for one in cells()])
def test_cell(lab: Lab, cell: Cell) -> None:
    fault, phase = cell
    ready(lab)
    undo = PREPARE.get(fault.name, lambda _: lambda: None)(lab)
    if phase is Phase.PULL:  # images and their layers are there from the run before
        lab.in_container(0, "sh", "-c", "docker image ls -q | xargs -r docker image rm -f")
    run = lab.trigger(experiment_of(lab))
    try:
        scene = Scene(lab, run, phase)
        scene.reach(FROM.get(fault.name, phase))
        after = INJECT[fault.name](scene)
        over = follow(lab, run, fault.end)
        if after is not None:
            after()
        assert_ends(lab, over, fault.end)
    finally:
        if fault.end is not End.CLOSED:
            free(lab, run)
        undo()
