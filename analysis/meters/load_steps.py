"""Steps of a load: requests, the generator's own report and the phases' joules, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wattbench.analysis.meters.requests_log import Floats, Requests
from wattbench.analysis.meters.workload_log import LoadReport
from wattbench.analysis.model.records import (
    Expected,
    ExpectedSlo,
    ExpectedStep,
    LoadStep,
    Phase,
    Quantiles,
)

#: Phases of steps begin with this.
STEADY = "steady:"
#: Hexadecimal digits of an answer that are kept.
DIGITS = 8


def steps_of(
    requests: Requests | None,
    reports: Sequence[LoadReport],
    phases: Sequence[Phase],
    expected: Expected,
) -> tuple[LoadStep, ...]:
    """Every step of the load in order, those that were cut short included.

    Args:
        requests: of all steps.
        reports: of the generator, one per step that ended.
        phases: of the window, with joules.
        expected: the plan's side.
    """
    by_name = {p.name.removeprefix(STEADY): p for p in phases if p.name.startswith(STEADY)}
    reported = {r.phase.removeprefix(STEADY): r for r in reports}
    names = [*by_name, *(name for name in reported if name not in by_name)]
    return tuple(
        _step(name, requests, reported.get(name), by_name.get(name), expected) for name in names
    )


def _step(
    name: str,
    requests: Requests | None,
    report: LoadReport | None,
    phase: Phase | None,
    expected: Expected,
) -> LoadStep:
    steps = expected.get("steps") or ()
    asked = next((s for s in steps if s["name"] == name), ExpectedStep(name=name))
    of_step = None if requests is None else requests.of(name)
    good = None if of_step is None else of_step.error == b""
    duration_s = report.duration_s if report else None
    if duration_s is None and phase is not None:
        duration_s = phase.duration_s
    bare = LoadStep(
        name,
        concurrency=report.concurrency if report else asked.get("concurrency"),
        rate_per_s=report.rate_per_s if report else asked.get("rate_per_s"),
        planned=report.planned if report else asked.get("requests"),
        duration_s=duration_s,
        cpu_s=report.cpu_s if report else None,
        cores=report.cores if report else None,
        late_p99_s=report.late_p99_s if report else None,
        late_max_s=report.late_max_s if report else None,
        energy_j=phase.energy_j if phase else None,
        energy_uncertainty_j=phase.energy_uncertainty_j if phase else None,
        mean_w=phase.mean_w if phase else None,
    )
    if of_step is None or good is None:
        return bare
    latency_s = (of_step.done_s - of_step.intended_s)[good]
    p99_ms = (expected.get("slo") or ExpectedSlo()).get("p99_ms")
    return replace(
        bare,
        sent=len(of_step),
        succeeded=int(good.sum()),
        failed=_failures(of_step),
        latency_s=quantiles(latency_s),
        first_byte_s=quantiles((of_step.first_byte_s - of_step.intended_s)[good]),
        within_slo=None if p99_ms is None else int((latency_s <= p99_ms / 1e3).sum()),
        tokens_in=_total(of_step.tokens_in[good]),
        tokens_out=_total(of_step.tokens_out[good]),
        answers=_answers(of_step) if expected.get("answers_compared") else "",
        late_p50_s=float(np.median(of_step.sent_s - of_step.intended_s))
        if bare.rate_per_s and len(of_step)
        else None,
    )


def _failures(requests: Requests) -> dict[str, int]:
    reasons = requests.error[requests.error != b""]
    return dict(sorted(Counter(reason.decode() for reason in reasons).items()))


def quantiles(values_s: Floats) -> Quantiles | None:
    """Quantiles of times, those that are unknown left out; None without any."""
    known = values_s[~np.isnan(values_s)]
    if not known.size:
        return None
    p50, p90, p99 = (float(q) for q in np.quantile(known, [0.5, 0.9, 0.99]))
    return Quantiles(p50, p90, p99, float(known.max()))


def _total(counts: Floats) -> int | None:
    return None if np.isnan(counts).all() else int(np.nansum(counts))


def _answers(requests: Requests) -> str:
    """:attr:`LoadStep.answers`; a number that is missing or has failed is blank."""
    if not len(requests):
        return ""
    cells = [" " * DIGITS] * int(min(requests.number.max(), 10 * len(requests)))
    for number, answer in zip(requests.number.astype(int), requests.answer, strict=True):
        if answer and number <= len(cells):
            cells[number - 1] = answer.decode("ascii", "replace")[:DIGITS].ljust(DIGITS)
    return "".join(cells)
