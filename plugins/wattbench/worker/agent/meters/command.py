"""The meters ``energibridge`` and ``modelled``: a program with EnergiBridge's interface.

It runs the workload as its child, writes ``energibridge.csv``, and may be any program that takes
EnergiBridge's options. The kind alone decides whether its joules are called a measurement.
"""

from __future__ import annotations

import os

from wattbench.worker.agent import limits
from wattbench.worker.agent.base import read_text, rooted
from wattbench.worker.agent.meters import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.documents import MeterSpec


#: How often the meter is run until it proves itself: what is permanent fails each time.
PROOFS = 3

#: How EnergiBridge panics where one sample took longer than the interval.
SLOW_SAMPLE = "overflow when subtracting durations"


def words(settings: MeterSpec) -> list[str]:
    """The meter's program: a list, a path, or a line of words."""
    command = settings.get("command") or ""
    if isinstance(command, list):
        return [str(word) for word in command]
    import shlex

    command = str(command)
    return [command] if os.path.exists(command) or " " not in command else shlex.split(command)


def energy_columns(text: str, with_gpus: bool) -> Json:
    """Judge a meter's file: its energy and power columns, and whether they show anything."""
    import re

    rows = [line.split(",") for line in text.splitlines()]
    header, body = (rows[0], [r for r in rows[1:] if len(r) == len(rows[0])]) if rows else ([], [])
    energy = [c for c in header if re.search(r"_ENERGY \(J\)$", c)]
    power = [c for c in header if re.search(r"_POWER \((mWatts|Watts)\)$", c)]
    values = {c: [r[header.index(c)] for r in body] for c in energy + power}
    alive = [c for c in energy if len(set(values[c])) > 1]
    alive += [c for c in power if any(v not in ("", "0") for v in values[c])]
    message = None
    if not energy + power:
        message = "it writes no energy columns (%s)" % (",".join(header) or "no file")
    elif not alive:
        message = "its energy columns stay at one value: %s" % ", ".join(energy + power)
    elif with_gpus and not any(c.startswith("GPU") for c in power):
        message = "it writes no GPU power columns although the host has gpus"
    return {"ok": message is None, "columns": energy + power, "message": message}


class Modelled(Meter):
    """A program that models the energy."""

    kind = "modelled"
    files = ("energibridge.csv",)
    wraps = True

    @classmethod
    def refusal(cls, settings: MeterSpec) -> str | None:
        command = words(settings)
        return None if command and command[0] else "meter %s without a command" % cls.kind

    @classmethod
    def argv(cls, settings: MeterSpec, gpus: Sequence[str], csv: str, output: str) -> list[str]:
        interval = str(int(settings["interval_ms"]))
        argv = [*words(settings), "-o", csv, "-c", output, "-i", interval]
        return argv + (["-g"] if gpus else [])

    @classmethod
    def version(cls, settings: MeterSpec) -> str | None:
        import subprocess

        try:
            done = subprocess.run(
                [*words(settings), "--version"], stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=5, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired, IndexError):
            return None
        lines = done.stdout.strip().splitlines()
        return lines[0] if lines and not done.returncode else None

    def prove(self, settings: MeterSpec, gpus: Sequence[str], folder: str) -> Json:
        import subprocess

        from wattbench.worker.agent.text import reason_in

        settings = settings | {"interval_ms": settings.get("interval_ms") or limits.INTERVAL_MS}
        csv, output = os.path.join(folder, "energy.csv"), os.path.join(folder, "out")
        seconds = max(0.5, 2.5 * settings["interval_ms"] / 1000)
        argv = [*self.argv(settings, gpus, csv, output), "--", "sleep", "%g" % seconds]
        known: Json = {"argv": argv, "version": self.version(settings)}
        failures: list[str] = []
        for _ in range(PROOFS):  # a single slow sample ends EnergiBridge
            try:
                done = subprocess.run(
                    argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                    errors="replace", timeout=seconds + settings["interval_ms"] / 1000 + 15,
                    check=False,
                )  # fmt: skip
            except OSError as error:
                return known | {"message": "%s: %s" % (argv[0], error.strerror)}
            except subprocess.TimeoutExpired:
                text = "%s did not end after a command of %g s" % (argv[0], seconds)
                return known | {"message": text}
            if not done.returncode:
                columns = energy_columns(read_text(csv) or "", bool(gpus))
                return known | columns | {"failures": failures}
            reason = reason_in(done.stderr) or "it does not say why"
            failures.append("%s ended with %d: %s" % (argv[0], done.returncode, reason))
        return known | {"message": failures[-1], "failures": failures}


class EnergiBridge(Modelled):
    """EnergiBridge, which reads the CPU's model-specific registers."""

    kind = "energibridge"
    default_command = "/usr/local/bin/energibridge"

    def sensors(self) -> Json:
        return {"msr": os.access(rooted("/dev/cpu/0/msr"), os.R_OK)}

    @classmethod
    def preparation(cls) -> tuple[str, ...]:
        return ("msr", "setcap", "setfacl")

    @classmethod
    def fixes(cls, settings: MeterSpec, error: str) -> list[str]:
        if SLOW_SAMPLE in error:
            interval_ms = settings.get("interval_ms") or limits.INTERVAL_MS
            return [
                "raise the host's meter.interval_ms: a sample takes longer than its %s ms"
                % interval_ms,
                "with a GPU, keep its driver loaded: sudo nvidia-smi -pm 1",
            ]
        import shutil

        from wattbench.worker.agent import preparation
        from wattbench.worker.agent.sysfs import virtualisation

        program = shutil.which((words(settings) or [""])[0])
        if program is None:
            return ["install it there, or set the host's meter.command"]
        there = os.path.exists(rooted("/dev/cpu/0/msr"))
        if virtualisation() is not None and not there:
            return [
                "a virtual host has no energy counters: use meter kind modelled, or a real machine"
            ]
        steps = [] if there else ["msr"]
        if not os.access(rooted("/dev/cpu/0/msr"), os.R_OK):
            steps.append("setfacl")
        return [preparation.sudo(name, program=program) for name in [*steps, "setcap"]]


METERS = (EnergiBridge, Modelled)
