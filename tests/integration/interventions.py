"""What people and faults do to a live run, and what every run has to leave behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from tests.integration.conftest import Lab
from wattbench.airflow.watchdog import descendants
from wattbench.analysis.model.errors import UserError
from wattbench.cli.airflow_api import _Request
from wattbench.dag_runs import Run, Task
from wattbench.local.processes import service
from wattbench.run import host_claims, store_keys

#: States of a task that is at work: on a worker, or in the triggerer.
AT_WORK = ("running", "deferred")

# ── what a person does ──────────────────────────────────────────────────────────────────────────


def set_state(lab: Lab, run: Run, state: str) -> None:
    """As a person does, who clicks again where Airflow answers that its database is locked."""
    for last in (False,) * 9 + (True,):
        try:
            lab.client._call("PATCH", f"/dags/{run.dag_id}/dagRuns/{run.id}", json={"state": state})
        except UserError as error:
            if last or ": 500 " not in str(error):
                raise
            time.sleep(1)
        else:
            return


def set_task_state(lab: Lab, run: Run, task: Task, state: str) -> None:
    path = f"/dags/{run.dag_id}/dagRuns/{run.id}/taskInstances/{task.task_id}"
    path += f"/{task.map_index}" if task.map_index >= 0 else ""
    lab.client._call("PATCH", path, json={"new_state": state})


def clear_task(lab: Lab, run: Run, task_id: str, map_index: int, **options: Any) -> list[str]:
    answer = lab.client._call(
        "POST", f"/dags/{run.dag_id}/clearTaskInstances",
        json={"dry_run": False, "dag_run_id": run.id, "task_ids": [[task_id, map_index]],
              "only_failed": False, "reset_dag_runs": True, **options},
    )  # fmt: skip
    return [t["task_id"] for t in answer["task_instances"]]


def clear_run(lab: Lab, run: Run) -> None:
    lab.client._call("POST", f"/dags/{run.dag_id}/dagRuns/{run.id}/clear", json={"dry_run": False})


def delete(lab: Lab, run: Run) -> None:
    """Airflow deletes no run that is running: a person sets it back to queued, then deletes it."""
    for _ in range(20):  # the scheduler may be faster
        set_state(lab, run, "queued")
        with suppress(UserError):
            lab.client._response(
                _Request("DELETE", f"/api/v2/dags/{run.dag_id}/dagRuns/{run.id}", None, None)
            )
            return
    raise AssertionError(f"{run.id} could not be deleted")


def pause(lab: Lab, dag_id: str, paused: bool) -> None:
    lab.client._call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})


# ── where a run is, and what it leaves ──────────────────────────────────────────────────────────


def active(lab: Lab) -> str | None:
    """The attempt whose window is open on the first host, read past its sshd."""
    script = (
        "cd /var/spool/wattbench; python3 -c 'import json,os; "
        'a=(json.load(open("lease.json")) if os.path.exists("lease.json") else {}).get("active"); '
        'p=a and "trials/%s/%s/%s/command.json" % (a.split("/")[0], a.split("/")[2], a.split("/")[3]); '
        'print(a if p and os.path.exists(p) and not json.load(open(p)).get("ended") else "")\''
    )
    return lab.in_container(0, "sh", "-c", script).strip() or None


def at_work(tasks: list[Task], suffix: str) -> Task | None:
    """A task that is at work, on a worker or in the triggerer."""
    return next((t for t in tasks if t.task_id.endswith(suffix) and t.state in AT_WORK), None)


def assert_closed(lab: Lab, run: Run) -> None:
    """Whatever became of a run: a report, all raw logs in the store, nothing on the host, nothing held."""
    stored, host = lab.stored(run), lab.bed.hosts[0].name
    summary = lab.store.get_json(store_keys.report_key(stored.run_id, "summary.json"))
    assert summary
    assert lab.store.verify_manifest(store_keys.run_key(stored.run_id)) == ()
    folder = f"/var/spool/wattbench/trials/{stored.run_id}"
    left = f"ls {folder}; cat /var/spool/wattbench/lease.json"
    assert lab.in_container(0, "sh", "-c", f"({left}) 2>/dev/null || true") == ""
    assert [one for one in host_claims.claims(lab.store) if one.host == host] == []
    assert [one for one in host_claims.open_runs(lab.store) if one.run_id == stored.run_id] == []
    for name, records in stored.records(host).items():
        for record in records:
            key = store_keys.trial_key(
                stored.run_id, host, name, record.row.attempt or 0, "attempt.json"
            )
            assert lab.store.exists(key)


# ── what a fault does to a host ─────────────────────────────────────────────────────────────────


def cut_link(lab: Lab, index: int, seconds: float) -> None:
    """Let a host drop all that comes and goes for a while."""
    rules = ("INPUT -i eth0", "OUTPUT -o eth0")

    def each(action: str) -> str:
        return "; ".join(f"iptables {action} {rule} -j DROP" for rule in rules)

    try:
        lab.in_container(index, "sh", "-ec", each("-I"))
        time.sleep(seconds)
    finally:
        lab.in_container(index, "sh", "-ec", each("-D"))


# ── processes ───────────────────────────────────────────────────────────────────────────────────


@contextmanager
def stopped(lab: Lab, name: str) -> Iterator[None]:
    """A process of Airflow's that does not answer, with its watchdog, which would start it again."""
    pid = service(lab.bed.checkout, name).pid()
    assert pid is not None
    family = [pid, *descendants(pid)]
    for one in family:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            os.kill(one, signal.SIGCONT)


def children(lab: Lab, name: str) -> set[int]:
    """The processes that the watchdog of one of Airflow's services has started itself."""
    pid = service(lab.bed.checkout, name).pid()
    assert pid is not None, f"no {name}"
    return {one for one in descendants(pid) if parent(one) == pid}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def task_instance_id(lab: Lab, run: Run, task: Task) -> str:
    """Airflow's own id of a task instance, which its process carries in its title."""
    airflow = lab.bed.airflow
    token = requests.post(
        f"{airflow.url}/auth/token",
        json={"username": airflow.user, "password": airflow.password},
        timeout=30,
    ).json()["access_token"]
    found = requests.get(
        f"{airflow.url}/api/v2/dags/{run.dag_id}/dagRuns/{run.id}/taskInstances/{task.task_id}/{task.map_index}",
        headers={"Authorization": f"Bearer {token}"}, timeout=30,
    ).json()  # fmt: skip
    return str(found["id"])


def processes_of(instance_id: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if instance_id in title and "LocalExecutor" not in title:
                found.append(int(folder.name))
    assert found, f"no process carries {instance_id}"
    return found
