"""``wattbench host remove`` and ``host check``: hosts.yaml, pinned keys, connections, claims."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.airflow_server import FakeAirflow
from tests.support.s3_server import KEY, SECRET, Server
from wattbench.cli import command_line, enrol
from wattbench.cli.airflow_api import Client, Login
from wattbench.config.loader import load_hosts
from wattbench.errors import ConfigError, UserError
from wattbench.run import host_claims
from wattbench.run.host_claims import Claim
from wattbench.storage.object_store import Store

HOSTS = """\
# of the lab
store: {conn_id: wattbench_store, bucket: wattbench, prefix: PREFIX}   # where logs go
hosts:
  # the old one
  cpu-a:
    ssh_conn_id: wattbench_cpu_a   # in the cellar
    # counts all sockets
    meter: {kind: powercap}

  # the new one
  cpu-b: {ssh_conn_id: wattbench_cpu_b, meter: {kind: powercap}}
  cpu-c:
    ssh_conn_id: wattbench_cpu_c
    meter: {kind: powercap}
# the end
registries: {}
"""
PINS = "[10.0.0.1]:2222 ssh-ed25519 QQ==\n10.0.0.2 ssh-ed25519 Qg==\n10.0.0.2 ssh-rsa Qw==\n"


@pytest.fixture
def lab(config: Path, server: Server, store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three hosts, two pinned addresses, a real store; cpu-a is in the experiment `small`."""
    (config / "hosts.yaml").write_text(HOSTS.replace("PREFIX", store.target.prefix))
    (config / enrol.KNOWN_HOSTS).write_text(PINS)
    connection = {
        "conn_type": "aws", "login": KEY, "password": SECRET,
        "extra": {"endpoint_url": server.target.endpoint_url},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_WATTBENCH_STORE", json.dumps(connection))
    know(monkeypatch, "cpu_a", "10.0.0.1", 2222)
    know(monkeypatch, "cpu_b", "10.0.0.2")
    know(monkeypatch, "cpu_c", "10.0.0.3")
    return config


def know(monkeypatch: pytest.MonkeyPatch, name: str, address: str, port: int = 22) -> None:
    connection = {"conn_type": "ssh", "host": address, "login": "bench", "port": port}
    monkeypatch.setenv(f"AIRFLOW_CONN_WATTBENCH_{name.upper()}", json.dumps(connection))


def left(folder: Path) -> str:
    return re.sub(r"prefix: \S+}", "prefix: PREFIX}", (folder / "hosts.yaml").read_text())


def test_a_host_leaves_and_every_other_line_stays(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["host", "remove", "cpu-b", "--yes"]) == 0
    assert left(lab).splitlines() == [line for line in HOSTS.splitlines() if "cpu-b" not in line]
    assert (lab / enrol.KNOWN_HOSTS).read_text() == PINS.splitlines(keepends=True)[0]
    assert "airflow connections delete wattbench_cpu_b" in capsys.readouterr().out


def test_a_host_that_an_experiment_names_leaves_by_force_only(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["host", "remove", "cpu-a", "--yes"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "wattbench: cpu-a stays: small: would be refused, since it names cpu-a; "
    )
    assert said.count("\n") == 1
    assert left(lab) == HOSTS
    assert command_line.main(["host", "remove", "cpu-a", "--yes", "--force"]) == 0
    assert list(load_hosts(lab).hosts) == ["cpu-b", "cpu-c"]
    gone = {"cpu-a:", "wattbench_cpu_a", "counts all sockets"}
    assert not [word for word in gone if word in left(lab)]
    assert "# the old one" in left(lab)
    assert "[10.0.0.1]" not in (lab / enrol.KNOWN_HOSTS).read_text()


@pytest.mark.parametrize(("lasts_s", "says"), [(3600, "has it"), (-1, "raw logs of run-1 may")])
def test_a_host_with_a_claim_stays(
    lab: Path, store: Store, capsys: pytest.CaptureFixture[str], lasts_s: int, says: str
) -> None:
    host_claims.put(store, Claim("cpu-b", "run-1", "small", "manual", time.time() + lasts_s))
    assert command_line.main(["host", "remove", "cpu-b", "--yes"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert left(lab) == HOSTS
    assert (lab / enrol.KNOWN_HOSTS).read_text() == PINS
    assert command_line.main(["host", "remove", "cpu-c", "--yes"]) == 0  # another host's claim
    assert command_line.main(["host", "remove", "cpu-b", "--yes", "--force"]) == 0
    assert list(load_hosts(lab).hosts) == ["cpu-a"]


def test_a_store_that_can_not_be_asked_does_not_set_a_host_free(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_WATTBENCH_STORE")
    assert command_line.main(["host", "remove", "cpu-b", "--yes"]) == 2
    assert "whether a run has it is not known" in capsys.readouterr().err
    assert left(lab) == HOSTS


@pytest.mark.parametrize(
    ("argv", "says"),
    [(["cpu-b"], "give --yes"), (["mars", "--yes"], "no host 'mars' (cpu-a, cpu-b, cpu-c)")],
)
def test_without_a_yes_nothing_is_removed(
    lab: Path, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    assert command_line.main(["host", "remove", *argv]) == 2
    assert says in capsys.readouterr().err
    assert left(lab) == HOSTS


def test_a_key_that_another_host_needs_stays(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    know(monkeypatch, "cpu_c", "10.0.0.2")
    assert command_line.main(["host", "remove", "cpu-b", "--yes"]) == 0
    assert (lab / enrol.KNOWN_HOSTS).read_text() == PINS
    assert "cpu-c is there too" in capsys.readouterr().out


def test_the_last_host_stays(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cpu-b", "cpu-c"):
        assert command_line.main(["host", "remove", name, "--yes"]) == 0
    before = (lab / "hosts.yaml").read_text()
    assert command_line.main(["host", "remove", "cpu-a", "--yes", "--force"]) == 2
    assert "is its only host" in capsys.readouterr().err
    assert (lab / "hosts.yaml").read_text() == before


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [((204, b""), 0, "connection wattbench_cpu_b is removed"),
     ((404, {"detail": "not found"}), 0, "has no connection wattbench_cpu_b"),
     ((403, {"detail": "Forbidden"}), 1, "connection wattbench_cpu_b stays")],
)  # fmt: skip
def test_the_connection_goes_too_where_one_is_logged_in(
    airflow: FakeAirflow, lab: Path, capsys: pytest.CaptureFixture[str],
    answer: tuple[int, Any], code: int, says: str,
) -> None:  # fmt: skip
    airflow.answers["/api/v2/connections/wattbench_cpu_b"] = answer
    assert command_line.main(["host", "remove", "cpu-b", "--yes"]) == code
    said = capsys.readouterr()
    assert says in said.out + said.err
    assert airflow.asked[-1][:2] == ("DELETE", "/api/v2/connections/wattbench_cpu_b")
    assert list(load_hosts(lab).hosts) == ["cpu-a", "cpu-c"]


def test_a_connection_that_another_host_has_stays(
    airflow: FakeAirflow, lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lab / "hosts.yaml"
    path.write_text(path.read_text().replace("wattbench_cpu_c", "wattbench_cpu_b"))
    assert command_line.main(["host", "remove", "cpu-b", "--yes"]) == 0
    assert "connection wattbench_cpu_b stays, cpu-c has it too" in capsys.readouterr().out
    assert "DELETE" not in {verb for verb, _, _ in airflow.asked}


@pytest.mark.parametrize(
    "text",
    [
        "{store: {bucket: wattbench}, hosts: {cpu-a: {ssh_conn_id: a}, cpu-b: {ssh_conn_id: b}}}\n",
        "store: {bucket: wattbench}\nhosts:\n  cpu-a: &a {ssh_conn_id: a}\n  cpu-b: *a\n",
    ],
)
def test_a_file_of_a_form_that_lines_can_not_change_is_left_alone(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "hosts.yaml").write_text(text)
    with pytest.raises(ConfigError, match="by hand"):
        enrol.remove_entry(tmp_path, "cpu-a")
    assert (tmp_path / "hosts.yaml").read_text() == text


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(
    lambda name: yaml.safe_load(f"{name}: 1") == {name: 1}
)


@given(
    present=st.lists(NAMES, min_size=2, max_size=5, unique=True),
    indent=st.integers(1, 6),
    flow=st.lists(st.booleans(), min_size=5, max_size=5),
    data=st.data(),
)
def test_any_block_of_hosts_shrinks_by_exactly_one_and_grows_back(
    tmp_path_factory: pytest.TempPathFactory, present: list[str], indent: int, flow: list[bool],
    data: st.DataObject,
) -> None:  # fmt: skip
    folder, pad = tmp_path_factory.mktemp("hosts"), " " * indent
    gone = data.draw(st.sampled_from(present))

    def entry(name: str, as_flow: bool) -> str:
        if as_flow:
            return f"{pad}{name}: {{ssh_conn_id: c}}\n"
        return f"{pad}{name}:\n{pad * 2}ssh_conn_id: c\n"

    def around(hosts: list[tuple[str, bool]]) -> str:
        return "".join(
            f"{pad}# before {n}\n" + (entry(n, f) if n in kept else "") for n, f in hosts
        )

    pairs, kept = list(zip(present, flow, strict=False)), set(present)
    tail = "# end\nstore: {bucket: wattbench}\n"
    (folder / "hosts.yaml").write_text(f"hosts:\n{around(pairs)}{tail}")
    enrol.remove_entry(folder, gone)
    kept = set(present) - {gone}
    assert (folder / "hosts.yaml").read_text() == f"hosts:\n{around(pairs)}{tail}"
    enrol.add_entry(folder, gone, {"ssh_conn_id": "c"})
    assert set(load_hosts(folder).hosts) == set(present)


# ── host check ──────────────────────────────────────────────────────────────────────────────────


def check(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert command_line.main(["host", "check"]) == 2
    lines = capsys.readouterr().out.splitlines()[1:]
    return dict(line.split(maxsplit=1) for line in lines if line.startswith("cpu-"))


def test_a_host_without_connection_and_one_that_is_down_are_rows_of_the_table(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr("wattbench.cli.hosts._CONNECT_S", 0.0)
    monkeypatch.delenv("AIRFLOW_CONN_WATTBENCH_CPU_A")
    know(monkeypatch, "cpu_b", "127.0.0.1", port)
    monkeypatch.setenv("AIRFLOW_CONN_WATTBENCH_CPU_C", json.dumps({"conn_type": "ssh"}))
    rows = check(capsys)
    assert list(rows) == ["cpu-a", "cpu-b", "cpu-c"]
    assert (
        rows["cpu-a"]
        .split(maxsplit=1)[1]
        .startswith("host cpu-a: Airflow has no connection 'wattbench_cpu_a'")
    )
    assert "not reachable" in rows["cpu-b"]
    assert "names no host" in rows["cpu-c"]


@pytest.mark.parametrize(
    "answer",
    [(403, {"detail": "Forbidden"}), (200, {"host": "127.0.0.1", "extra": "no JSON"})],
)
def test_a_connection_that_airflow_does_not_show_is_a_row_too(
    airflow: FakeAirflow, lab: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], answer: tuple[int, Any],
) -> None:  # fmt: skip
    for name in "ABC":
        monkeypatch.delenv(f"AIRFLOW_CONN_WATTBENCH_CPU_{name}")
    airflow.answers["/api/v2/connections/wattbench_cpu_b"] = answer
    rows = check(capsys)
    assert list(rows) == ["cpu-a", "cpu-b", "cpu-c"]
    assert "403" in rows["cpu-b"] or "is not JSON" in rows["cpu-b"]


def test_an_airflow_that_is_away_is_waited_for_once_and_not_for_each_host() -> None:
    tries: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            tries.append(1)  # before the client can go on
            connection.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = Client(Login(url, "ann", "secret"), waits_s=(0.0, 0.0))
    seen = []
    for _ in range(3):
        with pytest.raises(UserError, match="does not answer"):
            client.connection("wattbench_cpu_a")
        seen.append(len(tries))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    assert seen == [3, 4, 5]
