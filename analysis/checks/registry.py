"""The registry of checks: each is declared by a decorator, beside the code that it finds.

A check is a generator of :class:`Found` and :class:`Unknown`: it yields every cause that it sees, and
nothing where all is well. Modules of ``analysis/checks/rules`` are imported with the registry, and so are
the entry points of the group ``wattbench.checks``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wattbench.analysis.checks.facts import Campaign
from wattbench.analysis.checks.outcome import Outcome, Outcomes, merged
from wattbench.analysis.model.finding_codes import CODES, Code, Severity
from wattbench.analysis.model.records import Record

#: Entry points that add checks: modules that declare them when they are imported.
GROUP = "wattbench.checks"

KINDS = ("workload", "idle", "control")


@dataclass(frozen=True)
class TrialCheck:
    """A check of one trial.

    Attributes:
        code: the finding's code.
        probe: looks at one record.
        kinds: kinds of trial that it applies to.
        fine: what can be said when nothing is found.
        example: makes a sound trial one that has the fault.
    """

    code: str
    probe: Callable[[Record], Outcomes]
    kinds: tuple[str, ...]
    fine: str
    example: Callable[[Record], Record]

    def outcome(self, record: Record) -> Outcome | None:
        """Of one trial; None: not found."""
        return merged(self.code, self.probe(record))


@dataclass(frozen=True)
class CampaignCheck:
    """A check of all trials together.

    Attributes:
        code: the finding's code.
        probe: looks at the campaign; what it yields may be about a trial, an image or a host.
        fine: what can be said when nothing is found.
        example: makes a sound live run a campaign that has the fault.
        statistical: judges drift and outliers without regard to blocks.
        live: looks at what the check of a live run's hosts found; an import has nothing of the kind.
    """

    code: str
    probe: Callable[[Campaign], Outcomes]
    fine: str
    example: Callable[[Campaign], Campaign]
    statistical: bool
    live: bool


_TRIAL: list[TrialCheck] = []
_CAMPAIGN: list[CampaignCheck] = []


def code(
    name: str,
    severity: Severity,
    *,
    meaning: str,
    why: str,
    action: str,
    place: int = 1000,
    shared: bool = False,
) -> Code:
    """Declare a code; see :class:`Code`.

    Raises:
        ValueError: another one has its name.
    """
    return CODES.declare(Code(name, severity, meaning, why, action, place, shared))


def check(
    of: Code,
    *,
    fine: str,
    example: Callable[[Record], Record],
    kinds: tuple[str, ...] = KINDS,
) -> Callable[[Callable[[Record], Outcomes]], Callable[[Record], Outcomes]]:
    """Declare a check of one trial; see :class:`TrialCheck`."""

    def declare(probe: Callable[[Record], Outcomes]) -> Callable[[Record], Outcomes]:
        _TRIAL.append(TrialCheck(of.name, probe, kinds, fine, example))
        return probe

    return declare


def campaign_check(
    of: Code,
    *,
    fine: str,
    example: Callable[[Campaign], Campaign],
    statistical: bool = False,
    live: bool = False,
) -> Callable[[Callable[[Campaign], Outcomes]], Callable[[Campaign], Outcomes]]:
    """Declare a check of a whole campaign or run; see :class:`CampaignCheck`."""

    def declare(probe: Callable[[Campaign], Outcomes]) -> Callable[[Campaign], Outcomes]:
        _CAMPAIGN.append(CampaignCheck(of.name, probe, fine, example, statistical, live))
        return probe

    return declare


def trial_checks() -> tuple[TrialCheck, ...]:
    """Every check of one trial, in the order of pages."""
    places = {name: place for place, name in enumerate(CODES)}
    return tuple(sorted(_TRIAL, key=lambda c: places[c.code]))


def campaign_checks() -> tuple[CampaignCheck, ...]:
    """Every check of a whole campaign, in the order of pages."""
    places = {name: place for place, name in enumerate(CODES)}
    return tuple(sorted(_CAMPAIGN, key=lambda c: places[c.code]))
