"""Equal work: what each trial computed, and whether the workload stayed the same."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wattbench.analysis.checks import load
from wattbench.analysis.checks.evidence import device_of, place
from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code
from wattbench.analysis.checks.selections import grouped, in_time
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import Record

#: Relative tolerance of output fingerprints by precision: what different BLAS and convolution
#: algorithms of one precision may differ by.
FINGERPRINT_RTOL = {"fp64": 1e-6, "fp32": 1e-3, "tf32": 1e-2, "fp16": 3e-2, "bf16": 1e-1}

UNEQUAL_WORK = code(
    "unequal-work",
    Severity.ERROR,
    place=30,
    meaning="The images did not compute the same thing.",
    why="Joules can be compared only for equal work: same input, weights, iterations and outputs.",
    action="Compare weights' and inputs' SHA-256, iterations and fingerprints in the trials named.",
)

WORKLOAD_CHANGED = code(
    "workload-changed",
    Severity.ERROR,
    place=260,
    meaning="The workload or an image changed in mid-campaign.",
    why="Trials before and after are not the same treatment.",
    action="Split the campaign at the trial named.",
)


@check(
    UNEQUAL_WORK,
    kinds=("workload",),
    fine="the work done is the work asked for",
    example=lambda r: replace(
        r, work=replace(r.work, results=(replace(r.work.results[0], iterations=399),))
    ),
)
def unequal_work(record: Record) -> Outcomes:
    """Work done against work asked for."""
    if record.row.status == "failed":
        return
    for problem in record.work.problems:
        yield Found(problem, place(record))
    asked, reported = record.expected.get("precision"), record.work.precision
    if asked is not None and reported is not None and asked != reported:
        yield Found(
            f"precision {asked} was asked for, {reported} is reported",
            place(record, asked=asked, reported=reported),
        )
    yield from load.unequal_load(record)
    passes = record.expected.get("passes")
    if not passes:
        return
    done = {r.phase.removeprefix("steady:"): r.iterations for r in record.work.results}
    wanted = {str(p["resolution"]): int(p["iterations"]) for p in passes}
    odd = {
        name: {"asked": n, "done": done.get(name)}
        for name, n in wanted.items()
        if done.get(name) != n
    }
    if odd:
        name, both = next(iter(odd.items()))
        yield Found(
            f"resolution {name}: {both['asked']} iterations asked for, {both['done'] or 'none'} reported",
            place(record, passes=odd),
        )


def _change_last(campaign: Campaign, **change: Any) -> Campaign:
    *others, last = campaign.records
    return replace(campaign, records=(*others, replace(last, work=replace(last.work, **change))))


@campaign_check(
    UNEQUAL_WORK,
    fine="weights, inputs and outputs agree",
    example=lambda c: _change_last(c, weights_sha256="another"),
)
def equal_work(campaign: Campaign) -> Outcomes:
    """Weights, inputs, outputs and amount of work of every trial against those of most."""
    workloads = [r for r in campaign.records if r.row.kind == "workload"]
    servers = [r for r in workloads if r.is_server]
    yield from _equal_service([r for r in servers if r.row.status != "failed"])
    workloads = [r for r in workloads if not r.is_server]
    reporting = [r for r in workloads if r.work.results or r.work.same_work is not None]
    if not reporting and any(r.expected.get("reports_itself") is False for r in workloads):
        yield Unknown("nothing shows that the images did the same work; set workload.same_work")
    elif workloads and not reporting:
        yield Unknown(
            "the workload prints no iterations, weights, inputs or outputs to compare"
            + _wordings(campaign.records)
        )
    for (precision, *_), group in grouped(reporting, _asked_work).items():
        yield from _odd_ones(group, "weights", lambda r: r.work.weights_sha256)
        yield from _odd_ones(
            group, "inputs", lambda r: tuple(sorted(r.work.inputs_sha256.items())) or None
        )
        yield from _odd_outputs(
            group, FINGERPRINT_RTOL.get(precision, max(FINGERPRINT_RTOL.values()))
        )
        yield from _odd_values(group)
    as_asked = [r for r in reporting if not any(True for _ in unequal_work(r))]
    yield from _odd_ones(as_asked, "units done", lambda r: r.work.units)
    silent = [r for r in reporting if not _shows_work(r)]
    if silent:
        yield Unknown(f"{len(silent)} of {len(reporting)} trials report no weights or no inputs")


def _equal_service(servers: Sequence[Record]) -> Outcomes:
    """Answers of servers, and the requests that they got, against those of most with the same load."""
    for group in grouped(servers, _asked_load).values():
        yield from load.odd_answers(group)
        for name in dict.fromkeys(s.name for r in group for s in r.steps):
            yield from _odd_ones(group, f"planned requests of step {name}", _planned(name))
        if any(r.work.unit == "token" for r in group):
            yield from _odd_ones(
                group, "ways of counting tokens", lambda r: r.work.tokens_counted or "by the server"
            )
    yield from load.unproven(servers)


def _planned(step: str) -> Callable[[Record], int | None]:
    return lambda record: next((s.planned for s in record.steps if s.name == step), None)


def _asked_load(record: Record) -> tuple[str, ...]:
    """The load that an experiment may give to one image other than to another."""
    return tuple(sorted(str(sorted(s.items())) for s in record.expected.get("steps") or ()))


def _shows_work(record: Record) -> bool:
    """Whether a trial reports something that equal work yields equally."""
    work = record.work
    if record.expected.get("reports_itself") is False:
        return work.same_work is not None or any(r.fingerprint for r in work.results)
    return bool(work.weights_sha256 and work.inputs_sha256)


def _asked_work(record: Record) -> tuple[str, ...]:
    """What an experiment may ask of one image other than of another; precision first."""
    asked = record.expected
    sizes = sorted(str(p.get("resolution")) for p in asked.get("passes") or ())
    precision = str(record.work.precision or "fp32")
    return (precision, str(asked.get("program")), str(asked.get("batch")), *sizes)


def _odd_values(records: Sequence[Record]) -> Outcomes:
    """Values of ``same_work`` that differ from the usual one by more than their tolerance."""
    rules = [r.expected.get("same_work") for r in records]
    tolerances = {rule.get("tolerance") if rule else None for rule in rules}
    tolerance = next(iter(tolerances)) if len(tolerances) == 1 else None
    if tolerance is None:
        yield from _odd_ones(records, "values of same_work", lambda r: r.work.same_work)
        return
    values = [
        (r, float(r.work.same_work)) for r in records if r.work.same_work and not r.work.problems
    ]
    usual = float(np.median([value for _, value in values])) if values else 0.0
    for record, value in values:
        if abs(value - usual) > tolerance * abs(usual):
            yield Found(
                f"the value of same_work is {value:g}, of the other trials {usual:g}; a difference of "
                f"{100 * tolerance:g} % is allowed",
                place(record, own=value, usual=usual, tolerance=tolerance),
                subject=record.subject,
            )


def _wordings(records: Sequence[Record]) -> str:
    words = {tuple(r.log["wording"]) for r in records if r.log.get("wording")}
    return f"; their programs print in {len(words)} different ways" if len(words) > 1 else ""


def _odd_ones(records: Sequence[Record], what: str, value: Callable[[Record], Any]) -> Outcomes:
    values = {id(r): value(r) for r in records}
    counts = Counter(v for v in values.values() if v is not None)
    if len(counts) < 2:
        return
    usual, n = counts.most_common(1)[0]
    for record in records:
        own = values[id(record)]
        if own is not None and own != usual:
            yield Found(
                f"{what} differ from those of {n} other trials",
                place(record, what=what, own=str(own), usual=str(usual)),
                subject=record.subject,
            )


def _odd_outputs(records: Sequence[Record], rtol: float) -> Outcomes:
    """Outputs that differ from the median output of their pass by more than the tolerance."""
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
                yield Found(
                    f"{phase}: outputs differ by {apart:.2g} of their size from the other trials', "
                    f"{rtol:g} is allowed",
                    place(record, **evidence),
                    subject=record.subject,
                )


#: What must not change for an image: name and how to read it; empty: not known.
_FACETS: tuple[tuple[str, Callable[[Record], Any]], ...] = (
    ("digest", lambda r: r.row.digest),
    ("device", device_of),
    ("program", lambda r: tuple(r.log.get("wording") or ()) or r.work.program),
    ("sizes", lambda r: tuple(r.log.get("sizes") or ())),
    ("banner", lambda r: tuple(r.log.get("banners") or ())),
    ("versions", lambda r: tuple(sorted((k, str(v)) for k, v in r.work.versions.items()))),
)


@campaign_check(
    WORKLOAD_CHANGED,
    fine="nothing changed",
    example=lambda c: _change_last(c, program="another"),
)
def workload_changed(campaign: Campaign) -> Outcomes:
    """Digest, device, versions and wording of one image over time, and wording between images."""
    records = campaign.records
    known = False
    in_order = [*in_time(records), *(r for r in records if not r.row.started_at)]
    work = [r for r in in_order if r.row.kind == "workload"]
    for (_, image), group in grouped(work, lambda r: (r.row.host, r.row.image)).items():
        for what, value in _FACETS:
            values = [(r, v) for r in group if (v := value(r))]
            known = known or bool(values)
            for (_, old), (record, new) in itertools.pairwise(values):
                if old != new:
                    line = record.log.get("line")
                    yield Found(
                        f"{what} changes from {_short(old)} to {_short(new)} "
                        f"at {record.row.raw or record.subject}",
                        place(record, line=line) if line else place(record),
                        subject=f"image {image}",
                    )
    yield from _programs(r for r in records if r.row.kind == "workload")
    if not known:
        yield Unknown("neither digests nor versions nor prints of the workload are known")


def _programs(records: Iterable[Record]) -> Outcomes:
    """Images whose programs print differently."""
    wordings: dict[tuple[str, ...], Record] = {}
    for record in records:
        if record.log.get("wording") and record.log.get("complete"):
            wordings.setdefault(tuple(record.log["wording"]), record)
    if len(wordings) > 1:
        second = list(wordings.values())[1]
        yield Found(
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


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "…")
