r"""Text from outside made safe for where it is shown: terminals, Markdown, spreadsheets.

Names, labels and messages of images, runs and campaigns may hold any characters. HTML pages escape by their
templates; everything else goes through here. Control characters become ``\u001b`` and the like, which in
JSON is the same text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd

#: Controls (C0 but tab and line feed, delete, C1), line separators, directional overrides, lone surrogates,
#: the byte order mark and what XML does not take.
_CONTROLS: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_MARKUP: Final = re.compile(r"([\\*_`<>\[\]#|~])")
#: What spreadsheets take for the beginning of a formula, unless the cell is a number.
_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    r"""Text without characters that steer a terminal; tabs and line feeds stay, others become ``\uXXXX``."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """As :func:`visible`, blanks and line feeds folded."""
    return visible(" ".join(text.split()))


def markdown(text: str) -> str:
    """One line that Markdown shows as it is, in a table's cell too: no markup, no HTML."""
    return _MARKUP.sub(r"\\\1", one_line(text)).replace("&", "&amp;")


def code(text: str) -> str:
    """One line as inline code of Markdown."""
    return f"`{one_line(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def say(text: str) -> None:
    """Print on standard output."""
    sys.stdout.write(visible(text) + "\n")


def note(text: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(one_line(text) + "\n")
    sys.stderr.flush()


def cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet takes for a formula: texts get an apostrophe in front; numbers stay."""
    if isinstance(value, str) and len(value) > 1 and _FORMULA.match(value):
        return value if _NUMBER.fullmatch(value) else f"'{value}"
    return value


def uncell(value: Any) -> Any:
    """The inverse of :func:`cell`."""
    if isinstance(value, str) and value[:1] == "'" and cell(value[1:]) == value:
        return value[1:]
    return value


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; texts as :func:`cell` makes them, missing cells empty."""
    texts = frame.select_dtypes(include=["object", "string", "category"]).columns
    frame.assign(**{str(name): frame[name].map(cell, na_action="ignore") for name in texts}).to_csv(
        path, index=False, lineterminator="\n"
    )
