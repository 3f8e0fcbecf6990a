"""Services that outlive the command which started them, known by pid files.

A pid file holds the pid, its start time and the boot: a pid that the system has given to
another process since is never taken for ours, nor signalled.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wattbench.analysis.model.errors import UserError
from wattbench.local.state_folder import StateFolder

_BOOT = Path("/proc/sys/kernel/random/boot_id")

# The child writes its own pid file before it becomes the service: an interruption of the parent
# can't leave an unregistered service. exec changes neither pid nor start time.
_SPAWN = (
    "f=$1; settings=$2; shift 2; "
    'printf "%s %s %s %s\\n" $$ "$(cut -d" " -f22 /proc/$$/stat)" '
    f'"$(cat {_BOOT})" "$settings" > "$f.new" && mv "$f.new" "$f" && exec "$@"'
)


@dataclass(frozen=True)
class Service:
    """A background process of one state folder."""

    name: str
    pid_file: Path
    log: Path

    def pid(self) -> int | None:
        """Its pid while it runs, else None."""
        try:
            pid, started, boot, _ = self.pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        if boot != _BOOT.read_text().strip() or _started(int(pid)) != started:
            return None
        return int(pid)

    def ensure(self, argv: Sequence[str], env: Mapping[str, str], also: str = "") -> None:
        """Starts it where it is not running; starts it anew where it runs with other settings.

        It is detached, in a session of its own, its output appended to its log.

        Args:
            argv: the command.
            env: variables set on top of the present environment.
            also: anything else that makes the service what it is: the text of its config file.
        """
        settings = hashlib.sha256(repr((list(argv), sorted(env.items()), also)).encode())
        wanted = settings.hexdigest()[:12]
        if self.pid() is not None:
            if self.pid_file.read_text().split()[3] == wanted:
                return
            self.stop()
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            # setsid forks: the service is re-parented and needs no reaping here.
            subprocess.run(
                [
                    "setsid",
                    "--fork",
                    "/bin/sh",
                    "-c",
                    _SPAWN,
                    "service",
                    str(self.pid_file),
                    wanted,
                    *argv,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                check=True,
            )
        deadline = time.monotonic() + 10
        while not self.pid_file.exists():  # written within milliseconds
            if time.monotonic() > deadline:
                raise UserError(f"{self.name}: could not be started: {self.last_words()}")
            time.sleep(0.005)

    def wait_until(self, ready: Callable[[], bool], within_s: float) -> None:
        """Waits until the service answers.

        Raises:
            UserError: it ended or did not answer in time; the message has its log's last line.
        """
        deadline = time.monotonic() + within_s
        while not ready():
            if self.pid() is None:
                raise UserError(f"{self.name}: ended at once: {self.last_words()}")
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.name}: no answer within {within_s:.0f} s: {self.last_words()}"
                )
            time.sleep(0.1)

    def stop(self, grace_s: float = 15) -> bool:
        """Ends it, politely first; says whether there was anything to end."""
        pid = self.pid()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        os.kill(pid, signal.SIGTERM)
        if not _wait_for_end(pid, grace_s):
            _kill_group(pid)
            _wait_for_end(pid, 5)
        _kill_group(pid)  # children that the leader left behind
        self.pid_file.unlink(missing_ok=True)
        return True

    def last_words(self) -> str:
        """The last line of its log, and where that is."""
        try:
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line]
        except FileNotFoundError:
            lines = []
        return f"{lines[-1].strip() if lines else 'it said nothing'} (log: {self.log})"


def service(state: StateFolder, name: str) -> Service:
    """The service of that name of this state folder."""
    return Service(name, state.path / "run" / f"{name}.pid", state.path / "log" / f"{name}.log")


def services(state: StateFolder) -> list[Service]:
    """All services that have a pid file here."""
    return [service(state, file.stem) for file in sorted((state.path / "run").glob("*.pid"))]


def _started(pid: int) -> str | None:
    """Start time in clock ticks since boot (field 22 of stat); None for no process or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the command's name may hold spaces
    return None if fields[0] in "ZX" else fields[19]


def _wait_for_end(pid: int, within_s: float) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def _kill_group(leader: int) -> None:
    # A service leads its own session, and a group's id is not reused while a member lives.
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
