"""The meter ``prometheus`` against a server of its query API with known truth."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.support.wall_meter import Answers, Device, Load, Prometheus, digits, serving
from wattbench.remote_meters import reader_of
from wattbench.remote_meters.prometheus import PrometheusSettings
from wattbench.remote_meters.protocol import Reader, RemoteMeterError

SELECTOR, SUM = 'pdu_energy_joules_total{outlet="4"}', "sum(pdu_power_watts)"
STEADY = Device(Load(((0.0, 120.0),)))


def server(**how: Any) -> Prometheus:
    """One outlet's counter, as a plain selector, and a sum of powers."""

    def counter(scrape_s: float) -> str:
        return digits(STEADY.energy_j(scrape_s), 1.0)

    known: Any = {SELECTOR: [({"outlet": "4"}, counter)], SUM: [({}, lambda _: "120.5")]}
    return Prometheus(known, selectors=frozenset({SELECTOR}), **how)


@contextmanager
def reading(
    prometheus: Prometheus | Answers, query: str = SELECTOR, **keys: Any
) -> Iterator[Reader]:
    answers = prometheus.answers() if isinstance(prometheus, Prometheus) else prometheus
    with serving(answers) as url:
        asked = {"power": {"query": query}} if query == SUM else {}
        asked = asked or {"energy": {"query": query, "unit": "J"}}
        given = {"url": url, "name": "pdu", "interval_ms": 1000, **asked, **keys}
        reader = reader_of(PrometheusSettings.model_validate(given))
        yield reader
        reader.client.close()


def refusal(prometheus: Prometheus | Answers, query: str = SELECTOR) -> str:
    with reading(prometheus, query) as reader:
        with pytest.raises(RemoteMeterError) as caught:
            reader.probe()
        return reader.explained(caught.value)


@pytest.mark.parametrize("ahead_s", [0.0, 3.25, -2.5])
def test_a_counter_is_read_at_the_moments_of_its_scrapes_on_our_clock(ahead_s: float) -> None:
    now = time.time()
    with reading(server(ahead_s=ahead_s)) as reader:
        reader.probe()
        found = reader.history(now - 30, now - 5)
    assert found.scraped
    assert found.ahead_s == pytest.approx(ahead_s, abs=found.trip_s / 2 + 0.01)
    assert 24 <= len(found.samples) <= 27
    for sample in found.samples:
        theirs_s = sample.unix_s + found.ahead_s
        assert theirs_s == pytest.approx(round(theirs_s), abs=1e-3)  # scraped at whole seconds
        assert float(sample.energy or 0) == pytest.approx(120.0 * round(theirs_s), abs=1.0)


def test_an_expression_gives_the_moments_that_were_asked_for() -> None:
    now = time.time()
    with reading(server(), SUM) as reader:
        found = reader.history(now - 20, now - 10)
    assert not found.scraped
    assert {s.power for s in found.samples} == {"120.5"}
    assert len(found.samples) == 11


def test_values_that_prometheus_only_repeats_are_not_readings() -> None:
    now = time.time()
    silent = ((now - 60.0, now - 40.0),)
    with reading(server(silent=silent)) as reader:
        found = reader.history(now - 80, now - 20)
    moments = [s.unix_s + found.ahead_s for s in found.samples]
    assert not any(now - 59.5 < m < now - 40.5 for m in moments)
    assert max(b - a for a, b in itertools.pairwise(moments)) >= 20


def test_a_meter_that_is_no_longer_scraped_is_refused_before_anything_is_measured() -> None:
    text = refusal(server(silent=((time.time() - 90.0, time.time() + 1e6),)))
    assert re.match(r"prometheus meter pdu gives a newest value that is \d+ s old; check", text)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({SELECTOR: [({"phase": "a"}, lambda _: "1"), ({"phase": "b"}, lambda _: "2")]},
         "gives 2 series for its query ({phase=a} and {phase=b}); choose one by a label, or add them by sum()"),
        ({SELECTOR: []}, "gives no values for its query; try it on the server's own page"),
        ({}, "answers 400 Bad Request"),
        ({SELECTOR: [({}, lambda _: "NaN")]}, "gives a value of its query as NaN"),
        ({SELECTOR: [({}, lambda _: "0")]}, "gives a value of its query as 0; is it the meter"),
        ({SELECTOR: [({}, lambda _: "+Inf")]}, "gives a value of its query as Infinity"),
    ],
)  # fmt: skip
def test_what_is_not_one_series_of_numbers_is_one_line(change: Any, why: str) -> None:
    text = refusal(replace(server(), series=change))
    assert text.startswith("prometheus meter pdu " + why), text
    assert "\n" not in text


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"status":"success","data":{}}',
                                  b'{"status":"success","data":{"result":[1,"x"]}}'])  # fmt: skip
def test_a_server_that_is_not_prometheus_is_reported(body: bytes) -> None:
    other = Answers(
        dict.fromkeys(("/api/v1/query", "/api/v1/query_range"), lambda _: (200, "", body))
    )
    assert refusal(other).startswith("prometheus meter pdu ")


def test_values_that_can_t_be_used_are_errors_beside_the_others() -> None:
    now = time.time()
    bad_s = round(now) - 15

    def flaky(scrape_s: float) -> str:
        return "NaN" if scrape_s == bad_s else "120.5"

    with reading(replace(server(), series={SUM: [({}, flaky)]}), SUM) as reader:
        found = reader.history(now - 20, now - 10)
    assert [why for _, why in found.errors] == [
        "gives a value of its query as NaN; look at the meter"
    ]
    assert len(found.samples) == 10


def test_power_and_counter_in_one_meter_are_refused() -> None:
    both = {"power": {"query": "a"}, "energy": {"query": "b", "unit": "J"}}
    for given in ({}, both):
        with pytest.raises(ValueError, match="a query of either power or energy"):
            PrometheusSettings.model_validate({"url": "http://p", **given})
