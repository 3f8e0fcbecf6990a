"""Probes of a whole campaign or run: order, drift, equality of work, state of the platform.

Each takes the columns of all trials and what is known of the campaign, and returns found outcomes (whose
subject may be a trial or an image), :class:`Unknown`, or nothing. Records are looked at only for what raw
files can't tell.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wattbench.analysis.checks.columns import STATES, Trials
from wattbench.analysis.checks.outcome import Found, Unknown
from wattbench.analysis.checks.trial import device_of, place, unequal_work
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Record

FloatArray = npt.NDArray[np.float64]
Outcomes = list[Found] | Unknown

#: Relative tolerance of output fingerprints by precision: what different BLAS and convolution
#: algorithms of one precision may differ by.
FINGERPRINT_RTOL = {"fp64": 1e-6, "fp32": 1e-3, "tf32": 1e-2, "fp16": 3e-2, "bf16": 1e-1}

#: Durations of a sampling grid lie this near above its multiples, as a share of the interval.
GRID_SHARE = 0.1
GRID_FEWEST = 5
#: Sampling intervals that people choose, s, longest first.
GRID_CANDIDATES = (60.0, 30.0, 10.0, 5.0, 2.0, 1.0, 0.5)

#: p below which an order, a trend or a step is no chance.
ALARM = 0.05

#: Run numbers without a file that are named.
_MOST_HOLES = 1000

#: Trials of a group are averaged in order to at most so many points before drift is judged.
_DRIFT_POINTS = 400


@dataclass(frozen=True)
class Facts:
    """What is known of a campaign beside its records.

    Attributes:
        imported: somebody else's campaign; a fault that all its trials share is one of the campaign.
        plan: host → planned rows (``planned_position``, ``block``, ``kind``, ``image``).
        expected_trials: trials an image that the campaign claims.
        hosts: host → facts at the start, compared for ``state-changed``.
        problems: host → what its check found before the first trial.
        with_statistics: judge drift and outliers too; a live run's come from its statistics, which
            look inside blocks.
    """

    imported: bool = False
    plan: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    expected_trials: int | None = None
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    with_statistics: bool = False

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> Facts:
        """The facts of a run's ``run.json``."""
        hosts = run.get("hosts") or {}
        problems = {h: (entry or {}).get("problems") or () for h, entry in hosts.items()}
        return cls(plan=run.get("plan") or {}, hosts=hosts, problems=problems)

    @property
    def whole(self) -> str:
        """The subject that stands for all of it."""
        return "campaign" if self.imported else "run"


@dataclass(frozen=True)
class CampaignCheck:
    """A row of the table."""

    code: str
    probe: Callable[[Trials, Facts], Outcomes]
    fine: str
    statistical: bool = False
    #: Looks at what a live run's hosts were checked for: nothing that an import could tell.
    live: bool = False


# ------------------------------------------------------------------------------------------ order


def order(trials: Trials, facts: Facts) -> Outcomes:
    """The order really executed: as planned, or, without a plan, mixed as chance would mix it."""
    found: list[Found] = []
    unknown: list[str] = []
    for host, mine in trials.by("host").items():
        plan = facts.plan.get(host)
        outcome = (
            _against_plan(host, [trials.record(i) for i in mine], plan)
            if plan
            else _mixed(host, trials, mine)
        )
        if isinstance(outcome, Found):
            found.append(outcome)
        elif isinstance(outcome, str):
            unknown.append(outcome)
    if not found and unknown:
        return Unknown("; ".join(dict.fromkeys(unknown)))
    return found


def _against_plan(
    host: str, records: Sequence[Record], plan: Sequence[Mapping[str, Any]]
) -> Found | str | None:
    executed = sorted(
        (r for r in records if r.row.position is not None and not r.row.late),
        key=lambda r: r.row.position or 0,
    )
    if len(executed) < 2:
        return "fewer than two trials were executed"
    for a, b in itertools.pairwise(executed):
        if (a.row.planned_position or 0) > (b.row.planned_position or 0):
            return Found(
                f"trial {b.row.planned_position} ran after {a.row.planned_position}: not the planned order",
                {"before": a.subject, "after": b.subject},
                subject=f"host {host}",
            )
    blocks: defaultdict[int, list[str]] = defaultdict(list)
    for row in plan:
        if row.get("kind") == "workload" and row.get("block") is not None:
            blocks[int(row["block"])].append(str(row["image"]))
    orders = {tuple(images) for images in blocks.values()}
    if len(orders) == 1 and len(blocks) > 7 and len(next(iter(orders))) > 1:
        return Found(
            f"all {len(blocks)} blocks have the order {', '.join(next(iter(orders)))}",
            {"blocks": len(blocks)},
            subject=f"host {host}",
        )
    return None


def _mixed(host: str, trials: Trials, places: Sequence[int]) -> Found | str | None:
    mine, kinds = set(places), trials.rows["kind"]
    done = [i for i in trials.in_time if i in mine and kinds[i] in ("workload", "idle")]
    images = [trials.treatments[i] for i in done]
    counts = Counter(images)
    if len(counts) < 2 or len(images) < 3:
        return "one image, or too few trials, have no order"
    streaks = [(name, len(list(group))) for name, group in itertools.groupby(images)]
    p, expected = _streaks_p(counts, len(streaks))
    longest = max(streaks, key=lambda s: s[1])
    apart = len(streaks) == len(counts)  # one stretch an image: impossible with two or more blocks
    if p >= ALARM and not apart:
        return None
    starts = trials.rows["started_at"]
    spans = {
        name: {"first": starts[own[0]], "last": starts[own[-1]], "n": len(own)}
        for name, own in trials.by("treatment", done).items()
    }
    return Found(
        f"{len(images)} trials of {len(counts)} treatments ran in {len(streaks)} stretches "
        f"({expected:.0f} would be expected of a random order, p {p:.2g}); "
        f"the longest is {longest[1]} × {longest[0]}",
        {
            "stretches": len(streaks),
            "expected": expected,
            "p": p,
            "longest": longest[1],
            "spans": spans,
        }
        | place(trials.record(done[0])),
        subject=f"host {host}" if host else None,
    )


def _streaks_p(counts: Mapping[str, int], streaks: int) -> tuple[float, float]:
    """One-sided p and expectation of the number of stretches under random order.

    Normal approximation of the runs test for several categories (Barton & David 1957), with
    continuity correction.
    """
    from scipy.special import ndtr

    sizes = np.array(list(counts.values()), dtype=float)
    n, squares, cubes = sizes.sum(), (sizes**2).sum(), (sizes**3).sum()
    mean = (n * (n + 1) - squares) / n
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    if variance <= 0:
        return 1.0, float(mean)
    return float(ndtr((streaks + 0.5 - mean) / np.sqrt(variance))), float(mean)


# ------------------------------------------------------------------------------ drift and outliers


def _groups(trials: Trials, places: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    """Places by host and treatment."""
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for i in places:
        groups[trials.rows["host"][i], trials.treatments[i]].append(i)
    return dict(groups)


def _compared_j(trials: Trials, places: Sequence[int]) -> FloatArray:
    """The joules whose course is judged: the CPU package's, which every import has, else the total."""
    package, total = trials.rows["package_j"], trials.rows["energy_j"]
    return np.array([package[i] or total[i] or np.nan for i in places], dtype=float)


def drift(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """Trend and steps of log joules over time within each treatment."""
    from wattbench.analysis.stats import diagnostics

    measured = set(trials.measured("workload", "idle"))
    groups = {
        k: g
        for k, g in _groups(trials, [i for i in trials.in_time if i in measured]).items()
        if len(g) >= diagnostics.FEWEST
    }
    if not groups:
        return Unknown(f"no image has the {diagnostics.FEWEST} trials that a judgement needs")
    found: list[Found] = []
    for (_, name), group in groups.items():
        joules = _compared_j(trials, group)
        if not (joules > 0).all():
            continue
        width = -(-len(group) // _DRIFT_POINTS)
        starts = np.arange(0, len(joules), width)
        lengths = np.diff(starts, append=len(joules))
        points = np.add.reduceat(np.log(joules), starts) / lengths
        residual = points - points.mean()
        trend = diagnostics.trend(residual)
        subject = f"image {trials.rows['image'][group[0]]}"
        if trend.p is not None and trend.p * len(groups) <= ALARM:
            found.append(
                Found(
                    f"{name}: energy changes by {trend.change_pct:+.2f} % from the first trial to the last "
                    f"(Spearman's rho {trend.rho:.2f}, p {trend.p:.2g}, n {len(group)})",
                    place(trials.record(group[0]), kind="trend", rho=trend.rho, p=trend.p,
                          change_pct=trend.change_pct, n=len(group), groups=len(groups)),
                    subject=subject,
                )
            )  # fmt: skip
        steps = diagnostics.steps(residual, list(range(len(residual))))
        if steps.p is None or steps.p * len(groups) > ALARM:
            continue
        for step in steps.steps:
            first = trials.record(group[min((step.position or 0) * width, len(group) - 1)])
            found.append(
                Found(
                    f"{name}: energy steps by {step.change_pct:+.2f} % at {first.row.raw or first.subject} "
                    f"({first.row.started_at})",
                    place(
                        first,
                        kind="step",
                        change_pct=step.change_pct,
                        p=steps.p,
                        at=first.row.started_at,
                    ),
                    subject=subject,
                )
            )
    return found


def outlier(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """Trials far from the others of their treatment, in energy or in time."""
    from wattbench.analysis.stats import diagnostics

    found: list[Found] = []
    judged = 0
    seconds = trials.rows["duration_s"]
    for (_, name), group in _groups(trials, trials.measured("workload", "idle")).items():
        if len(group) < diagnostics.FEWEST_FOR_OUTLIERS:
            continue
        judged += 1
        for what, unit, array in (
            ("energy", "J", _compared_j(trials, group)),
            ("duration", "s", np.array([seconds[i] or np.nan for i in group], dtype=float)),
        ):
            if not (array > 0).all():
                continue
            scores = diagnostics.modified_z(np.log(array))
            usual = float(np.median(array))
            for i in np.flatnonzero(np.abs(scores) > diagnostics.OUTLIER_Z):
                change = 100 * (array[i] / usual - 1)
                if abs(change) < 0.1:
                    continue  # far in spreads, but nothing in size
                trial = trials.record(group[i])
                found.append(
                    Found(
                        f"{what} {array[i]:.6g} {unit} is {change:+.1f} % from the median of {name}, "
                        f"{usual:.6g} {unit} (modified z {scores[i]:.1f})",
                        place(
                            trial,
                            value=float(array[i]),
                            median=usual,
                            score=float(scores[i]),
                            n=len(group),
                        ),
                        subject=trial.subject,
                    )
                )
    if not judged:
        return Unknown(
            f"no image has the {diagnostics.FEWEST_FOR_OUTLIERS} trials that a judgement needs"
        )
    return found


# ----------------------------------------------------------------------------------- equal work


def equal_work(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """Weights, inputs, outputs and amount of work of every trial against those of most."""
    records = trials.records or ()
    working = [r for r in records if r.row.kind == "workload"]
    told = [r for r in working if r.work.results or r.work.same_work is not None]
    if not told:
        if "workload" not in trials.rows["kind"]:
            return []
        if any(r.expected.get("reports_itself") is False for r in working):
            return Unknown(
                "nothing shows that the images did the same work; set workload.same_work"
            )
        return Unknown(
            "the workload prints no iterations, weights, inputs or outputs to compare"
            + _wordings(records)
        )
    found: list[Found] = []
    unsaid = [r for r in told if not _shows_work(r)]
    groups: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in told:
        groups[_asked_work(record)].append(record)
    for (precision, *_), group in groups.items():
        found += _odd_ones(group, "weights", lambda r: r.work.weights_sha256)
        found += _odd_ones(
            group, "inputs", lambda r: tuple(sorted(r.work.inputs_sha256.items())) or None
        )
        found += _odd_outputs(
            group, FINGERPRINT_RTOL.get(precision, max(FINGERPRINT_RTOL.values()))
        )
        found += _odd_values(group)
    found += _odd_amounts([r for r in told if unequal_work(r) is None])
    if not found and unsaid:
        return Unknown(f"{len(unsaid)} of {len(told)} trials do not tell weights or inputs")
    return found


def _shows_work(record: Record) -> bool:
    """Whether a trial reports something that equal work yields equally."""
    work = record.work
    if record.expected.get("reports_itself") is False:
        return work.same_work is not None or any(r.fingerprint for r in work.results)
    return bool(work.weights_sha256 and work.inputs_sha256)


def _asked_work(record: Record) -> tuple[str, ...]:
    """What an experiment may ask of one image other than of another; precision first."""
    asked, work = record.expected, record.work
    sizes = sorted(str(p.get("resolution")) for p in asked.get("passes") or ())
    return (
        str(work.precision or "fp32"),
        str(asked.get("program")),
        str(asked.get("batch")),
        *sizes,
    )


def _odd_values(records: Sequence[Record]) -> list[Found]:
    """Values of ``same_work`` that differ from the usual one by more than their tolerance."""
    tolerances = {(r.expected.get("same_work") or {}).get("tolerance") for r in records}
    tolerance = next(iter(tolerances)) if len(tolerances) == 1 else None
    if tolerance is None:
        return _odd_ones(records, "values of same_work", lambda r: r.work.same_work)
    told = [
        (r, float(r.work.same_work)) for r in records if r.work.same_work and not r.work.problems
    ]
    if not told:
        return []
    usual = float(np.median([value for _, value in told]))
    return [
        Found(
            f"the value of same_work is {value:g}, of the other trials {usual:g}; a difference of "
            f"{tolerance:g} is allowed",
            place(record, own=value, usual=usual, tolerance=tolerance),
            subject=record.subject,
        )
        for record, value in told
        if abs(value - usual) > tolerance * abs(usual)
    ]


def _odd_amounts(records: Sequence[Record]) -> list[Found]:
    """Trials that did another number of units than most: their windows can't be compared."""
    return _odd_ones(records, "units done", lambda r: r.work.units)


def _wordings(records: Sequence[Record]) -> str:
    words = {tuple(r.log["wording"]) for r in records if r.log.get("wording")}
    return f"; their programs print in {len(words)} different ways" if len(words) > 1 else ""


def _odd_ones(records: Sequence[Record], what: str, value: Callable[[Record], Any]) -> list[Found]:
    values = {id(r): value(r) for r in records}
    counts = Counter(v for v in values.values() if v is not None)
    if len(counts) < 2:
        return []
    usual, n = counts.most_common(1)[0]
    return [
        Found(
            f"{what} differ from those of {n} other trials",
            place(r, what=what, own=str(values[id(r)]), usual=str(usual)),
            subject=r.subject,
        )
        for r in records
        if values[id(r)] is not None and values[id(r)] != usual
    ]


def _odd_outputs(records: Sequence[Record], rtol: float) -> list[Found]:
    """Outputs that differ from the median output of their pass by more than the tolerance."""
    found: list[Found] = []
    prints: defaultdict[str, list[tuple[Record, np.ndarray]]] = defaultdict(list)
    for record in records:
        for result in record.work.results:
            if result.fingerprint:
                prints[result.phase].append((record, np.array(result.fingerprint, dtype=float)))
    for phase, outputs in prints.items():
        lengths = Counter(len(v) for _, v in outputs)
        length = lengths.most_common(1)[0][0]
        usual = np.median([v for _, v in outputs if len(v) == length], axis=0)
        scale = float(np.abs(usual).max()) or 1.0
        for record, values in outputs:
            apart = (
                float(np.abs(values - usual).max()) / scale
                if len(values) == length
                else float("inf")
            )
            if not apart <= rtol:
                evidence = {
                    "phase": phase,
                    "rtol": rtol,
                    "apart": apart if np.isfinite(apart) else "other shape",
                }
                found.append(
                    Found(
                        f"{phase}: outputs differ by {apart:.2g} of their size from the other trials', "
                        f"{rtol:g} is allowed",
                        place(record, **evidence),
                        subject=record.subject,
                    )
                )
    return found


# ------------------------------------------------------------------------------ what changed


def workload_changed(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """Digest, device, versions and wording of one image over time, and wording between images."""
    found: list[Found] = []
    told = False
    records = trials.records or ()
    by_image: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in [
        *(records[i] for i in trials.in_time if records),
        *(r for r in records if not r.row.started_at),
    ]:
        if record.row.kind == "workload":
            by_image[record.row.host, record.row.image].append(record)
    facets: tuple[tuple[str, Callable[[Record], Any]], ...] = (
        ("digest", lambda r: r.row.digest),
        ("device", device_of),
        ("program", lambda r: tuple(r.log.get("wording") or ()) or r.work.program),
        ("sizes", lambda r: tuple(r.log.get("sizes") or ())),
        ("banner", lambda r: tuple(r.log.get("banners") or ())),
        ("versions", lambda r: tuple(sorted((k, str(v)) for k, v in r.work.versions.items()))),
    )
    for (_, image), group in by_image.items():
        for what, value in facets:
            said = [(r, v) for r in group if (v := value(r))]
            told = told or bool(said)
            for (_, old), (record, new) in itertools.pairwise(said):
                if old != new:
                    line = record.log.get("line")
                    found.append(
                        Found(
                            f"{what} changes from {_short(old)} to {_short(new)} "
                            f"at {record.row.raw or record.subject}",
                            place(record, line=line) if line else place(record),
                            subject=f"image {image}",
                        )
                    )
    wordings: dict[tuple[str, ...], Record] = {}
    for record in records:
        if (
            record.row.kind == "workload"
            and record.log.get("wording")
            and record.log.get("complete")
        ):
            wordings.setdefault(tuple(record.log["wording"]), record)
    if len(wordings) > 1:
        second = list(wordings.values())[1]
        found.append(
            Found(
                f"the programs of {len(wordings)} groups of images print differently: not the same program",
                {
                    "variants": [
                        {
                            "image": r.row.image,
                            "file": r.log.get("file"),
                            "line": r.log.get("line"),
                            "prints": list(w),
                        }
                        for w, r in wordings.items()
                    ],
                    "file": second.log.get("file"),
                    "line": second.log.get("line"),
                },
                Severity.WARNING,
            )
        )
    if not told:
        return Unknown("neither digests nor versions nor prints of the workload are known")
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "…")


def state_changed(trials: Trials, facts: Facts) -> Outcomes:
    """Readings at the start of a trial that differ between stretches of the campaign."""
    found: list[Found] = []
    told = False
    starts, files = trials.rows["started_at"], trials.rows["raw"]
    for host, mine in trials.by("host", trials.in_time).items():
        for pattern, (what, share) in STATES.items():
            readings = trials.first[pattern]
            said = [(i, v) for i in mine if (v := readings[i]) is not None]
            told = told or len(said) > 1
            if len(said) < 2:
                continue
            levels = _levels(said, share)
            if len(levels) > 1:
                found.append(
                    Found(
                        f"{what} differs between stretches of the campaign: "
                        + ", ".join(f"{level:.10g}" for level, _ in levels[:6]),
                        {
                            "what": what,
                            "levels": [
                                {"value": level, "from": starts[i], "file": files[i], "line": 2}
                                for level, i in levels[:20]
                            ],
                            "file": files[levels[1][1]],
                            "line": 2,
                        },
                        subject=f"host {host}" if host else None,
                    )
                )
    for host, facts_of_host in facts.hosts.items():
        kernels = {str(facts_of_host.get("host", {}).get("kernel"))} - {"None"}
        told = told or bool(kernels)
        boots = {r.edges.get("boot") for r in trials.records or () if r.row.host == host} - {None}
        if len(boots) > 1:
            found.append(
                Found(f"the host was booted {len(boots)} times", {}, subject=f"host {host}")
            )
    if not told:
        return Unknown("no reading of the platform's state comes with the trials")
    return found


def _levels(said: Sequence[tuple[int, float]], share: float) -> list[tuple[float, int]]:
    """Stretches of equal level: a new one begins where two in a row differ by more than the share."""
    levels = [(said[0][1], said[0][0])]
    if all(value == levels[0][0] for _, value in said):
        return levels
    for (i, value), (_, after) in itertools.zip_longest(said[1:], said[2:], fillvalue=(said[-1])):
        level = levels[-1][0]
        if abs(value - level) > share * abs(level) and abs(after - level) > share * abs(level):
            levels.append((value, i))
    return levels


# --------------------------------------------------------------------------- names, counts, times


def image_unpinned(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """Images without a digest."""
    rows = trials.rows
    counts: Counter[tuple[str, bool]] = Counter(
        (image, digest is None)
        for image, digest, kind, status in zip(
            rows["image"], rows["digest"], rows["kind"], rows["status"], strict=True
        )
        if kind == "workload" and status not in ("missing", "skipped")
    )
    if not counts:
        return Unknown("no trial ran a workload")
    found = []
    for image in sorted({image for image, without in counts if without}):
        known, without = counts[image, False], counts[image, True]
        first = next(
            i
            for i, told in enumerate(zip(rows["image"], rows["digest"], rows["kind"], strict=True))
            if told == (image, None, "workload") and rows["status"][i] not in ("missing", "skipped")
        )
        found.append(
            Found(
                f"{without} of {known + without} trials do not tell the image's digest",
                place(trials.record(first), unknown=without, known=known),
                subject=f"image {image}",
            )
        )
    return found


def closed_counters(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """RAPL counters of hosts that the agent may not read: nothing to hold the meter against."""
    found = []
    for host, entry in sorted(facts.hosts.items()):
        sensors = (entry.get("facts") or entry).get("sensors") or {}
        zones = sensors.get("powercap") or {}
        closed = sorted(zone for zone, readable in zones.items() if not readable)
        if closed:
            found.append(
                Found(
                    f"{len(closed)} of {len(zones)} RAPL counters can't be read by the agent's user: "
                    "the meter can't be compared with them, nor other sockets be seen",
                    {"zones": closed, "fix": list(sensors.get("fix") or ())},
                    subject=f"host {host}",
                    action="; ".join(sensors.get("fix") or ()),
                )
            )
    return found


def missing(trials: Trials, facts: Facts) -> Outcomes:
    """Numbers of trials by treatment: holes in the numbering, fewer than claimed, unequal."""
    if not facts.imported:
        return []
    found: list[Found] = []
    by_treatment = trials.by("treatment")
    runs = trials.rows["run"]
    usable = {t: sum(trials.usable[i] for i in g) for t, g in by_treatment.items()}
    for treatment, group in sorted(by_treatment.items()):
        subject = f"image {trials.rows['image'][group[0]]}"
        numbers = {runs[i] for i in group} - {None}
        count = range(min(numbers), max(numbers) + 1) if numbers else range(0)
        # Numbers with more holes than this, such as dates, are not counted through.
        if 0 < len(count) - len(numbers) <= _MOST_HOLES:
            holes = [n for n in count if n not in numbers]
            found.append(
                Found(
                    f"{treatment}: run numbers {', '.join(map(str, holes[:20]))} have no file",
                    {"missing_runs": holes},
                    Severity.WARNING,
                    subject,
                )
            )
        if facts.expected_trials and usable[treatment] < facts.expected_trials:
            found.append(
                Found(
                    f"{treatment}: {usable[treatment]} trials of {facts.expected_trials} that are claimed",
                    {"n": usable[treatment], "claimed": facts.expected_trials},
                    Severity.WARNING,
                    subject,
                )
            )
    if len(set(usable.values())) > 1:
        found.append(
            Found(
                "the numbers of usable trials differ: "
                + ", ".join(f"{t} {n}" for t, n in sorted(usable.items())),
                {"n": dict(sorted(usable.items()))},
                Severity.WARNING,
            )
        )
    return found


def quantised(trials: Trials, facts: Facts) -> Outcomes:
    """Durations that are multiples of the sampling interval plus a little."""
    if not facts.imported:
        return []
    seconds = trials.rows["duration_s"]
    timed = [i for i in trials.measured("workload", "idle") if seconds[i]]
    if len(timed) < GRID_FEWEST:
        return Unknown(f"{len(timed)} trials; at least {GRID_FEWEST} are needed")
    intervals = [v for i in timed if (v := trials.interval_s[i])]
    # Without samples the interval shows only if durations take several of its multiples.
    candidates = [float(np.median(intervals))] if intervals else list(GRID_CANDIDATES)
    durations = np.array([seconds[i] for i in timed])
    for interval in candidates:
        rests = durations / interval % 1.0
        on_grid = (rests <= GRID_SHARE) | (rests >= 1 - GRID_SHARE)
        multiples = sorted({int(m) for m in np.rint(durations[on_grid] / interval)})
        if on_grid.mean() >= 0.9 and (intervals or len(multiples) > 2):
            first = trials.record(timed[int(np.flatnonzero(on_grid)[0])])
            return [
                Found(
                    f"{on_grid.sum()} of {len(timed)} durations are multiples of "
                    f"{'the sampling interval of ' if intervals else ''}{interval:.3g} s "
                    f"({len(multiples)} distinct values)",
                    place(first, interval_s=interval, n=len(timed), multiples=multiples[:50]),
                )
            ]
    return []


def overlapping(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """Windows of one host that overlap: two measurements at once, or a clock that went back."""
    found: list[Found] = []
    for mine in trials.by("host", trials.in_time).values():
        # Times are UTC; numpy takes no offset.
        starts = np.array(
            [
                str(trials.rows["started_at"][i]).removesuffix("Z").removesuffix("+00:00")
                for i in mine
            ],
            dtype="datetime64[ns]",
        )
        seconds = np.array([trials.rows["duration_s"][i] or 0.0 for i in mine])
        ends = starts + np.rint(seconds * 1e9).astype("timedelta64[ns]")
        for i in (np.flatnonzero(ends[:-1] > starts[1:]) + 1).tolist():
            before, record = trials.record(mine[i - 1]), trials.record(mine[i])
            found.append(
                Found(
                    f"begins before {before.row.raw or before.subject} ends",
                    place(record, started_at=record.row.started_at, overlaps=before.subject),
                    subject=record.subject,
                )
            )
    return found


def frozen_columns(trials: Trials, facts: Facts) -> Outcomes:
    """Columns that never change in any file, although what they name does."""
    if not facts.imported:
        return []
    sets = Counter(
        constant
        for constant, rows in zip(trials.constant, trials.rows["samples"], strict=True)
        if constant is not None and (rows or 0) > 2
    )
    files = sets.total()
    # A total is meant to stand still.
    frozen = (
        sorted(c for c in set.intersection(*map(set, sets)) if "TOTAL" not in c) if sets else []
    )
    if not frozen:
        return []
    first = next(i for i, constant in enumerate(trials.constant) if constant)
    return [
        Found(
            f"constant within each of {files} files: {', '.join(frozen[:8])}; "
            "they can't show throttling or load",
            place(trials.record(first), columns=frozen, files=files),
            Severity.INFO,
            action="Do not read these columns as measurements over time.",
        )
    ]


def unknown_columns(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
    """Columns of raw files that nobody knows: they are kept, and count to nothing."""
    sets = Counter(trials.unknown)
    found = []
    for name in sorted({name for names in sets for name in names}):
        files = sum(n for names, n in sets.items() if name in names)
        first = next(i for i, names in enumerate(trials.unknown) if name in names)
        found.append(
            Found(
                f"column {name!r} of {files} raw files is not known: it is kept there, and counts to nothing",
                {**place(trials.record(first), column=name, files=files), "line": 1},
                Severity.INFO,
                action="If it is energy or power, tell its usual name in the mapping file's columns.",
            )
        )
    return found


#: Soft problems that a host's check found, by the finding that they become; the rest is its set-up.
_NOTED = {
    "clock-skew": "clock-skew", "clock": "clock-skew", "host-busy": "host-busy",
    "foreign-containers": "host-busy", "gpu-busy": "host-busy", "host-unsteady": "host-unsteady",
    "sensors": "meter-scope",
}  # fmt: skip


def noted(code: str) -> Callable[[Trials, Facts], Outcomes]:
    """The probe of what the hosts' checks found before the first trial: it stands beside the numbers."""

    def probe(trials: Trials, facts: Facts) -> Outcomes:  # noqa: ARG001
        return [
            Found(
                str(problem["message"]),
                {"problem": problem["code"]},
                None if code == "host-unsteady" else Severity.WARNING,
                f"host {host}",
                str(problem.get("action") or ""),
            )
            for host, problems in facts.problems.items()
            for problem in problems
            if problem["severity"] == "soft" and _NOTED.get(problem["code"], "host-setup") == code
        ]

    return probe


#: The table; rows of a code add up with those of ``trial``.
CAMPAIGN_CHECKS: tuple[CampaignCheck, ...] = (
    CampaignCheck("unequal-work", equal_work, "weights, inputs and outputs agree"),
    CampaignCheck("trial-missing", missing, "no trial is missing"),
    CampaignCheck("clock-skew", overlapping, "no two windows overlap"),
    CampaignCheck("sensor-stale", frozen_columns, "no column stands still"),
    CampaignCheck("file-unread", unknown_columns, "every column of the raw files is known"),
    CampaignCheck(
        "order-not-randomised", order, "the order is the planned one, or mixed like a random one"
    ),
    CampaignCheck("workload-changed", workload_changed, "nothing changed"),
    CampaignCheck("state-changed", state_changed, "the platform's state did not change"),
    CampaignCheck("image-unpinned", image_unpinned, "every image is known by digest"),
    CampaignCheck("meter-scope", closed_counters, "no RAPL counter is known to be closed"),
    CampaignCheck("duration-quantised", quantised, "durations are not the sampling grid's"),
    CampaignCheck("host-unsteady", noted("host-unsteady"), "no host is in quarantine", live=True),
    CampaignCheck("host-setup", noted("host-setup"), "hosts are set up for steady work", live=True),
    CampaignCheck("host-busy", noted("host-busy"), "no host was busy before the run", live=True),
    CampaignCheck("clock-skew", noted("clock-skew"), "hosts' clocks agree with ours", live=True),
    CampaignCheck("drift", drift, "neither trend nor step", statistical=True),
    CampaignCheck("outlier", outlier, "no outlier", statistical=True),
)
