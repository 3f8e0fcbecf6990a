"""What a page says, from data and conclusion: rows and sentences, no HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.finding_codes import CODES, Severity, Verdict
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.presentation.formatting import count
from wattbench.analysis.presentation.palette import Look, Palette
from wattbench.analysis.presentation.scales import scale_of
from wattbench.analysis.report.tables import fixed
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.factors import Effect
from wattbench.analysis.stats.results import Conclusion, Interval, PairVerdict, RankedImage
from wattbench.analysis.storage.source import MANIFEST, Source

_DECIDED = (PairVerdict.LESS, PairVerdict.MORE)

#: Findings of one kind that are listed one by one.
MOST_SUBJECTS = 200


@dataclass(frozen=True)
class Group:
    """Findings of one code, verdict and severity.

    Attributes:
        code: the stable code.
        severity: ``error``, ``warning`` or ``info``.
        message: of the first, or how many there are.
        findings: all.
    """

    code: str
    severity: str
    findings: tuple[Finding, ...]

    @property
    def meaning(self) -> str:
        """What was seen."""
        return CODES[self.code].meaning

    @property
    def why(self) -> str:
        """Why it matters."""
        return CODES[self.code].why

    @property
    def subjects(self) -> str:
        """One subject by name, more by number and kind."""
        names = list(dict.fromkeys(f.subject for f in self.findings))
        if len(names) == 1:
            return names[0]
        kinds = sorted({n.split(" ")[0] for n in names})
        kind = kinds[0] if len(kinds) == 1 else "subject"
        return f"{len(names)} {kind}s"

    @property
    def actions(self) -> tuple[str, ...]:
        """What to do, each once."""
        return tuple(dict.fromkeys(f.action or CODES[f.code].action for f in self.findings))


def groups(findings: Iterable[Finding], verdict: Verdict) -> list[Group]:
    """Findings of a verdict by severity and code, errors first."""
    found: dict[tuple[int, int], list[Finding]] = {}
    severities, codes = list(Severity), list(CODES)
    for one in findings:
        if one.verdict is verdict:
            key = (severities.index(one.severity), codes.index(one.code))
            found.setdefault(key, []).append(one)
    return [
        Group(codes[c], str(severities[s]), tuple(mine)) for (s, c), mine in sorted(found.items())
    ]


@dataclass(frozen=True)
class Bar:
    """One row of the first screen's ranking; places are shares of the axis in %.

    Attributes:
        row: image, rank, comparison.
        look: colour and marker.
        estimate: text of the estimate, for example ``+3.4 %``.
        interval: text of the interval.
        at: where the estimate lies, None without one.
        low: where the interval begins; None: it has no lower bound.
        high: likewise.
        bounded: whether there is an interval at all.
        verdict: a word.
        detail: why it is undecided, or what else has to be said.
    """

    row: RankedImage
    look: Look
    estimate: str
    interval: str
    at: float | None
    low: float | None
    high: float | None
    bounded: bool
    verdict: str
    detail: str


@dataclass(frozen=True)
class Forest:
    """The ranking with its axis: ticks are (place in %, text), the margin of equivalence is a band.

    ``is_logarithmic``: whether the axis is so beyond ±1 %.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float
    margin: tuple[float, float]
    is_logarithmic: bool = False

    @property
    def details(self) -> dict[str, str]:
        """What has to be said of images: their names, comma-separated → text."""
        images: dict[str, list[str]] = {}
        for bar in self.bars:
            if bar.detail:
                images.setdefault(bar.detail, []).append(bar.row.image)
        return {", ".join(names): detail for detail, names in images.items()}


def forest(conclusion: Conclusion, looks: Palette) -> Forest:
    """Where estimates and intervals lie on one axis."""
    shown = [(r, r.pair.simultaneous if r.pair else None) for r in conclusion.ranking]
    values: list[float] = []
    for row, interval in shown:
        if row.pair and row.pair.estimate_pct is not None:
            values.append(row.pair.estimate_pct)
        values += [b for b in _ends(interval) if b is not None]
    margin = conclusion.settings.equivalence_pct
    scale = scale_of(values, margin)

    def place(pct: float) -> float:
        return round(100 * scale.place(pct), 2)

    bars = tuple(_bar(row, interval, looks[row.image], place) for row, interval in shown)
    ticks = tuple((place(t), fixed(t, "+g") if t else "0") for t in scale.ticks())
    return Forest(bars, ticks, place(0.0), (place(-margin), place(margin)), scale.symmetric_log)


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (interval.lower_pct, interval.upper_pct) if interval else (None, None)


def _bar(row: RankedImage, interval: Interval | None, look: Look, place: Any) -> Bar:
    pair = row.pair
    if row.is_reference:
        return Bar(row, look, "0", "", place(0.0) if row.rank else None, None, None, False,
                   "reference", row.reason or "")  # fmt: skip
    if pair is None or pair.estimate_pct is None:
        return Bar(row, look, "–", "", None, None, None, False, "not compared", row.reason or "")
    low, high = _ends(interval)
    digits = 2 if interval and (interval.half_width_pct or 1.0) < 0.25 else 1
    detail = pair.reason or ""
    if pair.verdict in _DECIDED and pair.within_margin:
        detail = "shown to lie inside the margin of equivalence"
    return Bar(
        row=row,
        look=look,
        estimate=fixed(pair.estimate_pct, f"+.{digits}f") + " %",
        interval=interval_text(interval, digits),
        at=place(pair.estimate_pct),
        low=None if low is None else place(low),
        high=None if high is None else place(high),
        bounded=interval is not None,
        verdict=str(pair.verdict),
        detail=detail,
    )


def interval_text(interval: Interval | None, digits: int = 1) -> str:
    """``+3.1 to +3.7``; a missing bound is said."""
    if interval is None:
        return "no interval"
    low, high = _ends(interval)
    if low is None and high is None:
        return "unbounded"
    left = "unbounded" if low is None else fixed(low, f"+.{digits}f")
    right = "unbounded" if high is None else fixed(high, f"+.{digits}f")
    return f"{left} to {right}"


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
    size = fixed(pair.estimate_pct or 0.0, "+.1f")
    return (
        f"The largest effect that is shown: {name_of(largest)}, {size} % energy "
        f"({interval_text(pair.simultaneous)} %). {rest}"
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
    """A row a fact, a cell a host; rows that no host can fill are left out."""
    rows: list[tuple[str, list[str]]] = []
    for label, getter in _FACTS:
        cells = [getter(data, host) for host in data.hosts]
        if any(c is not None for c in cells):
            rows.append((label, ["not told" if c is None else str(c) for c in cells]))
    return rows


def _fact(*path: str) -> Any:
    def get(data: RunData, host: str) -> Any:
        value: Any = data.facts(host)
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            return "on" if value else "off"
        return value

    return get


def _memory(data: RunData, host: str) -> str | None:
    told = (data.facts(host).get("host") or {}).get("memory_bytes")
    return f"{told / 2**30:.1f} GiB" if told else None


def _gpus(data: RunData, host: str) -> str | None:
    cards = data.facts(host).get("gpu")
    if cards is None:
        return None
    return ", ".join(f"{g.get('name')} (driver {g.get('driver')})" for g in cards) or "none"


def _virtual(data: RunData, host: str) -> str | None:
    told = (data.facts(host).get("host") or {}).get("virtual")
    return None if told is None else ("virtual" if told else "physical")


def _meter(data: RunData, host: str) -> str | None:
    entry = (data.document.get("hosts") or {}).get(host) or {}
    config = (entry.get("config") or {}).get("meter") or {}
    kind = config.get("kind")
    if kind is None:
        return None
    version = (data.facts(host).get("meter") or {}).get("version")
    every = f", every {config['interval_ms']} ms" if config.get("interval_ms") else ""
    return f"{kind} ({version or 'version not told'}){every}"


def _scope(data: RunData, host: str) -> str | None:
    trials = data.trials
    told = trials.loc[(trials["host"] == host) & trials["energy_scope"].notna(), "energy_scope"]
    return ", ".join(sorted(set(told))) or None


def _clock(data: RunData, host: str) -> str | None:
    entry = (data.document.get("hosts") or {}).get(host) or {}
    told = entry.get("clock_offset_s")
    return None if told is None else f"{fixed(1000 * told, '+.2f')} ms off the controller"


def _idle(data: RunData, host: str) -> str | None:
    idle = data.facts(host).get("idle") or {}
    parts = [
        f"{idle[key]:.1f} {unit}"
        for key, unit in (("power_w", "W"), ("temperature_c", "°C"), ("cpu_pct", "% CPU"))
        if idle.get(key) is not None
    ]
    return ", ".join(parts) or None


def _warm_up(data: RunData, host: str) -> str | None:
    told = ((data.document.get("hosts") or {}).get(host) or {}).get("warm_up")
    return None if told is None else f"{told['elapsed_s']:.0f} s, {told['why']}"


_FACTS: tuple[tuple[str, Any], ...] = (
    ("CPU", _fact("host", "cpu_model")),
    ("cores", _fact("host", "cores")),
    ("memory", _memory),
    ("GPU", _gpus),
    ("machine", _virtual),
    ("system", _fact("host", "os")),
    ("kernel", _fact("host", "kernel")),
    ("Docker", _fact("docker", "version")),
    ("governor", _fact("cpu", "governor")),
    ("turbo", _fact("cpu", "turbo")),
    ("SMT", _fact("cpu", "smt")),
    ("meter", _meter),
    ("energy covers", _scope),
    ("idle before the run", _idle),
    ("warm-up", _warm_up),
    ("clock", _clock),
)


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


def slug(name: str) -> str:
    """A name as an anchor and as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "host"


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
        digits = 2 if interval and (interval.half_width_pct or 1.0) < 0.25 else 1
        lines.append(
            HostLine(
                host=host.host,
                best=first,
                estimate="–" if estimate is None else fixed(estimate, f"+.{digits}f") + " %",
                interval="" if estimate is None else interval_text(interval, digits),
                verdict=str(pair.verdict) if pair and estimate is not None else "–",
                valid=host.counts.get("valid", 0),
                planned=sum(host.counts.values()),
                reason=host.reason or "",
            )
        )
    return lines
