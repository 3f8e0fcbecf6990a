"""Plain text: sizes for people and aligned tables, for terminals and Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from wattbench.analysis.model import escaping
from wattbench.analysis.model.escaping import one_line

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float) -> str:
    """Bytes in decimal units, as Docker prints them."""
    for unit, name in _UNITS:
        if abs(count) >= unit:
            digits = 2 if abs(count) < 10 * unit else 1 if abs(count) < 100 * unit else 0
            return f"{count / unit:.{digits}f} {name}"
    return f"{count:.0f} B"


def short(text: str, width: int) -> str:
    """At most so many characters, cut at the end."""
    text = one_line(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> list[str]:
    """A table's lines.

    Args:
        head: column titles.
        rows: cells.
        right: titles of columns that are numbers, separated by blanks.
    """
    numeric = [title in right.split() for title in head]
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> list[str]:
    """The same in Markdown."""
    numeric = [title in right.split() for title in head]
    lines = [_row(head), _row(["--:" if number else "---" for number in numeric])]
    return lines + [_row([escaping.markdown(cell) for cell in row]) for row in rows]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def wrapped(text: str, indent: str, width: int = 100) -> list[str]:
    """Lines of a paragraph."""
    return textwrap.wrap(
        one_line(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
