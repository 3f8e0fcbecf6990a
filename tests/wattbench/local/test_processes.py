"""Background services and their pid files."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wattbench.analysis.model.errors import UserError
from wattbench.local.processes import Service


@pytest.fixture
def service(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Service("sleeper", tmp_path / "run" / "sleeper.pid", tmp_path / "log" / "sleeper.log")
    yield made
    made.stop(grace_s=5)


def test_a_service_outlives_its_starter_and_is_known_by_its_pid_file(service: Service) -> None:
    service.ensure(["sleep", "60"], env={})
    pid = service.pid()
    assert pid is not None
    command = Path(f"/proc/{pid}/cmdline")
    service.wait_until(lambda: command.read_bytes().startswith(b"sleep\x0060\0"), within_s=5)
    assert os.getsid(pid) == pid, "a session of its own: Ctrl-C at the demo does not reach it"


def test_a_running_service_is_not_started_twice(service: Service) -> None:
    service.ensure(["sleep", "60"], env={})
    first = service.pid()
    service.ensure(["sleep", "60"], env={})
    assert service.pid() == first


@pytest.mark.parametrize(
    ("argv", "env", "also"),
    [(["sleep", "61"], {}, ""), (["sleep", "60"], {"A": "1"}, ""), (["sleep", "60"], {}, "b")],
    ids=["another command", "another environment", "another config file"],
)
def test_a_service_with_other_settings_is_started_anew(
    service: Service, argv: list[str], env: dict[str, str], also: str
) -> None:
    service.ensure(["sleep", "60"], env={})
    first = service.pid()
    service.ensure(argv, env=env, also=also)
    assert service.pid() not in {first, None}


def test_a_pid_that_the_system_gave_to_another_process_is_not_ours(service: Service) -> None:
    service.ensure(["sleep", "60"], env={})
    ours = service.pid_file.read_text().split()
    stranger = subprocess.Popen(["sleep", "60"])
    while start_ticks(stranger.pid) == ours[1]:  # born within the same hundredth of a second
        stranger.kill()
        stranger.wait()
        stranger = subprocess.Popen(["sleep", "60"])
    try:
        service.stop()
        service.pid_file.write_text(" ".join([str(stranger.pid), *ours[1:]]))
        assert service.pid() is None
        assert not service.stop()
        assert stranger.poll() is None, "a stranger must not be signalled"
    finally:
        stranger.kill()
        stranger.wait()


def test_after_a_reboot_an_old_pid_file_means_nothing(service: Service) -> None:
    service.ensure(["sleep", "60"], env={})
    pid, started, _, settings = service.pid_file.read_text().split()
    kept = service.pid_file.read_text()
    service.pid_file.write_text(f"{pid} {started} 00000000-0000-0000-0000-000000000000 {settings}")
    assert service.pid() is None
    service.pid_file.write_text(kept)


def test_a_service_that_ignores_the_polite_request_is_killed_with_its_children(
    service: Service,
) -> None:
    service.ensure(["bash", "-c", "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"], env={})
    service.wait_until(lambda: service.log.read_text().strip().isdigit(), within_s=10)
    leader, child = service.pid(), int(service.log.read_text())
    assert leader is not None
    with _expect_end(leader), _expect_end(child):
        assert service.stop(grace_s=0.2)


def test_stopping_takes_the_children_along(service: Service) -> None:
    service.ensure(["bash", "-c", "sleep 60 & echo $!; exec sleep 60"], env={})
    service.wait_until(lambda: service.log.read_text().strip().isdigit(), within_s=10)
    with _expect_end(int(service.log.read_text())):
        service.stop()
    assert not service.pid_file.exists()


def test_a_service_that_ends_at_once_is_reported_with_its_last_words(service: Service) -> None:
    service.ensure(["sh", "-c", "echo 'port is taken' >&2; exit 3"], env={})
    with pytest.raises(UserError, match=r"sleeper: ended at once: port is taken \(log: "):
        service.wait_until(lambda: False, within_s=10)


def test_a_service_that_never_answers_is_reported_after_the_time(service: Service) -> None:
    service.ensure(["sleep", "60"], env={})
    with pytest.raises(UserError, match=r"sleeper: no answer within 0 s: it said nothing"):
        service.wait_until(lambda: False, within_s=0.2)


def test_a_zombie_does_not_run(service: Service) -> None:
    service.ensure(["sleep", "60"], env={})
    _, _, boot, settings = service.pid_file.read_text().split()
    service.stop()
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet reaped
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        service.pid_file.write_text(f"{child.pid} {started} {boot} {settings}")
        assert service.pid() is None


@contextmanager
def _expect_end(pid: int) -> Iterator[None]:
    handle = os.pidfd_open(pid)
    try:
        yield
        assert select.select([handle], [], [], 5)[0], f"process {pid} is still alive"
    finally:
        os.close(handle)


def start_ticks(pid: int) -> str:
    """Field 22 of the process's stat: its start time in clock ticks since boot."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
