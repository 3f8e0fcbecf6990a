"""The first screen of a report: ranking, verdict, host by host, and what is not there."""

from __future__ import annotations

from dataclasses import dataclass

from wattbench.analysis.presentation.forest import Entry, Forest, forest
from wattbench.analysis.presentation.formatting import interval as interval_text
from wattbench.analysis.presentation.formatting import interval_digits, pct
from wattbench.analysis.presentation.palette import Palette
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.results import DECIDED, Conclusion, PairVerdict, RankedImage


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
    is_small = pair.verdict in DECIDED and pair.within_margin
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


def missing(data: RunData, conclusion: Conclusion) -> list[str]:
    """Sentences about what is not there: hosts, images, trials."""
    said: list[str] = []
    for name, why in data.document.get("skipped_hosts", {}).items():
        said.append(f"Host {name} was left out: {why}.")
    for image, why in data.document.get("skipped_images", {}).items():
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
    without_value = trials[
        (trials["host"] == host) & (trials["kind"] == "workload") & (trials["status"] != "valid")
    ]
    if image is not None:
        without_value = without_value[without_value["image"] == image]
    reasons = without_value["reason"].dropna()
    return str(reasons.iloc[0]) if len(reasons) else ""


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
