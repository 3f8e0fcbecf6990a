"""Carbon tables and SCI against closed forms and the standard's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.analysis.stats.costs import YEAR_S, CarbonTable, Embodied, Rates

HOURS = "time,g_per_kwh\n2026-03-01T00:00Z,100\n2026-03-01T01:00Z,300\n2026-03-01T02:00Z,200\n"
MIDNIGHT = 1_772_323_200.0  # date -d 2026-03-01T00:00Z +%s


def test_a_row_holds_until_the_next_one_and_the_last_as_long_as_the_one_before() -> None:
    table = CarbonTable.of_csv(HOURS, "grid.csv")
    assert table.since_unix_s == (MIDNIGHT, MIDNIGHT + 3600, MIDNIGHT + 7200)
    assert table.mean(MIDNIGHT, MIDNIGHT + 3600) == 100
    assert table.mean(MIDNIGHT + 1800, MIDNIGHT + 5400) == 200  # half an hour of 100, of 300
    assert table.mean(MIDNIGHT, MIDNIGHT + 3 * 3600) == 200
    assert table.mean(MIDNIGHT + 600, MIDNIGHT + 600) == 100
    assert table.mean(MIDNIGHT - 1, MIDNIGHT + 60) is None
    assert table.mean(MIDNIGHT, MIDNIGHT + 3 * 3600 + 1) is None


def test_times_have_zones_of_their_own() -> None:
    table = CarbonTable.of_csv(
        "time,g_per_kwh\n2026-03-01T01:00+01:00,1\n2026-03-01T01:00Z,2\n", "x"
    )
    assert table.since_unix_s == (MIDNIGHT, MIDNIGHT + 3600)


@given(
    values=st.lists(st.floats(0, 1000), min_size=2, max_size=8),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_mean_is_the_integral(values: list[float], ends: tuple[float, float]) -> None:
    table = CarbonTable("x", tuple(3600.0 * i for i in range(len(values))), tuple(values))
    start, end = sorted(e * 3600 * len(values) for e in ends)
    found = table.mean(start, end)
    assert found is not None
    times = np.linspace(start, end, 40_001)
    middles = (times[1:] + times[:-1]) / 2
    truth = np.mean(np.asarray(values)[np.minimum(middles // 3600, len(values) - 1).astype(int)])
    assert found == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when,g\n", "grid.csv has no column time"),
        ("time,g_per_kwh\n", "needs two rows"),
        ("time,g_per_kwh\nyesterday,100\n", "line 2: 'yesterday' is not a time"),
        ("time,g_per_kwh\n2026-03-01T00:00,100\n", "line 2: '2026-03-01T00:00' has no time zone"),
        ("time,g_per_kwh\n2026-03-01T00:00Z,NaN\n", "line 2: 'NaN' is not a carbon intensity"),
        ("time,g_per_kwh\n2026-03-01T00:00Z,-3\n", "line 2: '-3' is not a carbon intensity"),
        ("time,g_per_kwh\n2026-03-01T00:00Z\n", "line 2: None is not a carbon intensity"),
        ("<html><body>Sign in</body></html>\n", "has no column time"),
        ("time,g_per_kwh\n" + "1" * 200_000, "grid.csv is not a CSV file: field larger"),
        (HOURS + "2026-03-01T02:00Z,5\n", "line 5: its time is not after the line before"),
    ],
)
def test_a_bad_table_is_one_line_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="grid") as caught:
        CarbonTable.of_csv(text, "grid.csv")
    assert said in str(caught.value)


def test_what_is_not_stated_has_no_figure() -> None:
    assert [f.quantity for f in Rates.of({}).factors(None, "image")] == ["energy"]
    assert [f.per for f in Rates.of({}).factors(None, "image")] == ["kWh per million images"]
    factors = Rates.of({"units_per_year": 10, "price_per_kwh": 0.3}).factors(None, "image")
    assert [(f.quantity, f.per) for f in factors] == [
        ("energy", "kWh per million images"), ("cost", "units of the price per million images"),
        ("energy", "kWh per year"), ("cost", "units of the price per year"),
    ]  # fmt: skip
    with_carbon_alone = Rates.of({"carbon_g_per_kwh": 300}).factors(300.0, "image")
    assert "SCI" not in [f.quantity for f in with_carbon_alone]


def test_sci_is_energy_times_intensity_plus_the_reserved_share_of_making_the_hardware() -> None:
    """ISO/IEC 21031: M = TE × TS × RS, TS = time reserved over expected life; by hand, per image."""
    rates = Rates.of(
        {
            "carbon_g_per_kwh": 400.0, "pue": 1.25,
            "embodied": {"kg_co2e": 1500.0, "lifetime_years": 4.0, "share": 0.5},
        }
    )  # fmt: skip
    (sci,) = [f for f in rates.factors(400.0, "image") if f.quantity == "SCI"]
    joules, seconds = 7200.0, 36.0
    operational_g = 0.002 * 1.25 * 400
    embodied_g = 1_500_000 * 0.5 * 36 / (4 * 365.25 * 86400)
    assert joules * sci.per_j + seconds * sci.per_s == pytest.approx(operational_g + embodied_g)
    assert sci.per == "g CO2e per image"
    assert Embodied(1.0, 1.0, 1.0).g_per_s() == pytest.approx(1000 / YEAR_S)


def test_a_table_that_does_not_cover_a_trial_gives_no_carbon_and_says_so() -> None:
    table = CarbonTable.of_csv(HOURS, "grid.csv")
    rates = Rates(carbon=table)
    inside, outside = (MIDNIGHT, MIDNIGHT + 60), (MIDNIGHT - 60, MIDNIGHT)
    assert rates.intensity([inside])[0] == 100
    assert rates.intensity([inside, outside]) == (None, "grid.csv does not cover 1 of 2 trials")
    value, source = rates.intensity([inside, (MIDNIGHT + 3600, MIDNIGHT + 3660)])
    assert value == 200
    assert source == "200 g/kWh, the mean of grid.csv over the trials, 100 to 300"
