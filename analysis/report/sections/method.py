"""How the run was measured: protocol, hosts, images, versions, and trials that were lost."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from wattbench.analysis.model import host_facts
from wattbench.analysis.model.experiment_document import IdleDocument, LoadDocument, SloDocument
from wattbench.analysis.model.run_document import HostDocument, WarmUpDocument
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study, digests, versions
from wattbench.analysis.report.tables import valid_work
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.endpoints import endpoint_text

#: The endpoint of programs.
WHOLE_WINDOW = "raw joules of the whole window"


@section
class Method(Section):
    """How it was measured."""

    name = "method"
    title = "How it was measured"
    place = 70
    template = "method.html.j2"

    def context(self, study: Study) -> Mapping[str, object]:
        """Everything that was laid down or found before the first trial."""
        data = study.data
        return {
            "facts": facts_of_hosts(data),
            "settings": settings_of_hosts(data),
            "problems": problems(data),
            "protocol": protocol(data),
            "versions": versions(data),
            "digests": digests(data),
            "lost": lost(data),
        }


def facts_of_hosts(data: RunData) -> list[tuple[str, list[str]]]:
    """One row per fact, one cell per host; facts that no host has are left out."""
    known = [host_facts.shown(data.facts(host)) | _of_the_run(data, host) for host in data.hosts]
    labels = dict.fromkeys(label for host in known for label in host)
    return [(label, [host.get(label, "unknown") for host in known]) for label in labels]


def settings_of_hosts(data: RunData) -> list[tuple[str, list[str]]]:
    """One row per setting of the machines, one cell per host."""
    known = [host_facts.settings_shown(data.facts(host)) for host in data.hosts]
    keys = sorted({key for host in known for key in host})
    return [(key, [host.get(key, "not reported") for host in known]) for key in keys]


def _of_the_run(data: RunData, host: str) -> dict[str, str]:
    """What the run itself recorded of a host: meter, domains, warm-up, clock."""
    entry = data.host(host)
    meter = entry.get("config", {}).get("meter") or {}
    every = f", every {meter['interval_ms']} ms" if meter.get("interval_ms") else ""
    trials = data.trials
    scopes = trials.loc[(trials["host"] == host) & trials["energy_scope"].notna(), "energy_scope"]
    warm_up, offset_s = entry.get("warm_up"), entry.get("clock_offset_s")
    found = {
        "meter": f"{meter['kind']}{every}" if meter.get("kind") else "",
        "compared with": _further_meters(entry),
        "energy covers": ", ".join(sorted(set(scopes))),
        "warm-up": _warm_up(warm_up),
        "warm-up of the GPUs": _warm_up(warm_up.get("gpus") if warm_up else None),
        "clock": "" if offset_s is None else host_facts.clock(offset_s),
    }
    return {label: value for label, value in found.items() if value}


def _warm_up(found: WarmUpDocument | None) -> str:
    return f"{found['elapsed_s']:.0f} s, {found['why']}" if found else ""


def _further_meters(entry: HostDocument) -> str:
    """The host's meters beside its primary one."""
    config = entry.get("config", {})
    primary = config.get("meter")
    others = [m for m in config.get("meters", ()) if m != primary]
    return ", ".join(
        f"{m.get('name') or m.get('kind')} ({m['domain']})"
        if m.get("domain")
        else str(m.get("kind"))
        for m in others
    )


def problems(data: RunData) -> list[tuple[str, str, str]]:
    """(host, message, action) of what ``check`` noted, and of hosts that never passed it."""
    rows = []
    for host in data.hosts:
        entry = data.host(host)
        rows += [(host, p["message"], p.get("action") or "") for p in entry.get("problems", ())]
        if not entry.get("facts"):
            rows.append((host, entry.get("reason") or "the host reported no facts", ""))
    return rows


def protocol(data: RunData) -> list[tuple[str, str]]:
    """What was laid down before the first trial."""
    experiment = data.experiment
    work = experiment.get("workload") or {}
    plan = experiment.get("protocol") or {}
    rest, idle = plan.get("rest") or {}, plan.get("idle_baseline") or IdleDocument()
    settings = data.settings
    command = work.get("command")
    unit, same = work.get("unit") or {}, work.get("same_work") or {}
    passes = ", ".join(
        f"{p['resolution']} px × {p['iterations']}" for p in work.get("passes") or ()
    )
    blocks = plan.get("blocks")
    if isinstance(blocks, dict):
        span = f"{blocks.get('min')} to {blocks.get('max')}"
        many = f"{span}, until ±{blocks.get('precision_pct')} %"
    else:
        many = str(blocks or "")
    rows = [
        ("workload", ", ".join(str(v) for v in (work.get("program"), work.get("framework"),
                                                work.get("precision"), experiment.get("device")) if v)),
        ("command", " ".join(map(str, command)) if command else ""),
        ("unit of work", str(unit.get("name") or "")),
        ("equal work", f"lines that match {same['pattern']!r}" if same.get("pattern") else ""),
        ("passes", passes),
        ("blocks", many),
        ("order", "every block holds every image once, shuffled per host and block"),
        ("seed", str(data.document.get("seed") or "")),
        ("rest", f"{rest.get('min_s')} to {rest.get('max_s')} s, until quiet" if rest else ""),
        ("idle baseline", _idle(idle)),
        ("reference", str(settings.reference or "")),
        ("load", _load(work.get("load") or LoadDocument())),
        ("load from", "; ".join(_load_hosts(data))),
        (
            "primary endpoint",
            f"log of the {endpoint_text(settings.endpoint, valid_work(data)) or WHOLE_WINDOW}, compared "
            "inside blocks",
        ),
        ("error rate", f"α = {settings.alpha:g} over all pairs ({settings.correction.capitalize()})"),
        ("equivalence", f"±{settings.equivalence_pct:g} % energy"),
    ]  # fmt: skip
    return [(label, value) for label, value in rows if value]


def _idle(idle: IdleDocument) -> str:
    """Length and frequency of idle trials, and what was loaded in them."""
    if not idle:
        return ""
    per_host = "idle host, no container" if idle.get("per") == "host" else "idle container"
    words = {"loaded": "idle, framework loaded", "container": per_host}
    states = idle.get("state")
    if isinstance(states, list):
        both = " and ".join(words[state] for state in states)
        known = f" ({both}; above idle: above the {words[states[0]]})"
    else:
        known = f" ({words.get(states, per_host)})" if states is not None else ""
    return f"{idle.get('seconds')} s, every {idle.get('every_blocks')} blocks{known}"


def _load(load: LoadDocument) -> str:
    """Steps of the load on a server, and what it must keep."""
    said = []
    for step in load.get("steps", ()):
        if rate_per_s := step.get("rate_per_s"):
            arrivals = step.get("arrivals") or "poisson"
            said.append(f"{rate_per_s:g}/s for {step.get('seconds')} s ({arrivals})")
        else:
            said.append(f"{step.get('requests')} requests, {step.get('concurrency')} at a time")
    slo = load.get("slo") or SloDocument()
    wanted = (("p99", slo.get("p99_ms"), "ms"), ("errors", slo.get("max_error_pct"), "%"))
    limits = [f"{name} {value:g} {unit}" for name, value, unit in wanted if value is not None]
    api = f"{load['api']}: " if load.get("api") else ""
    return (api + "; ".join(said) + (f"; SLO {', '.join(limits)}" if limits else "")).strip("; ")


def _load_hosts(data: RunData) -> list[str]:
    """Other hosts that loads came from: where they reached the server, and what is known of their clocks."""
    found = []
    for host in data.hosts:
        load = data.host(host).get("load")
        if not load or "host" not in load:
            continue
        clocks = [
            clock
            for record in data.accepted
            if record.row.host == host and (clock := record.timing.get("load_clock"))
        ]
        ports = ", ".join(map(str, load.get("ports") or ()))
        text = f"{host} is asked from {load['host']} (not measured), at {load.get('address')} port {ports}"
        if clocks:
            ahead_s, doubt_s = (
                max(abs(float(c.get(key) or 0.0)) for c in clocks) for key in ("ahead_s", "doubt_s")
            )
            text += (
                f"; its clock was off by up to {1e3 * ahead_s:.3g} ms, which is corrected to "
                f"±{1e3 * doubt_s:.2g} ms"
            )
            requests = sum(
                step.sent or 0
                for record in data.accepted
                if record.row.host == host
                for step in record.steps
            )
            cpu_s = sum(float(c.get("relay_cpu_s") or 0.0) for c in clocks)
            if requests:
                each_ms = 1e3 * cpu_s / requests
                text += f"; passing a request on took at most {each_ms:.2g} ms of CPU on {host}"
        found.append(text)
    return found


def lost(data: RunData) -> list[tuple[str, str, str]]:
    """(trial, status, reason) of every planned trial without a valid attempt, skipped ones left out."""
    rows = data.trials[~data.trials["status"].isin(["valid", "skipped"])]
    return [
        (f"{host} {place:03d}-{image}", str(status), "" if pd.isna(reason) else str(reason))
        for host, place, image, status, reason in zip(
            rows["host"], rows["planned_position"], rows["image"], rows["status"], rows["reason"],
            strict=True,
        )
    ]  # fmt: skip
