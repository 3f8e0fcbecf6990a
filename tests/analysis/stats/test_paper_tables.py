"""The study's statistics against its printed tables, closed forms, and degenerate input."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scikit_posthocs import posthoc_dunn

from tests.support.study import PUBLISHED
from wattbench.analysis.audit.mapping import key_of
from wattbench.analysis.stats.paper_tables import COLUMNS, cliffs_delta, describe

REFERENCE = Path(__file__).parents[2] / "reference"
PRINTED = json.loads((REFERENCE / "published_tables.json").read_text())


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    frames = []
    for path in sorted(PUBLISHED.glob("*_output.csv")):
        name = path.name.removesuffix("_output.csv")
        frame = pd.read_csv(path, header=0, names=["run", "energy_j", "duration_s"])
        frames.append(
            frame.assign(image=key_of(name), kind="idle" if name.endswith("_idle") else "workload")
        )
    return pd.concat(frames)


@pytest.fixture(scope="module")
def tables(published: pd.DataFrame) -> dict[str, pd.DataFrame]:
    sizes = {"ubuntu": 9.11, "python": 9.95, "cuda": 12.91, "pytorch": 9.62, "nvcr": 40.86}
    result = describe(published, "published", reference="pytorch", sizes_gb=sizes, printed_digits=2)
    return dict(result.tables)


def rows(table: pd.DataFrame, *keys: str) -> dict[tuple[str, ...], dict]:
    return {tuple(row[k] for k in keys): row for row in table.to_dict("records")}


@pytest.mark.parametrize(
    ("table", "printed", "columns"),
    [
        ("energy", "table1", ("median_j", "mean_j", "sd_j")),
        ("time", "table3", ("median_s", "mean_s", "sd_s")),
    ],
)
def test_centre_and_spread_reproduce_to_the_printed_digits(tables, table, printed, columns):
    computed = rows(tables[table], "image")
    for variant, cells in PRINTED[printed].items():
        got = [round(computed[(key_of(variant),)][c], 2) for c in columns]
        assert got == pytest.approx(cells, abs=1e-9), variant


def test_shapiro_wilk_reproduces_to_the_printed_digits(tables):
    computed = rows(tables["normality"], "image")
    for variant, p in PRINTED["table2"].items():
        assert round(computed[(key_of(variant),)]["shapiro_p"], 5) == pytest.approx(p, abs=1e-9), (
            variant
        )


def test_kruskal_wallis_is_the_studys(tables):
    row = tables["omnibus"].iloc[0]
    assert row["statistic"] == pytest.approx(86.198, abs=5e-4)
    assert row["p"] == pytest.approx(8.45e-18, rel=1e-3)


def test_dunn_and_effects_reproduce_to_the_printed_digits(tables):
    dunn, effects = (
        rows(tables["dunn"], "image_a", "image_b"),
        rows(tables["effects"], "image_a", "image_b"),
    )
    for pair, p in PRINTED["table4"].items():
        a, b = sorted(key_of(v) for v in pair.split("|"))
        assert round(dunn[a, b]["p_bonferroni"], 4) == pytest.approx(p, abs=1e-9), pair
    for pair, (difference, delta) in PRINTED["table5"].items():
        one, two = (key_of(v) for v in pair.split("|"))
        a, b = sorted((one, two))
        sign = 1 if (a, b) == (one, two) else -1
        assert round(sign * effects[a, b]["mean_diff_j"], 2) == pytest.approx(
            difference, abs=1e-9
        ), pair
        assert round(sign * effects[a, b]["cliffs_delta"], 2) == pytest.approx(delta, abs=1e-9), (
            pair
        )


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=9), min_size=2, max_size=4))
def test_dunns_p_is_that_of_another_library_with_ties_and_unequal_sizes(groups):
    if len({v for g in groups for v in g}) == 1:
        return  # not defined, see below
    expected = posthoc_dunn(groups, p_adjust="bonferroni").to_numpy()
    named = {f"i{n}": [float(v) for v in g] for n, g in enumerate(groups)}
    table = describe(tidy(**named), "b").tables["dunn"]
    for row in table.to_dict("records"):
        i, j = (int(row[side][1:]) for side in ("image_a", "image_b"))
        assert row["p_bonferroni"] == pytest.approx(expected[i, j], rel=1e-9)


def test_the_table_against_the_reference_reproduces_but_for_two_swapped_rows(tables):
    computed = rows(tables["relative"], "image")
    swapped = {"python": "ubuntu", "ubuntu": "python"}
    for variant, cells in PRINTED["table6"].items():
        image = key_of(variant)
        row = computed[(swapped.get(image, image),)]
        got = [round(float(row[c]), 2) for c in COLUMNS["relative"][2:]]
        assert got == pytest.approx(cells, abs=1e-9), variant


def tidy(**images: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [(i, "workload", e, e / 50) for i, v in images.items() for e in v],
        columns=["image", "kind", "energy_j", "duration_s"],
    )


@pytest.mark.parametrize(
    ("trials", "undefined"),
    [
        (tidy(a=[5.0]), {"energy", "time", "normality", "omnibus", "dunn"}),
        (tidy(a=[5.0, 6.0], b=[7.0, 8.0]), {"normality", "relative"}),
        (tidy(a=[5.0] * 4, b=[5.0] * 4), {"normality", "omnibus", "dunn", "relative"}),
        (tidy(a=[]), {"omnibus", "dunn", "relative"}),
    ],
    ids=["one trial", "two each", "all equal", "none"],
)
def test_what_is_not_defined_is_an_empty_cell_with_a_reason(trials, undefined):
    result = describe(trials, "x")
    assert set(result.undefined["table"]) == undefined
    for name, table in result.tables.items():
        assert list(table.columns) == ["basis", *COLUMNS[name]]
        text = io.StringIO()
        table.to_csv(text, index=False)
        assert "nan" not in text.getvalue().lower()


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=12),
    st.lists(st.integers(0, 20), min_size=1, max_size=12),
)
def test_cliffs_delta_is_the_share_of_pairs_above_minus_below(a, b):
    pairs = list(itertools.product(a, b))
    expected = (sum(x > y for x, y in pairs) - sum(x < y for x, y in pairs)) / len(pairs)
    assert cliffs_delta(np.array(a, float), np.array(b, float)) == pytest.approx(
        expected, abs=1e-12
    )
