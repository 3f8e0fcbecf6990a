"""Sensors that stand still, and clocks that were slowed down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wattbench.analysis.checks.evidence import (
    GPU_USAGE,
    gpu_powers,
    increase,
    place,
    place_of_note,
    series,
)
from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.meters import registry as meters
from wattbench.analysis.meters.curves import COARSE_W, FROZEN_ROWS, WORKING_PCT
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Note, Record

#: Change of GPU utilisation under which power can't stand still, %, over more samples than these.
STALE_USAGE_PCT = 30.0
STALE_SAMPLES = 5

#: A virtual host's own counter beside those of heat: how often its cgroup's quota held it back.
QUOTA = "cpu_quota"

SENSOR_STALE = code(
    "sensor-stale",
    Severity.ERROR,
    place=100,
    meaning="A sensor repeated its last value although its device worked.",
    why="A failing power read looks like a steady load.",
    action="Check the driver's log and the sensor with nvidia-smi; use the energy counter instead.",
)

THROTTLED = code(
    "throttled",
    Severity.ERROR,
    place=120,
    meaning="A CPU or GPU was throttled inside the window.",
    why="Clocks below the set point change energy and time. A GPU's software power cap is a warning: the "
    "limit decides its joules, so it has to be the same in all trials.",
    action="Improve cooling, raise protocol.rest, or cap the clocks; enforce a power limit by `expect`.",
)


@check(
    SENSOR_STALE,
    fine="no sensor stood still under load",
    example=lambda r: replace(r, notes=(Note("stale", "120 W in 30 rows", 12, fatal=True),)),
)
def sensor_stale(record: Record) -> Outcomes:
    """A power value that stands still while the GPU works."""
    for note in record.notes:
        if note.kind == "stale":
            yield Found(
                note.message,
                place(record) | place_of_note(note),
                None if note.fatal else Severity.WARNING,
            )
    yield from _constant_power(record)


def _constant_power(record: Record) -> Outcomes:
    """A GPU's power that is one value in all of the window, although the GPU worked."""
    samples = record.row.samples or 0
    for power, usage in zip(gpu_powers(record), series(record, GPU_USAGE), strict=False):
        if power["min"] != power["max"]:
            continue
        value = place(record, power_w=power["max"])
        if usage["max"] - usage["min"] >= STALE_USAGE_PCT and samples > STALE_SAMPLES:
            yield Found(
                f"GPU power stays at {power['max']:g} W while utilisation moves between "
                f"{usage['min']:.0f} and {usage['max']:.0f} %",
                value,
            )
        elif power["max"] > 0 and usage["min"] >= WORKING_PCT and samples >= FROZEN_ROWS:
            # A sensor of coarse steps may repeat a value; one of mW does not.
            coarse = power["max"] % COARSE_W == 0.0
            yield Found(
                f"GPU power stays at {power['max']:g} W in {samples} samples while utilisation stays "
                f"between {usage['min']:.0f} and {usage['max']:.0f} %",
                value,
                Severity.WARNING if coarse else None,
            )


@campaign_check(
    SENSOR_STALE,
    fine="no column stands still",
    example=lambda c: Campaign(
        tuple(replace(r, log={"constant": ("CPU_FREQUENCY_0",)}) for r in c.records),
        replace(c.facts, imported=True),
    ),
)
def frozen_columns(campaign: Campaign) -> Outcomes:
    """Columns that never change in any file, although what they name does."""
    if not campaign.facts.imported:
        return
    sampled = [
        r
        for r in campaign.records
        if r.log.get("constant") is not None and (r.row.samples or 0) > 2
    ]
    sets = {r.log["constant"] for r in sampled}
    # A total is meant to stand still.
    frozen = (
        sorted(c for c in set.intersection(*map(set, sets)) if "TOTAL" not in c) if sets else []
    )
    if frozen:
        yield Found(
            f"constant within each of {len(sampled)} files: {', '.join(frozen[:8])}; "
            "they can't show throttling or load",
            place(sampled[0], columns=frozen, files=len(sampled)),
            Severity.INFO,
            action="Do not read these columns as measurements over time.",
        )


@check(
    THROTTLED,
    fine="no throttling",
    example=lambda r: replace(
        r,
        edges={
            "before": {**r.edges["before"], "throttle": {"core": 5}},
            "after": {**r.edges["after"], "throttle": {"core": 9}},
        },
    ),
)
def throttled(record: Record) -> Outcomes:
    """Throttle counters and reasons at the window's edges and inside it."""
    before = record.edges.get("before", {})
    counters = before.get("throttle") if isinstance(before, Mapping) else None
    events = {k: d for k in counters or {} if (d := increase(record, "throttle", k))}
    heat = ", ".join(f"{k} {d:.0f}×" for k, d in events.items() if k != QUOTA)
    if heat:
        yield Found(f"thermal throttling of the CPU: {heat}", place(record, events=events))
    if QUOTA in events:
        text = f"the host's CPU quota held it back {events[QUOTA]:.0f}×"
        yield Found(text, place(record, events=events))
    devices = meters.devices(record.edges, record.series)
    for device in devices:
        if device.slowed_by:
            yield Found(
                f"{device.name} reports slowed clocks: {', '.join(device.slowed_by)}",
                place(record, device=device.name, reasons=list(device.slowed_by)),
            )
        if device.power_capped:
            yield Found(
                f"the power limit held the clocks of {device.name} down",
                place(record, device=device.name, power_capped=True),
                Severity.WARNING,
            )
    known = {d.name for d in devices if d.slowed_by is not None}
    dark = sorted(
        {d.name for d in record.domains if d.name.startswith("gpu") and d.counted} - known
    )
    if not set(counters or ()) - {QUOTA} and not known:
        yield Unknown("no throttle counter; the meter's CPU frequency is read once and constant")
    elif dark:
        yield Unknown(f"the reasons of {', '.join(dark)} to throttle were not recorded")
