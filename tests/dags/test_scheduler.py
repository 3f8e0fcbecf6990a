"""Every mistake at once in experiments/, under a real dag-processor and scheduler: sound experiments carry on."""

from __future__ import annotations

import html
import re
import select
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dags.many_experiments import REPO
from tests.support import config_mistakes, ssh_server
from wattbench.cli import command_line, follow
from wattbench.cli.airflow_api import Client, Login, reasons
from wattbench.dag_runs import Run
from wattbench.local import airflow_services, connections, credentials, object_store
from wattbench.local.airflow_services import Airflow, Layout
from wattbench.local.processes import Service, services
from wattbench.local.state_folder import StateFolder

pytestmark = pytest.mark.slow

#: Runs on cpu-b, whose host key is not the pinned one: refused as soon as the server speaks.
SOUND = """
hosts: [cpu-b]
workload: {passes: [{resolution: 64, iterations: 2}]}
images: {one: {runtime: process, command: python3 one.py}, two: {runtime: process, command: python3 two.py}}
reference: one
protocol: {blocks: 2, idle_baseline: null}
"""
#: Sound experiments with names that Python or Airflow uses.
NAMES = {
    name.removesuffix(".yaml")
    for name, (_, _, said) in config_mistakes.FILES.items()
    if said is None
}
#: DAG of a refused file → the file, and what its reason says.
REFUSED = {
    dag_id: (name, said) for name, (_, dag_id, said) in config_mistakes.FILES.items() if said is not None
} | {
    f"mistake-{number:02d}": (f"mistake-{number:02d}.yaml", said)
    for number, (_, _, said) in enumerate(config_mistakes.MISTAKES)
} | {dag_id: (name, "") for name, dag_id in config_mistakes.SPECIAL.items()}  # fmt: skip


@dataclass
class Controller:
    """An Airflow of its own, with an object store and a host that answers when the test lets it.

    Attributes:
        airflow: its address and login.
        config: its hosts.yaml and experiments/.
        host: accepts connections, and says nothing before `start`.
        dag_file: touched, it is parsed at once.
    """

    airflow: Airflow
    config: Path
    host: ssh_server.Server
    dag_file: Path
    client: Client

    def wait(self, seen: Callable[[], bool], what: str) -> None:
        """Until Airflow shows it: its REST API has no event for what the dag-processor writes."""
        deadline = time.monotonic() + 240
        while not seen():
            assert time.monotonic() < deadline, f"not in time: {what}: {self.client.experiments()}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    state = StateFolder(tmp_path_factory.mktemp("controller"))
    config = state.folder("config")
    experiments = state.folder("config", "experiments")
    (config / "hosts.yaml").write_text(config_mistakes.HOSTS)
    (experiments / "sound.yaml").write_text(SOUND)
    dag_file = state.folder("dags") / "experiments.py"
    dag_file.write_bytes((REPO / "dags/experiments.py").read_bytes())
    keys = credentials.ensure(state)
    store = object_store.describe(state, keys)
    host = ssh_server.Server(ssh_server.new_key(), ssh_server.new_key())
    host.listener.listen()
    ssh = {
        "conn_type": "ssh", "host": "127.0.0.1", "port": host.port, "login": "bench",
        "extra": {
            "private_key": ssh_server.pem(host.client_key),
            "host_key": ssh_server.public(ssh_server.new_key()),
        },
    }  # fmt: skip
    connections.write(
        state, {connections.STORE: store.connection(), connections.connection_id("cpu-b"): ssh}
    )
    layout = Layout(
        home=state.path / "airflow", dags=dag_file.parent, plugins=REPO / "plugins", config=config,
        environment=airflow_services.PROMPT | {
            "PYTHONPATH": f"{REPO}:{REPO / 'plugins'}",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        },
    )  # fmt: skip
    airflow = airflow_services.describe(state, keys, layout)
    client = Client(Login(airflow.url, airflow.user, airflow.password))
    try:
        object_store.ensure(state, store)
        airflow_services.ensure(state, airflow, keys)
        airflow_services.wait_until_ready(state, airflow, within_s=240)
        yield Controller(airflow, config, host, dag_file, client)
    finally:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Service.stop, services(state)))
        host.stop()


@dataclass(frozen=True)
class Seen:
    """What came of two runs: one that went on while the files came, one that was started after.

    Attributes:
        runs: both, over.
        said: what `wattbench run --wait` prints of each.
        page: the page *Experiments* as text.
    """

    runs: Mapping[str, Run]
    said: Mapping[str, str]
    page: str


@pytest.fixture(scope="module")
def seen(controller: Controller) -> Seen:
    client = controller.client
    client.wait_for_dag("sound", within_s=240)
    runs = {"sound": client.trigger("sound")}
    # The run has come to its host, which says nothing yet.
    assert select.select([controller.host.listener], [], [], 240)[0], "no task came to the host"

    experiments = controller.config / "experiments"
    config_mistakes.write_bad_files(experiments, SOUND.strip())
    for number, (old, new, _) in enumerate(config_mistakes.MISTAKES):
        text = config_mistakes.EXPERIMENT.replace(old, new)
        (experiments / f"mistake-{number:02d}.yaml").write_text(text)
    controller.dag_file.touch()
    controller.wait(lambda: set(client.experiments()) >= {"sound", *NAMES, *REFUSED}, "all files")
    runs["path"] = client.trigger("path")

    controller.host.start()
    said = {}
    for name, run in runs.items():
        assert follow.follow(client, run) == 1
        runs[name] = client.run(run)
        said[name] = "\n".join(reasons(client, run, client.tasks(run)))
    page = client.fetch("/wattbench/experiments").decode()
    return Seen(runs, said, " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split()))


@pytest.mark.parametrize("name", ["sound", *sorted(NAMES)])
def test_a_sound_experiment_stays_among_files_of_every_kind(
    controller: Controller, seen: Seen, name: str
) -> None:
    assert seen
    dag = controller.client.dag(name)
    assert dag is not None
    assert dag.is_runnable


@pytest.mark.parametrize("name", ["sound", "path"])
def test_its_runs_go_on_to_their_end(seen: Seen, name: str) -> None:
    """One was going on while the files came, the other was started after; both meet the host's wrong key."""
    assert seen.runs[name].state == "failed"
    assert "its host key changed" in seen.said[name]


@pytest.mark.parametrize("dag_id", REFUSED)
def test_a_bad_file_is_shown_as_refused_with_its_place_and_reason(
    controller: Controller, seen: Seen, dag_id: str
) -> None:
    name, said = REFUSED[dag_id]
    reason = controller.client.refusal(dag_id)
    assert f"experiments/{name}" in reason
    assert said in reason
    assert f"refused {reason}" in seen.page


def test_the_command_line_refuses_the_same_files_with_the_same_reasons(
    controller: Controller, seen: Seen, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert seen
    monkeypatch.setenv("WATTBENCH_CONFIG", str(controller.config))
    assert command_line.main(["check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    for dag_id, (name, _) in REFUSED.items():
        reason = controller.client.refusal(dag_id)
        assert reason in lines
        assert command_line.main(["plan", str(controller.config / "experiments" / name)]) == 2
        assert capsys.readouterr().err == f"wattbench: {reason}\n"


def test_no_dag_file_is_lost(controller: Controller, seen: Seen) -> None:
    assert seen
    assert controller.client.import_errors() == {}
