"""``wattbench doctor``: each check by itself, against a real store and a server in Airflow's place."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_server import FakeAirflow
from tests.support.s3_server import KEY, SECRET, Server
from wattbench.cli import command_line, doctor
from wattbench.local.controller import Controller, default_path
from wattbench.run import versions

HEALTH = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-02T01:00:00+00:00"},
    "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": None},
    "triggerer": {"status": "healthy", "latest_triggerer_heartbeat": None},
}


@pytest.fixture
def well(
    airflow: FakeAirflow, config: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> FakeAirflow:
    """A controller with nothing wrong; its store is a real one."""
    airflow.answers |= {
        "/api/v2/monitor/health": (200, HEALTH),
        "/api/v2/version": (200, {"version": "3.3.2"}),
        "/api/v2/dags": (200, {"dags": [{"dag_id": "small"}]}),
        "/api/v2/importErrors": (200, {"import_errors": []}),
        "/wattbench/version": (200, {"code": versions.code()}),
    }
    know_store(monkeypatch, server.target.endpoint_url)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return airflow


def know_store(monkeypatch: pytest.MonkeyPatch, url: str | None, secret: str = SECRET) -> None:
    connection = {
        "conn_type": "aws", "login": KEY, "password": secret, "extra": {"endpoint_url": url},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_WATTBENCH_STORE", json.dumps(connection))


def table(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Check → state, and what stands behind it."""
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["CHECK", "STATE"]
    rows = [re.split(r"  +", line, maxsplit=2) for line in lines[1:]]
    return {check: (state, rest) for check, state, rest in rows}


#: What every table has, whatever is wrong. Docker and sshd are this machine's.
ALWAYS = {"Airflow", "login", "versions", "hosts.yaml", "experiments", "disk", "packages", "Docker", "sshd"}  # fmt: skip


def states(rows: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {check: rows[check][0] for check in rows if check not in ("Docker", "sshd", "disk")}


def test_nothing_is_wrong_with_a_controller_that_is_well(
    well: FakeAirflow, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    code = command_line.main(["doctor"])
    rows = table(capsys)
    assert set(states(rows).values()) == {"fine"}
    assert {"scheduler", "dag-processor", "triggerer", "Airflow's clock", "store's clock"} < set(
        rows
    )
    assert code == max({"fine": 0, "soft": 1, "hard": 2}[state] for state, _ in rows.values())
    assert "bucket 'wattbench'" in rows["store"][1]
    assert not list((server.folder / "wattbench").glob("wattbench-write-check*"))


@pytest.mark.parametrize("thing", ["address", "nothing", "web page", "list"])
def test_an_airflow_that_is_away_hides_no_other_check(
    well: FakeAirflow,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    thing: str,
) -> None:
    if thing == "address":
        monkeypatch.delenv("WATTBENCH_AIRFLOW_URL")
    elif thing == "nothing":
        with socket.create_server(("127.0.0.1", 0)) as free:
            monkeypatch.setenv("WATTBENCH_AIRFLOW_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    else:
        answer: Any = b"<!doctype html>" if thing == "web page" else [1]
        well.answers["/api/v2/monitor/health"] = (200, answer)
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert set(rows) >= ALWAYS
    assert rows["Airflow"][0] == "hard"
    assert rows["store"][0] == rows["hosts.yaml"][0] == "fine"


def test_a_part_without_heartbeat_is_named_with_its_last_one(
    well: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    ill = {"status": "unhealthy", "latest_scheduler_heartbeat": "2026-01-02T01:00:00+00:00"}
    never = {"status": None, "latest_triggerer_heartbeat": None}
    health = HEALTH | {"scheduler": ill, "triggerer": never}
    well.answers["/api/v2/monitor/health"] = (200, health)
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert rows["scheduler"][0] == "hard"
    assert "no heartbeat since 2026-01-02T01:00:00" in rows["scheduler"][1]
    assert rows["triggerer"][0] == "hard"
    assert "has never run" in rows["triggerer"][1]
    assert rows["dag-processor"][0] == "fine"


def test_a_health_document_of_another_form_is_one_row(
    well: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    well.answers["/api/v2/monitor/health"] = (200, HEALTH | {"scheduler": "yes"})
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert set(rows) >= ALWAYS - {"Airflow"}
    assert rows["login"][0] == rows["store"][0] == "fine"


def test_a_refused_login_leaves_health_and_store_readable(
    well: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    well.answers["/auth/token"] = (401, {"detail": "Invalid credentials"})
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert rows["login"][0] == "hard"
    assert "WATTBENCH_AIRFLOW_PASSWORD" in rows["login"][1]
    assert rows["scheduler"][0] == rows["store"][0] == "fine"


def test_dag_files_that_airflow_can_not_import_are_listed(
    well: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = "Traceback …\nModuleNotFoundError: No module named 'wattbench'\n"
    error = {"filename": "experiments.py", "stack_trace": trace}
    well.answers["/api/v2/importErrors"] = (200, {"import_errors": [error]})
    assert command_line.main(["doctor"]) == 2
    state, text = table(capsys)["DAG files"]
    assert state == "hard"
    assert "experiments.py: ModuleNotFoundError: No module named 'wattbench'" in text


@pytest.mark.parametrize(
    ("answer", "says"),
    [((200, {"code": "abc", "wattbench": "9.9"}), "wattbench 9.9 (code abc) on the controller"),
     ((200, {"code": "abc"}), "wattbench of a checkout (code abc) on the controller"),
     ((200, b"<!doctype html>"), "on the controller is not known"),
     ((404, {"detail": "no"}), "on the controller is not known")],
)  # fmt: skip
def test_another_version_on_the_controller_is_soft(
    well: FakeAirflow, capsys: pytest.CaptureFixture[str], answer: tuple[int, Any], says: str
) -> None:
    well.answers["/wattbench/version"] = answer
    assert command_line.main(["doctor"]) >= 1
    state, text = table(capsys)["versions"]
    assert state == "soft"
    assert says in text


@pytest.mark.parametrize(("off_s", "says"), [(7200, "ahead of"), (-7200, "behind")])
def test_a_clock_that_is_off_is_reported_in_seconds(
    well: FakeAirflow, capsys: pytest.CaptureFixture[str], off_s: int, says: str
) -> None:
    well.clock_off_s = off_s
    assert command_line.main(["doctor"]) >= 1
    state, text = table(capsys)["Airflow's clock"]
    found = re.match(r"(\d+) s (ahead of|behind) ours", text)
    assert found
    assert found[2] == says
    assert state == "soft"
    # Less than the truth by the header's rounding and by how long the answer took, never more.
    assert int(found[1]) <= abs(off_s)


@pytest.mark.parametrize(
    ("date", "off_s"),
    [("Thu, 01 Jan 1970 00:16:40 GMT", 0), ("Thu, 01 Jan 1970 00:16:39 GMT", 0),
     ("Thu, 01 Jan 1970 00:16:51 GMT", 10), ("Thu, 01 Jan 1970 00:16:29 GMT", -10)],
)  # fmt: skip
def test_the_clocks_differ_by_no_more_than_the_answer_shows(date: str, off_s: int) -> None:
    # Asked at 1000.0 s, answered at 1001.0 s; 00:16:40 stands for any time from 1000 to 1001 s.
    row = doctor._Answered("u", date, (1000.0, 1001.0)).row("clock", "hard", 900.0)
    assert row.state == ("soft" if off_s else "fine")
    if off_s:
        assert row.found.startswith(f"{abs(off_s)} s {'ahead of' if off_s > 0 else 'behind'} ours")


def test_a_store_that_refuses_requests_for_their_time_is_hard() -> None:
    answered = doctor._Answered("u", "Thu, 01 Jan 1970 01:00:00 GMT", (0.0, 1.0))
    assert answered.row("clock", "hard", 900.0).state == "hard"
    assert doctor._Answered("u", "", (0.0, 1.0)).row("clock", "hard").state == "soft"


@pytest.mark.parametrize("fault", ["secret", "bucket", "away"])
def test_a_store_that_can_not_be_used_says_why(
    well: FakeAirflow, config: Path, server: Server, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], fault: str,
) -> None:  # fmt: skip
    says = {"secret": "refused to put", "bucket": "no such bucket", "away": "unreachable"}
    if fault == "secret":
        know_store(monkeypatch, server.target.endpoint_url, "wrong-secret")
    elif fault == "bucket":
        path = config / "hosts.yaml"
        path.write_text(path.read_text().replace("bucket: wattbench", "bucket: elsewhere"))
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            know_store(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}")
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert rows["store"][0] == "hard"
    assert says[fault] in rows["store"][1]
    assert rows["disk"][1]


def test_a_store_whose_connection_is_elsewhere_is_not_taken_for_fine(
    well: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_WATTBENCH_STORE")
    assert command_line.main(["doctor"]) >= 1
    state, text = table(capsys)["store"]
    assert state == "soft"
    assert "where Airflow runs" in text


def test_a_refused_experiment_is_a_row_with_its_line(
    well: FakeAirflow, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (config / "experiments/small.yaml").read_text()
    (config / "experiments/wrong.yaml").write_text(good.replace("blocks: 2", "blocks: 0"))
    (config / "experiments/mars.yaml").write_text(good.replace("[cpu-a]", "[mars]"))
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert rows["wrong.yaml"][0] == rows["mars.yaml"][0] == "hard"
    assert "experiments/wrong.yaml line 6" in rows["wrong.yaml"][1]
    assert "'mars' is not in hosts.yaml" in rows["mars.yaml"][1]
    assert "1 of 3" in rows["experiments"][1]


def test_a_refused_hosts_yaml_leaves_the_experiments_read(
    well: FakeAirflow, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "hosts.yaml").write_text("hosts: [\n")
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert rows["hosts.yaml"][0] == rows["store"][0] == "hard"
    assert rows["experiments"][0] == "fine"
    assert "1 of 1 can be read" in rows["experiments"][1]
    assert rows["login"][0] == "fine"


def test_a_daemon_that_trials_can_not_use_is_soft(
    well: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert command_line.main(["doctor"]) == 1
    state, text = table(capsys)["Docker"]
    assert state == "soft"
    assert "unset DOCKER_HOST" in text


def test_a_controller_of_this_machine_that_is_down_is_named(
    well: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WATTBENCH_AIRFLOW_URL")
    default_path().mkdir(parents=True)
    (default_path() / "versions.json").write_text("{}")
    assert command_line.main(["doctor"]) == 2
    rows = table(capsys)
    assert rows["Airflow"][0] == "hard"
    assert "api-server" in rows["Airflow"][1]
    assert rows["Airflow"][1].endswith("wattbench up")
    assert "not asked" in rows["login"][1]


def test_the_embedded_controller_is_looked_at_where_no_other_is_named(
    well: FakeAirflow, own: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command_line.main(["doctor"])
    rows = table(capsys)
    assert set(states(rows).values()) == {"fine"}
    assert code < 2
    assert "admin, sees 1 experiments" in rows["login"][1]
    assert "1 of 1" in rows["experiments"][1]
    (own.state.path / "run/triggerer.pid").unlink()
    assert command_line.main(["doctor"]) == 2
    line = next(x for x in capsys.readouterr().out.splitlines() if "not running here" in x)
    assert "triggerer" in line
    assert "scheduler" not in line
