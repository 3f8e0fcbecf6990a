"""The SSH side against a real SSH server of paramiko's, which runs the real agent on this machine."""

from __future__ import annotations

import gc
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.support.live_chain import STAND_IN
from tests.support.ssh_server import Server, new_key, pem, public, serving, target_of
from wattbench.cli import host_release
from wattbench.errors import HostError
from wattbench.worker.agent_bundle import bundle
from wattbench.worker.ssh import Host
from wattbench.worker.target import HostTarget, fingerprint


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def target(server: Server, tmp_path: Path) -> HostTarget:
    return target_of(server, tmp_path / 'it\'s a "spool" $HOME')


@pytest.fixture
def host(target: HostTarget) -> Iterator[Host]:
    with Host(target) as connected:
        connected.ship()
        yield connected


def changed(target: HostTarget, **changes: Any) -> HostTarget:
    from dataclasses import replace

    return replace(target, **changes)


def refusal(target: HostTarget) -> HostError:
    with pytest.raises(HostError) as caught:
        Host(target).connect()
    return caught.value


def test_changed_host_key_is_refused_with_both_fingerprints(
    server: Server, target: HostTarget
) -> None:
    other = new_key()
    error = refusal(changed(target, host_key=public(other)))
    assert error.code == "host-key"
    assert fingerprint(other.asbytes()) in str(error)
    assert fingerprint(server.host_key.asbytes()) in str(error)
    assert "\n" not in str(error)


def test_unknown_host_is_refused_with_its_fingerprint(
    server: Server, target: HostTarget, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"elsewhere {public(server.host_key)}\n")
    strict = changed(target, host_key=None, known_hosts_file=str(known))
    error = refusal(strict)
    assert error.code == "host-key"
    assert fingerprint(server.host_key.asbytes()) in str(error)
    known.write_text(f"[127.0.0.1]:{server.port} {public(server.host_key)}\n")
    with Host(strict) as host:
        host.ship()
    missing = changed(strict, known_hosts_file=str(tmp_path / "absent"))
    assert "absent" in str(refusal(missing))


def test_fingerprint_is_openssh_s() -> None:
    """github.com's published ed25519 key and fingerprint."""
    import base64

    blob = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    assert fingerprint(base64.b64decode(blob)) == (
        "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"private_key": "not a key"}, "auth"),
        ({"host_key": "ssh-ed25519 ????"}, "host-key"),
        ({"username": "root"}, "auth"),
    ],
)
def test_wrong_credentials_say_what_to_correct(
    target: HostTarget, change: dict[str, str], code: str
) -> None:
    error = refusal(changed(target, **change))
    assert error.code == code
    assert target.private_key is not None
    assert target.private_key.splitlines()[1] not in repr(target) + str(error)


def test_wrong_key_is_refused(target: HostTarget) -> None:
    assert refusal(changed(target, private_key=pem(new_key()))).code == "auth"


def test_host_that_never_listens_is_unreachable_in_time(target: HostTarget) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = refusal(changed(target, port=unused.getsockname()[1], connect_timeout_s=0.6))
    assert error.code == "unreachable"
    assert "worker" in str(error)


def test_host_that_comes_up_late_is_waited_for(target: HostTarget) -> None:
    late = Server(new_key(), paramiko.ECDSAKey.from_private_key(io.StringIO(target.private_key)))
    timer = threading.Timer(0.6, late.start)
    timer.start()
    try:
        with Host(changed(target, port=late.port, host_key=public(late.host_key))) as host:
            host.ship()
    finally:
        timer.join()
        late.stop()


def test_a_connection_that_is_given_up_while_it_is_made_ends_at_once(target: HostTarget) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = Host(changed(target, port=free.getsockname()[1], connect_timeout_s=3600))
        ended: list[str] = []

        def connect() -> None:
            try:
                away.connect()
            except HostError as error:
                ended.append(error.code)

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        away.abandon()
        thread.join(60)
    assert ended == ["lost"]


def test_agent_is_shipped_once_by_its_content(host: Host, target: HostTarget) -> None:
    path = Path(host.agent_path)
    assert path.read_bytes() == bundle().content
    before = path.stat().st_mtime_ns
    assert host.ship() == host.agent_path
    assert path.stat().st_mtime_ns == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.write_bytes(bundle().content[::-1])  # of the same size: only its hash shows it
    host.ship()
    assert path.read_bytes() == bundle().content


def test_spool_that_can_t_be_made_names_the_command(target: HostTarget) -> None:
    with (
        Host(changed(target, spool="/proc/no/such/spool")) as host,
        pytest.raises(HostError, match="sudo install -d -o bench /proc/no/such/spool") as caught,
    ):
        host.ship()
    assert caught.value.code == "spool"


def test_answers_and_refusals_of_the_agent_arrive(host: Host) -> None:
    assert host.call("lease", {"action": "take", "owner": "run-1"})["owner"] == "run-1"
    with pytest.raises(HostError, match="held by run-1") as caught:
        host.call("lease", {"action": "take", "owner": "run-2"})
    assert caught.value.code == "leased"
    assert caught.value.details["owner"] == "run-1"


def test_missing_interpreter_or_agent_is_a_plain_message(target: HostTarget) -> None:
    with (
        Host(changed(target, python="/no/python9")) as host,
        pytest.raises(HostError, match="/no/python9") as caught,
    ):
        host.call("status", {})
    assert caught.value.code == "protocol"


def test_silent_host_ends_at_the_call_s_own_deadline(server: Server, host: Host) -> None:
    server.mute = True
    with pytest.raises(HostError) as caught:
        host.call("status", {}, timeout_s=0.4)
    assert caught.value.code == "timeout"
    server.mute = False
    assert host.call("status", {})["state"] == "unknown"  # connects again by itself


def test_cut_connection_is_lost_not_failed(server: Server, host: Host) -> None:
    server.mute = True
    threading.Timer(0.2, server.drop).start()
    with pytest.raises(HostError) as caught:
        host.call("status", {})
    assert caught.value.code == "lost"


def test_a_call_that_is_given_up_ends_and_nothing_connects_again(
    server: Server, host: Host
) -> None:
    server.mute = True
    threading.Timer(0.2, host.abandon).start()
    with pytest.raises(HostError) as caught:
        host.wait("r/worker/001-x/1", timeout_s=60)
    assert caught.value.code == "lost"
    assert len(server.transports) == 1


def test_wait_attaches_again_after_a_cut_and_the_attempt_is_unharmed(
    server: Server, host: Host, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    spec = {
        "id": "r/worker/001-x/1", "run": "r", "host": "worker", "trial": "001-x", "attempt": 1,
        "owner": "r", "kind": "workload", "runtime": "process", "timeout_s": 60, "lead_s": 0,
        "command": ["sh", "-c", f"mkfifo {gate}; read x < {gate}; echo went $x"],
        "meter": {"kind": "powercap"},
    }  # fmt: skip
    host.call("lease", {"action": "take", "owner": "r"})
    assert host.call("start", spec)["state"] == "started"

    calls = Path(host.spool) / "trials/r/001-x/1/connections.jsonl"

    def until_waits(number: int) -> None:
        while calls.read_text().count('"wait"') < number or not gate.exists():
            time.sleep(0.01)

    def cut_once_waiting() -> None:
        until_waits(1)
        server.drop()
        until_waits(2)
        gate.write_text("well\n")

    cutter = threading.Thread(target=cut_once_waiting, daemon=True)
    cutter.start()
    answer = host.wait("r/worker/001-x/1", timeout_s=60)
    cutter.join(10)
    report = answer["report"]
    assert (answer["over"], report["state"]) == (True, "done")
    assert [c["verb"] for c in report["connections"]] == ["start", "wait", "wait"]
    log = host.fetch_bytes(f"{answer['path']}/stdout.log")
    assert log == b"went well\n"
    assert host.call("forget", {"id": spec["id"]})["forgotten"] == [spec["id"]]


def test_commands_on_the_host_hold_nothing_but_quoted_fixed_words(
    server: Server, host: Host, target: HostTarget
) -> None:
    import shlex

    host.call("lease", {"action": "show", "owner": "$(touch /tmp/pwned); `id`"})
    for command in server.commands:
        words = shlex.split(command)
        if words != ["sha256sum", host.agent_path]:
            assert words[:3] == [sys.executable, "-IS", host.agent_path]
            assert len(words) == 4
        assert "pwned" not in command


def test_files_arrive_whole(host: Host, tmp_path: Path) -> None:
    data = os.urandom(700_000)
    (tmp_path / "raw.csv").write_bytes(data)
    assert host.fetch_bytes(str(tmp_path / "raw.csv")) == data
    buffer = io.BytesIO()
    assert host.fetch(str(tmp_path / "raw.csv"), buffer) == len(data)
    with pytest.raises(HostError) as caught:
        host.fetch_bytes(str(tmp_path / "absent"))
    assert caught.value.code == "missing"


def test_clock_offset_of_this_machine_to_itself_is_small(host: Host) -> None:
    assert abs(host.clock_offset_s()) < 0.1


def test_forwarded_socket_carries_both_ways_and_several_at_once(host: Host, tmp_path: Path) -> None:
    remote = str(tmp_path / "service.sock")
    service = socket.socket(socket.AF_UNIX)
    service.bind(remote)
    service.listen()

    def serve() -> None:
        while True:
            try:
                peer, _ = service.accept()
            except OSError:
                return
            with peer:
                question = b"".join(iter(lambda: peer.recv(65536), b""))  # noqa: B023
                peer.sendall(question[::-1])

    threading.Thread(target=serve, daemon=True).start()
    payloads = [os.urandom(200_000), b"second"]
    with host.forward_socket(remote) as path:
        clients = [socket.socket(socket.AF_UNIX) for _ in payloads]
        for client in clients:
            client.settimeout(30)
            client.connect(path)
        for client, payload in zip(clients, payloads, strict=True):
            client.sendall(payload)
            client.shutdown(socket.SHUT_WR)
        for client, payload in zip(clients, payloads, strict=True):
            answer = b"".join(iter(lambda c=client: c.recv(65536), b""))  # type: ignore[misc]
            client.close()
            assert answer == payload[::-1]
        assert host.call("status", {})["state"] == "unknown"  # the connection still serves calls
    assert not Path(path).exists()
    service.shutdown(socket.SHUT_RDWR)
    service.close()


def test_a_connection_that_is_over_is_closed_before_the_next_one(
    host: Host, tmp_path: Path
) -> None:
    """One that was only dropped is an unclosed socket, of which Python warns: an error here."""
    with host.forward_socket(str(tmp_path / "absent.sock")) as path:
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(path)
                assert client.recv(1) == b""
    gc.collect()


def test_forwarding_to_a_dead_socket_ends_the_local_connection(host: Host, tmp_path: Path) -> None:
    remote = str(tmp_path / "absent.sock")
    with host.forward_socket(remote) as path, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(path)
        assert client.recv(1) == b""


def test_controller_s_import_stays_light() -> None:
    """DAG files are parsed every few seconds: paramiko must not come with the module."""
    code = "import sys, wattbench.worker.ssh; sys.exit('paramiko' in sys.modules)"
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), str(root / "plugins")])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0


def test_host_errors_are_user_errors() -> None:
    from wattbench import errors
    from wattbench.analysis.model.errors import UserError

    kinds = (errors.ConfigError, errors.HostError, errors.StoreError, errors.RegistryError)
    assert all(issubclass(kind, UserError) for kind in kinds)
    assert json.dumps(HostError("x", code="busy").details) == "{}"


# ── a host that its run will not give back ──────────────────────────────────────────────────────


def test_a_free_host_stays_free(target: HostTarget) -> None:
    assert host_release.release(target, force=False) == host_release.Released(None, (), ())


def test_a_lease_is_released_by_hand(target: HostTarget, host: Host) -> None:
    host.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
    assert host_release.release(target, force=False).owner == "run-1"
    assert not host.call("lease", {"action": "show"})["held"]


def test_a_measuring_host_is_released_by_force_only_and_keeps_its_raw_logs(
    target: HostTarget, host: Host
) -> None:
    host.call("lease", {"action": "take", "owner": "run-1", "ttl_s": 600})
    identity = "run-1/worker/001-idle/1"
    host.call("start", {
        "id": identity, "run": "run-1", "host": "worker", "trial": "001-idle", "attempt": 1, "owner": "run-1",
        "kind": "idle", "runtime": "none", "command": ["sleep", "600"], "timeout_s": 900, "lead_s": 0,
        "min_free_bytes": 0, "meter": {"kind": "modelled", "command": [str(STAND_IN)]},
    })  # fmt: skip
    with pytest.raises(HostError, match="is being measured; wait for it") as caught:
        host_release.release(target, force=False)
    assert caught.value.code == "busy"
    found = host_release.release(target, force=True)
    assert found == host_release.Released("run-1", (identity,), (identity,))
    assert not host.call("lease", {"action": "show"})["held"]
    assert host.call("status", {"id": identity})["report"]["state"] == "killed"
