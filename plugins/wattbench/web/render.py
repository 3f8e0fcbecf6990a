"""HTML of the pages: self-contained, without anything that a strict content policy would refuse."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from wattbench.progress import spoken

_FOLDER = Path(__file__).with_name("templates")

#: The report is served as it was written: its own styles and pictures, no script, no other origin.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def page_policy(nonce: str) -> str:
    """What a page of ours may load: its own style and script, our reports, nothing else."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "connect-src 'self'; frame-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    )


def page(name: str, base: str, **values: Any) -> tuple[str, str]:
    """A page and its content policy.

    Args:
        name: of the template.
        base: path that our links begin with.
        values: for the template.
    """
    nonce = secrets.token_urlsafe(16)
    text = (
        _templates()
        .get_template(f"{name}.html.j2")
        .render(base=base, nonce=nonce, css=_asset("style.css"), script=_asset("page.js"), **values)
    )
    return text, page_policy(nonce)


def when(moment: datetime | None) -> str:
    """A time for people, UTC."""
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def percent(value: float | None) -> str:
    """`−4.2 %`, `+0.3 %`; unbounded or unknown: `?`."""
    if value is None:
        return "?"
    return f"{value:+.1f} %".replace("-", "−")


def sparkline(
    values: Sequence[float], reach: float = 0.0, width: int = 120, height: int = 24
) -> list[dict[str, float]]:
    """Where the values of a trend are drawn, oldest at the left.

    Zero is always in the picture, and ± ``reach``, so that little unrest looks little.
    """
    low, high = min([*values, -reach]), max([*values, reach])
    span = (high - low) or 1.0
    step = (width - 8) / max(len(values) - 1, 1)

    def at(value: float) -> float:
        return round(4 + (height - 8) * (high - value) / span, 1)

    return [
        {"x": round(4 + step * i, 1), "y": at(value), "zero": at(0.0)}
        for i, value in enumerate(values)
    ]


@cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"when": when, "percent": percent, "spoken": spoken}
    templates.globals["sparkline"] = sparkline
    return templates


@cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
