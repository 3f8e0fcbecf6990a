"""Templates and style of every page: one self-contained HTML file, light and dark, for screens and paper."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from wattbench.analysis.model.escaping import content_policy
from wattbench.analysis.presentation import palette
from wattbench.analysis.report import tables

TEMPLATES = Path(__file__).with_name("templates")
REPORT_TEMPLATES = Path(__file__).parents[1] / "report" / "templates"


@cache
def environment() -> jinja2.Environment:
    """Templates with autoescape; an undefined name is an error, not a hole in the page."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, REPORT_TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "sentence": sentence,
        "stop": stop,
        "shown": shown,
        "minus": minus,
        "p_value": tables.p_value,
    }
    return made


def shown(
    table: tables.Table, host: str | None = None
) -> tuple[list[tuple[str, str, bool]], list[list[str]]]:
    """Heads and rows for the page: of one host without the host's column, no column without a word."""
    heads, rows = list(table.heads), table.rows(host)
    empty = {tables.text(None), ""}
    keep = [
        place
        for place, (label, *_) in enumerate(heads)
        if not (host is not None and label == "host")
        and (place == 0 or any(row[place] not in empty for row in rows))
    ]
    return [heads[i] for i in keep], [[row[i] for i in keep] for row in rows]


def minus(text: str) -> str:
    """With a real minus before numbers; hyphens inside names and dates stay."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "−", text)


def stop(text: str) -> str:
    """With a full stop at its end; its start may be a name and stays."""
    text = minus(text.strip())
    return text + ("" if text.endswith((".", "!", "?")) else ".")


def sentence(text: str) -> str:
    """With a capital at its start and a full stop at its end."""
    text = stop(text)
    return text[:1].upper() + text[1:]


def css() -> str:
    """The style sheet, colours of both themes in front."""

    def declare(*, dark: bool) -> str:
        return "".join(f"--{name}:{value};" for name, value in palette.variables(dark).items())

    sheet = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{declare(dark=True)}}}}}"
    return f":root{{{declare(dark=False)}}}{dark}\n{sheet}"


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template with the style sheet as ``css``.

    Args:
        template: its name below ``templates/``.
        context: everything else it uses.
    """
    return (
        environment()
        .get_template(template)
        .render(css=css(), policy=content_policy(TEMPLATES, REPORT_TEMPLATES), **context)
    )
