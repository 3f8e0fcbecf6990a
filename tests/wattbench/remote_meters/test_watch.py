"""Readings around a window: from a real server to joules, and what a killed or failing reading leaves."""

from __future__ import annotations

import contextvars
import json
import time
from typing import Any

import pytest

from tests.support.wall_meter import Answers, Device, Load, Prometheus, as_json, serving, shelly
from wattbench.analysis.meters.remote import remote_reading
from wattbench.analysis.meters.window import split
from wattbench.remote_meters import reader_of
from wattbench.remote_meters.http import HttpSettings
from wattbench.remote_meters.prometheus import PrometheusSettings
from wattbench.remote_meters.protocol import Reader
from wattbench.remote_meters.watch import EDGE_READINGS, Watch

STEADY = Device(Load(((0.0, 120.0),)))


def plug(url: str, **keys: Any) -> Reader:
    given = {
        "name": "plug", "interval_ms": 100, "averaged_s": 0.1,
        "url": f"{url}/rpc/Switch.GetStatus", "energy": {"path": "aenergy.total", "unit": "Wh"},
    }  # fmt: skip
    return reader_of(HttpSettings.model_validate(given | keys))


def lines(watch: Watch, name: str = "http.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in watch.files()[name].splitlines()]


def test_a_plug_that_is_polled_around_a_window_gives_its_joules() -> None:
    with serving(shelly(STEADY)) as url, Watch([plug(url)]) as watch:
        watch.clock(0.0, 0.0)
        start = time.time()
        time.sleep(0.5)
        end = time.time()
        watch.clock(0.0, 0.0)
        watch.window(start, end)
    reading = remote_reading("http", watch.files()["http.jsonl"])
    (curve,) = reading.curves
    cut = split(curve, [start, end])
    assert [n for n in (*reading.notes, *cut.notes) if n.fatal] == []
    assert (curve.domain, curve.meter) == ("wall", "plug")
    assert abs(cut.total_j - 120.0 * (end - start)) <= cut.total_uncertainty_j


def test_a_query_after_the_window_covers_it_on_both_sides() -> None:
    query = "e"
    series: Any = {query: [({}, lambda at_s: f"{120.0 * at_s:.3f}")]}
    server = Prometheus(series, scrape_s=0.2, selectors=frozenset({query}), ahead_s=5.0)
    with serving(server.answers()) as url:
        given = {
            "url": url,
            "interval_ms": 200,
            "averaged_s": 0,
            "energy": {"query": query, "unit": "J"},
        }
        with Watch([reader_of(PrometheusSettings.model_validate(given))]) as watch:
            watch.clock(0.0, 0.0)
            start, end = time.time() - 8.0, time.time() - 3.0
            watch.clock(0.0, 0.0)
            watch.window(start, end)
    reading = remote_reading("prometheus", watch.files()["prometheus.jsonl"])
    (curve,) = reading.curves
    cut = split(curve, [start, end])
    assert [n for n in (*reading.notes, *cut.notes) if n.fatal] == []
    assert abs(cut.total_j - 120.0 * (end - start)) <= cut.total_uncertainty_j < 200.0


def test_a_meter_that_fails_leaves_why_and_stops_nothing() -> None:
    broken = Answers({"/rpc/Switch.GetStatus": lambda _: (200, "text/html", b"<html>")})
    with serving(broken) as url, Watch([plug(url)]) as watch:
        watch.clock(0.0, 0.0)
    errors = [line["error"]["error"] for line in lines(watch) if "error" in line]
    assert len(errors) >= 2 * EDGE_READINGS
    assert errors[0].startswith("http meter plug answers a web page (HTML)")
    reading = remote_reading("http", watch.files()["http.jsonl"])
    assert reading.curves == ()
    assert [n.message for n in reading.notes if n.fatal] == [errors[0]] or errors[0] in [
        n.message for n in reading.notes if n.fatal
    ]


def test_a_meter_that_fails_is_logged_for_whom_it_is_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The triggerer finds a line's log in the context."""
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nothing")
    seen: list[str] = []
    caplog.handler.addFilter(lambda _: seen.append(whose.get()) is None)
    broken = Answers({"/rpc/Switch.GetStatus": lambda _: (200, "text/html", b"<html>")})

    def read(url: str) -> None:
        whose.set("trial 3")
        with Watch([plug(url)]):
            pass

    with serving(broken) as url:
        contextvars.copy_context().run(read, url)
    assert seen
    assert set(seen) == {"trial 3"}


def test_a_task_that_goes_on_keeps_what_the_killed_one_has_read() -> None:
    with serving(shelly(STEADY)) as url:
        with pytest.raises(KeyboardInterrupt), Watch([plug(url)]) as first:
            raise KeyboardInterrupt
        with Watch([plug(url)], first.files()) as second:
            pass
    before, after = lines(first), lines(second)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert sum("settings" in line for line in after) == 1


def test_the_raw_file_holds_no_login() -> None:
    from wattbench.remote_meters import Access

    answers = Answers({"/": lambda _: as_json({"w": 3.5})})
    with serving(answers) as url:
        settings = {"url": url + "/", "power": {"path": "w"}, "interval_ms": 100, "averaged_s": 0}
        reader = reader_of(HttpSettings.model_validate(settings), Access("query", "u", "s3cret"))
        with Watch([reader]) as watch:
            pass
    assert b"s3cret" not in watch.files()["http.jsonl"]
    assert any("password=s3cret" in path for path, _ in answers.asked)
