"""What else went on at the host, how it was set up, and whether its state changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from wattbench.analysis.checks.evidence import increase, place, series
from wattbench.analysis.checks.facts import Campaign, HostFacts, Problem
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.checks.rules.clock import CLOCK_SKEW
from wattbench.analysis.checks.selections import grouped, host_of, in_time
from wattbench.analysis.meters import registry as meters
from wattbench.analysis.model.finding_codes import Code, Severity
from wattbench.analysis.model.machine_state import (
    State,
    Value,
    beside_facts,
    differs,
    moves_energy,
    shown_change,
    state_of,
)
from wattbench.analysis.model.records import Record

#: CPU time of others: from this many core-seconds on, as a share of one core.
FOREIGN_S, FOREIGN_SHARE, FOREIGN_NOTABLE = 2.0, 0.10, 0.02

#: The same share for a controller on the measured host: it is in every window alike.
CONTROLLER_SHARE = 0.50

#: CPU usage that shows work of others: in the first sample, and over an idle trial, %.
BUSY_AT_START_PCT, BUSY_IDLE_PCT = 50.0, 10.0

#: Growth of used swap inside a window, bytes; and pages written to it.
SWAP_GROWTH = 32 * 1024 * 1024
SWAP_PAGES = 2560

#: Readings of a file that show the platform's state: gauge → what it is, share of change.
STATES = {
    "total_memory": ("memory seen by the kernel", 0.0),
    "cpu_frequency": ("CPU frequency at the start", 0.15),
    r"gpu\d*_memory_used": ("GPU memory in use at the start", 0.10),
    "used_memory": ("memory in use at the start", 0.40),
}

#: Texts of the platform's state that are settings of the machine by another name.
_AS_SETTING = {"governor": "cpu.governor", "driver": "gpu.driver", "kernel": "kernel.release"}

HOST_BUSY = code(
    "host-busy",
    Severity.ERROR,
    place=130,
    meaning="Something else used the host inside the window.",
    why="Its joules were counted as the image's.",
    action="Stop the other work, or measure when the host is idle.",
)

MEMORY_PRESSURE = code(
    "memory-pressure",
    Severity.WARNING,
    place=140,
    shared=True,
    meaning="The host swapped or was short of memory in the window.",
    why="Paging costs energy that is not the image's.",
    action="Free memory on the host or lower the resolution.",
)

HOST_UNSTEADY = code(
    "host-unsteady",
    Severity.ERROR,
    place=190,
    meaning="The host's control workload varies more from run to run than the limit allows.",
    why="Differences between images may come from the host itself: it is in quarantine.",
    action="Check the host for other work, cooling and clock settings before its results are used.",
)

HOST_SETUP = code(
    "host-setup",
    Severity.WARNING,
    place=200,
    meaning="The host is not set up for steady measurement.",
    why="Clocks that follow the load, or sensors that cannot be read, change the joules of all images.",
    action="Run the command beside it on the host; `wattbench host check` shows when it is resolved.",
)

STATE_CHANGED = code(
    "state-changed",
    Severity.WARNING,
    place=270,
    meaning="The platform's state differs between blocks, or changed inside a window.",
    why="Power caps, clocks, ECC, driver, kernel or memory in use change the energy of all images.",
    action="Compare the facts named; measure again under one state. `expect` in hosts.yaml enforces it.",
)


# ---------------------------------------------------------------------------------- inside a window


@check(
    HOST_BUSY,
    fine="nothing else used the host",
    example=lambda r: replace(
        r, edges={**r.edges, "after": {**r.edges["after"], "cpu_busy_ns": 20 * 10**9}}
    ),
)
def host_busy(record: Record) -> Outcomes:
    """CPU time of others, work already going on at the start, calls into the window."""
    calls = record.timing.get("connections_in_window")
    if calls:
        text = f"{calls} calls to the host inside the window"
        yield Found(text, place(record, calls=calls), Severity.WARNING)
    yield from _foreign_on_gpus(record)
    yield from _foreign_cpu(record)


def _processes(count: int, which: str = "") -> str:
    return f"{count} {which}process{'' if count == 1 else 'es'}"


def _foreign_on_gpus(record: Record) -> Outcomes:
    """Processes of others on the trial's GPUs before, inside and after the window."""
    devices = meters.devices(record.edges, record.series)
    others = {d.identity or d.name: d.other_processes for d in devices if d.other_processes}
    for gpu, count in others.items():
        yield Found(
            f"{_processes(count, 'other ')} computed on GPU {gpu} when the measurement began",
            place(record, gpu_processes=others),
        )
    for device in devices:
        gpu = device.identity or device.name
        if device.foreign_inside:
            yield Found(
                f"{_processes(device.foreign_inside, 'other ')} computed on GPU {gpu} inside the window",
                place(record, device=gpu, foreign_inside=device.foreign_inside),
            )
        elif device.foreign_after and not device.other_processes:
            yield Found(
                f"{_processes(device.foreign_after)} on GPU {gpu} after the window",
                place(record, device=gpu, foreign_after=device.foreign_after),
                Severity.WARNING,
            )


def _foreign_cpu(record: Record) -> Outcomes:
    """CPU time of others between the edges, or, without it, the usage that the meter sampled."""
    duration = record.row.duration_s
    edges = [record.edges.get(edge, {}) for edge in ("before", "after")]
    before, after = (edge.get("cpu_busy_ns") for edge in edges)
    if before is not None and after is not None and duration:
        foreign_s = (after - before) / 1e9
        yield from _busy(record, duration, "other processes", foreign_s, FOREIGN_SHARE)
        first, last = (edge.get("controller_cpu_ns") or 0 for edge in edges)
        who = "the controller, which runs on this host,"
        yield from _busy(record, duration, who, (last - first) / 1e9, CONTROLLER_SHARE)
        return
    usage = series(record, r"cpu_usage")
    if usage and usage[0]["first"] > BUSY_AT_START_PCT:
        yield Found(
            f"the CPU was {usage[0]['first']:.0f} % busy when the measurement began",
            record.row.raw_place(2) | {"cpu_usage_pct": usage[0]["first"]},
        )
    if usage and record.row.kind == "idle":
        if usage[0]["mean"] > BUSY_IDLE_PCT:
            yield Found(
                f"mean CPU usage is {usage[0]['mean']:.0f} % in an idle trial",
                place(record, cpu_usage_pct=usage[0]["mean"]),
            )
    else:
        yield Unknown("CPU time of other processes was not recorded")


def _busy(
    record: Record, duration_s: float, who: str, used_s: float, share_limit: float
) -> Outcomes:
    share = used_s / duration_s
    if used_s > FOREIGN_S and share > FOREIGN_NOTABLE:
        yield Found(
            f"{who} used {used_s:.1f} s of CPU in {duration_s:.1f} s",
            place(record, foreign_cpu_s=used_s, share_of_a_core=share),
            None if share > share_limit else Severity.WARNING,
        )


@check(
    MEMORY_PRESSURE,
    fine="no swapping",
    example=lambda r: replace(
        r,
        edges={**r.edges, "after": {**r.edges["after"], "swap": {"pswpin": 1, "pswpout": 90_000}}},
    ),
)
def memory_pressure(record: Record) -> Outcomes:
    """Swapping inside the window."""
    pages = increase(record, "swap", "pswpout")
    if pages is not None and pages > SWAP_PAGES:
        yield Found(
            f"{pages:.0f} pages were swapped out inside the window", place(record, pages_out=pages)
        )
    used = series(record, r"used_swap")
    if used:
        growth = used[0]["max"] - used[0]["first"]
        if growth > SWAP_GROWTH:
            shown = record.row.raw_place(int(used[0]["max_line"])) if "max_line" in used[0] else {}
            yield Found(
                f"used swap grows by {growth / 1e6:.0f} MB from {used[0]['first'] / 1e6:.0f} MB",
                place(
                    record, swap_first=used[0]["first"], swap_max=used[0]["max"], column="USED_SWAP"
                )
                | shown,
            )
    elif pages is None:
        yield Unknown("swap was not recorded")


@check(
    STATE_CHANGED,
    fine="the machine's settings did not change inside a window",
    example=lambda r: replace(
        r,
        edges={
            "before": {**r.edges["before"], "machine": {"kernel.thp": "never"}},
            "after": {**r.edges["after"], "machine": {"kernel.thp": "always"}},
        },
    ),
)
def settings_changed(record: Record) -> Outcomes:
    """The machine's settings at both edges of the window."""
    before, after = (state_of(record.edges.get(edge) or {}) for edge in ("before", "after"))
    for key, old, new in _setting_changes(before, after):
        yield Found(
            f"{key} changes inside the window {shown_change(old, new)}",
            place(record, what=key, before=old, after=new),
            _severity(key),
        )


def _setting_changes(
    before: State, after: State
) -> Iterator[tuple[str, Value | None, Value | None]]:
    """Settings that are not the same in two states; in one that reports nothing, nothing changed."""
    for key in dict.fromkeys([*before, *after]) if before and after else ():
        old, new = before.get(key), after.get(key)
        if differs(old, new):
            yield key, old, new


def _severity(key: str) -> Severity | None:
    return Severity.ERROR if moves_energy(key) else None


# --------------------------------------------------------------------------- between the trials


@campaign_check(
    STATE_CHANGED,
    fine="the platform's state did not change",
    example=lambda c: replace(
        c,
        records=tuple(
            replace(r, timing={**r.timing, "boot": f"boot {i}"}) for i, r in enumerate(c.records)
        ),
    ),
)
def state_changed(campaign: Campaign) -> Outcomes:
    """The platform's state at the starts of the trials: boot, kernel, driver, governor, memory."""
    hosts = grouped(in_time(campaign.records), host_of)
    known = False
    for host, records in hosts.items():
        subject = f"host {host}" if host else None
        texts = _texts(campaign.facts.hosts.get(host, HostFacts()), records)
        known = known or any(len(values) > 1 for values in texts.values())
        for what, values in texts.items():
            yield from _text_changes(what, values, subject)
        states = [(r, state_of(r.edges.get("before") or {})) for r in records]
        states = [(record, state) for record, state in states if state]
        known = known or len(states) > 1
        yield from _states_apart(campaign.facts.hosts.get(host, HostFacts()), states, subject)
        for pattern, (what, share) in STATES.items():
            levels = [(r, s[0]["first"]) for r in records if (s := series(r, pattern))]
            known = known or len(levels) > 1
            yield from _level_changes(what, levels, share, subject)
    if not known:
        yield Unknown("no reading of the platform's state comes with the trials")


def _texts(
    host: HostFacts, records: Sequence[Record]
) -> dict[str, list[tuple[Record | None, str]]]:
    """What is known of boot, kernel, governor and driver, at the host's check and at each trial."""
    texts: dict[str, list[tuple[Record | None, str]]] = {
        what: [(None, value)] for what, value in host.state.items()
    }
    for record in records:
        before = record.edges.get("before") or {}
        drivers = {d.driver for d in meters.devices(record.edges, record.series) if d.driver}
        at_start = {
            "boot": record.timing.get("boot"),
            "kernel": before.get("kernel"),
            "governor": before.get("governor"),
            "driver": "/".join(sorted(drivers)),
        }
        for what, value in at_start.items():
            if value:
                texts.setdefault(what, []).append((record, str(value)))
    return texts


def _text_changes(
    what: str, values: Sequence[tuple[Record | None, str]], subject: str | None
) -> Outcomes:
    changes = [
        (record, old, new)
        for (_, old), (record, new) in itertools.pairwise(values)
        if record is not None and old != new
    ]
    if not changes:
        return
    first, old, new = changes[0]
    assert first is not None  # only the host's check has no record, and nothing is before it
    evidence = place(first, what=what, changes=[r.subject for r, _, _ in changes if r is not None])
    if what == "boot":
        text = f"the host was booted again before {first.subject}"
        if len(changes) > 1:
            text = f"the host was booted {len(changes)} times; first before {first.subject}"
    else:
        text = f"{what} changes from {old} to {new} at {first.subject}"
    yield Found(text, evidence, _severity(_AS_SETTING.get(what, what)), subject)


def _states_apart(
    host: HostFacts, states: Sequence[tuple[Record, State]], subject: str | None
) -> Outcomes:
    """Settings that differ from one trial's start to the next, or from the host's check to the first."""
    changes: dict[str, list[tuple[Record, Value | None, Value | None]]] = {}
    last = beside_facts(host.machine)
    for record, state in states:
        now = beside_facts(state)
        for key, old, new in _setting_changes(last, now):
            changes.setdefault(key, []).append((record, old, new))
        last = now
    for key, found in changes.items():
        first, old, new = found[0]
        more = f", the first of {len(found)} changes" if len(found) > 1 else ""
        yield Found(
            f"{key} changes {shown_change(old, new)} at {first.subject}{more}",
            place(first, what=key, changes=[record.subject for record, _, _ in found]),
            _severity(key),
            subject,
        )


def _level_changes(
    what: str, values: Sequence[tuple[Record, float]], share: float, subject: str | None
) -> Outcomes:
    levels = _levels(values, share) if len(values) > 1 else []
    if len(levels) > 1:
        yield Found(
            f"{what} differs between stretches of the campaign: "
            + ", ".join(f"{level:.15g}" for level, _ in levels[:6]),
            {
                "what": what,
                "levels": [
                    {"value": level, "from": r.row.started_at} | r.row.raw_place(2)
                    for level, r in levels[:20]
                ],
            }
            | levels[1][1].row.raw_place(2),
            subject=subject,
        )


def _levels(values: Sequence[tuple[Record, float]], share: float) -> list[tuple[float, Record]]:
    """Stretches of equal level: a new one begins where two in a row differ by more than the share."""
    levels = [(values[0][1], values[0][0])]
    if all(value == levels[0][0] for _, value in values):
        return levels
    for (record, value), (_, after) in itertools.zip_longest(
        values[1:], values[2:], fillvalue=values[-1]
    ):
        level = levels[-1][0]
        if abs(value - level) > share * abs(level) and abs(after - level) > share * abs(level):
            levels.append((value, record))
    return levels


# ------------------------------------------------------------------- found before the first trial

#: Soft problems that a host's check can find, by the finding that each becomes.
PROBLEMS = {
    "clock-skew": "clock-skew", "clock": "clock-skew", "host-busy": "host-busy",
    "foreign-containers": "host-busy", "gpu-busy": "host-busy", "host-unsteady": "host-unsteady",
    "sensors": "meter-scope", "governor": "host-setup", "turbo": "host-setup",
    "throttling": "host-setup", "not-steady": "host-setup", "container-settings": "host-setup",
}  # fmt: skip


def _with_problem(name: str) -> Callable[[Campaign], Campaign]:
    """An example: a host whose check found a soft problem of this code."""
    host = HostFacts(problems=(Problem(name, "soft", "as found by the check"),))
    return lambda c: replace(c, facts=replace(c.facts, hosts={"h": host}))


def _noted(of: Code, fine: str, problem: str) -> None:
    """Declare the check of what the hosts' checks found before the first trial."""

    @campaign_check(of, fine=fine, example=_with_problem(problem), live=True)
    def noted(campaign: Campaign) -> Outcomes:
        for host, facts in campaign.facts.hosts.items():
            for problem in facts.problems:
                becomes = PROBLEMS.get(problem.code)
                if problem.severity == "soft" and of.name == (becomes or HOST_SETUP.name):
                    kind = "" if becomes else f"{problem.code} (a problem that is not known here): "
                    yield Found(
                        kind + problem.message,
                        {"problem": problem.code},
                        None if of is HOST_UNSTEADY else Severity.WARNING,
                        f"host {host}",
                        problem.action,
                    )


_noted(HOST_UNSTEADY, "no host is in quarantine", "host-unsteady")
_noted(HOST_SETUP, "hosts are set up for steady work", "governor")
_noted(HOST_BUSY, "no host was busy before the run", "gpu-busy")
_noted(CLOCK_SKEW, "hosts' clocks agree with ours", "clock")
