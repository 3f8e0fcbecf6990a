"""``requests.csv``: read whole or refused with the line, and summed up as other libraries do."""

from __future__ import annotations

import gzip
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.analysis.meters import load_steps, requests_log
from wattbench.analysis.meters.workload_log import LoadReport
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.records import Phase

HEADER = ",".join(requests_log.COLUMNS)


def line(number: int, latency_s: float = 0.1, /, step: str = "c8", **cells: object) -> str:
    due = 1_700_000_000 + number
    row: dict[str, object] = {
        "step": step, "number": number, "intended_unix_s": f"{due:.6f}", "sent_unix_s": f"{due:.6f}",
        "first_byte_unix_s": f"{due + latency_s / 2:.6f}", "done_unix_s": f"{due + latency_s:.6f}",
        "status": 200, "error": "", "answer": f"{number:016x}", "bytes_out": 10, "bytes_in": 20,
        "tokens_in": "", "tokens_out": "",
    }  # fmt: skip
    return ",".join(str(cell) for cell in (row | cells).values())


def data(*lines: str) -> bytes:
    return ("\n".join([HEADER, *lines]) + "\n").encode()


def read(*lines: str) -> requests_log.Requests:
    found = requests_log.read({"requests.csv": data(*lines)})
    assert found is not None
    return found


def test_plain_and_compressed_files_read_alike() -> None:
    text = data(*(line(n) for n in range(1, 50)))
    plain = requests_log.read({"requests.csv": text})
    packed = requests_log.read({"requests.csv.gz": gzip.compress(text)})
    assert plain is not None
    assert packed is not None
    assert np.array_equal(plain.done_s, packed.done_s)
    assert requests_log.read({"workload.jsonl": b""}) is None


BROKEN = {
    "has 3 cells instead of 13": "c8,1,2",
    "done_unix_s is 'soon', not a number from 0 on": line(3, done_unix_s="soon"),
    "intended_unix_s is 'nan', not a number from 0 on": line(3, intended_unix_s="nan"),
    "tokens_out is '-4', not a number from 0 on": line(3, tokens_out=-4),
    "sent_unix_s is empty": line(3, sent_unix_s=""),
    "step is empty": line(3, step=""),
    "error is none of connect, reset": line(3, error="oops"),
    "it is done before it was due": line(3, -1.0),
    "it has neither an error nor a time at which it was done": line(3, done_unix_s=""),
    "number is not a whole number from 1 on": line(3, number=0),
    "request 2 of step c8 stands there twice": line(2),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_line_is_named(why: str) -> None:
    with pytest.raises(InputError) as error:
        read(line(1), line(2), BROKEN[why])
    assert str(error.value).startswith(f"requests.csv: line 4: {why}")
    assert str(error.value).endswith("; fetch the file again, or run the trial again")


def test_the_line_is_named_in_a_file_of_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_log, "_BLOCK", 4096)
    good = [line(n) for n in range(1, 3200)]
    assert len(read(*good)) == 3199
    good[3139] = line(3140, status="fine")
    with pytest.raises(InputError, match=r"line 3141: status is 'fine'"):
        read(*good)


def test_a_file_that_was_cut_or_is_another_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, why in (
        (data(line(1))[:-20], "line 2: has no end"),
        (b"step,number\n", "line 1: 'step,number' is not the header"),
        (data()[:-1], "holds no request"),
        (HEADER.encode() + b"\n" + b"x" * 5000, "line 2: is longer than 512 characters"),
    ):
        with pytest.raises(InputError, match=why):
            requests_log.read({"requests.csv": content})
    with pytest.raises(InputError, match="can't be unpacked"):
        requests_log.read({"requests.csv.gz": gzip.compress(data(line(1)))[:-9]})
    monkeypatch.setattr(requests_log, "MOST_REQUESTS", 2)
    with pytest.raises(InputError, match="more than 2 requests"):
        read(*(line(n) for n in range(1, 5)))


@given(st.lists(st.floats(0.001, 30), min_size=2, max_size=60))
def test_percentiles_are_those_of_the_standard_library(latencies: list[float]) -> None:
    requests = read(*(line(n, latency) for n, latency in enumerate(latencies, start=1)))
    (step,) = load_steps.steps_of(requests, [], [Phase("steady:c8", 0.0, 60.0)], {})
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    found = step.latency_s
    assert found is not None
    assert [found.p50, found.p90, found.p99, found.max] == pytest.approx(
        [cuts[49], cuts[89], cuts[98], max(latencies)], abs=2e-6
    )


def test_a_step_counts_what_the_requests_and_the_generator_say() -> None:
    lines = [line(n, 0.1 if n % 2 else 0.3, tokens_in=5, tokens_out=8) for n in range(1, 9)]
    lines += [line(9, 9.0, error="timeout", status=""), line(10, 0.01, error="status", status=500)]
    lines += [line(1, step="warmup")]
    report = LoadReport("steady:c8", 8, None, 10, 10, 20.0, 1.5, 1.0, 0.001, 0.002)
    phase = Phase("steady:c8", 5.0, 20.1, energy_j=160.0, energy_uncertainty_j=2.0, mean_w=8.0)
    expected = {
        "steps": [{"name": "c8", "concurrency": 8, "requests": 10}], "slo": {"p99_ms": 200.0},
        "answers_compared": True,
    }  # fmt: skip
    (step,) = load_steps.steps_of(read(*lines), [report], [phase], expected)
    assert (step.sent, step.succeeded, step.failed) == (10, 8, {"status": 1, "timeout": 1})
    assert (step.error_pct, step.within_slo, step.per_second(step.within_slo)) == (20.0, 4, 0.2)
    assert (step.tokens_in, step.tokens_out) == (40, 64)
    assert (step.joules_per(step.succeeded), step.joules_per(step.tokens_out)) == (20.0, 2.5)
    assert step.cpu_share == 0.075
    assert step.answers[:16] == f"{1:016x}"[:8] + f"{2:016x}"[:8]


def test_a_request_without_an_answer_is_blank_among_the_answers() -> None:
    lines = [line(1), line(3, answer="ff" * 8), line(4, error="reset", answer="")]
    expected = {"answers_compared": True}
    (step,) = load_steps.steps_of(read(*lines), [], [Phase("steady:c8", 0.0, 1.0)], expected)
    assert step.answers == "00000000" + " " * 8 + "ffffffff" + " " * 8
