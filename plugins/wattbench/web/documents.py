"""Documents that a run's end has written, as far as the pages show them."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from wattbench.analysis.model.facts_document import DOCUMENT


@with_config(DOCUMENT)
class FindingDocument(TypedDict, total=False):
    """One row of a report's ``findings.json``, as far as the pages show it."""

    code: str
    verdict: str
    severity: str
    subject: str
    message: str
    action: str


@with_config(DOCUMENT)
class EventDocument(TypedDict):
    """One thing that was new in a run."""

    kind: str
    title: str
    text: str


@with_config(DOCUMENT)
class NewsDocument(TypedDict, total=False):
    """``news.json`` of a run: what was new, and the regressions that stand since."""

    events: list[EventDocument]
    regressions: dict[str, str]


@with_config(DOCUMENT)
class LevelChangeDocument(TypedDict):
    """One change of level in a series of nights."""

    host: str | None
    image: str
    of: str
    baseline: str | None
    first_night: str
    earliest: str
    latest: str
    change_pct: float
    lower_pct: float | None
    upper_pct: float | None
    nights_before: int
    nights_after: int
    confirmed: bool
    regression: bool


@with_config(DOCUMENT)
class NightsDocument(TypedDict, total=False):
    """``trends/summary.json`` of a run: the nights of its experiment up to then."""

    headline: str
    runs: list[dict[str, Any]]
    changes: list[LevelChangeDocument]


@cache
def findings() -> TypeAdapter[list[FindingDocument]]:
    """Reader of ``findings.json``."""
    return TypeAdapter(list[FindingDocument])


@cache
def news() -> TypeAdapter[NewsDocument]:
    """Reader of ``news.json``."""
    return TypeAdapter(NewsDocument)


@cache
def nights() -> TypeAdapter[NightsDocument]:
    """Reader of ``trends/summary.json``."""
    return TypeAdapter(NightsDocument)
