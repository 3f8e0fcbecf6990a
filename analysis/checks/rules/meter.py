"""What the meters gave: energy at all, equal energy, of which parts of the machine, measured or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wattbench.analysis.checks.evidence import device_of, place, place_of_note
from wattbench.analysis.checks.facts import Campaign, HostFacts
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.model.devices import is_gpu
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Domain, Record

#: Domain → domains that it holds and that hold all else.
HOLDS: dict[str, tuple[str, ...]] = {
    "wall": ("board", "system"),
    "board": (),
    "system": (),
    "gpu": (),
}
#: Domain → what messages call it.
WHOLE = {
    "wall": "the whole machine at the wall", "board": "the whole board",
    "system": "the whole machine", "gpu": "all GPUs",
}  # fmt: skip

#: Two meters of a domain may differ by this share.
METERS_AGREE = 0.02

METER_SILENT = code(
    "meter-silent",
    Severity.ERROR,
    place=70,
    meaning="The meter gave no energy for the window.",
    why="A missing counter does not mean 0 J.",
    action="Run the meter by hand on the host; see docs/hosts.md for permissions.",
)

METER_DISAGREE = code(
    "meter-disagree",
    Severity.ERROR,
    place=80,
    shared=True,
    meaning="Two meters of the same domain disagree by more than 2 %, or a meter of the whole machine (or "
    "of all GPUs) reads less than the parts inside it.",
    why="At least one of them is wrong.",
    action="Compare units, sockets and intervals of both meters on the host.",
)

COUNTER_WRAP = code(
    "counter-wrap",
    Severity.INFO,
    place=150,
    meaning="A cumulative energy counter wrapped and was corrected.",
    why="Uncorrected, the trial's energy would be negative or lost.",
    action="Nothing to do; the correction and the counter's range are in the evidence.",
)

METER_SCOPE = code(
    "meter-scope",
    Severity.WARNING,
    place=230,
    shared=True,
    meaning="The meter covers only a part of the machine.",
    why="Energy moved to an unmetered part looks like a saving.",
    action="Say which domains are covered, or meter the others too.",
)

MODELLED_ENERGY = code(
    "modelled-energy",
    Severity.WARNING,
    place=310,
    shared=True,
    meaning="Joules come from a power model, not from a sensor.",
    why="They show that the measurement chain works, and nothing about real hardware.",
    action="Measure on a host with energy sensors before drawing conclusions.",
)


@check(
    METER_SILENT,
    fine="the meter gave energy",
    example=lambda r: replace(r, row=replace(r.row, energy_j=None)),
)
def meter_silent(record: Record) -> Outcomes:
    """No joules, or none that can be shown to be right."""
    status, energy = record.row.status, record.row.energy_j
    if status in ("missing", "skipped") or (status == "failed" and not record.row.raw):
        return  # a trial without a file is said to be missing or failed
    was_read = any(d.counted for d in record.domains)
    fatal = next(
        (n for n in record.notes if n.fatal and n.kind not in ("clock-step", "stale", "requests")),
        None,
    )
    stuck = [d.name for d in record.domains if d.counted and d.energy_j == 0]
    if fatal is not None:
        yield Found(fatal.message, place(record) | place_of_note(fatal))
    elif status == "failed" and was_read:
        return  # its meter is not why it has no energy
    elif energy is None:
        yield Found("no energy was computed for the window", place(record))
    elif energy <= 0:
        yield Found(f"the window's energy is {energy:g} J", place(record, energy_j=energy))
    elif stuck:
        yield Found(
            f"the counter of {', '.join(stuck)} does not move", place(record, domains=stuck)
        )


@check(
    METER_DISAGREE,
    fine="meters agree within 2 %",
    example=lambda r: replace(
        r,
        domains=(
            r.domains[0],
            replace(r.domains[0], meter="another", energy_j=1.1 * r.domains[0].energy_j),
        ),
    ),
)
def meter_disagree(record: Record) -> Outcomes:
    """Meters of one domain against each other."""
    compared = False
    for name, domains in _by_name(record).items():
        if len({d.meter for d in domains}) < 2:
            continue
        compared = True
        low, high = min(domains, key=lambda d: d.energy_j), max(domains, key=lambda d: d.energy_j)
        uncertainty_j = low.uncertainty_j + high.uncertainty_j
        apart_j = high.energy_j - low.energy_j
        if high.energy_j > 0 and apart_j > max(METERS_AGREE * high.energy_j, uncertainty_j):
            yield Found(
                f"{name}: {high.meter} {high.energy_j:.6g} J, {low.meter} {low.energy_j:.6g} J, "
                f"{100 * apart_j / high.energy_j:.1f} % apart",
                place(record, domain=name, joules={d.meter: d.energy_j for d in domains}),
            )
    for outer in record.domains:
        if inner := _inside(record, outer):
            compared = True
            yield from _less_than_its_parts(record, outer, inner)
    summary, aligned = record.log.get("summary_j"), record.log.get("aligned_j")
    if summary is not None and aligned:
        compared = True
        if abs(summary - aligned) > METERS_AGREE * abs(aligned):
            yield Found(
                f"the summary line says {summary:.6g} J, the samples of the same span {aligned:.6g} J",
                place(
                    record,
                    line=record.log.get("summary_line"),
                    summary_j=summary,
                    samples_j=aligned,
                ),
            )
    if not compared:
        yield Unknown("each domain has one meter")


def _inside(record: Record, outer: Domain) -> list[Domain]:
    """What lies inside a meter's domain, each by its counted meter, else by that of the fewest joules."""
    if outer.name not in HOLDS:
        return []
    by_name = _by_name(record)
    first = next((name for name in HOLDS[outer.name] if name in by_name), None)
    if first is not None:  # what holds the others
        return [_least(by_name[first])]
    gpus = [name for name in by_name if name.removeprefix("gpu").isdecimal() and "gpu" in name]
    names = gpus if outer.name == "gpu" else ["package", "dram", *(gpus or ["gpu"])]
    return [_least(by_name[name]) for name in names if name in by_name]


def _least(domains: Sequence[Domain]) -> Domain:
    return min(domains, key=lambda d: (not d.counted, d.energy_j))


def _less_than_its_parts(record: Record, outer: Domain, inner: Sequence[Domain]) -> Outcomes:
    """A meter of the whole machine against what lies inside: physics allows it no less."""
    parts_j = sum(d.energy_j for d in inner)
    doubt_j = outer.uncertainty_j + sum(d.uncertainty_j for d in inner)
    missing_j = parts_j - outer.energy_j
    if missing_j > max(METERS_AGREE * parts_j, doubt_j):
        names = " + ".join(d.name for d in inner)
        yield Found(
            f"{outer.meter} reads {outer.energy_j:.6g} J of {WHOLE[outer.name]}, {names} inside it "
            f"{parts_j:.6g} J",
            place(record, domain=outer.name, whole_j=outer.energy_j, parts_j=parts_j),
        )


def _by_name(record: Record) -> dict[str, list[Domain]]:
    domains: dict[str, list[Domain]] = {}
    for domain in record.domains:
        domains.setdefault(domain.name, []).append(domain)
    return domains


@check(
    COUNTER_WRAP,
    fine="no counter wrapped",
    example=lambda r: replace(
        r, row=replace(r.row, wraps=1), domains=(replace(r.domains[0], wraps=1),)
    ),
)
def counter_wrap(record: Record) -> Outcomes:
    """Counters that wrapped, and were corrected."""
    wrapped = [(d.name, d.wraps) for d in record.domains if d.wraps]
    if not wrapped and not record.row.wraps:
        return
    lines = {n.column or "": n.line for n in record.notes if n.kind == "wrap"}
    names = ", ".join(f"{name} {n}×" for name, n in wrapped) or f"{record.row.wraps}×"
    evidence = place(record, wraps=record.row.wraps, domains=[name for name, _ in wrapped])
    if lines:
        evidence |= {"line": next(iter(lines.values())), "columns": dict(lines)}
    yield Found(f"{names} wrapped; corrected", evidence)


@check(
    METER_SCOPE,
    fine="package and memory, and the GPU where used, are metered",
    example=lambda r: replace(r, row=replace(r.row, energy_scope="package")),
)
def meter_scope(record: Record) -> Outcomes:
    """Parts of the machine that the total leaves out."""
    scope = set((record.row.energy_scope or "").split("+")) - {""}
    if not scope or scope & {"system", "board", "wall"}:
        return
    lacking = []
    if "package" not in scope:
        lacking.append("CPU packages")
    wanted = record.expected.get("device") or device_of(record)
    if wanted and is_gpu(str(wanted)) and "gpu" not in scope:
        lacking.append("the GPU")
    if scope == {"package"}:
        lacking.append("memory")
    if lacking:
        yield Found(
            f"{'+'.join(sorted(scope))} is metered; not metered: {' and '.join(lacking)}",
            place(record, scope=sorted(scope), lacking=lacking),
        )


@campaign_check(
    METER_SCOPE,
    fine="no RAPL counter is known to be closed",
    example=lambda c: replace(
        c, facts=replace(c.facts, hosts={"h": HostFacts(zones={"intel-rapl:0": False})})
    ),
)
def closed_counters(campaign: Campaign) -> Outcomes:
    """RAPL counters of hosts that the agent may not read: the meter can't be compared with them."""
    for name, host in sorted(campaign.facts.hosts.items()):
        closed = sorted(zone for zone, readable in host.zones.items() if not readable)
        if closed:
            yield Found(
                f"{len(closed)} of {len(host.zones)} RAPL counters can't be read by the agent's user: "
                "the meter can't be compared with them, nor other sockets be seen",
                {"zones": closed, "fix": list(host.fixes)},
                subject=f"host {name}",
                action="; ".join(host.fixes),
            )


@check(
    MODELLED_ENERGY,
    fine="energy was measured",
    example=lambda r: replace(r, row=replace(r.row, energy_source="modelled")),
)
def modelled_energy(record: Record) -> Outcomes:
    """Joules of a model."""
    if record.row.energy_source == "modelled":
        yield Found("modelled, not measured", place(record))
