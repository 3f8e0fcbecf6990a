"""DAG files: what they build, how fast, and how cheaply they import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.dags.many_experiments import REPO, parse_each, write_config
from tests.support.airflow_process import in_airflow
from tests.support.config_mistakes import FILES, SPECIAL, write_bad_files


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:  # type: ignore[type-arg]
    """What one Airflow process makes of a plain configuration, a large one and a wild one."""
    root = tmp_path_factory.mktemp("dags")
    configs = [
        plain_config(root),
        write_config(root / "many", hosts=20, experiments=10),
        wild_config(root),
    ]
    return parse_each(configs, root)


@pytest.fixture(scope="module")
def parsed(found: list[dict]) -> dict:  # type: ignore[type-arg]
    return found[0]


def plain_config(root: Path) -> Path:
    """An experiment, one with a schedule, and two that are refused."""
    config = write_config(root / "plain", hosts=2, experiments=1)
    nightly = yaml.safe_load((config / "experiments/exp-00.yaml").read_text()) | {
        "schedule": "0 1 * * *"
    }
    (config / "experiments/nightly.yaml").write_text(yaml.safe_dump(nightly))
    (config / "experiments/broken.yaml").write_text("hosts: [nowhere]\n")
    too_long = yaml.safe_load((config / "experiments/exp-00.yaml").read_text())
    too_long["protocol"]["blocks"] = 2000
    (config / "experiments/too-long.yaml").write_text(yaml.safe_dump(too_long))
    return config


def test_the_dag_file_is_thin() -> None:
    assert len((REPO / "dags/experiments.py").read_text().splitlines()) < 50


def test_every_host_has_a_group_of_its_own(parsed: dict) -> None:  # type: ignore[type-arg]
    tasks = parsed["dags"]["exp-00"]["tasks"]
    for host in ("gpu-00", "gpu-01"):
        assert tasks[f"{host}.check"]["up"] == ["prepare"]
        assert tasks[f"{host}.pull"]["up"] == [f"{host}.check"]
        assert f"{host}.warm_up" in tasks[f"{host}.trial.rest"]["up"]
        assert f"{host}.trial.rest" in tasks[f"{host}.trial.measure"]["up"]
        # Not the teardown alone: then a failed measure would be a leaf that fails the run.
        assert tasks[f"{host}.plan_again"]["up"] == [
            f"{host}.trial.collect",
            f"{host}.trial.measure",
        ]
        assert f"{host}.host_report" in tasks["analyze"]["up"]
    assert not any(
        "gpu-01" in up for task, t in tasks.items() if task.startswith("gpu-00.") for up in t["up"]
    )
    assert tasks["verdict"]["up"] == ["analyze", "gpu-00.host_report", "gpu-01.host_report"]


def test_hosts_pull_side_by_side_and_each_one_image_at_a_time(parsed: dict) -> None:  # type: ignore[type-arg]
    tasks = parsed["dags"]["exp-00"]["tasks"]
    pulls = {name: task for name, task in tasks.items() if name.endswith(".pull")}
    assert {name: task["at_once"] for name, task in pulls.items()} == {
        "gpu-00.pull": 1,
        "gpu-01.pull": 1,
    }


def test_collect_and_release_are_teardowns_so_they_always_run(parsed: dict) -> None:  # type: ignore[type-arg]
    tasks = parsed["dags"]["exp-00"]["tasks"]
    assert tasks["gpu-00.trial.collect"]["teardown"]
    assert tasks["gpu-00.trial.rest"]["setup"]
    assert tasks["gpu-00.release"]["teardown"]
    # `check` may fail with the lease taken: what decides whether there is something to release is `prepare`.
    assert tasks["prepare"]["setup"]
    assert "prepare" in tasks["gpu-00.release"]["up"]
    assert not tasks["gpu-00.check"]["setup"]


def test_a_run_that_a_person_ends_still_closes_its_books(parsed: dict) -> None:  # type: ignore[type-arg]
    """Of a run that is marked failed or success Airflow runs the teardowns, and nothing else."""
    tasks = parsed["dags"]["exp-00"]["tasks"]
    closing = ("gpu-00.release", "gpu-01.release", "analyze", "verdict", "notify")
    assert all(tasks[name]["teardown"] for name in closing)
    # The verdict alone colours the run, and has no setup with which it could be skipped.
    deciding = {n for n, t in tasks.items() if not t["teardown"] or t["fails_run"]}
    leaves = {n for n in deciding if not any(n in tasks[other]["up"] for other in deciding)}
    assert leaves == {"verdict"}
    assert not any(tasks[up]["setup"] for up in tasks["verdict"]["up"])
    assert {"gpu-00.release", "gpu-01.release"} <= set(tasks["analyze"]["up"])
    # The host's report is skipped then: what is still being collected is waited for by name.
    assert {"gpu-00.trial.collect", "gpu-00.again.collect"} <= set(tasks["gpu-00.release"]["up"])


def test_no_dag_has_a_deadline_since_it_would_forbid_clearing(parsed: dict) -> None:  # type: ignore[type-arg]
    assert not any(dag["deadline"] for dag in parsed["dags"].values())


def test_a_schedule_makes_it_nightly_without_catch_up(parsed: dict) -> None:  # type: ignore[type-arg]
    dags = parsed["dags"]
    assert dags["exp-00"]["schedule"] is None
    assert "0 1 * * *" in dags["nightly"]["schedule"]
    assert not dags["nightly"]["catchup"]
    assert dags["exp-00"]["params"] == ["hosts", "images", "blocks", "seed", "finish_by"]


def test_a_refused_experiment_is_a_dag_that_says_why_and_spares_the_others(parsed: dict) -> None:  # type: ignore[type-arg]
    assert parsed["errors"] == {}
    assert list(parsed["dags"]["broken"]["tasks"]) == ["refused"]
    assert "workload: is missing" in parsed["dags"]["broken"]["doc"]
    assert "exp-00" in parsed["dags"]


def test_a_plan_longer_than_airflow_maps_is_refused_with_the_settings_name(parsed: dict) -> None:  # type: ignore[type-arg]
    assert "core.max_map_length" in parsed["dags"]["too-long"]["doc"]


def test_parsing_imports_nothing_heavy(parsed: dict) -> None:  # type: ignore[type-arg]
    assert parsed["heavy"] == []


def test_twenty_hosts_and_ten_experiments_parse_without_error(found: list[dict]) -> None:  # type: ignore[type-arg]
    """The time itself is measured by ``make bench``; here only that it works and scales."""
    big = found[1]
    assert big["errors"] == {}
    assert len(big["dags"]) == 11  # and housekeeping
    print(f"20 hosts x 10 experiments parsed in {big['took_s']:.2f} s")


def test_the_plugins_folder_loads_one_file_only() -> None:
    ignored = (REPO / "plugins/.airflowignore").read_text().split()
    assert "wattbench/" in ignored


@pytest.fixture(scope="module")
def wild(found: list[dict]) -> dict:  # type: ignore[type-arg]
    return found[2]


def wild_config(root: Path) -> Path:
    """An experiment among files of every kind."""
    config = write_config(root / "wild", hosts=1, experiments=1)
    folder = config / "experiments"
    write_bad_files(folder, (folder / "exp-00.yaml").read_text())
    return config


def test_whatever_a_file_holds_the_other_experiments_carry_on(wild: dict) -> None:  # type: ignore[type-arg]
    assert wild["errors"] == {}
    assert "exp-00.check" not in wild["dags"]["exp-00"]["tasks"]
    assert "gpu-00.check" in wild["dags"]["exp-00"]["tasks"]
    made = {dag_id for _, dag_id, _ in FILES.values()} | set(SPECIAL.values()) | {"exp-00"}
    assert set(wild["dags"]) - {"wattbench-housekeeping"} == made


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_refused_shows_as_refused_with_the_reason(wild: dict, name: str) -> None:  # type: ignore[type-arg]
    _, dag_id, said = FILES[name]
    dag = wild["dags"][dag_id]
    if said is None:
        assert "gpu-00.check" in dag["tasks"]
    else:
        assert "refused" in dag["tags"]
        assert said in dag["doc"]
        assert "please report this" not in dag["doc"]


EDIT = """
import json, os
from pathlib import Path
from wattbench.airflow.dag import experiment_dags

folder = Path(os.environ["WATTBENCH_CONFIG"])

def seen():
    (dag,) = [dag for dag in experiment_dags(folder).values() if dag.dag_id == "exp-00"]
    return {"tasks": sorted(dag.task_ids), "tags": sorted(dag.tags), "schedule": dag.schedule, "doc": dag.doc_md}

found = [seen()]
for name in ("experiments/exp-00.yaml", "hosts.yaml"):
    kept = (folder / name).read_text()
    (folder / name).write_text("images: [")
    found.append(seen())
    (folder / name).write_text(kept)
from wattbench.airflow.task_context import hosts_config
(folder / "hosts.yaml").write_text("hosts: {a: ")
found.append(sorted(hosts_config().hosts))
(folder / "hosts.yaml").write_text(kept)
found.append(seen())
print(json.dumps(found))
"""


def test_a_file_that_is_broken_in_mid_run_takes_no_task_from_the_run(tmp_path: Path) -> None:
    """Airflow ends a run whose tasks are gone from its DAG, and lets no teardown run."""
    config = write_config(tmp_path / "config", hosts=2, experiments=1)
    said = in_airflow(EDIT, tmp_path / "home", WATTBENCH_CONFIG=str(config))
    whole, broken, hosts_broken, hosts, mended = json.loads(said.splitlines()[-1])
    assert broken["tasks"] == hosts_broken["tasks"] == whole["tasks"]
    for refused, name in ((broken, "exp-00.yaml"), (hosts_broken, "hosts.yaml")):
        assert "refused" in refused["tags"]
        assert refused["schedule"] is None
        assert "**This experiment is refused.**" in refused["doc"]
        assert name in refused["doc"]
    assert hosts == ["gpu-00", "gpu-01"]
    assert mended == whole


@pytest.mark.slow
def test_each_bad_file_alone_leaves_the_experiment_beside_it(tmp_path: Path) -> None:
    configs = []
    for number, (name, (text, _, _)) in enumerate(FILES.items()):
        config = write_config(tmp_path / f"alone-{number}", hosts=1, experiments=1)
        sound = (config / "experiments/exp-00.yaml").read_text()
        (config / "experiments" / name).write_text(text.replace("{}", sound, 1))
        configs.append(config)
    alone_as = {"A-b.yaml": "A-b"}  # "A b.yaml" has its name only where both lie there
    for found, (name, (_, dag_id, said)) in zip(
        parse_each(configs, tmp_path), FILES.items(), strict=True
    ):
        made = alone_as.get(name, dag_id)
        assert found["errors"] == {}, name
        assert set(found["dags"]) == {"exp-00", made, "wattbench-housekeeping"}, name
        assert "gpu-00.check" in found["dags"]["exp-00"]["tasks"]
        assert ("refused" in found["dags"][made]["tags"]) == (said is not None)
