"""Templates and style sheet of every page: one self-contained HTML file, light and dark, screen and paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jinja2

from wattbench.analysis.presentation import formatting, palette

TEMPLATES = Path(__file__).with_name("templates")


@cache
def environment(*folders: Path) -> jinja2.Environment:
    """Templates with autoescape; an undefined name is an error, not a gap in the page.

    Args:
        folders: of the page's own templates, searched before the shared ones.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        name: getattr(formatting, name)
        for name in (
            "count", "interval", "listed", "minus", "number", "p_value", "pct", "sentence",
            "significant", "slug", "stop",
        )
    }  # fmt: skip
    return made


@cache
def css() -> str:
    """The style sheet with the colours of both themes; ``data-theme`` on the root overrides the system's."""

    def declare(*, dark: bool) -> str:
        return "".join(f"--{name}:{value};" for name, value in palette.variables(dark).items())

    dark = declare(dark=True)
    return (
        f":root{{{declare(dark=False)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
        f"@media screen{{:root[data-theme=dark]{{{dark}}}}}\n"
        + (TEMPLATES / "style.css").read_text(encoding="utf-8")
    )


@cache
def script() -> str:
    """The script of a page: sorting and copying of tables. Every page is complete without it."""
    return (TEMPLATES / "page.js").read_text(encoding="utf-8")


@cache
def script_source() -> str:
    """The script as a source of a content security policy: ``'sha256-…'``."""
    digest = hashlib.sha256(script().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def content_policy() -> str:
    """Content security policy of a self-contained page: nothing is loaded, only its own script runs."""
    return (
        "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; "
        f"script-src {script_source()}; base-uri 'none'; form-action 'none'"
    )


def render(template: str, context: Mapping[str, object], *folders: Path) -> str:
    """A page from a template.

    Args:
        template: name of the template.
        context: everything that it uses but style sheet and script.
        folders: of the page's own templates.
    """
    shared = {"css": css(), "script": script(), "nonce": "", "policy": content_policy()}
    return fragment(template, shared | dict(context), *folders)


def fragment(template: str, context: Mapping[str, object], *folders: Path) -> str:
    """A part of a page; the arguments are those of :func:`render`."""
    return environment(*folders).get_template(template).render(dict(context))
