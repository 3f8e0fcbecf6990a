"""Text of numbers and intervals."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.analysis.presentation import formatting
from wattbench.analysis.stats.results import Interval

Text = str


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(1234567.0, 3, "1\u202f234\u202f567"), (0.012345, 3, "0.0123"), (0, 3, "0"), (-2.5, 2, "−2.5"), (None, 3, "–")],
)  # fmt: skip
def test_significant_digits(value: float | None, digits: int, shown: str) -> None:
    assert formatting.significant(value, digits) == shown


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (None, None, "unbounded"),
        (None, 1.0, "up to +1.0\u202f%"),
        (-3.0, None, "−3.0\u202f% or more"),
        (-0.04, 0.2, "−0.04 to +0.20\u202f%"),
        (-5.0, -4.1, "−5.0 to −4.1\u202f%"),
    ],
)
def test_an_interval_names_every_bound_that_it_has(
    low: float | None, high: float | None, shown: str
) -> None:
    assert formatting.interval(Interval(0.0, low, high, 0.95)) == shown


def test_no_interval_is_not_an_unbounded_one() -> None:
    assert formatting.interval(None) == "no interval"
    assert formatting.interval(None, none="–") == "–"


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(0, 6))
def test_a_number_reads_back_as_the_rounded_value(value: float, digits: int) -> None:
    shown = formatting.number(value, digits, signed=True)
    back = float(shown.replace("\u202f", "").replace("−", "-"))
    assert back == round(value, digits)
    assert math.copysign(1, back) == 1 or back < 0


@pytest.mark.parametrize("value", [None, math.nan, math.inf, pd.NA, pd.NaT])
def test_a_missing_value_is_a_dash(value: object) -> None:
    assert formatting.number(value) == formatting.NOTHING


def test_hyphens_of_names_and_dates_stay_when_numbers_get_a_minus() -> None:
    said = "cuda-12 at -1.5 % on 2026-03-14 (-2, lab-7)"
    assert formatting.minus(said) == "cuda-12 at −1.5 % on 2026-03-14 (−2, lab-7)"
