"""Published tables as printed, against the recomputed ones: each cell, and rows that changed places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import Finding, finding

_KEYS: dict[str, tuple[str, ...]] = {
    "dunn": ("image_a", "image_b"),
    "effects": ("image_a", "image_b"),
    "omnibus": ("test",),
}
#: Cells that change sign when a pair is written the other way round.
_SIGNED = ("mean_diff_j", "cliffs_delta")


def compare(
    printed: Mapping[str, Sequence[Mapping[str, object]]],
    tables: Mapping[str, pd.DataFrame],
    join: Callable[[str], str],
) -> list[Finding]:
    """Findings for printed rows that the published (else the imported) data do not give.

    Args:
        printed: rows of cells as printed, by table.
        tables: the recomputed tables.
        join: a treatment's name → the name under which load, idle and published data are joined.
    """
    findings: list[Finding] = []
    for name, rows in printed.items():
        keys = _KEYS.get(name, ("image",))
        findings += _compare(name, rows, tables[name], _Cells(keys, _digits(rows, keys), join))
    return findings


@dataclass(frozen=True)
class _Cells:
    """How cells of a printed and a recomputed row are compared.

    Attributes:
        keys: columns that name a row.
        digits: column of numbers → digits after the point that it is printed with.
        join: a treatment's name → the name that rows are found by.
    """

    keys: tuple[str, ...]
    digits: Mapping[str, int]
    join: Callable[[str], str]

    def key(self, row: Mapping[Any, Any]) -> tuple[str, ...]:
        """What a row is found by, whichever way round a pair is written."""
        return tuple(sorted(self.join(str(row[k])) for k in self.keys))

    def same(self, row: Mapping[str, object], computed: Mapping[Any, Any]) -> bool:
        """Whether all numbers of a printed row agree with a recomputed one."""
        columns = [c for c in self.digits if row.get(c) is not None]
        return bool(columns) and all(self.same_cell(row, computed, c) for c in columns)

    def same_cell(
        self, row: Mapping[str, object], computed: Mapping[Any, Any], column: str
    ) -> bool:
        """Whether a number agrees, as far as the column is printed."""
        try:
            printed, value = float(str(row[column]).strip().rstrip("%")), float(computed[column])
        except (TypeError, ValueError):
            return False
        first = self.keys[0]
        turned = len(self.keys) == 2 and self.join(str(row[first])) != self.join(
            str(computed[first])
        )
        if turned and column in _SIGNED:
            value = -value
        return abs(printed - value) <= 0.5000001 * 10.0 ** -self.digits[column]


def _compare(
    name: str, rows: Sequence[Mapping[str, object]], table: pd.DataFrame, cells: _Cells
) -> list[Finding]:
    basis = next(
        (b for b in ("published", "imported", "repaired") if (table["basis"] == b).any()), None
    )
    if basis is None:
        return [
            finding(
                "row-untraceable",
                Verdict.UNDECIDABLE,
                "campaign",
                f"printed table {name}: there are no data to compare with",
            )
        ]
    keys = cells.keys
    computed = {cells.key(r): r for r in table[table["basis"] == basis].to_dict("records")}
    fits = {
        i: [k for k, values in computed.items() if cells.same(row, values)]
        for i, row in enumerate(rows)
    }
    findings = []
    for i, row in enumerate(rows):
        own = cells.key(row)
        if own in fits[i]:
            continue
        others = fits[i]
        label = " – ".join(str(row[k]) for k in keys)
        partner = next(
            (
                r for j, r in enumerate(rows)
                if others and cells.key(r) == others[0] and own in fits[j]
            ),
            None,
        )  # fmt: skip
        if partner is not None:
            other = " – ".join(str(partner[k]) for k in keys)
            text = (
                f"it holds the numbers of {other}, whose row holds these: the two rows are swapped"
            )
        elif others:
            text = f"it holds the numbers of {' – '.join(others[0])}"
        elif own not in computed:
            text = f"the {basis} data have no such row"
        else:
            wrong = [
                c for c in cells.digits if c in row and not cells.same_cell(row, computed[own], c)
            ]
            text = "recomputed: " + ", ".join(
                f"{c} {computed[own][c]} (printed {row[c]})" for c in wrong
            )
        findings.append(
            finding(
                "row-untraceable",
                Verdict.FOUND,
                f"image {row[keys[0]]}" if keys[0] != "test" else "campaign",
                f"printed table {name}, row {label}: {text}",
                table=name,
                row=i + 1,
                basis=basis,
                printed={k: v for k, v in row.items() if k not in keys},
                recomputed=_plain(computed.get(own)),
                matches=[" – ".join(o) for o in others],
            )
        )
    if not findings:
        findings.append(
            finding(
                "row-untraceable",
                Verdict.NOT_FOUND,
                "campaign",
                f"printed table {name}: each of {len(rows)} rows reproduces",
            )
        )
    return findings


def _digits(rows: Sequence[Mapping[str, object]], keys: Sequence[str]) -> dict[str, int]:
    """Digits after the point that a column is printed with: YAML drops trailing zeros of single cells."""
    digits: dict[str, int] = {}
    for row in rows:
        for column, value in row.items():
            if column not in keys and column != "reference" and value is not None:
                text = str(value).strip().rstrip("%")
                digits[column] = max(digits.get(column, 0), len(text.partition(".")[2]))
    return digits


def _plain(cells: Mapping[Any, Any] | None) -> dict[str, object] | None:
    if cells is None:
        return None
    return {str(k): None if pd.isna(v) else v for k, v in cells.items() if k != "basis"}
