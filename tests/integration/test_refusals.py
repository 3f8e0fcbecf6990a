"""Bad hosts and images: refused before anything is measured, one clear line each; the good carry on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from wattbench import layout
from wattbench.rest import Run

from demo import hosts as virtual_hosts
from demo.keys import key_pair
from tests.integration.conftest import Lab

pytestmark = pytest.mark.docker

BAD = {
    "stranger": "host key",
    "nowhere": "nowhere",
    "no-connection": "no connection 'wattbench_absent'",
    "no-sensor": "/usr/local/bin/absent-meter",
    "full-disk": "free",
    "no-docker": "Docker",
}


@pytest.fixture(scope="module")
def run(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run over one good host and six bad ones (all of them faces of the second virtual host)."""
    real = lab.connection(1)
    wrong_key = key_pair(tmp_path_factory.mktemp("keys") / "wrong").public
    meter = {"kind": "modelled", "command": "/usr/local/bin/energibridge-standin"}

    def face(conn: str, **extra: object) -> dict[str, object]:
        return {
            "ssh_conn_id": conn,
            "meter": meter,
            "spool": f"/var/spool/wattbench/{conn}",
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
    lab.write_experiment("it-refusals", hosts=["virtual-1", *BAD])
    lab.in_container(
        1, "sh", "-c", "mkdir -p /run/hold; touch /run/hold/dockerd; kill -9 $(cat /run/docker.pid)"
    )
    try:
        yield lab.follow(lab.trigger("it-refusals", blocks=1))
    finally:
        lab.in_container(1, "sh", "-c", "rm -f /run/hold/dockerd; umount -l /mnt/tiny || true")
        virtual_hosts.wait_until_ready(lab.bed.hosts[1], within_s=60)


def test_the_good_host_measured_everything(lab: Lab, run: Run) -> None:
    stored = lab.stored(run)
    statuses = [r[-1].row.status for r in stored.records("virtual-1").values()]
    assert statuses == ["valid", "valid"], lab.table(run)


@pytest.mark.parametrize("host", BAD)
def test_a_bad_host_is_refused_with_one_clear_line(lab: Lab, run: Run, host: str) -> None:
    assert lab.state(run, f"{host}.check") == "failed"
    log = lab.log(run, f"{host}.check")
    lines = [line for line in log.splitlines() if BAD[host] in line and host in line]
    assert lines, log
    assert lab.stored(run).records(host) == {}


def test_the_run_is_red_and_its_verdict_names_what_is_missing(lab: Lab, run: Run) -> None:
    assert run.state == "failed"
    assert "2/14 trials valid" in lab.log(run, "verdict")


def test_there_is_a_report_all_the_same(lab: Lab, run: Run) -> None:
    page = lab.store.get(layout.report_key(lab.stored(run).run_id, "index.html")).decode()
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
