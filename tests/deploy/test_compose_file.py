"""The compose file: valid for both generations of Compose, without a secret, without a loose end."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyOptions

from deploy import environment
from deploy.stack import COMPOSE_FILE, ROOT
from wattbench.local import packages

TEXT = COMPOSE_FILE.read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
OURS = {"init", "api-server", "scheduler", "dag-processor", "triggerer", "worker"}


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("deploy") / "env"
    environment.make(file)
    return file


def interpolated(variables: dict[str, str]) -> str:
    """The file as Compose sees it: `${NAME}`, `${NAME:-default}`, `${NAME:?why}`."""

    def value(found: re.Match[str]) -> str:
        given = variables.get(found["name"], "")
        if not given and found["kind"] != "-":
            raise KeyError(found["name"])
        return given or found["rest"]

    return VARIABLE.sub(value, TEXT)


@pytest.fixture(scope="module")
def services(env_file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(interpolated(environment.read(env_file)))["services"])


def parse(text: str) -> Any:
    """By a parser of the Compose specification that refuses other keys; it reads no merge key."""
    merged = {key: part for key, part in yaml.safe_load(text).items() if not key.startswith("x-")}
    compose = PyOptions().from_yaml(yaml.safe_dump(merged))
    compose.validate_networks()
    compose.validate_volumes()
    return compose


def test_is_valid_by_the_compose_specification(env_file: Path) -> None:
    compose = parse(interpolated(environment.read(env_file)))
    assert OURS | {"postgres", "store", "broker"} == set(compose.services)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("stop_signal: SIGINT", "stop_sigal: SIGINT", "stop_sigal"),
        ("condition: service_healthy", "condition: service_well", "service_well"),
        ("mem_limit: 2g", "mem_limit: 2 pots", "2 pots"),
        ("    stop_grace_period: 30s", "    networks: [absent]", "absent"),
    ],
)
def test_that_check_would_have_found_a_slip(
    env_file: Path, right: str, wrong: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        parse(interpolated(environment.read(env_file)).replace(right, wrong))


def by_docker_compose(env_file: Path, **changed: str) -> dict[str, Any]:
    packages.require({"docker-compose": "docker-compose"}, print)
    done = subprocess.run(
        ["docker-compose", "--env-file", env_file, "--file", COMPOSE_FILE, "config"],
        capture_output=True, text=True, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **changed},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dict(yaml.safe_load(done.stdout)["services"])


@pytest.mark.docker
def test_is_valid_for_docker_compose_1_29_too(env_file: Path, services: dict[str, Any]) -> None:
    merged = by_docker_compose(env_file)
    assert {name: s["image"] for name, s in merged.items()} == {
        name: s["image"] for name, s in services.items()
    }


@pytest.mark.docker
def test_three_variables_change_the_store(env_file: Path) -> None:
    merged = by_docker_compose(
        env_file,
        STORE_ENDPOINT="https://s3.example.org",
        STORE_ACCESS_KEY="other",
        STORE_SECRET_KEY="a secret/with+signs",
    )
    connection = json.loads(merged["scheduler"]["environment"]["AIRFLOW_CONN_WATTBENCH_STORE"])
    assert connection["extra"]["endpoint_url"] == "https://s3.example.org"
    assert (connection["login"], connection["password"]) == ("other", "a secret/with+signs")


def test_images_of_others_are_pinned_by_a_version(services: dict[str, Any]) -> None:
    for name in set(services) - OURS:
        tag = services[name]["image"].partition("@")[0].rpartition(":")[2]
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-\w+)?", tag), services[name]["image"]


@pytest.mark.parametrize("name", sorted(OURS | {"postgres", "store", "broker"}))
def test_every_service_is_limited_restarted_and_watched(
    services: dict[str, Any], name: str
) -> None:
    service = services[name]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name == "init" else "unless-stopped")
    assert ("healthcheck" in service) == (name != "init")


def test_only_airflows_address_is_published_and_only_where_the_env_file_says(
    services: dict[str, Any],
) -> None:
    assert {name: s["ports"] for name, s in services.items() if "ports" in s} == {
        "api-server": ["127.0.0.1:8080:8080"]
    }


def test_all_state_is_in_named_volumes(services: dict[str, Any]) -> None:
    mounted = {v.split(":")[0] for s in services.values() for v in s.get("volumes", ())}
    assert mounted == {"accepted", "database", "store", "logs", "./config"}


def test_no_secret_has_a_default() -> None:
    secret = {f["name"] for f in VARIABLE.finditer(TEXT) if re.search("PASSWORD|KEY|SECRET", f[0])}
    required = {f["name"] for f in VARIABLE.finditer(TEXT) if f["kind"] == "?"}
    assert secret <= required
    assert len(secret) >= 8


def test_the_env_file_has_all_that_is_required_and_git_never_sees_it(env_file: Path) -> None:
    required = {f["name"] for f in VARIABLE.finditer(TEXT) if f["kind"] == "?"}
    assert required <= set(environment.read(env_file))
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
