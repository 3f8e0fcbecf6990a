"""What the checks of servers share: whether a step's load was the one that was planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from wattbench.analysis.checks.evidence import place
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.meters.load_steps import DIGITS
from wattbench.analysis.model.records import LoadStep, Record

#: Share of its CPUs from which on a generator delays what it sends. It is one queue: at a load ρ a request
#: waits ρ / (2 (1 − ρ)) times as long as the generator needs for one: twice at 0.8, 4.5 times at 0.9.
MOST_CPU_SHARE = 0.8
#: Share of the 99th percentile of the latency that may be the generator's own delay.
MOST_LATE_SHARE = 0.1
#: Delays below this are those of any timer, and no latency is claimed finer, s.
TIMER_S = 0.001


def overload(step: LoadStep) -> tuple[str, ...]:
    """Why the generator could not keep up with a step; empty: it could.

    A latency counts from the intended time, so the generator's own delay is in it; a rate of which half of
    the requests are sent later than one interval is not the rate that was planned.
    """
    reasons = []
    if step.cpu_share is not None and step.cpu_share >= MOST_CPU_SHARE:
        reasons.append(f"it used {100 * step.cpu_share:.0f} % of its CPU time")
    late_s, latency = step.late_p99_s, step.latency_s
    allowed_s = max(TIMER_S, MOST_LATE_SHARE * latency.p99) if latency else None
    if late_s is not None and allowed_s is not None and late_s > allowed_s:
        reasons.append(
            f"1 % of the requests were sent {1e3 * late_s:.1f} ms or more late, "
            f"{1e3 * allowed_s:.1f} ms are allowed"
        )
    if step.rate_per_s and step.late_p50_s is not None:
        interval_s = max(TIMER_S, 1 / step.rate_per_s)
        if step.late_p50_s > interval_s:
            reasons.append(
                f"half of the requests were sent {1e3 * step.late_p50_s:.1f} ms or more late, at an "
                f"interval of {1e3 * interval_s:.1f} ms"
            )
    return tuple(reasons)


def unequal_load(record: Record) -> Iterator[Found]:
    """Steps and requests of a trial against those of the plan."""
    found = {step.name: step for step in record.steps}
    for asked in record.expected.get("steps") or ():
        step = found.get(asked["name"])
        if step is None:
            yield Found(f"step {asked['name']} was not run", place(record, step=asked["name"]))
            continue
        planned = asked.get("requests") or step.planned
        if None not in (planned, step.sent) and step.sent != planned:
            yield Found(
                f"step {step.name}: {step.sent} of {planned} planned requests were sent",
                place(record, step=step.name, planned=planned, sent=step.sent),
            )
    reported = {r.phase.removeprefix("steady:"): r.done for r in record.work.results}
    for step in record.steps:
        counted = step.tokens_out if record.work.unit == "token" else step.succeeded
        own = reported.get(step.name)
        if own is not None and counted is not None and step.sent and own != counted:
            yield Found(
                f"step {step.name}: the generator reports {own:g} {record.work.unit or 'unit'}s, "
                f"requests.csv has {counted}",
                place(record, step=step.name, reported=own, counted=counted),
            )


def odd_answers(records: Sequence[Record]) -> Outcomes:
    """Answers that differ from those of most trials to the same request."""
    names = dict.fromkeys(step.name for record in records for step in record.steps)
    for name in names:
        answers = [(r, s.answers) for r in records for s in r.steps if s.name == name and s.answers]
        if len({text for _, text in answers}) < 2:
            continue
        usual = _usual([text for _, text in answers])
        for record, text in answers:
            own = _cells(text)
            odd = [
                number
                for number, (mine, most) in enumerate(zip(own, usual, strict=False), start=1)
                if mine.strip() and mine != most
            ]
            if odd:
                yield Found(
                    f"step {name}: the answers to {len(odd)} of {len(own)} requests differ from those of "
                    f"most trials, request {odd[0]} first",
                    place(record, step=name, requests=odd[:20], differ=len(odd)),
                    subject=record.subject,
                )


def _cells(text: str) -> list[str]:
    return [text[at : at + DIGITS] for at in range(0, len(text), DIGITS)]


def _usual(texts: Sequence[str]) -> list[str]:
    """The answer of most trials to each request; trials without an answer to it don't vote."""
    whole = Counter(texts)
    length = max(len(text) for text in texts) // DIGITS
    votes: list[Counter[str]] = [Counter() for _ in range(length)]
    for text, times in whole.items():
        for number, cell in enumerate(_cells(text)):
            if cell.strip():
                votes[number][cell] += times
    return [vote.most_common(1)[0][0] if vote else "" for vote in votes]


def unproven(records: Sequence[Record]) -> Outcomes:
    """Servers whose answers are not compared."""
    silent = [r for r in records if not r.expected.get("answers_compared")]
    if silent:
        yield Unknown(
            f"the answers of {len(silent)} trials are not compared; set workload.load.expect.json"
        )
