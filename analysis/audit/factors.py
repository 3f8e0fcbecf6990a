"""Columns of a table of runs that make up the treatment, apart from results and covariates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Names of columns that hold results and no factor.
RESULT = re.compile(
    r"energy|joule|power|watt|time|duration|usage|util|memory|temperature|cpu|avg_|_avg|mean|emission",
    re.IGNORECASE,
)
_MOMENT = re.compile(r"stamp|date|start|begin|created", re.IGNORECASE)
#: Text columns that name no treatment.
_REMARK = re.compile(
    r"status|done|error|message|note|comment|path|file|version|uuid", re.IGNORECASE
)
_INTEGER = re.compile(r"\d{1,9}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf", re.IGNORECASE)
_DECIMAL = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")

#: A column of more values than this, with fewer runs than this for each, is a covariate.
_MOST_VALUES = 20
_FEWEST_RUNS = 5


@dataclass(frozen=True)
class Factors:
    """What a table's columns are.

    Attributes:
        names: columns that make up the treatment.
        said: what was taken for a covariate, and how to override it.
    """

    names: tuple[str, ...]
    said: tuple[str, ...] = ()


def factors_of(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    chosen: Sequence[str] | None,
    ignored: Sequence[str] = (),
) -> Factors:
    """The treatment's columns: the mapping's, else those before the first result.

    Args:
        columns: of the table, in its order.
        rows: by column.
        chosen: the mapping's factors; None: to be inferred.
        ignored: columns that number the runs.
    """
    if chosen is not None:
        return Factors(tuple(f for f in chosen if f in columns))
    candidates = [c for c in columns if c not in ignored]
    names = _before_results(candidates, rows)
    said = []
    if number := _run_number(names, rows):
        names.remove(number)
        said.append(
            f"column {number!r} numbers the runs; `factors: […]` in a --mapping file overrides this"
        )
    while len(names) > 1 or (names and _is_covariate(names[0], rows)):
        groups = {tuple((row.get(n) or "").strip() for n in names) for row in rows}
        if len(groups) <= _MOST_VALUES or len(rows) >= _FEWEST_RUNS * len(groups):
            break
        widest = max(names, key=lambda n: len({row.get(n) for row in rows}))
        if not _is_covariate(widest, rows):
            break
        count = len({row.get(widest) for row in rows})
        names.remove(widest)
        said.append(
            f"column {widest!r} has {count} values in {len(rows)} runs: taken for a covariate, not for a "
            "treatment; `factors: […]` in a --mapping file overrides this"
        )
    if all(len({row.get(n) for row in rows}) == 1 for n in names):
        names += [c for c in candidates if c not in names and _names_groups(c, rows)]
    return Factors(tuple(names), tuple(said))


def _before_results(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns before the first result; moments may stand before them."""
    names: list[str] = []
    for column in columns:
        values = [(row.get(column) or "").strip() for row in rows]
        distinct = set(values)
        measured = all(_DECIMAL.fullmatch(v) for v in distinct)
        if not names and _MOMENT.search(column):
            continue
        if RESULT.search(column) or "" in distinct or (measured and len(distinct) > len(rows) / 2):
            break
        names.append(column)
    return names


def _run_number(names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str | None:
    """A column that counts the rows of each group of the others, where no two rows are alike."""
    if len(names) < 2 or len({tuple(row.get(n) for n in names) for row in rows}) < len(rows):
        return None
    for name in names:
        values = {(row.get(name) or "").strip() for row in rows}
        if len(values) > 2 and all(_INTEGER.fullmatch(v) for v in values):
            numbers = sorted(map(int, values))
            if numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1:
                return name
    return None


def _names_groups(column: str, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a column after the first result names a few groups in words."""
    counts = Counter((row.get(column) or "").strip() for row in rows)
    return (
        1 < len(counts) <= _MOST_VALUES
        and min(counts.values()) > 1
        and "" not in counts
        and not _REMARK.search(column)
        and not _MOMENT.search(column)
        and not any(_NUMBER.fullmatch(value) for value in counts)
    )


def _is_covariate(column: str, rows: Sequence[Mapping[str, str]]) -> bool:
    count = len({row.get(column) for row in rows})
    return count > _MOST_VALUES and len(rows) < _FEWEST_RUNS * count
