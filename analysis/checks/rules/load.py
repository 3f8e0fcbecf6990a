"""Load on a server: whether the generator kept up with it, and requests that failed."""

from __future__ import annotations

from dataclasses import replace

from wattbench.analysis.checks import load
from wattbench.analysis.checks.evidence import place
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import check, code
from wattbench.analysis.model.finding_codes import Severity
from wattbench.analysis.model.records import LoadStep, Quantiles, Record

LOAD_SATURATED = code(
    "load-saturated",
    Severity.ERROR,
    place=35,
    meaning="The load generator could not keep up with a step.",
    why=(
        "Latencies and rates of the step are the generator's, not the server's. The step is left out of "
        "all comparisons; a trial without any other step is invalid. Bounds: 80 % of the generator's CPU "
        "time, where a request waits twice as long as it takes the generator; more than a tenth of the "
        "latency's 99th percentile is its own delay; half of a rate's requests are later than one interval."
    ),
    action="Give the generator a CPU of its own (workload.load.from), lower the load, or drop the step.",
)

REQUESTS_FAILED = code(
    "requests-failed",
    Severity.WARNING,
    place=285,
    meaning="Requests to a server failed.",
    why=(
        "Joules per request count successful ones only, so failed ones raise them, and latencies are "
        "those of successful requests. A step with more errors than the SLO allows does not meet it."
    ),
    action="Look for the reason in requests.csv and in the server's log; lower the load.",
)


def _loaded(record: Record, **change: object) -> Record:
    step = LoadStep(
        "c8", concurrency=8, planned=400, sent=400, succeeded=400, duration_s=20.0,
        latency_s=Quantiles(0.1, 0.15, 0.2, 0.3), cpu_s=1.0, cores=1, late_p99_s=0.0005,
    )  # fmt: skip
    expected = {**record.expected, "workload": "serve"}
    return replace(record, expected=expected, steps=(replace(step, **change),))  # type: ignore[arg-type]


@check(
    LOAD_SATURATED,
    kinds=("workload",),
    fine="the load generator kept up",
    example=lambda r: _loaded(r, cpu_s=19.9),
)
def load_saturated(record: Record) -> Outcomes:
    """Steps that the generator could not keep up with."""
    if not record.is_server or record.row.status == "failed":
        return
    reasons = {step.name: why for step in record.steps if (why := load.overload(step))}
    others = len(record.steps) - len(reasons)
    for name, why in reasons.items():
        yield Found(
            f"step {name}: the load generator could not keep up: {'; '.join(why)}",
            place(record, steps=list(reasons)),
            Severity.WARNING if others else None,
        )
    silent = [s.name for s in record.steps if s.cpu_share is None or s.late_p99_s is None]
    if silent:
        yield Unknown(f"the generator reports no CPU time or delay of step {silent[0]}")


@check(
    REQUESTS_FAILED,
    kinds=("workload",),
    fine="all requests got the answer that is expected",
    example=lambda r: _loaded(r, succeeded=380, failed={"timeout": 20}),
)
def requests_failed(record: Record) -> Outcomes:
    """Steps with more failed requests than the SLO allows; without an SLO, with any."""
    allowed_pct = (record.expected.get("slo") or {}).get("max_error_pct") or 0.0
    for step in record.steps if record.is_server else ():
        if step.error_pct is not None and step.error_pct > allowed_pct:
            reasons = ", ".join(f"{reason} {n}" for reason, n in step.failed.items())
            yield Found(
                f"step {step.name}: {step.error_pct:.2g} % of {step.sent} requests failed ({reasons}), "
                f"{allowed_pct:g} % are allowed",
                place(record, step=step.name, failed=dict(step.failed), sent=step.sent),
            )
