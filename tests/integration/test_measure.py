"""`wattbench measure` end to end on this machine: images that are only in its Docker, with modelled energy."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from demo import base_image
from demo.checkout import here
from wattbench.config.loader import load_experiment, load_hosts
from wattbench.container.image_ref import ImageRef
from wattbench.local import packages
from wattbench.local.processes import services
from wattbench.local.state_folder import StateFolder

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
#: Rounds of the lean image; the heavy one does twice as many, for the same 500 documents.
ROUNDS = 60_000
PROGRAM = """\
import hashlib, pathlib
digest = b""
for _ in range(int(pathlib.Path("/rounds").read_text())):
    digest = hashlib.sha256(digest + bytes(4096)).digest()
print("processed 500 documents")
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def images() -> Iterator[list[str]]:
    """Two images that no registry has."""
    packages.require({"sshd": "openssh-server"}, print)
    client = docker.from_env()
    base = base_image.ensure(client, here(), print).python
    made = []
    for name, rounds in (("lean", ROUNDS), ("heavy", 2 * ROUNDS)):
        ref = f"{here().prefix}/measure-{name}:dev"
        text = f"FROM {base}\nRUN echo {rounds} > /rounds\n"
        argv = ["docker", "build", "-q", "--label", here().label, "-t", ref, "-"]
        subprocess.run(argv, input=text, text=True, check=True, stdout=subprocess.DEVNULL)
        made.append(ref)
    yield made
    for ref in made:
        client.images.remove(ref, force=True)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def start(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts the command; at the end nothing that it has brought up is left."""
    (folder := tmp_path_factory.mktemp("here")).joinpath("bench.py").write_text(PROGRAM)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "WATTBENCH"))}
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "XDG_STATE_HOME": str(state)}

    def call(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("wattbench")), *words], cwd=folder, text=True,
            env=clean | path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    # A shell starts background jobs with ^C ignored, which their children inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield call
    signal.signal(signal.SIGINT, before)
    done = call("down", "--remove")
    done.communicate(timeout=300)
    assert done.returncode == 0
    assert not (state / "wattbench").exists()


@pytest.fixture(scope="module")
def finished(start: Start, images: list[str]) -> tuple[int, str, str]:
    running = start(
        "measure", f"lean={images[0]}", images[1], "--blocks", "2", "--rest", "1", "--modelled",
        "--file", "bench.py", "--unit", r"document:processed (\d+)", "--", "python3", "/bench/bench.py",
    )  # fmt: skip
    out, errors = running.communicate(timeout=880)
    return running.returncode, out, errors


def path_after(word: str, out: str) -> Path:
    found = re.search(rf"^{word} +(\S+)$", out, re.MULTILINE)
    assert found, out
    return Path(found[1])


def test_every_trial_is_valid_and_its_joules_are_called_modelled(
    finished: tuple[int, str, str],
) -> None:
    code, out, errors = finished
    assert code == 0, out + errors
    assert "MODELLED" in errors
    report = path_after("report", out)
    assert report.is_file()
    assert "modelled" in report.with_name("report.txt").read_text()
    with report.with_name("trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "workload"]
    assert [row["status"] for row in rows] == ["valid"] * 4
    assert {row["unit"] for row in rows} == {"document"}
    joules = {
        image: sum(float(row["energy_j"]) for row in rows if row["image"] == image)
        for image in {row["image"] for row in rows}
    }
    heavy = next(name for name in joules if name.endswith("measure-heavy-dev"))
    assert joules[heavy] > joules["lean"], "twice the work"


def test_the_written_experiment_is_one_like_every_other_and_names_images_by_digest(
    finished: tuple[int, str, str], state: Path
) -> None:
    path = path_after("experiment", finished[1])
    hosts = load_hosts(state / "wattbench/config")
    experiment = load_experiment(path, hosts)
    (host,) = experiment.hosts
    assert host.endswith("-modelled")
    assert hosts.hosts[host].meter.kind == "modelled"
    client = docker.from_env()
    for image in experiment.images.values():
        ref = ImageRef.parse(str(image.ref))
        assert ref.registry.startswith("127.0.0.1:")
        assert client.images.get(ref.at(str(ref.digest))).tags


def test_secrets_are_the_owners_alone_and_in_no_command_line(
    finished: tuple[int, str, str], state: Path
) -> None:
    folder = state / "wattbench"
    secret = [folder / "ssh/host", folder / "ssh/client", folder / "credentials.json",
              folder / "connections.json", folder / "airflow.env", folder / "airflow_passwords.json"]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    known = json.loads((folder / "credentials.json").read_text())
    assert [
        name for name, value in known.items() if name != "airflow_user" and value in listed
    ] == []


def test_a_cancelled_measurement_leaves_nothing_running(
    finished: tuple[int, str, str], start: Start, images: list[str], state: Path
) -> None:
    running = start("measure", *images, "--modelled", "--rest", "1", "--", "python3", "-c",
                    "import time; time.sleep(5)")  # fmt: skip
    assert running.stdout is not None
    seen = []
    for line in running.stdout:
        seen.append(line)
        if "trial 2 of" in line:
            break
    assert "trial 2 of" in seen[-1], "".join(seen)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=400)
    assert running.returncode == 2
    assert "cancelled; nothing of it is left running" in errors
    ours = {"label": f"wattbench.spool={state / 'wattbench/spool'}"}
    assert docker.from_env().containers.list(all=True, filters=ours) == []
    assert not (state / "wattbench/spool/lease.json").exists()
    again = start("hosts")
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0, out
    assert (
        len(services(StateFolder(state / "wattbench"))) == 7
    )  # Airflow's four, store, registry, sshd
