"""The test bed itself, up: what the full tier stands on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import paramiko
import pytest
import requests
from botocore.exceptions import ClientError

from demo import airflow, docker_engine, hosts, registry
from demo import bed as beds
from demo.bed import Bed
from demo.checkout import here
from demo.timings import Timings
from wattbench.local import object_store
from wattbench.local.keys import key_pair
from wattbench.local.processes import service

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def bed() -> Bed:
    return beds.up(here(), print, Timings(0.0))


def _identity(bed: Bed) -> dict[str, str]:
    """What would change if something were started anew."""
    client = docker_engine.connect()
    assert client is not None
    ours = {"label": bed.checkout.label}
    names = ("store", "registry", "registry-push", "scheduler", "api-server", "triggerer")
    found = {name: str(service(bed.checkout, name).pid()) for name in names}
    for container in client.containers.list(filters=ours):
        if not str(container.name).startswith(bed.checkout.prefix):
            continue  # of a build that goes on
        found[str(container.name)] = f"{container.id} {container.attrs['State']['StartedAt']}"
    return found


def test_a_second_call_leaves_everything_as_it_is(bed: Bed) -> None:
    before = _identity(bed)
    assert "None" not in before.values()
    assert beds.up(here(), print, Timings(0.0)) == bed
    assert _identity(bed) == before


@pytest.mark.parametrize("number", [0, 1])
def test_a_host_has_its_own_docker_and_one_core(bed: Bed, number: int) -> None:
    code, said = hosts.run(
        bed.hosts[number],
        "nproc; id -un; id -Gn; docker info --format '{{.ID}}'; stat -c %U /var/spool/wattbench",
    )
    cores, user, groups, docker_id, owner = said.splitlines()
    assert code == 0
    assert (cores, user, owner) == ("1", "bench", "bench")
    assert "docker" in groups.split()
    client = docker_engine.connect()
    assert client is not None
    others = [hosts.run(other, "docker info --format '{{.ID}}'")[1] for other in bed.hosts]
    assert len({*others, client.info()["ID"]}) == 3
    assert docker_id in others


def test_openssh_connects_with_the_written_configuration(bed: Bed) -> None:
    config = bed.checkout.demo / "ssh" / "config"
    for host in bed.hosts:
        result = subprocess.run(
            ["ssh", "-F", str(config), "-o", "BatchMode=yes", host.name, "hostname"],
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stdout.strip()) == (0, host.name), result.stderr


def test_a_host_with_another_key_is_not_trusted(bed: Bed) -> None:
    first, second = bed.hosts
    with pytest.raises(paramiko.BadHostKeyException):
        hosts.run(replace(first, host_key=second.host_key), "true")


def test_a_stranger_does_not_get_in(bed: Bed, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(paramiko.AuthenticationException):
        hosts.run(replace(bed.hosts[0], client_key=key_pair(tmp_path / "stranger")), "true")


def test_the_meter_has_energibridges_interface(bed: Bed) -> None:
    code, said = hosts.run(
        bed.hosts[0],
        "cd /tmp && energibridge-standin -o bed-test.csv -i 200 -- sleep 0.5 && head -1 bed-test.csv"
        " && rm bed-test.csv",
    )
    assert code == 0, said
    assert said.splitlines()[-1].startswith("Delta,Time,")
    assert "(J)" in said


def test_hosts_read_the_registry_and_can_not_write_to_it(bed: Bed) -> None:
    catalog = requests.get(f"http://{bed.registry.pull}/v2/_catalog", timeout=5).json()
    assert {"wattbench/pip-numpy", "wattbench/apt-numpy"} <= set(catalog["repositories"])
    upload = f"http://{bed.registry.pull}/v2/wattbench/pip-numpy/blobs/uploads/"
    assert requests.post(upload, timeout=5).status_code == 405  # unsupported


def test_the_store_accepts_its_keys_only(bed: Bed) -> None:
    bed.store.client().head_bucket(Bucket=object_store.BUCKET)
    for wrong in (replace(bed.store, secret="wrong"), replace(bed.store, key="wattbenchother")):
        with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidAccessKeyId"):
            wrong.client().list_objects_v2(Bucket=object_store.BUCKET)


def test_secrets_are_in_no_command_line(bed: Bed) -> None:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert bed.store.secret not in listed
    assert bed.airflow.password not in listed


def test_airflow_takes_a_login_and_has_the_demo(bed: Bed) -> None:
    airflow.connect(bed.airflow).wait_for_dag("demo", within_s=90)
    answer = requests.get(f"{bed.airflow.url}/api/v2/dags", timeout=10)
    assert answer.status_code == 401, "it lets a caller in without a login"


@pytest.fixture
def killed_registry(bed: Bed) -> Iterator[None]:
    process = service(bed.checkout, "registry")
    process.stop()
    yield
    registry.ensure(bed.checkout, bed.registry, print)


@pytest.mark.usefixtures("killed_registry")
def test_what_has_died_is_started_again_on_its_old_address(bed: Bed) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{bed.registry.pull}/v2/", timeout=5)
    again = beds.up(here(), print, Timings(0.0))
    assert again.registry == bed.registry
    assert requests.get(f"http://{bed.registry.pull}/v2/", timeout=5).ok


def test_a_rebooted_host_comes_back_with_its_identity_and_images(bed: Bed) -> None:
    client = docker_engine.connect()
    assert client is not None
    host = bed.hosts[1]
    marker = "docker volume create bed-test && docker volume ls -q"
    assert "bed-test" in hosts.run(host, marker)[1]
    client.containers.get(host.container).restart(timeout=10)
    hosts.wait_until_ready(host, within_s=60)
    code, said = hosts.run(host, "docker volume ls -q; docker volume rm bed-test")
    assert (code, "bed-test" in said) == (0, True)


def test_the_state_of_the_bed_is_shown_by_its_own_command(bed: Bed) -> None:
    result = subprocess.run(
        [".venv/bin/python", "-m", "demo", "status"],
        cwd=bed.checkout.root,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert bed.airflow.url in result.stdout
    password = json.loads((bed.checkout.demo / "airflow_passwords.json").read_text())["admin"]
    assert password not in result.stdout
