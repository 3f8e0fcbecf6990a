"""Steps of a load as rows, and joules per unit over the steps that count on a host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from wattbench.analysis.checks.load import overload
from wattbench.analysis.model.records import LoadStep, Quantiles, Record
from wattbench.analysis.model.trials import STEADY, TrialRow, per_unit

# pandas takes a second to import.
if TYPE_CHECKING:
    import pandas as pd

_QUANTILES = ("p50", "p90", "p99", "max")
#: Measures of a step, as columns of :func:`frame_of`; times in ms.
MEASURES = (
    "throughput_per_s", "error_pct",
    *(f"latency_{q}_ms" for q in _QUANTILES), *(f"first_byte_{q}_ms" for q in _QUANTILES),
    "goodput_per_s", "mean_w", "j_per_request", "j_per_request_uncertainty", "j_per_token",
    "j_per_token_uncertainty", "tokens_per_s", "cpu_pct", "late_p99_ms", "late_max_ms",
)  # fmt: skip
_KEYS = ("host", "image", "block", "attempt", "step", "concurrency", "rate_per_s")


def compared(records: Sequence[Record], endpoint: str) -> tuple[Record, ...]:
    """Records with the joules per unit of the endpoint.

    A step that the generator could not keep up with in one trial of a host counts in none of the host's:
    all images are compared over the same steps.
    """
    saturated: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.row.kind == "workload" and record.row.status == "valid":
            saturated[record.row.host].update(s.name for s in record.steps if overload(s))
    return tuple(
        replace(r, row=per_unit(_over(r, saturated[r.row.host]), endpoint))
        if r.row.kind == "workload" and endpoint == STEADY
        else r
        for r in records
    )


def _over(record: Record, left_out: set[str]) -> TrialRow:
    """A record's row over the steps that count."""
    if not left_out or not record.steps:
        return record.row
    phases = [
        p
        for p in record.phases
        if p.name.startswith("steady:") and p.name.removeprefix("steady:") not in left_out
    ]
    joules = [p.energy_j for p in phases if p.energy_j is not None]
    known = bool(phases) and len(joules) == len(phases)
    return replace(
        record.row,
        steady_j=sum(joules) if known else None,
        steady_s=sum(p.duration_s for p in phases) if phases else None,
        units=sum(p.units or 0.0 for p in phases) or None,
    )


def frame_of(records: Iterable[Record]) -> pd.DataFrame:
    """One row per step of each valid trial; steps that the generator could not keep up with are left out."""
    import pandas as pd

    rows = [
        {key: getattr(r.row, key) for key in ("host", "image", "block", "attempt")}
        | {"step": s.name, "concurrency": s.concurrency, "rate_per_s": s.rate_per_s}
        | _measures(s)
        for r in records
        if r.row.kind == "workload" and r.row.status == "valid"
        for s in r.steps
        if not overload(s)
    ]
    frame = pd.DataFrame(rows, columns=[*_KEYS, *MEASURES])
    return frame.astype(dict.fromkeys(MEASURES, "float64"))


def _measures(step: LoadStep) -> dict[str, float | None]:
    half = step.energy_uncertainty_j
    return {
        "throughput_per_s": step.per_second(step.succeeded),
        "error_pct": step.error_pct,
        **_times("latency", step.latency_s),
        **_times("first_byte", step.first_byte_s),
        "goodput_per_s": step.per_second(step.within_slo),
        "mean_w": step.mean_w,
        "j_per_request": step.joules_per(step.succeeded),
        "j_per_request_uncertainty": half / step.succeeded if half and step.succeeded else None,
        "j_per_token": step.joules_per(step.tokens_out),
        "j_per_token_uncertainty": half / step.tokens_out if half and step.tokens_out else None,
        "tokens_per_s": step.per_second(step.tokens_out),
        "cpu_pct": None if step.cpu_share is None else 100 * step.cpu_share,
        "late_p99_ms": None if step.late_p99_s is None else 1e3 * step.late_p99_s,
        "late_max_ms": None if step.late_max_s is None else 1e3 * step.late_max_s,
    }


def _times(name: str, found: Quantiles | None) -> dict[str, float]:
    return {f"{name}_{q}_ms": 1e3 * getattr(found, q) for q in _QUANTILES} if found else {}
