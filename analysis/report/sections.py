"""What a page says, from data and conclusion: rows and sentences, no HTML."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wattbench.analysis.model import host_facts
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.presentation.findings import Group, target
from wattbench.analysis.presentation.forest import Entry, Forest, forest
from wattbench.analysis.presentation.formatting import count, interval_digits, number, pct
from wattbench.analysis.presentation.formatting import interval as interval_text
from wattbench.analysis.presentation.formatting import missing as missing_value
from wattbench.analysis.presentation.palette import Palette
from wattbench.analysis.presentation.table import cell
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.factors import Effect
from wattbench.analysis.stats.results import Conclusion, PairVerdict, RankedImage
from wattbench.analysis.storage.source import MANIFEST, Source

_DECIDED = (PairVerdict.LESS, PairVerdict.MORE)

#: Trials that the page lists.
MOST_TRIALS = 2000
#: Images up to which the page offers any two of them for comparison.
MOST_PICKED = 12


def ranking(conclusion: Conclusion, looks: Palette) -> Forest:
    """The ranking on one axis."""
    return forest(
        [_entry(row, looks[row.image].variable) for row in conclusion.ranking],
        conclusion.settings.equivalence_pct,
    )


def _entry(row: RankedImage, variable: str) -> Entry:
    pair = row.pair
    if row.is_reference:
        at = 0.0 if row.rank else None
        return Entry(
            row.image, variable, at, None, "reference", row.reason or "", is_reference=True
        )
    if pair is None or pair.estimate_pct is None:
        return Entry(row.image, variable, None, None, "not compared", row.reason or "")
    is_small = pair.verdict in _DECIDED and pair.within_margin
    detail = "shown to lie inside the margin of equivalence" if is_small else pair.reason or ""
    return Entry(
        row.image, variable, pair.estimate_pct, pair.simultaneous, str(pair.verdict), detail
    )


def lead(conclusion: Conclusion) -> tuple[str, str]:
    """The verdict in a few words, and its tone: ``decided``, ``open`` or ``none``."""
    head = conclusion.headline
    if head.best is None:
        return "No verdict", "none"
    if head.decided:
        return f"{head.best} uses the least energy", "decided"
    if head.pair is not None and head.pair.verdict is PairVerdict.EQUIVALENT:
        return f"{head.best} and {head.pair.b} are equivalent", "decided"
    if head.pair is not None and head.pair.verdict is PairVerdict.LESS:
        return f"{head.best} leads, but not against every image", "open"
    return "Undecided", "open"


def what_matters(effects: Sequence[Effect]) -> str:
    """The effects in one or two sentences; empty without any."""
    main = [e for e in effects if e.kind != "interaction"]
    told = [e.energy for e in main if e.energy and e.energy.estimate_pct is not None]
    if not main:
        return ""
    if not told:
        return "No effect can be told: no block holds both images of a comparison."
    largest = next((e for e in main if e.energy and e.energy.verdict in _DECIDED), None)
    counted = ", ".join(
        f"{number} {verdict}"
        for verdict in PairVerdict
        if (number := sum(p.verdict is verdict for p in told))
    )
    rest = f"Of {count(len(told), 'effect')}: {counted}."
    if largest is None or largest.energy is None:
        return f"No effect on energy is shown. {rest}"
    pair = largest.energy
    return (
        f"The largest effect that is shown: {name_of(largest)}, {pct(pair.estimate_pct)} energy "
        f"({interval_text(pair.simultaneous)}). {rest}"
    )


def name_of(effect: Effect) -> str:
    """An effect's name in a few words."""
    if effect.kind == "layer":
        numbers = re.findall(r"(?:^|; )(\d+): (?=RUN |COPY |ADD |the base)", effect.level)
        return f"layer {'+'.join(numbers)} of {effect.factor}"
    return f"{effect.factor} {effect.level}"


def meanings(effects: Sequence[Effect], experiment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, what it stands for) of every level and layer."""
    images = experiment.get("images") or {}
    found = []
    for effect in effects:
        if effect.kind == "layer":
            found.append((name_of(effect), effect.level.partition(": ")[2]))
        elif effect.kind == "factor":
            own, base = (images.get(i) or {} for i in (effect.image, effect.against))
            env = {
                k: v
                for k, v in (own.get("env") or {}).items()
                if (base.get("env") or {}).get(k) != v
            }
            other = [
                str(own[k])
                for k in ("ref", "command", "framework")
                if own.get(k) not in (None, base.get(k))
            ]
            found.append(
                (name_of(effect), ", ".join([*other, *(f"{k}={v}" for k, v in env.items())]))
            )
    return [(name, text) for name, text in found if text]


def facts_of_hosts(data: RunData) -> list[tuple[str, list[str]]]:
    """One row per fact, one cell per host; facts that no host has are left out."""
    known = [host_facts.shown(data.facts(host)) | _of_the_run(data, host) for host in data.hosts]
    labels = dict.fromkeys(label for host in known for label in host)
    return [(label, [host.get(label, "unknown") for host in known]) for label in labels]


def _of_the_run(data: RunData, host: str) -> dict[str, str]:
    """What the run itself knows of a host: meter, domains, warm-up, clock."""
    entry = (data.document.get("hosts") or {}).get(host) or {}
    meter = (entry.get("config") or {}).get("meter") or {}
    every = f", every {meter['interval_ms']} ms" if meter.get("interval_ms") else ""
    trials = data.trials
    scopes = trials.loc[(trials["host"] == host) & trials["energy_scope"].notna(), "energy_scope"]
    warm_up, offset_s = entry.get("warm_up"), entry.get("clock_offset_s")
    found = {
        "meter": f"{meter['kind']}{every}" if meter.get("kind") else "",
        "energy covers": ", ".join(sorted(set(scopes))),
        "warm-up": f"{warm_up['elapsed_s']:.0f} s, {warm_up['why']}" if warm_up else "",
        "clock": "" if offset_s is None else host_facts.clock(offset_s),
    }
    return {label: value for label, value in found.items() if value}


def problems(data: RunData) -> list[tuple[str, str, str]]:
    """(host, message, action) of what ``check`` noted, and of hosts that never passed it."""
    rows = []
    for host in data.hosts:
        entry = (data.document.get("hosts") or {}).get(host) or {}
        rows += [
            (host, str(p.get("message")), str(p.get("action") or ""))
            for p in entry.get("problems") or ()
        ]
        if not entry.get("facts"):
            rows.append((host, str(entry.get("reason") or "the host told no facts"), ""))
    return rows


def protocol(data: RunData) -> list[tuple[str, str]]:
    """What was laid down before the first trial."""
    experiment = data.experiment
    work = experiment.get("workload") or {}
    plan = experiment.get("protocol") or {}
    rest, idle = plan.get("rest") or {}, plan.get("idle_baseline") or {}
    settings = data.settings
    command = work.get("command")
    unit, same = work.get("unit") or {}, work.get("same_work") or {}
    passes = ", ".join(
        f"{p['resolution']} px × {p['iterations']}" for p in work.get("passes") or ()
    )
    blocks = plan.get("blocks")
    if isinstance(blocks, Mapping):
        blocks = (
            f"{blocks.get('min')} to {blocks.get('max')}, until ±{blocks.get('precision_pct')} %"
        )
    rows = [
        ("workload", ", ".join(str(v) for v in (work.get("program"), work.get("framework"),
                                                work.get("precision"), experiment.get("device")) if v)),
        ("command", " ".join(map(str, command)) if command else ""),
        ("unit of work", str(unit.get("name") or "")),
        ("equal work", f"lines that match {same['pattern']!r}" if same.get("pattern") else ""),
        ("passes", passes),
        ("blocks", str(blocks or "")),
        ("order", "every block holds every image once, shuffled per host and block"),
        ("seed", str(data.document.get("seed") or "")),
        ("rest", f"{rest.get('min_s')} to {rest.get('max_s')} s, until quiet" if rest else ""),
        (
            "idle baseline",
            f"{idle.get('seconds')} s, every {idle.get('every_blocks')} blocks" if idle else "",
        ),
        ("reference", str(settings.reference or "")),
        ("primary endpoint", "log of the raw joules of the whole window, compared inside blocks"),
        ("error rate", f"α = {settings.alpha:g} over all pairs ({settings.correction.capitalize()})"),
        ("equivalence", f"±{settings.equivalence_pct:g} % energy"),
    ]  # fmt: skip
    return [(label, value) for label, value in rows if value]


def versions(data: RunData) -> list[tuple[str, str]]:
    """Versions of the controller's parts."""
    return [(str(k), str(v)) for k, v in (data.document.get("versions") or {}).items()]


def digests(data: RunData) -> list[tuple[str, str, str]]:
    """(image, reference as configured, digest)."""
    images = data.experiment.get("images") or {}
    return [
        (str(name), str((image or {}).get("ref") or (image or {}).get("runtime") or ""),
         str((image or {}).get("digest") or "not resolved"))
        for name, image in images.items()
    ]  # fmt: skip


def raw_files(source: Source) -> list[dict[str, Any]]:
    """Every raw file with size and SHA-256.

    The run's manifest where there is one, the checksums that the hosts took of their own files else.
    """
    if source.manifest:
        return [
            {"file": e.key, "bytes": e.bytes, "sha256": e.sha256}
            for e in source.manifest.values()
            if "/trials/" in e.key
        ]
    rows: list[dict[str, Any]] = []
    for entry in source.list("hosts/"):
        if not entry.key.endswith("/attempt.json"):
            continue
        try:
            report = source.read_json(entry.key)
        except InputError:
            continue
        folder = entry.key.removesuffix("attempt.json")
        listed = report.get("files") if isinstance(report, Mapping) else None
        rows += [
            {"file": folder + name, "bytes": f.get("bytes"), "sha256": f.get("sha256")}
            for name, f in sorted((listed or {}).items())
            if isinstance(f, Mapping) and f.get("bytes")
        ]
    return rows


def checksums_from(source: Source) -> str:
    """Whose checksums they are."""
    if source.manifest:
        return f"as stored, from the run’s {MANIFEST}"
    return "as taken on the hosts before the files were packed and sent"


def missing(data: RunData, conclusion: Conclusion) -> list[str]:
    """Sentences about what is not there: hosts, images, trials."""
    said: list[str] = []
    for host, why in (data.document.get("skipped_hosts") or {}).items():
        said.append(f"Host {host} was left out: {why}.")
    for image, why in (data.document.get("skipped_images") or {}).items():
        said.append(f"Image {image} was left out: {why}.")
    for host in conclusion.hosts:
        if not host.counts.get("valid"):
            reason = _first_reason(data, host.host)
            said.append(f"Host {host.host} has no valid trial{f' ({reason})' if reason else ''}.")
            continue
        gone = [i.image for i in host.images if not i.valid]
        for image in gone:
            reason = _first_reason(data, host.host, image)
            said.append(
                f"Image {image} has no valid trial on {host.host}{f' ({reason})' if reason else ''}."
            )
    if len(conclusion.images) == 1:
        said.append("One image only: nothing to compare; what was measured of it is below.")
    return said


def _first_reason(data: RunData, host: str, image: str | None = None) -> str:
    trials = data.trials
    mine = trials[
        (trials["host"] == host) & (trials["kind"] == "workload") & (trials["status"] != "valid")
    ]
    if image is not None:
        mine = mine[mine["image"] == image]
    reasons = mine["reason"].dropna()
    return str(reasons.iloc[0]) if len(reasons) else ""


def sizes(frame: pd.DataFrame) -> tuple[dict[str, float], str]:
    """GB by image from the table of sizes, and which size it is: unpacked where it is known of all."""
    unpacked = frame["unpacked_gb"].notna().all()
    column, factor = ("unpacked_gb", 1.0) if unpacked else ("compressed_mb", 1e-3)
    known = frame.dropna(subset=[column])
    values = {str(i): float(v) * factor for i, v in zip(known["image"], known[column], strict=True)}
    return values, "unpacked" if unpacked else "compressed"


def optimal(sizes: pd.DataFrame) -> dict[str, bool | None]:
    """Whether an image is Pareto-optimal; None where that is undecided."""
    return {
        str(image): None if pd.isna(value) else bool(value)
        for image, value in zip(sizes["image"], sizes["pareto"], strict=True)
    }


def decided(break_even: pd.DataFrame, host: str) -> set[str]:
    """Images whose break-even on a host is decided."""
    mine = break_even[(break_even["host"] == host) & break_even["decided"].astype(bool)]
    return {str(image) for image in mine["image"]}


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


@dataclass(frozen=True)
class HostLine:
    """One host on the first screen: its best image, and the overall best against the reference there."""

    host: str
    best: str | None
    estimate: str
    interval: str
    verdict: str
    valid: int
    planned: int
    reason: str


def rival(conclusion: Conclusion) -> str | None:
    """What the best image is compared with: the reference, or the next one where it is the reference."""
    best, pair = conclusion.headline.best, conclusion.headline.pair
    if best is None or pair is None or best != conclusion.reference:
        return conclusion.reference
    return pair.b if pair.a == best else pair.a


def by_host(conclusion: Conclusion) -> list[HostLine]:
    """What every host says on its own."""
    best, reference = conclusion.headline.best, rival(conclusion)
    lines = []
    for host in conclusion.hosts:
        pair = host.pair(best, reference) if best and reference else None
        first = next((i.image for i in host.images if i.rank == 1), None)
        estimate = pair.estimate_pct if pair else None
        interval = pair.simultaneous if pair else None
        lines.append(
            HostLine(
                host=host.host,
                best=first,
                estimate=pct(estimate, interval_digits(interval)),
                interval="" if estimate is None else interval_text(interval),
                verdict=str(pair.verdict) if pair and estimate is not None else "–",
                valid=host.counts.get("valid", 0),
                planned=sum(host.counts.values()),
                reason=host.reason or "",
            )
        )
    return lines


@dataclass(frozen=True)
class TrialLine:
    """One planned trial: ``links`` are (code, anchor) of its findings; an empty anchor is no link."""

    anchor: str
    name: str
    block: str
    status: str
    energy: str
    duration: str
    reason: str
    links: tuple[tuple[str, str], ...]


def trials(data: RunData, found: Sequence[Group]) -> list[TrialLine]:
    """Planned trials in the order of the plan, up to :data:`MOST_TRIALS`; all are in trials.csv."""
    anchors = {group.code: group.anchor for group in found}
    lines = []
    for row in data.trials.head(MOST_TRIALS).to_dict("records"):
        place = "" if missing_value(row["planned_position"]) else f"{row['planned_position']:03d}"
        name = f"{row['host']}/{place}-{row['image']}"
        codes = "" if missing_value(row.get("findings")) else str(row["findings"])
        lines.append(
            TrialLine(
                target(f"trial {name}/1"), name, cell(row["block"], "d"), str(row["status"]),
                number(row["energy_j"]), number(row["duration_s"]), cell(row["reason"]),
                tuple((code, anchors.get(code, "")) for code in codes.split()),
            )
        )  # fmt: skip
    return lines


@dataclass(frozen=True)
class PickedPair:
    """One comparison that the reader can pick; ``basis`` is a host, or all of them."""

    a: str
    b: str
    basis: str
    n: str
    estimate: str
    interval: str
    verdict: str


def pairs_to_pick(conclusion: Conclusion) -> list[PickedPair]:
    """Every ordered pair of images on every basis; empty beyond :data:`MOST_PICKED` images."""
    if not 2 <= len(conclusion.images) <= MOST_PICKED:
        return []
    lines = []
    for a, b in itertools.permutations(conclusion.images, 2):
        found = [(h.host, h.pair(a, b)) for h in conclusion.hosts]
        if conclusion.across.pairs:
            found.insert(0, (f"all hosts ({conclusion.headline.basis})", conclusion.pair(a, b)))
        lines += [
            PickedPair(
                a, b, basis, str(pair.n), pct(pair.estimate_pct, interval_digits(pair.simultaneous)),
                interval_text(pair.simultaneous), str(pair.verdict),
            )
            for basis, pair in found
            if pair is not None
        ]  # fmt: skip
    return lines


def citation(data: RunData, conclusion: Conclusion) -> str:
    """A BibTeX entry that names run, versions, domains and digests."""
    versions_ = ", ".join(f"{name} {version}" for name, version in versions(data))
    scopes = "; ".join(sorted({h.scope for h in conclusion.hosts if h.scope}))
    source = {"measured": "measured", "modelled": "modelled, not measured"}.get(
        conclusion.energy_source or "", "partly modelled, not measured"
    )
    digests_ = ", ".join(f"{name} {digest}" for name, _, digest in digests(data))
    notes = [f"joules {source}{f' over {scopes}' if scopes else ''}", versions_, digests_]
    when = str(data.document.get("run_after") or "")
    fields = {
        "title": f"Energy of {', '.join(conclusion.images)}: report of run {data.run_id}",
        "author": "{wattbench}",
        "year": when[:4],
        "month": when[5:7],
        "note": "; ".join(filter(None, notes)),
    }
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value]
    return "\n".join([f"@misc{{{data.run_id},", *lines, "}"])
