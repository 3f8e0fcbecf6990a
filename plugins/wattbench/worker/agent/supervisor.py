"""The supervisor: sees one attempt through, detached from whoever started it.

It holds a flock on ``supervisor.lock`` all its life: who wants to know whether the attempt is over
takes the shared lock, ``wait`` by sleeping in the kernel. Locks end with their process, so a killed
supervisor or a reboot shows at once; whoever finds a folder with neither lock nor report settles it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
import traceback

from wattbench.worker.agent import limits, meters
from wattbench.worker.agent.base import (
    FULL,
    CorruptError,
    boot_mark,
    own_command,
    read_json,
    stamp,
    unix_minus_mono,
    write_json,
)  # fmt: skip
from wattbench.worker.agent.docker import (
    DockerError,
    docker_argv,
    end_container,
    labelled,
    labelled_networks,
    make_network,
    patiently,
    remove_container,
    remove_network,
    write_environment,
)  # fmt: skip
from wattbench.worker.agent.edges import edges
from wattbench.worker.agent.processes import (
    adopt_orphans,
    descendants,
    end_processes,
    is_alive,
    name_of,
    process_mark,
    processes_of,
    send_signal,
)
from wattbench.worker.agent.sampler import start_samplers
from wattbench.worker.agent.settle import command_record, end_lost, write_report
from wattbench.worker.agent.spool import Attempt, Spool
from wattbench.worker.agent.sysfs import ContainerCpu, family_cpu_ns
from wattbench.worker.agent.text import complaint, tail
from wattbench.worker.agent.wrapper import ENDED, PROGRESS, STARTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import AttemptSpec

#: Why an attempt was cut short.
TIMEOUT, KILLED, HUNG_BEFORE, HUNG_AFTER = "timeout", "killed", "hung before", "hung after"


class Supervisor:
    """Sees one attempt through: edges, meter, deadline, container, report."""

    def __init__(self, attempt: Attempt, spec: AttemptSpec) -> None:
        self.attempt, self.spec = attempt, spec
        self.stopped: str | None = None
        self.refused: str | None = None
        self.notes: list[str] = []
        self.outlived = False
        self.strays: list[str] = []
        self.leftovers: list[str] = []
        self.container: Json | None = None
        self.meter_kind = meters.find(spec["meter"]["kind"])
        self.argv: list[str] = []
        self.meter: subprocess.Popen[bytes] | None = None
        self.session: Json | None = None
        self.command: Json | None = None
        self._wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, *_: object) -> None:
        self.stopped = self.stopped or KILLED

    @property
    def uses_docker(self) -> bool:
        """Whether the workload is a container."""
        return bool(self.spec["runtime"] == "docker")

    @property
    def _meter_grace_s(self) -> float:
        return float(limits.GRACE_S + self.spec["meter"]["interval_ms"] / 1000)

    def run(self, attached: int) -> None:
        """The attempt from before its window to its report."""
        spec, boot = self.spec, boot_mark()
        readers = meters.present(spec["gpus"])
        containers = ContainerCpu()
        if not adopt_orphans() and not self.uses_docker:
            self.notes.append("this kernel lets processes that fork twice escape")
        if self.uses_docker:
            self._sweep()
        version = self.meter_kind.version(spec["meter"])
        lead_s = spec.get("lead_s")
        self._pause(limits.LEAD_S if lead_s is None else float(lead_s), attached)
        self._rest_controller()
        before, offset = edges(spec, readers, containers, False), unix_minus_mono()
        samplers = start_samplers(spec, self.attempt.folder, readers, containers)
        margin_s = max(meter.margin_s for meter in readers)
        time.sleep(margin_s)
        self._measure()
        cut_short = self.stopped is not None
        if cut_short:  # a meter that is still at work writes rows: none may lie after the edge
            self._end()
        after = edges(spec, readers, containers, True)
        time.sleep(margin_s)
        for sampler in samplers:
            sampler.finish()
            if sampler.error:
                self.notes.append("a sampler stopped: %s" % sampler.error)
        if not cut_short:
            self._end()
        meter = {
            "argv": self.argv, "rc": self.meter.returncode if self.meter else None,
            "version": version, "stderr_tail": tail(self.attempt.path("stderr.log")),
            "outlived": self.outlived,
        }  # fmt: skip
        state, message = self._verdict()
        write_report(
            self.attempt,
            {
                "schema": limits.SCHEMA, "id": self.attempt.id, "spec": spec, "state": state,
                "message": "; ".join([message, *self.notes]) if self.notes else message,
                "rc": (self.command or {}).get("rc"), "command": self.command,
                "container": self.container, "leftovers": self.leftovers, "strays": self.strays,
                "meter": meter, "output": self._output(),
                "edges": {"before": before, "after": after},
                "clock": {
                    "unix_minus_mono_before": offset, "unix_minus_mono_after": unix_minus_mono(),
                },
                "boot": {"before": boot, "after": boot_mark()}, "rest": spec.get("rest"),
            },
        )  # fmt: skip

    def _pause(self, seconds: float, *until: int) -> None:
        """Wait for a time, for a request to stop, or until one of some descriptors can be read."""
        deadline = time.monotonic() + seconds
        while not self.stopped and (left_s := deadline - time.monotonic()) > 0:
            ready = select.select([self._wake_r, *until], [], [], left_s)[0]
            if self._wake_r in ready:
                os.read(self._wake_r, 512)
            if set(until).intersection(ready):
                return

    def _rest_controller(self) -> None:
        """Wait until a controller on this host has done what led to this attempt, and the one before."""
        folder = self.spec.get("controller")
        if not folder:
            return
        deadline, used_ns = time.monotonic() + limits.CONTROLLER_REST_S, family_cpu_ns(folder)
        while not self.stopped and time.monotonic() < deadline:
            self._pause(limits.CONTROLLER_LOOK_S)
            before_ns, used_ns = used_ns, family_cpu_ns(folder)
            if used_ns - before_ns < limits.CONTROLLER_REST_SHARE * limits.CONTROLLER_LOOK_S * 1e9:
                return

    def _output(self) -> Json:
        """What became of the workload's output; where the wrapper couldn't count, what was kept."""
        output = (self.command or {}).get("output")
        if isinstance(output, dict):
            return output
        sizes = []
        for name in ("stdout.log", "stderr.log"):
            with contextlib.suppress(OSError):
                sizes.append(os.lstat(self.attempt.path(name)).st_size)
        return {
            "stdout_bytes": None, "stderr_bytes": None, "kept_bytes": sum(sizes), "cut": None,
            "error": "the wrapper was killed",
        }  # fmt: skip

    def _sweep(self) -> None:
        """Before the window: remove what earlier attempts of this spool left; make a server's network."""
        try:
            for name in labelled(spool=self.attempt.spool.root):
                remove_container(name)
                self.leftovers.append(name)
            for name in labelled_networks(spool=self.attempt.spool.root):
                remove_network(name)
                self.leftovers.append(name)
            if self.spec.get("serve"):
                self.refused = make_network(self.spec, self.attempt.spool.root)
        except DockerError as error:
            self.notes.append(str(error))

    # -- the window ------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Open the window and sleep until the meter has ended, was asked to end, or its time is over."""
        attempt = self.attempt
        if self.refused:
            return
        os.mkfifo(attempt.path(PROGRESS))
        progress = os.open(attempt.path(PROGRESS), os.O_RDWR | os.O_NONBLOCK)
        output = "meter.log" if self.meter_kind.wraps else "stdout.log"
        try:
            self.argv = self._command_line()
            with (
                open(attempt.path(output), "wb") as out,
                open(attempt.path("stderr.log"), "wb") as err,
            ):
                self.meter = subprocess.Popen(
                    self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                    env=self._environment(), start_new_session=True, cwd=attempt.folder,
                )  # fmt: skip
        except OSError as error:
            self.notes.append(
                "%s: %s" % (self.argv[0] if self.argv else error.filename, error.strerror)
            )
            return
        self.session = process_mark(self.meter.pid)
        supervisor = read_json(attempt.path("supervisor.json")) or {}
        write_json(attempt.path("supervisor.json"), supervisor | {"session": self.session}, False)
        reason = self._sleep(progress)
        self.stopped = self.stopped or reason

    def _command_line(self) -> list[str]:
        """Meter, wrapper, workload."""
        spec, folder = self.spec, self.attempt.folder
        argv = [*own_command("command", folder, "--"), *self._workload()]
        if not self.meter_kind.wraps:
            return argv
        csv, output = (
            os.path.join(folder, self.meter_kind.files[0]),
            os.path.join(folder, "stdout.log"),
        )
        return [*self.meter_kind.argv(spec["meter"], spec["gpus"], csv, output), "--", *argv]

    def _workload(self) -> list[str]:
        """``docker run …``, what runs a server and its load, the command itself, or one of our own."""
        spec = self.spec
        if self.uses_docker:
            environment = self.attempt.path("environment")
            write_environment(environment, spec.get("env") or {})
            if spec.get("serve"):
                return own_command("serve", self.attempt.folder)
            return docker_argv(spec, self.attempt.spool.root, environment)
        if (spec["kind"], *spec["command"][:1]) in (("control", "burn"), ("pull", "hold")):
            return own_command(*spec["command"])
        if spec.get("load"):
            return own_command("ask", self.attempt.folder)
        files = spec.get("files") or {}
        entrypoint = spec.get("entrypoint")
        words = [*([entrypoint] if entrypoint else []), *spec["command"]]
        return [self._shipped(files[word]) if word in files else word for word in words]

    def _shipped(self, sha256: str) -> str:
        return str(self.attempt.spool.path(limits.FILES, sha256))

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "WATTBENCH_ATTEMPT": self.attempt.folder}
        if not self.uses_docker:
            for meter in meters.present(self.spec["gpus"]):
                environment.update(meter.environment())
            environment.update(self.spec.get("env") or {})
        return environment

    def _sleep(self, progress: int) -> str | None:
        """Sleep until the meter has ended; else why it is stopped.

        The time of ``timeout_s`` is the workload's. A meter has its own until the workload starts, and
        after the workload's end: one that hangs does not hold the host for the workload's time.
        """
        deadline, late = time.monotonic() + limits.METER_START_S, HUNG_BEFORE
        while self.meter is not None and self.meter.poll() is None:
            left_s = deadline - time.monotonic()
            if self.stopped or left_s <= 0:
                return self.stopped or late
            ready = select.select([self._wake_r, progress], [], [], left_s)[0]
            if self._wake_r in ready:
                os.read(self._wake_r, 512)
            edge = os.read(progress, 512) if progress in ready else b""
            if STARTED in edge:
                deadline, late = time.monotonic() + float(self.spec["timeout_s"]), TIMEOUT
            if ENDED in edge:
                deadline, late = time.monotonic() + self._meter_grace_s, HUNG_AFTER
        return None

    # -- its end ---------------------------------------------------------------------------------------

    def _processes(self) -> list[int]:
        """All of the attempt's processes."""
        return list({*processes_of(self.session, self.attempt.folder), *descendants()})

    def _end(self) -> None:
        """Stop what still runs, gently first: after its workload, if any, a meter writes its last row."""
        ran_on = self.meter is None or self.meter.poll() is not None
        mark = (command_record(self.attempt) or {}).get("process")
        if self.uses_docker:
            self._end_container(ran_on)
        elif self.stopped and isinstance(mark, dict) and is_alive(mark):
            send_signal([mark["pid"]], signal.SIGTERM)
        if self.meter is not None:
            if self.stopped in (TIMEOUT, KILLED) and mark is not None:
                self._wait_for_meter(self._meter_grace_s)
            elif self.uses_docker and self.outlived:
                self._wait_for_command(limits.GRACE_S)
            self._end_processes()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.meter.wait(5)
        self.command = command_record(self.attempt)

    def _end_processes(self) -> None:
        """End all that is left; a workload that its meter left is not one that left children."""
        over = (command_record(self.attempt) or {}).get("ended") is not None
        names = {pid: name_of(pid) for pid in self._processes()}
        left = end_processes(self._processes)
        if left and not self.stopped:
            if over:
                self.strays = sorted(names.get(pid, "pid %d" % pid) for pid in left)
            else:
                self.outlived = True
        survivors = self._processes()
        if survivors:
            text = ", ".join("%s (pid %d)" % (name_of(pid), pid) for pid in survivors)
            self.notes.append("processes could not be ended: %s" % text)

    def _end_container(self, meter_ended: bool) -> None:
        try:
            self.container, running = patiently(
                lambda: end_container(self.spec, self.attempt.path("server.log")),
                limits.DOCKER_PATIENCE_S,
            )
            self.outlived = running and meter_ended and not self.stopped
        except DockerError as error:
            self.notes.append("the container may be left behind (%s)" % error)

    def _wait_for_meter(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.meter is not None:
                self.meter.wait(seconds)

    def _wait_for_command(self, seconds: float) -> None:
        """Give the orphaned wrapper time to see its container's end and to write it down."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._processes():
            time.sleep(0.05)

    # -- the report ------------------------------------------------------------------------------------

    def _verdict(self) -> tuple[str, str]:
        """State and message."""
        state, message, quote = self._outcome()
        if state == "failed" and quote:
            reason = complaint(self.attempt.path("stderr.log"))
            message = "%s: %s" % (message, reason) if reason else message
        if state == "failed" and self._is_spool_full():
            message = "the spool %s is full; free space on the host (%s)" % (
                self.attempt.spool.root, message,
            )  # fmt: skip
        return state, message

    def _outcome(self) -> tuple[str, str, bool]:
        """State, message, and whether stderr is to be quoted."""
        if self.refused:
            return "failed", "the server's network can't be made: %s" % self.refused, False
        if self.stopped:
            return self._cut_short()
        return self._ended()

    def _cut_short(self) -> tuple[str, str, bool]:
        if self.stopped == TIMEOUT:
            return "timeout", "stopped after timeout_s = %g s" % self.spec["timeout_s"], False
        if self.stopped == KILLED:
            return "killed", "stopped by cleanup", False
        if self.stopped == HUNG_BEFORE:
            return "failed", "the meter hung: it did not start the workload", True
        text = "the meter hung: it had not ended %g s after its workload" % self._meter_grace_s
        return "failed", text, True

    def _ended(self) -> tuple[str, str, bool]:
        record, meter_rc = self.command, self.meter.returncode if self.meter else None
        if record is None:
            return "failed", "the meter ended with %s before the workload started" % meter_rc, True
        if self.outlived or record["ended"] is None:
            return "failed", "the meter ended with %s before its workload" % meter_rc, True
        if record["rc"]:
            text = "the workload ended with %s" % record["rc"]
            if self.container and self.container["oom_killed"]:
                text += ", killed for lack of memory"
            return "failed", text, True
        if meter_rc:
            return "failed", "the meter ended with %s" % meter_rc, True
        if self.strays:
            text = "the workload left processes running, which were ended: %s"
            return "failed", text % ", ".join(self.strays), False
        lost = self._output().get("error")
        if lost:
            return "failed", "the workload's output could not be kept: %s" % lost, False
        return "done", "done", False

    def _is_spool_full(self) -> bool:
        """Whether the attempt had no room left; the reserve is still set aside."""
        if shutil.disk_usage(self.attempt.spool.root).free < limits.RESERVE_BYTES:
            return True
        messages = "; ".join([str(self._output().get("error")), *self.notes])
        return any(os.strerror(number) in messages for number in FULL)


def supervise(folder: str, ready_fd: int) -> None:
    """The supervisor's process: takes the lock, says so, sees the attempt through."""
    with open(os.path.join(folder, "supervisor.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(os.path.join(folder, "report.json")):
            return  # given up for lost while we were starting
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(folder))))
        attempt = Attempt.at(Spool(root), folder)
        try:
            spec = attempt.read_spec()
        except CorruptError:
            return
        if spec is None:
            return
        fifo = os.path.join(folder, "attached")
        os.mkfifo(fifo)
        attached = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        write_json(
            os.path.join(folder, "supervisor.json"),
            {"supervisor": process_mark(os.getpid()), **stamp()},
        )
        supervisor = Supervisor(attempt, spec)
        os.write(ready_fd, b"1")
        os.close(ready_fd)
        try:
            supervisor.run(attached)
        except Exception as error:  # noqa: BLE001 - our own defect must not leave a container running
            traceback.print_exc()
            message = "the supervisor failed: %r; see supervisor.log" % error
            if isinstance(error, OSError) and error.errno in FULL:
                message = "the spool %s is full; free space on the host" % root
            end_lost(attempt, message)
