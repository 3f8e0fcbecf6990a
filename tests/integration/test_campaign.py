"""A whole run under the real scheduler; asserted on what is in the store and on the hosts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest

from tests.integration.conftest import CONTROL_ROUNDS, Lab
from wattbench.dag_runs import Run
from wattbench.history.host_history import ControlLevel, Past
from wattbench.run import store_keys
from wattbench.run.stored_run import Run as StoredRun

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    return lab.follow(lab.trigger("it-campaign", seed="1"))


@pytest.fixture(scope="module")
def stored(lab: Lab, run: Run) -> StoredRun:
    return lab.stored(run)


@pytest.fixture(scope="module")
def trials(lab: Lab, stored: StoredRun) -> pd.DataFrame:
    data = lab.store.get(store_keys.report_key(stored.run_id, "trials.csv"))
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
            key = store_keys.trial_key(stored.run_id, str(host), trial.name, 1, "attempt.json")
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
            o.key: o
            for o in lab.store.list(store_keys.host_key(stored.run_id, host, "pulls") + "/")
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
            key = store_keys.trial_key(stored.run_id, host, trial.name, 1, "attempt.json")
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
    folder = store_keys.run_key(stored.run_id)
    assert lab.store.verify_manifest(folder) == ()
    manifest = lab.store.get_json(f"{folder}/manifest.json")
    listed = {o["key"] if "key" in o else o["name"]: o for o in manifest["objects"]}
    assert any(k.endswith("energibridge.csv.gz") for k in listed)
    host = stored.experiment.hosts[0]
    trial = stored.plan(host)[0]
    raw = gzip.decompress(
        lab.store.get(
            store_keys.trial_key(stored.run_id, host, trial.name, 1, "energibridge.csv.gz")
        )
    )
    report = lab.store.get_json(
        store_keys.trial_key(stored.run_id, host, trial.name, 1, "attempt.json")
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
    findings = json.loads(lab.store.get(store_keys.report_key(stored.run_id, "findings.json")))
    verdicts = {f["verdict"] for f in findings if f["code"] == "unequal-work"}
    assert verdicts == {"not-found"}


def test_task_names_are_readable(lab: Lab, run: Run, stored: StoredRun) -> None:
    labels = {
        t.map_index: t.label
        for t in lab.client.tasks(run)
        if t.task_id == "virtual-1.trial.measure"
    }
    assert [labels[i] for i in sorted(labels)] == [t.label for t in stored.plan("virtual-1")]


# ── a second run, short of time, and another experiment that wants the same host ────────────────


@pytest.fixture(scope="module")
def short(lab: Lab, run: Run) -> Run:
    """Thirty blocks on one host, and a minute or two to finish them."""
    limit = datetime.now(UTC) + timedelta(seconds=135)
    return lab.trigger(
        "it-campaign", seed="2", hosts=["virtual-1"], blocks=30, finish_by=f"{limit:%H:%M}"
    )


@pytest.fixture(scope="module")
def second(lab: Lab, short: Run) -> Iterator[Run]:
    """Meanwhile the host turns out to be unsteady, and another experiment is triggered on it."""
    lab.wait_for(
        short,
        lambda tasks: any((t.task_id, t.state) == ("virtual-1.check", "success") for t in tasks),
    )
    seeded = [
        Past(
            f"it-second-2020010{day}T010000Z-00000{day}", "it-second", "work",
            control=ControlLevel(CONTROL_ROUNDS, "package+dram", "modelled", joules, 2),
        )
        for day, joules in enumerate((100.0, 80.0, 125.0, 90.0, 110.0), 1)
    ]  # fmt: skip
    for past in seeded:
        lab.store.put_json(store_keys.past_key("virtual-1", past.run_id), asdict(past))
    yield lab.trigger("it-second")
    for past in seeded:
        forgiven = replace(past, control=None)
        lab.store.put_json(store_keys.past_key("virtual-1", past.run_id), asdict(forgiven))


@pytest.fixture(scope="module")
def both(lab: Lab, short: Run, second: Run) -> tuple[Run, Run]:
    return lab.follow(short), lab.follow(second)


def test_another_seed_gives_another_order_and_the_form_acts(
    lab: Lab, stored: StoredRun, both: tuple[Run, Run]
) -> None:
    again = lab.stored(both[0])
    assert list(again.document["plan"]) == ["virtual-1"]
    assert lab.state(both[0], "virtual-2.check") == "skipped"
    assert max(t.block for t in again.plan("virtual-1")) == 30
    first = [t.image for t in stored.plan("virtual-1") if t.kind == "workload"]
    assert [t.image for t in again.plan("virtual-1") if t.kind == "workload"][: len(first)] != first


def test_blocks_that_do_not_fit_before_the_deadline_are_left_out_whole(
    lab: Lab, both: tuple[Run, Run]
) -> None:
    run = both[0]
    assert run.state == "success", lab.table(run)
    again = lab.stored(run)
    budget = lab.store.get_json(store_keys.host_key(again.run_id, "virtual-1", "budget.json"))
    assert 0 < budget["blocks"] < 30
    assert budget["source"].startswith("it-campaign-")  # the first run's own durations
    outcomes = again.outcomes("virtual-1")
    skipped = {t.block for t in again.plan("virtual-1") if t.name in outcomes}
    measured = {t.block for t in again.plan("virtual-1") if t.name not in outcomes}
    assert measured
    assert max(measured) < min(skipped)
    assert {o["status"] for o in outcomes.values()} == {"skipped"}
    assert all("before" in o["reason"] and "UTC" in o["reason"] for o in outcomes.values())
    assert f"{len(outcomes)} skipped on purpose" in lab.log(run, "verdict")


def test_a_second_experiment_waits_visibly_and_no_windows_overlap(
    lab: Lab, both: tuple[Run, Run]
) -> None:
    first, second = (lab.stored(r) for r in both)
    log = lab.log(both[1], "virtual-1.check")
    assert "waiting for virtual-1" in log
    assert f"held by {first.run_id}" in log

    def windows(run: StoredRun) -> list[tuple[datetime, datetime]]:
        rows = [r[-1].row for r in run.records("virtual-1").values()]
        starts = [datetime.fromisoformat(str(r.started_at)) for r in rows]
        return [
            (s, s + timedelta(seconds=r.duration_s or 0)) for s, r in zip(starts, rows, strict=True)
        ]

    mine, theirs = windows(first), windows(second)
    assert mine
    assert theirs
    assert max(end for _, end in mine) <= min(start for start, _ in theirs)


def test_a_host_in_quarantine_measures_its_control_workload_only(
    lab: Lab, both: tuple[Run, Run]
) -> None:
    first, second = both
    assert second.state == "success", lab.table(second)
    stored = lab.stored(second)
    kinds = {r[-1].row.kind for r in stored.records("virtual-1").values()}
    assert kinds == {"control"}
    assert {t.state for t in lab.client.tasks(second) if t.task_id == "virtual-1.pull"} == {"skipped"}  # fmt: skip
    assert "2/2 trials valid, 4 skipped on purpose" in lab.log(second, "verdict")
    findings = json.loads(lab.store.get(store_keys.report_key(stored.run_id, "findings.json")))
    assert any(
        (f["code"], f["verdict"], f["subject"]) == ("host-unsteady", "found", "host virtual-1")
        for f in findings
    )
    # The run that was going on when it turned out is the one that notifies people.
    assert "host-quarantined: virtual-1 is in quarantine" in lab.log(first, "notify")
    assert lab.state(second, "notify") == "skipped"
