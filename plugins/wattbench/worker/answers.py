"""Answers of the agent's verbs: types, and the check of what a host sends.

``facts`` is not among them: :func:`wattbench.analysis.model.run_document.read_facts` checks it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NotRequired

from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from wattbench.analysis.model.facts_document import DOCUMENT, first_fault

#: An answer, or a part of one, that another reader checks.
Json = dict[str, Any]
#: An attempt's report; :class:`wattbench.analysis.model.attempt_report.AttemptReport` alone reads its fields.
ReportDocument = dict[str, object]


@with_config(DOCUMENT)
class LeaseAnswer(TypedDict):
    """Of ``lease``: who has the host.

    Attributes:
        held: whether a lease stands that has not expired.
        active: the attempt that runs.
        reclaimed: the owner of an expired lease, and what of it was ended.
    """

    held: bool
    owner: str | None
    active: str | None
    reclaimed: dict[str, object] | None


@with_config(DOCUMENT)
class WarmAnswer(TypedDict):
    """Of ``warm``: how long the burner has run, the host's temperature and power, and its GPUs'."""

    running: bool
    elapsed_s: float
    temperature_c: float | None
    power_w: float | None
    gpu_temperature_c: NotRequired[float | None]
    gpu_power_w: NotRequired[float | None]


@with_config(DOCUMENT)
class QuietAnswer(TypedDict):
    """Of ``quiet``: whether the host is back at its idle level.

    Attributes:
        rested_s: time since the last window.
        busy: whether an attempt is in its window.
        readings: levels by name; None: not readable.
        why: what is above the idle level.
    """

    quiet: bool
    rested_s: float
    busy: bool
    readings: dict[str, float | None]
    why: str


@with_config(DOCUMENT)
class StartAnswer(TypedDict):
    """Of ``start``: ``started``, or ``attached`` to the attempt of that id; where it lies, if it is over."""

    state: str
    path: str
    over: NotRequired[bool]


@with_config(DOCUMENT)
class WaitAnswer(TypedDict):
    """Of ``wait`` and ``finish``; ``report`` where the attempt is over."""

    over: bool
    path: NotRequired[str]
    report: NotRequired[ReportDocument]


@with_config(DOCUMENT)
class StatusAnswer(TypedDict):
    """Of ``status``: ``running``, ``over`` (then with ``path`` and ``report``) or ``unknown``."""

    state: str
    path: NotRequired[str]
    report: NotRequired[ReportDocument]


@with_config(DOCUMENT)
class ListedAttempt(TypedDict):
    """An attempt that lies on the host; ``state`` is ``running`` or ``over``."""

    id: str
    state: str


@with_config(DOCUMENT)
class ListAnswer(TypedDict):
    """Of ``list``."""

    attempts: list[ListedAttempt]


@with_config(DOCUMENT)
class CleanupAnswer(TypedDict):
    """Of ``cleanup``: ids of the attempts that were ended."""

    attempts: list[str]


@with_config(DOCUMENT)
class PackagesAnswer(TypedDict):
    """Of ``packages``: those of a Python, and their SHA-256."""

    packages: list[str]
    sha256: str


_TYPES: dict[str, Any] = {
    "lease": LeaseAnswer, "warm": WarmAnswer, "quiet": QuietAnswer, "start": StartAnswer,
    "wait": WaitAnswer, "finish": WaitAnswer, "status": StatusAnswer, "list": ListAnswer,
    "cleanup": CleanupAnswer, "packages": PackagesAnswer,
}  # fmt: skip


@cache
def _checker(verb: str) -> TypeAdapter[Any] | None:
    return TypeAdapter(_TYPES[verb]) if verb in _TYPES else None


def fault(verb: str, answer: object) -> str | None:
    """The first field of an answer that is missing or of another type than agreed; None: all fit."""
    checker = _checker(verb)
    if checker is None:
        return None
    try:
        checker.validate_python(answer)
    except ValidationError as error:
        return first_fault(error)
    return None
