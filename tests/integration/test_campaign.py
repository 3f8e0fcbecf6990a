"""A whole run under the real scheduler; asserted on what is in the store and on the hosts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from datetime import datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest
from wattbench import layout
from wattbench.rest import Run
from wattbench.run import Run as StoredRun

from tests.integration.conftest import Lab

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    return lab.follow(lab.trigger("it-campaign", seed="1"))


@pytest.fixture(scope="module")
def stored(lab: Lab, run: Run) -> StoredRun:
    return lab.stored(run)


@pytest.fixture(scope="module")
def trials(lab: Lab, stored: StoredRun) -> pd.DataFrame:
    data = lab.store.get(layout.report_key(stored.run_id, "trials.csv"))
    frame = pd.read_csv(io.BytesIO(data))
    frame["start"] = pd.to_datetime(frame["started_at"], utc=True, format="ISO8601")
    frame["end"] = frame["start"] + pd.to_timedelta(frame["duration_s"], unit="s")
    return frame


def test_every_planned_trial_is_valid_and_the_run_green(
    lab: Lab, run: Run, trials: pd.DataFrame
) -> None:
    assert run.state == "success", lab.table(run)
    assert set(trials["status"]) == {"valid"}
    assert len(trials) == 2 * (3 * 2 + 2)


def test_the_executed_order_is_the_plan(stored: StoredRun, trials: pd.DataFrame) -> None:
    for host, group in trials.groupby("host"):
        executed = list(group.sort_values("start")["image"])
        assert executed == [t.image for t in stored.plan(str(host))]


def test_no_two_windows_or_containers_overlapped_on_a_host(
    lab: Lab, stored: StoredRun, trials: pd.DataFrame
) -> None:
    for host, group in trials.groupby("host"):
        group = group.sort_values("start")
        assert (group["start"].iloc[1:].to_numpy() >= group["end"].iloc[:-1].to_numpy()).all()
        lives = []
        for trial in stored.plan(str(host)):
            key = layout.trial_key(stored.run_id, str(host), trial.name, 1, "attempt.json")
            container = lab.store.get_json(key)["container"]
            cut = lambda text: datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", text))  # noqa: E731
            lives.append((cut(container["started_at"]), cut(container["finished_at"])))
        assert all(a[1] <= b[0] for a, b in pairwise(lives))


def test_hosts_ran_in_parallel_and_in_different_orders(trials: pd.DataFrame) -> None:
    spans = trials.groupby("host").agg(first=("start", "min"), last=("end", "max"))
    assert spans["first"].max() < spans["last"].min()
    orders = {tuple(g.sort_values("start")["image"]) for _, g in trials.groupby("host")}
    assert len(orders) == 2


def test_images_were_there_by_digest_before_the_first_window(
    lab: Lab, stored: StoredRun, trials: pd.DataFrame
) -> None:
    run_json = stored.document
    for index, host in enumerate(stored.experiment.hosts):
        pulls = stored.pulls(host)
        assert set(pulls) == set(stored.experiment.images)
        for image, pull in pulls.items():
            assert pull["image"].endswith(stored.digest(image, host) or "none")
            assert lab.on_host(
                index, f"docker image inspect -f '{{{{.RepoDigests}}}}' {pull['image']}"
            )
        first = trials[trials["host"] == host]["start"].min()
        moved = {
            o.key: o for o in lab.store.list(layout.host_key(stored.run_id, host, "pulls") + "/")
        }
        assert moved
        assert first > datetime.fromisoformat(run_json["created_at"])
    # A pull inside a window would show as a docker event of the host's daemon in that window.
    for index, host in enumerate(stored.experiment.hosts):
        windows = trials[trials["host"] == host]
        since = windows["start"].min() - timedelta(seconds=1)
        until = windows["end"].max() + timedelta(seconds=1)
        events = lab.on_host(
            index,
            f"docker events --since {since.timestamp():.3f} --until {until.timestamp():.3f} "
            "--filter type=image --format '{{.Action}}'",
        )
        assert "pull" not in events.split()


def test_nothing_of_ours_touched_the_host_inside_a_window(lab: Lab, stored: StoredRun) -> None:
    for host in stored.experiment.hosts:
        for trial in stored.plan(host):
            key = layout.trial_key(stored.run_id, host, trial.name, 1, "attempt.json")
            report = lab.store.get_json(key)
            began, ended = (report["command"][edge]["unix_s"] for edge in ("started", "ended"))
            inside = [c for c in report["connections"] if began < c["unix_s"] < ended]
            assert inside == []


def test_nothing_is_left_running_or_lying_on_the_hosts(lab: Lab, stored: StoredRun) -> None:
    for index in range(2):
        assert lab.on_host(index, "docker ps -aq --filter label=wattbench.run") == ""
        assert (
            lab.on_host(
                index, f"ls /var/spool/wattbench/trials/{stored.run_id} 2>/dev/null || true"
            )
            == ""
        )
        assert "energibridge" not in lab.on_host(index, "ps axo args")


def test_every_object_is_in_the_manifest_with_its_checksum(lab: Lab, stored: StoredRun) -> None:
    folder = layout.run_key(stored.run_id)
    assert lab.store.verify_manifest(folder) == ()
    manifest = lab.store.get_json(f"{folder}/manifest.json")
    listed = {o["key"] if "key" in o else o["name"]: o for o in manifest["objects"]}
    assert any(k.endswith("energibridge.csv.gz") for k in listed)
    host = stored.experiment.hosts[0]
    trial = stored.plan(host)[0]
    raw = gzip.decompress(
        lab.store.get(layout.trial_key(stored.run_id, host, trial.name, 1, "energibridge.csv.gz"))
    )
    report = lab.store.get_json(
        layout.trial_key(stored.run_id, host, trial.name, 1, "attempt.json")
    )
    assert hashlib.sha256(raw).hexdigest() == report["files"]["energibridge.csv"]["sha256"]


def test_joules_are_called_modelled_and_cover_package_and_dram(trials: pd.DataFrame) -> None:
    assert set(trials["energy_source"]) == {"modelled"}
    assert set(trials["energy_scope"]) == {"package+dram"}
    assert (trials["energy_j"] > 0).all()


def test_equal_work_was_proven_by_fingerprints(lab: Lab, stored: StoredRun) -> None:
    fingerprints = {
        json.dumps([result.fingerprint for result in record.work.results])
        for host in stored.experiment.hosts
        for records in stored.records(host).values()
        for record in records
        if record.row.kind == "workload"
    }
    assert len(fingerprints) == 1
    findings = json.loads(lab.store.get(layout.report_key(stored.run_id, "findings.json")))
    verdicts = {f["verdict"] for f in findings if f["code"] == "unequal-work"}
    assert verdicts == {"not-found"}


def test_task_names_are_readable(lab: Lab, run: Run, stored: StoredRun) -> None:
    labels = {
        t.map_index: t.label
        for t in lab.client.tasks(run)
        if t.task_id == "virtual-1.trial.measure"
    }
    assert [labels[i] for i in sorted(labels)] == [t.label for t in stored.plan("virtual-1")]


def test_another_seed_gives_another_order_and_the_form_acts(lab: Lab, stored: StoredRun) -> None:
    other = lab.follow(lab.trigger("it-campaign", seed="2", hosts=["virtual-1"], blocks=4))
    assert other.state == "success", lab.table(other)
    again = lab.stored(other)
    assert list(again.document["plan"]) == ["virtual-1"]
    assert lab.state(other, "virtual-2.check") == "skipped"
    assert max(t.block for t in again.plan("virtual-1")) == 4
    first = [t.image for t in stored.plan("virtual-1") if t.kind == "workload"]
    assert [t.image for t in again.plan("virtual-1") if t.kind == "workload"][: len(first)] != first
