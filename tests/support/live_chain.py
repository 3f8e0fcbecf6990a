"""The live path in one go: agent, meter, raw files, record, checks; no part of it is replaced.

An attempt is described by the controller's own code, run by the agent in a spool of its own with a
real supervisor and wrapper, metered by the stand-in with known truth, then evaluated and judged as
``collect`` does it.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.shipped import written
from tests.support.side_by_side import side_by_side
from wattbench.analysis import checks
from wattbench.analysis.meters import attempt
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostConfig
from wattbench.errors import HostError
from wattbench.run.plan import PlannedTrial
from wattbench.run.store_keys import attempt_id
from wattbench.storage.object_store import Listed, ObjectMissingError, StoredObject
from wattbench.worker.agent import cli, limits
from wattbench.worker.agent.processes import processes_of
from wattbench.worker.agent_bundle import bundle
from wattbench.worker.answers import fault
from wattbench.worker.attempt_spec import attempt_spec, expectation

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "images/worker-host/energibridge"

#: Stands in a case's environment for the folder of its own of each measurement.
HOME = "{home}"

#: Field 22 is the start time that identifies a boot.
INIT = "1 (init) S " + " ".join(["0"] * 40) + "\n"

#: A program that prints the events of the real workload, for the time and with the differences asked for.
SPOKEN = """\
import json, os, signal, sys, time
wanted = {"seconds": 0.8, "device": None, "iterations": None, "weights": "w" * 64, "input": "i" * 64,
        "fingerprint": [1.0, -2.0, 3.0], "exit": 0, "signal": 0, "spin": 0.0}
wanted.update(json.loads(sys.argv[1]))
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
def emit(event, **more):
    now = {"unix_s": time.time(), "mono_s": time.monotonic()}
    print(json.dumps({"event": event, **now, **more}), flush=True)
emit("start", program=options["--program"], framework="spoken", precision=options["--precision"])
emit("phase", name="load", edge="begin")
device = wanted["device"] or options["--device"]
emit("device", requested=options["--device"], actual=device, name=device, uuid=None)
emit("versions", python="3")
emit("weights", sha256=wanted["weights"], parameters=3, source="seed")
emit("input", resolution=64, sha256=wanted["input"])
emit("phase", name="load", edge="end")
resolution, count = options["--passes"].split(":")
name = "steady:" + resolution
emit("phase", name=name, edge="begin")
until = time.monotonic() + wanted["spin"]
while time.monotonic() < until:
    pass
time.sleep(wanted["seconds"] - wanted["spin"])
if wanted["signal"]:
    os.kill(os.getpid(), wanted["signal"])
emit("phase", name=name, edge="end")
count = wanted["iterations"] or int(count)
emit("result", phase=name, resolution=int(resolution), iterations=count, batch=1, images=count,
     duration_s=wanted["seconds"], fingerprint=wanted["fingerprint"])
emit("end", images=count)
sys.exit(wanted["exit"])
"""


@dataclass(frozen=True)
class Case:
    """One attempt.

    Attributes:
        fault: the stand-in's switches, as in ``WATTBENCH_METER_FAULT``.
        says: what the spoken workload does other than usual.
        device: asked for; ``cuda`` gives the trial the host's ``gpus``.
        meter: kind.
        command: another program than the spoken workload.
        kind: of the trial.
        idle_s: how long an idle trial lasts.
        loaded: an idle trial holds the command's framework and model loaded.
        env: of the agent and its meters; may name HOME.
        meddle: called with the attempt's folder while it runs.
        spec: changes of the attempt's spec.
    """

    fault: str = ""
    says: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    meter: str = "energibridge"
    interval_ms: int = 100
    command: tuple[str, ...] = ()
    kind: str = "workload"
    passes: tuple[tuple[int, int], ...] = ((64, 2),)
    precision: str = "fp32"
    batch: int = 1
    idle_s: float = 1.0
    loaded: bool = False
    timeout_s: int = 60
    gpus: tuple[str, ...] = ("0",)
    env: Mapping[str, str] = field(default_factory=dict)
    meddle: Callable[[Path], None] | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Live:
    """What became of it.

    Attributes:
        truth: the stand-in's own account; None: it wrote none.
        left: pids of the attempt that were still there when its report was.
    """

    record: Record
    report: dict[str, Any]
    raw: dict[str, bytes]
    truth: dict[str, Any] | None
    left: list[int]
    whole: tuple[Finding, ...]

    @property
    def found(self) -> dict[str, Finding]:
        """Findings by code."""
        return {f.code: f for f in self.record.findings if f.verdict == "found"}

    @property
    def window(self) -> tuple[float, float]:
        """Start and end on the monotonic clock, s."""
        command = self.report["command"]
        return command["started"]["mono_s"], command["ended"]["mono_s"]

    def true_joules(self, domain: str) -> tuple[float, float]:
        """Least and most that the power model can have spent in the window, J.

        Between two moments whose joules are known the idle part flows evenly and the rest at any
        time: without CPU power both bounds are one number. GPUs are integrated in closed form.
        """
        assert self.truth is not None
        start, end = self.window
        switches = self.truth["switches"]
        if domain.startswith("gpu"):
            turn = 2 * math.pi / switches["gpu_period_s"]
            swing = switches["gpu_swing_w"] / turn * (math.cos(turn * end) - math.cos(turn * start))
            joules = switches["gpu_w"] * (end - start) - swing
            return joules, joules
        idle_w = switches["dram_idle_w" if domain == "dram" else "idle_w"]
        marks = [*self.truth["rows"], *(self.truth["command"][k] for k in ("started", "ended"))]
        known = sorted((m["mono_s"], m["joules"][domain]) for m in marks if m)

        def at(moment: float) -> tuple[float, float]:
            t0, e0 = [k for k in known if k[0] <= moment][-1]
            t1, e1 = next(k for k in known if k[0] >= moment)
            return e0 + idle_w * (moment - t0), e1 - idle_w * (t1 - moment)

        (low0, high0), (low1, high1) = at(start), at(end)
        return low1 - high0, high1 - low0

    def stall_s(self) -> float:
        """How long this machine kept the stand-in from sampling after it had stamped a row, s."""
        assert self.truth is not None
        lines = self.raw.get("energibridge.csv", b"").decode().splitlines()[1:]
        stamps = [int(cells[1]) for line in lines if len(cells := line.split(",")) > 2]
        rows = [row["unix_ms"] for row in self.truth["rows"]]
        late = [row - stamp for row, stamp in zip(rows, stamps, strict=False)]
        return float(max([0, *late[1:]])) / 1000


class Shelf:
    """A store in memory: what a Run asks of one."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def put(self, key: str, data: bytes) -> StoredObject:
        self.kept[key] = data
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())

    put_gzip = put

    def put_json(self, key: str, value: Any) -> None:
        self.kept[key] = json.loads(json.dumps(value))

    def get_json(self, key: str) -> Any:
        if key not in self.kept:
            raise ObjectMissingError(key)
        return self.kept[key]

    def get(self, key: str) -> bytes:
        if key not in self.kept:
            raise ObjectMissingError(key)
        data: bytes = self.kept[key]
        return data

    def exists(self, key: str) -> bool:
        return key in self.kept

    def remove(self, key: str) -> None:
        self.kept.pop(key, None)

    def list(self, prefix: str) -> list[Listed]:
        return [Listed(key, 0) for key in sorted(self.kept) if key.startswith(prefix)]


class Here:
    """The agent on this machine, without SSH in between."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        spool.mkdir(parents=True, exist_ok=True)
        self.agent = written(bundle(), spool)

    def fetch_bytes(self, remote_path: str) -> bytes:
        return Path(remote_path).read_bytes()

    def has_file(self, sha256: str) -> bool:
        return (self.spool / limits.FILES / sha256).is_file()

    def ship_file(self, sha256: str, content: bytes) -> None:
        path = self.spool / limits.FILES / sha256
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def wait(self, attempt_id: str, timeout_s: float) -> dict[str, Any]:
        return self.call("wait", {"id": attempt_id, "timeout_s": timeout_s}, timeout_s + 60)

    def call(self, verb: str, payload: dict[str, Any], timeout_s: float = 60) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-IS", str(self.agent), verb],
            input=json.dumps({"spool": str(self.spool), **payload}),
            capture_output=True, text=True, check=True, timeout=timeout_s,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout)
        if not answer["ok"]:
            raise HostError(answer["message"], code=answer["error"], details=answer)
        assert fault(verb, answer) is None
        return answer


def quiet_platform(folder: Path) -> Path:
    """A machine without other work, whatever the one below the tests is doing."""
    for path, text in {"proc/stat": "cpu  1 0 1 1 0 0 0 0\n", "proc/1/stat": INIT}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


class Chain:
    """Runs cases, each on a host of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.agent = written(bundle(), folder)
        self.spoken = folder / "spoken.py"
        self.spoken.write_text(SPOKEN)
        self._token, self._numbers = uuid.uuid4().hex[:8], itertools.count(1)
        self.platform = quiet_platform(folder / "platform")

    def run(self, name: str, case: Case) -> Live:
        """One attempt from its spec to its findings."""
        home = self.folder / name.replace(" ", "-").replace("/", "-")
        spool = home / "spool"
        home.mkdir()
        command = case.command or (
            sys.executable, "-IS", str(self.spoken), json.dumps(dict(case.says))
        )  # fmt: skip
        # An attempt's id names its processes and containers to the whole machine.
        worker = f"worker-{self._token}-{next(self._numbers)}"
        experiment, host = self.plan(case, command)
        image = "bare" if case.kind == "workload" or case.loaded else case.kind
        trial = PlannedTrial(1, 1, case.kind, image)
        spec = attempt_spec(
            experiment, host, run_id="run-1", host_name=worker, trial=trial, attempt=1, ref=None,
            files={}, rest={"rested_s": 1.0},
        )  # fmt: skip
        spec |= {"lead_s": 0, "min_free_bytes": 0, **case.spec}
        cli.answer_verb(
            "lease",
            json.dumps({"spool": str(spool), "action": "take", "owner": "run-1", "ttl_s": 600}),
        )
        environ = os.environ | {
            "WATTBENCH_SPOOL": str(spool),
            "WATTBENCH_SYSROOT": str(self.platform),
            "WATTBENCH_METER_CONFIG": "/nonexistent",
            "WATTBENCH_METER_FAULT": case.fault,
            "WATTBENCH_METER_TRUTH": str(home / "truth.json"),
            **{key: value.replace(HOME, str(home)) for key, value in case.env.items()},
        }
        started = subprocess.run(
            [sys.executable, "-IS", str(self.agent), "start"], input=json.dumps(spec), env=environ, text=True,
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        answer = json.loads(started.stdout)
        assert answer["ok"], answer
        folder = Path(answer["path"])
        if case.meddle:
            case.meddle(folder)
        with (folder / "supervisor.lock").open() as lock:  # as the verb `wait` does
            fcntl.flock(lock, fcntl.LOCK_SH)
        report = json.loads((folder / "report.json").read_text())
        left = processes_of(None, str(folder))
        raw = {
            path.name: path.read_bytes()
            for path in folder.iterdir()
            if path.suffix in (".csv", ".log", ".jsonl")
        }
        record, whole = judged(report, raw, expectation(experiment, host, trial), trial, worker)
        truth = home / "truth.json"
        return Live(
            record, report, raw, json.loads(truth.read_text()) if truth.exists() else None, left,
            whole,
        )  # fmt: skip

    def plan(self, case: Case, command: tuple[str, ...]) -> tuple[Experiment, HostConfig]:
        """The experiment and the host as their YAML files would have them."""
        experiment = Experiment.model_validate(
            {
                "hosts": ["worker"],
                "device": case.device,
                "workload": {
                    "precision": case.precision,
                    "batch": case.batch,
                    "passes": [{"resolution": r, "iterations": n} for r, n in case.passes],
                },
                "images": {"bare": {"runtime": "process", "command": list(command)}},
                "reference": "bare",
                "protocol": {
                    "timeout_s": case.timeout_s,
                    "idle_baseline": {
                        "seconds": case.idle_s,
                        **({"state": "loaded"} if case.loaded else {"per": "host"}),
                    },
                    "control": {"rounds": 200},
                },
            }
        )
        program = {"command": [str(STAND_IN)]} if case.meter in ("energibridge", "modelled") else {}
        host = HostConfig.model_validate(
            {
                "ssh_conn_id": "worker",
                "gpus": list(case.gpus) if case.device == "cuda" else [],
                "meter": {"kind": case.meter, "interval_ms": case.interval_ms, **program},
            }
        )
        return experiment, host

    def run_all(self, cases: Mapping[str, Case], at_once: int = 12) -> Lives:
        """Many, side by side."""

        def run(name: str, again: int) -> Live:
            return self.run(f"{name} {again}" if again else name, cases[name])

        return side_by_side(run, cases, at_once)


Lives = dict[str, Live]


def home_of(attempt: Path) -> Path:
    """What HOME stands for, of an attempt's folder."""
    return attempt.parents[4]


def judged(
    report: dict[str, Any],
    raw: dict[str, bytes],
    expected: dict[str, Any],
    trial: PlannedTrial,
    host: str,
) -> tuple[Record, tuple[Finding, ...]]:
    """What ``collect`` and ``analyze`` make of an attempt's files."""
    row = TrialRow(
        run_id="run-1", host=host, kind=trial.kind, block=trial.block, position=None,
        planned_position=trial.planned_position, image=trial.image, attempt=1, late=False,
        raw=attempt_id("run-1", host, trial.name, 1) + "/energibridge.csv.gz",
    )  # fmt: skip
    record = attempt.evaluate(
        attempt.RawAttempt(report, raw),
        expected=expected,
        plan_row=row,
    )
    records, whole = checks.judge([record])
    return records[0], whole
