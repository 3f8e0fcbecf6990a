"""``wattbench run`` of an experiment that Airflow has not parsed yet, or refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_server import Answer, FakeAirflow
from wattbench.analysis.model.errors import UserError
from wattbench.cli import command_line, follow
from wattbench.cli.airflow_api import Client, Login
from wattbench.local.controller import Controller

ABSENT: Answer = (404, {"detail": "not found"})
PARSED: dict[str, Any] = {
    "is_paused": False,
    "timetable_summary": None,
    "tags": [{"name": "wattbench"}],
}
STALE = PARSED | {"is_stale": True}
REFUSED = PARSED | {"tags": [{"name": "wattbench"}, {"name": "refused"}]}
REASON = "experiments/small.yaml line 6: protocol.blocks: 0: must be at least 1"
TRIGGERED = {
    "dag_id": "small", "dag_run_id": "manual__1", "run_after": "2026-01-02T01:00:00Z",
    "state": "queued",
}  # fmt: skip


def in_turn(*answers: Answer) -> Callable[[], Answer]:
    """One after the other; the last one from then on."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def triggered(airflow: FakeAirflow) -> bool:
    return any(verb == "POST" and "dagRuns" in path for verb, path, _ in airflow.asked)


@pytest.mark.parametrize("before", [ABSENT, (200, STALE), (200, REFUSED)])
def test_a_file_that_was_just_written_is_waited_for(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str], before: Answer
) -> None:
    airflow.answers |= {
        "/api/v2/dags/small": in_turn(before, before, (200, PARSED)),
        "/api/v2/dags/small/dagRuns": (200, TRIGGERED),
    }
    assert command_line.main(["run", "small"]) == 0
    said = capsys.readouterr()
    assert "waiting up to 90 s for Airflow to parse it" in said.err
    assert said.out.startswith("small-20260102T010000Z-")
    assert said.out.count("\n") == 1
    assert triggered(airflow)


LOCKED: Answer = (500, {"detail": {"reason": "Database error"}})


def test_what_a_locked_database_refuses_is_asked_again(airflow: FakeAirflow) -> None:
    airflow.answers |= {
        "/api/v2/dags/small": in_turn(LOCKED, LOCKED, (200, PARSED)),
        "/api/v2/dags/small/dagRuns": (200, TRIGGERED),
    }
    client = Client(Login(airflow.url, "ann", "secret"), waits_s=(0.0, 0.0))
    assert client.trigger("small", {}).run_id.startswith("small-20260102T010000Z-")
    asked = [(verb, path) for verb, path, _ in airflow.asked if path.endswith("small")]
    assert asked == [("PATCH", "/api/v2/dags/small")] * 3


def test_a_trigger_that_may_have_been_heard_is_not_repeated(airflow: FakeAirflow) -> None:
    airflow.answers |= {
        "/api/v2/dags/small": (200, PARSED),
        "/api/v2/dags/small/dagRuns": LOCKED,
    }
    client = Client(Login(airflow.url, "ann", "secret"), waits_s=(0.0, 0.0))
    with pytest.raises(UserError, match="Database error"):
        client.trigger("small", {})
    assert sum(verb == "POST" and path.endswith("dagRuns") for verb, path, _ in airflow.asked) == 1


def test_a_refused_file_is_not_waited_for(
    airflow: FakeAirflow, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config / "experiments/small.yaml"
    path.write_text(path.read_text().replace("blocks: 2", "blocks: 0"))
    for answer in (ABSENT, (200, REFUSED)):
        airflow.answers["/api/v2/dags/small"] = answer
        assert command_line.main(["run", "small"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("wattbench: experiments/small.yaml line 6: protocol.blocks: 0")
        assert said.count("\n") == 1
    assert not triggered(airflow)


def test_a_refusal_of_a_file_that_is_elsewhere_is_airflow_s_own(
    airflow: FakeAirflow, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "experiments/small.yaml").unlink()
    doc = f"**This experiment is refused.**\n\n{REASON}"
    airflow.answers |= {
        "/api/v2/dags/small": (200, REFUSED),
        "/api/v2/dags/small/details": (200, {"doc_md": doc}),
    }
    assert command_line.main(["run", "small"]) == 2
    assert capsys.readouterr().err == f"wattbench: Airflow refuses small: {REASON}\n"
    assert not triggered(airflow)


def test_an_experiment_without_a_file_is_not_waited_for(
    airflow: FakeAirflow, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.answers["/api/v2/dags"] = (200, {"dags": [{"dag_id": "small"}]})
    assert command_line.main(["run", "smal"]) == 2
    said = capsys.readouterr().err
    assert "has no experiment 'smal' (there: small)" in said
    assert str(config / "experiments/smal.yaml") in said
    assert said.count("\n") == 1


def test_the_embedded_controller_parses_a_new_file_at_once(
    airflow: FakeAirflow, own: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    file = own.state.path / "dags/wattbench_dags.py"
    os.utime(file, (0, 0))

    def once_touched() -> Answer:
        return (200, PARSED) if file.stat().st_mtime > 0 else ABSENT

    airflow.answers |= {
        "/api/v2/dags/small": once_touched,
        "/api/v2/dags/small/dagRuns": (200, TRIGGERED),
        "/api/v2/dags": (200, {"dags": []}),
    }
    assert command_line.main(["run", "small"]) == 0
    assert triggered(airflow)
    capsys.readouterr()
    assert command_line.main(["run", "other"]) == 2
    assert f"WATTBENCH_CONFIG={own.config} wattbench new other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dag", "says"),
    [
        (ABSENT, "ModuleNotFoundError: No module named 'wattbench'"),
        ((200, STALE), "ModuleNotFoundError"),
        ((200, REFUSED), REASON),
    ],
)
def test_the_wait_ends_with_the_reason(airflow: FakeAirflow, dag: Answer, says: str) -> None:
    error = {
        "filename": "experiments.py",
        "stack_trace": "Traceback …\nModuleNotFoundError: No module named 'wattbench'\n",
    }
    airflow.answers |= {
        "/api/v2/dags/small": dag,
        "/api/v2/dags/small/details": (200, {"doc_md": f"**refused**\n\n{REASON}"}),
        "/api/v2/importErrors": (200, {"import_errors": [error]}),
    }
    client = Client(Login(airflow.url, "ann", "secret"), waits_s=())
    with pytest.raises(UserError, match="no DAG 'small' after 0 s") as caught:
        client.wait_for_dag("small", within_s=0)
    assert says in str(caught.value)


def test_the_first_trial_that_is_not_valid_gives_its_reason_while_the_run_goes_on(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    why = "invalid: host-busy: other processes used 3.9 s of CPU in 1.3 s"

    def collect(index: int, label: str, state: str | None) -> dict[str, Any]:
        return {
            "task_id": "cpu-a.trial.collect", "map_index": index, "rendered_map_index": label,
            "state": state, "start_date": None, "end_date": None, "try_number": 1,
        }  # fmt: skip

    first, second = collect(0, "01 · one", "failed"), collect(1, "02 · two", "failed")
    run = "/api/v2/dags/small/dagRuns/manual__1"
    logs = f"{run}/taskInstances/cpu-a.trial.collect/logs/1"
    running = TRIGGERED | {"state": "running"}
    airflow.answers |= {
        "/api/v2/dags/small": (200, PARSED),
        "/api/v2/dags/small/dagRuns": (200, TRIGGERED),
        run: in_turn((200, running), (200, running), (200, TRIGGERED | {"state": "failed"})),
        f"{run}/taskInstances": in_turn(
            (200, {"task_instances": [first, collect(1, "02 · two", None)]}),
            (200, {"task_instances": [first, second]}),
        ),
        logs: (200, {"content": [{"event": why, "level": "error"}]}),
    }
    assert command_line.main(["run", "small", "--wait"]) == 1
    said = capsys.readouterr().out
    before_the_end, _, after = said.partition(": failed\n")
    assert before_the_end.count(why) == 1
    assert f"cpu-a.trial.collect [01 · one]: {why}" in before_the_end
    assert after.count(why) == 2
