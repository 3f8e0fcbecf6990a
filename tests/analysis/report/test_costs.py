"""Costs and break-even of a report, computed again from trials.csv and run.json with other means."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import simulated_run
from tests.support.report_tables import Row, read, write_tables
from wattbench.analysis import report
from wattbench.analysis.report import costs, tables
from wattbench.analysis.storage import source

STATED = {
    "alpha": 0.05, "correction": "holm", "equivalence_pct": 1.0, "price_per_kwh": 0.31,
    "currency": "EUR", "carbon_g_per_kwh": 380.0, "pue": 1.2, "units_per_year": 5e9,
    "embodied": {"kg_co2e": 1400.0, "lifetime_years": 5.0, "share": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = simulated_run.small(
        blocks=9, steady_s=6.0, idle_every=3, declares={"analysis": STATED}
    )
    return simulated_run.write(tmp_path_factory.mktemp("run"), design)


@pytest.fixture(scope="module")
def study(root: Path) -> report.Study:
    return report.study(source.open_source(root))


@pytest.fixture(scope="module")
def out(study: report.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(study, tmp_path_factory.mktemp("tables"))


def by_block(out: Path, host: str) -> dict[str, dict[int, Row]]:
    """Image → block → valid trial."""
    found: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in read(out, "trials"):
        if (row["host"], row["kind"], row["status"]) == (host, "workload", "valid"):
            found[row["image"]][int(row["block"])] = row
    return found


def per_unit(row: Row, column: str) -> float:
    return float(row[column]) / float(row["units"])


def hodges_lehmann(values: list[float], alpha: float) -> tuple[float, float | None, float | None]:
    """Estimate and interval; the critical value by counting all 2ⁿ signs of the ranks."""
    n = len(values)
    walsh = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    signs = np.array(list(itertools.product((0, 1), repeat=n)))
    sums = signs @ np.arange(1, n + 1)
    k = 0
    while np.mean(sums <= k) <= alpha / 2 + 1e-12:
        k += 1
    return statistics.median(walsh), *((walsh[k - 1], walsh[-k]) if k else (None, None))


def same(row: Row, names: tuple[str, str, str], expected: tuple[float | None, ...]) -> None:
    for name, value in zip(names, expected, strict=True):
        if value is None:
            assert row[name] == ""
        else:
            assert float(row[name]) == pytest.approx(value)


def test_every_cost_is_the_joules_of_the_trials_by_the_stated_figures(out: Path) -> None:
    rows = read(out, "costs")
    kwh = 1.2 / 3.6e6
    of = {
        "kWh per million images": lambda j, s: j * kwh * 1e6,
        "EUR per million images": lambda j, s: j * kwh * 1e6 * 0.31,
        "kg per million images": lambda j, s: j * kwh * 1e6 * 0.38,
        "kWh per year": lambda j, s: j * kwh * 5e9,
        "EUR per year": lambda j, s: j * kwh * 5e9 * 0.31,
        "kg per year": lambda j, s: j * kwh * 5e9 * 0.38,
        "g CO2e per image": lambda j, s: j * kwh * 380 + s * 1_400_000 / (5 * 365.25 * 86400),
    }
    assert len(rows) == 2 * 3 * len(of)
    for row in rows:
        trials = by_block(out, row["host"])
        value = of[row["per"]]

        def quantity(image: str, trials: Any = trials, value: Any = value) -> dict[int, float]:
            return {
                block: value(per_unit(trial, "steady_j"), per_unit(trial, "steady_s"))
                for block, trial in trials[image].items()
            }

        own = quantity(row["image"])
        same(row, ("value", "lower", "upper"), hodges_lehmann(list(own.values()), 0.05 / 3))
        if row["image"] == row["reference"]:
            assert row["difference"] == ""
            continue
        base = quantity(row["reference"])
        apart = [own[block] - base[block] for block in own if block in base]
        names = ("difference", "difference_lower", "difference_upper")
        same(row, names, hodges_lehmann(apart, 0.05 / 2))


def test_break_even_counts_the_metered_download_and_says_which_is_not(
    root: Path, out: Path
) -> None:
    hosts = json.loads((root / "run.json").read_text())["hosts"]
    rows = read(out, "deployment")
    assert {(r["host"], r["image"]) for r in rows} == {
        (host, image) for host in ("lab-a", "lab-b") for image in ("nvcr", "compiled")
    }
    for row in rows:
        pulls = hosts[row["host"]]["pulls"]
        own, base = (pulls[row[k]]["energy"] for k in ("image", "reference"))
        if "energy_j" in own:
            assert float(row["pull_diff_j"]) == pytest.approx(own["energy_j"] - base["energy_j"])
            assert row["counted"].startswith("download and start-up counted")
        else:
            assert (row["host"], row["image"]) == ("lab-b", "nvcr")
            assert row["pull_diff_j"] == ""
            assert row["counted"].startswith(
                "start-up counted; the download of nvcr is not (the meter ended with 101"
            )
        trials = by_block(out, row["host"])
        shared = sorted(set(trials[row["image"]]) & set(trials[row["reference"]]))

        def total(image: str, block: int, n: float, trials: Any = trials) -> float:
            trial = trials[image][block]
            begun = float(trial["energy_j"]) - float(trial["steady_j"])
            return begun + n * per_unit(trial, "steady_j")

        pull = float(row["pull_diff_j"] or 0)
        doubt = 2**0.5 if row["pull_diff_j"] else 0.0

        def apart(
            n: float, row: Row = row, pull: float = pull, shared: Any = shared
        ) -> list[float]:
            return [
                pull + total(row["image"], b, n) - total(row["reference"], b, n) for b in shared
            ]

        if row["course"] in ("pays", "loses"):
            estimate, lower, upper = (
                float(row[k]) for k in ("break_even_units", "lower_units", "upper_units")
            )
            assert 0 < lower <= estimate <= upper
            scale = abs(pull) + abs(float(row["fixed_diff_j"]))
            assert hodges_lehmann(apart(estimate), 0.025)[0] == pytest.approx(0, abs=1e-9 * scale)
            for n in (lower, upper):  # the test is at the edge of rejection there
                _, low, high = hodges_lehmann(apart(n), 0.025)
                assert low is not None
                assert high is not None
                assert min(abs(low - doubt), abs(high + doubt)) <= 1e-9 * scale
        else:
            assert row["break_even_units"] == ""


@pytest.mark.parametrize(
    ("pull", "image", "said"),
    [
        (
            {"already_present": True, "energy": {"energy_j": 5.0}},
            "nvcr",
            "(was on the host already)",
        ),
        ({}, "nvcr", "(was not metered)"),
        ({"energy": {"why": "the meter hung"}}, "nvcr", "(the meter hung)"),
    ],
)
def test_a_download_that_was_not_measured_is_no_joules(
    study: report.Study, pull: dict[str, Any], image: str, said: str
) -> None:
    document = json.loads(json.dumps(study.data.document))
    document["hosts"]["lab-a"]["pulls"][image] = pull
    data = replace(study.data, document=document)
    table = costs.deployment(data, tables.steady(data), study.conclusion, "image")
    (row,) = table.frame[
        (table.frame["host"] == "lab-a") & (table.frame["image"] == image)
    ].to_dict("records")
    assert row["pull_diff_j"] is None or np.isnan(row["pull_diff_j"])
    assert f"the download of {image} is not {said}" in row["counted"]


def test_a_process_has_no_download(study: report.Study) -> None:
    document = json.loads(json.dumps(study.data.document))
    document["experiment"]["images"]["nvcr"]["runtime"] = "process"
    data = replace(study.data, document=document)
    frame = costs.deployment(data, tables.steady(data), study.conclusion, "image").frame
    (row,) = frame[(frame["host"] == "lab-a") & (frame["image"] == "nvcr")].to_dict("records")
    base = document["hosts"]["lab-a"]["pulls"][row["reference"]]["energy"]["energy_j"]
    assert row["pull_diff_j"] == -base


def test_a_year_is_one_sentence_with_its_interval_or_is_undecided(study: report.Study) -> None:
    table = study.tables["costs"]
    lines = costs.yearly(table)
    yearly = table.frame[
        table.frame["per"].str.endswith("per year") & table.frame["difference"].notna()
    ]
    assert len(lines) == len(yearly) == 2 * 2 * 3
    for line, row in zip(lines, yearly.to_dict("records"), strict=True):
        assert line.startswith(f"{row['image']} on {row['host']}: ")
        spans = row["difference_lower"] <= 0 <= row["difference_upper"]
        assert ("is undecided" in line) is spans
        if not spans:
            assert (" less " in line) is (row["difference"] < 0)


def test_without_stated_figures_there_is_energy_alone_and_what_is_missing_is_named(
    study: report.Study,
) -> None:
    document = json.loads(json.dumps(study.data.document))
    document["experiment"]["analysis"] = {"alpha": 0.05}
    data = replace(study.data, document=document)
    table = costs.costs(data, tables.steady(data), study.conclusion, "image")
    assert set(table.frame["per"]) == {"kWh per million images"}
    assert table.note == (
        "not stated: analysis.price_per_kwh, analysis.carbon_g_per_kwh, analysis.units_per_year, "
        "analysis.embodied"
    )
    assert "without the building’s share" in table.caption
    assert costs.yearly(table) == []


def test_a_table_of_carbon_that_ends_before_the_run_gives_no_carbon(study: report.Study) -> None:
    document = json.loads(json.dumps(study.data.document))
    document["experiment"]["analysis"]["carbon_g_per_kwh"] = {
        "file": "grid.csv", "since_unix_s": [0.0, 3600.0], "g_per_kwh": [300.0, 200.0],
    }  # fmt: skip
    data = replace(study.data, document=document)
    table = costs.costs(data, tables.steady(data), study.conclusion, "image")
    assert set(table.frame["quantity"]) == {"energy", "cost"}
    assert "lab-a: grid.csv does not cover" in table.note
