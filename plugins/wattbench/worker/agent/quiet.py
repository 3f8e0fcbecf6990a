"""The verbs ``warm`` and ``quiet``: at working temperature, and back at the idle level."""

from __future__ import annotations

import math
import time

from wattbench.worker.agent.base import AgentError, CorruptError, boot_mark, number
from wattbench.worker.agent.burner import burner_state, last_burner, start_burner, stop_burner
from wattbench.worker.agent.documents import Mark, read_document
from wattbench.worker.agent.lease import active_attempt, holding
from wattbench.worker.agent.levels import sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool


def verb_warm(spool: Spool, payload: Json) -> Json:
    """Start, stop or watch the burner that brings the host to working temperature."""
    action = payload.get("action", "status")
    if action not in ("start", "stop", "status"):
        raise AgentError("bad-request", "warm: action start, stop or status")
    with spool.guard():
        if action != "status":
            lease = holding(spool, str(payload.get("owner")))
            active = active_attempt(spool, lease)
            if active and action == "start":
                raise AgentError(
                    "busy", "%s is being measured" % active, "wait for it", active=active
                )
        if action == "stop":
            stop_burner(spool)
        if action == "start" and not _is_warmed(spool, payload):
            start_burner(spool, str(payload["owner"]), number(payload, "seconds", 60))
    readings = sample(number(payload, "sample_s", 0.5), payload.get("gpus") or [])
    return burner_state(spool) | readings


def _is_warmed(spool: Spool, payload: Json) -> bool:
    """Whether the burner runs, or has done what this owner asks for: it may ask as often as it likes."""
    state, burner = burner_state(spool), last_burner(spool)
    if state["running"] or burner is None or burner["owner"] != str(payload["owner"]):
        return bool(state["running"])
    return "elapsed_s" in burner or bool(state["elapsed_s"] >= number(payload, "seconds", 60))


def verb_quiet(spool: Spool, payload: Json) -> Json:
    """Whether the host has rested and is back at its idle level."""
    owner = str(payload.get("owner"))
    with spool.guard():
        active = active_attempt(spool, holding(spool, owner))
    rested = rested_s(spool)
    answer: Json = {
        "quiet": False, "rested_s": rested, "timed_out": False, "busy": bool(active),
        "readings": {},
    }  # fmt: skip
    if active:
        return answer | {"why": "%s is being measured" % active}
    if burner_state(spool)["running"]:
        return answer | {"why": "the warm-up is running"}
    min_s, max_s = number(payload, "min_s", 0), number(payload, "max_s", math.inf)
    if rested < min_s:
        return answer | {"why": "rested %.0f of %.0f s" % (rested, min_s)}
    readings = sample(number(payload, "sample_s", 1.0), payload.get("gpus") or [])
    reasons = unrest(readings, payload.get("idle") or {}, payload.get("tolerance") or {})
    rested = rested_s(spool)
    return answer | {
        "quiet": not reasons, "rested_s": rested, "readings": readings, "why": "; ".join(reasons),
        "timed_out": bool(reasons) and rested >= max_s,
    }  # fmt: skip


def rested_s(spool: Spool) -> float:
    """Since the last window's or burner's end, s; before the first since the lease was taken."""
    lease = spool.lease()
    for mark in (_busy_until(spool), lease.get("taken") if lease else None):
        if mark and mark.get("boot") == boot_mark():
            return max(0.0, time.monotonic() - mark["mono_s"])
    return 0.0


def _busy_until(spool: Spool) -> Mark | None:
    try:
        return read_document(spool.path("busy.json"), Mark)
    except CorruptError:
        return None


def unrest(readings: Json, idle: Json, tolerance: Json) -> list[str]:
    """The readings above idle + tolerance; what either side does not know is passed over.

    ``gpu_temperature_c`` and ``gpu_power_w`` share the tolerances of their kind.
    """
    reasons = []
    for name, value in readings.items():
        kind = name[4:] if name.startswith("gpu_") else name
        if value is None or idle.get(name) is None or tolerance.get(kind) is None:
            continue
        if value > idle[name] + tolerance[kind]:
            words = (name, value, idle[name], tolerance[kind])
            reasons.append("%s is %.1f, idle is %.1f + %.1f" % words)
    return reasons
