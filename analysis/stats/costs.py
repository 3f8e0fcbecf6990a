"""Money and carbon of joules: kWh, cost, CO2e and SCI of units of work, from figures that the user states.

No price and no grid is assumed: what is not given has no figure. SCI is that of ISO/IEC 21031:2024,
``((E × I) + M) per R``: energy, carbon intensity, embodied emissions of the reserved share of the hardware
over the reserved share of its life, and the functional unit R, here a unit of work.
"""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

J_PER_KWH = 3.6e6
YEAR_S = 365.25 * 86_400
MILLION = 1e6

#: The longest table of carbon intensities: two years of hours.
TABLE_ROWS = 2 * 366 * 24
_COLUMNS = ("time", "g_per_kwh")


@dataclass(frozen=True)
class CarbonTable:
    """Carbon intensity of a grid over time; a row holds until the next one.

    Attributes:
        name: of its file.
        since_unix_s: ascending.
        g_per_kwh: intensity from then on, g CO2e/kWh.
    """

    name: str
    since_unix_s: tuple[float, ...]
    g_per_kwh: tuple[float, ...]

    @classmethod
    def of_csv(cls, text: str, name: str) -> CarbonTable:
        """Read a file with the columns ``time`` (ISO 8601 with its zone) and ``g_per_kwh``.

        Raises:
            ValueError: one line with the place.
        """
        try:
            return cls._of_rows(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))), name)
        except csv.Error as error:
            raise ValueError(f"{name} is not a CSV file: {error}") from None

    @classmethod
    def _of_rows(cls, rows: csv.DictReader[str], name: str) -> CarbonTable:
        if missing := [c for c in _COLUMNS if c not in (rows.fieldnames or ())]:
            raise ValueError(f"{name} has no column {missing[0]}; it needs time and g_per_kwh")
        since: list[float] = []
        values: list[float] = []
        for line, row in enumerate(rows, start=2):
            at, value = _row(row, f"{name} line {line}")
            if since and at <= since[-1]:
                raise ValueError(f"{name} line {line}: its time is not after the line before")
            since.append(at)
            values.append(value)
            if len(since) > TABLE_ROWS:
                raise ValueError(
                    f"{name} has more than {TABLE_ROWS} rows; keep the time of the runs"
                )
        if len(since) < 2:
            raise ValueError(f"{name} needs two rows or more: a row holds until the next one")
        return cls(name, tuple(since), tuple(values))

    @property
    def end_unix_s(self) -> float:
        """Until when the last row holds: as long as the one before it did."""
        return self.since_unix_s[-1] + (self.since_unix_s[-1] - self.since_unix_s[-2])

    def mean(self, start_s: float, end_s: float) -> float | None:
        """Mean intensity over a window; None where the table does not cover all of it."""
        if start_s < self.since_unix_s[0] or end_s > self.end_unix_s:
            return None
        edges = [*self.since_unix_s, self.end_unix_s]
        place = bisect_right(edges, start_s) - 1
        if end_s <= start_s:
            return self.g_per_kwh[min(place, len(self.g_per_kwh) - 1)]
        total, at = 0.0, start_s
        while at < end_s:
            until = min(edges[place + 1], end_s)
            total += self.g_per_kwh[place] * (until - at)
            at, place = until, place + 1
        return total / (end_s - start_s)


def _row(row: Mapping[str, str | None], place: str) -> tuple[float, float]:
    try:
        time = datetime.fromisoformat((row["time"] or "").strip())
    except ValueError:
        raise ValueError(
            f"{place}: {row['time']!r} is not a time such as 2026-03-01T13:00Z"
        ) from None
    if time.tzinfo is None:
        raise ValueError(f"{place}: {row['time']!r} has no time zone; add Z or an offset")
    try:
        value = float(row["g_per_kwh"] or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{place}: {row['g_per_kwh']!r} is not a carbon intensity in g/kWh")
    return time.timestamp(), value


@dataclass(frozen=True)
class Embodied:
    """Emissions of making the hardware.

    Attributes:
        kg_co2e: of all of it.
        lifetime_years: over which they are spread.
        share: of the hardware that the work reserves.
    """

    kg_co2e: float
    lifetime_years: float
    share: float

    def g_per_s(self) -> float:
        """Emissions of a second of the reserved share, g CO2e."""
        return 1000 * self.kg_co2e * self.share / (self.lifetime_years * YEAR_S)


@dataclass(frozen=True)
class Factor:
    """A quantity of work: a unit that needs ``e`` J and ``t`` s has ``e × per_j + t × per_s`` of it.

    Attributes:
        quantity: its name.
        per: its unit.
        per_j: of one joule of a unit of work.
        per_s: of one second of it.
    """

    quantity: str
    per: str
    per_j: float
    per_s: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What the user states of electricity and hardware; None: not stated.

    Attributes:
        price_per_kwh: of the electricity.
        currency: of the price.
        carbon: g CO2e/kWh, or a table over time.
        pue: power usage effectiveness: joules of the building per joule of the machine.
        units_per_year: the load.
        embodied: of the hardware.
    """

    price_per_kwh: float | None = None
    currency: str | None = None
    carbon: float | CarbonTable | None = None
    pue: float | None = None
    units_per_year: float | None = None
    embodied: Embodied | None = None

    @classmethod
    def of(cls, analysis: Mapping[str, Any]) -> Rates:
        """From the experiment's ``analysis``."""
        carbon, embodied = analysis.get("carbon_g_per_kwh"), analysis.get("embodied")
        if isinstance(carbon, Mapping):
            carbon = CarbonTable(
                str(carbon["file"]), tuple(carbon["since_unix_s"]), tuple(carbon["g_per_kwh"])
            )
        known = ("price_per_kwh", "currency", "pue", "units_per_year")
        return cls(
            **{key: analysis.get(key) for key in known},
            carbon=carbon,
            embodied=Embodied(**embodied) if isinstance(embodied, Mapping) else None,
        )

    def intensity(self, windows: Sequence[tuple[float, float]]) -> tuple[float | None, str]:
        """Carbon intensity of a run, g CO2e/kWh, and what is to be said of it.

        Args:
            windows: start and end of its trials, Unix seconds; of a table their mean counts.
        """
        if not isinstance(self.carbon, CarbonTable):
            return self.carbon, ""
        means = [self.carbon.mean(start, end) for start, end in windows]
        known = [mean for mean in means if mean is not None]
        if not known or len(known) < len(means):
            return (
                None,
                f"{self.carbon.name} does not cover {len(means) - len(known)} of {len(means)} trials",
            )
        value = sum(known) / len(known)
        spread = f", {min(known):.4g} to {max(known):.4g}" if min(known) < max(known) else ""
        return value, f"{value:.4g} g/kWh, the mean of {self.carbon.name} over the trials{spread}"

    def factors(self, g_per_kwh: float | None, unit: str) -> list[Factor]:
        """Every quantity that the stated figures allow.

        Args:
            g_per_kwh: carbon intensity; None: not known.
            unit: what a unit of work is called.
        """
        kwh = (self.pue or 1.0) / J_PER_KWH
        scales = [(f"million {unit}s", MILLION)]
        if self.units_per_year is not None:
            scales.append(("year", self.units_per_year))
        found: list[Factor] = []
        for word, units in scales:
            found.append(Factor("energy", f"kWh per {word}", kwh * units))
            if self.price_per_kwh is not None:
                money = self.currency or "units of the price"
                found.append(
                    Factor("cost", f"{money} per {word}", kwh * units * self.price_per_kwh)
                )
            if g_per_kwh is not None:
                found.append(Factor("CO2e", f"kg per {word}", kwh * units * g_per_kwh / 1000))
        if g_per_kwh is not None and self.embodied is not None:
            per_s = self.embodied.g_per_s()
            found.append(Factor("SCI", f"g CO2e per {unit}", kwh * g_per_kwh, per_s))
        return found
