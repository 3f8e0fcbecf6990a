"""Probes of one trial: each looks at one :class:`Record` and says found, could not tell, or nothing.

The same probes see live attempts and imported runs; what an import lacks makes a probe undecidable, never
fine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wattbench.analysis.checks.outcome import Found, Outcome, Unknown
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Domain, Record

#: Devices by family: a workload says ``cuda`` where people say ``gpu``.
GPU_DEVICES = frozenset({"cuda", "gpu", "rocm", "hip", "mps", "xpu"})

#: How a workload refuses to run where the device it was asked for is absent.
NO_DEVICE = re.compile(r"device \S+ is not there")

#: A GPU that works shows more than this utilisation at some sample, %.
IDLE_GPU_PCT = 5.0

#: Two meters of a domain may differ by this share.
METERS_AGREE = 0.02

#: Share of the window that its edges' doubt, or start-up, may have before it is said.
NOTABLE_EDGE = 0.01
NOTABLE_STARTUP = 0.05

#: A wall clock step inside a window, s.
CLOCK_STEP_S = 0.1

#: CPU time of others: from this many core-seconds on, as a share of one core.
FOREIGN_S, FOREIGN_SHARE, FOREIGN_NOTABLE = 2.0, 0.10, 0.02

#: CPU usage that shows work of others: in the first sample, and over an idle trial, %.
BUSY_AT_START_PCT, BUSY_IDLE_PCT = 50.0, 10.0

#: Change of GPU utilisation under which power can't stand still, %, over more samples than these.
STALE_USAGE_PCT = 30.0
STALE_SAMPLES = 5

#: Growth of used swap inside a window, bytes; and pages written to it.
SWAP_GROWTH = 32 * 1024 * 1024
SWAP_PAGES = 2560

#: Reasons of NVML that mean slower clocks: hardware slowdown, thermal (software, hardware), power brake.
GPU_THROTTLED = 0x08 | 0x20 | 0x40 | 0x80

#: A virtual host's own counter beside those of heat: how often its cgroup's quota held it back.
QUOTA = "cpu_quota"


@dataclass(frozen=True)
class TrialCheck:
    """A row of the table.

    Attributes:
        code: the finding's code.
        probe: looks at one record.
        kinds: kinds of trial it applies to.
        fine: what can be said when nothing is found.
    """

    code: str
    probe: Callable[[Record], Outcome]
    kinds: tuple[str, ...] = ("workload", "idle", "control")
    fine: str = ""


def place(record: Record, **more: Any) -> dict[str, Any]:
    """Evidence that leads to the trial's raw file, or to a line of its log.

    Of somebody else's file as a whole the line is 1, its header.
    """
    log, row = record.log, record.row
    if log.get("file") and ("line" in more or not row.raw):
        return {"file": log["file"], "line": log.get("line")} | more
    whole = {"line": 1} if row.planned_position is None else {}
    return ({"file": row.raw} | whole if row.raw else {}) | more


@functools.lru_cache(maxsize=4096)
def matching(pattern: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that match as a whole, whatever their case."""
    return tuple(n for n in names if re.fullmatch(pattern, n, re.IGNORECASE))


def series(record: Record, pattern: str) -> list[Mapping[str, float]]:
    """Courses of the columns whose name matches."""
    return [record.series[name] for name in matching(pattern, tuple(record.series))]


def gpu_usage(record: Record) -> float | None:
    """The highest GPU utilisation sampled, %; None if no GPU was metered."""
    courses = series(record, r"gpu\d*_(?:usage|util_pct)")
    return max((c["max"] for c in courses), default=None)


def device_of(record: Record) -> str | None:
    """The device that the workload reports, lower case without index."""
    told = record.work.device_actual or record.log.get("device") or record.row.device
    return str(told).lower().split(":")[0] if told else None


def _is_gpu(device: str) -> bool:
    return device.lower().split(":")[0] in GPU_DEVICES


def _delta(record: Record, group: str, key: str) -> float | None:
    """After minus before of a counter of the window's edges."""
    values = [record.edges.get(edge, {}).get(group, {}) for edge in ("before", "after")]
    if not all(isinstance(v, Mapping) and v.get(key) is not None for v in values):
        return None
    return float(values[1][key]) - float(values[0][key])


def trial_failed(record: Record) -> Outcome:
    """The attempt ended badly, its workload did not finish, or its file shows that it was cut."""
    evidence = place(record, state=record.state)
    if record.timing.get("boot_changed"):
        return Found("the host was rebooted inside the trial", evidence)
    if record.row.status == "failed" or record.state != "done":
        line = record.log.get("panic_line") or record.log.get("line")
        said = next((n for n in record.notes if n.message == record.row.reason), None)
        where = place(record, line=line) if line else place(record)
        if said is not None:
            where = {"file": record.row.raw} | _note_place(said)
        return Found(
            record.row.reason or f"the attempt ended as {record.state}", {**evidence, **where}
        )
    if record.work.errors:
        return Found(
            f"the workload reports: {record.work.errors[0]}",
            evidence | {"errors": list(record.work.errors)},
        )
    if record.work.finished is False:
        return Found("the workload's output ends before its last event", evidence)
    return None


def trial_missing(record: Record) -> Outcome:
    """A planned trial, or a start in a log, without a measurement."""
    if record.row.status != "missing" or record.log.get("derived"):
        return None  # a derived row is judged by whether it can be traced
    line = record.log.get("line")
    return Found(
        record.row.reason or "no accepted attempt", place(record, line=line) if line else {}
    )


def meter_silent(record: Record) -> Outcome:
    """No joules, or none that can be shown to be right."""
    if record.row.status in ("missing", "skipped") or (
        record.row.status == "failed" and not record.row.raw
    ):
        return None  # a trial without a file is said to be missing or failed
    fatal = next(
        (n for n in record.notes if n.fatal and n.kind not in ("clock-step", "stale")), None
    )
    if fatal is not None:
        return Found(fatal.message, place(record) | _note_place(fatal))
    energy = record.row.energy_j
    if energy is None:
        return Found("no energy was computed for the window", place(record))
    if energy <= 0:
        return Found(f"the window's energy is {energy:g} J", place(record, energy_j=energy))
    stuck = [d.name for d in record.domains if d.counted and d.energy_j == 0]
    if stuck:
        return Found(
            f"the counter of {', '.join(stuck)} does not move", place(record, domains=stuck)
        )
    return None


def _at_log(record: Record) -> dict[str, Any]:
    """The line of the log that tells of the trial."""
    return {"line": record.log["line"]} if record.log.get("file") else {}


def _note_place(note: Any) -> dict[str, Any]:
    return {k: v for k, v in (("line", note.line), ("column", note.column)) if v is not None}


def clock_skew(record: Record) -> Outcome:
    """A step of the wall clock inside the window."""
    notes = [n for n in record.notes if n.kind == "clock-step"]
    if notes:
        worst = next((n for n in notes if n.fatal), notes[0])
        severity = None if worst.fatal else Severity.WARNING
        return Found(
            worst.message, place(record) | _note_place(worst) | {"steps": len(notes)}, severity
        )
    step = record.timing.get("clock_step_s")
    if step is not None and abs(step) > CLOCK_STEP_S:
        return Found(
            f"the wall clock stepped by {step:+.3f} s inside the window",
            place(record, clock_step_s=step),
        )
    if step is None and not record.row.samples:
        return Unknown("no clock reading of the window")
    return None


def counter_wrap(record: Record) -> Outcome:
    """Counters that wrapped, and were corrected."""
    wrapped = [(d.name, d.wraps) for d in record.domains if d.wraps]
    if not wrapped and not record.row.wraps:
        return None
    lines = {n.column or "": n.line for n in record.notes if n.kind == "wrap"}
    return wraps_found(place(record), record.row.wraps, wrapped, lines)


def wraps_found(
    where: Mapping[str, Any],
    wraps: int | None,
    domains: Sequence[tuple[str, int]],
    lines: Mapping[str, int | None],
) -> Found:
    """What is said of wraps.

    Args:
        where: evidence that leads to the file.
        wraps: of all counters.
        domains: names and wraps of those that wrapped.
        lines: column → line of the first row after its last wrap.
    """
    names = ", ".join(f"{name} {n}×" for name, n in domains) or f"{wraps}×"
    evidence = {**where, "wraps": wraps, "domains": [name for name, _ in domains]}
    if lines:
        evidence |= {"line": next(iter(lines.values())), "columns": dict(lines)}
    return Found(f"{names} wrapped; corrected", evidence)


def device_mismatch(record: Record) -> Outcome:
    """Requested against reported device."""
    actual = device_of(record)
    wanted = record.expected.get("device") or record.work.device_requested
    if wanted is None:
        return _device_of_import(record, actual)
    if actual is None:
        refused = next((e for e in record.work.errors if NO_DEVICE.search(e)), None)
        if refused:
            return Found(f"the workload refused: {refused}", place(record, requested=wanted))
        if record.expected.get("reports_itself") is False:
            return _device_by_use(record, str(wanted))
        if record.row.status == "failed":
            return Unknown("the attempt ended before the workload told its device")
        return Found(
            f"the workload did not say which device it used; {wanted} was asked for",
            place(record, requested=wanted),
        )
    if _is_gpu(str(wanted)) != _is_gpu(actual):
        line = record.log.get("device_line")
        evidence = place(record, line=line) if line else place(record)
        return Found(
            f"{wanted} was asked for, the workload ran on {actual}",
            evidence | {"requested": wanted, "actual": actual},
        )
    return None


def _device_by_use(record: Record, wanted: str) -> Outcome:
    """Of a program that reports no device: what its container was given, and what the GPUs did."""
    requests = (record.container or {}).get("device_requests")
    if record.container is None:
        if _is_gpu(wanted) and gpu_usage(record) is not None:
            return None  # whether it was used, gpu-idle says
        return Unknown("neither the program nor a container shows which device was used")
    if _is_gpu(wanted) and not requests:
        return Found(
            f"{wanted} was asked for, the container was given no GPU",
            place(record, requested=wanted),
        )
    if not _is_gpu(wanted) and requests:
        return Found(
            f"{wanted} was asked for, the container was given a GPU",
            place(record, requested=wanted, device_requests=requests),
        )
    if _is_gpu(wanted) and gpu_usage(record) is None:
        return Unknown("the program reports no device and GPU utilisation was not sampled")
    return None


def _device_of_import(record: Record, actual: str | None) -> Outcome:
    """Nobody says what was intended: a metered GPU or a CUDA image speaks for a GPU."""
    if actual is None:
        return Unknown("the log does not say which device ran")
    if _is_gpu(actual):
        return None
    signs = []
    if any(d.name.startswith("gpu") for d in record.domains):
        signs.append("a GPU is metered")
    if record.log.get("cuda_image"):
        signs.append("the image is built for CUDA")
    if not signs:
        return None
    evidence = place(record, line=record.log.get("device_line"), actual=actual, signs=signs)
    return Found(f"the workload ran on {actual}, although {' and '.join(signs)}", evidence)


def gpu_idle(record: Record) -> Outcome:
    """A GPU that the trial was given, or that was metered, and that did nothing."""
    wanted = record.expected.get("device")
    if wanted is not None and not _is_gpu(str(wanted)):
        return None
    usage = gpu_usage(record)
    if usage is None:
        return Unknown("GPU utilisation was not sampled")
    if usage > IDLE_GPU_PCT:
        return None
    power = series(record, r"gpu\d*_power.*")
    watts = power[0]["mean"] if power else None
    text = f"GPU utilisation never exceeds {usage:.0f} %" + (
        f", mean power {watts:.1f} W" if watts is not None else ""
    )
    return Found(text, place(record, usage_max_pct=usage, mean_w=watts))


def unequal_work(record: Record) -> Outcome:
    """Work done against work asked for."""
    if record.row.status == "failed":
        return None
    if record.work.problems:
        return Found(record.work.problems[0], place(record, problems=list(record.work.problems)))
    for key in ("program", "precision"):
        asked, told = record.expected.get(key), getattr(record.work, key)
        if asked is not None and told is not None and asked != told:
            return Found(
                f"{key} {asked} was asked for, {told} is reported",
                place(record, asked=asked, reported=told),
            )
    passes = record.expected.get("passes")
    if not passes:
        return None
    done = {r.phase.removeprefix("steady:"): r.iterations for r in record.work.results}
    wanted = {str(p["resolution"]): int(p["iterations"]) for p in passes}
    odd = {
        name: {"asked": n, "done": done.get(name)}
        for name, n in wanted.items()
        if done.get(name) != n
    }
    if odd:
        name, both = next(iter(odd.items()))
        return Found(
            f"resolution {name}: {both['asked']} iterations asked for, {both['done'] or 'none'} reported",
            place(record, passes=odd),
        )
    return None


def pull_in_window(record: Record) -> Outcome:
    """Docker pulled the image after the measurement had begun."""
    lines = record.log.get("pull_lines")
    if not lines:
        return (
            None
            if record.log.get("file") or record.container or record.expected
            else Unknown("no log of this run")
        )
    layers = record.log.get("layers_downloaded", 0)
    return Found(
        f"{record.log.get('ref') or 'an image'} was pulled inside the window ({layers} layers downloaded)",
        place(
            record,
            line=lines[0],
            last_line=lines[1],
            layers_downloaded=layers,
            digest=record.row.digest,
        ),
    )


def startup_in_window(record: Record) -> Outcome:
    """Share of the window before the first steady phase."""
    duration = record.row.duration_s
    startup = record.row.startup_s
    if startup is None:
        worked = record.log.get("worked_s")
        startup = duration - worked if duration and worked else None
    if not duration or startup is None:
        return Unknown("the window is not split into phases")
    share = startup / duration
    if share <= NOTABLE_STARTUP:
        return None
    return Found(
        f"{startup:.1f} s of {duration:.1f} s ({100 * share:.1f} %) are not steady work",
        place(record, **_at_log(record), startup_s=startup, duration_s=duration, share=share),
    )


def sampling_coarse(record: Record) -> Outcome:
    """Doubt about the window's edges against its energy."""
    row, sampling = record.row, record.sampling
    if record.edges and row.energy_j and row.energy_uncertainty_j is not None:
        share = row.energy_uncertainty_j / row.energy_j
        if share <= NOTABLE_EDGE:
            return None
        return Found(
            f"the window's energy is known to ±{100 * share:.1f} %",
            place(record, uncertainty_j=row.energy_uncertainty_j, energy_j=row.energy_j),
        )
    if sampling is None or not sampling.interval_s or not row.duration_s:
        return Unknown("too few rows to tell the sampling interval")
    share = sampling.interval_s / row.duration_s
    if share <= NOTABLE_EDGE:
        return None
    return Found(
        f"a row every {sampling.interval_s:.3g} s in a window of {row.duration_s:.0f} s: "
        f"its end is known to {100 * share:.1f} %",
        place(record, interval_s=sampling.interval_s, duration_s=row.duration_s, share=share),
    )


def meter_scope(record: Record) -> Outcome:
    """Parts of the machine that the total leaves out."""
    scope = set((record.row.energy_scope or "").split("+")) - {""}
    if not scope or scope & {"system"}:
        return None
    lacking = []
    if "package" not in scope:
        lacking.append("CPU packages")
    wanted = record.expected.get("device") or device_of(record)
    if wanted and _is_gpu(str(wanted)) and "gpu" not in scope:
        lacking.append("the GPU")
    if scope == {"package"}:
        lacking.append("memory")
    if not lacking:
        return None
    return Found(
        f"{'+'.join(sorted(scope))} is metered; {' and '.join(lacking)} are not",
        place(record, scope=sorted(scope), lacking=lacking),
    )


def meter_disagree(record: Record) -> Outcome:
    """Meters of one domain against each other."""
    by_name: dict[str, list[Domain]] = {}
    for domain in record.domains:
        by_name.setdefault(domain.name, []).append(domain)
    compared = False
    for name, domains in by_name.items():
        if len({d.meter for d in domains}) < 2:
            continue
        compared = True
        low, high = min(domains, key=lambda d: d.energy_j), max(domains, key=lambda d: d.energy_j)
        doubt = low.uncertainty_j + high.uncertainty_j
        apart = high.energy_j - low.energy_j
        if high.energy_j > 0 and apart > METERS_AGREE * high.energy_j and apart > doubt:
            return Found(
                f"{name}: {high.meter} {high.energy_j:.6g} J, {low.meter} {low.energy_j:.6g} J, "
                f"{100 * apart / high.energy_j:.1f} % apart",
                place(record, domain=name, joules={d.meter: d.energy_j for d in domains}),
            )
    summary, aligned = record.log.get("summary_j"), record.log.get("aligned_j")
    if summary is not None and aligned:
        compared = True
        if abs(summary - aligned) > METERS_AGREE * abs(aligned):
            return Found(
                f"the summary line says {summary:.6g} J, the samples of the same span {aligned:.6g} J",
                place(
                    record,
                    line=record.log.get("summary_line"),
                    summary_j=summary,
                    samples_j=aligned,
                ),
            )
    return None if compared else Unknown("each domain has one meter")


def throttled(record: Record) -> Outcome:
    """Throttle counters and reasons at the window's edges."""
    before = record.edges.get("before", {})
    counters = before.get("throttle") if isinstance(before, Mapping) else None
    gpus = [g for e in ("before", "after") for g in record.edges.get(e, {}).get("nvml") or []]
    events = {k: d for k in counters or {} if (d := _delta(record, "throttle", k))}
    if events:
        heat = ", ".join(f"{k} {d:.0f}×" for k, d in events.items() if k != QUOTA)
        said = [f"thermal throttling of the CPU: {heat}"] if heat else []
        if QUOTA in events:
            said.append(f"the host's CPU quota held it back {events[QUOTA]:.0f}×")
        return Found("; ".join(said), place(record, events=events))
    masks = [int(c.get("any", c["max"])) for c in series(record, r"gpu\d*_throttle")]
    masks += [int(g["throttle"]) for g in gpus if g.get("throttle") is not None]
    slowed = [m for m in masks if m & GPU_THROTTLED]
    if slowed:
        return Found(
            f"the GPU reports slowed clocks (reasons {slowed[0]:#x})", place(record, reasons=slowed)
        )
    if not set(counters or ()) - {QUOTA} and not masks:
        return Unknown("no throttle counter; the meter's CPU frequency is read once and constant")
    return None


def host_busy(record: Record) -> Outcome:
    """CPU time of others, work already going on at the start, calls into the window."""
    calls = record.timing.get("connections_in_window")
    if calls:
        return Found(
            f"{calls} calls to the host inside the window",
            place(record, calls=calls),
            Severity.WARNING,
        )
    others = {
        str(g.get("uuid")): g["processes"]
        for g in record.edges.get("before", {}).get("nvml") or []
        if g.get("processes")
    }
    if others:
        gpu, count = next(iter(others.items()))
        return Found(
            f"{count} other processes computed on GPU {gpu} when the measurement began",
            place(record, gpu_processes=others),
        )
    duration = record.row.duration_s
    before, after = (record.edges.get(e, {}).get("cpu_busy_ns") for e in ("before", "after"))
    if before is not None and after is not None and duration:
        foreign = (after - before) / 1e9
        share = foreign / duration
        if foreign > FOREIGN_S and share > FOREIGN_NOTABLE:
            return Found(
                f"other processes used {foreign:.1f} s of CPU in {duration:.1f} s",
                place(record, foreign_cpu_s=foreign, share_of_a_core=share),
                None if share > FOREIGN_SHARE else Severity.WARNING,
            )
        return None
    usage = series(record, r"cpu_usage")
    if not usage:
        return Unknown("CPU time of other processes was not recorded")
    if usage[0]["first"] > BUSY_AT_START_PCT:
        return Found(
            f"the CPU was {usage[0]['first']:.0f} % busy when the measurement began",
            {"file": record.row.raw, "line": 2, "cpu_usage_pct": usage[0]["first"]},
        )
    if record.row.kind == "idle" and usage[0]["mean"] > BUSY_IDLE_PCT:
        return Found(
            f"mean CPU usage is {usage[0]['mean']:.0f} % in an idle trial",
            place(record, cpu_usage_pct=usage[0]["mean"]),
        )
    return (
        None
        if record.row.kind == "idle"
        else Unknown("CPU time of other processes was not recorded")
    )


def memory_pressure(record: Record) -> Outcome:
    """Swapping inside the window."""
    pages = _delta(record, "swap", "pswpout")
    if pages is not None and pages > SWAP_PAGES:
        return Found(
            f"{pages:.0f} pages were swapped out inside the window", place(record, pages_out=pages)
        )
    used = series(record, r"used_swap")
    if used:
        growth = used[0]["max"] - used[0]["first"]
        if growth > SWAP_GROWTH:
            return Found(
                f"used swap grows by {growth / 1e6:.0f} MB from {used[0]['first'] / 1e6:.0f} MB",
                place(
                    record, swap_first=used[0]["first"], swap_max=used[0]["max"], column="USED_SWAP"
                ),
            )
        return None
    return None if pages is not None else Unknown("swap was not recorded")


def sensor_stale(record: Record) -> Outcome:
    """A power value that stands still while the load changes."""
    notes = [n for n in record.notes if n.kind == "stale"]
    if notes:
        return Found(notes[0].message, place(record) | _note_place(notes[0]))
    for power, usage in zip(
        series(record, r"gpu\d*_power.*"),
        series(record, r"gpu\d*_(?:usage|util_pct)"),
        strict=False,
    ):
        if (
            power["min"] == power["max"]
            and usage["max"] - usage["min"] >= STALE_USAGE_PCT
            and (record.row.samples or 0) > STALE_SAMPLES
        ):
            return Found(
                f"GPU power stays at {power['max']:g} W while utilisation moves between "
                f"{usage['min']:.0f} and {usage['max']:.0f} %",
                place(record, power_w=power["max"]),
            )
    return None


def container_orphaned(record: Record) -> Outcome:
    """The work went on after the meter had ended."""
    if record.meter.get("outlived"):
        what = "container" if record.container else "workload"
        return Found(f"the {what} was still running when the meter had ended", place(record))
    log = record.log
    if log.get("after_panic"):
        lines = log["after_panic"]
        return Found(
            f"the workload printed {len(lines)} lines after the meter's panic",
            place(record, line=lines[0], panic_line=log.get("panic_line"), lines=list(lines)),
        )
    worked, duration = log.get("worked_s"), record.row.duration_s
    interval = (record.sampling.interval_s if record.sampling else None) or 0.0
    if worked and duration is not None and worked > duration + interval + 1:
        return Found(
            f"the workload says {worked:.0f} s of work, the meter's file covers {duration:.0f} s",
            place(record, line=log.get("line"), worked_s=worked, metered_s=duration),
        )
    if not record.meter and not log.get("file"):
        return Unknown("nothing is known of the meter's end")
    return None


def modelled_energy(record: Record) -> Outcome:
    """Joules of a model."""
    if record.row.energy_source != "modelled":
        return None
    return Found("modelled, not measured", place(record))


def part_unread(record: Record) -> Outcome:
    """Lines and cells of the raw file that could not be used."""
    notes = [
        n for n in record.notes if n.kind in ("bad-row", "bad-cell", "repeated-row") and not n.fatal
    ]
    if not notes:
        return None
    first = notes[0]
    at = f"line {first.line}: " if first.line else ""
    more = f"; {len(notes) - 1} more" if len(notes) > 1 else ""
    return Found(
        f"{at}{first.column + ': ' if first.column else ''}{first.message}{more}",
        place(record) | _note_place(first) | {"notes": [n.message for n in notes[:20]]},
    )


_WORK = ("workload",)

#: The table. Order is that of pages; several rows of one code add up.
TRIAL_CHECKS: tuple[TrialCheck, ...] = (
    TrialCheck("device-mismatch", device_mismatch, _WORK, "the device is the one asked for"),
    TrialCheck("gpu-idle", gpu_idle, _WORK, "no GPU stayed idle that should have worked"),
    TrialCheck("unequal-work", unequal_work, _WORK, "the work done is the work asked for"),
    TrialCheck("pull-in-window", pull_in_window, fine="no pull inside a window"),
    TrialCheck("trial-failed", trial_failed, fine="the attempt ended well"),
    TrialCheck("trial-missing", trial_missing, fine="every trial was executed"),
    TrialCheck("meter-silent", meter_silent, fine="the meter gave energy"),
    TrialCheck("meter-disagree", meter_disagree, fine="meters agree within 2 %"),
    TrialCheck("clock-skew", clock_skew, fine="no step of the clock"),
    TrialCheck("sensor-stale", sensor_stale, fine="no sensor stood still under changing load"),
    TrialCheck("container-orphaned", container_orphaned, fine="nothing outlived its meter"),
    TrialCheck("throttled", throttled, fine="no throttling"),
    TrialCheck("host-busy", host_busy, fine="nothing else used the host"),
    TrialCheck("memory-pressure", memory_pressure, fine="no swapping"),
    TrialCheck("counter-wrap", counter_wrap, fine="no counter wrapped"),
    TrialCheck("sampling-coarse", sampling_coarse, fine="edges are known to 1 %"),
    TrialCheck(
        "meter-scope", meter_scope, fine="package and memory, and the GPU where used, are metered"
    ),
    TrialCheck(
        "startup-in-window", startup_in_window, _WORK, "start-up is under 5 % of the window"
    ),
    TrialCheck("file-unread", part_unread, fine="every line of the raw files could be used"),
    TrialCheck("modelled-energy", modelled_energy, fine="energy was measured"),
)
