"""The meter ``http``: a device that answers JSON with its power, its energy counter, or both."""

from __future__ import annotations

import time
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import StringConstraints, model_validator

from wattbench.remote_meters.protocol import (
    STALE_S,
    EnergyValue,
    PowerValue,
    Reader,
    RemoteMeterError,
    RemoteSettings,
    Sample,
    number,
)

#: Names of keys and indexes of lists, from the outermost in, joined by dots.
Path = Annotated[str, StringConstraints(pattern=r"^[^\s.]+(\.[^\s.]+)*$", max_length=200)]


class PowerPath(PowerValue):
    """Where the power stands in a document.

    Attributes:
        path: Keys from the outermost in, joined by dots; a number is an index: ``emeters.0.power``.
        unit: Unit of the value.
    """

    path: Path


class EnergyPath(EnergyValue):
    """Where the cumulative energy counter stands in a document.

    Attributes:
        path: Keys from the outermost in, joined by dots; a number is an index.
        unit: Unit of the value.
        wraps_at: Value at which the counter begins anew, in its unit; null: never, so that one that falls
            was reset.
    """

    path: Path


class HttpSettings(RemoteSettings):
    """A meter that answers JSON over HTTP, such as a wall plug; read by the controller.

    Attributes:
        kind: ``http``.
        power: Where its power stands.
        energy: Where its energy counter stands; of power and counter the one of less uncertainty counts.
        time: Path of the reading's own time, Unix seconds or ISO 8601 with a time zone; null: it has none,
            and a value that stands still is recognised by its repetition only.
    """

    kind: Literal["http"] = "http"
    power: PowerPath | None = None
    energy: EnergyPath | None = None
    time: Path | None = None

    @model_validator(mode="after")
    def _reads_something(self) -> HttpSettings:
        if self.power is None and self.energy is None:
            raise ValueError("neither power nor energy is given; name the path of at least one")
        return self


class HttpReader(Reader):
    """A device that is asked again and again while the window lasts."""

    Settings: ClassVar[type[RemoteSettings]] = HttpSettings
    settings: HttpSettings

    def probe(self) -> None:
        """Read it once."""
        self.sample()

    def sample(self) -> Sample:
        """Its values now."""
        settings = self.settings
        document, trip_s = self.client.json(settings.url)
        now = time.time()
        if settings.time is not None:
            age_s = now - _moment(_at(document, settings.time), settings.time)
            oldest_s = STALE_S + settings.lag_s + settings.interval_s
            if abs(age_s) > oldest_s:
                old = f"{age_s:.0f} s old" if age_s > 0 else f"{-age_s:.0f} s in the future"
                raise RemoteMeterError(
                    f"gives a reading that is {old} ({settings.time}); check that it still "
                    "measures, and its clock"
                )
        values = [
            None if one is None else str(number(_at(document, one.path), one.path))
            for one in (settings.power, settings.energy)
        ]
        return Sample(now, trip_s, *values)


def _at(document: Any, path: str) -> Any:
    """The value at a path.

    Raises:
        RemoteMeterError: there is none.
    """
    found = document
    for part in path.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            there = ", ".join(list(found)[:12]) if isinstance(found, dict) else ""
            has = f"; there is {there[:160]}" if there else ""
            raise RemoteMeterError(f"answers without {path}{has}; correct the path")
    return found


def _moment(value: Any, path: str) -> float:
    """Unix seconds of a reading's own time."""
    if isinstance(value, Decimal) and value.is_finite():
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RemoteMeterError(
            f"gives {path} as {str(value)[:40]!r}, neither Unix seconds nor ISO 8601 with a time zone; "
            "leave out `time`"
        )
    return moment.timestamp()
