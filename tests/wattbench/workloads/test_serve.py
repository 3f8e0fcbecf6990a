"""The workload ``serve``: what an experiment may say of it, and what the host gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.config_mistakes import refusal
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig, HostsConfig
from wattbench.config.loader import load_experiment, read_experiment
from wattbench.run.plan import PlannedTrial
from wattbench.worker.agent.documents import AttemptSpec, misfit
from wattbench.worker.attempt_spec import (
    attempt_spec,
    expectation,
    idle_probe_spec,
    load_spec,
    probe_expectation,
    probe_spec,
)
from wattbench.workloads import workload_of
from wattbench.workloads.load.plan import Plan
from wattbench.workloads.program_bundle import load_bundle
from wattbench.workloads.serve import GENERATOR, REQUESTS

HOST = HostConfig.model_validate({"ssh_conn_id": "x"})
YAML = """\
hosts: [h1]
workload:
  serve: {command: null, port: 8000, ready: {http: /health, timeout_s: 300}}
  files: {/bench/server.py: server.py}
  load:
    api: http
    requests: requests.jsonl
    steps:
      - {concurrency: 8, requests: 400}
      - {rate_per_s: 20, seconds: 60, arrivals: poisson}
    warmup: 20
    expect: {status: 200, json: "$.label"}
    slo: {p99_ms: 200, max_error_pct: 0.1}
    from: {cpuset: "3"}
images:
  a: {ref: "r.example/a:1", container: {cpuset: "0-2"}}
  b: {ref: "r.example/b:1", workload: {load: {warmup: 5}, serve: {port: 9000}}, command: serve --fast}
reference: a
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "requests.jsonl").write_text('{"path": "/p", "json": {"a": 1}}\n')
    (tmp_path / "server.py").write_text("pass\n")
    return tmp_path


def read(folder: Path, text: str = YAML) -> Experiment:
    (folder / "servers.yaml").write_text(text)
    return read_experiment(folder / "servers.yaml")


def changed(old: str, new: str) -> str:
    assert YAML.count(old) == 1
    return YAML.replace(old, new)


def spec(what: Experiment, image: str = "a", kind: str = "workload") -> dict[str, Any]:
    settings = what.workload_of(image)
    return attempt_spec(
        what, HOST, run_id="r", host_name="h1", trial=PlannedTrial(1, 1, kind, image), attempt=1,
        ref="r.example/a@sha256:1", files=workload_of(settings).files(settings), rest={}, seed="s",
    )  # fmt: skip


def test_a_server_s_experiment_is_what_its_yaml_says_and_survives_its_run(folder: Path) -> None:
    experiment = read(folder)
    assert experiment.workload.kind == "serve"
    stored = json.loads(json.dumps(experiment.model_dump(mode="json")))
    assert Experiment.model_validate(stored) == experiment
    assert stored["workload"]["load"]["from"] == {"host": None, "port": None, "cpuset": "3"}
    assert stored["workload"]["load"]["expect"] == {"status": 200, "json": "$.label"}


def test_the_endpoint_is_that_of_the_kind_unless_it_is_named(folder: Path) -> None:
    assert read(folder).analysis.endpoint == "steady"
    named = read(folder, YAML + "analysis: {endpoint: window}\n")
    assert named.analysis.endpoint == "window"
    program = "hosts: [h1]\nworkload: {command: x}\nimages: {a: {ref: a}}\nreference: a\n"
    assert read(folder, program).analysis.endpoint == "window"


def test_an_image_changes_inner_keys_of_the_load_and_of_the_server(folder: Path) -> None:
    load = spec(read(folder), "b")["serve"]
    assert (load["port"], load["plan"]["warmup"]) == (9000, 5)
    assert load["plan"]["ready_path"] == "/health"
    assert [s["name"] for s in load["plan"]["steps"]] == ["c8", "r20"]


def test_keys_of_the_load_are_levels_of_factors(folder: Path) -> None:
    factors = (
        "factors: {rate: {low: {workload: {load: {steps: [{rate_per_s: 0.5, seconds: 9}]}}}}}\n"
    )
    experiment = read(folder, YAML + factors)
    assert experiment.variants == {"rate-low": {"rate": "low"}}
    steps = spec(experiment, "rate-low")["serve"]["plan"]["steps"]
    assert steps == [{"name": "r0.5", "rate_per_s": 0.5, "seconds": 9.0, "arrivals": "poisson"}]
    assert spec(experiment, "rate-low")["serve"]["plan"]["warmup"] == 20


def test_the_host_gets_what_the_generator_reads(folder: Path) -> None:
    experiment = read(folder)
    sent = spec(experiment)
    assert (sent["entrypoint"], sent["command"], sent["times_lines"]) == (None, [], True)
    assert set(sent["files"]) == {"/bench/server.py"}
    serve = sent["serve"]
    settings = experiment.workload_of("a")
    files = workload_of(settings).files(settings)
    assert (serve["generator"], serve["requests"]) == (files[GENERATOR], files[REQUESTS])
    plan = Plan.of(
        serve["plan"]
        | {"host": "h", "port": serve["port"], "requests": str(folder / "requests.jsonl")}
    )
    assert (plan.cpus, plan.seed, plan.strict, plan.timeout_s) == ((3,), "s", False, 60.0)
    assert [(s.name, s.concurrency, s.rate_per_s) for s in plan.steps] == [
        ("c8", 8, None), ("r20", None, 20.0),
    ]  # fmt: skip
    assert plan.requests[0].body == b'{"a": 1}'
    assert spec(experiment, "b")["entrypoint"] == "serve"
    assert spec(experiment, kind="idle")["serve"] is None


ELSEWHERE = YAML.replace('from: {cpuset: "3"}', "from: {host: load-1, port: 18000}")


def test_a_load_from_another_host_meets_the_server_at_the_measured_one(folder: Path) -> None:
    experiment = read(folder, ELSEWHERE.replace('"0-2"', '"3"'))  # another machine's CPUs
    assert experiment.load_host == "load-1"
    settings = experiment.workload_of("a")
    sent = attempt_spec(
        experiment, HOST, run_id="r", host_name="h1", trial=PlannedTrial(1, 1, "workload", "a"),
        attempt=2, ref="x", files=workload_of(settings).files(settings), rest={}, seed="s",
        address="10.0.0.1",
    )  # fmt: skip
    assert sent["serve"] is not None
    link = sent["serve"]["link"]
    assert link is not None
    assert (link["load_host"], link["address"], link["port"]) == ("load-1", "10.0.0.1", 18000)
    own = load_spec(sent)
    assert (own["id"], own["kind"], own["runtime"]) == ("r/load-1/001-a/2", "load", "none")
    assert own["load"] == sent["serve"]
    assert own["timeout_s"] > sent["timeout_s"]
    assert misfit(own, AttemptSpec) is None
    assert misfit(sent, AttemptSpec) is None
    probe = probe_spec(
        experiment, HOST, run_id="r", host_name="h1", image="a", ref="x",
        files=workload_of(settings).files(settings), seed="s", address="10.0.0.1",
    )  # fmt: skip
    assert probe["serve"] is not None
    other = probe["serve"]["link"]
    assert other is not None
    assert other["token"] != link["token"]
    assert spec(experiment, "a", kind="idle")["serve"] is None


def test_a_load_host_loads_one_measured_host(folder: Path) -> None:
    line = refusal(read, folder, ELSEWHERE.replace("hosts: [h1]", "hosts: [h1, h2]"))
    assert "workload.load.from.host: one load host loads one measured host, and hosts has 2" in line


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({}, "workload.load.from.host: 'load-1' is not in hosts.yaml (h1); name one of them"),
        (
            {"load-1": {"ssh_conn_id": "x"}},
            "workload.load.from.host: 'load-1' has the connection 'x' of the measured host 'h1'",
        ),
    ],
)
def test_a_load_host_that_is_none_is_refused_by_name(
    folder: Path, others: dict[str, Any], said: str
) -> None:
    hosts = HostsConfig.model_validate(
        {"store": {"bucket": "wattbench"}, "hosts": {"h1": {"ssh_conn_id": "x"}} | others}
    )
    path = folder / "servers.yaml"
    path.write_text(ELSEWHERE)
    assert said in refusal(load_experiment, path, hosts)


def test_generator_and_requests_are_those_that_were_stored(folder: Path) -> None:
    settings = read(folder).workload_of("a")
    workload = workload_of(settings)
    assert workload.content(settings, GENERATOR, folder) == load_bundle().content
    assert workload.content(settings, REQUESTS, folder).startswith(b'{"path": "/p"')
    assert workload.content(settings, "/bench/server.py", folder) == b"pass\n"


def test_the_probe_asks_little_and_forgives_nothing(folder: Path) -> None:
    experiment = read(folder)
    settings = experiment.workload_of("a")
    sent = probe_spec(
        experiment, HOST, run_id="r", host_name="h1", image="a", ref="x",
        files=workload_of(settings).files(settings), seed="s",
    )  # fmt: skip
    plan = sent["serve"]["plan"]
    assert plan["steps"] == [{"name": "c1", "concurrency": 1, "requests": 5}]
    assert (plan["warmup"], plan["strict"]) == (0, True)
    assert probe_expectation(experiment, HOST, "a")["steps"] == plan["steps"]
    assert idle_probe_spec(experiment, sent, "a", loaded=False)["serve"] is None


def test_a_trial_is_expected_to_show_its_steps(folder: Path) -> None:
    expected = expectation(read(folder), HOST, PlannedTrial(1, 1, "workload", "a"))
    wanted = {
        "workload": "serve", "endpoint": "steady", "answers_compared": True,
        "unit": {"name": "request", "count": None, "pattern": None},
        "slo": {"p99_ms": 200.0, "max_error_pct": 0.1},
        "steps": [
            {"name": "c8", "concurrency": 8, "requests": 400},
            {"name": "r20", "rate_per_s": 20.0, "seconds": 60.0, "arrivals": "poisson"},
        ],
    }  # fmt: skip
    assert expected | wanted == expected
    assert expected["reports_itself"] is False


def test_a_repeated_step_has_a_number(folder: Path) -> None:
    text = changed("      - {rate_per_s: 20, seconds: 60, arrivals: poisson}\n",
                   "      - {concurrency: 1, requests: 2}\n      - {concurrency: 8, requests: 9}\n")  # fmt: skip
    plan = spec(read(folder, text))["serve"]["plan"]
    assert [s["name"] for s in plan["steps"]] == ["c8", "c1", "c8-2"]
    assert plan["warmup_concurrency"] == 8


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("port: 8000", "port: 80000", 3, "workload.serve.port: 80000: must be at most 65535"),
        ("http: /health", "http: health", 3, "workload.serve.ready.http: 'health': must match"),
        ("    api: http\n", "    api: grpc\n", 6, "workload.load.api: 'grpc': must be one of http, openai-chat, openai-completions"),
        ("requests: requests.jsonl", "requests: other.jsonl", 7, "workload.load.requests: 'other.jsonl' is not a file in"),
        ("requests: requests.jsonl", "requests: ../x", 7, "workload.load.requests: '../x' leaves the experiment's folder"),
        ("requests: requests.jsonl", "request: {path: x}", 5, "workload.load: request: path: 'x' is not a path"),
        ("    requests: requests.jsonl\n", "", 5, "workload.load: name either requests (a file) or request"),
        ("{concurrency: 8, requests: 400}", "{concurrency: 8}", 9, "workload.load.steps.0: a step has either concurrency and requests, or rate_per_s and seconds"),
        ("{concurrency: 8, requests: 400}", "{concurrency: 8, requests: 1, seconds: 3}", 9, "workload.load.steps.0: a step has either"),
        ("{concurrency: 8, requests: 400}", "{concurrency: 8, requests: 4, arrivals: uniform}", 9, "workload.load.steps.0: arrivals has no effect with concurrency"),
        ("requests: 400", "requests: 2000000", 5, "workload.load: the steps hold 2,001,220 requests, 1,000,000 at most"),
        ("$.label", "label", 12, "workload.load.expect.json: 'label' is not a path such as $.label"),
        ("p99_ms: 200", "p99_ms: 0", 13, "workload.load.slo.p99_ms: 0: must be more than 0"),
        ("from: {cpuset: \"3\"}", "from: {port: 8001}", 14, "workload.load.from: port: only a load from another host needs one"),
        ("from: {cpuset: \"3\"}", "from: {host: h1}", None, "workload.load.from.host: 'h1' is measured in this experiment; name another host"),
        ("{load: {warmup: 5}", "{load: {warmup: 5, from: {host: load-1}}", None, "images.b: workload.load.from.host: the load comes from one place for all images"),
        ("    from:", "    form:", 14, "workload.load.form: unknown key; did you mean from? allowed: api, requests, request, steps"),
        ("seconds: 60", "seconds: 7200", None, "images.a: the steps of workload.load take 7200 s at least, more than protocol.timeout_s = 3600"),
        ("cpuset: \"0-2\"", "cpuset: \"0-3\"", None, "images.a: container.cpuset and workload.load.from.cpuset share CPU 3"),
        ("cpuset: \"0-2\"", "network: bridge", None, "images.a: container.network: a server and its load have a network of their own"),
        ("a: {ref: \"r.example/a:1\", container: {cpuset: \"0-2\"}}", "a: {runtime: process, command: x}", None, "images.a: runtime: process: a server is measured in a container"),
        ("{load: {warmup: 5}", "{load: {requests: b.jsonl}", None, "images.b.workload.load.requests: 'b.jsonl': the file of requests stands in the experiment's workload"),
        ("{load: {warmup: 5}", "{load: {warm: 5}", None, "images.b.workload.load.warm: unknown key"),
    ],
)  # fmt: skip
def test_what_a_server_can_t_be_is_refused_with_its_line(
    folder: Path, old: str, new: str, line: int | None, said: str
) -> None:
    place = "servers.yaml" if line is None else f"servers.yaml line {line}"
    assert f"{place}: {said}" in refusal(read, folder, changed(old, new))


def test_a_broken_line_of_the_requests_is_named_before_anything_runs(folder: Path) -> None:
    lines = ['{"path": "/p"}'] * 3140 + ['{"path": "/p", }']
    (folder / "requests.jsonl").write_text("\n".join(lines))
    assert (
        "servers.yaml line 7: workload.load.requests: 'requests.jsonl' line 3141: not JSON: "
        in refusal(read, folder)
    )
