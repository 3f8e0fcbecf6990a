"""Every experiment that README and the pages for its kind show, and those of config/experiments/examples,
from their plan to a start that nothing refuses: in containers of stand-in images, on this machine's Docker.

Changed are the references, a GPU for the CPU, paths and CPUs of the host, and a number of documents; nothing else
is. A load from another host needs two: tests/integration/test_load_host.py.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.live_chain import SPOKEN, Here, Shelf, quiet_platform
from tests.support.local_docker import base_image, containers, docker, networks
from tests.support.servers import SERVER
from wattbench.config.hosts import HostsConfig
from wattbench.config.loader import read_experiment
from wattbench.run.stored_run import Run
from wattbench.steps.prepare import prepare
from wattbench.steps.prove_workload import prove

pytestmark = [pytest.mark.docker]

REPO = Path(__file__).resolve().parents[3]
EXAMPLES = REPO / "config/experiments/examples"
CPUS = [str(number) for number in sorted(os.sched_getaffinity(0))]
DOCS = ("experiments.md", "tutorial.md", "workload-protocol.md", "servers.md")
PAGES = (REPO / "README.md", *(REPO / "docs" / name for name in DOCS))
#: What the pages have beside their experiments.
BESIDE = {
    "bench.py": "print('model loaded\\nprocessed 500 documents\\nchecksum 00ff')",
    "requests.jsonl": '{"path": "/predict", "json": {"n": 1}}\n',
}

#: Speaks for the built-in program and for the servers of large language models; else it is Python.
PYTHON = f"""\
#!/usr/bin/python3 -IS
import json, os, sys
words = sys.argv[1:]
is_server = "--port" in words
if is_server or "--program" in words:
    does = {{"port": int(words[words.index("--port") + 1]), "answer": {{
        "topic": "a", "label": "a", "choices": [{{"message": {{"content": "a"}}}}], "usage": {{"completion_tokens": 128}},
    }}}} if is_server else {{"seconds": 0.1}}
    sys.argv[1:] = [json.dumps(does), *words[1:]]
    exec({SERVER!r} if is_server else {SPOKEN!r})
else:
    os.execv("/usr/bin/python3", ["python3", *words])
"""


def shown() -> Iterator[Any]:
    """Whole experiments: a page's excerpts have neither hosts nor images."""
    for page in PAGES:
        for code in re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
            data = yaml.safe_load(code)
            if not {"hosts", "images", "workload"} <= set(data):
                continue
            if "host" not in data["workload"].get("load", {}).get("from", {}):
                name = re.search(r"config/experiments/([\w-]+)\.yaml", code)
                yield pytest.param(data, page.parent, id=f"{page.name}-{name and name[1]}")
    for path in sorted(EXAMPLES.glob("*.yaml")):
        yield pytest.param(yaml.safe_load(path.read_text("utf-8")), EXAMPLES, id=path.name)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for a process of the host."""
    path = tmp_path_factory.mktemp("host") / "python3"
    path.write_text(PYTHON.replace("/usr/bin/python3", sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def ref(registry: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stand-in as an image in a registry, and by its digest on this machine."""
    folder = tmp_path_factory.mktemp("image")
    programs = {"python3": PYTHON, "vllm": '#!/bin/sh\nexec python3 "$0" "$@"\n'}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "Dockerfile").write_text(
        f"FROM {base_image()}\nCOPY {' '.join(programs)} /usr/local/bin/\n"
        'CMD ["python3", "-m", "sglang.launch_server", "--port", "8000"]\n'
    )
    name = f"{registry.address}/examples/stand-in:v1"
    docker("build", "-q", "-t", name, str(folder))
    docker("push", name)
    yield name
    docker("rmi", name)


def container_here(settings: dict[str, Any], models: Path) -> dict[str, Any]:
    """The same settings with a folder and a CPU of this machine."""
    here = {"volumes": dict.fromkeys(settings.get("volumes", ()), str(models)), "cpuset": CPUS[0]}
    return settings | {key: here[key] for key in settings.keys() & here.keys()}


def stand_in(data: dict[str, Any], ref: str, python: Path, models: Path) -> dict[str, Any]:
    images = {
        name: image
        | ({"python": str(python)} if image.get("runtime") == "process" else {"ref": ref})
        | (
            {"container": container_here(image["container"], models)}
            if "container" in image
            else {}
        )
        for name, image in data["images"].items()
    }
    container = container_here(data.get("container", {}), models)
    workload = dict(data["workload"])
    if "cpuset" in workload.get("load", {}).get("from", {}):
        workload["load"] = workload["load"] | {"from": {"cpuset": CPUS[-1]}}
    if "command" in workload:
        workload["command"] = ["200" if w == "20000" else w for w in workload["command"]]
    return data | {
        "device": "cpu", "images": images, "container": container, "workload": workload,
    }  # fmt: skip


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(quiet_platform(tmp_path / "platform")))
    host = Here(tmp_path / "spool")
    host.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
    yield host
    host.call("cleanup", {"owner": "run-1"})
    assert containers(host.spool) == ""
    assert networks(host.spool) == ""


class Memory(Shelf):
    def check(self) -> None: ...


@pytest.mark.parametrize(("data", "folder"), list(shown()))
def test_an_experiment_that_is_shown_is_planned_and_starts(
    data: dict[str, Any], folder: Path, ref: str, python: Path, host: Here, tmp_path: Path
) -> None:
    for name, text in BESIDE.items():
        (tmp_path / name).write_text(text)
    if folder == EXAMPLES:
        for path in EXAMPLES.iterdir():
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "shown.yaml"
    path.write_text(yaml.safe_dump(stand_in(data, ref, python, tmp_path)))
    experiment = read_experiment(path)
    meter = {"kind": "powercap"}
    hosts = HostsConfig.model_validate(
        {
            "store": {"bucket": "wattbench"},
            "hosts": {h: {"ssh_conn_id": "x", "meter": meter} for h in experiment.hosts},
        }
    )
    store: Any = Memory()
    run: Run = prepare(
        store, hosts, experiment, run_id="run-1",
        identity={"dag_id": "shown", "dag_run_id": "1", "run_after": "2026-01-01T00:00:00+00:00"},
        skipped_hosts={}, skipped_images={}, registries={}, folder=tmp_path,
    )  # fmt: skip
    assert set(run.document["plan"]) == set(data["hosts"])
    assert run.document["skipped_images"] == {}
    for trials in run.document["plan"].values():
        assert {trial["image"] for trial in trials} >= set(data["images"])
    name, agent = experiment.hosts[0], host
    for image in experiment.images:
        prove(run, agent, name, image)  # type: ignore[arg-type]  # it has what of a host is asked
    assert host.call("list", {})["attempts"] == []  # each has ended well, and nothing is left
