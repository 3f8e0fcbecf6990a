"""Tables: cells as text, and the same grid for terminal, Markdown, LaTeX."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from wattbench.analysis.presentation.table import Grid, Table, cell, head

GRID = Grid.of("T", ("image", "n"), [("a|b", "5"), ("long name", "12")], "n")


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (-0.004, "+.2f", "+0.00"),
        (-1.5, "+.1f", "−1.5"),
        (1234567.0, ",.0f", "1\u202f234\u202f567"),
        (0.00001, "p", "< 0.0001"),
        (0.04321, "p", "0.0432"),
        (None, ".2f", "–"),
        (float("nan"), ".2f", "–"),
        (True, "", "yes"),
        (7.0, "d", "7"),
    ],
)
def test_cells_are_typeset_for_people(value: Any, form: str, shown: str) -> None:
    assert cell(value, form) == shown


def test_labels_take_the_name_of_the_unit_of_work() -> None:
    assert head("j_per_image")[1] == "J/image"
    assert head("j_per_unit", "request")[1] == "J/request"


def test_text_is_aligned_and_numbers_are_on_the_right() -> None:
    assert GRID.text() == ["image       n", "a|b         5", "long name  12"]


def test_markdown_escapes_bars() -> None:
    assert GRID.markdown()[1:3] == ["| --- | --: |", "| a\\|b | 5 |"]


def test_a_host_s_grid_has_its_rows_and_neither_its_name_nor_empty_columns() -> None:
    frame = pd.DataFrame(
        [("x", "a", 1.0, None), ("y", "a", 2.0, None)],
        columns=["host", "image", "median_j", "reason"],
    )
    grid = Table("t", "T", "", frame).grid("y").without_empty_columns()
    assert [h.label for h in grid.heads] == ["image", "median"]
    assert grid.rows == (("a", "2.00"),)


def test_latex_escapes_what_would_break_it() -> None:
    frame = pd.DataFrame([{"image": "a_b & 50 % {x}", "n": 1}])
    latex = Table("t", "T", "C", frame).grid().latex()
    assert r"a\_b \& 50 \% \{x\} & 1 \\" in latex


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(45.08 / 600_000, ".3f", "0.0000751"), (0.0012, ".3f", "0.00120"), (0.012, ".3f", "0.012"),
     (0.0, ".3f", "0.000"), (1e-5, "+.3f", "+0.000"), (0.004, ".2f", "0.00")],
)  # fmt: skip
def test_energy_of_a_small_unit_is_not_rounded_to_nothing(
    value: float, form: str, text: str
) -> None:
    assert cell(value, form) == text
