"""Bad hosts and images: refused before anything is measured, one clear line each; the good carry on."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from demo import hosts as virtual_hosts
from tests.integration.conftest import Lab
from tests.support.pushed_images import RegistryWriter
from wattbench.dag_runs import Run
from wattbench.local.keys import key_pair
from wattbench.run import store_keys

pytestmark = pytest.mark.docker

BAD = {
    "stranger": "host key",
    "nowhere": "nowhere",
    "no-connection": "no connection 'wattbench_absent'",
    "no-sensor": "/usr/local/bin/absent-meter",
    "full-disk": "free",
    "no-docker": "Docker",
}

#: Image → what its refusal says: those that no registry could give, and those that a host tried.
LEFT_OUT = {
    "other-machine": "is built for linux/arm64, not for linux/amd64; use an image",
    "gone": "no longer has this digest; choose an image that it has",
}
BAD_IMAGES = {
    "no-python": "executable file not found",
    "no-framework": "an image needs Python 3.9 or later, numpy and the framework",
}


@pytest.fixture(scope="module")
def bad_images(lab: Lab) -> dict[str, dict[str, str]]:
    pull, push = lab.bed.registry.pull, lab.bed.registry.push
    entry_point = {"Entrypoint": ["python3", "/opt/wattbench/workload"]}
    registry = RegistryWriter(push)
    motd = {"etc/motd": os.urandom(100_000)}  # never pulled before
    registry.push_image("bad/no-python", "v1", motd, config=entry_point)
    registry.push_image("bad/other-machine", "v1", motd, architecture="arm64", config=entry_point)
    other = f"{push}/bad/no-framework:v1"
    build = f"FROM {push}/wattbench/pip-numpy:demo\nENV PYTHONPATH=/nowhere\n"
    argv = ["docker", "build", "-q", "-t", other, "--label", lab.bed.checkout.label, "-"]
    subprocess.run(argv, input=build, text=True, check=True, capture_output=True)
    subprocess.run(["docker", "push", "-q", other], check=True, capture_output=True)
    refs = {
        name: f"{pull}/bad/{name}:v1" for name in ("no-python", "no-framework", "other-machine")
    }
    refs["gone"] = f"{pull}/wattbench/pip-numpy@sha256:{64 * '0'}"
    return {name: {"ref": ref} for name, ref in refs.items()}


@pytest.fixture(scope="module")
def run(
    lab: Lab, bad_images: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """One run over one good host and six bad ones (faces of the second virtual host), with bad images."""
    real = lab.connection(1)
    wrong_key = key_pair(tmp_path_factory.mktemp("keys") / "wrong").public
    meter = {"kind": "modelled", "command": "/usr/local/bin/energibridge-standin"}

    def face(conn: str, **extra: object) -> dict[str, object]:
        return {
            "ssh_conn_id": conn,
            "meter": meter,
            "spool": f"/var/spool/wattbench/{conn}",
            "wait_s": 20,
        } | extra

    lab.in_container(
        1,
        "sh",
        "-c",
        "mkdir -p /mnt/tiny && (mountpoint -q /mnt/tiny || mount -t tmpfs -o size=20m,mode=1777 tmpfs /mnt/tiny)",
    )
    lab.add_hosts(
        {
            "stranger": face("it_stranger"),
            "nowhere": face("it_nowhere"),
            "no-connection": face("wattbench_absent"),
            "no-sensor": face("it_real", meter={"kind": "modelled", "command": "/usr/local/bin/absent-meter"}),
            "full-disk": face("it_real", spool="/mnt/tiny/spool"),
            "no-docker": face("it_real", spool="/var/spool/wattbench/no-docker"),
        },
        {
            "it_real": real,
            "it_stranger": real | {"extra": real["extra"] | {"host_key": wrong_key}},
            "it_nowhere": real | {"host": "127.0.0.1", "port": 1},
        },
    )  # fmt: skip
    good = {"pip-numpy": {"ref": lab.image("pip-numpy")}}
    good["one-thread"] = good["pip-numpy"] | {"env": {"OPENBLAS_NUM_THREADS": "1"}}
    lab.write_experiment("it-refusals", hosts=["virtual-1", *BAD], images=good | bad_images)
    lab.in_container(
        1, "sh", "-c", "mkdir -p /run/hold; touch /run/hold/dockerd; kill -9 $(cat /run/docker.pid)"
    )
    try:
        yield lab.follow(lab.trigger("it-refusals", blocks=1), within_s=900)
    finally:
        lab.in_container(1, "sh", "-c", "rm -f /run/hold/dockerd; umount -l /mnt/tiny || true")
        virtual_hosts.wait_until_ready(lab.bed.hosts[1], within_s=60)


def test_the_good_host_measured_everything(lab: Lab, run: Run) -> None:
    stored = lab.stored(run)
    statuses = {r[-1].row.image: r[-1].row.status for r in stored.records("virtual-1").values()}
    assert statuses == {"pip-numpy": "valid", "one-thread": "valid"}, lab.table(run)


def test_an_image_that_no_registry_could_give_is_left_out_of_the_plan(lab: Lab, run: Run) -> None:
    skipped = lab.stored(run).document["skipped_images"]
    assert skipped.keys() == LEFT_OUT.keys()
    for name, words in LEFT_OUT.items():
        assert words in skipped[name]
        assert f"image {name} is left out" in lab.log(run, "prepare")


@pytest.mark.parametrize("image", BAD_IMAGES)
def test_an_image_without_the_workload_is_refused_before_its_first_window(
    lab: Lab, run: Run, image: str
) -> None:
    stored = lab.stored(run)
    pull = stored.pulls("virtual-1")[image]
    assert BAD_IMAGES[image] in pull["error"]
    reasons = [o["reason"] for n, o in stored.outcomes("virtual-1").items() if n.endswith(image)]
    assert [BAD_IMAGES[image] in reason for reason in reasons] == [True]
    assert lab.on_host(0, "docker ps -aq --filter label=wattbench.run") == ""


def test_a_pull_is_metered_apart_from_every_trial(lab: Lab, run: Run) -> None:
    pull = lab.stored(run).pulls("virtual-1")["no-python"]
    assert pull["bytes"] > 100_000
    energy = pull["energy"]
    assert energy["energy_source"] == "modelled"
    assert energy["energy_j"] > 0
    assert energy["window_s"] > pull["seconds"]
    run_id = lab.stored(run).run_id
    folder = store_keys.host_key(run_id, "virtual-1", "pulls", "no-python")
    assert lab.store.exists(f"{folder}/energibridge.csv.gz")
    table = lab.store.get(store_keys.report_key(run_id, "tables", "pulls.csv")).decode()
    (row,) = [row for row in csv.DictReader(table.splitlines()) if row["image"] == "no-python"]
    assert float(row["pull_j"]) == pytest.approx(energy["energy_j"])


@pytest.mark.parametrize("host", BAD)
def test_a_bad_host_is_refused_with_one_clear_line(lab: Lab, run: Run, host: str) -> None:
    assert lab.state(run, f"{host}.check") == "failed"
    log = lab.log(run, f"{host}.check")
    lines = [line for line in log.splitlines() if BAD[host] in line and host in line]
    assert lines, log
    assert lab.stored(run).records(host) == {}


def test_the_run_is_red_and_its_verdict_names_what_is_missing(lab: Lab, run: Run) -> None:
    assert run.state == "failed"
    assert "2/28 trials valid" in lab.log(run, "verdict")


def test_there_is_a_report_all_the_same(lab: Lab, run: Run) -> None:
    page = lab.store.get(store_keys.report_key(lab.stored(run).run_id, "index.html")).decode()
    assert "stranger" in page


def test_a_missing_bucket_stops_the_run_before_any_host_is_touched(lab: Lab) -> None:
    path = lab.config / "hosts.yaml"
    before = path.read_text()
    document = yaml.safe_load(before)
    document["store"]["bucket"] = "no-such-bucket"
    path.write_text(yaml.safe_dump(document))
    try:
        run = lab.follow(lab.trigger("it-campaign"))
        assert run.state == "failed"
        assert "no-such-bucket" in lab.log(run, "prepare")
        assert lab.state(run, "virtual-1.check") == "upstream_failed"
    finally:
        path.write_text(before)
