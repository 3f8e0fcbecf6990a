"""Codes that no check finds: comparisons of runs and audits of published tables report them."""

from __future__ import annotations

from wattbench.analysis.checks.registry import code
from wattbench.analysis.model.finding_codes import Severity

CARRY_OVER = code(
    "carry-over",
    Severity.WARNING,
    place=175,
    meaning="The trial executed before leaves an effect on the next one's energy.",
    why="Images that often follow an image of high energy appear to need more than they do.",
    action="Lengthen protocol.rest, or set protocol.order: williams, which balances the preceding image.",
)

REGRESSION = code(
    "regression",
    Severity.ERROR,
    place=180,
    meaning="An image needs more energy than in earlier runs of the same host.",
    why="A change of the image or of the host made the same work more expensive.",
    action="Look at what changed on the night named: digest, driver, kernel; measure the old digest again.",
)

POWER_IMPLAUSIBLE = code(
    "power-implausible",
    Severity.ERROR,
    place=85,
    meaning="The metered power is none that the part can have.",
    why="A unit was misread: absolute joules are wrong by its factor, and shares of domains with them.",
    action="Measure again with a current version of the meter; compare with another meter.",
)

ROW_UNTRACEABLE = code(
    "row-untraceable",
    Severity.ERROR,
    place=280,
    meaning="A derived row has no raw file or log line that supports it.",
    why="A published number without a source can't be checked.",
    action="Find the run it came from, or drop it.",
)
