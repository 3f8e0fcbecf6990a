"""Thermal steady state during warm-up, detected from temperature and power readings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, cast

from wattbench.analysis.model.run_document import HostDocument, WarmUpDocument
from wattbench.config.experiment import WarmUp
from wattbench.run.stored_run import Run

if TYPE_CHECKING:
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
    told_moves = ", ".join(text for _, _, text in moves or ())
    if last.elapsed_s < wanted.seconds:
        return Warmth(False, steady, last.elapsed_s, f"{wanted.seconds:g} s at the least", last)
    if not wanted.until_steady:
        return Warmth(True, None, last.elapsed_s, "for a fixed time", last)
    if not reported:
        why = "for a fixed time: the host reports neither temperature nor power"
        return Warmth(True, None, last.elapsed_s, why, last)
    if steady:
        return Warmth(True, True, last.elapsed_s, f"steady: {told_moves}", last)
    why = told_moves or f"fewer than {2 * FEWEST} readings in {SPAN_S:g} s"
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


def keep(run: Run, host: str, found: Warmth) -> None:
    """Put a warm-up's end into the host's document; one without steady state is a soft problem."""
    document = run.host_document(host) or HostDocument()
    problems = [p for p in document.get("problems", ()) if p["code"] != "not-steady"]
    if found.steady is False:
        problems.append(
            {
                "code": "not-steady",
                "severity": "soft",
                "message": f"the warm-up ended {found.why}",
                "action": "raise protocol.warm_up.max_s, or look at the host's cooling",
            }
        )
    kept = cast("WarmUpDocument", asdict(found))
    run.write_host_document(host, {**document, "warm_up": kept, "problems": problems})
