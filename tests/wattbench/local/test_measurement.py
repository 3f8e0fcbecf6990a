"""The experiment that `wattbench measure` writes is what was asked for, and one that wattbench reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wattbench.config.experiment import Experiment
from wattbench.config.loader import load_experiment, load_hosts
from wattbench.config.types import NAME_LENGTH
from wattbench.container.image_ref import ImageRef
from wattbench.errors import ConfigError
from wattbench.local.measurement import (
    Measurement,
    files_of,
    image_names,
    parse_env,
    parse_file,
    parse_unit,
)
from wattbench.run.plan import make_plan
from wattbench.workloads.command import CommandSettings

DIGEST = "sha256:" + "1f" * 32
ASKED = Measurement(
    images={"app-dev": "acme/app:dev", "slim": "acme/app:slim"},
    command=["python3", "-c", "print('processed 5')"],
    host="box",
)
REFS = {name: f"127.0.0.1:21000/docker.io/{ref}@{DIGEST}" for name, ref in ASKED.images.items()}


def read(folder: Path, asked: Measurement) -> Experiment:
    """As Airflow will read it."""
    experiments = folder / "experiments"
    for file in asked.files.values():
        (experiments / asked.name).mkdir(parents=True, exist_ok=True)
        (experiments / asked.name / file.name).write_bytes(file.read_bytes())
    experiments.mkdir(exist_ok=True)
    hosts = {"store": {"bucket": "wattbench"}, "hosts": {"box": {"ssh_conn_id": "box"}}}
    (folder / "hosts.yaml").write_text(yaml.safe_dump(hosts))
    path = experiments / f"{asked.name}.yaml"
    path.write_text(asked.text(REFS))
    return load_experiment(path, load_hosts(folder))


def test_every_option_reaches_the_experiment(tmp_path: Path) -> None:
    script = tmp_path / "bench.py"
    script.write_text("print('ready')")
    asked = replace(
        ASKED, blocks=7, unit={"name": "document", "pattern": r"processed (\d+)"}, ready="ready",
        same_work="checksum (.*)", env={"THREADS": "2"}, files={"/bench/bench.py": script},
        rest_s=90.0, timeout_s=120,
    )  # fmt: skip
    found = read(tmp_path, asked)
    workload = found.workload
    assert isinstance(workload, CommandSettings)
    assert workload.command == ["python3", "-c", "print('processed 5')"]
    assert workload.unit is not None
    assert (workload.unit.name, workload.unit.pattern) == ("document", r"processed (\d+)")
    assert workload.same_work is not None
    assert workload.ready is not None
    assert (workload.same_work.pattern, workload.ready.pattern) == ("checksum (.*)", "ready")
    assert list(workload.files) == ["/bench/bench.py"]
    assert {name: image.ref for name, image in found.images.items()} == REFS
    assert all(image.env == {"THREADS": "2"} for image in found.images.values())
    assert found.reference == "app-dev"
    assert (found.protocol.rest.min_s, found.protocol.rest.max_s) == (90, 90)
    assert found.protocol.timeout_s == 120
    plan = make_plan(list(found.images), found.protocol, "box", "1")
    # 7 blocks of two images, and one idle trial on the bare host
    assert [sum(t.kind == kind for t in plan) for kind in ("workload", "idle")] == [14, 1]


def test_without_a_program_each_image_runs_its_own_entry_point(tmp_path: Path) -> None:
    found = read(tmp_path, replace(ASKED, command=[]))
    assert isinstance(found.workload, CommandSettings)
    assert found.workload.command is None


def test_a_dry_run_is_announced_in_the_experiment(tmp_path: Path) -> None:
    assert "modelled, not measured" in read(tmp_path, replace(ASKED, modelled=True)).description
    assert "modelled" not in read(tmp_path, ASKED).description


def test_the_same_question_is_the_same_experiment_whatever_the_digests() -> None:
    assert replace(ASKED, command=list(ASKED.command)).name == ASKED.name
    changed: list[Measurement] = [
        replace(ASKED, blocks=11), replace(ASKED, modelled=True), replace(ASKED, command=["true"]),
        replace(ASKED, images=dict(reversed(ASKED.images.items()))),
        replace(ASKED, env={"A": "1"}), replace(ASKED, host="other"),
    ]  # fmt: skip
    names = {one.name for one in changed}
    assert len(names | {ASKED.name}) == len(changed) + 1


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["python:3.12", "python:3.12-slim"], ["python-3-12", "python-3-12-slim"]),
        (["ghcr.io/acme/app:1.4", "x/app:1.4"], ["app-1-4", "app-1-4-2"]),
        (["app", "app:latest", "app"], ["app", "app-2", "app-3"]),
        ([f"app@{DIGEST}", "idle"], ["app", "idle-image"]),
        (["a=app:1", "b=app:1"], ["a", "b"]),
        (["10.0.0.1:5000/App_x.y", "control"], ["app-x-y", "control-image"]),
    ],
)
def test_images_are_named_after_their_references(given: list[str], names: list[str]) -> None:
    assert list(image_names(given)) == names


@given(
    st.lists(st.from_regex(r"[a-z0-9]{1,60}(:[a-zA-Z0-9_.-]{0,20})?", fullmatch=True), min_size=2)
)
def test_names_are_always_valid_and_distinct(refs: list[str]) -> None:
    names = image_names(refs)
    assert list(names.values()) == refs
    assert all(0 < len(name) <= NAME_LENGTH for name in names)
    document = replace(ASKED, images=names).document(dict.fromkeys(names, f"app@{DIGEST}"))
    Experiment.model_validate(document)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["one"], "at least two images"),
        (["A=one", "b=two"], "small letters"),
        (["a=", "b=two"], "NAME=REF"),
        (["a=one", "a=two"], "stands twice"),
    ],
)
def test_images_that_can_t_be_named_are_refused(given: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        image_names(given)


def test_units_are_counted_by_events_a_number_or_a_pattern() -> None:
    assert parse_unit("document") == {"name": "document"}
    assert parse_unit("document:2.5") == {"name": "document", "count": 2.5}
    assert parse_unit(r"document:done: (\d+)") == {"name": "document", "pattern": r"done: (\d+)"}
    with pytest.raises(ConfigError, match="NAME:NUMBER"):
        parse_unit("document:")


def test_a_pattern_without_a_group_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"workload\.unit\.pattern.*parentheses"):
        read(tmp_path, replace(ASKED, unit=parse_unit("document:processed")))


def test_files_and_variables_are_read_from_the_command_line(tmp_path: Path) -> None:
    script = tmp_path / "bench.py"
    script.touch()
    assert parse_file(str(script)) == ("/bench/bench.py", script)
    assert parse_file(f"{script}:/opt/x.py") == ("/opt/x.py", script)
    assert parse_env("A=b=c") == ("A", "b=c")
    with pytest.raises(ConfigError, match="is not a file"):
        parse_file(str(tmp_path))
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_env("A")


def test_two_files_never_take_each_other_s_place(tmp_path: Path) -> None:
    first, second = (tmp_path / name / "bench.py" for name in "ab")
    for path in (first, second):
        path.parent.mkdir()
        path.write_text(path.parent.name)
    assert files_of([str(first), f"{first}:/opt/again.py"]) == {
        "/bench/bench.py": first, "/opt/again.py": first,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=f"/bench/bench.py is {first} already"):
        files_of([str(first), str(second)])
    with pytest.raises(ConfigError, match=f"{first} has the same name; rename one"):
        files_of([str(first), f"{second}:/opt/other.py"])


def test_a_copy_s_name_is_a_reference_by_digest() -> None:
    assert ImageRef.parse(REFS["slim"]).digest == DIGEST
