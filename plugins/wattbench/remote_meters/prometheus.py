"""The meter ``prometheus``: a PromQL query over the window, asked after it."""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from wattbench.remote_meters.protocol import (
    EnergyValue,
    History,
    PowerValue,
    Reader,
    RemoteMeterError,
    RemoteSettings,
    Sample,
    number,
)

Query = Annotated[str, StringConstraints(min_length=1, max_length=4000)]

#: Prometheus refuses a range query of more points.
MOST_POINTS = 11_000
#: How long before now a probe looks for values, in intervals.
_PROBED = 5


class PowerQuery(PowerValue):
    """A PromQL query of power.

    Attributes:
        query: Expression with one series; ``sum(…)`` makes one of several.
        unit: Unit of its values.
    """

    query: Query


class EnergyQuery(EnergyValue):
    """A PromQL query of a cumulative energy counter.

    Attributes:
        query: Expression with one series, of the counter itself and not of its ``rate()``.
        unit: Unit of its values.
        wraps_at: Value at which the counter begins anew, in its unit; null: never, so that one that falls
            was reset.
    """

    query: Query


class PrometheusSettings(RemoteSettings):
    """A query to a Prometheus server, such as of a data centre's PDU; asked by the controller.

    Attributes:
        kind: ``prometheus``.
        url: Address of the server, as a browser shows its page.
        interval_ms: Time between two scrapes of the meter, milliseconds.
        power: Query of its power.
        energy: Query of its energy counter; give one of the two.
    """

    live: ClassVar[bool] = False

    kind: Literal["prometheus"] = "prometheus"
    interval_ms: Annotated[int, Field(ge=100, le=600_000)] = 15_000
    power: PowerQuery | None = None
    energy: EnergyQuery | None = None

    @model_validator(mode="after")
    def _asks_once(self) -> PrometheusSettings:
        if (self.power is None) == (self.energy is None):
            raise ValueError("takes a query of either power or energy; give one of them")
        return self


class PrometheusReader(Reader):
    """A range query with one series."""

    Settings: ClassVar[type[RemoteSettings]] = PrometheusSettings
    settings: PrometheusSettings

    @property
    def units(self) -> dict[str, Any]:
        """Of the query, with the query."""
        asked = self.settings.power or self.settings.energy
        assert asked is not None
        return {**super().units, "query": asked.query}

    def probe(self) -> None:
        """Ask for the last few intervals: all values have to be usable, and the last one new."""
        now, seconds, lag_s = time.time(), self.settings.interval_s, self.settings.lag_s
        found = self.history(now - _PROBED * seconds - lag_s, now)
        if found.errors:
            raise RemoteMeterError(found.errors[-1][1])
        age_s = now - found.samples[-1].unix_s
        if age_s > 2 * seconds + lag_s + 1.0:
            raise RemoteMeterError(
                f"gives a newest value that is {age_s:.0f} s old; check that Prometheus still scrapes the "
                "meter, and interval_ms"
            )

    def history(self, start_s: float, end_s: float) -> History:
        """The series between two moments of the controller's clock.

        Prometheus repeats a value for minutes after the last scrape. Of a plain selector it gives the
        moments of the scrapes too: these count, and repetitions don't.
        """
        ahead_s, trip_s = self._clock()
        span = {
            "start": f"{start_s + ahead_s:.3f}",
            "end": f"{end_s + ahead_s:.3f}",
            "step": f"{max(self.settings.interval_s, (end_s - start_s) / (MOST_POINTS - 1)):.3f}",
        }
        query = self.units["query"]
        values = self._series({"query": query, **span})
        if not values:
            raise RemoteMeterError(
                "gives no values for its query; try it on the server's own page, and correct it"
            )
        try:
            scraped = {
                moment: float(text)
                for moment, text in self._series({"query": f"timestamp({query})", **span})
            }
        except (RemoteMeterError, ValueError):
            scraped = {}
        # Of an expression, which has no moments of its own, the server gives those that were asked for.
        is_scraped = any(abs(at_s - moment) > 1e-3 for moment, at_s in scraped.items())
        samples: dict[float, Sample] = {}
        errors: list[tuple[float, str]] = []
        for moment, text in values:
            try:
                value = str(number(text, "a value of its query"))
                taken_s = scraped.get(moment, moment) - ahead_s
            except RemoteMeterError as error:
                errors.append((moment - ahead_s, str(error)))
                continue
            is_power = self.settings.power is not None
            samples[taken_s] = (
                Sample(taken_s, trip_s, power=value)
                if is_power
                else Sample(taken_s, trip_s, energy=value)
            )
        if not samples:
            raise RemoteMeterError(errors[-1][1])
        return History(
            tuple(samples[at] for at in sorted(samples)), tuple(errors), ahead_s, trip_s, is_scraped
        )

    def _series(self, query: dict[str, str]) -> list[tuple[float, str]]:
        """Moments of the server's clock and values, of the only series; empty: there is none."""
        data, _ = self._ask("query_range", query)
        series = data.get("result") if data.get("resultType") == "matrix" else None
        if not isinstance(series, list):
            raise RemoteMeterError("gives something else than a series; correct its query")
        if len(series) > 1:
            named = " and ".join(_labels(one) for one in series[:2])
            raise RemoteMeterError(
                f"gives {len(series)} series for its query ({named}); choose one by a label, or add them by "
                "sum()"
            )
        try:
            return [(float(t), str(v)) for one in series for t, v in one["values"]]
        except (KeyError, TypeError, ValueError):
            raise RemoteMeterError("answers not as Prometheus does; correct its url") from None

    def _clock(self) -> tuple[float, float]:
        """How far the server's clock is ahead of ours, and the shortest round trip that showed it, s."""
        best = (float("inf"), 0.0)
        for _ in range(3):
            asked = time.time()
            data, trip_s = self._ask("query", {"query": "time()"})
            result = data.get("result")
            if not isinstance(result, list) or len(result) != 2:
                raise RemoteMeterError("answers not as Prometheus does; correct its url")
            theirs = float(number(str(result[1]), "its time()"))
            best = min(best, (trip_s, theirs - (asked + trip_s / 2)))
        return best[1], best[0]

    def _ask(self, verb: str, query: dict[str, str]) -> tuple[dict[str, Any], float]:
        address = f"{self.settings.url.rstrip('/')}/api/v1/{verb}"
        document, trip_s = self.client.json(address, query)
        data = document.get("data") if isinstance(document, dict) else None
        if not isinstance(data, dict) or document.get("status") != "success":
            raise RemoteMeterError("answers not as Prometheus does; correct its url")
        return data, trip_s


def _labels(series: Any) -> str:
    labels = series.get("metric") if isinstance(series, dict) else None
    text = ", ".join(f"{k}={v}" for k, v in (labels or {}).items())
    return "{" + text[:80] + "}"
