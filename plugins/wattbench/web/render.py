"""HTML of the pages: self-contained, without anything that a strict content policy would refuse."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from wattbench.analysis.presentation import html
from wattbench.progress import spoken
from wattbench.web import PREFIX

_FOLDER = Path(__file__).with_name("templates")

#: The report is served as it was written: its own styles and pictures, the script of this version's
#: reports by its hash, no other script, no other origin.
REPORT_POLICY = (
    f"default-src 'none'; style-src 'unsafe-inline'; script-src {html.script_source()}; "
    "img-src 'self' data:; font-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


def page_policy(nonce: str) -> str:
    """What a page of ours may load: its own style and script, our reports, nothing else."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "connect-src 'self'; frame-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'self'"
    )


def page(name: str, base: str, **values: Any) -> tuple[str, str]:
    """A page and its content policy.

    Args:
        name: of the template.
        base: path that our links begin with.
        values: for the template.
    """
    nonce = secrets.token_urlsafe(16)
    context = {
        "base": base, "airflow": base.removesuffix(PREFIX), "nonce": nonce, "app_script": _app_script()
    }  # fmt: skip
    context |= values
    return html.render(f"{name}.html.j2", context, _FOLDER), page_policy(nonce)


def when(moment: datetime | None) -> str:
    """A time for people, UTC."""
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


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
def _app_script() -> str:
    return (_FOLDER / "app.js").read_text(encoding="utf-8")


_templates = html.environment(_FOLDER)
_templates.filters |= {"when": when, "spoken": spoken}
_templates.globals["sparkline"] = sparkline
