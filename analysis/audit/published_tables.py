"""Published tables as printed, against the recomputed ones: each cell, and rows that changed places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from wattbench.analysis.audit.mapping import key_of
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
    printed: Mapping[str, Sequence[Mapping[str, Any]]], tables: Mapping[str, pd.DataFrame]
) -> list[Finding]:
    """Findings for printed rows that the published (else the imported) data do not give."""
    findings: list[Finding] = []
    for name, rows in printed.items():
        findings += _compare(name, rows, tables[name])
    return findings


def _compare(name: str, rows: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> list[Finding]:
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
    keys = _KEYS.get(name, ("image",))
    computed = {
        _key([r[k] for k in keys]): r for r in table[table["basis"] == basis].to_dict("records")
    }
    digits = _digits(rows, keys)
    fits = {
        i: [k for k, cells in computed.items() if _same(row, cells, keys, digits)]
        for i, row in enumerate(rows)
    }
    findings = []
    for i, row in enumerate(rows):
        own = _key([row[k] for k in keys])
        if own in fits[i]:
            continue
        others = fits[i]
        label = " – ".join(str(row[k]) for k in keys)
        partner = next(
            (
                r for j, r in enumerate(rows)
                if others and _key([r[k] for k in keys]) == others[0] and own in fits[j]
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
                c
                for c in digits
                if c in row and not _same_cell(row, computed[own], c, keys, digits)
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


def _key(names: Sequence[Any]) -> tuple[str, ...]:
    return tuple(sorted(key_of(str(n)) for n in names))


def _digits(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, int]:
    """Digits after the point that a column is printed with: YAML drops trailing zeros of single cells."""
    digits: dict[str, int] = {}
    for row in rows:
        for column, value in row.items():
            if column not in keys and column != "reference" and value is not None:
                text = str(value).strip().rstrip("%")
                digits[column] = max(digits.get(column, 0), len(text.partition(".")[2]))
    return digits


def _same(
    row: Mapping[str, Any], cells: Mapping[Any, Any], keys: Sequence[str], digits: Mapping[str, int]
) -> bool:
    told = [c for c in digits if row.get(c) is not None]
    return bool(told) and all(_same_cell(row, cells, c, keys, digits) for c in told)


def _same_cell(
    row: Mapping[str, Any],
    cells: Mapping[Any, Any],
    column: str,
    keys: Sequence[str],
    digits: Mapping[str, int],
) -> bool:
    try:
        printed, computed = float(str(row[column]).strip().rstrip("%")), float(cells[column])
    except (TypeError, ValueError):
        return False
    turned = len(keys) == 2 and key_of(str(row[keys[0]])) != key_of(str(cells[keys[0]]))
    if turned and column in _SIGNED:
        computed = -computed
    return abs(printed - computed) <= 0.5000001 * 10.0 ** -digits[column]


def _plain(cells: Mapping[Any, Any] | None) -> dict[str, Any] | None:
    if cells is None:
        return None
    return {str(k): None if pd.isna(v) else v for k, v in cells.items() if k != "basis"}
