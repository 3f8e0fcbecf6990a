"""Columns of a table of runs that make up the treatment, apart from results and covariates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Names of columns that hold results and no factor.
RESULT = re.compile(
    r"energy|joule|power|watt|time|duration|usage|util|memory|temperature|cpu|avg_|_avg|mean|emission",
    re.IGNORECASE,
)
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
    names: list[str] = []
    for column in columns:
        if column in ignored:
            continue
        values = [(row.get(column) or "").strip() for row in rows]
        distinct = set(values)
        measured = all(_DECIMAL.fullmatch(v) for v in distinct)
        if RESULT.search(column) or "" in distinct or (measured and len(distinct) > len(rows) / 2):
            break
        names.append(column)
    said = []
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
    return Factors(tuple(names), tuple(said))


def _is_covariate(column: str, rows: Sequence[Mapping[str, str]]) -> bool:
    count = len({row.get(column) for row in rows})
    return count > _MOST_VALUES and len(rows) < _FEWEST_RUNS * count
