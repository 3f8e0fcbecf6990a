"""Warm-up of a host and of its GPUs until thermal steady state, by temperature and power readings."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, cast

from wattbench.analysis.model.run_document import HostDocument, WarmUpDocument
from wattbench.config.experiment import WarmUp
from wattbench.run.stored_run import Run
from wattbench.steps.workload_files import ship_files
from wattbench.worker.attempt_spec import WARM_START_S, probe_spec, warm_spec
from wattbench.workloads import workload_of
from wattbench.workloads.protocol import WarmsGpus

if TYPE_CHECKING:
    from wattbench.worker.agent.documents import AttemptSpec
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)

#: Length of the readings whose halves are compared, s.
SPAN_S = 60.0
#: Least number of readings in each half.
FEWEST = 3
#: How far the halves' medians may lie apart.
CALM_C, CALM_POWER = 0.5, 0.01


@dataclass(frozen=True)
class Reading:
    """One reading of a host under load; None: the host does not report it."""

    elapsed_s: float
    temperature_c: float | None
    power_w: float | None


@dataclass(frozen=True)
class Warmth:
    """Where a warm-up stands.

    Attributes:
        over: whether it may end.
        steady: whether the host is in thermal steady state; None: it cannot be determined or not asked for.
        elapsed_s: since it began.
        why: one sentence.
        reading: the last one.
    """

    over: bool
    steady: bool | None
    elapsed_s: float
    why: str
    reading: Reading


def look(run: Run, host: Host, host_name: str, readings: list[Reading]) -> Warmth:
    """Load the host, unless it is being loaded; look at it once; end the load when it is warm.

    Args:
        readings: those so far; the new one is added.
    """
    wanted = run.experiment.protocol.warm_up
    call = {"owner": run.run_id, "action": "start", "seconds": wanted.limit_s}
    status = host.call("warm", call)
    readings.append(Reading(float(status["elapsed_s"]), status["temperature_c"], status["power_w"]))
    found = judge(readings, wanted)
    log.info("warming %s: %.0f s; %s", host_name, found.elapsed_s, found.why)
    if found.over:
        host.call("warm", {"owner": run.run_id, "action": "stop"})
    return found


def judge(readings: Sequence[Reading], wanted: WarmUp) -> Warmth:
    """Judge by all readings so far, oldest first; there is at least one.

    It is over after ``seconds`` if the host reports neither temperature nor power, or where only a fixed
    time is asked for; else as soon as what it reports is steady after that, at the latest after
    ``max_s``.
    """
    last = readings[-1]
    moves = _moves(readings)
    steady = None if moves is None else all(abs(m) <= limit for m, limit, _ in moves)
    reported = last.temperature_c is not None or last.power_w is not None
    shown_moves = ", ".join(text for _, _, text in moves or ())
    if last.elapsed_s < wanted.seconds:
        return Warmth(False, steady, last.elapsed_s, f"{wanted.seconds:g} s at the least", last)
    if not wanted.until_steady:
        return Warmth(True, None, last.elapsed_s, "for a fixed time", last)
    if not reported:
        why = "for a fixed time: the host reports neither temperature nor power"
        return Warmth(True, None, last.elapsed_s, why, last)
    if steady:
        return Warmth(True, True, last.elapsed_s, f"steady: {shown_moves}", last)
    why = shown_moves or f"fewer than {2 * FEWEST} readings in {SPAN_S:g} s"
    if last.elapsed_s >= wanted.max_s:
        text = f"without steady state after {last.elapsed_s:.0f} s: {why}"
        return Warmth(True, steady, last.elapsed_s, text, last)
    return Warmth(False, steady, last.elapsed_s, why, last)


def _moves(readings: Sequence[Reading]) -> list[tuple[float, float, str]] | None:
    """How far each quantity moved from the span's first half to its second, with limit and words."""
    now = readings[-1].elapsed_s
    recent = [r for r in readings if r.elapsed_s > now - SPAN_S]
    older = [r for r in recent if r.elapsed_s <= now - SPAN_S / 2]
    newer = [r for r in recent if r.elapsed_s > now - SPAN_S / 2]
    found = []
    halves = [
        [r.temperature_c for r in half if r.temperature_c is not None] for half in (older, newer)
    ]
    if min(map(len, halves)) >= FEWEST:
        move = median(halves[1]) - median(halves[0])
        found.append((move, CALM_C, f"{move:+.1f} °C in {SPAN_S / 2:g} s"))
    halves = [[r.power_w for r in half if r.power_w is not None] for half in (older, newer)]
    if min(map(len, halves)) >= FEWEST and median(halves[0]) > 0:
        move = median(halves[1]) / median(halves[0]) - 1
        found.append((move, CALM_POWER, f"{100 * move:+.1f} % power in {SPAN_S / 2:g} s"))
    return found or None


@dataclass
class GpuLoad:
    """The load that warms a host's GPUs: the built-in program in one of the experiment's images.

    Attributes:
        image: in which it runs.
        spec: its attempt, which the host itself ends at the limit; None: no image has the program.
        readings: those under load.
        began_s: when it was started, on this machine's monotonic clock.
    """

    run: Run
    host_name: str
    image: str
    spec: AttemptSpec | None
    readings: list[Reading] = field(default_factory=list)
    began_s: float = 0.0

    def is_running(self, host: Host) -> bool:
        """Whether an earlier triggerer has started it."""
        if self.spec is None:
            return False
        return host.call("status", {"id": self.spec["id"]})["state"] == "running"

    def start(self, host: Host) -> None:
        """Start the load, or attach to it; what an earlier try has left over is removed."""
        self.began_s = time.monotonic()
        if self.spec is None:
            return
        if host.call("status", {"id": self.spec["id"]})["state"] == "over":
            host.call("forget", {"id": self.spec["id"]})
        ship_files(self.run, host, self.image)
        host.call("start", self.spec)

    def look(self, host: Host) -> Warmth:
        """Look at the GPUs once."""
        if self.spec is None:
            why = "not warmed: no image that is here runs the built-in program"
            return Warmth(True, None, 0.0, why, Reading(0.0, None, None))
        status = host.call("status", {"id": self.spec["id"]})
        levels = host.call("warm", {"action": "status", "gpus": self.spec["gpus"]})
        elapsed_s = time.monotonic() - self.began_s
        now = Reading(elapsed_s, levels.get("gpu_temperature_c"), levels.get("gpu_power_w"))
        if status["state"] == "running":
            found = self._judge(now)
        else:
            report = status.get("report") or {}
            why = f"not warmed: the built-in program in {self.image} ended: {report.get('message')}"
            found = Warmth(True, None, elapsed_s, why, now)
        log.info("warming the GPUs of %s: %.0f s; %s", self.host_name, elapsed_s, found.why)
        return found

    def _judge(self, now: Reading) -> Warmth:
        """Judge the readings since the GPUs are at work: start-up counts neither as warm nor as steady."""
        protocol = self.run.experiment.protocol
        idle_w = self.run.facts(self.host_name).get("idle", {}).get("gpu_power_w")
        least_w = None if idle_w is None else idle_w + protocol.rest.tolerance.power_w
        if least_w is not None and now.power_w is not None and now.power_w <= least_w:
            self.readings.clear()
            over = now.elapsed_s >= WARM_START_S
            why = f"the GPUs draw {now.power_w:.0f} W, no more than idle"
            return Warmth(over, False if over else None, now.elapsed_s, why, now)
        self.readings.append(now)
        first_s = self.readings[0].elapsed_s
        since = [replace(r, elapsed_s=r.elapsed_s - first_s) for r in self.readings]
        return replace(judge(since, protocol.warm_up), elapsed_s=now.elapsed_s)

    def end(self, host: Host) -> None:
        """End the load; nothing of it stays on the host."""
        if self.spec is not None:
            host.call("cleanup", {"owner": self.run.run_id})
            host.call("forget", {"id": self.spec["id"]})


def gpu_load(run: Run, host_name: str) -> GpuLoad | None:
    """The load for a host's GPUs; None where the experiment gives it none."""
    config, experiment = run.host_config(host_name), run.experiment
    if experiment.device != "cuda" or not config.gpus:
        return None
    brought = {image for image, pull in run.pulls(host_name).items() if not pull.get("error")}
    images = [
        image
        for image in (experiment.reference, *experiment.images)
        if image in brought and isinstance(workload_of(experiment.workload_of(image)), WarmsGpus)
    ]
    if not images:
        return GpuLoad(run, host_name, "", None)
    image = images[0]
    probe = probe_spec(
        experiment, config, run_id=run.run_id, host_name=host_name, image=image,
        ref=run.image_ref(image), files=run.files(image), seed=run.seed,
    )  # fmt: skip
    return GpuLoad(run, host_name, image, warm_spec(experiment, probe, image))


def keep(run: Run, host: str, found: Warmth) -> None:
    """Put a warm-up's end into the host's document; one without steady state is a soft problem."""
    _keep(run, host, cast("WarmUpDocument", asdict(found)), found, "the warm-up")


def keep_gpus(run: Run, host: str, found: Warmth) -> None:
    """Put the end of the GPUs' warm-up beside the host's."""
    known = (run.host_document(host) or HostDocument()).get("warm_up") or WarmUpDocument()
    own = cast("WarmUpDocument", asdict(found))
    _keep(run, host, {**known, "gpus": own}, found, "the warm-up of the GPUs")


def _keep(run: Run, host: str, document: WarmUpDocument, found: Warmth, what: str) -> None:
    known = run.host_document(host) or HostDocument()
    begin = f"{what} ended "
    problems = [
        p
        for p in known.get("problems", ())
        if p["code"] != "not-steady" or not p["message"].startswith(begin)
    ]
    if found.steady is False:
        problems.append(
            {
                "code": "not-steady",
                "severity": "soft",
                "message": f"{begin}{found.why}",
                "action": "raise protocol.warm_up.max_s, or look at the host's cooling",
            }
        )
    run.write_host_document(host, {**known, "warm_up": document, "problems": problems})
