"""Answers of the agent's verbs: what is not as agreed is named."""

from __future__ import annotations

from typing import Any

import pytest

from wattbench.worker.answers import fault

LEASE: dict[str, Any] = {"held": True, "owner": "r", "active": None, "reclaimed": None}


def test_an_answer_with_more_than_was_agreed_fits() -> None:
    assert fault("lease", {"ok": True, **LEASE, "expires_unix_s": 1.0}) is None


@pytest.mark.parametrize(
    ("verb", "answer", "why"),
    [
        ("lease", LEASE | {"held": "yes"}, "held: Input should be a valid boolean"),
        ("lease", {k: v for k, v in LEASE.items() if k != "owner"}, "owner: Field required"),
        ("wait", {"over": True, "report": []}, "report: Input should be a valid dictionary"),
        ("list", {"attempts": [{"path": "/x"}]}, "attempts.0.id: Field required"),
        ("quiet", [], "Input should be a valid dictionary"),
    ],
)
def test_the_first_field_that_does_not_fit_is_named(verb: str, answer: Any, why: str) -> None:
    assert why in str(fault(verb, answer))


def test_verbs_that_others_check_are_left_to_them() -> None:
    assert fault("facts", {}) is None
