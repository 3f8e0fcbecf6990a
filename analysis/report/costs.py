"""Tables of what work costs: break-even with the download, and kWh, money and carbon of units of work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from wattbench.analysis.model.experiment_document import ImageDocument
from wattbench.analysis.model.run_document import PullEnergyDocument
from wattbench.analysis.presentation.formatting import number, significant
from wattbench.analysis.presentation.table import Row, Table
from wattbench.analysis.runs.assemble import RunData
from wattbench.analysis.stats.break_even import BreakEven, Course, break_even
from wattbench.analysis.stats.costs import Rates
from wattbench.analysis.stats.ranks import RankShift
from wattbench.analysis.stats.results import Conclusion


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A host's costs, one row a block, one column an image.

    Attributes:
        fixed_j: everything outside the steady phases.
        marginal_j: steady joules of a unit of work.
        marginal_s: steady seconds of a unit of work.
    """

    fixed_j: pd.DataFrame
    marginal_j: pd.DataFrame
    marginal_s: pd.DataFrame


def _blocks(steady: pd.DataFrame, host: str) -> _Blocks:
    of_host = steady[steady["host"] == host]
    values = of_host.assign(
        fixed_j=of_host["energy_j"] - of_host["steady_j"],
        marginal_j=of_host["steady_j"] / of_host["units"],
        marginal_s=of_host["steady_s"] / of_host["units"],
    )
    return _Blocks(
        *(
            values.pivot_table(index="block", columns="image", values=column)
            for column in ("fixed_j", "marginal_j", "marginal_s")
        )
    )


@dataclass(frozen=True)
class _Pull:
    """Joules of bringing an image to a host; ``why`` there are none, or what they leave out."""

    energy_j: float | None
    doubt_j: float = 0.0
    why: str = ""


def _pull(data: RunData, host: str, image: str, scopes: Sequence[str]) -> _Pull:
    pull = data.host(host).get("pulls", {}).get(image, {})
    energy = pull.get("energy", PullEnergyDocument())
    joules = energy.get("energy_j")
    runtime = data.images.get(image, ImageDocument()).get("runtime")
    if runtime == "process":
        return _Pull(0.0)  # nothing is downloaded
    if pull.get("already_present"):
        return _Pull(None, why="was on the host already")
    if joules is None:
        return _Pull(None, why=pull.get("error") or energy.get("why") or "was not metered")
    scope = energy.get("energy_scope")
    other = "" if scope in scopes else f"its download is metered over {scope} only"
    return _Pull(float(joules), float(energy.get("energy_uncertainty_j") or 0.0), other)


def deployment(data: RunData, steady: pd.DataFrame, conclusion: Conclusion, unit: str) -> Table:
    """After how many units of work an image has made up for its download and start-up.

    Args:
        data: the run.
        steady: valid workload trials with steady joules and units.
        conclusion: its reference, images and settings.
        unit: what a unit of work is called.
    """
    rows: list[Row] = []
    for host in data.hosts:
        costs = _blocks(steady, host)
        others = [i for i in costs.marginal_j.columns if i != conclusion.reference]
        if conclusion.reference not in costs.marginal_j.columns:
            continue
        level = 1 - conclusion.settings.alpha / max(1, len(others))
        scopes = sorted(set(steady.loc[steady["host"] == host, "energy_scope"].dropna()))
        for image in others:
            pair = (str(image), str(conclusion.reference))
            known = [_pull(data, host, name, scopes) for name in pair]
            rows.append(_deployment_row(costs, pair, known, level, unit) | {"host": host})
    columns = ("host", "image", "reference", "pull_diff_j", "fixed_diff_j", "marginal_diff_j",
               "break_even_units", "lower_units", "upper_units", "level_pct", "course", "outcome",
               "counted")  # fmt: skip
    return Table(
        "deployment",
        "Break-even with the download",
        "After how many units of work an image has made up for its download and one start: the "
        "confidence set of the crossing by inverted signed-rank tests over blocks, Bonferroni-corrected "
        "over images. A download is measured once; its own uncertainty widens the interval.",
        pd.DataFrame(rows, columns=list(columns)),
        ("image", "pull_diff_j", "fixed_diff_j", "marginal_diff_j", "outcome", "counted"),
        "" if rows else "no host has steady phases of the reference and of another image",
        unit,
    )


def _deployment_row(
    costs: _Blocks, pair: tuple[str, str], pulls: Sequence[_Pull], level: float, unit: str
) -> Row:
    own, base = pair
    fixed, each = (
        (table[own] - table[base]).dropna() for table in (costs.fixed_j, costs.marginal_j)
    )
    unknown = [
        f"the download of {name} is not ({pull.why})"
        for name, pull in zip(pair, pulls, strict=True)
        if pull.energy_j is None
    ]
    partial = [pull.why for pull in pulls if pull.energy_j is not None and pull.why]
    pull_j, doubt_j = None, 0.0
    if not unknown:
        own_pull, base_pull = pulls
        assert own_pull.energy_j is not None
        assert base_pull.energy_j is not None
        pull_j = own_pull.energy_j - base_pull.energy_j
        doubt_j = math.hypot(own_pull.doubt_j, base_pull.doubt_j)
    found = break_even(
        (fixed + (pull_j or 0.0)).to_numpy(float), each.to_numpy(float), doubt_j, level
    )
    what = "start-up counted" if unknown else "download and start-up counted"
    return {
        "image": own,
        "reference": base,
        "pull_diff_j": pull_j,
        "fixed_diff_j": _estimate(fixed),
        "marginal_diff_j": _estimate(each),
        "break_even_units": found.units,
        "lower_units": found.lower,
        "upper_units": found.upper,
        "level_pct": 100 * level,
        "course": str(found.course),
        "outcome": outcome_of(found, base, unit),
        "counted": "; ".join(dict.fromkeys([what, *unknown, *partial])),
    }


def _estimate(differences: pd.Series) -> float | None:
    values = differences.to_numpy(float)
    return RankShift.signed_rank(values).estimate if len(values) else None


def outcome_of(found: BreakEven, reference: str, unit: str) -> str:
    """A break-even in words: ``less in total from 41 000 (29 000 to 70 000) images on``."""
    if found.course is Course.OPEN:
        return f"undecided: the intervals allow it to need more or less than {reference}"
    if found.units is None:
        return f"{found.course} than {reference} at every length"
    assert found.lower is not None
    assert found.upper is not None
    units, lower, upper = (number(v, 0) for v in (found.units, found.lower, found.upper))
    then = "less" if found.course is Course.PAYS else "more"
    return f"{then} in total from {units} ({lower} to {upper}) {unit}s on"


def costs(data: RunData, steady: pd.DataFrame, conclusion: Conclusion, unit: str) -> Table:
    """KWh, money, CO2e and SCI of each image's units of work, and how they differ from the reference's.

    Args:
        data: the run.
        steady: valid workload trials with steady joules and units.
        conclusion: its reference, images and settings.
        unit: what a unit of work is called.
    """
    rates = Rates.of(data.experiment.get("analysis") or {})
    rows: list[Row] = []
    notes: list[str] = []
    for host in data.hosts:
        of_host = steady[steady["host"] == host]
        intensity, note = rates.intensity(_windows(of_host))
        notes += [f"{host}: {note}"] if note and len(of_host) else []
        rows += _cost_rows(_blocks(steady, host), rates, intensity, conclusion, unit, host)
    columns = ("host", "image", "reference", "quantity", "per", "value", "lower", "upper",
               "difference", "difference_lower", "difference_upper")  # fmt: skip
    return Table(
        "costs",
        "What the work costs",
        f"Joules of steady work alone, at the meter{_building(rates)}; start-up, download and idle time "
        "between units come on top. Hodges–Lehmann estimates over blocks with intervals corrected over "
        "images; differences are against the reference, inside blocks.",
        pd.DataFrame(rows, columns=list(columns)),
        tuple(c for c in columns if c != "reference"),
        "; ".join([*notes, *_not_stated(rates)])
        if rows
        else "no valid trial has steady phases with units of work",
        unit,
    )  # fmt: skip


def _building(rates: Rates) -> str:
    if rates.pue is None:
        return ", without the building’s share (no analysis.pue)"
    return f", times a PUE of {rates.pue:g}"


def _windows(rows: pd.DataFrame) -> list[tuple[float, float]]:
    """Starts and ends of trials, Unix seconds."""
    return [
        (start, start + float(seconds))
        for start, seconds in zip(
            (datetime.fromisoformat(str(text)).timestamp() for text in rows["started_at"]),
            rows["duration_s"], strict=True,
        )
    ]  # fmt: skip


def _not_stated(rates: Rates) -> list[str]:
    """Which figures are absent because the experiment does not state what they need."""
    absent = {
        "analysis.price_per_kwh": rates.price_per_kwh,
        "analysis.carbon_g_per_kwh": rates.carbon,
        "analysis.units_per_year": rates.units_per_year,
        "analysis.embodied": rates.embodied,
    }
    keys = [key for key, value in absent.items() if value is None]
    return [f"not stated: {', '.join(keys)}"] if keys else []


def _cost_rows(
    costs: _Blocks, rates: Rates, intensity: float | None, conclusion: Conclusion, unit: str, host: str
) -> list[Row]:  # fmt: skip
    names = [str(i) for i in costs.marginal_j.columns]
    reference = conclusion.reference
    alpha = conclusion.settings.alpha
    rows = []
    for image in names:
        for factor in rates.factors(intensity, unit):
            values = costs.marginal_j * factor.per_j + costs.marginal_s * factor.per_s
            apart: Mapping[str, float | None] = {}
            if reference in names and image != reference:
                differences = (values[image] - values[reference]).dropna()
                apart = _interval(differences, 1 - alpha / max(1, len(names) - 1))
            estimate = _interval(values[image].dropna(), 1 - alpha / max(1, len(names)))
            rows.append(
                {
                    "host": host, "image": image, "reference": reference, "quantity": factor.quantity,
                    "per": factor.per,
                    **estimate,
                    "difference": apart.get("value"),
                    "difference_lower": apart.get("lower"),
                    "difference_upper": apart.get("upper"),
                }
            )  # fmt: skip
    return rows


def _interval(values: pd.Series, level: float) -> dict[str, float | None]:
    numbers = np.asarray(values, dtype=float)
    if not len(numbers):
        return {"value": None, "lower": None, "upper": None}
    shift = RankShift.signed_rank(numbers)
    lower, upper = shift.interval(level)
    return {"value": shift.estimate, "lower": lower, "upper": upper}


def yearly(table: Table) -> list[str]:
    """What each image needs more or less than the reference per year, one sentence per quantity."""
    frame = table.frame
    rows = frame[frame["per"].str.endswith("per year") & frame["difference"].notna()]
    return [_in_a_year(row) for row in rows.to_dict("records")]


def _in_a_year(row: Mapping[Any, Any]) -> str:
    low, high = row["difference_lower"], row["difference_upper"]
    unit = str(row["per"]).removesuffix(" per year")
    who = f"{row['image']} on {row['host']}"
    if pd.isna(low) or low <= 0 <= high:
        why = "too few blocks" if pd.isna(low) else _span(low, high, unit)
        return (
            f"{who}: whether its {row['quantity']} per year is more or less than that of "
            f"{row['reference']} is undecided ({why})"
        )
    word = "less" if row["difference"] < 0 else "more"
    size, *ends = (abs(row[k]) for k in ("difference", "difference_lower", "difference_upper"))
    return (
        f"{who}: {significant(size, 3)} {unit} {word} {row['quantity']} per year than "
        f"{row['reference']} ({_span(min(ends), max(ends), unit)})"
    )


def _span(low: float, high: float, unit: str) -> str:
    return f"{significant(low, 3)} to {significant(high, 3)} {unit}"
