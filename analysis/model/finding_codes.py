"""Codes of findings: meaning, consequence, remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    FOUND = "found"
    NOT_FOUND = "not-found"
    UNDECIDABLE = "undecidable"


class Severity(StrEnum):
    """What a found finding does to its subject."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Code:
    """What a finding's code means.

    Attributes:
        severity: the usual severity; a check may lower or raise it with a reason in its evidence.
        meaning: one sentence, what was seen.
        why: why it matters for the energy numbers.
        action: what to do next.
    """

    severity: Severity
    meaning: str
    why: str
    action: str


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

#: Every code, in the order in which pages list them. Codes may be added; none is renamed.
CODES: dict[str, Code] = {
    "device-mismatch": Code(
        _E,
        "The workload ran on another device than the experiment asked for.",
        "The joules describe a different machine part; the paper's campaign measured the CPU this way.",
        "Make the device visible to the container (GPU request, driver, CUDA build) and run again.",
    ),
    "gpu-idle": Code(
        _E,
        "A GPU that should have worked stayed at its idle level.",
        "Its joules are idle joules; the work was done elsewhere or not at all.",
        "Check the device the workload reports, and the GPU the trial was given.",
    ),
    "unequal-work": Code(
        _E,
        "The images did not compute the same thing.",
        "Joules can be compared only for equal work: same input, weights, iterations and outputs.",
        "Compare weights' and inputs' SHA-256, iterations and fingerprints in the trials named.",
    ),
    "pull-in-window": Code(
        _E,
        "An image was pulled inside the measurement window.",
        "Download, decompression and disk work were counted as inference.",
        "Pull by digest before the first trial and start containers with --pull never.",
    ),
    "trial-failed": Code(
        _E,
        "A trial ended without a usable measurement.",
        "A mean over the trials that happened to work is biased.",
        "Read the trial's stderr.log and the reason beside it; clear the trial to measure it again.",
    ),
    "trial-missing": Code(
        _E,
        "A planned trial has no accepted attempt.",
        "Blocks are incomplete, and what went missing is rarely random.",
        "Clear the trial's task, or trigger the run again.",
    ),
    "meter-silent": Code(
        _E,
        "The meter gave no energy for the window.",
        "No counter is not 0 J.",
        "Run the meter by hand on the host; see docs/hosts.md for permissions.",
    ),
    "meter-disagree": Code(
        _E,
        "Two meters of the same domain disagree by more than 2 %.",
        "At least one of them is wrong.",
        "Compare units, sockets and intervals of both meters on the host.",
    ),
    "clock-skew": Code(
        _E,
        "A clock stepped inside the window, or the host's clock is off.",
        "Samples can't be assigned to the window.",
        "Let chrony or systemd-timesyncd discipline the host's clock.",
    ),
    "sensor-stale": Code(
        _E,
        "A sensor repeated its last value although the load changed.",
        "A failing power read looks like a steady load.",
        "Check the driver's log and the sensor with nvidia-smi; use the energy counter instead.",
    ),
    "container-orphaned": Code(
        _E,
        "A container ran on after its meter had ended, or was left by an earlier trial.",
        "Part of the work was not measured, and it disturbed what came after.",
        "Look at the meter's exit in the trial's record; left-over containers are removed at the next call.",
    ),
    "throttled": Code(
        _E,
        "A CPU or GPU was throttled inside the window.",
        "Clocks below the set point change energy and time.",
        "Improve cooling, raise protocol.rest, or cap the clocks.",
    ),
    "host-busy": Code(
        _E,
        "Something else used the host inside the window.",
        "Its joules were counted as the image's.",
        "Stop the other work or choose a quieter hour.",
    ),
    "memory-pressure": Code(
        _W,
        "The host swapped or was short of memory in the window.",
        "Paging costs energy that is not the image's.",
        "Free memory on the host or lower the resolution.",
    ),
    "counter-wrap": Code(
        _I,
        "A cumulative energy counter wrapped and was corrected.",
        "Uncorrected, the trial's energy would be negative or lost.",
        "Nothing to do; the correction and the counter's range are in the evidence.",
    ),
    "order-not-randomised": Code(
        _E,
        "Images were not measured in random order within blocks.",
        "Drift of the machine or the room can't be told from an effect of the image.",
        "Measure in randomised complete blocks.",
    ),
    "drift": Code(
        _W,
        "Energy drifts or steps with time.",
        "Unblocked comparisons take it for an effect of the image.",
        "Trust the blocked comparison; look for the cause at the position named.",
    ),
    "carry-over": Code(
        _W,
        "The trial executed before leaves an effect on the next one's energy.",
        "Images that often follow a costly one look costlier than they are.",
        "Lengthen protocol.rest, or set protocol.order: williams, which balances the preceding image.",
    ),
    "regression": Code(
        _E,
        "An image needs more energy than in earlier runs of the same host.",
        "A change of the image or of the host made the same work more expensive.",
        "Look at what changed on the night named: digest, driver, kernel; measure the old digest again.",
    ),
    "host-unsteady": Code(
        _E,
        "The host's control workload varies more from run to run than the limit allows.",
        "What the host says of images may be its own unrest: it is in quarantine.",
        "Look for other work, cooling and clock settings on the host before its numbers are used.",
    ),
    "host-setup": Code(
        _W,
        "The host is not set up for steady measurement.",
        "Clocks that follow the load, or sensors that are closed, move the joules of everything.",
        "Run the command beside it on the host; `wattbench host check` shows when it is mended.",
    ),
    "sampling-coarse": Code(
        _W,
        "Samples are too far apart for what is reported.",
        "The edges of a window or phase are uncertain by up to one interval.",
        "Lower meter.interval_ms or lengthen the window.",
    ),
    "duration-quantised": Code(
        _W,
        "Reported durations fall on the meter's sampling grid.",
        "They are the meter's, rounded up, not the workload's.",
        "Take durations from the workload's own markers.",
    ),
    "meter-scope": Code(
        _W,
        "The meter covers only a part of the machine.",
        "Energy moved to an unmetered part looks like a saving.",
        "Say which domains are covered, or meter the others too.",
    ),
    "image-unpinned": Code(
        _W,
        "An image was not resolved to one digest.",
        "A tag can move between trials and hosts.",
        "Pin the reference by digest.",
    ),
    "startup-in-window": Code(
        _W,
        "Start-up is a notable part of the window.",
        "Image size and import time are mixed with steady-state inference.",
        "Compare the phases: start-up and steady state are reported apart.",
    ),
    "workload-changed": Code(
        _E,
        "The workload or an image changed in mid-campaign.",
        "Trials before and after are not the same treatment.",
        "Split the campaign at the trial named.",
    ),
    "state-changed": Code(
        _W,
        "The platform's state differs between blocks.",
        "Driver, kernel, governor or memory in use change the energy of everything.",
        "Compare the facts named; measure again under one state.",
    ),
    "row-untraceable": Code(
        _E,
        "A derived row has no raw file or log line that supports it.",
        "A published number without a source can't be checked.",
        "Find the run it came from, or drop it.",
    ),
    "file-unread": Code(
        _W,
        "A file of the campaign could not be used, in whole or in part.",
        "What it holds is in no number of this page.",
        "Mend or remove the file named, or tell with a mapping file what it is.",
    ),
    "outlier": Code(
        _W,
        "A trial lies far from the others of its image.",
        "It is kept; rank statistics bear it, means don't.",
        "Look at the trial's power curve; the sensitivity row shows the verdict without it.",
    ),
    "modelled-energy": Code(
        _W,
        "Joules come from a power model, not from a sensor.",
        "They show that the machinery works and nothing about real hardware.",
        "Measure on a host with energy sensors before drawing conclusions.",
    ),
}
