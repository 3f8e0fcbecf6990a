"""What the demo writes for wattbench is what wattbench reads; the shipped experiments are valid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from demo import hosts, settings, workloads
from demo.base_image import Bases
from demo.checkout import Checkout
from demo.network import Network, Subnet, choose_subnet, parse_routes
from demo.registry import Registry
from images.context import Context
from wattbench.config.loader import load_experiment, load_hosts
from wattbench.local import credentials
from wattbench.local.object_store import ObjectStore, remove_torn_uploads
from wattbench.run.plan import make_plan

ROOT = Path(__file__).parents[2]
REGISTRY = Registry(push="127.0.0.1:26729", pull="10.88.68.1:26729")
NETWORK = Network("net", Subnet("10.88.68.0/24"))
STORE = ObjectStore("http://127.0.0.1:26730", "wattbenchkey1", "secret")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    shutil.copytree(ROOT / "config" / "experiments", tmp_path / "config" / "experiments")
    return Checkout(tmp_path)


def write(checkout: Checkout) -> list[str]:
    said: list[str] = []
    settings.write(checkout, hosts.describe(checkout, NETWORK), STORE, REGISTRY, said.append)
    return said


def test_the_demos_configuration_is_valid_and_small(checkout: Checkout) -> None:
    write(checkout)
    folder = checkout.root / "var/demo/config"
    loaded = load_hosts(folder)
    assert list(loaded.hosts) == ["virtual-1", "virtual-2"]
    assert all(host.meter.kind == "modelled" for host in loaded.hosts.values())
    assert loaded.registries["10.88.68.1:26729"].insecure
    demo = load_experiment(folder / "experiments/demo.yaml", loaded)
    assert {image.ref for image in demo.images.values()} == {
        "10.88.68.1:26729/wattbench/pip-numpy:demo",
        "10.88.68.1:26729/wattbench/pip-numpy-leftovers:demo",
        "10.88.68.1:26729/wattbench/apt-numpy:demo",
    }
    plan = make_plan(list(demo.images), demo.protocol, "virtual-1", str(demo.seed))
    # 4 blocks of 3 images, and one idle trial without any in the first block
    assert [sum(t.kind == kind for t in plan) for kind in ("workload", "idle")] == [12, 1]


def test_the_replaced_registry_is_reported_once(checkout: Checkout) -> None:
    assert "10.88.68.1:26729 for registry.local" in write(checkout)[0]
    assert write(checkout) == []


def test_an_example_becomes_an_experiment_with_the_files_that_it_names(checkout: Checkout) -> None:
    write(checkout)
    folder = checkout.root / "var/demo/config/experiments"
    assert not list(folder.glob("embeddings.*"))  # none is active by itself
    settings.add_example(checkout, "embeddings", REGISTRY, print)
    loaded = load_experiment(folder / "embeddings.yaml", load_hosts(folder.parent))
    assert str(loaded.images["onnx"].ref) == "10.88.68.1:26729/wattbench/minilm-onnx:demo"
    for name in ("stock-or-slim", "llm-engines", "none"):  # of other hosts, or of no example
        settings.add_example(checkout, name, REGISTRY, print)
        assert not list(folder.glob(f"{name}.*"))


def test_an_experiment_goes_before_the_example_of_its_name_and_keeps_its_own_files(
    checkout: Checkout,
) -> None:
    source = checkout.root / "config/experiments"
    for path in (source / "examples").glob("embeddings.*"):
        shutil.copy(path, source)
    line = json.dumps({"path": "/mine"})
    (source / "embeddings.jsonl").write_text(line)
    write(checkout)
    settings.add_example(checkout, "embeddings", REGISTRY, print)
    folder = checkout.root / "var/demo/config/experiments"
    assert (folder / "embeddings.jsonl").read_text() == line
    assert load_experiment(folder / "embeddings.yaml", load_hosts(folder.parent))


def test_an_experiment_whose_files_are_missing_or_that_is_no_yaml_is_left_to_its_refusal(
    checkout: Checkout,
) -> None:
    source = checkout.root / "config/experiments"
    outside = "workload: {files: {/a: ../../secret}}  # registry.local/"
    (checkout.root / "secret").write_text("x")
    for name, text in {
        "gone": outside,
        "broken": "{registry.local/",
        "list": "[registry.local/]",
    }.items():
        (source / f"{name}.yaml").write_text(text)
    write(checkout)
    folder = checkout.root / "var/demo/config/experiments"
    assert {"gone.yaml", "broken.yaml", "list.yaml"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "../../secret").exists()


def test_the_papers_protocol_is_the_papers(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config/hosts.example.yaml", tmp_path / "hosts.yaml")
    loaded = load_hosts(tmp_path)
    paper = load_experiment(ROOT / "config/experiments/paper.yaml", loaded)
    assert list(paper.images) == ["pytorch", "ubuntu", "python", "cuda", "nvcr"]
    assert [(p.resolution, p.iterations) for p in paper.workload.passes] == [
        (256, 400), (512, 200), (1024, 133), (2048, 100),
    ]  # fmt: skip
    protocol = paper.protocol
    assert paper.device == "cuda"
    assert (protocol.blocks, protocol.warm_up.seconds) == (30, 60)
    assert (protocol.rest.min_s, protocol.rest.max_s) == (60, 600)
    assert protocol.idle_baseline is not None
    assert protocol.idle_baseline.seconds == 180
    plan = make_plan(list(paper.images), protocol, "gpu-a", "1")
    assert len(plan) == 30 * 5 * 2  # a workload and an idle trial an image and block


def test_connections_hold_what_strict_ssh_needs(checkout: Checkout) -> None:
    write(checkout)
    file = checkout.root / "var/demo/connections.json"
    assert file.stat().st_mode & 0o777 == 0o600
    found = json.loads(file.read_text())
    assert set(found) == {"wattbench_virtual_1", "wattbench_virtual_2", "wattbench_store"}
    first, second = found["wattbench_virtual_1"], found["wattbench_virtual_2"]
    assert first["host"] == "10.88.68.11"
    assert first["extra"]["no_host_key_check"] is False
    assert first["extra"]["host_key"] != second["extra"]["host_key"]
    private = load_ssh_private_key(first["extra"]["private_key"].encode(), None)
    assert isinstance(private, Ed25519PrivateKey)
    load_ssh_public_key(first["extra"]["host_key"].encode())


def test_keys_and_passwords_are_made_once_and_for_the_owner_alone(checkout: Checkout) -> None:
    first, again = (hosts.describe(checkout, NETWORK) for _ in range(2))
    assert first == again
    assert credentials.ensure(checkout) == credentials.ensure(checkout)
    secret = [*checkout.demo.glob("ssh/virtual-?"), checkout.demo / "credentials.json"]
    assert len(secret) == 3
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    assert (checkout.demo / "ssh").stat().st_mode & 0o777 == 0o700


def test_known_hosts_has_the_key_that_the_host_will_have(checkout: Checkout) -> None:
    known = [(host.address, host.host_key.public) for host in hosts.describe(checkout, NETWORK)]
    lines = (checkout.demo / "ssh/known_hosts").read_text().splitlines()
    assert [tuple(line.split(" ", 1)) for line in lines] == known


def test_one_image_with_two_environments_is_built_once() -> None:
    images = {
        name: {"ref": f"registry.local/wattbench/{folder}:demo", "env": {"A": name}}
        for name, folder in {"a": "pip-numpy", "b": "apt-numpy", "c": "pip-numpy"}.items()
    }
    text = yaml.safe_dump({"images": images})
    assert workloads.references(text) == [("pip-numpy", "demo"), ("apt-numpy", "demo")]


def test_each_image_starts_from_the_base_that_its_dockerfile_asks_for() -> None:
    bases = Bases(debian="debian", python="python")
    assert workloads.base_of(Context("pip-torch").dockerfile, bases) == "python"
    assert workloads.base_of(Context("apt-torch").dockerfile, bases) == "debian"


def test_a_subnet_in_use_is_avoided() -> None:
    first = choose_subnet("00000000", [])
    second = choose_subnet("00000000", [first])
    assert first != second
    assert not first.overlaps(second)
    vpn = Subnet("10.0.0.0/9")  # covers 10.88.0.0/16 whole
    with pytest.raises(Exception, match=r"no free subnet in 10\.88\.0\.0/16"):
        choose_subnet("00000000", [vpn])


def test_routes_are_read_as_the_kernel_writes_them() -> None:
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert parse_routes(table) == [Subnet("192.0.2.0/24")]


def test_torn_uploads_are_deleted_and_objects_are_not(tmp_path: Path) -> None:
    bucket = tmp_path / "wattbench"
    bucket.mkdir()
    for name in (".rclone_temp_put_1", ".rclone_temp_multipart_2", "run.json"):
        (bucket / name).touch()
    remove_torn_uploads(tmp_path)
    assert [path.name for path in bucket.iterdir()] == ["run.json"]
