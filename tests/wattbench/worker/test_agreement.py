"""What two parts that may not import each other must agree on."""

from __future__ import annotations

import ast
from pathlib import Path

from wattbench import worker
from wattbench.analysis.checks.rules import clock
from wattbench.analysis.checks.rules.host import PROBLEMS
from wattbench.analysis.meters import registry
from wattbench.analysis.model.finding_codes import CODES
from wattbench.remote_meters import READERS, raw_file
from wattbench.worker import agent_bundle
from wattbench.worker.agent import limits, preflight

#: Problems whose severity is always hard: the host is refused, and no finding stands beside a number.
HARD = {"docker-unreachable", "meter-failed", "disk-full", "gpu-missing"}
PACKAGE = Path(worker.__file__).parents[1]


def soft_problems_of_the_controller() -> set[str]:
    """Codes in dict displays that also say ``"severity": "soft"``."""
    found = set()
    for path in [*(PACKAGE / "steps").rglob("*.py"), *(PACKAGE / "history").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Dict):
                items = {
                    key.value: value.value
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
                }
                if items.get("severity") == "soft":
                    found.add(items["code"])
    return found


def test_every_soft_problem_of_a_host_becomes_the_finding_that_fits_it() -> None:
    of_the_agent = {probe.code for probe in preflight.PROBES} - HARD
    of_the_controller = soft_problems_of_the_controller()
    assert {"clock-skew", "host-unsteady", "not-steady"} <= of_the_controller
    assert set(PROBLEMS) == of_the_agent | of_the_controller
    assert set(PROBLEMS.values()) <= set(CODES)


def test_a_step_of_the_clock_is_one_everywhere() -> None:
    assert clock.CLOCK_STEP_S == limits.CLOCK_STEP_S


def test_agent_and_analysis_know_the_same_meters_and_raw_files() -> None:
    assert {*agent_bundle.meter_kinds(), *READERS} == set(registry.meters())
    remote = map(raw_file, READERS)
    assert {*agent_bundle.raw_files(), *remote} == set(registry.raw_files())
