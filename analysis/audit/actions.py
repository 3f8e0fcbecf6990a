"""Recommended actions for findings of an imported campaign, whose trials cannot be cleared here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from wattbench.analysis.model.findings import Finding

#: Code → action, where the usual one is about a live run.
_ACTIONS = {
    "trial-failed": "Leave the run out, and say how many were left out; or measure it again.",
    "trial-missing": "Find the raw file, or say in the text that the run is left out and why.",
    "meter-silent": "Leave the run out; run the meter alone on that machine before more is measured.",
    "meter-disagree": "Find out which of the two is wrong before either is published.",
    "clock-skew": "Measure the run again with a disciplined clock, and one run at a time.",
    "sensor-stale": "Leave the sensor's domain out of the total, or measure again.",
    "container-orphaned": "Leave the run out, and the one after it: it may have been disturbed.",
    "throttled": "Leave the run out, or cap the clocks and measure again.",
    "host-busy": "Leave the run out, or measure it again on a machine that does nothing else.",
    "memory-pressure": "Say so beside the number, or measure again with enough free memory.",
    "pull-in-window": "Leave the run out; pull images before the first run.",
    "drift": "Compare runs of one session only, or measure again in randomised blocks.",
    "sampling-coarse": "Sample more often or measure for longer; don't interpret smaller differences.",
    "startup-in-window": "Say that start-up is part of the number, or measure it apart.",
}  # fmt: skip


def for_imports(findings: Iterable[Finding]) -> list[Finding]:
    """Findings with actions that whoever audits can take."""
    return [
        replace(f, action=_ACTIONS[f.code]) if not f.action and f.code in _ACTIONS else f
        for f in findings
    ]
