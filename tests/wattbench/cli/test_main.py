"""The terminal's way in: parsing, hosts.yaml, keys, plans; Airflow is a small server that answers."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.airflow_server import FakeAirflow
from tests.wattbench.cli.conftest import HOSTS
from wattbench.analysis.model.errors import UserError
from wattbench.cli import command_line, enrol
from wattbench.cli.airflow_api import Client, Login
from wattbench.cli.report_download import fetch_report
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import load_hosts
from wattbench.errors import ConfigError, HostError
from wattbench.progress import spoken
from wattbench.run.run_id import make_run_id

# ── addresses and hosts.yaml ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "user", "hostname", "port"),
    [
        ("bench@gpu-a", "bench", "gpu-a", 22),
        ("bench@10.0.0.7:2222", "bench", "10.0.0.7", 2222),
        ("bench@[fe80::1]:2200", "bench", "fe80::1", 2200),
    ],
)
def test_an_address_is_user_host_and_port(text: str, user: str, hostname: str, port: int) -> None:
    assert enrol.Address.parse(text) == enrol.Address(user, hostname, port)


@pytest.mark.parametrize(
    "text", ["gpu-a", "@gpu-a", "bench@", "bench@a:0", "bench@a:65536", "b@a b"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="user@address"):
        enrol.Address.parse(text)


def test_a_host_joins_the_file_and_every_line_stays(config: Path) -> None:
    path = enrol.add_entry(config, "gpu-b", {"ssh_conn_id": "wattbench_gpu_b", "gpus": ["GPU-1"]})
    after = path.read_text().splitlines()
    assert [line for line in after if "gpu-b" not in line] == HOSTS.splitlines()
    assert load_hosts(config).hosts["gpu-b"].gpus == ["GPU-1"]
    assert list(load_hosts(config).hosts) == ["cpu-a", "gpu-b"]


def test_the_same_name_is_refused_and_nothing_is_written(config: Path) -> None:
    with pytest.raises(ConfigError, match="there already and stays as it is"):
        enrol.add_entry(config, "cpu-a", {"ssh_conn_id": "other"})
    assert (config / "hosts.yaml").read_text() == HOSTS


def test_the_first_host_makes_the_file(tmp_path: Path) -> None:
    enrol.add_entry(tmp_path / "new", "gpu-a", {"ssh_conn_id": "wattbench_gpu_a"})
    assert load_hosts(tmp_path / "new").store.bucket == "wattbench"


def test_a_file_in_flow_style_is_left_alone(config: Path) -> None:
    flow = "{store: {bucket: wattbench}, hosts: {cpu-a: {ssh_conn_id: a}}}\n"
    (config / "hosts.yaml").write_text(flow)
    with pytest.raises(ConfigError, match=r"add by hand: gpu-b: \{ssh_conn_id: b\}"):
        enrol.add_entry(config, "gpu-b", {"ssh_conn_id": "b"})
    assert (config / "hosts.yaml").read_text() == flow


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
INDENTS = st.integers(1, 6)


@given(present=st.lists(NAMES, min_size=1, max_size=4, unique=True), name=NAMES, indent=INDENTS)
def test_any_block_of_hosts_grows_by_exactly_one(
    tmp_path_factory: pytest.TempPathFactory, present: list[str], name: str, indent: int
) -> None:
    folder = tmp_path_factory.mktemp("hosts")
    pad = " " * indent
    lines = [f"{pad}'{host}':\n{pad * 2}ssh_conn_id: c\n\n{pad}# note\n" for host in present]
    (folder / "hosts.yaml").write_text("hosts:\n" + "".join(lines) + "store: {bucket: wattbench}\n")
    if name in present:
        with pytest.raises(ConfigError):
            enrol.add_entry(folder, name, {"ssh_conn_id": "d"})
        return
    if yaml.safe_load(f"{name}: 1") != {name: 1}:  # `no`, `1`: YAML reads them as something else
        return
    enrol.add_entry(folder, name, {"ssh_conn_id": "d"})
    assert list(load_hosts(folder).hosts) == [*present, name]


# ── host keys, against a real SSH server ────────────────────────────────────────────────────────


@pytest.fixture
def sshd() -> Iterator[tuple[enrol.Address, paramiko.PKey]]:
    """Shows a host key to whoever connects, and lets no client in."""
    key = paramiko.ECDSAKey.generate()
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            transport.add_server_key(key)
            transport.start_server(event=threading.Event(), server=paramiko.ServerInterface())
            transports.append(transport)

    thread = threading.Thread(target=serve)
    thread.start()
    yield enrol.Address("bench", "127.0.0.1", listener.getsockname()[1]), key
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for transport in transports:
        transport.close()
        transport.join()


def test_the_fingerprint_is_openssh_s(sshd: tuple[enrol.Address, paramiko.PKey]) -> None:
    address, key = sshd
    shown = enrol.offered_key(address)
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    assert shown.fingerprint == f"SHA256:{digest}"
    assert str(shown) == f"{key.get_name()} {key.get_base64()}"


def test_a_changed_key_stops_the_host_and_the_pin_stays(
    sshd: tuple[enrol.Address, paramiko.PKey], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, _ = sshd
    other = paramiko.ECDSAKey.generate()
    pinned = f"{address.known_as} {other.get_name()} {other.get_base64()}\n"
    (config / enrol.KNOWN_HOSTS).write_text(pinned)
    argv = ["host", "add", "gpu-b", "--ssh", f"bench@127.0.0.1:{address.port}", "--yes"]
    assert command_line.main(argv) == 2
    said = capsys.readouterr().err
    assert "host key changed" in said
    assert said.count("\n") == 1
    assert (config / enrol.KNOWN_HOSTS).read_text() == pinned
    assert (config / "hosts.yaml").read_text() == HOSTS


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--fingerprint", "SHA256:anotherkey"], "not SHA256:anotherkey as given"),
        ([], "no terminal to confirm the key"),
    ],
)
def test_an_unconfirmed_key_writes_nothing(
    sshd: tuple[enrol.Address, paramiko.PKey], config: Path, capsys: pytest.CaptureFixture[str],
    extra: list[str], expected: str,
) -> None:  # fmt: skip
    address, _ = sshd
    argv = ["host", "add", "gpu-b", "--ssh", f"bench@127.0.0.1:{address.port}", *extra]
    assert command_line.main(argv) == 2
    assert expected in capsys.readouterr().err
    assert (config / "hosts.yaml").read_text() == HOSTS
    assert not (config / enrol.KNOWN_HOSTS).exists()


def test_a_login_that_is_refused_adds_nothing(
    sshd: tuple[enrol.Address, paramiko.PKey], config: Path, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    address, _ = sshd
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "key"))
    argv = ["host", "add", "gpu-b", "--ssh", f"bench@127.0.0.1:{address.port}", "--yes",
            "--key", str(tmp_path / "key")]  # fmt: skip
    assert command_line.main(argv) == 2
    assert "authorized_keys" in capsys.readouterr().err
    assert (config / "hosts.yaml").read_text() == HOSTS


def test_an_airflow_that_does_not_answer_is_one_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert command_line.main(["host", "add", "gpu-b", "--ssh", f"bench@127.0.0.1:{port}"]) == 2
    assert re.fullmatch(r"wattbench: 127.0.0.1:\d+: no sshd answers .*\n", capsys.readouterr().err)


def test_a_pin_is_written_once(tmp_path: Path) -> None:
    address, key = enrol.Address("b", "h", 2222), enrol.HostKey("ssh-ed25519", "QUFB")
    for _ in range(2):
        enrol.pin(address, key, tmp_path / "known_hosts")
    assert (tmp_path / "known_hosts").read_text() == "[h]:2222 ssh-ed25519 QUFB\n"


# ── what a host needs ───────────────────────────────────────────────────────────────────────────


def health(*problems: tuple[str, str], **facts: Any) -> enrol.Health:
    found = tuple(enrol.Problem(code, severity, code, "do") for code, severity in problems)
    return enrol.Health("a", "hard" if problems else "fine", found, facts)


def test_only_what_a_host_lacks_is_listed() -> None:
    config = HostConfig(ssh_conn_id="c")
    assert enrol.preparation(health(cpu={"governor": "performance"}), "bench", config) == []
    lines = enrol.preparation(
        health(("docker-unreachable", "hard"), cpu={"governor": "powersave"}), "bench", config
    )
    assert [line.split()[0] for line in lines] == ["usermod", "cpupower"]
    lines = enrol.preparation(health(("meter-failed", "hard"), cpu={}), "bench", config)
    assert any(
        line.startswith("setcap cap_sys_rawio=ep /usr/local/bin/energibridge") for line in lines
    )
    lines = enrol.preparation(health(cpu={}, gpu=[{"name": "H200"}]), "bench", config)
    assert lines == ["nvidia-smi -pm 1  # NVIDIA GPUs: persistence mode"]


def test_the_exit_code_is_the_worst_host_s() -> None:
    states = {"fine": 0, "busy": 0, "soft": 1, "hard": 2}
    for state, code in states.items():
        healths = [enrol.Health("a", "fine"), enrol.Health("b", state)]  # type: ignore[arg-type]
        assert enrol.worst_of(healths) == code


# ── plans ───────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_is_printed_without_airflow(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["plan", "small", "--blocks", "3"]) == 0
    said = capsys.readouterr().out
    assert "cpu-a: 6 trials, at least 1 min 0 s of rest" in said
    for block in (1, 2, 3):
        line = next(line for line in said.splitlines() if f"block {block:>2}" in line)
        assert sorted(re.findall(r"· (\w+)", line)) == ["one", "two"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["plan", "nothing"], "there are: small"),
        (["plan", "small", "--hosts", "mars"], "'mars' is not in the experiment"),
        (["plan", "small", "--images", "two"], "leave out the reference"),
        (["host", "check", "mars"], "no host 'mars'"),
        (["status"], "WATTBENCH_AIRFLOW_URL"),
        (["status", "--url", "airflow:8080"], "begins with http"),
        (["status", "--url", "http://127.0.0.1:9"], "--user"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    config: Path, capsys: pytest.CaptureFixture[str], argv: list[str], expected: str
) -> None:
    assert command_line.main(argv) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


def test_the_help_teaches_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for command in (
        "host add",
        "host check",
        "plan",
        "run",
        "status",
        "logs",
        "report",
        "audit",
        "compare",
        "image",
        "power",
        "doctor",
    ):
        assert f"wattbench {command}" in said


@pytest.mark.parametrize("command", ["report", "audit", "compare", "power", "image", "findings"])
def test_the_examples_of_a_help_are_called_as_the_help_was(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command_line.main([command, "--help"])
    said = capsys.readouterr().out
    assert "python -m analysis" not in said
    assert said.startswith(f"usage: wattbench {command}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_the_command_line_starts_without_heavy_packages() -> None:
    code = (
        "import contextlib, io, sys, wattbench.cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    wattbench.cli.main(['--help'])\n"
        "heavy = {'torch','boto3','docker','paramiko','matplotlib','scipy',"
        "'pandas','airflow','requests'} & set(sys.modules); print(sorted(heavy)); sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ── Airflow's REST API ──────────────────────────────────────────────────────────────────────────


DUE = "2026-01-02T01:00:00.250000Z"


def dag_run(state: str, run_id: str = "manual__1", due: str = DUE) -> dict[str, str]:
    return {"dag_id": "small", "dag_run_id": run_id, "run_after": due, "state": state}


def named(run_id: str = "manual__1") -> str:
    from datetime import datetime

    return make_run_id("small", "small", run_id, datetime.fromisoformat(DUE))


def task(name: str, state: str | None, index: int = -1) -> dict[str, Any]:
    begun = "2026-01-02T01:00:00Z" if state else None
    return {"task_id": name, "map_index": index, "rendered_map_index": None, "state": state,
            "start_date": begun, "end_date": begun if state == "success" else None, "try_number": 1}  # fmt: skip


def test_a_run_is_triggered_with_what_was_chosen(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.answers |= {
        "/api/v2/dags/small": (200, {"is_paused": False, "timetable_summary": None}),
        "/api/v2/dags/small/dagRuns": (200, dag_run("queued")),
    }
    assert (
        command_line.main(["run", "small", "--hosts", "cpu-a", "--blocks", "2", "--seed", "9"]) == 0
    )
    assert capsys.readouterr().out == named() + "\n"
    verb, _, body = airflow.asked[-1]
    assert verb == "POST"
    assert body == {"logical_date": None, "conf": {"hosts": ["cpu-a"], "blocks": 2, "seed": "9"}}


def test_a_paused_schedule_is_not_released_by_the_way(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.answers["/api/v2/dags/small"] = (
        200,
        {"is_paused": True, "timetable_summary": "0 1 * * *"},
    )
    assert command_line.main(["run", "small"]) == 2
    assert "--unpause" in capsys.readouterr().err
    assert {verb for verb, _, _ in airflow.asked[1:]} == {"GET"}


def test_status_says_trial_k_of_n_a_host(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    below = "/api/v2/dags/small/dagRuns"
    tasks = [task("cpu-a.host_report", None)]
    for index, state in enumerate(["success", "running", None, None]):
        tasks += [task(f"cpu-a.trial.{t}", state, index) for t in ("rest", "measure", "collect")]
    airflow.answers |= {
        below: (200, {"dag_runs": [dag_run("running", "other"), dag_run("running")]}),
        f"{below}/manual__1/taskInstances": (200, {"task_instances": tasks}),
        f"{below}/manual__1/taskInstances/cpu-a.plan/xcomEntries/return_value": (
            200, {"value": [{"label": f"0{i} · one"} for i in range(1, 5)]},
        ),
    }  # fmt: skip
    assert command_line.main(["status", named()]) == 0
    said = capsys.readouterr().out
    assert re.search(r"cpu-a +1 of 4 .*trial 2 of 4: one", said)


@pytest.mark.parametrize(
    ("verdict", "code", "says"),
    [("success", 0, "every trial is accounted for"), ("skipped", 1, "its verdict is skipped"),
     (None, 1, "its verdict is missing")],
)  # fmt: skip
def test_a_green_run_vouches_for_its_trials_only_with_its_verdict(
    airflow: FakeAirflow,
    capsys: pytest.CaptureFixture[str],
    verdict: str | None,
    code: int,
    says: str,
) -> None:
    below = "/api/v2/dags/small/dagRuns"
    tasks = [] if verdict is None else [task("verdict", verdict)]
    airflow.answers |= {
        below: (200, {"dag_runs": [dag_run("success")]}),
        f"{below}/manual__1/taskInstances": (200, {"task_instances": tasks}),
    }
    assert command_line.main(["status", named()]) == code
    assert says in capsys.readouterr().out


def test_an_unknown_run_and_a_wrong_password_are_one_line(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["status", named()]) == 2
    assert "no such run" in capsys.readouterr().err
    airflow.answers["/auth/token"] = (401, {"detail": "Invalid credentials"})
    assert command_line.main(["status"]) == 2
    assert "refuses the login of 'ann'" in capsys.readouterr().err


def test_a_failed_run_s_reasons_come_first(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    below = "/api/v2/dags/small/dagRuns"
    log = {"content": [{"event": "x", "level": "error", "error_detail": [{"exc_value": "7 lost"}]}]}
    airflow.answers |= {
        below: (200, {"dag_runs": [dag_run("failed")]}),
        f"{below}/manual__1/taskInstances": (200, {"task_instances": [task("verdict", "failed")]}),
        f"{below}/manual__1/taskInstances/verdict/logs/1": (200, log),
    }
    assert command_line.main(["logs", "small"]) == 1
    assert "verdict: 7 lost" in capsys.readouterr().out
    assert command_line.main(["logs", "small", "nothing"]) == 2
    assert "name one of: verdict" in capsys.readouterr().err


def manifest(files: dict[str, bytes]) -> dict[str, Any]:
    return {
        "objects": [
            {"key": k, "bytes": len(v), "sha256": hashlib.sha256(v).hexdigest()}
            for k, v in files.items()
        ]
    }


def test_a_report_comes_down_whole_or_not_at_all(airflow: FakeAirflow, tmp_path: Path) -> None:
    files = {"index.html": b"<p>answer", "tables/a.csv": b"x\n1\n"}
    base = f"/wattbench/runs/{named()}/report"
    airflow.answers |= {f"{base}/{name}": (200, data) for name, data in files.items()}
    airflow.answers[f"{base}/manifest.json"] = (200, manifest(files))
    assert command_line.main(["report", named(), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/tables/a.csv").read_bytes() == files["tables/a.csv"]
    assert (
        command_line.main(["report", named(), "--out", str(tmp_path / "out")]) == 2
    )  # nothing overwritten
    airflow.answers[f"{base}/tables/a.csv"] = (200, b"x\n2\n")
    assert command_line.main(["report", named(), "--out", str(tmp_path / "damaged")]) == 2
    assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize(
    ("name", "file"), [("md", "report.md"), ("junit", "junit.xml"), ("badge", "badge.svg")]
)
def test_a_report_s_short_form_is_printed_without_keeping_it(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str], name: str, file: str
) -> None:
    files = {"index.html": b"<p>answer", file: b"**less** energy\n"}
    base = f"/wattbench/runs/{named()}/report"
    airflow.answers |= {f"{base}/{name}": (200, data) for name, data in files.items()}
    airflow.answers[f"{base}/manifest.json"] = (200, manifest(files))
    assert command_line.main(["report", named(), "--format", name]) == 0
    assert capsys.readouterr().out == "**less** energy\n"


def test_a_report_of_an_earlier_version_without_a_form_is_refused_in_one_line(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"index.html": b"<p>answer"}
    base = f"/wattbench/runs/{named()}/report"
    airflow.answers |= {f"{base}/{name}": (200, data) for name, data in files.items()}
    airflow.answers[f"{base}/manifest.json"] = (200, manifest(files))
    assert command_line.main(["report", named(), "--format", "junit"]) == 2
    assert "has no junit.xml" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["./small", "s3:/x", "folder/of/run"])
def test_a_path_is_a_source_even_where_an_airflow_is_named(
    airflow: FakeAirflow, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    assert command_line.main(["report", source, "--out", str(tmp_path / "out")]) == 2
    assert airflow.asked == []
    assert source.removeprefix("./") in capsys.readouterr().err


def test_a_bare_name_is_a_run_where_an_airflow_is_named_and_else_a_folder(
    airflow: FakeAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert command_line.main(["report", "small", "--out", "out"]) == 2
    asked = len(airflow.asked)
    assert asked
    monkeypatch.delenv("WATTBENCH_AIRFLOW_URL")
    assert command_line.main(["report", "small", "--out", "out"]) == 2
    assert len(airflow.asked) == asked


def test_a_manifest_can_not_write_outside_its_folder(airflow: FakeAirflow, tmp_path: Path) -> None:
    base = f"/wattbench/runs/{named()}/report"
    airflow.answers[f"{base}/manifest.json"] = (200, manifest({"../evil": b"x"}))
    client = Client(Login(airflow.url, "ann", "secret"), waits_s=())
    with pytest.raises(UserError, match="evil"):
        fetch_report(client, named(), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_an_airflow_without_the_pages_is_distinguished_from_a_run_without_a_report(
    airflow: FakeAirflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["report", named(), "--out", str(tmp_path / "out")]
    assert command_line.main(argv) == 2
    assert "has no report" in capsys.readouterr().err
    airflow.answers[f"/wattbench/runs/{named()}/report/manifest.json"] = (200, b"<!doctype html>")
    assert command_line.main(argv) == 2
    assert "plugins/wattbench_plugin.py" in capsys.readouterr().err


def test_a_dead_airflow_is_one_line(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    client = Client(Login(url, "ann", "secret"), waits_s=())
    with pytest.raises(UserError, match="does not answer"):
        client.experiments()


def test_host_errors_keep_their_cause() -> None:
    with pytest.raises(HostError) as caught:
        enrol.offered_key(enrol.Address("b", "256.256.256.256"), timeout_s=1)
    assert caught.value.code == "unreachable"
