"""One set of checks for live runs and imported campaigns.

Each check ends as found, not-found or undecidable; the last is shown and never taken for fine. ``rules``
holds the checks by family, ``judge`` applies them. A module of another distribution declares more with
:func:`code`, :func:`check` and :func:`campaign_check`, and names itself in an entry point of the group
``wattbench.checks``.
"""

from wattbench.analysis.checks.facts import Campaign, Facts, HostFacts, Planned, Problem
from wattbench.analysis.checks.judge import (
    apply,
    check_campaign,
    check_over_time,
    check_trial,
    judge,
)
from wattbench.analysis.checks.outcome import Found, Outcomes, Unknown
from wattbench.analysis.checks.registry import campaign_check, check, code

__all__ = [
    "Campaign", "Facts", "Found", "HostFacts", "Outcomes", "Planned", "Problem", "Unknown", "apply",
    "campaign_check", "check", "check_campaign", "check_over_time", "check_trial", "code", "judge",
]  # fmt: skip
