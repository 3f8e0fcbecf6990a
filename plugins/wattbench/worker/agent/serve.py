"""Inside the window: starts the server's container and the load beside it, and ends both.

The wrapper runs it as the workload. What the load prints is the workload's output; the last line on stderr
says why the trial has failed. :mod:`wattbench.worker.agent.relay` lets in a load on another machine, where
:func:`ask` runs it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import CorruptError, write_json
from wattbench.worker.agent.docker import (
    DockerError,
    container_name,
    docker,
    docker_argv,
    server_output,
)  # fmt: skip
from wattbench.worker.agent.documents import AttemptSpec, ServeSpec, read_document
from wattbench.worker.agent.text import reason_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import LinkSpec

#: Input of the load generator: where and what to request.
PLAN_FILE = "load.json"
_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


def run(folder: str) -> int:
    """Serve, load, stop; 0 if the load went to its end and the server was there all the time."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(folder))))
    try:
        spec = read_document(os.path.join(folder, "spec.json"), AttemptSpec)
        serve = spec.get("serve") if spec else None
        if spec is None or serve is None:
            return _fail("%s holds no server" % folder)
        started = subprocess.run(
            docker_argv(spec, root, os.path.join(folder, "environment")),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if started.returncode:
            return _fail("the server can't be started: %s" % reason_in(started.stderr))
        return _Server(container_name(spec), serve, root, folder).see_through()
    except (CorruptError, DockerError, OSError) as error:
        return _fail("the server and its load can't be run: %s" % error)


def ask(folder: str) -> int:
    """Become the load on a server of another machine; returns if that can't be."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(folder))))
    try:
        spec = read_document(os.path.join(folder, "spec.json"), AttemptSpec)
        load = spec.get("load") if spec else None
        link = load.get("link") if load else None
        if load is None or link is None:
            return _fail("%s holds no load" % folder)
        more = {"link": {**link, "within_s": limits.LOAD_REACH_S}}
        argv = _load_command(load, (link["address"], link["port"]), root, folder, more)
        os.execv(argv[0], argv)  # noqa: S606
    except (CorruptError, OSError) as error:
        return _fail("the load can't be run: %s" % error)


def _load_command(
    serve: ServeSpec, server: tuple[str, int], root: str, folder: str, more: Json
) -> list[str]:
    """The load's command line; its plan is written."""
    path, requests = os.path.join(folder, PLAN_FILE), serve.get("requests")
    plan = serve["plan"] | more | {
        "host": server[0], "port": server[1],
        "requests": _shipped(root, requests) if requests else None,
        "output": os.path.join(folder, limits.REQUESTS_FILE),
    }  # fmt: skip
    write_json(path, plan, sync=False)
    return [sys.executable, "-IS", _shipped(root, serve["generator"]), path]


def _shipped(root: str, sha256: str) -> str:
    return os.path.join(root, limits.FILES, sha256)


def _fail(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


class _Server:
    """A running server, and the load on it."""

    def __init__(self, name: str, serve: ServeSpec, root: str, folder: str) -> None:
        self.name, self.serve = name, serve
        self.root, self.folder = root, folder

    def see_through(self) -> int:
        """Load it until the load is over or the server is gone; then stop it."""
        address = docker("inspect", "--format", _ADDRESS, self.name).stdout.strip()
        # prints the exit code when the container has ended, asleep until then
        waiter = subprocess.Popen(
            ["docker", "wait", self.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not address:  # of a container that has ended already
            _wait_or_kill(waiter, limits.SERVER_END_S)
            return _fail(self._why_gone(waiter))
        link = self.serve.get("link")
        if link:
            return self._from_elsewhere(address, link, waiter)
        server = (address, self.serve["port"])
        argv = _load_command(self.serve, server, self.root, self.folder, {})
        load = subprocess.Popen(argv, stdin=subprocess.PIPE)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: load.kill())
        if _first_of(load, waiter) is waiter:
            self._say(load, self._why_gone(waiter))
            _wait_or_kill(load, limits.LOAD_STOP_S)
            return 1
        if load.returncode:  # because the server has ended?
            with contextlib.suppress(subprocess.TimeoutExpired):
                waiter.wait(limits.SERVER_END_S)
                return _fail(self._why_gone(waiter))
        self._stop(waiter)
        return 1 if load.returncode else 0

    def _from_elsewhere(self, address: str, link: LinkSpec, waiter: subprocess.Popen[str]) -> int:
        """Let a load on another machine reach the server, as :meth:`see_through`."""
        from wattbench.worker.agent.relay import Relay, RelayError

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(
                number, lambda *_: sys.exit(1)
            )  # the port and all connections end with us
        place = (address, self.serve["port"])
        try:
            relay = Relay(link, place, os.path.join(self.folder, limits.REQUESTS_FILE))
        except OSError as error:
            text = "%s port %d can't be opened for %s: %s" % (
                link["address"], link["port"], link["load_host"], error.strerror or error,
            )  # fmt: skip
            return _fail(text)
        assert waiter.stdout is not None
        try:
            if not relay.run(waiter.stdout.fileno()):
                _wait_or_kill(waiter, limits.SERVER_END_S)
                return _fail(relay.tell_end(self._why_gone(waiter)))
        except RelayError as error:
            _fail(str(error))
            with contextlib.suppress(subprocess.TimeoutExpired):
                waiter.wait(limits.SERVER_END_S)
                _fail(self._why_gone(waiter))
            return 1
        finally:
            relay.close()
        self._stop(waiter)
        return 0

    def _stop(self, waiter: subprocess.Popen[str]) -> None:
        docker("stop", "-t", str(limits.SERVER_STOP_S), self.name, timeout_s=60.0)
        _wait_or_kill(waiter, limits.LOAD_STOP_S)

    def _why_gone(self, waiter: subprocess.Popen[str]) -> str:
        assert waiter.stdout is not None
        code = waiter.stdout.read().strip()
        if waiter.returncode or not code.lstrip("-").isdigit():
            return "the container engine does not answer any more"
        said = ""
        with contextlib.suppress(DockerError):
            said = reason_in(server_output(self.name, 20))
        return "the server ended with %s%s" % (code, ": %s" % said[:500] if said else "")

    def _say(self, load: subprocess.Popen[bytes], why: str) -> None:
        """Let the load report, with the phase, why it ends; if it can't, do so here."""
        assert load.stdin is not None
        try:
            load.stdin.write(why.encode() + b"\n")
            load.stdin.close()
        except OSError:
            _fail(why)


def _first_of(
    load: subprocess.Popen[bytes], waiter: subprocess.Popen[str]
) -> subprocess.Popen[bytes] | subprocess.Popen[str]:
    """Sleep until either has ended."""
    while True:
        pid, status = os.wait()
        for process in (load, waiter):
            if process.pid == pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process


def _wait_or_kill(process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
